//! All-pairs cosine similarity of sparse rows, the best neighbors of each row.

use std::fmt;
use std::ops::Range;

use super::by_row;
use super::integer::Integers;
use super::kernel::{Arithmetic, Kernel};
use super::layout::Sizes;
use super::lists::NeighborLists;
use super::real::Reals;
use super::simd::InstructionSet;
use super::sparse::CsrMatrix;

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
    #[error("row {row} does not lie within the {n_rows} rows of the matrix")]
    RowOutOfBounds { row: u32, n_rows: usize },
    #[error("row {row} follows row {previous}; selected rows must ascend")]
    RowOrder { previous: u32, row: u32 },
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

/// The rows whose neighbors are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<'a> {
    All,
    Range(Range<usize>),
    /// Strictly ascending.
    Rows(&'a [u32]),
}

/// How products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// Ratings lie on a grid of few values: sums of their products are exact integers.
    Integer,
    /// In f64, columns with more entries first, those with as many in ascending order.
    Real,
    /// In f64, in ascending column order, of the pairs alone that share a column: there are few of them.
    ByRow,
}

/// The way the similarities were computed.
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

/// The nearest neighbors of the selected rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    /// One list per selected row, in order.
    pub lists: NeighborLists,
    pub path: KernelPath,
}

/// Cosine similarity of the selected rows to every row, the best `options.neighbors` of each.
///
/// `sim(a, b) = Σ_i R[a,i]·R[b,i] / sqrt(Σ_i R[a,i]² · Σ_i R[b,i]²)` over whole rows, in exact integers where the values
/// lie on a grid, else, and where hardly any two of many rows share a column, in f64 in one order of the columns (see
/// [`Products`]), rounded once to f32, at most 1. What is or rounds to 0 is no neighbor.
///
/// `rows`: [n_rows, n_columns]; `columns`: its transpose. Returns one list per selected row, best first, similarity in
/// (0, 1], ties by lower index, a row never its own neighbor. Lists of adjacent ranges join by
/// [`NeighborLists::concat`].
///
/// Runs on the rayon pool it is called in; the result is the same, byte by byte, for any number of threads, any
/// instruction set and any way to select rows. Time: every pair of which one row is selected, once, those of a tile
/// twice; row by row, those that share a column, twice where both are selected. Memory beyond the matrices: 6 bytes per
/// entry (real ones: 14), 20 · `neighbors` per selected row, 4 per column and tile, some MB per thread.
///
/// # Errors
/// Selected rows that do not ascend or lie outside of the matrix; `columns` of another shape than the transpose of
/// `rows`.
///
/// Source: ARCHITECTURE.md, "Similarity".
pub fn top_k(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: Selection<'_>,
    options: &TopKOptions,
) -> Result<TopK, SimilarityError> {
    top_k_observed(rows, columns, selection, options, &|_, _| {})
}

/// Told how many pairs of rows have met, and of how many; from any thread.
pub type Observer<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// [`top_k`] that tells how far it is.
///
/// # Errors
/// As [`top_k`].
pub fn top_k_observed(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: Selection<'_>,
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

/// On which the result does not depend.
struct KernelConfig<'a> {
    /// The processor must have them.
    instructions: InstructionSet,
    sizes: &'a Sizes,
    observe: Observer<'a>,
}

fn top_k_by(
    config: KernelConfig<'_>,
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: Selection<'_>,
    options: &TopKOptions,
) -> Result<TopK, SimilarityError> {
    check_shapes(rows, columns)?;
    let selected = selection.rows(rows.n_rows())?;
    let keep = options.neighbors.min(rows.n_rows());
    let path = |products| KernelPath {
        products,
        instructions: config.instructions,
    };
    if by_row::is_faster(columns) {
        return Ok(TopK {
            lists: by_row::best(rows, columns, &selected, keep, config.observe),
            path: path(Products::ByRow),
        });
    }
    let (lists, products) = match Integers::of(rows) {
        Some(integers) => (
            config.lists(&integers, rows, columns, &selected, keep),
            Products::Integer,
        ),
        None => (config.lists(&Reals, rows, columns, &selected, keep), Products::Real),
    };
    Ok(TopK {
        lists,
        path: path(products),
    })
}

impl KernelConfig<'_> {
    /// The lists of the selected rows, from tiles.
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
        // They stand by rank.
        let selected = &layout.order[..layout.n_selected];
        let mut ranks: Vec<u32> = (0..selected.len() as u32).collect();
        ranks.sort_unstable_by_key(|&rank| selected[rank as usize]);
        best.into_lists(rows.n_rows(), &ranks)
    }
}

impl Selection<'_> {
    /// The selected ones of `n_rows` rows, ascending.
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
