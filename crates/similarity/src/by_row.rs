//! The row-by-row algorithm for matrices in which hardly any two rows share a column: each row visits only those that do.
//!
//! A tile compares a row with all of its lanes, whether they share a column or not. Among a million users with ten
//! purchases each, nearly all pairs have nothing in common, and comparing them would cost far more than their products.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::best::BestNeighbors;
use super::layout::Observer;
use super::lists::{Neighbor, NeighborLists};
use super::pair::{pair_similarity, safe_threshold};
use super::sparse::CsrMatrix;

/// The number of rows that are handed to a thread at a time.
const ROWS_AT_ONCE: usize = 1_024;

/// The number of rows that they are paired with at a time, a block: its dot products and squares stay in the second-level
/// cache.
pub(super) const BLOCK_ROWS: usize = 1 << 15;

/// The least number of rows: below it, tiles lose hardly any time on pairs without a common column.
const MIN_ROWS: usize = 50_000;

/// About the number of pairs that tiles compare in the time of one product here. With 40 pairs per product, tiles took 2.5
/// times as long.
const PAIRS_PER_PRODUCT: u64 = 16;

/// Returns whether so few pairs share a column that this algorithm is faster than tiles.
///
/// It looks at all rows and columns, so that every selection of rows is computed by the same algorithm.
pub(super) fn is_faster(columns: &CsrMatrix) -> bool {
    let n_rows = columns.n_columns();
    let square = |column| (columns.row_range(column).len() as u64).pow(2);
    let n_products: u64 = (0..columns.n_rows()).map(square).sum();
    let n_pairs = (n_rows as u64).pow(2) / 2;
    n_rows >= MIN_ROWS && n_products.saturating_mul(PAIRS_PER_PRODUCT) < n_pairs
}

/// Computes the lists of the `selected` rows, at most `keep` neighbors each; sums are f64s in ascending column order.
///
/// `columns`: the transpose of `rows`; `block_rows`: the number of rows in a block, at least 1, which does not change the
/// lists. Memory beyond the lists: 8 bytes per row and some MB per thread.
pub(super) fn best(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selected: &[u32],
    keep: usize,
    block_rows: usize,
    observe: Observer<'_>,
) -> NeighborLists {
    let square = |&value: &f32| f64::from(value) * f64::from(value);
    let squares: Vec<f64> = (0..rows.n_rows())
        .into_par_iter()
        .map(|row| rows.row(row).1.iter().map(square).sum())
        .collect();
    let matrix = Matrix { rows, columns, squares };
    let total = selected.len() as u64;
    let done = AtomicU64::new(0);
    let lists = selected
        .par_chunks(ROWS_AT_ONCE)
        .map_init(Workspace::default, |workspace, chunk| {
            let lists = workspace.lists_of(chunk, &matrix, keep, block_rows);
            let chunk = chunk.len() as u64;
            observe(done.fetch_add(chunk, Ordering::Relaxed) + chunk, total);
            lists
        });
    let mut lists: Vec<NeighborLists> = lists.collect();
    lists.push(NeighborLists::of_targets(rows.n_rows()));
    NeighborLists::concat(lists)
}

struct Matrix<'a> {
    rows: &'a CsrMatrix,
    columns: &'a CsrMatrix,
    /// Per row, the sum of the squares of its values.
    squares: Vec<f64>,
}

/// The buffers that one thread reuses.
#[derive(Default)]
struct Workspace {
    /// Per row of a block, its dot product with the current row. 0 means not visited yet, as every product is above 0.
    dots: Vec<f64>,
    /// The visited rows of the block, counted from the block's first row.
    visited: Vec<u32>,
    /// Per entry of the chunk's rows, one row after another: how many entries of its column were read in earlier blocks.
    cursors: Vec<usize>,
}

impl Workspace {
    /// Computes the lists of a chunk of rows, pairing all of them with one block of rows after another.
    fn lists_of(&mut self, chunk: &[u32], matrix: &Matrix<'_>, keep: usize, block_rows: usize) -> NeighborLists {
        let n_rows = matrix.rows.n_rows();
        let mut best: Vec<BestNeighbors> = chunk.iter().map(|_| BestNeighbors::new(keep)).collect();
        let n_entries = |&row: &u32| matrix.rows.row_range(row as usize).len();
        self.cursors.clear();
        self.cursors.resize(chunk.iter().map(n_entries).sum(), 0);
        self.dots.resize(block_rows, 0.0);
        let mut cursors = std::mem::take(&mut self.cursors);
        for start in (0..n_rows).step_by(block_rows) {
            let block = start..(start + block_rows).min(n_rows);
            let mut rest = &mut cursors[..];
            for (row, best) in chunk.iter().zip(&mut best) {
                let row_cursors;
                (row_cursors, rest) = rest.split_at_mut(n_entries(row));
                self.pair_with_block(*row as usize, &block, row_cursors, matrix, best);
            }
        }
        self.cursors = cursors;
        let mut lists = NeighborLists::of_targets(n_rows);
        for best in &mut best {
            lists.push_row(best.sorted());
        }
        lists
    }

    /// Pairs a row with the rows of a block. Leaves `dots` zeroed and `visited` empty, as it found them.
    fn pair_with_block(
        &mut self,
        row: usize,
        block: &Range<usize>,
        cursors: &mut [usize],
        matrix: &Matrix,
        best: &mut BestNeighbors,
    ) {
        let (row_columns, values) = matrix.rows.row(row);
        let (first, end) = (block.start as u32, block.end as u32);
        for ((&column, &value), cursor) in row_columns.iter().zip(values).zip(cursors) {
            let (others, other_values) = matrix.columns.row(column as usize);
            let (others, other_values) = (&others[*cursor..], &other_values[*cursor..]);
            let in_block = others.iter().zip(other_values).take_while(|(other, _)| **other < end);
            for (&other, &other_value) in in_block {
                *cursor += 1;
                let position = other - first;
                let dot = &mut self.dots[position as usize];
                if *dot == 0.0 {
                    self.visited.push(position);
                }
                *dot += f64::from(value) * f64::from(other_value);
            }
        }
        let square = matrix.squares[row];
        let squares = &matrix.squares[block.clone()];
        for position in self.visited.drain(..) {
            let dot = std::mem::take(&mut self.dots[position as usize]);
            let other_square = squares[position as usize];
            let index = first + position;
            let threshold = safe_threshold(best.threshold());
            // Most pairs of a long row end here, without a root or a division.
            if index as usize == row || dot * dot < threshold * threshold * square * other_square {
                continue;
            }
            let similarity = pair_similarity(dot, square, other_square);
            if similarity > 0.0 {
                best.offer(Neighbor { index, similarity });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::cosine::TopKOptions;
    use super::super::reference::top_k_dense;
    use super::*;

    #[test]
    fn agrees_with_the_reference() {
        // The rows have few of many columns, some have none, and the values lie on no grid.
        let ratings = Array2::from_shape_fn((90, 40), |(row, column)| match (row * 31 + column * 17) % 11 {
            0 | 1 if row % 13 != 5 => 1.0 + ((row * 7 + column * 3) % 10) as f32 / 7.0,
            _ => 0.0,
        });
        let entries = ratings.indexed_iter().filter(|&(_, &value)| value > 0.0);
        let triplets = entries.map(|((row, column), &value)| (row as u32, column as u32, value));
        let rows = CsrMatrix::from_triplets(90, 40, triplets.collect()).unwrap();
        let all: Vec<u32> = (0..90).collect();
        for keep in [0, 1, 5, 90] {
            let options = TopKOptions { neighbors: keep };
            let expected = top_k_dense(ratings.view(), 0..90, &options);
            let found = best(&rows, &rows.transpose(), &all, keep, 16, &|done, total| {
                assert!(done <= total)
            });
            assert_eq!(found, expected);
            let some = [3, 18, 89];
            let found = best(&rows, &rows.transpose(), &some, keep, 16, &|_, _| {});
            for (list, row) in some.into_iter().enumerate() {
                assert_eq!(found.row(list), expected.row(row as usize));
            }
        }
    }

    #[test]
    fn only_many_rows_that_share_few_columns_go_row_by_row() {
        let of_length = |n_rows: u32, rows_of_column: u32| {
            let triplets = (0..n_rows).map(|row| (row, row / rows_of_column, 1.0)).collect();
            let n_columns = n_rows.div_ceil(rows_of_column) as usize;
            CsrMatrix::from_triplets(n_rows as usize, n_columns, triplets)
                .unwrap()
                .transpose()
        };
        assert!(is_faster(&of_length(60_000, 10)));
        assert!(!is_faster(&of_length(60_000, 30_000)));
        assert!(!is_faster(&of_length(40_000, 10)));
    }
}
