//! How good forecasts would have been: rolling origins, each forecast from what was known then.

use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal};

use super::class::DemandClass;
use super::distribution::{ErrorPools, RecentWeeks, Scratch, series, state};
use super::history::SalesHistory;
use super::point::{HORIZON_WEEKS, PointMethod, PointMethods};
use super::smoothing;

/// Weeks of which the reference distribution takes mean and standard deviation.
const NORMAL_WEEKS: usize = 13;

/// The errors of one method at one origin, over the items of one class or of all.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PointErrors {
    pub origin: usize,
    /// `None` for the items of all classes together.
    pub class: Option<DemandClass>,
    /// The name of the method; `chosen` for the one that was chosen for the item's class.
    pub method: String,
    pub n_items: usize,
    /// Σ |error| of all weeks ÷ units sold.
    pub wape: f64,
    /// The mean over the items of √(mean squared error ÷ mean squared change from week to week before the origin).
    pub rmsse: f64,
    /// Σ error ÷ units sold; above 0 where forecasts are too high.
    pub bias: f64,
}

/// The quality of the distribution of one horizon at one origin, over the items of one class or of all.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DistributionErrors {
    pub origin: usize,
    /// `None` for the items of all classes together.
    pub class: Option<DemandClass>,
    pub weeks: usize,
    pub n_items: usize,
    /// For each of the levels asked for.
    pub levels: Vec<LevelErrors>,
    /// (expected units − units sold) ÷ units sold.
    pub bias: f64,
}

impl DistributionErrors {
    /// Returns the mean of the pinball losses of all levels.
    pub fn mean_pinball(&self) -> f64 {
        self.levels.iter().map(|level| level.pinball).sum::<f64>() / self.levels.len() as f64
    }

    /// Returns the mean of the pinball losses of the normal distribution.
    pub fn mean_normal_pinball(&self) -> f64 {
        self.levels.iter().map(|level| level.normal_pinball).sum::<f64>() / self.levels.len() as f64
    }
}

/// The quality of the quantiles of one level.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct LevelErrors {
    pub level: f64,
    /// The share of items that sold no more than the quantile; right where it is the level.
    pub coverage: f64,
    /// Pinball loss ÷ units sold.
    pub pinball: f64,
    /// That of a normal distribution with mean and standard deviation of the last 13 weeks.
    pub normal_pinball: f64,
}

/// One item at one origin.
struct Case {
    item: usize,
    class: DemandClass,
    units: Vec<f64>,
    winsorized: Vec<f64>,
}

/// Returns the items that had sold in `min_nonzero` weeks and within the last half year.
fn cases(history: &SalesHistory, origin: usize, min_nonzero: usize) -> Vec<Case> {
    history
        .fitted_items()
        .filter_map(|item| {
            let mut units = Vec::new();
            let is_active = series(history, item, origin, &mut units);
            if !is_active || units.iter().filter(|&&unit| unit > 0.0).count() < min_nonzero {
                return None;
            }
            let mut winsorized = units.clone();
            smoothing::winsorize(&mut winsorized);
            Some(Case {
                item,
                class: DemandClass::of(&units),
                units,
                winsorized,
            })
        })
        .collect()
}

/// Measures the chosen methods and all that competed at `origin`, over the eight weeks after it.
///
/// `min_nonzero`: weeks with sales that an item must have had. The history must hold those eight weeks.
pub fn point_errors(history: &SalesHistory, origin: usize, min_nonzero: usize) -> Vec<PointErrors> {
    let chosen = PointMethods::fit(history, origin);
    let cases = cases(history, origin, min_nonzero);
    let mut rows = Vec::new();
    let mut measure = |name: &str, method_of: &(dyn Fn(DemandClass) -> PointMethod + Sync)| {
        let errors: Vec<ItemErrors> = cases
            .par_iter()
            .map(|case| ItemErrors::of(history, origin, case, method_of(case.class)))
            .collect();
        for class in std::iter::once(None).chain(DemandClass::ALL.map(Some)) {
            let of_class = cases
                .iter()
                .zip(&errors)
                .filter(|(case, _)| class.is_none_or(|class| case.class == class));
            rows.extend(summarize(origin, class, name, of_class.map(|(_, errors)| errors)));
        }
    };
    measure("chosen", &|class| chosen.of(class));
    for method in PointMethod::candidates() {
        measure(&method.to_string(), &|_| method);
    }
    rows
}

#[derive(Debug, Clone, Copy)]
struct ItemErrors {
    absolute: f64,
    signed: f64,
    sold: f64,
    /// Scaled; `None` for a series that never changed.
    root_mean_square: Option<f64>,
}

impl ItemErrors {
    fn of(history: &SalesHistory, origin: usize, case: &Case, method: PointMethod) -> Self {
        let mut forecast = [0.0; HORIZON_WEEKS];
        method.forecast(&case.units, &case.winsorized, &mut forecast);
        let mut sold = Vec::new();
        history.weekly_units(case.item, origin + HORIZON_WEEKS, &mut sold);
        let errors = forecast
            .iter()
            .zip(&sold[origin..])
            .map(|(forecast, sold)| forecast - sold);
        let changes = case.units.windows(2).map(|pair| (pair[1] - pair[0]).powi(2));
        let scale = changes.sum::<f64>() / (case.units.len() - 1) as f64;
        let mean_square = errors.clone().map(|error| error * error).sum::<f64>() / HORIZON_WEEKS as f64;
        Self {
            absolute: errors.clone().map(f64::abs).sum(),
            signed: errors.sum(),
            sold: sold[origin..].iter().sum(),
            root_mean_square: (scale > 0.0).then(|| (mean_square / scale).sqrt()),
        }
    }
}

fn summarize<'a>(
    origin: usize,
    class: Option<DemandClass>,
    method: &str,
    items: impl Iterator<Item = &'a ItemErrors>,
) -> Option<PointErrors> {
    let items: Vec<_> = items.collect();
    let sold: f64 = items.iter().map(|item| item.sold).sum();
    if sold <= 0.0 {
        return None;
    }
    let scaled: Vec<f64> = items.iter().filter_map(|item| item.root_mean_square).collect();
    Some(PointErrors {
        origin,
        class,
        method: method.to_owned(),
        n_items: items.len(),
        wape: items.iter().map(|item| item.absolute).sum::<f64>() / sold,
        rmsse: super::statistics::mean(&scaled),
        bias: items.iter().map(|item| item.signed).sum::<f64>() / sold,
    })
}

/// The forecast for one item and the units that it sold.
struct Forecasted {
    class: DemandClass,
    sold: f64,
    expected: f64,
    /// At each level the quantile and that of the reference.
    quantiles: Vec<[f64; 2]>,
}

/// Measures the quantiles of what items sell in the `weeks` after `origin`, at each of `asked` levels: first over all items,
/// then by class. Where nothing was sold there is no row.
///
/// `min_nonzero`: weeks with sales that an item must have had. The history must hold the weeks.
pub fn distribution_errors(
    history: &SalesHistory,
    origin: usize,
    weeks: usize,
    min_nonzero: usize,
    asked: &[f64],
) -> Vec<DistributionErrors> {
    let pools = ErrorPools::fit(history, origin);
    let normal = Normal::standard();
    let forecasted: Vec<Forecasted> = cases(history, origin, min_nonzero)
        .par_iter()
        .map_init(Scratch::default, |scratch, case| {
            let state = state(history, case.item, origin, scratch)?;
            let recent = RecentWeeks::of(history, case.item, origin);
            let quantiles = pools.quantiles(&state, &recent, weeks).quantiles;
            let sold = history.units_between(case.item, origin, origin + weeks);
            let (mean, deviation) = mean_and_deviation(&case.units[case.units.len() - NORMAL_WEEKS..]);
            let (mean, deviation) = (mean * weeks as f64, deviation * (weeks as f64).sqrt());
            let at_level = |&level: &f64| {
                let reference = (mean + normal.inverse_cdf(level) * deviation).max(0.0);
                [quantiles.at(level), reference]
            };
            Some(Forecasted {
                class: case.class,
                sold,
                expected: quantiles.mean(),
                quantiles: asked.iter().map(at_level).collect(),
            })
        })
        .flatten_iter()
        .collect();
    let of_class = |class: Option<DemandClass>| {
        let items: Vec<&Forecasted> = forecasted
            .iter()
            .filter(|item| class.is_none_or(|class| item.class == class))
            .collect();
        let (levels, bias) = level_errors(&items, asked)?;
        Some(DistributionErrors {
            origin,
            class,
            weeks,
            n_items: items.len(),
            levels,
            bias,
        })
    };
    let classes = std::iter::once(None).chain(DemandClass::ALL.map(Some));
    classes.filter_map(of_class).collect()
}

/// Returns the errors of each level, and the bias; `None` where nothing was sold.
fn level_errors(items: &[&Forecasted], asked: &[f64]) -> Option<(Vec<LevelErrors>, f64)> {
    let sold: f64 = items.iter().map(|item| item.sold).sum();
    if sold <= 0.0 {
        return None;
    }
    let expected: f64 = items.iter().map(|item| item.expected).sum();
    let levels = asked.iter().enumerate().map(|(at, &level)| {
        let loss = |side: usize| {
            let losses = items
                .iter()
                .map(|item| pinball(level, item.sold - item.quantiles[at][side]));
            losses.sum::<f64>() / sold
        };
        let covered = items.iter().filter(|item| item.sold <= item.quantiles[at][0] + 1e-9);
        LevelErrors {
            level,
            coverage: covered.count() as f64 / items.len() as f64,
            pinball: loss(0),
            normal_pinball: loss(1),
        }
    });
    Some((levels.collect(), (expected - sold) / sold))
}

fn pinball(level: f64, error: f64) -> f64 {
    (level * error).max((level - 1.0) * error)
}

/// Returns the mean of `values` and their standard deviation, with n − 1 in its denominator.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let mean = super::statistics::mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (values.len() as f64 - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, history};

    fn alternating() -> SalesHistory {
        let weekly = |low: f64, high: f64| (0..48).map(|week| if week % 2 == 0 { low } else { high }).collect();
        history(&[weekly(4.0, 6.0), weekly(8.0, 12.0)])
    }

    #[test]
    fn errors_are_those_of_the_forecasts() {
        let rows = point_errors(&alternating(), 40, 10);
        let of = |method: &str| {
            let row = rows.iter().find(|row| row.method == method && row.class.is_none());
            row.unwrap_or_else(|| panic!("no row of {method}")).clone()
        };
        // A mean of 5 where 4 and 6 come by turns, and of 10 where 8 and 12 do.
        let average = of("moving average of 4 weeks");
        assert_eq!(average.n_items, 2);
        assert_near(average.wape, 0.2, 1e-12);
        assert_near(average.bias, 0.0, 1e-12);
        assert_near(average.rmsse, 0.5, 1e-12);
        assert_eq!(of("chosen").wape, average.wape);
        // The last week is a high one.
        assert_near(of("naive").bias, 0.2, 1e-12);
    }

    #[test]
    fn the_distribution_is_measured_at_its_levels() {
        let found = distribution_errors(&alternating(), 40, 8, 10, &[0.5, 0.9]).remove(0);
        assert_eq!((found.n_items, found.levels.len()), (2, 2));
        // Eight weeks always sell the same, and the own sums know it.
        assert!(found.bias.abs() < 0.05, "{found:?}");
        assert!(found.levels.iter().all(|level| level.pinball < 0.05), "{found:?}");
    }

    #[test]
    fn a_quantile_too_low_costs_its_level() {
        assert_near(pinball(0.9, 2.0), 1.8, 1e-12);
        assert_near(pinball(0.9, -2.0), 0.2, 1e-12);
    }
}
