//! The definition of the similarity lists in plain dense loops. The tests compare the kernel with it.

use std::ops::Range;

use ndarray::ArrayView2;

use super::cosine::TopKOptions;
use super::lists::{Neighbor, NeighborLists};

/// Returns the lists of [`cosine::top_k`](super::cosine::top_k), computed from every pair of dense rows.
///
/// Sums are computed in ascending column order, so real ones have the same bytes as the kernel's only if columns with more
/// entries come first.
///
/// `ratings`: [n_rows, n_columns], finite and >= 0. `range`: the rows whose lists to compute, inside of n_rows. Takes time
/// O(range · n_rows · n_columns).
///
/// Source: docs/formulas.md, "Similarity".
pub fn top_k_dense(ratings: ArrayView2<'_, f32>, range: Range<usize>, options: &TopKOptions) -> NeighborLists {
    let n_rows = ratings.nrows();
    let mut lists = NeighborLists::of_targets(n_rows);
    for a in range {
        let mut list: Vec<Neighbor> = (0..n_rows)
            .filter(|&b| b != a)
            .map(|b| Neighbor {
                index: b as u32,
                similarity: similarity(ratings, a, b),
            })
            .filter(|neighbor| neighbor.similarity > 0.0)
            .collect();
        list.sort_by(Neighbor::best_first);
        list.truncate(options.neighbors);
        lists.push_row(&list);
    }
    lists
}

fn similarity(ratings: ArrayView2<'_, f32>, a: usize, b: usize) -> f32 {
    let (mut dot, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (&value_a, &value_b) in ratings.row(a).iter().zip(ratings.row(b)) {
        let (value_a, value_b) = (f64::from(value_a), f64::from(value_b));
        dot += value_a * value_b;
        square_a += value_a * value_a;
        square_b += value_b * value_b;
    }
    if dot == 0.0 {
        return 0.0;
    }
    ((dot / (square_a * square_b).sqrt()) as f32).min(1.0)
}
