//! Compares the stock that order-up-to levels from forecasts need with that of the common rule mean + z · deviation · √L, at
//! equal fill rate, over past weeks; and how well the probabilities of stock-outs held.

use rayon::prelude::*;

use super::backtest::mean_and_deviation;
use super::distribution::{ErrorPools, Quantiles, RecentWeeks, Scratch, levels, state};
use super::history::{MIN_WEEKS, SalesHistory};
use super::replenishment::{MAX_DAYS, Policy, ServiceGoal, stock_levels};
use super::simulation::{Outcome, Replay, replay, stock_at};

/// The fill rates at which stocks are compared.
pub const FILL_RATES: [f64; 3] = [0.85, 0.9, 0.95];
/// Weeks of which the rule takes mean and deviation.
const RULE_WEEKS: usize = 13;
/// The service levels whose stocks are judged by their probabilities of a stock-out.
const JUDGED_LEVELS: [f64; 3] = [0.5, 0.8, 0.95];
/// Upper bounds of the bins of probabilities.
pub const PROBABILITY_BINS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 1.0];

/// The weeks to replay, and the sales that an item needs to take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComparisonOptions {
    pub replay: Replay,
    /// The least number of weeks with sales before the replay.
    pub min_nonzero: usize,
}

/// The stocks of both rules at one fill rate.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct StockComparison {
    pub fill_rate: f64,
    /// Mean units on the shelf.
    pub stock_units: f64,
    pub rule_stock_units: f64,
    /// The value of these units, at the same fill rate in units.
    pub stock_value: f64,
    pub rule_stock_value: f64,
}

impl StockComparison {
    /// Returns the share of the rule's units that are not needed.
    pub fn saved_units_share(&self) -> f64 {
        1.0 - self.stock_units / self.rule_stock_units
    }

    /// Returns the same of their value; `None` where nothing has a value.
    pub fn saved_value_share(&self) -> Option<f64> {
        (self.rule_stock_value > 0.0).then(|| 1.0 - self.stock_value / self.rule_stock_value)
    }
}

/// A target fill rate, and the fill rate that it would have realized.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RealizedFillRate {
    pub target: f64,
    pub realized: f64,
}

/// Stock-outs that were predicted with probabilities up to a bound and above that of the bin before.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct ProbabilityBin {
    pub up_to: f64,
    pub n: usize,
    /// The mean of the probabilities.
    pub predicted: f64,
    /// The share that came.
    pub observed: f64,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Comparison {
    pub n_items: usize,
    /// At each of [`FILL_RATES`] that both rules reach.
    pub stocks: Vec<StockComparison>,
    /// For each of [`FILL_RATES`].
    pub realized: Vec<RealizedFillRate>,
    pub stock_outs: Vec<ProbabilityBin>,
}

/// One item of the replay.
struct Replayed {
    units: Vec<f64>,
    unit_value: f64,
    /// For each week of the replay: the demand of lead time, and that of lead time and a week of review.
    demand: Vec<Option<[Quantiles; 2]>>,
}

/// Replays the weeks with both rules. `None` where no item has enough history before them.
///
/// `unit_values`: the value of a unit of each item; 0 where it is not known.
pub fn compare(history: &SalesHistory, unit_values: &[f64], options: &ComparisonOptions) -> Option<Comparison> {
    let replay = options.replay;
    if replay.first < MIN_WEEKS.max(RULE_WEEKS) {
        return None;
    }
    let items = replayed_items(history, unit_values, options);
    if items.is_empty() {
        return None;
    }
    let weeks = replay.lead_time_weeks + 1;
    let of_forecast = |level: f64| {
        total(&items, replay, |item, at| {
            item.demand[at]
                .as_ref()
                .map_or(0.0, |[_, whole]| whole.at(level).ceil())
        })
    };
    let of_rule = |z: f64| {
        total(&items, replay, |item, at| {
            let week = replay.first + at;
            let (mean, deviation) = mean_and_deviation(&item.units[week - RULE_WEEKS..week]);
            (mean * weeks as f64 + z * deviation * (weeks as f64).sqrt())
                .max(0.0)
                .ceil()
        })
    };
    let forecast: Vec<Outcome> = levels().map(of_forecast).to_vec();
    let rule: Vec<Outcome> = (-2..=16).map(|step| of_rule(f64::from(step) * 0.5)).collect();
    let stocks = FILL_RATES
        .iter()
        .filter_map(|&fill_rate| compare_at(fill_rate, &forecast, &rule));
    Some(Comparison {
        n_items: items.len(),
        stocks: stocks.collect(),
        realized: FILL_RATES.map(|target| realized(&items, replay, target)).to_vec(),
        stock_outs: stock_outs(&items, replay),
    })
}

fn replayed_items(history: &SalesHistory, unit_values: &[f64], options: &ComparisonOptions) -> Vec<Replayed> {
    let Replay { first, last, .. } = options.replay;
    let lead = options.replay.lead_time_weeks;
    let pools: Vec<ErrorPools> = (first..=last).map(|origin| ErrorPools::fit(history, origin)).collect();
    let of_item = |scratch: &mut Scratch, item: usize| {
        let mut units = Vec::new();
        history.weekly_units(item, last + 1, &mut units);
        let n_nonzero = units[..first].iter().filter(|&&unit| unit > 0.0).count();
        if n_nonzero < options.min_nonzero || state(history, item, first, scratch).is_none() {
            return None;
        }
        let at_origin = |(origin, pools): (usize, &ErrorPools)| {
            let state = state(history, item, origin, scratch)?;
            let recent = RecentWeeks::of(history, item, origin);
            let mut weeks = pools.quantiles_of_weeks(&state, &recent, lead + 1);
            let whole = weeks.pop()?.quantiles;
            Some([weeks.pop().map_or(Quantiles::NONE, |lead| lead.quantiles), whole])
        };
        Some(Replayed {
            unit_value: unit_values.get(item).copied().unwrap_or(0.0),
            demand: (first..=last).zip(&pools).map(at_origin).collect(),
            units,
        })
    };
    history
        .fitted_items()
        .map_init(Scratch::default, of_item)
        .flatten_iter()
        .collect()
}

/// Replays all items with these order-up-to levels of each week.
fn total(items: &[Replayed], options: Replay, level: impl Fn(&Replayed, usize) -> f64 + Sync) -> Outcome {
    let outcomes: Vec<Outcome> = items
        .par_iter()
        .map(|item| {
            let levels: Vec<f64> = (0..=options.last - options.first).map(|at| level(item, at)).collect();
            replay(options, &levels, &item.units, item.unit_value)
        })
        .collect();
    let mut total = Outcome::default();
    outcomes.into_iter().for_each(|outcome| total.add(outcome));
    total
}

fn compare_at(fill_rate: f64, forecast: &[Outcome], rule: &[Outcome]) -> Option<StockComparison> {
    let at = |outcomes: &[Outcome], of: fn(&Outcome) -> f64| {
        let points: Vec<(f64, f64)> = outcomes
            .iter()
            .map(|outcome| (outcome.fill_rate(), of(outcome)))
            .collect();
        stock_at(fill_rate, &points)
    };
    Some(StockComparison {
        fill_rate,
        stock_units: at(forecast, |outcome| outcome.stock_units)?,
        rule_stock_units: at(rule, |outcome| outcome.stock_units)?,
        stock_value: at(forecast, |outcome| outcome.stock_value)?,
        rule_stock_value: at(rule, |outcome| outcome.stock_value)?,
    })
}

fn realized(items: &[Replayed], replay: Replay, target: f64) -> RealizedFillRate {
    let policy = Policy {
        lead_time_days: 7.0 * replay.lead_time_weeks as f64,
        review_period_days: 7.0,
        goal: ServiceGoal::FillRate(target),
        min_order_quantity: 0.0,
        order_multiple: 1.0,
        max_cover_days: MAX_DAYS,
    };
    let outcome = total(items, replay, |item, at| {
        let Some([lead, whole]) = &item.demand[at] else {
            return 0.0;
        };
        let demand = |days: f64| match days > policy.lead_time_days {
            true => whole.clone(),
            false => lead.clone(),
        };
        stock_levels(&policy, demand).order_up_to.ceil()
    });
    RealizedFillRate {
        target,
        realized: outcome.fill_rate(),
    }
}

/// Compares the probability that the demand of the lead time exceeds what can be sold within it with whether it did. The units
/// that can be sold at a review are those that the order-up-to level of the week before has left: all of them arrive within the
/// lead time.
fn stock_outs(items: &[Replayed], replay: Replay) -> Vec<ProbabilityBin> {
    let lead = replay.lead_time_weeks.max(1);
    let mut bins = PROBABILITY_BINS.map(|up_to| (up_to, 0_usize, 0.0, 0.0));
    for item in items {
        for (at, pair) in item.demand.windows(2).enumerate() {
            let begin = replay.first + at + 1;
            let ([Some([_, before]), Some([of_lead, _])], true) = (pair, begin + lead <= replay.last + 1) else {
                continue;
            };
            let sold: f64 = item.units[begin..begin + lead].iter().sum();
            for level in JUDGED_LEVELS {
                let available = (before.at(level).ceil() - item.units[begin - 1]).max(0.0);
                let probability = of_lead.probability_above(available);
                if let Some(bin) = bins.iter_mut().find(|bin| probability <= bin.0) {
                    bin.1 += 1;
                    bin.2 += probability;
                    bin.3 += f64::from(u8::from(sold > available));
                }
            }
        }
    }
    let filled = bins.into_iter().filter(|(_, n, ..)| *n > 0);
    filled
        .map(|(up_to, n, predicted, observed)| ProbabilityBin {
            up_to,
            n,
            predicted: predicted / n as f64,
            observed: observed / n as f64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, history};

    #[test]
    fn steady_demand_needs_no_more_stock_than_the_rule() {
        let weekly: Vec<Vec<f64>> = (0..30)
            .map(|item| (0..44).map(|week| f64::from(4 + (week + item) % 3)).collect())
            .collect();
        let options = ComparisonOptions {
            replay: Replay {
                first: 26,
                last: 40,
                warm_up_weeks: 4,
                lead_time_weeks: 2,
            },
            min_nonzero: 8,
        };
        let found = compare(&history(&weekly), &[2.0; 30], &options).unwrap();
        assert_eq!(found.n_items, 30);
        for row in &found.realized {
            assert!(row.realized >= row.target - 0.02, "{row:?}");
        }
        for row in &found.stocks {
            assert_near(row.stock_value, 2.0 * row.stock_units, 1e-9);
        }
        let short = ComparisonOptions {
            replay: Replay {
                first: 12,
                ..options.replay
            },
            ..options
        };
        assert_eq!(compare(&history(&weekly), &[], &short), None);
    }
}
