//! Rows of which hardly any two share a column: one row at a time meets only those that do.
//!
//! A tile compares a row with all of its lanes, met or not. Of a million users with ten purchases each nearly all pairs
//! have nothing in common, and to pass over them would cost far more than the products.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::best::BestNeighbors;
use super::cosine::Observer;
use super::lists::{Neighbor, NeighborLists};
use super::pair::{floor_below, pair_similarity};
use super::sparse::CsrMatrix;

/// Rows that are handed to a thread at a time.
const ROWS_AT_ONCE: usize = 1_024;

/// Rows that they meet at a time: their products and squares stay in the second-level cache.
const BLOCK_ROWS: usize = if cfg!(test) { 16 } else { 1 << 15 };

/// With fewer rows passing over pairs costs nothing to speak of.
const MIN_ROWS: usize = 50_000;

/// How many pairs are passed over in the time of one product here, about: with 40 of them tiles took 2.5 times as long.
const PAIRS_PER_PRODUCT: u64 = 16;

/// Whether so few pairs share a column that this is faster than tiles. Of all rows and columns, so that whatever rows are
/// selected their lists are computed in one way.
pub(super) fn is_faster(columns: &CsrMatrix) -> bool {
    let n_rows = columns.n_columns();
    let square = |column| (columns.row_range(column).len() as u64).pow(2);
    let n_products: u64 = (0..columns.n_rows()).map(square).sum();
    let n_pairs = (n_rows as u64).pow(2) / 2;
    n_rows >= MIN_ROWS && n_products.saturating_mul(PAIRS_PER_PRODUCT) < n_pairs
}

/// The lists of the `selected` rows, in f64 in ascending column order.
///
/// `columns`: the transpose of `rows`. Memory beyond the lists: 8 bytes a row; some MB a thread.
pub(super) fn best(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selected: &[u32],
    keep: usize,
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
            let lists = workspace.lists_of(chunk, &matrix, keep);
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
    /// Per row the sum of the squares of its values.
    squares: Vec<f64>,
}

/// The buffers that one thread reuses.
#[derive(Default)]
struct Workspace {
    /// Per row of a block its product with the current row; 0 means not met yet, as every product is above 0.
    dots: Vec<f64>,
    /// The rows of the block that the current one shares a column with, from the first of the block on.
    met: Vec<u32>,
    /// Per entry of the current rows, one row after the other: what of its column has been met, all rows before the block.
    next: Vec<usize>,
}

impl Workspace {
    /// The lists of some rows: all of them meet one block of rows after the other.
    fn lists_of(&mut self, chunk: &[u32], matrix: &Matrix<'_>, keep: usize) -> NeighborLists {
        let n_rows = matrix.rows.n_rows();
        let mut best: Vec<BestNeighbors> = chunk.iter().map(|_| BestNeighbors::new(keep)).collect();
        let n_entries = |&row: &u32| matrix.rows.row_range(row as usize).len();
        self.next.clear();
        self.next.resize(chunk.iter().map(n_entries).sum(), 0);
        self.dots.resize(BLOCK_ROWS, 0.0);
        let mut next = std::mem::take(&mut self.next);
        for start in (0..n_rows).step_by(BLOCK_ROWS) {
            let block = start..(start + BLOCK_ROWS).min(n_rows);
            let mut rest = &mut next[..];
            for (row, best) in chunk.iter().zip(&mut best) {
                let of_row;
                (of_row, rest) = rest.split_at_mut(n_entries(row));
                self.meet(*row as usize, &block, of_row, matrix, best);
            }
        }
        self.next = next;
        let mut lists = NeighborLists::of_targets(n_rows);
        for best in &mut best {
            lists.push_row(best.sorted());
        }
        lists
    }

    /// A row and those of a block. Leaves `dots` and `met` as it found them.
    fn meet(
        &mut self,
        row: usize,
        block: &Range<usize>,
        next: &mut [usize],
        matrix: &Matrix,
        best: &mut BestNeighbors,
    ) {
        let (row_columns, values) = matrix.rows.row(row);
        let (first, end) = (block.start as u32, block.end as u32);
        for ((&column, &value), next) in row_columns.iter().zip(values).zip(next) {
            let (others, other_values) = matrix.columns.row(column as usize);
            let (others, other_values) = (&others[*next..], &other_values[*next..]);
            let in_block = others.iter().zip(other_values).take_while(|(other, _)| **other < end);
            for (&other, &other_value) in in_block {
                *next += 1;
                let place = other - first;
                let dot = &mut self.dots[place as usize];
                if *dot == 0.0 {
                    self.met.push(place);
                }
                *dot += f64::from(value) * f64::from(other_value);
            }
        }
        let square = matrix.squares[row];
        let squares = &matrix.squares[block.clone()];
        for place in self.met.drain(..) {
            let dot = std::mem::take(&mut self.dots[place as usize]);
            let other_square = squares[place as usize];
            let index = first + place;
            let floor = floor_below(best.bar());
            // Most pairs of a long row end here, without a root or a division.
            if index as usize == row || dot * dot < floor * floor * square * other_square {
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
    fn gives_what_the_reference_gives() {
        // Rows with few of many columns, some with none, and values on no grid.
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
            let found = best(&rows, &rows.transpose(), &all, keep, &|done, total| {
                assert!(done <= total)
            });
            assert_eq!(found, expected);
            let some = [3, 18, 89];
            let found = best(&rows, &rows.transpose(), &some, keep, &|_, _| {});
            for (list, row) in some.into_iter().enumerate() {
                assert_eq!(found.row(list), expected.row(row as usize));
            }
        }
    }

    #[test]
    fn it_is_for_many_rows_that_share_little() {
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
