//! Counts the columns that two rows share, in no more steps than the shorter row or a bitmap has.

use super::super::sparse::CsrMatrix;

/// Columns of a word of a bitmap.
const WORD: usize = 64;
/// An entry of the shorter row is searched in the longer one where that takes fewer steps than passing over the longer one: a
/// search is about as slow as so many steps.
const SEARCH_STEPS: usize = 16;

/// The bitmaps of rows that have at least as many entries as a bitmap has words.
pub(super) struct LongRows {
    n_words: usize,
    /// Per row, where its bitmap begins; `NONE` for a short row.
    begins: Vec<usize>,
    words: Vec<u64>,
}

const NONE: usize = usize::MAX;

impl LongRows {
    pub fn of(rows: &CsrMatrix) -> Self {
        let n_words = rows.n_columns().div_ceil(WORD);
        let mut long_rows = Self {
            n_words,
            begins: vec![NONE; rows.n_rows()],
            words: Vec::new(),
        };
        for row in 0..rows.n_rows() {
            let columns = rows.row(row).0;
            if !columns.is_empty() && columns.len() >= n_words {
                let begin = long_rows.words.len();
                long_rows.begins[row] = begin;
                long_rows.words.resize(begin + n_words, 0);
                set(&mut long_rows.words[begin..], columns);
            }
        }
        long_rows
    }

    fn is_long(&self, n_columns: usize) -> bool {
        n_columns >= self.n_words
    }

    /// Returns the steps that [`count_shared`](Self::count_shared) takes, roughly.
    ///
    /// `n_columns`: the length of the current row. `theirs`: the columns of the other.
    pub fn cost(&self, n_columns: usize, theirs: &[u32]) -> usize {
        match self.is_long(theirs.len()) {
            true => n_columns.min(self.n_words),
            false => theirs.len().min(n_columns * SEARCH_STEPS),
        }
    }

    /// Returns the number of columns that the current row shares with `other`.
    ///
    /// `columns`, `bits`: the columns of the current row, ascending, and as a bitmap. `theirs`: those of `other`.
    pub fn count_shared(&self, columns: &[u32], bits: &[u64], other: u32, theirs: &[u32]) -> u32 {
        let begin = self.begins[other as usize];
        let n_shared = if begin == NONE {
            match columns.len() * SEARCH_STEPS < theirs.len() {
                true => count_found(columns, theirs),
                false => count_set(bits, theirs),
            }
        } else {
            let their_bits = &self.words[begin..begin + self.n_words];
            match columns.len() < self.n_words {
                true => count_set(their_bits, columns),
                false => {
                    let both = bits.iter().zip(their_bits).map(|(a, b)| a & b);
                    both.map(|word| word.count_ones() as usize).sum()
                }
            }
        };
        n_shared as u32
    }
}

/// Sets the bits of `columns`.
fn set(bits: &mut [u64], columns: &[u32]) {
    for &column in columns {
        bits[column as usize / WORD] |= 1 << (column as usize % WORD);
    }
}

/// Returns how many of `columns` are set.
fn count_set(bits: &[u64], columns: &[u32]) -> usize {
    let is_set = |column: u32| bits[column as usize / WORD] >> (column as usize % WORD) & 1;
    columns.iter().map(|&column| is_set(column) as usize).sum()
}

/// Returns how many of the ascending `columns` are among the ascending `theirs`.
fn count_found(columns: &[u32], mut theirs: &[u32]) -> usize {
    let mut n_found = 0;
    for column in columns {
        let at = theirs.partition_point(|their| their < column);
        theirs = &theirs[at..];
        n_found += usize::from(theirs.first() == Some(column));
    }
    n_found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Rows have a bitmap from 4 of the 200 columns on.
        #[test]
        fn every_way_counts_the_shared_columns(
            row in prop::collection::btree_set(0_u32..200, 0..150),
            other in prop::collection::btree_set(0_u32..200, 0..150),
            one in prop::collection::btree_set(0_u32..2_000, 0..2),
            few in prop::collection::btree_set(0_u32..2_000, 0..31),
        ) {
            let check = |n_columns: usize, row: &std::collections::BTreeSet<u32>, other: &std::collections::BTreeSet<u32>| {
                let entries = [(0, row), (1, other)].into_iter();
                let triplets = entries.flat_map(|(at, columns)| columns.iter().map(move |&column| (at, column, 1.0)));
                let rows = CsrMatrix::from_triplets(2, n_columns, triplets.collect()).unwrap();
                let long_rows = LongRows::of(&rows);
                let (columns, theirs) = (rows.row(0).0, rows.row(1).0);
                let mut bits = vec![0; n_columns.div_ceil(WORD)];
                set(&mut bits, columns);
                prop_assert_eq!(
                    long_rows.count_shared(columns, &bits, 1, theirs) as usize,
                    row.intersection(other).count()
                );
                Ok(())
            };
            check(200, &row, &other)?;
            check(2_000, &one, &few)?;
        }
    }
}
