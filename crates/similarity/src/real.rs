//! The arithmetic of ratings on no grid: products are exact in f64, and added in the order of the columns' places.

use super::arithmetic::Arithmetic;
use super::simd::{Block, Cutoff, InstructionSet, add_real_products, find_real_candidates};

/// Values as they are. The product of two f32s has at most 48 significant bits, so only additions round.
pub(super) struct Reals;

/// A value and its lane, in 6 bytes.
#[derive(Clone, Copy, Default)]
#[repr(C, packed(2))]
pub(super) struct LaneValue {
    lane: u16,
    value: f32,
}

impl Arithmetic for Reals {
    /// `place << 32 | bits of the value`.
    type RowEntry = u64;
    type LaneEntry = LaneValue;
    type Cell = f32;
    type Sum = f64;
    type Float = f64;

    fn row_entry(&self, place: u32, value: f32) -> u64 {
        u64::from(place) << 32 | u64::from(value.to_bits())
    }

    fn place(entry: u64) -> usize {
        (entry >> 32) as usize
    }

    fn value(entry: u64) -> f64 {
        f64::from(value_of(entry))
    }

    fn lane_entry(lane: u16, entry: u64) -> LaneValue {
        LaneValue {
            lane,
            value: value_of(entry),
        }
    }

    fn store(entry: LaneValue, column: &mut [f32]) {
        column[usize::from(entry.lane)] = entry.value;
    }

    fn lanes_per_entry(set: InstructionSet) -> usize {
        match set {
            InstructionSet::Avx512 => 10,
            InstructionSet::Avx2 => 6,
            InstructionSet::Portable => 2,
        }
    }

    fn add_dense(set: InstructionSet, block: Block<'_, f32>, entries: &[u64], sums: &mut [f64], n_lanes: usize) {
        add_real_products(set, block, entries, sums, n_lanes);
    }

    fn add_sparse(entry: u64, column: &[LaneValue], sums: &mut [f64]) {
        let value = Self::value(entry);
        for other in column {
            sums[usize::from(other.lane)] += value * f64::from(other.value);
        }
    }

    fn find_candidates(set: InstructionSet, sums: &[f64], cutoff: Cutoff<'_, f64>, candidates: &mut Vec<u16>) {
        find_real_candidates(set, sums, cutoff, candidates);
    }

    fn exact(sum: f64) -> f64 {
        sum
    }

    fn float(exact: f64) -> f64 {
        exact
    }
}

fn value_of(entry: u64) -> f32 {
    f32::from_bits(entry as u32)
}
