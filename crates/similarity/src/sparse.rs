//! A compressed sparse row matrix of positive values.

use std::convert::identity;
use std::ops::Range;

/// The reason why arrays do not form a [`CsrMatrix`], [`NeighborLists`](super::lists::NeighborLists) or
/// [`WeightLists`](super::lists::WeightLists).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SparseError {
    #[error("offsets are empty; there must be one more than there are rows")]
    NoOffsets,
    #[error("offsets start at {first}; they must start at 0")]
    OffsetsStart { first: u64 },
    #[error("offsets decrease from {from} to {to} at row {row}; they must not decrease")]
    OffsetsDecrease { row: usize, from: u64, to: u64 },
    #[error("offsets end at {end}; they must end at {n_entries}, the number of entries")]
    OffsetsEnd { end: u64, n_entries: usize },
    #[error("there are {n_indices} column or neighbor indices, but {n_values} values; there must be as many")]
    LengthsDiffer { n_indices: usize, n_values: usize },
    #[error("there are {n_rows} rows; an index of 32 bits allows at most 4294967295")]
    TooManyRows { n_rows: usize },
    #[error("entry (row {row}, column {column}) lies outside of {n_rows} rows")]
    RowOutOfRange { row: usize, column: u32, n_rows: usize },
    #[error("entry (row {row}, column {column}) lies outside of {n_columns} columns")]
    ColumnOutOfRange { row: usize, column: u32, n_columns: usize },
    #[error("row {row}: column {column} follows column {previous}; columns must ascend")]
    ColumnOrder { row: usize, previous: u32, column: u32 },
    #[error("entry (row {row}, column {column}) is given twice; it must be given once")]
    DuplicateEntry { row: usize, column: u32 },
    #[error("entry (row {row}, column {column}) is {value}; it must be finite and above 0")]
    Value { row: usize, column: u32, value: f32 },
    #[error("entry (row {row}, column {column}) is {weight}; a weight must be finite and not 0")]
    Weight { row: usize, column: u32, weight: f32 },
    #[error("row {row} has a weight for itself")]
    OwnWeight { row: usize },
    #[error("row {row}: neighbor {neighbor} lies outside of {n_targets} targets")]
    NeighborOutOfRange {
        row: usize,
        neighbor: u32,
        n_targets: usize,
    },
    #[error("row {row} lists itself as a neighbor")]
    OwnNeighbor { row: usize },
    #[error("row {row} lists neighbor {neighbor} twice")]
    DuplicateNeighbor { row: usize, neighbor: u32 },
    #[error("row {row}: similarity {similarity} to neighbor {neighbor} must lie in (0, 1]")]
    Similarity { row: usize, neighbor: u32, similarity: f32 },
    #[error("row {row}: neighbor {neighbor} is better than the one before it; lists must be sorted, best first")]
    NeighborOrder { row: usize, neighbor: u32 },
}

/// A sparse matrix [n_rows, n_columns] in compressed rows; an absent entry counts as 0.
///
/// Invariants: columns strictly ascend inside a row; values are finite and > 0; row and column indices of entries fit into
/// `u32`, so that the transpose is a matrix too.
#[derive(Debug, Clone, PartialEq)]
pub struct CsrMatrix {
    n_columns: usize,
    offsets: Vec<u64>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl CsrMatrix {
    /// Makes a matrix of compressed rows: the entries of row r are at `offsets[r]..offsets[r + 1]`.
    ///
    /// `offsets`: n_rows + 1. `columns` and `values`: one per entry.
    ///
    /// # Errors
    /// [`SparseError`] names the row and column of the first entry that breaks an invariant.
    pub fn new(n_columns: usize, offsets: Vec<u64>, columns: Vec<u32>, values: Vec<f32>) -> Result<Self, SparseError> {
        check_offsets(&offsets, columns.len(), values.len())?;
        let matrix = Self {
            n_columns,
            offsets,
            columns,
            values,
        };
        for row in 0..matrix.n_rows() {
            matrix.check_row(row)?;
        }
        Ok(matrix)
    }

    /// Makes a matrix of (row, column, value) entries, in any order, in time O(n_rows + n_columns + nnz).
    ///
    /// # Errors
    /// [`SparseError`] if an entry lies outside of the matrix, a value is not finite and > 0, or a (row, column) is given
    /// twice.
    pub fn from_triplets(n_rows: usize, n_columns: usize, triplets: Vec<(u32, u32, f32)>) -> Result<Self, SparseError> {
        for &(row, column, _) in &triplets {
            if row as usize >= n_rows {
                let row = row as usize;
                return Err(SparseError::RowOutOfRange { row, column, n_rows });
            }
            if column as usize >= n_columns {
                let row = row as usize;
                return Err(SparseError::ColumnOutOfRange { row, column, n_columns });
            }
        }

        // Entries are grouped by column first; grouping by row then visits the columns in order.
        let columns = triplets.iter().map(|&(_, column, _)| column);
        let by_column_offsets = group_offsets(n_columns, columns);
        let mut next = by_column_offsets.clone();
        let mut by_column_rows = vec![0; triplets.len()];
        let mut by_column_values = vec![0.0; triplets.len()];
        for (row, column, value) in triplets {
            let position = &mut next[column as usize];
            by_column_rows[*position as usize] = row;
            by_column_values[*position as usize] = value;
            *position += 1;
        }
        let by_row = transpose(n_rows, &by_column_offsets, &by_column_rows, &by_column_values, identity);
        let (offsets, columns, values) = by_row;
        Self::new(n_columns, offsets, columns, values)
    }

    /// Returns a matrix without entries.
    pub fn empty(n_rows: usize, n_columns: usize) -> Self {
        Self {
            n_columns,
            offsets: vec![0; n_rows + 1],
            columns: Vec::new(),
            values: Vec::new(),
        }
    }

    pub fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Returns the number of entries.
    pub fn nnz(&self) -> usize {
        self.columns.len()
    }

    /// Returns where each row begins in [`columns`](Self::columns) and [`values`](Self::values), and one end: n_rows + 1.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Returns the column of every entry, row by row.
    pub fn columns(&self) -> &[u32] {
        &self.columns
    }

    /// Returns the value of every entry, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns offsets, columns and values.
    pub fn into_parts(self) -> (Vec<u64>, Vec<u32>, Vec<f32>) {
        (self.offsets, self.columns, self.values)
    }

    /// Returns the row's columns, ascending, and their values.
    #[inline]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.row_range(row);
        (&self.columns[range.clone()], &self.values[range])
    }

    /// Returns the positions of the row's entries in [`columns`](Self::columns) and [`values`](Self::values).
    #[inline]
    pub fn row_range(&self, row: usize) -> Range<usize> {
        row_range(&self.offsets, row)
    }

    /// Returns the entry's value, or `None` if it is absent, in time O(log n) of the row's length n.
    pub fn get(&self, row: usize, column: u32) -> Option<f32> {
        let (columns, values) = self.row(row);
        let position = columns.binary_search(&column).ok()?;
        Some(values[position])
    }

    /// Returns the matrix [n_columns, n_rows] with rows and columns swapped, in time O(n_columns + nnz).
    pub fn transpose(&self) -> CsrMatrix {
        let by_column = transpose(self.n_columns, &self.offsets, &self.columns, &self.values, identity);
        let (offsets, columns, values) = by_column;
        Self {
            n_columns: self.n_rows(),
            offsets,
            columns,
            values,
        }
    }

    fn check_row(&self, row: usize) -> Result<(), SparseError> {
        let (columns, values) = self.row(row);
        check_columns(row, columns, self.n_columns)?;
        let mut entries = columns.iter().zip(values);
        match entries.find(|&(_, &value)| !is_allowed(value)) {
            Some((&column, &value)) => Err(SparseError::Value { row, column, value }),
            None => Ok(()),
        }
    }
}

/// Returns whether an entry may have this value: finite and > 0.
pub fn is_allowed(value: f32) -> bool {
    value.is_finite() && value > 0.0
}

/// Checks that the columns of `row` lie inside of the matrix and strictly ascend.
///
/// # Errors
/// [`SparseError`] names the first column that does not.
pub fn check_columns<I: Copy + Ord + Into<u32>>(
    row: usize,
    columns: &[I],
    n_columns: usize,
) -> Result<(), SparseError> {
    // The fold has no branch per column, so it is vectorized.
    let ascend = columns
        .windows(2)
        .fold(true, |ascend, pair| ascend & (pair[0] < pair[1]));
    if ascend && columns.last().is_none_or(|&last| (last.into() as usize) < n_columns) {
        return Ok(());
    }
    let mut previous = None;
    for column in columns.iter().map(|&column| column.into()) {
        if column as usize >= n_columns {
            return Err(SparseError::ColumnOutOfRange { row, column, n_columns });
        }
        match previous {
            Some(previous) if previous == column => return Err(SparseError::DuplicateEntry { row, column }),
            Some(previous) if previous > column => return Err(SparseError::ColumnOrder { row, previous, column }),
            _ => previous = Some(column),
        }
    }
    unreachable!("one of them is out of range or does not ascend")
}

/// Checks that `offsets` divide `n_indices` entries into rows, and that there are as many values.
///
/// # Errors
/// [`SparseError`] names the first offset that is wrong, or the numbers that differ.
pub fn check_offsets(offsets: &[u64], n_indices: usize, n_values: usize) -> Result<(), SparseError> {
    let (Some(&first), Some(&end)) = (offsets.first(), offsets.last()) else {
        return Err(SparseError::NoOffsets);
    };
    check_row_count(offsets.len() - 1)?;
    if first != 0 {
        return Err(SparseError::OffsetsStart { first });
    }
    for (row, pair) in offsets.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        if from > to {
            return Err(SparseError::OffsetsDecrease { row, from, to });
        }
    }
    if end != n_indices as u64 {
        let n_entries = n_indices;
        return Err(SparseError::OffsetsEnd { end, n_entries });
    }
    if n_indices != n_values {
        return Err(SparseError::LengthsDiffer { n_indices, n_values });
    }
    Ok(())
}

fn check_row_count(n_rows: usize) -> Result<(), SparseError> {
    match u32::try_from(n_rows) {
        Ok(_) => Ok(()),
        Err(_) => Err(SparseError::TooManyRows { n_rows }),
    }
}

#[inline]
pub(super) fn row_range(offsets: &[u64], row: usize) -> Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

/// Swaps rows and columns of compressed rows by counting; inside a new row the old rows ascend.
///
/// `columns`: all below `n_columns`, in any order inside a row. `name`: maps the index of an old row. Returns offsets
/// (n_columns + 1), mapped row indices, and values.
pub(super) fn transpose<R: Copy + Default>(
    n_columns: usize,
    offsets: &[u64],
    columns: &[u32],
    values: &[f32],
    name: impl Fn(u32) -> R,
) -> (Vec<u64>, Vec<R>, Vec<f32>) {
    let new_offsets = group_offsets(n_columns, columns.iter().copied());
    let mut next = new_offsets.clone();
    let mut new_rows = vec![R::default(); columns.len()];
    let mut new_values = vec![0.0; values.len()];
    for row in 0..offsets.len() - 1 {
        // The index of a row with entries was checked to fit into `u32`; names of empty rows are not used.
        let named = name(row as u32);
        for position in row_range(offsets, row) {
            let target = &mut next[columns[position] as usize];
            new_rows[*target as usize] = named;
            new_values[*target as usize] = values[position];
            *target += 1;
        }
    }
    (new_offsets, new_rows, new_values)
}

/// Returns the offsets (n_groups + 1) of groups from the group index of every entry.
fn group_offsets(n_groups: usize, groups: impl Iterator<Item = u32>) -> Vec<u64> {
    let mut offsets = vec![0; n_groups + 1];
    for group in groups {
        offsets[group as usize + 1] += 1;
    }
    for group in 0..n_groups {
        offsets[group + 1] += offsets[group];
    }
    offsets
}

#[cfg(test)]
mod tests;
