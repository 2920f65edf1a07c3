//! How much to order, and when: decisions from the distribution of demand.
//!
//! Stock is reviewed every R days, and an order placed at a review arrives L days later; so an order must cover the demand of
//! L + R days. `demand` is everywhere a function that returns the distribution of demand of a number of days.
//!
//! Source: Silver, Pyke & Thomas 2017, "Inventory and Production Management in Supply Chains", ch. 6–7.

use std::collections::BinaryHeap;

use super::distribution::{MAX_WEEKS, Quantiles};

/// Longest lead time and review period together, and longest cover, in days.
pub const MAX_DAYS: f64 = (MAX_WEEKS * 7) as f64;
/// Most units of a quantity: beyond this a number no longer tells single units apart, and sums would not stay finite.
pub const MAX_UNITS: f64 = 1e15;
/// Stands in for a review period of 0 where demand of a review period is needed.
const CONTINUOUS_REVIEW_DAYS: f64 = 1.0;
/// Level of the demand of the cover horizon above which stock is too much.
pub const OVERSTOCK_LEVEL: f64 = 0.9;
/// Weeks without a sale after which stock is dead.
pub const DEAD_WEEKS: usize = 13;
/// Below this the demand of a review period counts as this, so that a rate of it is defined.
const LEAST_DEMAND: f64 = 1e-9;

/// The service that stock is held for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ServiceGoal {
    /// The probability, in (0, 1), that no demand between two arrivals is lost.
    CycleServiceLevel(f64),
    /// The share of demand, in (0, 1), that is served from stock.
    FillRate(f64),
}

/// How an item is ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    pub lead_time_days: f64,
    /// 0: the position is watched all the time.
    pub review_period_days: f64,
    pub goal: ServiceGoal,
    /// Units; an order is at least so large.
    pub min_order_quantity: f64,
    /// Units, at least 1; an order is a multiple of it.
    pub order_multiple: f64,
    /// No order raises the position above the expected demand of so many days, at most [`MAX_DAYS`].
    pub max_cover_days: f64,
}

/// Why a policy cannot be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    #[error("{field} must be between 0 and 1, both excluded, and is {value}")]
    Share { field: &'static str, value: f64 },
    #[error("{field} must be {least} to {}, and is {value:?}", bound(*most))]
    Quantity {
        field: &'static str,
        least: f64,
        most: f64,
        value: f64,
    },
    #[error("lead_time_days and review_period_days must be at most {MAX_DAYS} together, and are {days}")]
    Horizon { days: f64 },
    #[error("max_cover_days must be at most {MAX_DAYS}, and is {days}")]
    Cover { days: f64 },
}

/// Writes a bound shortly.
pub(super) fn bound(most: f64) -> String {
    match most >= MAX_UNITS {
        true => format!("{most:e}"),
        false => most.to_string(),
    }
}

impl Policy {
    /// Checks the ranges that the fields name.
    ///
    /// # Errors
    /// [`PolicyError`] names the first field that is out of range.
    pub fn check(&self) -> Result<(), PolicyError> {
        let check = |is_right: bool, field, least, most, value| match is_right {
            true => Ok(()),
            false => Err(PolicyError::Quantity {
                field,
                least,
                most,
                value,
            }),
        };
        // Too many days have errors of their own.
        let days = |field, value: f64| check(value.is_finite() && value >= 0.0, field, 0.0, MAX_DAYS, value);
        let units =
            |field, least, value: f64| check((least..=MAX_UNITS).contains(&value), field, least, MAX_UNITS, value);
        let (field, value) = match self.goal {
            ServiceGoal::CycleServiceLevel(level) => ("cycle_service_level", level),
            ServiceGoal::FillRate(rate) => ("fill_rate", rate),
        };
        if !(value > 0.0 && value < 1.0) {
            return Err(PolicyError::Share { field, value });
        }
        days("lead_time_days", self.lead_time_days)?;
        days("review_period_days", self.review_period_days)?;
        units("min_order_quantity", 0.0, self.min_order_quantity)?;
        units("order_multiple", 1.0, self.order_multiple)?;
        days("max_cover_days", self.max_cover_days)?;
        let days = self.lead_time_days + self.review_period_days;
        if days > MAX_DAYS {
            return Err(PolicyError::Horizon { days });
        }
        match self.max_cover_days > MAX_DAYS {
            true => Err(PolicyError::Cover {
                days: self.max_cover_days,
            }),
            false => Ok(()),
        }
    }
}

/// Units that have been ordered and have not arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    pub quantity: f64,
    /// Days from now; below 0 the order is late.
    pub in_days: f64,
}

/// The stock of an item now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stock {
    pub on_hand: f64,
    /// Units that customers wait for.
    pub backordered: f64,
    pub arrivals: Vec<Arrival>,
}

impl Stock {
    /// Returns the units on order.
    pub fn on_order(&self) -> f64 {
        units(self.arrivals.iter())
    }

    /// Returns the inventory position: on hand plus on order minus backordered.
    pub fn position(&self) -> f64 {
        self.on_hand + self.on_order() - self.backordered
    }

    /// Returns the units that can be sold within `days`. Late orders are taken to arrive.
    fn available_within(&self, days: f64) -> f64 {
        let arriving = self.arrivals.iter().filter(|arrival| arrival.in_days <= days);
        self.on_hand - self.backordered + units(arriving)
    }

    /// Returns the units of orders that should have arrived.
    pub fn late_units(&self) -> f64 {
        let late = self.arrivals.iter().filter(|arrival| arrival.in_days < 0.0);
        units(late)
    }
}

/// Returns the units of `arrivals`; 0 for none, where `sum` would return -0.
fn units<'a>(arrivals: impl Iterator<Item = &'a Arrival>) -> f64 {
    arrivals.fold(0.0, |units, arrival| units + arrival.quantity)
}

/// The levels that a policy asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StockLevels {
    /// An order raises the position to this.
    pub order_up_to: f64,
    /// Below this position an order is due.
    pub reorder_point: f64,
    /// The units in `order_up_to` beyond the expected demand of lead time and review period.
    pub safety_stock: f64,
}

/// Returns the levels that `policy` asks for.
pub fn stock_levels(policy: &Policy, demand: impl Fn(f64) -> Quantiles) -> StockLevels {
    let is_continuous = policy.review_period_days == 0.0;
    let covered_days = policy.lead_time_days + policy.review_period_days;
    let order_up_to = match policy.goal {
        ServiceGoal::CycleServiceLevel(level) => demand(covered_days).at(level),
        ServiceGoal::FillRate(rate) => {
            let review_days = match is_continuous {
                true => CONTINUOUS_REVIEW_DAYS,
                false => policy.review_period_days,
            };
            let whole = demand(policy.lead_time_days + review_days);
            fill_rate_level(rate, &demand(policy.lead_time_days), &whole)
        }
    };
    let reorder_point = match policy.goal {
        ServiceGoal::CycleServiceLevel(level) if is_continuous => demand(policy.lead_time_days).at(level),
        _ => order_up_to,
    };
    StockLevels {
        order_up_to,
        reorder_point,
        safety_stock: order_up_to - demand(covered_days).mean(),
    }
}

/// Returns the smallest level S such that from it on the expected loss of a review period, E(D_whole − S)⁺ − E(D_lead − S)⁺,
/// is at most the share 1 − `rate` of its expected demand; 0 where no demand is expected.
fn fill_rate_level(rate: f64, lead: &Quantiles, whole: &Quantiles) -> f64 {
    if whole.mean() <= 0.0 {
        return 0.0;
    }
    let allowed = (1.0 - rate) * (whole.mean() - lead.mean()).max(LEAST_DEMAND);
    let loss = |level: f64| whole.expected_excess(level) - lead.expected_excess(level);
    // The loss is linear between these.
    let mut corners: Vec<f64> = lead.values().iter().chain(whole.values()).copied().collect();
    corners.push(0.0);
    corners.sort_unstable_by(|a, b| b.total_cmp(a));
    corners.dedup();
    let mut above = corners[0];
    let mut loss_above = loss(above);
    for &corner in &corners[1..] {
        let loss_here = loss(corner);
        if loss_here > allowed {
            let share = (allowed - loss_above) / (loss_here - loss_above);
            return above + share * (corner - above);
        }
        (above, loss_above) = (corner, loss_here);
    }
    0.0
}

/// Why the recommended quantity is not simply what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantityReason {
    /// The position is not below the reorder point.
    NotDue,
    /// The quantity is what raises the position to the order-up-to level.
    Missing,
    RaisedToMinimum,
    RoundedToMultiple,
    /// Less was recommended, for more would cover longer than the policy allows.
    ReducedToCover,
    /// Nothing was recommended, for the smallest order would cover longer than the policy allows.
    MinimumExceedsCover,
}

/// Units to order, and why so many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantity {
    pub units: f64,
    pub reason: QuantityReason,
}

/// Returns the units to order at `position`.
///
/// `cover_units`: the expected demand of the longest cover that the policy allows.
pub fn order_quantity(policy: &Policy, levels: &StockLevels, position: f64, cover_units: f64) -> Quantity {
    let none = |reason| Quantity { units: 0.0, reason };
    let missing = levels.order_up_to - position;
    if position >= levels.reorder_point || missing <= 0.0 {
        return none(QuantityReason::NotDue);
    }
    let least = missing.max(policy.min_order_quantity);
    let rounded = (least / policy.order_multiple).ceil() * policy.order_multiple;
    if position + rounded > cover_units {
        let capped = ((cover_units - position) / policy.order_multiple).floor() * policy.order_multiple;
        return match capped >= policy.min_order_quantity && capped > 0.0 {
            true => Quantity {
                units: capped,
                reason: QuantityReason::ReducedToCover,
            },
            false => none(QuantityReason::MinimumExceedsCover),
        };
    }
    let reason = match () {
        () if rounded > least => QuantityReason::RoundedToMultiple,
        () if least > missing => QuantityReason::RaisedToMinimum,
        () => QuantityReason::Missing,
    };
    Quantity { units: rounded, reason }
}

/// The risks of the present stock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StockRisks {
    /// Probability that demand of the lead time exceeds what can be sold within it.
    pub stock_out_probability: f64,
    /// Days until the expected demand exceeds what can be sold by then; `None` beyond [`MAX_DAYS`].
    pub stock_out_in_days: Option<u32>,
    pub late_units: f64,
    /// Units beyond what will be sold within the longest cover, but for one case in ten.
    pub overstock_units: f64,
    /// Whether there is stock and no sale in [`DEAD_WEEKS`].
    pub is_dead: bool,
}

/// Returns the risks of `stock`.
///
/// `weeks_since_sale`: `None` where the item has never sold.
pub fn stock_risks(
    policy: &Policy,
    stock: &Stock,
    weeks_since_sale: Option<usize>,
    demand: impl Fn(f64) -> Quantiles,
) -> StockRisks {
    let available = stock.available_within(policy.lead_time_days);
    let cover = demand(policy.max_cover_days).at(OVERSTOCK_LEVEL);
    let runs_out = |days: &u32| demand(f64::from(*days)).mean() > stock.available_within(f64::from(*days));
    StockRisks {
        stock_out_probability: match available < 0.0 {
            true => 1.0,
            false => demand(policy.lead_time_days).probability_above(available),
        },
        stock_out_in_days: first_day(runs_out),
        late_units: stock.late_units(),
        overstock_units: (stock.position() - cover).max(0.0),
        is_dead: stock.on_hand > 0.0 && weeks_since_sale.is_none_or(|weeks| weeks >= DEAD_WEEKS),
    }
}

/// Returns the first day for which `holds`; whole weeks are tried first, as days between them only interpolate.
fn first_day(holds: impl Fn(&u32) -> bool) -> Option<u32> {
    if holds(&0) {
        return Some(0);
    }
    let weeks = (1..=MAX_WEEKS as u32).map(|week| week * 7);
    let end = weeks.into_iter().find(|day| holds(day))?;
    (end - 6..=end).find(holds)
}

/// An item that could be ordered from a budget.
#[derive(Debug, Clone)]
pub struct BudgetLine {
    pub position: f64,
    /// Units that would be ordered without a budget.
    pub wanted_units: f64,
    pub min_order_quantity: f64,
    pub order_multiple: f64,
    /// Cost of a unit in minor units of the budget's currency, above 0.
    pub unit_cost_minor: f64,
    /// Demand of lead time and review period.
    pub demand: Quantiles,
}

/// Returns the units to order of each of `lines` so that the expected units sold per money are the most, within
/// `budget_minor`: the next step of an order goes to the line where it adds most for its cost.
pub fn allocate_budget(lines: &[BudgetLine], budget_minor: f64) -> Vec<f64> {
    let mut ordered = vec![0.0; lines.len()];
    let mut left = budget_minor;
    let mut steps: BinaryHeap<Step> = (0..lines.len())
        .filter_map(|line| Step::after(lines, line, 0.0))
        .collect();
    while let Some(step) = steps.pop() {
        if step.cost_minor > left {
            continue;
        }
        left -= step.cost_minor;
        ordered[step.line] += step.units;
        steps.extend(Step::after(lines, step.line, ordered[step.line]));
    }
    ordered
}

/// The next units of a line.
#[derive(Debug, Clone, Copy)]
struct Step {
    line: usize,
    units: f64,
    cost_minor: f64,
    /// Units that will be sold in addition, for each minor unit of money.
    gain: f64,
}

impl Step {
    fn after(lines: &[BudgetLine], line: usize, ordered: f64) -> Option<Self> {
        let of = &lines[line];
        let first = (of.min_order_quantity / of.order_multiple).ceil() * of.order_multiple;
        let units = match ordered > 0.0 {
            true => of.order_multiple,
            false => first.max(of.order_multiple),
        };
        if ordered + units > of.wanted_units {
            return None;
        }
        let stock = of.position + ordered;
        let sold = of.demand.expected_excess(stock) - of.demand.expected_excess(stock + units);
        let cost_minor = units * of.unit_cost_minor;
        Some(Self {
            line,
            units,
            cost_minor,
            gain: sold / cost_minor,
        })
    }
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.gain.total_cmp(&other.gain).then(other.line.cmp(&self.line))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Step {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distribution::levels;
    use crate::testing::assert_near;

    /// Uniform between 0 and twice `daily` units a day.
    fn uniform(daily: f64) -> impl Fn(f64) -> Quantiles + Copy {
        move |days| Quantiles::new(levels().map(|level| 2.0 * daily * days * level))
    }

    const POLICY: Policy = Policy {
        lead_time_days: 7.0,
        review_period_days: 7.0,
        goal: ServiceGoal::CycleServiceLevel(0.9),
        min_order_quantity: 0.0,
        order_multiple: 1.0,
        max_cover_days: 182.0,
    };

    #[test]
    fn nothing_on_order_is_no_negative_number() {
        let stock = Stock::default();
        for units in [stock.on_order(), stock.late_units(), stock.position()] {
            assert_eq!(units.to_string(), "0");
        }
    }

    #[test]
    fn levels_follow_the_goal() {
        let found = stock_levels(&POLICY, uniform(1.0));
        assert_near(found.order_up_to, 28.0 * 0.9, 1e-9);
        assert_eq!(found.reorder_point, found.order_up_to);
        assert_near(found.safety_stock, 28.0 * 0.9 - 14.0, 0.01);

        let continuous = Policy {
            review_period_days: 0.0,
            ..POLICY
        };
        let found = stock_levels(&continuous, uniform(1.0));
        assert_near(found.reorder_point, 14.0 * 0.9, 1e-9);

        // E(D₁₄ − S)⁺ = (28 − S)² / 56 and E(D₇ − S)⁺ = (14 − S)⁺² / 28: .5 of 7 units are lost at S ≥ 14 where
        // (28 − S)² = 28.
        let fill = Policy {
            goal: ServiceGoal::FillRate(1.0 - 0.5 / 7.0),
            ..POLICY
        };
        assert_near(
            stock_levels(&fill, uniform(1.0)).order_up_to,
            28.0 - 28.0_f64.sqrt(),
            0.05,
        );
        assert_eq!(stock_levels(&fill, uniform(0.0)).order_up_to, 0.0);
    }

    #[test]
    fn quantities_honor_minimum_multiple_and_cover() {
        let levels = StockLevels {
            order_up_to: 30.0,
            reorder_point: 30.0,
            safety_stock: 5.0,
        };
        let check = |min_order_quantity, order_multiple, position, cover, units, reason| {
            let policy = Policy {
                min_order_quantity,
                order_multiple,
                ..POLICY
            };
            let found = order_quantity(&policy, &levels, position, cover);
            assert_eq!(found, Quantity { units, reason }, "{policy:?} at {position}");
        };
        check(0.0, 1.0, 20.0, 100.0, 10.0, QuantityReason::Missing);
        check(0.0, 1.0, 30.0, 100.0, 0.0, QuantityReason::NotDue);
        check(12.0, 1.0, 20.0, 100.0, 12.0, QuantityReason::RaisedToMinimum);
        check(0.0, 6.0, 20.0, 100.0, 12.0, QuantityReason::RoundedToMultiple);
        check(0.0, 6.0, 20.0, 31.0, 6.0, QuantityReason::ReducedToCover);
        check(8.0, 6.0, 20.0, 27.0, 0.0, QuantityReason::MinimumExceedsCover);
        check(0.0, 1.0, 20.0, 10.0, 0.0, QuantityReason::MinimumExceedsCover);
    }

    #[test]
    fn risks_are_seen() {
        let stock = Stock {
            on_hand: 10.5,
            backordered: 2.0,
            arrivals: vec![
                Arrival {
                    quantity: 4.0,
                    in_days: -1.0,
                },
                Arrival {
                    quantity: 50.0,
                    in_days: 20.0,
                },
            ],
        };
        let found = stock_risks(&POLICY, &stock, Some(0), uniform(1.0));
        // 12.5 of the up to 14 units of the lead time.
        assert_near(found.stock_out_probability, 1.5 / 14.0, 1e-9);
        assert_eq!(found.stock_out_in_days, Some(13));
        assert_eq!(
            (found.late_units, found.overstock_units, found.is_dead),
            (4.0, 0.0, false)
        );

        let found = stock_risks(&POLICY, &stock, Some(13), uniform(0.1));
        assert_near(found.overstock_units, 62.5 - 2.0 * 0.1 * 182.0 * 0.9, 1e-9);
        assert!(found.is_dead);
        let waiting = Stock {
            backordered: 1.0,
            ..Stock::default()
        };
        let found = stock_risks(&POLICY, &waiting, None, uniform(0.0));
        assert_eq!((found.stock_out_probability, found.stock_out_in_days), (1.0, Some(0)));
    }

    #[test]
    fn a_budget_goes_where_a_unit_of_money_sells_most() {
        let line = |unit_cost_minor, daily: f64| BudgetLine {
            position: 0.0,
            wanted_units: 20.0,
            min_order_quantity: 0.0,
            order_multiple: 1.0,
            unit_cost_minor,
            demand: uniform(daily)(14.0),
        };
        let lines = [line(100.0, 1.0), line(50.0, 1.0), line(100.0, 0.0)];
        assert_eq!(allocate_budget(&lines, 500.0), [0.0, 10.0, 0.0]);
        let all = allocate_budget(&lines, 3_000.0);
        assert_eq!((all[0], all[1]), (20.0, 20.0));
        let by_minimum = BudgetLine {
            min_order_quantity: 8.0,
            order_multiple: 3.0,
            ..line(50.0, 1.0)
        };
        assert_eq!(allocate_budget(&[by_minimum], 649.0), [12.0]);
    }

    #[test]
    fn a_policy_out_of_range_names_the_field() {
        let check = |policy: Policy, expected: &str| assert_eq!(policy.check().unwrap_err().to_string(), expected);
        let goal = ServiceGoal::FillRate(1.0);
        check(
            Policy { goal, ..POLICY },
            "fill_rate must be between 0 and 1, both excluded, and is 1",
        );
        check(
            Policy {
                order_multiple: 0.5,
                ..POLICY
            },
            "order_multiple must be 1 to 1e15, and is 0.5",
        );
        check(
            Policy {
                min_order_quantity: 1e308,
                ..POLICY
            },
            "min_order_quantity must be 0 to 1e15, and is 1e308",
        );
        check(
            Policy {
                max_cover_days: f64::INFINITY,
                ..POLICY
            },
            "max_cover_days must be 0 to 182, and is inf",
        );
        check(
            Policy {
                lead_time_days: 180.0,
                ..POLICY
            },
            "lead_time_days and review_period_days must be at most 182 together, and are 187",
        );
        assert_eq!(POLICY.check(), Ok(()));
    }

    proptest! {
        #[test]
        fn levels_grow_with_the_goal_and_quantities_honor_the_policy(
            low in 0.02..0.97,
            step in 0.0..0.02,
            is_fill in any::<bool>(),
            review_period_days in prop_oneof![Just(0.0), 1.0..60.0],
            position in -20.0..300.0,
            min_order_quantity in 0.0..40.0,
            order_multiple in 1.0..12.0,
            daily in 0.0..4.0,
        ) {
            let goal = |level| match is_fill {
                true => ServiceGoal::FillRate(level),
                false => ServiceGoal::CycleServiceLevel(level),
            };
            let policy = Policy { review_period_days, min_order_quantity, order_multiple, goal: goal(low), ..POLICY };
            let lower = stock_levels(&policy, uniform(daily));
            let higher = stock_levels(&Policy { goal: goal(low + step), ..policy }, uniform(daily));
            prop_assert!(higher.order_up_to >= lower.order_up_to - 1e-9);

            let cover = uniform(daily)(policy.max_cover_days).mean();
            let Quantity { units, .. } = order_quantity(&policy, &lower, position, cover);
            prop_assert!(units == 0.0 || units >= min_order_quantity);
            prop_assert!((units / order_multiple - (units / order_multiple).round()).abs() < 1e-9);
            prop_assert!(units == 0.0 || position + units <= cover + 1e-9);
        }
    }
}
