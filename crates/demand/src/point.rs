//! The point forecast: a method for each class of demand, chosen by rolling-origin backtest.

use std::fmt;

use rayon::prelude::*;

use super::class::DemandClass;
use super::distribution::series;
use super::history::{MIN_WEEKS, SalesHistory};
use super::smoothing::{self, Power};

/// Weeks ahead over which methods are compared.
pub const HORIZON_WEEKS: usize = 8;
/// Weeks between the origins at which methods are compared, and the number of those origins.
const ORIGIN_STEP: usize = 4;
const N_ORIGINS: usize = 4;
/// Weeks of a year, for seasonal forecasts.
const YEAR_WEEKS: usize = 52;
/// Least number of weeks with sales of an item whose errors count, where the history is long.
const MIN_NONZERO: usize = 10;

/// A method that forecasts one series.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointMethod {
    /// The last week again.
    Naive,
    /// The same week of the year before.
    SeasonalNaive,
    MovingAverage {
        weeks: usize,
    },
    /// Simple exponential smoothing.
    Simple {
        alpha: f64,
    },
    /// Croston's method with Syntetos and Boylan's correction.
    SyntetosBoylan {
        alpha: f64,
    },
    TeunterSyntetosBabai {
        alpha_size: f64,
        alpha_probability: f64,
    },
    /// Intermittent multiple aggregation prediction.
    Imapa,
    /// Exponential smoothing of transformed weeks.
    Power {
        power: Power,
        alpha: f64,
        winsorized: bool,
    },
}

impl PointMethod {
    /// Returns all methods that compete, the simplest first: of equally good ones the first is chosen.
    pub fn candidates() -> Vec<Self> {
        let mut all = vec![Self::Naive, Self::SeasonalNaive];
        all.extend([4, 8, 13].map(|weeks| Self::MovingAverage { weeks }));
        all.extend([0.1, 0.2, 0.3].map(|alpha| Self::Simple { alpha }));
        all.push(Self::SyntetosBoylan { alpha: 0.1 });
        all.extend(
            [(0.1, 0.1), (0.2, 0.2), (0.1, 0.3)].map(|(alpha_size, alpha_probability)| Self::TeunterSyntetosBabai {
                alpha_size,
                alpha_probability,
            }),
        );
        all.push(Self::Imapa);
        let powers = [
            Power::Logarithm,
            Power::Exponent(1.0 / 3.0),
            Power::Exponent(0.5),
            Power::Exponent(2.0 / 3.0),
            Power::Exponent(1.0),
        ];
        for power in powers {
            for alpha in [0.1, 0.2, 0.3] {
                all.extend([false, true].map(|winsorized| Self::Power {
                    power,
                    alpha,
                    winsorized,
                }));
            }
        }
        all
    }

    /// Fills `forecast` with the expected units of the coming weeks.
    ///
    /// `units`: the series of an item; `winsorized`: the same, winsorized.
    pub fn forecast(self, units: &[f64], winsorized: &[f64], forecast: &mut [f64]) {
        let level = match self {
            Self::Naive => units[units.len() - 1],
            Self::SeasonalNaive => return seasonal_naive(units, forecast),
            Self::MovingAverage { weeks } => smoothing::moving_average(units, weeks),
            Self::Simple { alpha } => smoothing::simple(units, alpha),
            Self::SyntetosBoylan { alpha } => smoothing::syntetos_boylan(units, alpha),
            Self::TeunterSyntetosBabai {
                alpha_size,
                alpha_probability,
            } => smoothing::teunter_syntetos_babai(units, alpha_size, alpha_probability),
            Self::Imapa => smoothing::imapa(units),
            Self::Power {
                power,
                alpha,
                winsorized: is_winsorized,
            } => smoothing::power(if is_winsorized { winsorized } else { units }, power, alpha),
        };
        forecast.fill(level);
    }

    /// Whether the method needs `n_weeks` weeks of the history to compete at an origin.
    fn competes(self, n_weeks: usize) -> bool {
        self != Self::SeasonalNaive || n_weeks >= 2 * YEAR_WEEKS
    }
}

fn seasonal_naive(units: &[f64], forecast: &mut [f64]) {
    for (ahead, week) in forecast.iter_mut().enumerate() {
        let back = YEAR_WEEKS - ahead % YEAR_WEEKS;
        *week = units.len().checked_sub(back).map_or(0.0, |at| units[at]);
    }
}

impl fmt::Display for PointMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Naive => f.write_str("naive"),
            Self::SeasonalNaive => f.write_str("seasonal naive"),
            Self::MovingAverage { weeks } => write!(f, "moving average of {weeks} weeks"),
            Self::Simple { alpha } => write!(f, "exponential smoothing, α = {alpha}"),
            Self::SyntetosBoylan { alpha } => write!(f, "Croston–Syntetos–Boylan, α = {alpha}"),
            Self::TeunterSyntetosBabai {
                alpha_size,
                alpha_probability,
            } => write!(f, "Teunter–Syntetos–Babai, α = {alpha_size} and {alpha_probability}"),
            Self::Imapa => f.write_str("IMAPA"),
            Self::Power {
                power,
                alpha,
                winsorized,
            } => {
                match power {
                    Power::Logarithm => write!(f, "exponential smoothing of logarithms, α = {alpha}")?,
                    Power::Exponent(exponent) => {
                        write!(f, "exponential smoothing to the power {exponent:.2}, α = {alpha}")?;
                    }
                }
                f.write_str(if *winsorized { ", winsorized" } else { "" })
            }
        }
    }
}

/// The method of each class, and how the choice was made.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PointMethods {
    /// In the order of [`DemandClass::ALL`].
    pub of_class: [PointMethod; 4],
    /// Origins at which the methods were compared, latest first; without any, every class takes the default.
    pub origins: Vec<usize>,
}

/// The method of a class about which no backtest says anything.
const DEFAULT: PointMethod = PointMethod::Power {
    power: Power::Exponent(0.5),
    alpha: 0.2,
    winsorized: true,
};

impl PointMethods {
    /// Chooses for each class the method with the least sum of absolute weekly errors over eight weeks, from the origins 8,
    /// 12, 16 and 20 weeks before `origin`, as far as 14 weeks lie before them.
    pub fn fit(history: &SalesHistory, origin: usize) -> Self {
        let origins: Vec<usize> = backtest_origins(origin).collect();
        let candidates: Vec<PointMethod> = PointMethod::candidates();
        let mut sums = [(); 4].map(|()| vec![0.0; candidates.len()]);
        for &past in &origins {
            let competing: Vec<bool> = candidates.iter().map(|method| method.competes(past)).collect();
            for (class, errors) in errors_at(history, past, origin, &candidates) {
                for (at, error) in errors.into_iter().enumerate() {
                    sums[class.at()][at] += if competing[at] { error } else { f64::INFINITY };
                }
            }
        }
        let of_class = sums.map(|sums| {
            let best = sums.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
            match best {
                Some((at, &least)) if least > 0.0 && least.is_finite() => candidates[at],
                _ => DEFAULT,
            }
        });
        Self { of_class, origins }
    }

    pub fn of(&self, class: DemandClass) -> PointMethod {
        self.of_class[class.at()]
    }
}

/// Returns the origins of the backtest at `origin`, the latest first.
pub(super) fn backtest_origins(origin: usize) -> impl Iterator<Item = usize> {
    let all = (0..N_ORIGINS).filter_map(move |step| origin.checked_sub(HORIZON_WEEKS + step * ORIGIN_STEP));
    all.filter(|&past| past >= MIN_WEEKS)
}

/// Returns the least number of weeks with sales of an item whose errors count at `past`.
pub(super) fn min_nonzero_at(past: usize) -> usize {
    MIN_NONZERO.min((past / 3).max(4))
}

/// Returns the sum of absolute errors of every candidate for each item that sells, in the order of the items: what `past`
/// would have forecast against what `origin` knows.
fn errors_at(
    history: &SalesHistory,
    past: usize,
    origin: usize,
    candidates: &[PointMethod],
) -> Vec<(DemandClass, Vec<f64>)> {
    let min_nonzero = min_nonzero_at(past);
    let errors_of = |scratch: &mut [Vec<f64>; 3], item: usize| {
        let [units, winsorized, sold] = scratch;
        let is_active = series(history, item, past, units);
        if !is_active || units.iter().filter(|&&unit| unit > 0.0).count() < min_nonzero {
            return None;
        }
        winsorized.clone_from(units);
        smoothing::winsorize(winsorized);
        history.weekly_units(item, origin, sold);
        let actual = &sold[past..past + HORIZON_WEEKS];
        let mut forecast = [0.0; HORIZON_WEEKS];
        let errors = candidates.iter().map(|candidate| {
            candidate.forecast(units, winsorized, &mut forecast);
            forecast.iter().zip(actual).map(|(f, a)| (f - a).abs()).sum()
        });
        Some((DemandClass::of(units), errors.collect()))
    };
    history
        .fitted_items()
        .map_init(Default::default, errors_of)
        .flatten_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::history;

    #[test]
    fn the_method_that_errs_least_is_chosen() {
        let steady = vec![vec![7.0; 40]; 3];
        let methods = PointMethods::fit(&history(&steady), 40);
        assert_eq!(methods.origins, [32, 28, 24, 20]);
        // Every method is without error there, so that the choice says nothing.
        assert_eq!(methods.of(DemandClass::Smooth), DEFAULT);

        // The mean of four weeks is the constant that errs least.
        let repeating: Vec<f64> = [4.0, 6.0, 6.0, 8.0].repeat(10);
        let methods = PointMethods::fit(&history(&[repeating]), 40);
        assert_eq!(methods.of(DemandClass::Smooth), PointMethod::MovingAverage { weeks: 4 });
    }

    #[test]
    fn a_short_history_takes_the_default() {
        let methods = PointMethods::fit(&history(&[vec![3.0; 21]]), 21);
        assert_eq!((methods.origins.len(), methods.of_class), (0, [DEFAULT; 4]));
    }

    #[test]
    fn seasonal_forecasts_repeat_the_year() {
        let units: Vec<f64> = (0..60).map(f64::from).collect();
        let mut forecast = [0.0; 3];
        PointMethod::SeasonalNaive.forecast(&units, &units, &mut forecast);
        assert_eq!(forecast, [8.0, 9.0, 10.0]);
    }
}
