//! The matrix in the kernel's order: columns by place, rows by rank.

use std::cmp::Reverse;

use rayon::prelude::*;

use super::arithmetic::Arithmetic;
use super::layout::{Layout, Sizes};
use super::simd::InstructionSet;
use super::sparse::CsrMatrix;

/// The order of the columns: those with more entries first, ties in ascending order.
pub(super) struct ColumnOrder {
    /// Per column, its place.
    places: Vec<u32>,
    /// Per place, the number of the column's entries.
    pub lengths: Vec<usize>,
}

impl ColumnOrder {
    pub fn new(columns: &CsrMatrix) -> Self {
        let length = |column: u32| columns.row_range(column as usize).len();
        let mut order: Vec<u32> = (0..columns.n_rows() as u32).collect();
        order.par_sort_unstable_by_key(|&column| (Reverse(length(column)), column));
        let mut places = vec![0; order.len()];
        for (place, &column) in (0..).zip(&order) {
            places[column as usize] = place;
        }
        let lengths = order.into_iter().map(length).collect();
        Self { places, lengths }
    }

    /// Returns the widest tile whose dense columns fit into a block.
    ///
    /// It assumes that rows with `length` entries have them in the same columns as all rows do.
    pub fn tile_width<A: Arithmetic>(
        &self,
        length: usize,
        rows: &CsrMatrix,
        sizes: &Sizes,
        set: InstructionSet,
    ) -> usize {
        let least = rows.nnz() as f64 / (A::lanes_per_entry(set) * length.max(1)) as f64;
        let n_dense = self.lengths.partition_point(|&entries| entries as f64 > least);
        let block_cells = sizes.block_bytes / size_of::<A::Cell>();
        let width = (block_cells / n_dense.max(1)).clamp(sizes.min_tile_rows, sizes.max_tile_rows);
        // A whole multiple of the narrowest width, as lanes are padded.
        let width = width / sizes.min_tile_rows * sizes.min_tile_rows;
        // The entries of a tile are counted in 32 bits.
        width.min(u32::MAX as usize / length.max(1))
    }
}

/// The entries of all rows, by rank.
pub(super) struct RankedRows<A: Arithmetic> {
    /// Per rank where its row begins in `entries`, and one end: n_rows + 1.
    offsets: Vec<usize>,
    /// Places ascend in a row.
    entries: Vec<A::RowEntry>,
}

impl<A: Arithmetic> RankedRows<A> {
    pub fn new(arithmetic: &A, rows: &CsrMatrix, layout: &Layout, columns: &ColumnOrder) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        offsets.extend(layout.order.iter().map(|&row| {
            end += rows.row_range(row as usize).len();
            end
        }));
        let mut entries = vec![A::RowEntry::default(); rows.nnz()];
        let mut rest = &mut entries[..];
        let mut parts = Vec::new();
        for &row in &layout.order {
            let part;
            (part, rest) = rest.split_at_mut(rows.row_range(row as usize).len());
            parts.push((row, part));
        }
        let sorter = || PlaceSorter::new(columns.places.len());
        parts
            .into_par_iter()
            .with_min_len(16)
            .for_each_init(sorter, |sorter, (row, part)| {
                let (row_columns, values) = rows.row(row as usize);
                let entry = |(&column, &value)| {
                    let place = columns.places[column as usize];
                    (place as usize, arithmetic.row_entry(place, value))
                };
                sorter.sort(row_columns.iter().zip(values).map(entry), part);
            });
        Self { offsets, entries }
    }

    pub fn row(&self, rank: usize) -> &[A::RowEntry] {
        self.rows(rank, rank + 1)
    }

    /// Returns the entries of the adjacent ranks `start..end`.
    pub fn rows(&self, start: usize, end: usize) -> &[A::RowEntry] {
        &self.entries[self.offsets[start]..self.offsets[end]]
    }
}

/// Sorts the entries of a row by place without comparing them: no two have the same place.
struct PlaceSorter<E> {
    /// One bit per place, set where there is an entry.
    taken: Vec<u64>,
    entries: Vec<E>,
}

impl<E: Copy + Default + Ord> PlaceSorter<E> {
    fn new(n_places: usize) -> Self {
        Self {
            taken: vec![0; n_places.div_ceil(64)],
            entries: vec![E::default(); n_places],
        }
    }

    /// Writes `entries`, given with their places, to `sorted` in ascending order of place.
    fn sort(&mut self, entries: impl ExactSizeIterator<Item = (usize, E)>, sorted: &mut [E]) {
        // Comparing few entries costs less than scanning all places, 64 at a time.
        if entries.len() < self.taken.len() / 8 {
            sorted.iter_mut().zip(entries).for_each(|(to, (_, entry))| *to = entry);
            sorted.sort_unstable();
            return;
        }
        for (place, entry) in entries {
            self.taken[place / 64] |= 1 << (place % 64);
            self.entries[place] = entry;
        }
        let mut sorted = sorted.iter_mut();
        for (word, taken) in self.taken.iter_mut().enumerate() {
            let mut left = std::mem::take(taken);
            while left != 0 {
                let place = word * 64 + left.trailing_zeros() as usize;
                if let Some(to) = sorted.next() {
                    *to = self.entries[place];
                }
                left &= left - 1;
            }
        }
    }
}
