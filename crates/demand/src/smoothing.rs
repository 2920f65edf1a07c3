//! Forecasts of one series: each function takes the units of consecutive weeks, oldest first, not empty, finite and at
//! least 0, and returns the expected units of each coming week.

use super::statistics::{mean, median, quantile};

/// Returns the level of simple exponential smoothing, which begins at the first value.
///
/// `alpha`: in (0, 1], the weight of the newest value.
///
/// Source: Brown 1959, "Statistical Forecasting for Inventory Control".
pub fn simple(units: &[f64], alpha: f64) -> f64 {
    units[1..]
        .iter()
        .fold(units[0], |level, unit| level + alpha * (unit - level))
}

/// The transformation that [`power`] smooths in.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Power {
    /// ln(1 + y).
    Logarithm,
    /// y to this exponent, in (0, 1].
    Exponent(f64),
}

impl Power {
    fn apply(self, units: f64) -> f64 {
        match self {
            Self::Logarithm => units.ln_1p(),
            Self::Exponent(exponent) => units.powf(exponent),
        }
    }

    fn invert(self, level: f64) -> f64 {
        match self {
            Self::Logarithm => level.exp_m1(),
            Self::Exponent(exponent) => level.powf(1.0 / exponent),
        }
    }
}

/// Returns the level of exponential smoothing of transformed values, transformed back: a level that a single large order
/// moves less.
pub fn power(units: &[f64], power: Power, alpha: f64) -> f64 {
    let first = power.apply(units[0]);
    let level = units[1..]
        .iter()
        .fold(first, |level, &unit| level + alpha * (power.apply(unit) - level));
    power.invert(level)
}

/// Returns the mean of the last `weeks` values, or of all where there are fewer.
pub fn moving_average(units: &[f64], weeks: usize) -> f64 {
    mean(&units[units.len().saturating_sub(weeks)..])
}

/// Returns Croston's forecast with Syntetos and Boylan's correction: the smoothed size of a demand over the smoothed
/// interval between demands, times 1 − α/2.
///
/// Source: Syntetos & Boylan 2005, "The accuracy of intermittent demand estimates".
pub fn syntetos_boylan(units: &[f64], alpha: f64) -> f64 {
    let mut state: Option<(f64, f64)> = None;
    let mut weeks_since = 0.0;
    for &unit in units {
        weeks_since += 1.0;
        if unit > 0.0 {
            state = Some(match state {
                None => (unit, weeks_since),
                Some((size, interval)) => (
                    size + alpha * (unit - size),
                    interval + alpha * (weeks_since - interval),
                ),
            });
            weeks_since = 0.0;
        }
    }
    state.map_or(0.0, |(size, interval)| (1.0 - alpha / 2.0) * size / interval)
}

/// Returns the forecast of Teunter, Syntetos and Babai: the smoothed size of a demand times its smoothed probability, which
/// begins at the share of weeks with a demand.
///
/// Source: Teunter, Syntetos & Babai 2011, "Intermittent demand: linking forecasting to inventory obsolescence".
pub fn teunter_syntetos_babai(units: &[f64], alpha_size: f64, alpha_probability: f64) -> f64 {
    let n_demands = units.iter().filter(|&&unit| unit > 0.0).count();
    teunter_syntetos_babai_from(
        n_demands as f64 / units.len() as f64,
        units,
        alpha_size,
        alpha_probability,
    )
}

/// Returns the same with a given first `probability`.
pub fn teunter_syntetos_babai_from(
    mut probability: f64,
    units: &[f64],
    alpha_size: f64,
    alpha_probability: f64,
) -> f64 {
    let mut size: Option<f64> = None;
    for &unit in units {
        if unit > 0.0 {
            size = Some(size.map_or(unit, |size| size + alpha_size * (unit - size)));
            probability += alpha_probability * (1.0 - probability);
        } else {
            probability -= alpha_probability * probability;
        }
    }
    size.map_or(0.0, |size| probability * size)
}

/// Returns the intermittent multiple aggregation prediction: the mean of the levels of exponential smoothing, each with the
/// α in [.1, .3] of least squared error, of sums of 1, 2, … weeks up to the mean interval between demands.
///
/// Source: Petropoulos & Kourentzes 2015, "Forecast combinations for intermittent demand".
pub fn imapa(units: &[f64]) -> f64 {
    let Some(last) = units.iter().rposition(|&unit| unit > 0.0) else {
        return 0.0;
    };
    let n_demands = units.iter().filter(|&&unit| unit > 0.0).count();
    let mean_interval = (last + 1) as f64 / n_demands as f64;
    let n_levels = (mean_interval.round_ties_even() as usize).max(1);
    let mut blocks = Vec::with_capacity(units.len());
    let mut sum = 0.0;
    for weeks in 1..=n_levels {
        blocks.clear();
        blocks.extend(
            units[units.len() % weeks..]
                .chunks_exact(weeks)
                .map(|block| block.iter().sum::<f64>()),
        );
        sum += optimal_simple(&blocks, 0.1, 0.3) / weeks as f64;
    }
    sum / n_levels as f64
}

/// Returns the level of exponential smoothing with the α in [`low`, `high`] of least squared one-step error, found by
/// golden-section search.
fn optimal_simple(units: &[f64], mut low: f64, mut high: f64) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    const STEPS: usize = 25;
    if units.len() == 1 {
        return units[0];
    }
    let (mut left, mut right) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
    let (mut left_error, mut right_error) = (squared_error(units, left), squared_error(units, right));
    for _ in 0..STEPS {
        if left_error < right_error {
            (high, right, right_error) = (right, left, left_error);
            left = high - GOLDEN * (high - low);
            left_error = squared_error(units, left);
        } else {
            (low, left, left_error) = (left, right, right_error);
            right = low + GOLDEN * (high - low);
            right_error = squared_error(units, right);
        }
    }
    simple(units, (low + high) / 2.0)
}

fn squared_error(units: &[f64], alpha: f64) -> f64 {
    let (mut level, mut sum) = (units[0], 0.0);
    for unit in &units[1..] {
        let error = unit - level;
        sum += error * error;
        level += alpha * error;
    }
    sum
}

/// Returns the largest week that [`winsorize`] leaves: max(median + 3 · 1.4826 · MAD, 80 % quantile, 1) of the weeks with
/// sales; infinite where there are fewer than three.
///
/// `nonzero`: the weeks with sales, overwritten.
fn winsor_cap(nonzero: &mut [f64]) -> f64 {
    /// Makes the median absolute deviation of a normal distribution its standard deviation.
    const NORMAL_CONSISTENCY: f64 = 1.4826;
    if nonzero.len() < 3 {
        return f64::INFINITY;
    }
    let center = median(nonzero);
    let high = quantile(nonzero, 0.8);
    nonzero.iter_mut().for_each(|unit| *unit = (*unit - center).abs());
    let deviation = median(nonzero);
    (center + 3.0 * NORMAL_CONSISTENCY * deviation).max(high).max(1.0)
}

/// Lowers weeks that are far above the usual, so that one bulk order does not become a forecast.
pub fn winsorize(units: &mut [f64]) {
    let mut nonzero: Vec<f64> = units.iter().copied().filter(|&unit| unit > 0.0).collect();
    let cap = winsor_cap(&mut nonzero);
    units.iter_mut().for_each(|unit| *unit = unit.min(cap));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_units, assert_near};

    const SERIES: [f64; 16] = [
        0.0, 3.0, 0.0, 0.0, 7.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 40.0, 5.0, 0.0, 1.0, 0.0,
    ];

    /// From statsforecast 2.0.2 where it has the method with these parameters, and from plain loops in Python.
    #[test]
    fn values_agree_with_other_programs() {
        assert_near(simple(&[4.0, 8.0, 2.0], 0.5), 4.0, 1e-12);
        assert_near(moving_average(&SERIES, 8), 5.75, 1e-12);
        assert_near(power(&[4.0, 9.0], Power::Exponent(0.5), 0.5), 6.25, 1e-12);
        assert_near(power(&[0.0, 3.0], Power::Logarithm, 0.5), 1.0, 1e-12);
        // Sizes 3, then 7: 3 + .1 · 4; intervals 2, then 3.
        assert_near(syntetos_boylan(&SERIES[..5], 0.1), 0.95 * 3.4 / 2.1, 1e-12);
        // Two of five weeks: .4 → .36 → .424 → .3816 → .34344 → .409096 with α = .1.
        assert_near(teunter_syntetos_babai(&SERIES[..5], 0.1, 0.1), 0.409_096 * 3.4, 1e-12);
    }

    /// The file says where its series and forecasts come from.
    #[test]
    fn forecasts_agree_with_those_of_statsforecast() {
        let table = include_str!("../testdata/statsforecast.csv");
        let mut rows = table.lines().filter(|line| !line.starts_with('#'));
        let columns: Vec<&str> = rows.next().unwrap().split(',').collect();
        let mut n_compared = 0;
        for row in rows {
            let fields: Vec<&str> = row.split(',').collect();
            let units: Vec<f64> = fields[fields.len() - 1]
                .split(' ')
                .map(|units| units.parse().unwrap())
                .collect();
            for (column, field) in columns.iter().zip(&fields).skip(1).take(fields.len() - 2) {
                let (found, tolerance) = match *column {
                    "naive" => (units[units.len() - 1], 1e-6),
                    "average_4" => (moving_average(&units, 4), 1e-6),
                    "average_8" => (moving_average(&units, 8), 1e-6),
                    "average_13" => (moving_average(&units, 13), 1e-6),
                    "ses_0.1" => (simple(&units, 0.1), 1e-6),
                    "ses_0.3" => (simple(&units, 0.3), 1e-6),
                    "sba" => (syntetos_boylan(&units, 0.1), 1e-6),
                    "tsb_0.1_0.2" => {
                        let begins = f64::from(u8::from(units[0] > 0.0));
                        (teunter_syntetos_babai_from(begins, &units, 0.1, 0.2), 1e-6)
                    }
                    "imapa" => (imapa(&units), 1e-3),
                    other => panic!("the table has a column {other}"),
                };
                let expected: f64 = field.parse().unwrap();
                let error = (found - expected).abs() / expected.max(1.0);
                assert!(error <= tolerance, "{column} of {}: {found}, not {expected}", fields[0]);
                n_compared += 1;
            }
        }
        assert_eq!(n_compared, 20 * 9);
    }

    #[test]
    fn a_bulk_order_is_capped() {
        let mut units = SERIES;
        winsorize(&mut units);
        // Sales 1, 1, 2, 3, 5, 7, 40: median 3, MAD 2, 80 % quantile 6.6.
        assert_near(units[11], 3.0 + 3.0 * 1.4826 * 2.0, 1e-12);
        assert_eq!(units[4], 7.0);
        let mut few = [0.0, 90.0, 1.0];
        winsorize(&mut few);
        assert_eq!(few, [0.0, 90.0, 1.0]);
    }

    proptest! {
        #[test]
        fn forecasts_are_finite_and_within_the_series(units in any_units()) {
            let most = units.iter().copied().fold(0.0, f64::max) * (1.0 + 1e-9) + 1e-9;
            let forecasts = [
                simple(&units, 0.2),
                moving_average(&units, 8),
                power(&units, Power::Logarithm, 0.1),
                power(&units, Power::Exponent(1.0 / 3.0), 0.3),
                syntetos_boylan(&units, 0.1),
                teunter_syntetos_babai(&units, 0.1, 0.2),
                imapa(&units),
            ];
            for forecast in forecasts {
                prop_assert!((0.0..=most).contains(&forecast), "{forecasts:?}, most {most}");
            }
        }
    }
}
