//! All-pairs cosine similarity of sparse rows, the best neighbors of each row.
//!
//! One row at a time: its products with every other row gather in an accumulator over the
//! transposed matrix, so only pairs that share a column cost anything.

use std::ops::Range;

use rayon::prelude::*;

use super::lists::{Neighbor, NeighborLists};
use super::sparse::CsrMatrix;

/// At most about this many chunks of rows are handed to the threads, so that they end together.
const MAX_CHUNKS: u64 = 256;

/// A chunk with fewer multiply-adds than this is not worth handing over.
const MIN_CHUNK_WORK: u64 = 1 << 14;

/// What to keep of the similarities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopKOptions {
    /// The most neighbors that a row keeps.
    pub neighbors: usize,
}

impl Default for TopKOptions {
    fn default() -> Self {
        Self { neighbors: 50 }
    }
}

/// Why no similarity lists can be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimilarityError {
    #[error("rows {start}..{end} do not lie within the {n_rows} rows of the matrix")]
    RangeOutOfBounds { start: usize, end: usize, n_rows: usize },
    #[error(
        "a matrix of {n_rows} × {n_columns} with {nnz} entries has no transpose \
         of {transposed_n_rows} × {transposed_n_columns} with {transposed_nnz}"
    )]
    NotTransposed {
        n_rows: usize,
        n_columns: usize,
        nnz: usize,
        transposed_n_rows: usize,
        transposed_n_columns: usize,
        transposed_nnz: usize,
    },
}

/// Cosine similarity of the rows in `range` to every row, the best `options.neighbors` of each.
///
/// `sim(a, b) = Σ_i R[a,i]·R[b,i] / sqrt(Σ_i R[a,i]² · Σ_i R[b,i]²)` over whole rows; sums in f64 in
/// ascending column order, rounded once to f32, at most 1. What is or rounds to 0 is no neighbor.
///
/// `rows`: [n_rows, n_columns]; `columns`: its transpose. Returns one list per row of `range`, best
/// first, similarity in (0, 1], ties by lower index, a row never its own neighbor. Lists of adjacent
/// ranges join by [`NeighborLists::concat`].
///
/// Runs on the rayon pool it is called in; the result is the same, byte by byte, for any number of
/// threads and any cut into ranges. Memory beyond the matrices: O(lists + threads · n_rows).
///
/// # Errors
/// A range outside of the matrix; `columns` of another shape than the transpose of `rows`.
///
/// Source: ARCHITECTURE.md, "Similarity".
pub fn top_k(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    range: Range<usize>,
    options: &TopKOptions,
) -> Result<NeighborLists, SimilarityError> {
    check_shapes(rows, columns, &range)?;
    let lengths = Lengths::of(rows);
    let work: Vec<u64> = range
        .clone()
        .into_par_iter()
        .map(|row| multiply_adds(rows, columns, row))
        .collect();
    let keep = options.neighbors.min(rows.n_rows());

    let lists = chunks_of_similar_work(&work, range.start)
        .into_par_iter()
        .map_init(
            || Workspace::new(rows.n_rows(), keep),
            |workspace, chunk| {
                let mut lists = NeighborLists::of_targets(rows.n_rows());
                for row in chunk {
                    lists.push_row(workspace.neighbors_of(row, rows, columns, &lengths));
                }
                lists
            },
        )
        .collect();
    Ok(NeighborLists::concat(lists))
}

fn check_shapes(rows: &CsrMatrix, columns: &CsrMatrix, range: &Range<usize>) -> Result<(), SimilarityError> {
    let n_rows = rows.n_rows();
    if range.start > range.end || range.end > n_rows {
        return Err(SimilarityError::RangeOutOfBounds {
            start: range.start,
            end: range.end,
            n_rows,
        });
    }
    let transposed_shape = (columns.n_columns(), columns.n_rows(), columns.nnz());
    if transposed_shape != (n_rows, rows.n_columns(), rows.nnz()) {
        return Err(SimilarityError::NotTransposed {
            n_rows,
            n_columns: rows.n_columns(),
            nnz: rows.nnz(),
            transposed_n_rows: columns.n_rows(),
            transposed_n_columns: columns.n_columns(),
            transposed_nnz: columns.nnz(),
        });
    }
    Ok(())
}

/// `Σ_i R[a,i]²` of every row, in ascending column order.
fn squared_lengths(rows: &CsrMatrix) -> Vec<f64> {
    let square = |&value: &f32| f64::from(value) * f64::from(value);
    (0..rows.n_rows())
        .into_par_iter()
        .map(|row| rows.row(row).1.iter().map(square).sum())
        .collect()
}

/// What the row's list costs; at least 1, as an empty row still has to be visited.
fn multiply_adds(rows: &CsrMatrix, columns: &CsrMatrix, row: usize) -> u64 {
    let lengths = rows.row(row).0.iter();
    let lengths = lengths.map(|&column| columns.row_range(column as usize).len() as u64);
    1 + lengths.sum::<u64>()
}

/// Cuts rows `start..start + work.len()` into adjacent chunks, at least one, of similar work.
fn chunks_of_similar_work(work: &[u64], start: usize) -> Vec<Range<usize>> {
    let target = (work.iter().sum::<u64>() / MAX_CHUNKS).max(MIN_CHUNK_WORK);
    let mut chunks = Vec::new();
    let mut chunk = start..start;
    let mut chunk_work = 0;
    for row_work in work {
        chunk.end += 1;
        chunk_work += row_work;
        if chunk_work >= target {
            chunks.push(chunk.clone());
            chunk.start = chunk.end;
            chunk_work = 0;
        }
    }
    if !chunk.is_empty() || chunks.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// The similarity of a pair: the same bits for (a, b) and (b, a), exactly 1 for equal rows.
///
/// Nothing overflows or vanishes before the rounding: a product of squares of `f32`s stays well
/// inside the range of `f64`.
fn pair_similarity(dot: f64, square_a: f64, square_b: f64) -> f32 {
    ((dot / (square_a * square_b).sqrt()) as f32).min(1.0)
}

/// The squared lengths of all rows, and their inverted roots for a cheap estimate.
struct Lengths {
    squares: Vec<f64>,
    inverse_roots: Vec<f64>,
}

impl Lengths {
    fn of(rows: &CsrMatrix) -> Self {
        let squares = squared_lengths(rows);
        let inverse_roots = squares.iter().map(|square| square.sqrt().recip()).collect();
        Self { squares, inverse_roots }
    }
}

/// The buffers that one thread reuses from row to row.
struct Workspace {
    /// Per row its product with the current one; 0 means not met yet, as every product is above 0.
    dots: Vec<f64>,
    /// The rows that the current one shares a column with.
    met: Vec<u32>,
    best: BestNeighbors,
}

impl Workspace {
    fn new(n_rows: usize, keep: usize) -> Self {
        Self {
            dots: vec![0.0; n_rows],
            met: Vec::new(),
            best: BestNeighbors::new(keep),
        }
    }

    /// The row's list, best first. Leaves `dots` and `met` as it found them.
    fn neighbors_of(&mut self, row: usize, rows: &CsrMatrix, columns: &CsrMatrix, lengths: &Lengths) -> &[Neighbor] {
        let Self { dots, met, best } = self;
        best.clear();
        // A row with this much work meets so many others that listing them costs more than a scan.
        if multiply_adds(rows, columns, row) >= dots.len() as u64 {
            accumulate(dots, row, rows, columns, |_| {});
            dots[row] = 0.0;
            for (other, dot) in dots.iter_mut().enumerate() {
                if *dot != 0.0 {
                    offer(best, row, other, *dot, lengths);
                    *dot = 0.0;
                }
            }
        } else {
            accumulate(dots, row, rows, columns, |other| met.push(other));
            for other in met.drain(..) {
                let other = other as usize;
                let dot = std::mem::take(&mut dots[other]);
                if other != row {
                    offer(best, row, other, dot, lengths);
                }
            }
        }
        best.sorted()
    }
}

/// Adds up the products of `row` with all rows; calls `meet` once with each that shares a column.
#[inline(always)]
fn accumulate(dots: &mut [f64], row: usize, rows: &CsrMatrix, columns: &CsrMatrix, mut meet: impl FnMut(u32)) {
    let (row_columns, row_values) = rows.row(row);
    for (&column, &value) in row_columns.iter().zip(row_values) {
        let value = f64::from(value);
        let (others, other_values) = columns.row(column as usize);
        for (&other, &other_value) in others.iter().zip(other_values) {
            let dot = &mut dots[other as usize];
            if *dot == 0.0 {
                meet(other);
            }
            *dot += value * f64::from(other_value);
        }
    }
}

fn offer(best: &mut BestNeighbors, row: usize, other: usize, dot: f64, lengths: &Lengths) {
    let Lengths { squares, inverse_roots } = lengths;
    // Most pairs of a long row end here, without a root or a division.
    if dot * inverse_roots[row] * inverse_roots[other] < best.floor {
        return;
    }
    let similarity = pair_similarity(dot, squares[row], squares[other]);
    if similarity > 0.0 {
        let index = other as u32;
        best.offer(Neighbor { index, similarity });
    }
}

/// What an estimate must reach if the similarity may still round to `bar`.
///
/// The relative error of rounding to a normal f32 is at most 2⁻²⁴, that of an estimate far smaller;
/// among subnormal ones nothing is ruled out.
fn floor_below(bar: f32) -> f64 {
    if bar > 2.0 * f32::MIN_POSITIVE {
        f64::from(bar) * (1.0 - 1e-6)
    } else {
        0.0
    }
}

/// The best `keep` of the neighbors offered, in amortized constant time for each.
struct BestNeighbors {
    keep: usize,
    /// Up to `2 · keep`; whatever they lack was worse than `bar`.
    candidates: Vec<Neighbor>,
    /// The worst of `keep` neighbors already seen: what does not beat it cannot be kept.
    bar: Option<Neighbor>,
    /// An exact similarity below this rounds to less than the bar's, with room for an estimate's
    /// error; 0 while there is no bar.
    floor: f64,
}

impl BestNeighbors {
    fn new(keep: usize) -> Self {
        Self {
            keep,
            candidates: Vec::new(),
            bar: None,
            floor: 0.0,
        }
    }

    fn clear(&mut self) {
        self.candidates.clear();
        self.bar = None;
        self.floor = 0.0;
    }

    fn offer(&mut self, neighbor: Neighbor) {
        if self.bar.is_some_and(|bar| bar.best_first(&neighbor).is_lt()) {
            return;
        }
        self.candidates.push(neighbor);
        if self.candidates.len() == 2 * self.keep {
            let worst_kept = self.keep - 1;
            let (_, &mut bar, _) = self.candidates.select_nth_unstable_by(worst_kept, Neighbor::best_first);
            self.candidates.truncate(self.keep);
            self.bar = Some(bar);
            self.floor = floor_below(bar.similarity);
        }
    }

    fn sorted(&mut self) -> &[Neighbor] {
        if self.candidates.len() > self.keep {
            self.candidates.select_nth_unstable_by(self.keep, Neighbor::best_first);
            self.candidates.truncate(self.keep);
        }
        self.candidates.sort_unstable_by(Neighbor::best_first);
        &self.candidates
    }
}

#[cfg(test)]
mod tests;
