//! Lists of the nearest neighbors and lists of signed weights, by row and inverted.
//!
//! Both name targets by index and give each a value. [`NeighborLists`] hold similarities, best first; [`WeightLists`] hold
//! weights of a learned model, which may be below 0, by ascending target.

use std::cmp::Ordering;
use std::convert::identity;

use super::sparse::{SparseError, check_columns, check_offsets, row_range, transpose};

/// Neighbor lists of n_rows rows over n_targets targets, or of an adjacent range of rows.
///
/// Invariants: a list stands best first (similarity descending by `total_cmp`, then lower index), similarities lie in
/// (0, 1], no target occurs twice in a list, nor a row in its own.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighborLists {
    n_targets: usize,
    offsets: Vec<u64>,
    neighbors: Vec<u32>,
    similarities: Vec<f32>,
}

impl NeighborLists {
    /// Takes over the lists of rows 0, 1, …: row r's neighbors stand at `offsets[r]..offsets[r + 1]`.
    ///
    /// Row r is target r. The lists of a later range of rows are checked after [`concat`](Self::concat).
    ///
    /// # Errors
    /// Names the row and neighbor that breach an invariant first.
    pub fn new(
        n_targets: usize,
        offsets: Vec<u64>,
        neighbors: Vec<u32>,
        similarities: Vec<f32>,
    ) -> Result<Self, SparseError> {
        check_offsets(&offsets, neighbors.len(), similarities.len())?;
        let lists = Self {
            n_targets,
            offsets,
            neighbors,
            similarities,
        };
        let mut named = vec![0; n_targets.div_ceil(64)];
        for row in 0..lists.n_rows() {
            lists.check_row(row, &mut named)?;
        }
        Ok(lists)
    }

    /// Makes lists of no rows over `n_targets` targets.
    pub(super) fn of_targets(n_targets: usize) -> Self {
        Self {
            n_targets,
            offsets: vec![0],
            neighbors: Vec::new(),
            similarities: Vec::new(),
        }
    }

    /// Appends the next row's list; the caller keeps the invariants.
    pub(super) fn push_row(&mut self, list: &[Neighbor]) {
        self.neighbors.extend(list.iter().map(|neighbor| neighbor.index));
        self.similarities
            .extend(list.iter().map(|neighbor| neighbor.similarity));
        self.offsets.push(self.neighbors.len() as u64);
    }

    pub fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn n_targets(&self) -> usize {
        self.n_targets
    }

    /// The number of neighbors in all lists together.
    pub fn len(&self) -> usize {
        self.neighbors.len()
    }

    /// Whether no row has a neighbor.
    pub fn is_empty(&self) -> bool {
        self.neighbors.is_empty()
    }

    /// Returns where the lists begin in [`neighbors`](Self::neighbors) and [`similarities`](Self::similarities):
    /// n_rows + 1.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    pub fn neighbors(&self) -> &[u32] {
        &self.neighbors
    }

    pub fn similarities(&self) -> &[f32] {
        &self.similarities
    }

    /// Returns the row's neighbors, best first, and their similarities.
    #[inline]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = row_range(&self.offsets, row);
        (&self.neighbors[range.clone()], &self.similarities[range])
    }

    /// Returns the lists with at most the first `keep` neighbors of each row.
    pub fn truncated(&self, keep: usize) -> NeighborLists {
        let mut lists = Self::of_targets(self.n_targets);
        for row in 0..self.n_rows() {
            let (neighbors, similarities) = self.row(row);
            let keep = keep.min(neighbors.len());
            lists.neighbors.extend_from_slice(&neighbors[..keep]);
            lists.similarities.extend_from_slice(&similarities[..keep]);
            lists.offsets.push(lists.neighbors.len() as u64);
        }
        lists
    }

    /// Joins the lists of adjacent row ranges, in order.
    pub fn concat(ranges: Vec<NeighborLists>) -> NeighborLists {
        let n_targets = ranges.iter().map(|range| range.n_targets).max();
        let n_rows: usize = ranges.iter().map(Self::n_rows).sum();
        let n_entries: usize = ranges.iter().map(Self::len).sum();

        let mut joined = Self::of_targets(n_targets.unwrap_or(0));
        joined.offsets.reserve_exact(n_rows);
        joined.neighbors.reserve_exact(n_entries);
        joined.similarities.reserve_exact(n_entries);
        for range in ranges {
            let base = joined.neighbors.len() as u64;
            let offsets = range.offsets[1..].iter().map(|offset| base + offset);
            joined.offsets.extend(offsets);
            joined.neighbors.extend_from_slice(&range.neighbors);
            joined.similarities.extend_from_slice(&range.similarities);
        }
        joined
    }

    /// Spreads the lists over `n_rows` rows: list i becomes that of row `rows[i]`, and all other rows have none.
    ///
    /// `rows`: one per list, ascending, below `n_rows`.
    pub fn among(self, rows: &[u32], n_rows: usize) -> NeighborLists {
        let mut offsets = Vec::with_capacity(n_rows + 1);
        offsets.push(0);
        for (list, &row) in rows.iter().enumerate() {
            offsets.resize(row as usize + 1, self.offsets[list]);
            offsets.push(self.offsets[list + 1]);
        }
        offsets.resize(n_rows + 1, self.neighbors.len() as u64);
        Self { offsets, ..self }
    }

    /// Returns for every target the rows that name it, in time O(n_targets + len).
    pub fn transpose(&self) -> InvertedLists {
        self.entries().transpose_as(identity)
    }

    /// Views the lists without the meaning of their values.
    pub fn entries(&self) -> ListEntries<'_> {
        ListEntries {
            n_targets: self.n_targets,
            offsets: &self.offsets,
            targets: &self.neighbors,
            values: &self.similarities,
        }
    }

    /// `named`: one bit per target, all 0 before and after.
    fn check_row(&self, row: usize, named: &mut [u64]) -> Result<(), SparseError> {
        let (neighbors, similarities) = self.row(row);
        // One comparison for all entries, without a branch for each; only a row with a breach is searched for it.
        let mut is_valid = neighbors.iter().fold(true, |is_valid, &index| {
            is_valid & ((index as usize) < self.n_targets) & (index as usize != row)
        });
        is_valid &= similarities.iter().fold(true, |is_valid, &similarity| {
            is_valid & (similarity > 0.0) & (similarity <= 1.0)
        });
        let pairs = neighbors.windows(2).zip(similarities.windows(2));
        is_valid &= pairs.fold(true, |is_valid, (index, similarity)| {
            let is_equal = (similarity[0] == similarity[1]) & (index[0] < index[1]);
            is_valid & ((similarity[0] > similarity[1]) | is_equal)
        });
        if is_valid {
            let mut is_named_twice = false;
            for &index in neighbors {
                let (word, bit) = (&mut named[index as usize / 64], 1 << (index % 64));
                is_named_twice |= *word & bit != 0;
                *word |= bit;
            }
            for &index in neighbors {
                named[index as usize / 64] = 0;
            }
            is_valid = !is_named_twice;
        }
        match is_valid {
            true => Ok(()),
            false => Err(self.first_breach(row)),
        }
    }

    /// Finds the first breach in a row that has one.
    fn first_breach(&self, row: usize) -> SparseError {
        let (neighbors, similarities) = self.row(row);
        let mut previous: Option<Neighbor> = None;
        let mut is_named = vec![false; self.n_targets];
        for (&index, &similarity) in neighbors.iter().zip(similarities) {
            let neighbor = index;
            if index as usize >= self.n_targets {
                let n_targets = self.n_targets;
                return SparseError::NeighborOutOfRange {
                    row,
                    neighbor,
                    n_targets,
                };
            }
            if index as usize == row {
                return SparseError::OwnNeighbor { row };
            }
            if !(similarity > 0.0 && similarity <= 1.0) {
                return SparseError::Similarity {
                    row,
                    neighbor,
                    similarity,
                };
            }
            if std::mem::replace(&mut is_named[index as usize], true) {
                return SparseError::DuplicateNeighbor { row, neighbor };
            }
            let current = Neighbor { index, similarity };
            if previous.is_some_and(|previous| previous.best_first(&current).is_gt()) {
                return SparseError::NeighborOrder { row, neighbor };
            }
            previous = Some(current);
        }
        unreachable!("one of them is invalid")
    }
}

impl Default for NeighborLists {
    /// Makes lists of no rows over no targets.
    fn default() -> Self {
        Self::of_targets(0)
    }
}

/// Lists of signed weights of n rows over the same n targets, as a learned model has them: a score of row i is the sum,
/// over targets j, of the weight of j in the list of i times the value of j.
///
/// Invariants: targets strictly ascend inside a list, weights are finite and not 0, no row has a weight for itself.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightLists {
    n_targets: usize,
    offsets: Vec<u64>,
    targets: Vec<u32>,
    weights: Vec<f32>,
}

impl WeightLists {
    /// Takes over the lists of rows 0, 1, …: row r's targets stand at `offsets[r]..offsets[r + 1]`. Row r is target r.
    ///
    /// # Errors
    /// Names the row and target that breach an invariant first.
    pub fn new(n_targets: usize, offsets: Vec<u64>, targets: Vec<u32>, weights: Vec<f32>) -> Result<Self, SparseError> {
        check_offsets(&offsets, targets.len(), weights.len())?;
        let lists = Self {
            n_targets,
            offsets,
            targets,
            weights,
        };
        (0..lists.n_rows()).try_for_each(|row| lists.check_row(row))?;
        Ok(lists)
    }

    pub fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn n_targets(&self) -> usize {
        self.n_targets
    }

    /// Returns where the lists begin in [`targets`](Self::targets) and [`weights`](Self::weights): n_rows + 1.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Returns the row's targets, ascending, and their weights.
    #[inline]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = row_range(&self.offsets, row);
        (&self.targets[range.clone()], &self.weights[range])
    }

    /// Views the lists without the meaning of their values.
    pub fn entries(&self) -> ListEntries<'_> {
        ListEntries {
            n_targets: self.n_targets,
            offsets: &self.offsets,
            targets: &self.targets,
            values: &self.weights,
        }
    }

    fn check_row(&self, row: usize) -> Result<(), SparseError> {
        let (targets, weights) = self.row(row);
        check_columns(row, targets, self.n_targets)?;
        let mut entries = targets.iter().zip(weights);
        let is_wrong = |&(&target, &weight): &(&u32, &f32)| !is_weight(weight) || target as usize == row;
        match entries.find(is_wrong) {
            None => Ok(()),
            Some((&column, &weight)) if !is_weight(weight) => Err(SparseError::Weight { row, column, weight }),
            Some(_) => Err(SparseError::OwnWeight { row }),
        }
    }
}

fn is_weight(weight: f32) -> bool {
    weight.is_finite() && weight != 0.0
}

/// The entries of lists: targets, and a similarity or weight for each.
#[derive(Debug, Clone, Copy)]
pub struct ListEntries<'a> {
    n_targets: usize,
    offsets: &'a [u64],
    targets: &'a [u32],
    values: &'a [f32],
}

impl ListEntries<'_> {
    /// Returns for every target the rows that name it, each as whatever `name` makes of its index, in time
    /// O(n_targets + entries). `name` is called for rows without entries too.
    pub fn transpose_as<R: Copy + Default>(self, name: impl Fn(u32) -> R) -> InvertedLists<R> {
        let (offsets, rows, values) = transpose(self.n_targets, self.offsets, self.targets, self.values, name);
        InvertedLists { offsets, rows, values }
    }
}

/// For every target j the rows i whose lists name j, by ascending i, each under a name of type R.
#[derive(Debug, Clone, PartialEq)]
pub struct InvertedLists<R = u32> {
    offsets: Vec<u64>,
    rows: Vec<R>,
    values: Vec<f32>,
}

impl<R> InvertedLists<R> {
    /// The number of targets.
    pub fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Returns where the entries of each target begin (n_rows + 1), the rows, and their similarities or weights.
    pub fn into_parts(self) -> (Vec<u64>, Vec<R>, Vec<f32>) {
        (self.offsets, self.rows, self.values)
    }

    /// Returns the names of the rows that name this target, in order of the rows, and their similarities or weights.
    #[inline]
    pub fn row(&self, target: usize) -> (&[R], &[f32]) {
        let range = row_range(&self.offsets, target);
        (&self.rows[range.clone()], &self.values[range])
    }
}

/// One entry of a neighbor list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Neighbor {
    pub index: u32,
    pub similarity: f32,
}

impl Neighbor {
    /// Compares by the order of a list, which is total: no two different targets compare equal.
    pub fn best_first(&self, other: &Self) -> Ordering {
        let by_similarity = other.similarity.total_cmp(&self.similarity);
        by_similarity.then(self.index.cmp(&other.index))
    }

    /// Returns a number that ascends in the order of a list, so that entries are compared without a branch. The bits of
    /// similarities ascend as the similarities do, because these are above 0.
    pub fn key(&self) -> u64 {
        u64::from(!self.similarity.to_bits()) << 32 | u64::from(self.index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Finds the first breach of a row by the definition.
    fn plain_breach(n_targets: usize, row: usize, list: &[(u32, f32)]) -> Option<SparseError> {
        list.iter().enumerate().find_map(|(at, &(neighbor, similarity))| {
            let is_better =
                |before: &(u32, f32)| similarity > before.1 || similarity == before.1 && neighbor < before.0;
            if neighbor as usize >= n_targets {
                Some(SparseError::NeighborOutOfRange {
                    row,
                    neighbor,
                    n_targets,
                })
            } else if neighbor as usize == row {
                Some(SparseError::OwnNeighbor { row })
            } else if !(similarity > 0.0 && similarity <= 1.0) {
                Some(SparseError::Similarity {
                    row,
                    neighbor,
                    similarity,
                })
            } else if list[..at].iter().any(|before| before.0 == neighbor) {
                Some(SparseError::DuplicateNeighbor { row, neighbor })
            } else {
                let follows_worse = list[..at].last().is_some_and(is_better);
                follows_worse.then_some(SparseError::NeighborOrder { row, neighbor })
            }
        })
    }

    proptest! {
        #[test]
        fn the_first_breach_is_named(
            mut rows in prop::collection::vec(prop::collection::vec((0_u32..6, 0_u8..6), 0..5), 5),
            is_sorted: bool,
        ) {
            // 0 and 1.25 are not similarities, and there is no target 5.
            let similarity = |quarters: u8| f32::from(quarters) / 4.0;
            if is_sorted {
                rows.iter_mut().for_each(|row| row.sort_by_key(|&(target, quarters)| (std::cmp::Reverse(quarters), target)));
            }
            let rows: Vec<Vec<(u32, f32)>> =
                rows.iter().map(|row| row.iter().map(|&(target, quarters)| (target, similarity(quarters))).collect()).collect();
            let expected = rows.iter().enumerate().find_map(|(row, list)| plain_breach(5, row, list));
            let ends = rows.iter().scan(0, |end, row| { *end += row.len() as u64; Some(*end) });
            let offsets = std::iter::once(0).chain(ends).collect();
            let (neighbors, similarities) = rows.concat().into_iter().unzip();
            prop_assert_eq!(NeighborLists::new(5, offsets, neighbors, similarities).err(), expected);
        }
    }

    fn sample() -> NeighborLists {
        NeighborLists::new(3, vec![0, 2, 2, 4], vec![2, 1, 0, 1], vec![1.0, 0.25, 0.5, 0.5]).unwrap()
    }

    #[test]
    fn rows_are_those_given() {
        let lists = sample();
        assert_eq!((lists.n_rows(), lists.len(), lists.is_empty()), (3, 4, false));
        assert_eq!(lists.row(0), (&[2, 1][..], &[1.0, 0.25][..]));
        assert_eq!(lists.row(1), (&[][..], &[][..]));
        assert_eq!(lists.offsets(), [0, 2, 2, 4]);
        assert_eq!(lists.neighbors(), [2, 1, 0, 1]);
        assert_eq!(lists.similarities(), [1.0, 0.25, 0.5, 0.5]);
    }

    #[test]
    fn inverts_by_hand() {
        let inverted = sample().transpose();
        assert_eq!(inverted.n_rows(), 3);
        assert_eq!(inverted.row(0), (&[2][..], &[0.5][..]));
        assert_eq!(inverted.row(1), (&[0, 2][..], &[0.25, 0.5][..]));
        assert_eq!(inverted.row(2), (&[0][..], &[1.0][..]));
    }

    #[test]
    fn lists_of_few_rows_stand_among_empty_ones() {
        let among = |rows: &[u32], n_rows| {
            let lists = sample().among(rows, n_rows);
            let lengths: Vec<usize> = (0..lists.n_rows()).map(|row| lists.row(row).0.len()).collect();
            let held: Vec<&[u32]> = rows.iter().map(|&row| lists.row(row as usize).0).collect();
            assert_eq!(held, [&[2, 1][..], &[], &[0, 1]]);
            lengths
        };
        assert_eq!(among(&[0, 1, 2], 3), [2, 0, 2]);
        assert_eq!(among(&[1, 2, 5], 7), [0, 2, 0, 0, 0, 2, 0]);
        assert_eq!(among(&[0, 3, 4], 5), [2, 0, 0, 0, 2]);
        let none = NeighborLists::default().among(&[], 2);
        assert_eq!((none.n_rows(), none.len()), (2, 0));
    }

    #[test]
    fn nothing_is_a_valid_set_of_lists() {
        let none = NeighborLists::default();
        assert_eq!((none.n_rows(), none.len(), none.is_empty()), (0, 0, true));
        assert_eq!(NeighborLists::concat(Vec::new()), none);
        assert_eq!(none.transpose().n_rows(), 0);
        let checked = NeighborLists::new(0, vec![0], Vec::new(), Vec::new());
        assert_eq!(checked, Ok(none));
    }

    #[test]
    fn a_breach_of_an_invariant_is_refused() {
        fn check(offsets: &[u64], neighbors: &[u32], similarities: &[f32], message: &str) {
            let (offsets, neighbors) = (offsets.to_vec(), neighbors.to_vec());
            let lists = NeighborLists::new(4, offsets, neighbors, similarities.to_vec());
            assert_eq!(lists.unwrap_err().to_string(), message);
        }
        check(
            &[],
            &[],
            &[],
            "offsets are empty; there must be one more than there are rows",
        );
        check(
            &[0, 1],
            &[],
            &[],
            "offsets end at 1; they must end at 0, the number of entries",
        );
        check(
            &[0, 1],
            &[1],
            &[],
            "there are 1 column or neighbor indices, but 0 values; there must be as many",
        );
        check(&[0, 0, 1], &[4], &[0.5], "row 1: neighbor 4 lies outside of 4 targets");
        check(&[0, 0, 1], &[1], &[0.5], "row 1 lists itself as a neighbor");
        check(&[0, 2], &[1, 1], &[0.5, 0.25], "row 0 lists neighbor 1 twice");
        for similarity in [f32::NAN, f32::INFINITY, 0.0, -0.5, 1.000_000_1] {
            let message = format!("row 0: similarity {similarity} to neighbor 3 must lie in (0, 1]");
            check(&[0, 1], &[3], &[similarity], &message);
        }
        let order = "row 0: neighbor 2 is better than the one before it; lists must be sorted, best first";
        check(&[0, 2], &[1, 2], &[0.25, 0.5], order);
        check(&[0, 2], &[3, 2], &[0.5, 0.5], order);
    }

    /// Makes lists over six targets, each by picking a similarity (0 = none) for every target.
    fn any_lists() -> impl Strategy<Value = NeighborLists> {
        prop::collection::vec(prop::collection::vec(0u8..4, 6), 6).prop_map(|grid| {
            let mut lists = NeighborLists::of_targets(6);
            for (row, picks) in grid.iter().enumerate() {
                let mut list: Vec<Neighbor> = (0..6)
                    .filter(|&target| target as usize != row && picks[target as usize] > 0)
                    .map(|index| Neighbor {
                        index,
                        similarity: f32::from(picks[index as usize]) / 3.0,
                    })
                    .collect();
                list.sort_by(Neighbor::best_first);
                lists.push_row(&list);
            }
            lists
        })
    }

    #[test]
    fn weights_may_be_below_0_and_stand_by_target() {
        let lists = WeightLists::new(3, vec![0, 2, 2, 3], vec![1, 2, 0], vec![-0.5, 1.5, 2.0]).unwrap();
        assert_eq!((lists.n_rows(), lists.n_targets()), (3, 3));
        assert_eq!(lists.row(0), (&[1, 2][..], &[-0.5, 1.5][..]));
        assert_eq!(lists.row(1), (&[][..], &[][..]));
        let inverted = lists.entries().transpose_as(|row| 10 * row);
        assert_eq!(inverted.row(0), (&[20][..], &[2.0][..]));
        assert_eq!(inverted.row(1), (&[0][..], &[-0.5][..]));
        assert_eq!(inverted.row(2), (&[0][..], &[1.5][..]));
    }

    #[test]
    fn a_breach_of_an_invariant_of_weights_is_refused() {
        let check = |targets: &[u32], weights: &[f32], message: &str| {
            let offsets = vec![0, 0, targets.len() as u64];
            let lists = WeightLists::new(4, offsets, targets.to_vec(), weights.to_vec());
            assert_eq!(lists.unwrap_err().to_string(), message);
        };
        check(
            &[0],
            &[],
            "there are 1 column or neighbor indices, but 0 values; there must be as many",
        );
        check(
            &[2, 4],
            &[0.5, 0.5],
            "entry (row 1, column 4) lies outside of 4 columns",
        );
        check(
            &[2, 2],
            &[0.5, 0.5],
            "entry (row 1, column 2) is given twice; it must be given once",
        );
        check(
            &[3, 2],
            &[0.5, 0.5],
            "row 1: column 2 follows column 3; columns must ascend",
        );
        check(&[1], &[0.5], "row 1 has a weight for itself");
        for weight in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0] {
            let message = format!("entry (row 1, column 3) is {weight}; a weight must be finite and not 0");
            check(&[0, 3], &[-1.0, weight], &message);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn inverted_lists_agree_with_the_lists(lists in any_lists()) {
            let inverted = lists.transpose();
            prop_assert_eq!(inverted.n_rows(), 6);
            for target in 0..6 {
                let mut expected = (Vec::new(), Vec::new());
                for row in 0..6 {
                    let (neighbors, similarities) = lists.row(row);
                    if let Some(at) = neighbors.iter().position(|&n| n as usize == target) {
                        expected.0.push(row as u32);
                        expected.1.push(similarities[at]);
                    }
                }
                let (rows, similarities) = inverted.row(target);
                prop_assert_eq!((rows, similarities), (&expected.0[..], &expected.1[..]));
            }
        }

        #[test]
        fn sorted_lists_pass_the_checks(lists in any_lists()) {
            let (offsets, neighbors) = (lists.offsets().to_vec(), lists.neighbors().to_vec());
            let checked = NeighborLists::new(6, offsets, neighbors, lists.similarities().to_vec());
            prop_assert_eq!(checked, Ok(lists));
        }
    }
}
