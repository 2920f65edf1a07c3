//! The collaborative component: what users are expected to buy, by their own rates and by what is recommended to them, as a part
//! of the point forecast. Its weight is fitted by backtest, class by class; it is 0 where the component does not help.
//!
//! Source: docs/formulas.md, "Demand".

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::class::DemandClass;
use super::distribution::series;
use super::history::SalesHistory;
use super::point::{HORIZON_WEEKS, PointMethods, backtest_origins, min_nonzero_at};
use super::smoothing;

/// The weights that are tried, in tenths.
const N_WEIGHTS: usize = 11;
const N_CLASSES: usize = DemandClass::ALL.len();

/// The rates at which users buy, in order lines a week, before anything is known of a user: a gamma distribution.
///
/// Lines of a user in a time are taken to be Poisson, so that their number over all users is negative binomial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PurchaseRates {
    mean: f64,
    /// The weeks that the mean counts for; infinite where users do not differ by more than chance.
    prior_weeks: f64,
}

impl PurchaseRates {
    /// Fits mean and variance of the rates by the method of moments.
    ///
    /// `users`: order lines and observed weeks, above 0, of each user.
    pub fn fit(users: &[(f64, f64)]) -> Self {
        let lines: f64 = users.iter().map(|user| user.0).sum();
        let weeks: f64 = users.iter().map(|user| user.1).sum();
        let mean = if weeks > 0.0 { lines / weeks } else { 0.0 };
        let spread: f64 = users.iter().map(|&(lines, weeks)| (lines - mean * weeks).powi(2)).sum();
        let squared_weeks: f64 = users.iter().map(|user| user.1.powi(2)).sum();
        let variance = (spread - lines) / squared_weeks;
        Self {
            mean,
            prior_weeks: if variance > 0.0 { mean / variance } else { f64::INFINITY },
        }
    }

    /// Returns the expected order lines a week of a user with `lines` in `weeks`.
    pub fn expected(&self, lines: f64, weeks: f64) -> f64 {
        match self.prior_weeks.is_finite() {
            true => (self.mean * self.prior_weeks + lines) / (self.prior_weeks + weeks),
            false => self.mean,
        }
    }
}

/// The units that users are expected to buy in a week, by origin, then by item.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UserForecasts(BTreeMap<usize, Vec<f32>>);

impl UserForecasts {
    /// Makes them of a forecast for each of `origins`.
    ///
    /// # Errors
    /// The first that `forecast` has.
    pub fn new<E>(
        origins: impl IntoIterator<Item = usize>,
        forecast: impl Fn(usize) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let origins: BTreeSet<usize> = origins.into_iter().collect();
        let of = |origin| Ok((origin, forecast(origin)?));
        origins.into_iter().map(of).collect::<Result<_, E>>().map(Self)
    }

    /// Returns the forecasts of groups of items. `group_of`: per item; one out of range is of no group.
    pub fn grouped(&self, group_of: &[u32], n_groups: usize) -> Self {
        let sums = |weekly_units: &Vec<f32>| {
            let mut sums = vec![0.0; n_groups];
            for (&group, units) in group_of.iter().zip(weekly_units) {
                if let Some(sum) = sums.get_mut(group as usize) {
                    *sum += units;
                }
            }
            sums
        };
        Self(
            self.0
                .iter()
                .map(|(origin, weekly_units)| (*origin, sums(weekly_units)))
                .collect(),
        )
    }

    /// Returns the origins that a fit at `origin` needs, the latest first.
    pub fn origins(origin: usize) -> impl Iterator<Item = usize> {
        std::iter::once(origin).chain(backtest_origins(origin))
    }
}

/// The fitted weights, with what they were fitted on.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Collaborative {
    /// In the order of [`DemandClass::ALL`]: the share of the component in the point forecast, in [0, 1].
    pub weights: [f64; N_CLASSES],
    /// For all items, then for each class that has any: the errors with and without the component, at origins that the weights
    /// of the time were not fitted on. Empty where too little history is known.
    pub backtest: Vec<CollaborativeErrors>,
    /// Item and expected units a week, ascending by item; empty where all weights are 0.
    weekly_units: Vec<(u32, f32)>,
}

/// The point forecast with and without the component, over one or more origins.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CollaborativeErrors {
    /// `None` for the items of all classes together.
    pub class: Option<DemandClass>,
    /// The weight that was fitted before the latest origin; `None` for all classes.
    pub weight: Option<f64>,
    pub n_origins: usize,
    /// Items, each as often as it was forecast.
    pub n_items: usize,
    /// Σ |error| of all weeks ÷ units sold.
    pub wape_without: f64,
    /// The same with the weights that were fitted before each origin.
    pub wape_with: f64,
    /// The same of the component alone.
    pub wape_alone: f64,
}

impl Collaborative {
    /// Fits the weights on the eight weeks after each of the backtest's origins before `origin`, and measures them.
    ///
    /// `forecasts`: of [`UserForecasts::origins`].
    pub fn fit(history: &SalesHistory, origin: usize, forecasts: &UserForecasts) -> Self {
        let past = errors_by_origin(history, backtest_origins(origin), forecasts);
        let weights = weights_before(&past, origin);
        let used: Vec<usize> = past.keys().rev().copied().collect();
        let has_weight = weights.iter().any(|&weight| weight > 0.0);
        let present = forecasts.0.get(&origin).filter(|_| has_weight);
        let weekly_units = present.map_or_else(Vec::new, |units| {
            (0..)
                .zip(units.iter().copied())
                .filter(|&(_, units)| units > 0.0)
                .collect()
        });
        Self {
            weights,
            backtest: measure(&past, &used),
            weekly_units,
        }
    }

    /// Measures the weights fitted before each of `origins`, the latest first, whose next eight weeks the history must hold. Classes without any
    /// weights of their time count with the weight 0.
    pub fn backtest(history: &SalesHistory, origins: &[usize], forecasts: &UserForecasts) -> Vec<CollaborativeErrors> {
        let needed: BTreeSet<usize> = origins
            .iter()
            .flat_map(|&origin| UserForecasts::origins(origin))
            .collect();
        measure(&errors_by_origin(history, needed, forecasts), origins)
    }

    pub fn weight_of(&self, class: DemandClass) -> f64 {
        self.weights[class.at()]
    }

    /// Returns the expected units of an item in a week; 0 for one that was not known.
    pub fn weekly_units(&self, item: usize) -> f64 {
        let at = self
            .weekly_units
            .binary_search_by_key(&item, |&(item, _)| item as usize);
        at.map_or(0.0, |at| f64::from(self.weekly_units[at].1))
    }

    /// Whether all numbers are finite and in their range.
    pub fn is_valid(&self, n_items: usize) -> bool {
        let are_weights = self.weights.iter().all(|weight| (0.0..=1.0).contains(weight));
        let is_entry = |&(item, units): &(u32, f32)| (item as usize) < n_items && units.is_finite() && units >= 0.0;
        let is_measured = |errors: &CollaborativeErrors| {
            [errors.wape_without, errors.wape_with, errors.wape_alone]
                .iter()
                .all(|wape| wape.is_finite())
        };
        are_weights
            && self.weekly_units.is_sorted_by_key(|&(item, _)| item)
            && self.weekly_units.iter().all(is_entry)
            && self.backtest.iter().all(is_measured)
    }
}

/// Sums of absolute errors over eight weeks, by class, then weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct WeightErrors {
    absolute: [[f64; N_WEIGHTS]; N_CLASSES],
    sold: [f64; N_CLASSES],
    n_items: [usize; N_CLASSES],
}

impl WeightErrors {
    fn plus(mut self, other: &Self) -> Self {
        for class in 0..N_CLASSES {
            for (sum, error) in self.absolute[class].iter_mut().zip(other.absolute[class]) {
                *sum += error;
            }
            self.sold[class] += other.sold[class];
            self.n_items[class] += other.n_items[class];
        }
        self
    }
}

fn weight_at(position: usize) -> f64 {
    position as f64 / (N_WEIGHTS - 1) as f64
}

/// Returns the errors of the methods chosen at each origin, mixed with the component. Origins without a forecast are left out.
fn errors_by_origin(
    history: &SalesHistory,
    origins: impl IntoIterator<Item = usize>,
    forecasts: &UserForecasts,
) -> BTreeMap<usize, WeightErrors> {
    let origins = origins.into_iter();
    let known = origins.filter_map(|origin| Some((origin, forecasts.0.get(&origin)?)));
    let known = known.filter(|(origin, _)| origin + HORIZON_WEEKS <= history.n_weeks());
    known
        .map(|(origin, weekly_units)| (origin, errors_at(history, origin, weekly_units)))
        .collect()
}

fn errors_at(history: &SalesHistory, origin: usize, weekly_units: &[f32]) -> WeightErrors {
    let methods = PointMethods::fit(history, origin);
    let min_nonzero = min_nonzero_at(origin);
    let of_item = |[units, winsorized, sold]: &mut [Vec<f64>; 3], item: usize| {
        let is_active = series(history, item, origin, units);
        if !is_active || units.iter().filter(|&&unit| unit > 0.0).count() < min_nonzero {
            return None;
        }
        winsorized.clone_from(units);
        smoothing::winsorize(winsorized);
        history.weekly_units(item, origin + HORIZON_WEEKS, sold);
        let class = DemandClass::of(units);
        let mut forecast = [0.0; HORIZON_WEEKS];
        methods.of(class).forecast(units, winsorized, &mut forecast);
        let mut errors = WeightErrors::default();
        let component = weekly_units.get(item).map_or(0.0, |&units| f64::from(units));
        for (at, sum) in errors.absolute[class.at()].iter_mut().enumerate() {
            let mixed = forecast.iter().map(|units| mix(weight_at(at), *units, component));
            *sum = mixed
                .zip(&sold[origin..])
                .map(|(forecast, sold)| (forecast - sold).abs())
                .sum();
        }
        errors.sold[class.at()] = sold[origin..].iter().sum();
        errors.n_items[class.at()] = 1;
        Some(errors)
    };
    let of_items: Vec<WeightErrors> = history
        .fitted_items()
        .map_init(Default::default, of_item)
        .flatten_iter()
        .collect();
    // In the order of the items, so that the sum does not depend on the number of threads.
    of_items.iter().fold(WeightErrors::default(), WeightErrors::plus)
}

/// Mixes a point forecast with the component.
pub(super) fn mix(weight: f64, point_units: f64, component: f64) -> f64 {
    (1.0 - weight) * point_units + weight * component
}

/// Returns the weight of each class with the least sum of errors over those origins whose eight weeks were over at `origin`; of
/// equal ones the lowest, and 0 without such origins.
fn weights_before(errors: &BTreeMap<usize, WeightErrors>, origin: usize) -> [f64; N_CLASSES] {
    let over: BTreeSet<usize> = backtest_origins(origin).collect();
    let over = errors.iter().filter(|(past, _)| over.contains(past));
    let sums = over.fold(WeightErrors::default(), |sums, (_, errors)| sums.plus(errors));
    sums.absolute.map(|sums| {
        let best = sums.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0.0, |(at, _)| weight_at(at))
    })
}

/// Measures the weights fitted before each of `origins`, the latest first, that have any; first over all classes.
fn measure(errors: &BTreeMap<usize, WeightErrors>, origins: &[usize]) -> Vec<CollaborativeErrors> {
    let is_fitted = |origin: &&usize| backtest_origins(**origin).any(|past| errors.contains_key(&past));
    let measured: Vec<(&WeightErrors, [f64; N_CLASSES])> = origins
        .iter()
        .filter(is_fitted)
        .filter_map(|origin| Some((errors.get(origin)?, weights_before(errors, *origin))))
        .collect();
    let of_class = |class: Option<DemandClass>| {
        let classes: Vec<usize> = class.map_or((0..N_CLASSES).collect(), |class| vec![class.at()]);
        let sum = |of: &dyn Fn(&WeightErrors, &[f64; N_CLASSES], usize) -> f64| -> f64 {
            let all = measured
                .iter()
                .flat_map(|pair| classes.iter().map(move |&class| (pair, class)));
            all.map(|((errors, weights), class)| of(errors, weights, class)).sum()
        };
        let sold = sum(&|errors, _, class| errors.sold[class]);
        let position = |weight: f64| (weight * (N_WEIGHTS - 1) as f64).round() as usize;
        (sold > 0.0).then(|| CollaborativeErrors {
            class,
            weight: class
                .zip(measured.first())
                .map(|(class, (_, weights))| weights[class.at()]),
            n_origins: measured.len(),
            n_items: sum(&|errors, _, class| errors.n_items[class] as f64) as usize,
            wape_without: sum(&|errors, _, class| errors.absolute[class][0]) / sold,
            wape_with: sum(&|errors, weights, class| errors.absolute[class][position(weights[class])]) / sold,
            wape_alone: sum(&|errors, _, class| errors.absolute[class][N_WEIGHTS - 1]) / sold,
        })
    };
    let classes = std::iter::once(None).chain(DemandClass::ALL.map(Some));
    classes.filter_map(of_class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, history};

    #[test]
    fn rates_are_drawn_to_the_mean_where_little_is_known() {
        // Half of the users buy four lines a week, the others none: a variance of 4 beside the chance of a count.
        let users: Vec<(f64, f64)> = (0..1_000).map(|user| (f64::from(user % 2) * 40.0, 10.0)).collect();
        let rates = PurchaseRates::fit(&users);
        // Mean 2, variance (20² − 20) / 10² = 3.8.
        assert_near(rates.mean, 2.0, 1e-12);
        assert_near(rates.prior_weeks, 2.0 / 3.8, 1e-12);
        assert_near(rates.expected(0.0, 0.0), 2.0, 1e-12);
        assert_near(
            rates.expected(40.0, 10.0),
            (2.0 * 2.0 / 3.8 + 40.0) / (2.0 / 3.8 + 10.0),
            1e-12,
        );
        // Users who do not differ tell nothing of themselves.
        let equal = PurchaseRates::fit(&[(2.0, 1.0); 9]);
        assert_near(equal.expected(50.0, 10.0), 2.0, 1e-12);
        assert_near(PurchaseRates::fit(&[]).expected(3.0, 1.0), 0.0, 1e-12);
    }

    /// Thirty items that sell 4 a week up to week 19, and then 8.
    fn growing() -> SalesHistory {
        let weekly: Vec<f64> = (0..60).map(|week| if week < 20 { 4.0 } else { 8.0 }).collect();
        history(&vec![weekly; 30])
    }

    fn forecasts(of: impl Fn(usize) -> f32, origins: &[usize]) -> UserForecasts {
        let forecast = |origin| Ok::<_, ()>(vec![of(origin); 30]);
        UserForecasts::new(origins.iter().copied(), forecast).unwrap()
    }

    #[test]
    fn the_component_has_weight_where_it_helps_and_else_none() {
        let origins: Vec<usize> = UserForecasts::origins(40).collect();
        assert_eq!(origins, [40, 32, 28, 24, 20]);
        // Only users knew in week 20 that twice as much would sell; the methods of that week did not.
        let helpful = Collaborative::fit(&growing(), 40, &forecasts(|_| 8.0, &origins));
        assert!(helpful.weight_of(DemandClass::Smooth) > 0.9, "{helpful:?}");
        assert_eq!((helpful.weekly_units(29), helpful.weekly_units(30)), (8.0, 0.0));
        assert!(helpful.is_valid(30) && !helpful.is_valid(29));

        let useless = Collaborative::fit(&growing(), 40, &forecasts(|_| 100.0, &origins));
        assert_eq!(useless.weights, [0.0; 4]);
        assert_eq!(useless.weekly_units(0), 0.0);
        let all = useless.backtest[0];
        assert_eq!((all.class, all.n_origins), (None, 2));
        assert_eq!(all.wape_with, all.wape_without);
        assert!(all.wape_alone > 1.0, "{all:?}");
    }

    #[test]
    fn weights_are_measured_on_weeks_that_they_were_not_fitted_on() {
        // The component is right up to week 24, and wrong from then on.
        let of = |origin| if origin <= 24 { 8.0 } else { 100.0 };
        let origins: Vec<usize> = UserForecasts::origins(40).collect();
        let found = Collaborative::fit(&growing(), 40, &forecasts(of, &origins));
        let all = found.backtest[0];
        assert!(all.wape_with > all.wape_without, "{all:?}");
    }

    #[test]
    fn without_forecasts_there_is_no_weight() {
        let found = Collaborative::fit(&growing(), 40, &UserForecasts::default());
        assert_eq!(found, Collaborative::default());
        assert_eq!(
            Collaborative::backtest(&growing(), &[40], &UserForecasts::default()),
            []
        );
    }
}
