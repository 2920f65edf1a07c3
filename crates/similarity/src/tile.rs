//! One tile: the entries of its lanes, by column.

use std::ops::Range;

use super::arithmetic::Arithmetic;
use super::order::{ColumnOrder, RankedRows};
use super::simd::{InstructionSet, LANES};

/// The entries of up to [`MAX_TILE_ROWS`](super::layout::MAX_TILE_ROWS) rows, the lanes, by column.
pub(super) struct Tile<A: Arithmetic> {
    /// The number of lanes, rounded up to whole [`LANES`].
    pub width: usize,
    /// The number of dense columns; they have the first places.
    pub n_dense: usize,
    /// Per place where the column's entries begin in `by_column`, and one end: n_columns + 1.
    offsets: Vec<u32>,
    by_column: Vec<A::LaneEntry>,
}

impl<A: Arithmetic> Tile<A> {
    pub fn new(rows: &RankedRows<A>, ranks: Range<usize>, columns: &ColumnOrder, set: InstructionSet) -> Self {
        let entries = rows.rows(ranks.start, ranks.end);
        let n_columns = columns.lengths.len();
        let mut offsets = vec![0; n_columns + 1];
        for &entry in entries {
            offsets[A::place(entry)] += 1;
        }
        let width = ranks.len().next_multiple_of(LANES);
        let n_dense = n_dense(&offsets, columns, width / A::lanes_per_entry(set));
        // Each offset holds its column's end first, and moves to the beginning while the entries are written backward.
        let mut end = 0;
        for offset in &mut offsets {
            end += *offset;
            *offset = end;
        }
        let mut by_column = vec![A::LaneEntry::default(); entries.len()];
        for (lane, rank) in ranks.enumerate() {
            for &entry in rows.row(rank) {
                let next = &mut offsets[A::place(entry)];
                *next -= 1;
                by_column[*next as usize] = A::lane_entry(lane as u16, entry);
            }
        }
        Self {
            width,
            n_dense,
            offsets,
            by_column,
        }
    }

    /// Returns the entries of the column at `place`.
    pub fn column(&self, place: usize) -> &[A::LaneEntry] {
        &self.by_column[self.offsets[place] as usize..self.offsets[place + 1] as usize]
    }

    /// Adds the products of a row's `entries` with the entries of their columns, one by one.
    pub fn add_sparse(&self, entries: &[A::RowEntry], sums: &mut [A::Sum]) {
        for &entry in entries {
            A::add_sparse(entry, self.column(A::place(entry)), sums);
        }
    }
}

/// Returns how many columns, from the first place on, are best treated as dense.
///
/// `entries`: per place, the number of the column's entries in the tile, plus one trailing element, which is ignored.
/// `dense_entries`: the number of sparse entries that cost as much as one dense column.
fn n_dense(entries: &[u32], columns: &ColumnOrder, dense_entries: usize) -> usize {
    let (mut saved, mut most_saved, mut n_dense) = (0, 0, 0);
    for (place, (&entries, &visits)) in entries.iter().zip(&columns.lengths).enumerate() {
        saved += visits as i64 * (i64::from(entries) - dense_entries as i64);
        if saved > most_saved {
            (most_saved, n_dense) = (saved, place + 1);
        }
    }
    n_dense
}
