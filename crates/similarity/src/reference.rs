//! The definition of the similarity lists in plain dense loops: what the kernel is tested against.

use std::ops::Range;

use ndarray::ArrayView2;

use super::cosine::TopKOptions;
use super::lists::{Neighbor, NeighborLists};

/// The lists that [`cosine::top_k`](super::cosine::top_k) gives, from every pair of dense rows.
///
/// Sums go in ascending column order: real ones have the same bytes where columns with more entries come first.
///
/// `ratings`: [n_rows, n_columns], finite and >= 0. `range`: the rows whose lists to compute,
/// inside of n_rows. Time O(range · n_rows · n_columns).
///
/// Source: ARCHITECTURE.md, "Similarity".
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
    for (&of_a, &of_b) in ratings.row(a).iter().zip(ratings.row(b)) {
        let (of_a, of_b) = (f64::from(of_a), f64::from(of_b));
        dot += of_a * of_b;
        square_a += of_a * of_a;
        square_b += of_b * of_b;
    }
    if dot == 0.0 {
        return 0.0;
    }
    ((dot / (square_a * square_b).sqrt()) as f32).min(1.0)
}
