//! Detects ratings that lie on a grid of few values, such as stars, half stars and counts.

use rayon::prelude::*;

/// The largest value in steps of a grid.
pub(super) const MAX_STEPS: u8 = 15;

/// The relative amount by which a value may differ from its point on the grid.
///
/// Rounding to f32 causes such differences where the step is no power of two. A similarity can be off by four times the
/// tolerance at most, which is below 1e-6.
const TOLERANCE: f64 = 1.0 / (1u64 << 23) as f64;

/// A grid of the values `k · step`, k in 1..=[`MAX_STEPS`]. Dividing all values by the step changes no cosine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    step: f64,
}

impl Grid {
    /// Returns the widest grid that holds all `values`, or `None` if there is none or no value.
    ///
    /// `values`: finite and > 0.
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

    /// Returns the k of a value on this grid.
    pub fn steps(&self, value: f32) -> u8 {
        (f64::from(value) / self.step + 0.5) as u8
    }

    fn holds(&self, value: f32) -> bool {
        let value = f64::from(value);
        let steps = (value / self.step).round();
        steps <= f64::from(MAX_STEPS) && (steps * self.step - value).abs() <= TOLERANCE * value
    }
}

/// A set of up to [`MAX_STEPS`] values.
#[derive(Debug, Clone, Copy, Default)]
struct Distinct {
    /// Unused elements are 0.
    values: [f32; MAX_STEPS as usize + 1],
    len: usize,
}

impl Distinct {
    fn values(&self) -> &[f32] {
        &self.values[..self.len]
    }

    /// Inserts `value`, which is above 0, and returns whether the set holds it now.
    fn insert(&mut self, value: f32) -> bool {
        // Comparing all elements, used or not, takes four vector comparisons.
        if self.values.iter().fold(false, |found, &known| found | (known == value)) {
            return true;
        }
        let is_full = self.len == usize::from(MAX_STEPS);
        if !is_full {
            self.values[self.len] = value;
            self.len += 1;
        }
        !is_full
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
