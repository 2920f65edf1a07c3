//! One number for each item, by the item's rank, with the largest number of every run of ranks.

/// Ranks in a run. Sums of a ranking are searched run by run; see `ranking/kernel/sums.rs`.
pub const RUN: usize = 16;
/// Runs that are skipped at once.
pub const GROUP: usize = 16;

/// Returns how many runs `n_items` take, in whole groups.
pub fn n_runs(n_items: usize) -> usize {
    n_items.div_ceil(RUN * GROUP) * GROUP
}

/// Numbers of at least 0 by rank, and 0 for the ranks that fill up the last group.
#[derive(Debug, Clone, PartialEq)]
pub struct ByRank {
    values: Vec<f64>,
    maxima: Vec<f64>,
}

impl ByRank {
    /// `values`: one for each item by its rank, finite and at least 0.
    pub fn new(mut values: Vec<f64>) -> Self {
        let n_runs = n_runs(values.len());
        values.resize(n_runs * RUN, 0.0);
        let mut by_rank = Self {
            values,
            maxima: vec![0.0; n_runs],
        };
        (0..n_runs).for_each(|at| by_rank.find_maximum(at));
        by_rank
    }

    #[inline]
    pub fn value(&self, rank: u32) -> f64 {
        self.values[rank as usize]
    }

    pub fn set(&mut self, rank: u32, value: f64) {
        self.values[rank as usize] = value;
        self.find_maximum(rank as usize / RUN);
    }

    /// Returns the values of run `at`.
    #[inline]
    pub fn run(&self, at: usize) -> &[f64; RUN] {
        &self.values.as_chunks().0[at]
    }

    /// Returns the largest value of each run.
    #[inline]
    pub fn maxima(&self) -> &[f64] {
        &self.maxima
    }

    fn find_maximum(&mut self, at: usize) {
        self.maxima[at] = self.run(at).iter().copied().fold(0.0, f64::max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_of_a_run_follows_its_values() {
        let mut by_rank = ByRank::new((0..20).map(f64::from).collect());
        assert_eq!(by_rank.maxima().len(), GROUP);
        assert_eq!(by_rank.maxima()[..3], [15.0, 19.0, 0.0]);
        by_rank.set(19, 1.0);
        by_rank.set(0, 99.0);
        assert_eq!(by_rank.maxima()[..2], [99.0, 18.0]);
        assert_eq!((by_rank.value(0), by_rank.run(1)[3]), (99.0, 1.0));
        assert!(ByRank::new(Vec::new()).maxima().is_empty());
    }
}
