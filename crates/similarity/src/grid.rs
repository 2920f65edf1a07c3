//! Ratings that lie on a grid of few values: stars, half stars, counts.

use rayon::prelude::*;

/// The most steps that a value may be.
pub(super) const MAX_STEPS: u8 = 15;

/// A value may differ from its place on the grid by this much of itself: what rounding to an f32 makes of a step that
/// is no power of two. Four times that, the most that a similarity can be off by, stays below 1e-6.
const TOLERANCE: f64 = 1.0 / (1u64 << 23) as f64;

/// Values are `k · step`, k in 1..=[`MAX_STEPS`]. A cosine does not change when all values are divided by the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    step: f64,
}

impl Grid {
    /// The widest grid that holds all `values`, finite and > 0; `None` where there is none, or no value.
    pub fn of(values: &[f32]) -> Option<Self> {
        let distinct = values
            .par_chunks(1 << 16)
            .map(|values| {
                let mut distinct = Distinct::default();
                values.iter().all(|&value| distinct.insert(value)).then_some(distinct)
            })
            .try_reduce(Distinct::default, |mut distinct, more| {
                more.values()
                    .iter()
                    .all(|&value| distinct.insert(value))
                    .then_some(distinct)
            })?;
        let distinct = distinct.values();
        let least = distinct.iter().copied().min_by(f32::total_cmp)?;
        (1..=MAX_STEPS)
            .map(|steps| Self {
                step: f64::from(least) / f64::from(steps),
            })
            .find(|grid| distinct.iter().all(|&value| grid.holds(value)))
    }

    /// The k of a value of this grid.
    pub fn steps(&self, value: f32) -> u8 {
        (f64::from(value) / self.step + 0.5) as u8
    }

    fn holds(&self, value: f32) -> bool {
        let value = f64::from(value);
        let steps = (value / self.step).round();
        steps <= f64::from(MAX_STEPS) && (steps * self.step - value).abs() <= TOLERANCE * value
    }
}

/// Up to [`MAX_STEPS`] different values.
#[derive(Debug, Clone, Copy, Default)]
struct Distinct {
    /// 0 where there is none yet.
    places: [f32; MAX_STEPS as usize + 1],
    len: usize,
}

impl Distinct {
    fn values(&self) -> &[f32] {
        &self.places[..self.len]
    }

    /// Whether there was room for `value`, which is above 0, or it was there.
    fn insert(&mut self, value: f32) -> bool {
        // All places, as that takes four comparisons of four.
        if self.places.iter().fold(false, |found, &place| found | (place == value)) {
            return true;
        }
        let has_room = self.len < usize::from(MAX_STEPS);
        if has_room {
            self.places[self.len] = value;
            self.len += 1;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_widest_grid() {
        fn check(values: &[f32], expected: Option<&[u8]>) {
            let steps = Grid::of(values).map(|grid| values.iter().map(|&value| grid.steps(value)).collect::<Vec<_>>());
            assert_eq!(steps.as_deref(), expected, "{values:?}");
        }
        check(&[], None);
        check(&[1.0, 2.0, 5.0], Some(&[1, 2, 5]));
        check(&[0.5, 5.0, 4.5], Some(&[1, 10, 9]));
        check(&[3.0, 4.5], Some(&[2, 3]));
        check(&[1.0], Some(&[1]));
        check(&[0.7, 0.7], Some(&[1, 1]));
        check(&[0.1, 0.2, 0.3, 0.7, 1.5], Some(&[1, 2, 3, 7, 15]));
        check(&[1e30, 3e30], Some(&[1, 3]));
        check(&[15.0, 1.0], Some(&[15, 1]));
        check(&[16.0, 1.0], None);
        check(&[1.0, 2.0, 2.584_962_5], None);
        check(&[1.0, 1.000_001], None);
        let many: Vec<f32> = (1..=16).map(|k| k as f32).collect();
        check(&many, None);
    }
}
