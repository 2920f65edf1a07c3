//! Lists of the best neighbors of every row, filled by many threads at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::lists::{Neighbor, NeighborLists};

/// The number of rows whose lists one task sorts.
const ROWS_AT_ONCE: usize = 1024;

/// Per row, the best neighbors that any thread has offered so far.
///
/// The order of neighbors is total, so the result does not depend on the order in which they are offered.
pub(super) struct BestLists {
    keep: usize,
    rows: Vec<Mutex<BestNeighbors>>,
    /// Per row, the bits of the similarity that a neighbor must reach. It only rises, so a stale one lets too many neighbors
    /// pass, never too few.
    thresholds: Vec<AtomicU32>,
}

impl BestLists {
    pub fn new(n_rows: usize, keep: usize) -> Self {
        Self {
            keep,
            rows: (0..n_rows).map(|_| Mutex::new(BestNeighbors::new(keep))).collect(),
            thresholds: (0..n_rows).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Returns the most neighbors that a row keeps.
    pub fn keep(&self) -> usize {
        self.keep
    }

    /// Returns the similarity that a neighbor of `row` must reach; 0 while the row takes any.
    pub fn threshold(&self, row: usize) -> f32 {
        f32::from_bits(self.thresholds[row].load(Ordering::Relaxed))
    }

    /// Keeps those of `neighbors` that are among the best of `row` so far.
    pub fn offer(&self, row: usize, neighbors: impl Iterator<Item = Neighbor>) {
        let mut best = self.rows[row].lock().unwrap_or_else(PoisonError::into_inner);
        neighbors.for_each(|neighbor| best.offer(neighbor));
        if let Some(worst) = best.worst_kept {
            self.thresholds[row].store(worst.similarity.to_bits(), Ordering::Relaxed);
        }
    }

    /// Returns the lists of `rows`, in this order, over `n_targets` targets.
    pub fn into_lists(self, n_targets: usize, rows: &[u32]) -> NeighborLists {
        let lists = rows.par_chunks(ROWS_AT_ONCE).map(|rows| {
            let mut lists = NeighborLists::of_targets(n_targets);
            for &row in rows {
                let mut best = self.rows[row as usize].lock().unwrap_or_else(PoisonError::into_inner);
                lists.push_row(best.sorted());
                *best = BestNeighbors::new(0);
            }
            lists
        });
        let mut lists: Vec<NeighborLists> = lists.collect();
        lists.push(NeighborLists::of_targets(n_targets));
        NeighborLists::concat(lists)
    }
}

/// Returns the capacity for the best `keep` neighbors.
///
/// Spare capacity saves selecting the best again for each new one. It is less than twice `keep`, because a threshold that
/// lags lets too many neighbors pass, and every row holds the memory.
fn capacity(keep: usize) -> usize {
    keep + keep / 2 + 1
}

/// The best `keep` of the neighbors offered, in amortized constant time for each.
pub(super) struct BestNeighbors {
    keep: usize,
    /// Fewer than [`capacity`]. Any neighbor that was offered and is not among them was worse than `worst_kept`.
    candidates: Vec<Neighbor>,
    /// The worst of the best `keep` neighbors at the last selection. A neighbor that does not beat it cannot be kept.
    worst_kept: Option<Neighbor>,
}

impl BestNeighbors {
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            candidates: Vec::new(),
            worst_kept: None,
        }
    }

    /// Returns the similarity that a neighbor must reach; 0 while any is taken.
    pub fn threshold(&self) -> f32 {
        self.worst_kept.map_or(0.0, |worst| worst.similarity)
    }

    pub fn offer(&mut self, neighbor: Neighbor) {
        let is_worse = self.worst_kept.is_some_and(|worst| worst.key() < neighbor.key());
        if self.keep == 0 || is_worse {
            return;
        }
        if self.candidates.capacity() == 0 {
            self.candidates.reserve_exact(capacity(self.keep));
        }
        self.candidates.push(neighbor);
        if self.candidates.len() >= capacity(self.keep) {
            let (_, &mut worst, _) = self.candidates.select_nth_unstable_by_key(self.keep - 1, Neighbor::key);
            self.candidates.truncate(self.keep);
            self.worst_kept = Some(worst);
        }
    }

    /// Returns the best `keep` neighbors, best first.
    pub fn sorted(&mut self) -> &[Neighbor] {
        if self.candidates.len() > self.keep {
            self.candidates.select_nth_unstable_by_key(self.keep, Neighbor::key);
            self.candidates.truncate(self.keep);
        }
        self.candidates.sort_unstable_by_key(Neighbor::key);
        &self.candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_of(keep: usize, offered: impl Iterator<Item = Neighbor>) -> Vec<u32> {
        let mut best = BestNeighbors::new(keep);
        for neighbor in offered {
            best.offer(neighbor);
            assert!(best.candidates.len() < capacity(keep));
        }
        best.sorted().iter().map(|found| found.index).collect()
    }

    #[test]
    fn the_best_neighbors_need_little_capacity() {
        // In ascending order the threshold rejects nothing.
        let rising = (0..1_000).map(|index| Neighbor {
            index,
            similarity: (index / 2) as f32 / 500.0,
        });
        assert_eq!(best_of(5, rising), [998, 999, 996, 997, 994]);
    }

    #[test]
    fn ties_go_to_the_lower_index_whatever_the_order() {
        let tied = |index| Neighbor { index, similarity: 0.5 };
        assert_eq!(best_of(3, (0..100).map(tied)), [0, 1, 2]);
        assert_eq!(best_of(3, (0..100).rev().map(tied)), [0, 1, 2]);
    }

    #[test]
    fn threads_that_offer_at_once_lose_nothing() {
        let lists = BestLists::new(2, 10);
        (0..1_000u32).into_par_iter().for_each(|index| {
            let similarity = 1.0 / (index + 1) as f32;
            lists.offer(1, std::iter::once(Neighbor { index, similarity }));
        });
        assert_eq!(lists.threshold(0), 0.0);
        assert!(lists.threshold(1) >= 1.0 / 1_000.0);
        let lists = lists.into_lists(1_000, &[1, 0]);
        assert_eq!(lists.row(0).0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(lists.row(1).0.is_empty());
    }
}
