//! The similarity of one pair, and how far an estimate of it may be off.

/// The similarity of a pair: the same bits for (a, b) and (b, a), exactly 1 for equal rows.
///
/// Nothing overflows or vanishes before the rounding: a product of squares of `f32`s stays well
/// inside the range of `f64`.
pub(super) fn pair_similarity(dot: f64, square_a: f64, square_b: f64) -> f32 {
    ((dot / (square_a * square_b).sqrt()) as f32).min(1.0)
}

/// What an estimate must reach if the similarity may still round to `bar`.
///
/// The relative error of rounding to a normal f32 is at most 2⁻²⁴; an estimate in f32, of a product, two roots and a
/// limit, rounds seven times. Among subnormal ones nothing is ruled out.
pub(super) fn floor_below(bar: f32) -> f64 {
    if bar > 2.0 * f32::MIN_POSITIVE {
        f64::from(bar) * (1.0 - 1e-6)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_never_leads_above_1() {
        assert_eq!(pair_similarity(9.000_01, 9.0, 9.0), 1.0);
        assert_eq!(pair_similarity(0.3, 0.3, 0.3), 1.0);
        assert_eq!(pair_similarity(1.0, 2.0, 2.0), 0.5);
    }
}
