//! The similarity of one pair, and the error of an estimate of it.

/// Returns the similarity of a pair, at most 1: the same bits for (a, b) and (b, a), exactly 1 for equal rows.
///
/// Nothing overflows or underflows before the rounding, because the product of two sums of squares of `f32`s stays well
/// inside the range of `f64`.
pub(super) fn pair_similarity(dot: f64, square_a: f64, square_b: f64) -> f32 {
    ((dot / (square_a * square_b).sqrt()) as f32).min(1.0)
}

/// Returns a bound that an estimate reaches whenever the exact similarity may still round to `threshold`.
///
/// The relative error of rounding to a normal f32 is at most 2⁻²⁴. An estimate in f32, from a product, two roots and a
/// threshold, rounds seven times. For subnormal thresholds the bound is 0 and rules nothing out.
pub(super) fn safe_threshold(threshold: f32) -> f64 {
    if threshold > 2.0 * f32::MIN_POSITIVE {
        f64::from(threshold) * (1.0 - 1e-6)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_never_rounds_above_1() {
        assert_eq!(pair_similarity(9.000_01, 9.0, 9.0), 1.0);
        assert_eq!(pair_similarity(0.3, 0.3, 0.3), 1.0);
        assert_eq!(pair_similarity(1.0, 2.0, 2.0), 0.5);
    }
}
