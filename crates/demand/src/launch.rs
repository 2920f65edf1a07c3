//! Forecasts of new items, from how items that were new before went on.

use rayon::prelude::*;

use super::collaborative::mix;
use super::distribution::{N_LEVELS, Quantiles, order_statistics};
use super::history::SalesHistory;
use super::statistics::median;

/// Weeks after its first sale in which an item is new.
pub const NEW_WEEKS: usize = 4;
/// Number of coefficients: constant, sales so far, age.
const N_TERMS: usize = 3;
/// Launches below which a regression says nothing.
const MIN_LAUNCHES: usize = 30;

/// A regression of ln(1 + units of the next weeks) on ln(1 + units so far) and the weeks since the first sale, mixed with the
/// item's own mean.
///
/// It is fitted by least squares on past launches and shifted so that half of them lie above it. The weight of the own mean is
/// the one with the least sum of absolute errors, in units, on the same launches.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LaunchModel {
    coefficients: [f64; N_TERMS],
    /// The weeks that it was fitted for; 0 in a snapshot of an earlier release, whose weight of the own mean is 0.
    #[serde(default)]
    weeks: usize,
    /// The weight of the own mean, in [0, 1].
    #[serde(default)]
    own_share: f64,
    /// The residuals of past launches, observed less fitted logarithm, at every level of [`Quantiles`].
    residuals: Vec<f32>,
    pub n_launches: usize,
}

/// A new item at an origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launch {
    /// Weeks since the week of the first sale, that week counted: 1 to [`NEW_WEEKS`].
    pub age_weeks: usize,
    pub units_so_far: f64,
}

impl Launch {
    /// Returns the launch of `item` if it is new at `origin`.
    pub fn of(history: &SalesHistory, item: usize, origin: usize, units: &mut Vec<f64>) -> Option<Self> {
        history.weekly_units(item, origin, units);
        let first = units.iter().position(|&unit| unit > 0.0)?;
        let age_weeks = origin - first;
        (age_weeks <= NEW_WEEKS).then(|| Self {
            age_weeks,
            units_so_far: units.iter().sum(),
        })
    }

    fn terms(self) -> [f64; N_TERMS] {
        [1.0, self.units_so_far.ln_1p(), self.age_weeks as f64]
    }

    /// Returns the units of `weeks` that sell as the mean of the weeks so far.
    fn own_mean(self, weeks: usize) -> f64 {
        self.units_so_far / self.age_weeks as f64 * weeks as f64
    }
}

impl LaunchModel {
    /// Fits the sales of the `weeks` after each week in which an item was new, where all of them lie before `origin`.
    ///
    /// `first_known_week`: launches before it are not launches but the beginning of the records. `None` with fewer than 30
    /// observations, or where they do not determine the coefficients.
    pub fn fit(history: &SalesHistory, first_known_week: usize, origin: usize, weeks: usize) -> Option<Self> {
        let launches = past_launches(history, first_known_week, origin, weeks);
        if launches.len() < MIN_LAUNCHES {
            return None;
        }
        let mut normal = [[0.0; N_TERMS + 1]; N_TERMS];
        for &(launch, sold) in &launches {
            let terms = launch.terms();
            for (row, &term) in normal.iter_mut().zip(&terms) {
                for (cell, &other) in row.iter_mut().zip(&terms) {
                    *cell += term * other;
                }
                row[N_TERMS] += term * sold.ln_1p();
            }
        }
        let mut model = Self {
            coefficients: solve(normal)?,
            weeks,
            own_share: 0.0,
            residuals: Vec::new(),
            n_launches: launches.len(),
        };
        let residual = |(launch, sold): &(Launch, f64)| sold.ln_1p() - logarithm(&model.coefficients, *launch);
        let shift = median(&mut launches.iter().map(residual).collect::<Vec<f64>>());
        model.coefficients[0] += shift;
        model.own_share = model.best_own_share(&launches);
        let residual = |(launch, sold): &(Launch, f64)| sold.ln_1p() - model.typical_units(*launch).ln_1p();
        let mut residuals: Vec<f64> = launches.iter().map(residual).collect();
        residuals.sort_unstable_by(f64::total_cmp);
        let residuals = order_statistics(&residuals).map(|residual| residual as f32);
        model.residuals = residuals.to_vec();
        Some(model)
    }

    /// Returns the weight of the own mean, in tenths, with the least sum of absolute errors on `launches`; the lowest of equal
    /// ones.
    fn best_own_share(&self, launches: &[(Launch, f64)]) -> f64 {
        const TENTHS: usize = 10;
        let mut errors = [0.0; TENTHS + 1];
        for &(launch, sold) in launches {
            let regression = self.regression(launch);
            for (tenths, error) in errors.iter_mut().enumerate() {
                let share = tenths as f64 / TENTHS as f64;
                *error += (mix(share, regression, launch.own_mean(self.weeks)) - sold).abs();
            }
        }
        let best = (0..errors.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b]));
        best.unwrap_or(0) as f64 / TENTHS as f64
    }

    fn regression(&self, launch: Launch) -> f64 {
        logarithm(&self.coefficients, launch).exp_m1().max(0.0)
    }

    /// Returns the units that `launch` usually sells in the weeks that the model was fitted for.
    pub fn typical_units(&self, launch: Launch) -> f64 {
        mix(self.own_share, self.regression(launch), launch.own_mean(self.weeks))
    }

    /// Returns the quantiles of the same units: the usual ones with the errors that these had on past launches.
    pub fn quantiles(&self, launch: Launch) -> Quantiles {
        let center = self.typical_units(launch).ln_1p();
        Quantiles::new(std::array::from_fn(|at| {
            (center + f64::from(self.residuals[at])).exp_m1().max(0.0)
        }))
    }

    /// Whether the model has the shape that [`fit`](Self::fit) gives it, and only finite numbers.
    pub fn is_valid(&self) -> bool {
        (0.0..=1.0).contains(&self.own_share)
            && self.residuals.len() == N_LEVELS
            && self.residuals.iter().all(|residual| residual.is_finite())
            && self.coefficients.iter().all(|coefficient| coefficient.is_finite())
    }
}

fn logarithm(coefficients: &[f64; N_TERMS], launch: Launch) -> f64 {
    coefficients.iter().zip(launch.terms()).map(|(a, b)| a * b).sum()
}

/// Returns every week in which an item was new, with the units of the `weeks` after it where all of them lie before `origin`.
pub fn past_launches(
    history: &SalesHistory,
    first_known_week: usize,
    origin: usize,
    weeks: usize,
) -> Vec<(Launch, f64)> {
    history
        .fitted_items()
        .map_init(Vec::new, |units, item| {
            let mut found = Vec::new();
            history.weekly_units(item, origin, units);
            let first = units.iter().position(|&unit| unit > 0.0);
            if let Some(first) = first.filter(|&first| first >= first_known_week) {
                for age_weeks in 1..=NEW_WEEKS {
                    let (begin, end) = (first + age_weeks, first + age_weeks + weeks);
                    if end <= origin {
                        let launch = Launch {
                            age_weeks,
                            units_so_far: units[..begin].iter().sum(),
                        };
                        found.push((launch, units[begin..end].iter().sum::<f64>()));
                    }
                }
            }
            found
        })
        .flatten_iter()
        .collect()
}

/// The errors of forecasts of new items at one origin.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LaunchErrors {
    pub origin: usize,
    pub n_items: usize,
    /// Σ |error| ÷ units sold of the usual units by [`LaunchModel`].
    pub regression_wape: f64,
    /// The same of the item's own mean so far.
    pub own_mean_wape: f64,
    /// The same of the mean of all past launches.
    pub class_mean_wape: f64,
}

/// Measures what new items sold in the `weeks` after `origin`. `None` where too few launches are known to fit on, or nothing new
/// was sold.
///
/// The history must hold those weeks.
pub fn launch_errors(
    history: &SalesHistory,
    first_known_week: usize,
    origin: usize,
    weeks: usize,
) -> Option<LaunchErrors> {
    let model = LaunchModel::fit(history, first_known_week, origin, weeks)?;
    let past = past_launches(history, first_known_week, origin, weeks);
    let class_mean = past.iter().map(|(_, sold)| sold).sum::<f64>() / past.len() as f64;
    let mut units = Vec::new();
    let (mut n_items, mut sold_units, mut errors) = (0, 0.0, [0.0; 3]);
    for item in 0..history.n_items() {
        let launch = Launch::of(history, item, origin, &mut units);
        let Some(launch) = launch.filter(|launch| origin - launch.age_weeks >= first_known_week) else {
            continue;
        };
        let sold = history.units_between(item, origin, origin + weeks);
        n_items += 1;
        sold_units += sold;
        for (error, forecast) in
            errors
                .iter_mut()
                .zip([model.typical_units(launch), launch.own_mean(weeks), class_mean])
        {
            *error += (forecast - sold).abs();
        }
    }
    let [regression_wape, own_mean_wape, class_mean_wape] = errors.map(|error| error / sold_units);
    (sold_units > 0.0).then_some(LaunchErrors {
        origin,
        n_items,
        regression_wape,
        own_mean_wape,
        class_mean_wape,
    })
}

/// Solves a symmetric positive definite system by elimination with pivots; `None` where it is singular.
fn solve(mut rows: [[f64; N_TERMS + 1]; N_TERMS]) -> Option<[f64; N_TERMS]> {
    const SINGULAR: f64 = 1e-9;
    for at in 0..N_TERMS {
        let pivot = (at..N_TERMS).max_by(|&a, &b| rows[a][at].abs().total_cmp(&rows[b][at].abs()))?;
        rows.swap(at, pivot);
        if rows[at][at].abs() < SINGULAR {
            return None;
        }
        let pivot_row = rows[at];
        for (other, row) in rows.iter_mut().enumerate() {
            if other != at {
                let factor = row[at] / pivot_row[at];
                row.iter_mut()
                    .zip(pivot_row)
                    .for_each(|(cell, pivot)| *cell -= factor * pivot);
            }
        }
    }
    Some(std::array::from_fn(|at| rows[at][N_TERMS] / rows[at][at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, history};

    /// Returns the weeks of 40 items that sell `weekly` units in each week from their launch on.
    fn steady_launches(weekly: impl Fn(i32) -> f64) -> Vec<Vec<f64>> {
        let of_item = |item: i32| {
            let launch = 5 + item as usize % 6;
            (0..30)
                .map(|week| if week < launch { 0.0 } else { weekly(item) })
                .collect()
        };
        (0..40).map(of_item).collect()
    }

    #[test]
    fn launches_that_go_on_as_before_are_learned() {
        // An item that is launched with u units a week goes on with u units a week.
        let history = history(&steady_launches(|item| f64::from(item % 8 + 1)));
        let model = LaunchModel::fit(&history, 1, 30, 8).unwrap();
        let check = |age_weeks: usize, weekly: f64| {
            let launch = Launch {
                age_weeks,
                units_so_far: weekly * age_weeks as f64,
            };
            let found = model.typical_units(launch);
            assert!(
                (found / (8.0 * weekly) - 1.0).abs() < 0.35,
                "{weekly} at age {age_weeks}: {found}"
            );
        };
        check(1, 5.0);
        check(2, 5.0);
        check(4, 5.0);
        assert_eq!(LaunchModel::fit(&history, 29, 30, 8), None);
    }

    #[test]
    fn launches_that_go_on_at_their_own_pace_are_forecast_by_their_own_mean() {
        // Every item goes on with what it began with, from 1 to 400 units a week: in logarithms a straight line through totals
        // of one to four weeks misses it.
        let history = history(&steady_launches(|item| f64::from(1 + item * item / 4)));
        let model = LaunchModel::fit(&history, 1, 30, 8).unwrap();
        assert_eq!(model.own_share, 1.0);
        let launch = Launch {
            age_weeks: 2,
            units_so_far: 90.0,
        };
        assert_near(model.typical_units(launch), 8.0 * 45.0, 1e-9);
        assert_near(model.quantiles(launch).at(0.5), 8.0 * 45.0, 0.01);
    }

    #[test]
    fn a_first_rush_is_not_taken_for_the_pace() {
        // Every item sells ten times as much in its first week as later.
        let launches: Vec<Vec<f64>> = (0..40)
            .map(|item| {
                let begin = 5 + item as usize % 6;
                let units = move |week: usize| match week {
                    _ if week < begin => 0.0,
                    _ if week == begin => f64::from(10 * (item % 8 + 1)),
                    _ => f64::from(item % 8 + 1),
                };
                (0..30).map(units).collect()
            })
            .collect();
        let model = LaunchModel::fit(&history(&launches), 1, 30, 8).unwrap();
        assert_eq!(model.own_share, 0.0);
        let launch = Launch {
            age_weeks: 1,
            units_so_far: 40.0,
        };
        assert!((model.typical_units(launch) / 32.0 - 1.0).abs() < 0.2);
    }

    #[test]
    fn systems_are_solved() {
        let found = solve([[0.0, 2.0, 1.0, 7.0], [2.0, 1.0, 0.0, 4.0], [1.0, 0.0, 3.0, 10.0]]).unwrap();
        assert_near(found[0], 1.0, 1e-12);
        assert_near(found[1], 2.0, 1e-12);
        assert_near(found[2], 3.0, 1e-12);
        assert_eq!(
            solve([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]),
            None
        );
    }
}
