//! The demand that is forecast of one item, and of a group of items.

use super::class::DemandClass;
use super::collaborative::mix;
use super::distribution::{
    ACTIVE_WEEKS, Distribution, MAX_WEEKS, Quantiles, RecentWeeks, Scratch, poisson, series, state,
};
use super::history::SalesHistory;
use super::launch::Launch;
use super::model::DemandModel;
use super::point::PointMethod;
use super::smoothing;

/// Where the sales of one item stand.
#[derive(Debug, Clone, Copy)]
pub struct ItemSales<'a> {
    pub history: &'a SalesHistory,
    pub item: usize,
    /// Where the item stands in the model; `None` for an item that is newer.
    pub known_item: Option<usize>,
}

/// The data that the distribution of an item's demand rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The item's own weeks and the errors of like items.
    History,
    /// The further sales of items that were new before.
    Launch,
    /// The mean of the few weeks with sales.
    FewSales,
}

/// The demand of an item from an origin on.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemDemand {
    pub basis: Basis,
    pub class: DemandClass,
    /// The method of the point forecast; `None` for items without enough history.
    pub method: Option<PointMethod>,
    /// The share in the point forecast, in [0, 1], of what users are expected to buy.
    pub collaborative_weight: f64,
    /// Weeks since the week of the first sale, that week counted.
    pub history_weeks: usize,
    pub weeks_with_sales: usize,
    /// Whole weeks since that of the last sale: 0 if the item sold in the last one.
    pub weeks_since_sale: usize,
    /// The point forecast of each of the coming weeks, in units: the usual week, where the mean of [`Self::of_weeks`] counts
    /// rare large ones too.
    pub point_units: Vec<f64>,
    /// The demand of the next L weeks stands at L − 1.
    weeks: Vec<Distribution>,
}

impl ItemDemand {
    /// Forecasts the demand of up to `max_weeks` after `origin`. `None` for an item without any sale.
    ///
    /// `max_weeks`: in 1..=[`MAX_WEEKS`].
    pub fn forecast(
        model: &DemandModel,
        sales: ItemSales<'_>,
        origin: usize,
        max_weeks: usize,
        scratch: &mut Scratch,
    ) -> Option<Self> {
        let ItemSales { history, item, .. } = sales;
        let max_weeks = max_weeks.clamp(1, MAX_WEEKS);
        let mut units = Vec::new();
        history.weekly_units(item, origin, &mut units);
        let Some(first) = units.iter().position(|&unit| unit > 0.0) else {
            return first_week_under_way(model, sales, origin, max_weeks);
        };
        let last = units.iter().rposition(|&unit| unit > 0.0).unwrap_or(first);
        let weeks_with_sales = units.iter().filter(|&&unit| unit > 0.0).count();
        let launch = Launch::of(history, item, origin, &mut units);
        series(history, item, origin, &mut units);
        let (class, state) = (DemandClass::of(&units), state(history, item, origin, scratch));
        let (basis, mut weeks) = match (launch, state) {
            (Some(launch), _) => (Basis::Launch, launch_weeks(model, launch, max_weeks)),
            (None, Some(state)) => {
                let recent = RecentWeeks::of(history, item, origin);
                (
                    Basis::History,
                    model.fitted.pools.quantiles_of_weeks(&state, &recent, max_weeks),
                )
            }
            (None, None) => {
                let recent = &units[units.len().saturating_sub(ACTIVE_WEEKS)..];
                let level = recent.iter().sum::<f64>() / recent.len() as f64;
                (Basis::FewSales, rare_weeks(level, max_weeks))
            }
        };
        let (method, mut point_units) = match basis {
            Basis::History => point_forecast(model, class, &units, max_weeks),
            Basis::Launch => (
                None,
                launch.map_or_else(Vec::new, |launch| launch_points(model, launch, &weeks)),
            ),
            Basis::FewSales => (None, weekly_growth(weeks.iter().map(median))),
        };
        let collaborative_weight = match basis {
            Basis::History => mix_users(model, sales.known_item, class, &mut point_units),
            Basis::Launch | Basis::FewSales => 0.0,
        };
        scale(model, &mut weeks, &mut point_units);
        Some(Self {
            basis,
            class,
            method,
            collaborative_weight,
            history_weeks: origin - first,
            weeks_with_sales,
            weeks_since_sale: origin - 1 - last,
            point_units,
            weeks,
        })
    }

    /// Returns the demand of the next `weeks`.
    ///
    /// `weeks`: from 1 to what was forecast; more are answered as the most.
    pub fn of_weeks(&self, weeks: usize) -> &Quantiles {
        &self.weeks[weeks.clamp(1, self.weeks.len()) - 1].quantiles
    }

    /// Returns the demand of the next `days`, log-linear in 1 + units between weeks.
    pub fn of_days(&self, days: f64) -> Quantiles {
        let days = days.clamp(0.0, (self.weeks.len() * 7) as f64);
        let whole = (days / 7.0).floor();
        let share = days / 7.0 - whole;
        let whole = whole as usize;
        let below = match whole {
            0 => &Quantiles::NONE,
            weeks => self.of_weeks(weeks),
        };
        match share > 0.0 {
            true => below.toward(self.of_weeks(whole + 1), share),
            false => below.clone(),
        }
    }

    /// Names the method of the point forecast.
    pub fn method_name(&self) -> String {
        match (self.basis, self.method) {
            (Basis::Launch, _) => "regression on past launches".to_owned(),
            (Basis::History, Some(method)) => method.to_string(),
            (Basis::History | Basis::FewSales, _) => "mean of the last half year".to_owned(),
        }
    }

    /// Whether enough is known of like items for the highest quantile of the next `weeks`.
    pub fn is_certain(&self, weeks: usize) -> bool {
        self.basis == Basis::History && self.weeks[weeks.clamp(1, self.weeks.len()) - 1].is_certain
    }
}

/// Forecasts an item whose first sale is in the week that is not over.
fn first_week_under_way(
    model: &DemandModel,
    sales: ItemSales<'_>,
    origin: usize,
    max_weeks: usize,
) -> Option<ItemDemand> {
    let mut units = Vec::new();
    let launch = Launch::of(sales.history, sales.item, origin + 1, &mut units)?;
    let mut weeks = launch_weeks(model, launch, max_weeks);
    let mut point_units = launch_points(model, launch, &weeks);
    scale(model, &mut weeks, &mut point_units);
    Some(ItemDemand {
        basis: Basis::Launch,
        class: DemandClass::of(&units),
        method: None,
        collaborative_weight: 0.0,
        history_weeks: 0,
        weeks_with_sales: 0,
        weeks_since_sale: 0,
        point_units,
        weeks,
    })
}

fn scale(model: &DemandModel, weeks: &mut [Distribution], point_units: &mut [f64]) {
    let factor = model.scale();
    for week in weeks {
        week.quantiles = week.quantiles.scaled(factor);
    }
    point_units.iter_mut().for_each(|units| *units *= factor);
}

fn point_forecast(
    model: &DemandModel,
    class: DemandClass,
    units: &[f64],
    max_weeks: usize,
) -> (Option<PointMethod>, Vec<f64>) {
    let method = model.fitted.methods.of(class);
    let mut winsorized = units.to_vec();
    smoothing::winsorize(&mut winsorized);
    let mut forecast = vec![0.0; max_weeks];
    method.forecast(units, &winsorized, &mut forecast);
    (Some(method), forecast)
}

/// Mixes what users are expected to buy into a point forecast. Returns its weight, 0 for an item that the model does not know.
fn mix_users(model: &DemandModel, known_item: Option<usize>, class: DemandClass, point_units: &mut [f64]) -> f64 {
    let collaborative = &model.fitted.collaborative;
    let Some(item) = known_item else { return 0.0 };
    let (weight, component) = (collaborative.weight_of(class), collaborative.weekly_units(item));
    for units in point_units {
        *units = mix(weight, *units, component);
    }
    weight
}

/// Returns the growth of `totals`, the units of the next 1, 2, … weeks, with each week; 0 where they fall.
fn weekly_growth(totals: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut before = 0.0;
    let growth = |total: f64| {
        let total = total.max(before);
        total - std::mem::replace(&mut before, total)
    };
    totals.map(growth).collect()
}

fn median(week: &Distribution) -> f64 {
    week.quantiles.at(0.5)
}

/// Returns the usual units of each of the `weeks` of a new item.
fn launch_points(model: &DemandModel, launch: Launch, weeks: &[Distribution]) -> Vec<f64> {
    let totals = weeks.iter().zip(&model.fitted.launches);
    weekly_growth(totals.map(|(week, fitted)| match fitted {
        Some(fitted) => fitted.typical_units(launch),
        None => median(week),
    }))
}

fn launch_weeks(model: &DemandModel, launch: Launch, max_weeks: usize) -> Vec<Distribution> {
    let own_level = launch.units_so_far / launch.age_weeks as f64;
    let of = |weeks: usize| match &model.fitted.launches[weeks - 1] {
        Some(fitted) => fitted.quantiles(launch),
        None => poisson(own_level * weeks as f64),
    };
    growing((1..=max_weeks).map(of))
}

fn rare_weeks(level: f64, max_weeks: usize) -> Vec<Distribution> {
    growing((1..=max_weeks).map(|weeks| poisson(level * weeks as f64)))
}

/// Makes quantiles not fall where the horizon grows. None of them is certain.
fn growing(weeks: impl Iterator<Item = Quantiles>) -> Vec<Distribution> {
    let mut before = Quantiles::NONE;
    let grown = weeks.map(|quantiles| {
        before = quantiles.at_least(&before);
        Distribution {
            quantiles: before.clone(),
            is_certain: false,
        }
    });
    grown.collect()
}

/// Returns the demand of a group of items over the next 1, 2, … weeks: the sums that the group sold over as many weeks in the
/// past, multiplied so that their mean is what is expected of its items together. `None` where too few such sums are known.
///
/// `totals`: the units that the group sold in each past week, as [`SalesHistory::add_totals`] counts them. `expected_units`: of
/// all items together over the next 1, 2, … weeks.
pub fn group_demand(totals: &[f64], expected_units: &[f64]) -> Vec<Option<Quantiles>> {
    let recent = RecentWeeks::of_series(totals.iter().map(|units| units.max(0.0)).collect());
    let mut before = Quantiles::NONE;
    let of = |(weeks, &expected): (usize, &f64)| {
        let past = Quantiles::new(recent.quantiles_of_sums(weeks + 1)?);
        let mean = past.mean();
        (mean > 0.0).then(|| {
            before = past.scaled(expected / mean).at_least(&before);
            before.clone()
        })
    };
    expected_units.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Sale, SalesHistory};
    use crate::testing::{any_units, assert_near, history};

    fn fitted(units: &[Vec<f64>]) -> DemandModel {
        let history = history(units);
        let n_weeks = history.n_weeks();
        DemandModel::fit(history, 0, n_weeks, 0.0).unwrap()
    }

    fn forecast(model: &DemandModel, item: usize) -> Option<ItemDemand> {
        let history = &model.history;
        ItemDemand::forecast(
            model,
            ItemSales {
                history,
                item,
                known_item: Some(item),
            },
            model.origin,
            26,
            &mut Scratch::default(),
        )
    }

    #[test]
    fn the_basis_follows_what_is_known_of_the_item() {
        let steady = vec![5.0; 40];
        let new = [vec![0.0; 37], vec![4.0; 3]].concat();
        let rare = [vec![0.0; 20], vec![2.0], vec![0.0; 19]].concat();
        let never = vec![0.0; 40];
        let model = fitted(&[steady, new, rare, never]);
        let found = [0, 1, 2, 3].map(|item| forecast(&model, item).map(|found| (found.basis, found.history_weeks)));
        assert_eq!(
            found,
            [
                Some((Basis::History, 40)),
                Some((Basis::Launch, 3)),
                Some((Basis::FewSales, 20)),
                None
            ]
        );
        let steady = forecast(&model, 0).unwrap();
        assert_near(steady.of_weeks(4).mean(), 20.0, 0.5);
        assert_near(
            steady.of_days(10.0).at(0.5),
            (6.0_f64.ln() + 3.0 / 7.0 * (11.0_f64 / 6.0).ln()).exp() - 1.0,
            0.2,
        );
        assert_eq!(
            (steady.weeks_since_sale, forecast(&model, 2).unwrap().weeks_since_sale),
            (0, 19)
        );
        // Two units in the last 20 weeks, which are all that there are of the item.
        assert_near(forecast(&model, 2).unwrap().of_weeks(20).mean(), 2.0, 0.1);
    }

    #[test]
    fn an_item_first_sold_this_week_is_new() {
        let sales = [(0, 3), (1, 20)].map(|(item, week)| Sale {
            item,
            week,
            quantity: 6.0,
        });
        let history = SalesHistory::new(2, 21, &sales, &[], Vec::new()).unwrap();
        let model = DemandModel::fit(history, 0, 20, 0.0).unwrap();
        let found = forecast(&model, 1).unwrap();
        assert_eq!((found.basis, found.history_weeks), (Basis::Launch, 0));
        assert_near(found.of_weeks(2).mean(), 12.0, 0.2);
    }

    #[test]
    fn the_sales_that_are_left_out_are_made_up_for() {
        let history = history(&[vec![5.0; 40]]);
        let whole = DemandModel::fit(history.clone(), 0, 40, 0.0).unwrap();
        let half = DemandModel::fit(history, 0, 40, 0.5).unwrap();
        let [whole, half] = [whole, half].map(|model| forecast(&model, 0).unwrap());
        assert_near(half.of_weeks(3).mean(), 2.0 * whole.of_weeks(3).mean(), 1e-9);
        assert_near(half.point_units[0], 2.0 * whole.point_units[0], 1e-9);
    }

    #[test]
    fn a_group_is_expected_to_sell_what_its_items_are() {
        let totals: Vec<f64> = (0..40).map(|week| f64::from(100 + week % 5)).collect();
        let found = group_demand(&totals, &[51.0, 102.0, 153.0]);
        for (quantiles, expected) in found.iter().zip([51.0, 102.0, 153.0]) {
            let quantiles = quantiles.as_ref().unwrap();
            assert_near(quantiles.mean(), expected, 1e-9);
            assert!(quantiles.at(0.1) < expected && quantiles.at(0.95) > expected);
        }
        assert_eq!(group_demand(&totals[..6], &[51.0; 2])[1], None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_series_has_a_finite_demand_that_grows(units in prop::collection::vec(any_units(), 1..6)) {
            let history = history(&units);
            let n_weeks = history.n_weeks();
            let Ok(model) = DemandModel::fit(history, 0, n_weeks, 0.25) else { return Ok(()) };
            prop_assert_eq!(model.problem(), None);
            for item in 0..units.len() {
                let Some(found) = forecast(&model, item) else {
                    prop_assert!(units[item].iter().all(|&unit| unit == 0.0));
                    continue;
                };
                prop_assert!(found.point_units.iter().all(|units| units.is_finite() && *units >= 0.0));
                let mut before = Quantiles::NONE;
                for days in [0.0, 1.0, 7.0, 10.0, 21.0, 90.0, 182.0] {
                    let now = found.of_days(days);
                    prop_assert!(now.values().iter().all(|value| value.is_finite()));
                    prop_assert!(now.values().is_sorted());
                    prop_assert!(now.values().iter().zip(before.values()).all(|(now, before)| *now >= before - 1e-6 * before));
                    before = now;
                }
            }
        }
    }
}
