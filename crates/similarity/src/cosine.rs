//! Computes the cosine similarity of all pairs of sparse rows and keeps the best neighbors of each row.

use std::fmt;
use std::ops::Range;

use super::arithmetic::Arithmetic;
use super::by_row;
use super::duplicates::Distinct;
use super::integer::Integers;
use super::kernel::Kernel;
pub use super::layout::Observer;
use super::layout::Sizes;
use super::lists::NeighborLists;
use super::real::Reals;
use super::simd::InstructionSet;
use super::sparse::CsrMatrix;

/// Options of [`top_k`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopKOptions {
    /// The most neighbors that a row keeps; 50 by default.
    pub neighbors: usize,
}

impl Default for TopKOptions {
    fn default() -> Self {
        Self { neighbors: 50 }
    }
}

/// An error in the arguments of [`top_k`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimilarityError {
    #[error("rows {start}..{end} do not lie within the {n_rows} rows of the matrix")]
    RangeOutOfBounds { start: usize, end: usize, n_rows: usize },
    #[error("row {row} does not lie within the {n_rows} rows of the matrix")]
    RowOutOfBounds { row: u32, n_rows: usize },
    #[error("row {row} follows row {previous}; selected rows must ascend")]
    RowOrder { previous: u32, row: u32 },
    #[error(
        "the transpose of a matrix of {n_rows} × {n_columns} with {nnz} entries must be \
         {n_columns} × {n_rows} with {nnz}, is {transposed_n_rows} × {transposed_n_columns} with {transposed_nnz}"
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

/// The rows whose neighbors to compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowSelection<'a> {
    All,
    Range(Range<usize>),
    /// These rows, strictly ascending.
    Rows(&'a [u32]),
}

/// The arithmetic of the products, and how pairs are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// Exact integers, by tiles: ratings lie on a grid of few values.
    Integer,
    /// f64, by tiles: sums take columns with more entries first, ties in ascending order.
    Real,
    /// f64, row by row: only the few pairs that share a column are visited, and sums take columns in ascending order.
    ByRow,
}

/// The code path by which the similarities were computed, for logs and benches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelPath {
    pub products: Products,
    pub instructions: InstructionSet,
}

impl fmt::Display for KernelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let products = match self.products {
            Products::Integer => "integer",
            Products::Real => "real",
            Products::ByRow => "row by row, real",
        };
        write!(f, "{products} products, {} instructions", self.instructions)
    }
}

/// The result of [`top_k`].
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// One list per selected row, in the order of the selection.
    pub lists: NeighborLists,
    pub path: KernelPath,
}

/// Computes the cosine similarity of the selected rows to every row and keeps the best `options.neighbors` of each.
///
/// `sim(a, b) = Σ_i R[a,i]·R[b,i] / sqrt(Σ_i R[a,i]² · Σ_i R[b,i]²)` over whole rows, rounded once to f32, at most 1. A
/// similarity that is or rounds to 0 makes no neighbor. Sums are exact integers if the values lie on a grid. Otherwise, and
/// if hardly any two of many rows share a column, they are f64s in one order of the columns; see [`Products`].
///
/// `rows`: [n_rows, n_columns]. `columns`: its transpose.
///
/// Returns one list per selected row, best first, similarity in (0, 1], ties by lower index; a row is never its own
/// neighbor. Lists of adjacent ranges can be joined by [`NeighborLists::concat`].
///
/// Runs on the current rayon pool. The result is the same, byte by byte, for any number of threads, any instruction set
/// and any way of selecting rows.
///
/// Most of many equal rows are taken out before; see `duplicates.rs`.
///
/// Time: tiles visit every pair with a selected row once, and pairs within a tile twice. Row by row, the pairs that share a
/// column are visited, twice if both rows are selected. Memory beyond the matrices: 6 bytes per entry (14 if real),
/// 20 · `neighbors` per selected row, 4 per column and tile, and some MB per thread.
///
/// # Errors
/// [`SimilarityError`] if selected rows do not ascend or lie outside of the matrix, or if `columns` has another shape than
/// the transpose of `rows`.
///
/// Source: docs/formulas.md, "Similarity".
pub fn top_k(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: RowSelection<'_>,
    options: &TopKOptions,
) -> Result<TopK, SimilarityError> {
    top_k_observed(rows, columns, selection, options, &|_, _| {})
}

/// Does the same as [`top_k`] and reports its progress to `observe`.
///
/// # Errors
/// As [`top_k`].
pub fn top_k_observed(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: RowSelection<'_>,
    options: &TopKOptions,
    observe: Observer<'_>,
) -> Result<TopK, SimilarityError> {
    let config = KernelConfig {
        instructions: InstructionSet::detect(),
        sizes: &Sizes::default(),
        observe,
    };
    top_k_by(config, rows, columns, selection, options)
}

/// Settings on which the result does not depend.
struct KernelConfig<'a> {
    /// A set that the processor has.
    instructions: InstructionSet,
    sizes: &'a Sizes,
    observe: Observer<'a>,
}

fn top_k_by(
    config: KernelConfig<'_>,
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: RowSelection<'_>,
    options: &TopKOptions,
) -> Result<TopK, SimilarityError> {
    check_shapes(rows, columns)?;
    let selected = selection.rows(rows.n_rows())?;
    let keep = options.neighbors.min(rows.n_rows());
    let Some(distinct) = Distinct::of(rows, keep) else {
        return Ok(config.top_k(rows, columns, &selected, keep));
    };
    let computed = distinct.selected(&selected);
    let TopK { lists, path } = config.top_k(&distinct.rows, &distinct.columns, &computed, keep);
    Ok(TopK {
        lists: distinct.whole_lists(&lists, &computed, &selected),
        path,
    })
}

impl KernelConfig<'_> {
    /// Computes the lists of the selected rows by the path that is the fastest.
    fn top_k(&self, rows: &CsrMatrix, columns: &CsrMatrix, selected: &[u32], keep: usize) -> TopK {
        let path = |products| KernelPath {
            products,
            instructions: self.instructions,
        };
        if by_row::is_faster(columns) {
            return TopK {
                lists: by_row::best(rows, columns, selected, keep, by_row::BLOCK_ROWS, self.observe),
                path: path(Products::ByRow),
            };
        }
        let (lists, products) = match Integers::of(rows) {
            Some(integers) => (self.lists(&integers, rows, columns, selected, keep), Products::Integer),
            None => (self.lists(&Reals, rows, columns, selected, keep), Products::Real),
        };
        TopK {
            lists,
            path: path(products),
        }
    }

    /// Computes the lists of the selected rows by tiles.
    fn lists<A: Arithmetic>(
        &self,
        arithmetic: &A,
        rows: &CsrMatrix,
        columns: &CsrMatrix,
        selected: &[u32],
        keep: usize,
    ) -> NeighborLists {
        let kernel = Kernel::new(arithmetic, rows, columns, selected, self.sizes, self.instructions);
        let layout = &kernel.layout;
        let best = kernel.best(&layout.jobs(rows, self.sizes.job_rows), keep, self.observe);
        let layout = kernel.into_layout();
        // The lists are ordered by rank; `ranks` puts them back into the order of the rows.
        let selected = &layout.order[..layout.n_selected];
        let mut ranks: Vec<u32> = (0..selected.len() as u32).collect();
        ranks.sort_unstable_by_key(|&rank| selected[rank as usize]);
        best.into_lists(rows.n_rows(), &ranks)
    }
}

impl RowSelection<'_> {
    /// Returns the selected ones of `n_rows` rows, ascending.
    fn rows(self, n_rows: usize) -> Result<Vec<u32>, SimilarityError> {
        match self {
            Self::All => Ok((0..n_rows as u32).collect()),
            Self::Range(Range { start, end }) if start > end || end > n_rows => {
                Err(SimilarityError::RangeOutOfBounds { start, end, n_rows })
            }
            Self::Range(Range { start, end }) => Ok((start as u32..end as u32).collect()),
            Self::Rows(rows) => {
                if let Some(pair) = rows.windows(2).find(|pair| pair[0] >= pair[1]) {
                    let (previous, row) = (pair[0], pair[1]);
                    return Err(SimilarityError::RowOrder { previous, row });
                }
                match rows.last() {
                    Some(&row) if row as usize >= n_rows => Err(SimilarityError::RowOutOfBounds { row, n_rows }),
                    _ => Ok(rows.to_vec()),
                }
            }
        }
    }
}

fn check_shapes(rows: &CsrMatrix, columns: &CsrMatrix) -> Result<(), SimilarityError> {
    let n_rows = rows.n_rows();
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

#[cfg(test)]
mod tests;
