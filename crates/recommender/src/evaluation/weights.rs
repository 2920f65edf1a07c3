//! Fits the blends of predicted ratings on the validation part, which the model has not seen and no figure is measured on.

use crate::prediction::{Baseline, Estimator};
use crate::snapshot::parameters::BlendWeights;
use crate::snapshot::view::View;

use super::rating::{BlendSample, RatedCase, blend_samples, squared_errors};

/// The least ratings to fit a weight on. With fewer, it stays at its default.
const MIN_SAMPLES: usize = 50;

/// The values of λ that are tried.
const SHRINKAGES: [f64; 4] = [0.0, 0.25, 0.5, 1.0];

/// The parameters that predicted ratings are made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratings {
    /// The weight of rankings is the default.
    pub weights: BlendWeights,
    /// λ of BASELINE.
    pub shrinkage: f64,
}

/// Returns the weights by least squares, and for BASELINE the λ whose blend has the least squared error; the lowest λ if
/// several have.
pub(super) fn fit_ratings(view: &View, rated: &[RatedCase]) -> Ratings {
    let default = BlendWeights::default();
    let by_least_squares = |estimator, shrinkage, default| {
        let samples = blend_samples(view, rated, estimator, shrinkage);
        match samples.len() < MIN_SAMPLES {
            true => default,
            false => least_squares(&samples).unwrap_or(default),
        }
    };
    let baseline = |shrinkage| {
        let weight = by_least_squares(Estimator::Baseline, shrinkage, default.baseline);
        let baseline = Baseline { weight, shrinkage };
        let errors = squared_errors(view, rated, baseline);
        (baseline, errors.iter().sum::<f64>(), errors.len())
    };
    let first = baseline(SHRINKAGES[0]);
    let best = match first.2 < MIN_SAMPLES {
        true => first,
        false => SHRINKAGES[1..]
            .iter()
            .map(|&shrinkage| baseline(shrinkage))
            .fold(first, |best, next| match next.1 < best.1 {
                true => next,
                false => best,
            }),
    };
    Ratings {
        weights: BlendWeights {
            weighted_sum: by_least_squares(Estimator::WeightedSum, 0.0, default.weighted_sum),
            weighted_mean: by_least_squares(Estimator::WeightedMean, 0.0, default.weighted_mean),
            baseline: best.0.weight,
            ranking: default.ranking,
        },
        shrinkage: best.0.shrinkage,
    }
}

/// Returns the w in [0, 1] that minimizes `Σ (r − (w·i + (1 − w)·u))²`: `Σ (r − u)(i − u) / Σ (i − u)²`, moved to the nearer
/// limit. Returns `None` if the sides never differ.
fn least_squares(samples: &[BlendSample]) -> Option<f64> {
    let (mut products, mut squares) = (0.0, 0.0);
    for &BlendSample { items, users, rating } in samples {
        products += (rating - users) * (items - users);
        squares += (items - users) * (items - users);
    }
    (squares > 0.0).then(|| (products / squares).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_squares_weight_is_found_and_kept_within_0_and_1() {
        let check = |samples: &[(f64, f64, f64)], expected: Option<f64>| {
            let samples: Vec<BlendSample> = samples
                .iter()
                .map(|&(items, users, rating)| BlendSample { items, users, rating })
                .collect();
            match (least_squares(&samples), expected) {
                (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-12, "{found}, not {expected}"),
                (found, expected) => assert_eq!(found, expected),
            }
        };
        // The ratings are exactly 0.3·i + 0.7·u.
        check(&[(4.0, 2.0, 2.6), (1.0, 5.0, 3.8), (3.0, 3.0, 3.0)], Some(0.3));
        // Σ (r − u)(i − u) / Σ (i − u)² = (1·2 + 1·1) / (4 + 1).
        check(&[(4.0, 2.0, 3.0), (2.0, 1.0, 2.0)], Some(0.6));
        check(&[(4.0, 2.0, 5.0)], Some(1.0));
        check(&[(4.0, 2.0, 1.0)], Some(0.0));
        check(&[(3.0, 3.0, 5.0)], None);
    }
}
