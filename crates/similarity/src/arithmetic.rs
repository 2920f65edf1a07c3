//! The interface between the kernel and the two number formats that it runs in.

use std::ops::Mul;

use super::simd::{Block, Cutoff, InstructionSet};

/// A number format: how values are stored, multiplied and summed.
///
/// A pair's products are summed in the order of their columns' places, the dense columns first. A dense column adds 0
/// where a lane has no value, so a sum does not depend on the tile that it is computed in.
pub(super) trait Arithmetic: Sync {
    /// A value of a row with the place of its column; entries are ordered by place.
    type RowEntry: Copy + Default + Ord + Send + Sync;
    /// A value of a tile's column with its lane.
    type LaneEntry: Copy + Default + Send + Sync;
    /// A cell of a dense column; the default stands for an absent value.
    type Cell: Copy + Default;
    /// A dot product; the default is 0.
    type Sum: Copy + Default;
    /// The type in which dot products are compared with thresholds.
    type Float: Copy + Mul<Output = Self::Float> + Send + Sync;

    fn row_entry(&self, place: u32, value: f32) -> Self::RowEntry;
    fn place(entry: Self::RowEntry) -> usize;
    /// Returns the value that is multiplied, exactly.
    fn value(entry: Self::RowEntry) -> f64;
    fn lane_entry(lane: u16, entry: Self::RowEntry) -> Self::LaneEntry;
    /// Writes the value into the dense `column` of its tile.
    fn store(entry: Self::LaneEntry, column: &mut [Self::Cell]);

    /// Returns the number of lanes for which a dense column costs as much as adding one sparse entry.
    fn lanes_per_entry(set: InstructionSet) -> usize;
    /// Adds the products of a row's `entries` with the columns of a block to the first `n_lanes` sums.
    fn add_dense(
        set: InstructionSet,
        block: Block<'_, Self::Cell>,
        entries: &[Self::RowEntry],
        sums: &mut [Self::Sum],
        n_lanes: usize,
    );
    /// Adds the products of one entry of a row with the entries of its column.
    fn add_sparse(entry: Self::RowEntry, column: &[Self::LaneEntry], sums: &mut [Self::Sum]);
    /// Appends the lanes whose sum reaches the cutoff.
    fn find_candidates(
        set: InstructionSet,
        sums: &[Self::Sum],
        cutoff: Cutoff<'_, Self::Float>,
        candidates: &mut Vec<u16>,
    );
    /// Converts a sum without loss.
    fn exact(sum: Self::Sum) -> f64;
    /// Rounds to the type of comparisons.
    fn float(exact: f64) -> Self::Float;
}
