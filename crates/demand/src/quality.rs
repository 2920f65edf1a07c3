//! How good forecasts have been lately, class by class: measured with every fit and told with every forecast.

use super::backtest::{DistributionErrors, PointErrors, distribution_errors, point_errors};
use super::class::DemandClass;
use super::history::{MIN_WEEKS, SalesHistory};
use super::point::HORIZON_WEEKS;

/// The levels at which quantiles are measured.
pub const MEASURED_LEVELS: [f64; 4] = [0.5, 0.8, 0.9, 0.95];
/// Weeks between origins, and the number of origins.
const ORIGIN_STEP: usize = 4;
const N_ORIGINS: usize = 3;
/// Weeks with sales of an item that is measured.
const MIN_NONZERO: usize = 10;

/// The quality of forecasts of eight weeks, as means over rolling origins.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ClassQuality {
    /// `None` for the items of all classes together.
    pub class: Option<DemandClass>,
    /// Origins that were measured at.
    pub n_origins: usize,
    /// Items measured at the latest origin.
    pub n_items: usize,
    /// Σ |error| of all weeks ÷ units sold, of the point forecast.
    pub wape: f64,
    /// The mean over items of √(mean squared error ÷ mean squared change from week to week), of the point forecast.
    pub rmsse: f64,
    /// (expected units − units sold) ÷ units sold.
    pub bias: f64,
    /// The mean pinball loss of the quantiles .5, .8, .9 and .95 ÷ units sold.
    pub pinball: f64,
    /// The share of items that sold no more than the quantile, at each of [`MEASURED_LEVELS`].
    pub coverage: [f64; MEASURED_LEVELS.len()],
    /// 1 − WAPE ÷ WAPE of the last week repeated; above 0 where the forecast is better.
    pub skill_over_naive: f64,
    /// 1 − WAPE ÷ WAPE of IMAPA.
    pub skill_over_imapa: f64,
}

impl ClassQuality {
    /// Returns all figures.
    pub fn values(&self) -> [f64; 6] {
        [
            self.wape,
            self.rmsse,
            self.bias,
            self.pinball,
            self.skill_over_naive,
            self.skill_over_imapa,
        ]
    }
}

/// Measures the forecasts of the origins 8, 12 and 16 weeks before `origin`, as far as there is anything to fit them on.
pub fn measure(history: &SalesHistory, origin: usize) -> Vec<ClassQuality> {
    let origins: Vec<usize> = (0..N_ORIGINS)
        .filter_map(|step| origin.checked_sub(HORIZON_WEEKS + step * ORIGIN_STEP))
        .filter(|&past| past >= MIN_WEEKS + HORIZON_WEEKS)
        .collect();
    let points: Vec<Vec<PointErrors>> = origins
        .iter()
        .map(|&past| point_errors(history, past, MIN_NONZERO))
        .collect();
    let distributions: Vec<Vec<DistributionErrors>> = origins
        .iter()
        .map(|&past| distribution_errors(history, past, HORIZON_WEEKS, MIN_NONZERO, &MEASURED_LEVELS))
        .collect();
    std::iter::once(None)
        .chain(DemandClass::ALL.map(Some))
        .filter_map(|class| summarize(class, &points, &distributions))
        .collect()
}

fn summarize(
    class: Option<DemandClass>,
    points: &[Vec<PointErrors>],
    distributions: &[Vec<DistributionErrors>],
) -> Option<ClassQuality> {
    let of_method = |method: &str| -> Vec<&PointErrors> {
        let rows = points.iter().flatten();
        rows.filter(|row| row.class == class && row.method == method).collect()
    };
    let chosen = of_method("chosen");
    let quantiles: Vec<&DistributionErrors> = distributions
        .iter()
        .flatten()
        .filter(|row| row.class == class)
        .collect();
    if chosen.is_empty() || quantiles.is_empty() {
        return None;
    }
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        super::statistics::mean(&values)
    };
    let wape_of = |method: &str| mean(&mut of_method(method).iter().map(|row| row.wape));
    let wape = wape_of("chosen");
    let skill_over = |method| match wape_of(method) {
        reference if reference > 0.0 => 1.0 - wape / reference,
        _ => 0.0,
    };
    Some(ClassQuality {
        class,
        n_origins: chosen.len(),
        n_items: chosen[0].n_items,
        wape,
        rmsse: mean(&mut chosen.iter().map(|row| row.rmsse)),
        bias: mean(&mut quantiles.iter().map(|row| row.bias)),
        pinball: mean(&mut quantiles.iter().map(|row| row.mean_pinball())),
        coverage: std::array::from_fn(|at| mean(&mut quantiles.iter().map(|row| row.levels[at].coverage))),
        skill_over_naive: skill_over("naive"),
        skill_over_imapa: skill_over("IMAPA"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, history};

    #[test]
    fn quality_is_measured_where_eight_weeks_have_passed() {
        let weekly: Vec<f64> = [4.0, 6.0].repeat(22);
        let found = measure(&history(&[weekly.clone(), weekly.clone()]), 44);
        let classes: Vec<_> = found.iter().map(|quality| quality.class).collect();
        assert_eq!(classes, [None, Some(DemandClass::Smooth)]);
        assert_eq!((found[0].n_origins, found[0].n_items), (3, 2));
        // Weeks of 4 and 6 by turns: a forecast of 5 errs by 1, one of 6 by 2 in every other week.
        assert_near(found[0].wape, 0.2, 1e-9);
        assert_near(found[0].skill_over_naive, 0.0, 1e-9);
        assert!(measure(&history(&[weekly]), 29).is_empty());
    }
}
