//! Measures forecasts at past origins.

use demand::backtest::{DistributionErrors, PointErrors, distribution_errors, point_errors};
use demand::history::{MIN_WEEKS, SalesHistory};
use demand::point::HORIZON_WEEKS;
use demand::quality::MEASURED_LEVELS;

/// Weeks between origins.
const ORIGIN_STEP: usize = 4;

#[derive(Debug, Clone, PartialEq)]
pub struct BacktestOptions {
    /// Origins, the latest first; there are fewer where the history is short.
    pub origins: usize,
    /// Weeks of which the sums are forecast.
    pub horizon_weeks: usize,
    /// The least number of weeks with sales of an item.
    pub min_weeks_with_sales: usize,
}

impl Default for BacktestOptions {
    fn default() -> Self {
        Self {
            origins: 3,
            horizon_weeks: 8,
            min_weeks_with_sales: 10,
        }
    }
}

/// The errors at every origin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Backtest {
    /// By origin, then method, then class.
    pub points: Vec<PointErrors>,
    /// By origin, then class.
    pub distributions: Vec<DistributionErrors>,
}

/// Returns the origins that `options` ask for, ascending: every fourth week, the last of them so that all weeks that are
/// forecast are over at `origin`.
pub fn origins(origin: usize, options: &BacktestOptions) -> Vec<usize> {
    let last = origin.checked_sub(options.horizon_weeks.max(HORIZON_WEEKS));
    let mut found: Vec<usize> = (0..options.origins)
        .filter_map(|step| last?.checked_sub(step * ORIGIN_STEP))
        .filter(|&past| past >= MIN_WEEKS + HORIZON_WEEKS)
        .collect();
    found.reverse();
    found
}

/// Forecasts from every origin with what was known then, on one core, so that other work goes on.
pub fn backtest(history: &SalesHistory, origin: usize, options: &BacktestOptions) -> Backtest {
    let measure = || measure(history, &origins(origin, options), options);
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(one_thread) => one_thread.install(measure),
        Err(_) => measure(),
    }
}

/// Measures at `origins`, on all cores.
pub fn measure(history: &SalesHistory, origins: &[usize], options: &BacktestOptions) -> Backtest {
    let mut found = Backtest::default();
    for &past in origins {
        found
            .points
            .extend(point_errors(history, past, options.min_weeks_with_sales));
        found.distributions.extend(distribution_errors(
            history,
            past,
            options.horizon_weeks,
            options.min_weeks_with_sales,
            &MEASURED_LEVELS,
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_leave_the_horizon_and_enough_to_fit_on() {
        let check = |origin: usize, n: usize, horizon_weeks: usize, expected: &[usize]| {
            let options = BacktestOptions {
                origins: n,
                horizon_weeks,
                ..BacktestOptions::default()
            };
            assert_eq!(origins(origin, &options), expected);
        };
        check(44, 3, 8, &[28, 32, 36]);
        check(44, 3, 3, &[28, 32, 36]);
        check(44, 3, 12, &[24, 28, 32]);
        check(31, 3, 8, &[23]);
        check(29, 3, 8, &[]);
        check(3, 3, 8, &[]);
    }
}
