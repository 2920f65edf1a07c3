//! The arithmetic of ratings on a grid: exact integers, in whatever order they are added.

use rayon::prelude::*;

use super::arithmetic::Arithmetic;
use super::grid::{Grid, MAX_STEPS};
use super::layout::MAX_TILE_ROWS;
use super::simd::{Block, Cutoff, InstructionSet, add_integer_products, byte_of_lane, find_integer_candidates};
use super::sparse::CsrMatrix;

/// The number of bits of an entry's value, which is at most [`MAX_STEPS`].
const VALUE_BITS: u32 = 4;

const VALUE_MASK: u32 = (1 << VALUE_BITS) - 1;

/// Values in steps of a grid.
///
/// Every dot product fits into 32 bits: it is at most the larger one of the two rows' sums of squares.
pub(super) struct Integers {
    grid: Grid,
}

impl Integers {
    /// Returns the arithmetic of `rows`, or `None` if the values lie on no grid or a sum could exceed 32 bits.
    pub fn of(rows: &CsrMatrix) -> Option<Self> {
        let grid = Grid::of(rows.values())?;
        // A column's place shares 32 bits with a value.
        let places_fit = rows.n_columns() < 1 << (32 - VALUE_BITS);
        let squares_fit = || {
            let fits = |row| square_fits(rows.row(row).1, grid);
            (0..rows.n_rows()).into_par_iter().all(fits)
        };
        (places_fit && squares_fit()).then_some(Self { grid })
    }
}

/// Returns whether `Σ k²` fits into 32 bits.
fn square_fits(values: &[f32], grid: Grid) -> bool {
    /// A row of at most this length fits whatever its values.
    const SURE: usize = (u32::MAX / (MAX_STEPS as u32 * MAX_STEPS as u32)) as usize;
    if values.len() <= SURE {
        return true;
    }
    let square: u64 = values.iter().map(|&value| u64::from(grid.steps(value)).pow(2)).sum();
    u32::try_from(square).is_ok()
}

impl Arithmetic for Integers {
    /// `place << 4 | value`.
    type RowEntry = u32;
    /// `lane << 4 | value`.
    type LaneEntry = u16;
    type Cell = u8;
    type Sum = u32;
    type Float = f32;

    fn row_entry(&self, place: u32, value: f32) -> u32 {
        place << VALUE_BITS | u32::from(self.grid.steps(value))
    }

    fn place(entry: u32) -> usize {
        (entry >> VALUE_BITS) as usize
    }

    fn value(entry: u32) -> f64 {
        f64::from(entry & VALUE_MASK)
    }

    fn lane_entry(lane: u16, entry: u32) -> u16 {
        lane << VALUE_BITS | (entry & VALUE_MASK) as u16
    }

    fn store(entry: u16, column: &mut [u8]) {
        column[byte_of_lane(usize::from(entry >> VALUE_BITS))] = (u32::from(entry) & VALUE_MASK) as u8;
    }

    fn lanes_per_entry(set: InstructionSet) -> usize {
        match set {
            InstructionSet::Avx512 => 56,
            InstructionSet::Avx2 => 48,
            InstructionSet::Portable => 8,
        }
    }

    fn add_dense(set: InstructionSet, block: Block<'_, u8>, entries: &[u32], sums: &mut [u32], n_lanes: usize) {
        add_integer_products(set, block, entries, sums, n_lanes);
    }

    fn add_sparse(entry: u32, column: &[u16], sums: &mut [u32]) {
        let value = entry & VALUE_MASK;
        for other in column {
            sums[usize::from(other >> VALUE_BITS)] += value * (u32::from(*other) & VALUE_MASK);
        }
    }

    fn find_candidates(set: InstructionSet, sums: &[u32], cutoff: Cutoff<'_, f32>, candidates: &mut Vec<u16>) {
        find_integer_candidates(set, sums, cutoff, candidates);
    }

    fn exact(sum: u32) -> f64 {
        f64::from(sum)
    }

    fn float(exact: f64) -> f32 {
        exact as f32
    }
}

const _: () = assert!(MAX_STEPS as u32 == VALUE_MASK && MAX_TILE_ROWS <= 1 << (16 - VALUE_BITS));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_that_exceed_32_bits_are_refused() {
        let grid = Grid::of(&[1.0, 15.0]).unwrap();
        let mut values = vec![15.0; (u32::MAX / 225) as usize];
        assert!(square_fits(&values, grid));
        values.push(1.0);
        assert!(square_fits(&values, grid));
        values.push(15.0);
        assert!(!square_fits(&values, grid));
    }
}
