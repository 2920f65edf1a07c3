//! Takes most of many equal rows out of a matrix before pairs are visited.
//!
//! A user with 30,000 ratings leaves thousands of items that nobody else has rated: rows with one entry in one column, and
//! few values. An item that half of all users have does the same to the users. All pairs of such rows are equally similar, so
//! that no threshold rules one out, and each is computed exactly: the time grows with the square of their number.
//!
//! Equal rows have the same similarity to every row, and ties go to the lower index. So no list has room for more than the
//! first `keep` of them, beside the row that the list belongs to: the first `keep + 1` of each class of equal rows can stand
//! for all. The last one that stays has the lists of those that go, because `keep` equal rows come before either.

use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;

use super::lists::{Neighbor, NeighborLists};
use super::sparse::CsrMatrix;

/// The least number of rows: below it, all pairs take no time worth saving.
const MIN_ROWS: usize = 1_000;
/// The least share of rows that go, as its inverse: the matrix is copied without them.
const MIN_SHARE: usize = 8;

/// A matrix without most of its equal rows.
pub(super) struct Distinct {
    pub rows: CsrMatrix,
    pub columns: CsrMatrix,
    /// For each row that stays, its index in the whole matrix; ascending.
    kept: Vec<u32>,
    /// For each row of the whole matrix, the row that stays and has its list, as an index of `rows`.
    stand_ins: Vec<u32>,
}

impl Distinct {
    /// Returns `None` if hardly any row could go. It looks at all rows, so that every selection is computed in the same way.
    ///
    /// `keep`: the most neighbors of a row.
    pub fn of(rows: &CsrMatrix, keep: usize) -> Option<Self> {
        Self::with_at_least(rows, keep, MIN_ROWS)
    }

    fn with_at_least(rows: &CsrMatrix, keep: usize, min_rows: usize) -> Option<Self> {
        if rows.n_rows() < min_rows || keep >= rows.n_rows() {
            return None;
        }
        let stand_ins = stand_ins(rows, keep);
        let stays = |row: &u32| stand_ins[*row as usize] == *row;
        let kept: Vec<u32> = (0..rows.n_rows() as u32).filter(stays).collect();
        if (rows.n_rows() - kept.len()) * MIN_SHARE < rows.n_rows() {
            return None;
        }
        let mut positions = vec![0; rows.n_rows()];
        for (position, &row) in (0..).zip(&kept) {
            positions[row as usize] = position;
        }
        let rows = selected(rows, &kept);
        Some(Self {
            columns: rows.transpose(),
            rows,
            kept,
            stand_ins: stand_ins.into_iter().map(|row| positions[row as usize]).collect(),
        })
    }

    /// Returns the rows whose lists are those of the `selected` rows of the whole matrix; ascending.
    pub fn selected(&self, selected: &[u32]) -> Vec<u32> {
        let mut rows: Vec<u32> = selected.iter().map(|&row| self.stand_ins[row as usize]).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Returns the lists of the `selected` rows of the whole matrix.
    ///
    /// `lists`: those of the rows `computed`, which [`Self::selected`] returned.
    pub fn whole_lists(&self, lists: &NeighborLists, computed: &[u32], selected: &[u32]) -> NeighborLists {
        let mut whole = NeighborLists::of_targets(self.stand_ins.len());
        let mut list = Vec::new();
        for &row in selected {
            let computed = computed.partition_point(|&other| other < self.stand_ins[row as usize]);
            let (neighbors, similarities) = lists.row(computed);
            let neighbors = neighbors.iter().zip(similarities);
            list.clear();
            list.extend(neighbors.map(|(&neighbor, &similarity)| Neighbor {
                index: self.kept[neighbor as usize],
                similarity,
            }));
            whole.push_row(&list);
        }
        whole
    }
}

/// Returns for each row the one whose list it has: itself, or the `keep + 1`th of the rows equal to it.
fn stand_ins(rows: &CsrMatrix, keep: usize) -> Vec<u32> {
    let n_rows = rows.n_rows() as u32;
    let mut by_hash: Vec<(u64, u32)> = (0..n_rows).into_par_iter().map(|row| (hash(rows, row), row)).collect();
    by_hash.par_sort_unstable();
    let mut stand_ins: Vec<u32> = (0..n_rows).collect();
    for same_hash in by_hash.chunk_by(|a, b| a.0 == b.0) {
        let equals_first = |&&(_, row): &&(u64, u32)| rows.row(row as usize) == rows.row(same_hash[0].1 as usize);
        // Rows that only share the hash stay.
        let mut equal = same_hash.iter().filter(equals_first).skip(keep).map(|&(_, row)| row);
        let Some(last) = equal.next() else { continue };
        equal.for_each(|row| stand_ins[row as usize] = last);
    }
    stand_ins
}

fn hash(rows: &CsrMatrix, row: u32) -> u64 {
    let (columns, values) = rows.row(row as usize);
    let mut hasher = DefaultHasher::new();
    columns.hash(&mut hasher);
    values.iter().for_each(|value| hasher.write_u32(value.to_bits()));
    hasher.finish()
}

/// Returns the matrix of the `kept` rows.
fn selected(rows: &CsrMatrix, kept: &[u32]) -> CsrMatrix {
    let mut offsets = vec![0];
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for &row in kept {
        let row = rows.row(row as usize);
        columns.extend_from_slice(row.0);
        values.extend_from_slice(row.1);
        offsets.push(columns.len() as u64);
    }
    CsrMatrix::new(rows.n_columns(), offsets, columns, values)
        .unwrap_or_else(|_| unreachable!("rows of a valid matrix are a valid matrix"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cosine::{RowSelection, TopKOptions, top_k};
    use super::*;

    /// Generates up to 60 rows, most of them among five kinds, and some empty.
    fn any_rows() -> impl Strategy<Value = CsrMatrix> {
        let kinds = prop::collection::vec(prop::collection::vec(0_u8..4, 3), 5);
        (kinds, prop::collection::vec(0_usize..7, 1..60)).prop_map(|(kinds, rows)| {
            let triplets = rows.iter().zip(0..).flat_map(|(&kind, row)| {
                let of_kind = kinds.get(kind).cloned().unwrap_or(vec![1, kind as u8, 3]);
                let entries = of_kind.into_iter().zip(0..).filter(|&(value, _)| value > 0);
                entries
                    .map(move |(value, column)| (row, column, f32::from(value)))
                    .collect::<Vec<_>>()
            });
            CsrMatrix::from_triplets(rows.len(), 3, triplets.collect()).unwrap()
        })
    }

    fn lists(rows: &CsrMatrix, columns: &CsrMatrix, selected: &[u32], neighbors: usize) -> NeighborLists {
        let selection = RowSelection::Rows(selected);
        top_k(rows, columns, selection, &TopKOptions { neighbors })
            .unwrap()
            .lists
    }

    proptest! {
        #[test]
        fn the_lists_are_those_of_the_whole_matrix(rows in any_rows(), keep in 0_usize..6, every in 1_usize..3) {
            if let Some(distinct) = Distinct::with_at_least(&rows, keep, 0) {
                prop_assert!(distinct.rows.n_rows() < rows.n_rows());
                let selected: Vec<u32> = (0..rows.n_rows() as u32).step_by(every).collect();
                let computed = distinct.selected(&selected);
                let found = lists(&distinct.rows, &distinct.columns, &computed, keep);
                let found = distinct.whole_lists(&found, &computed, &selected);
                prop_assert_eq!(found, lists(&rows, &rows.transpose(), &selected, keep));
            }
        }
    }

    #[test]
    fn the_first_of_many_equal_rows_stand_for_all() {
        let of_values = |values: &[f32]| {
            let triplets = values.iter().zip(0..).map(|(&value, row)| (row, 0, value)).collect();
            CsrMatrix::from_triplets(values.len(), 1, triplets).unwrap()
        };
        let check = |values: &[f32], keep: usize, kept: Option<&[u32]>| {
            let found = Distinct::with_at_least(&of_values(values), keep, 0);
            assert_eq!(found.map(|distinct| distinct.kept).as_deref(), kept, "{values:?}");
        };
        check(&[1.0; 8], 2, Some(&[0, 1, 2]));
        check(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 1, Some(&[0, 1, 2, 3]));
        check(&[1.0, 2.0, 3.0], 1, None);
        check(&[1.0; 8], 7, None);
        // Below the least number of rows.
        assert!(Distinct::of(&of_values(&[1.0; 8]), 2).is_none());
    }
}
