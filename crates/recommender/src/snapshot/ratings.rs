//! The effective ratings of a snapshot, by user. They take most of its memory, and requests mostly read them.
//!
//! Items are named by their rank by popularity. The sums of a ranking, one per rank, are then mostly added to where the
//! popular items stand together, and these stay in the first-level cache. A rank takes 2 bytes where there are up to 65,536
//! items, else 4; a rating takes 1 where few values occur, else 4 ([`Floats`]). That is 3 bytes per entry on a scale of half
//! stars, against 8 of a [`CsrMatrix`]. Size is speed here: rows are read in any order, and the time is spent waiting for
//! memory.

use std::ops::Range;

use similarity::sparse::{CsrMatrix, SparseError, check_columns, check_offsets, is_allowed};

use super::bits::Bits;
use super::dictionary::ItemIndex;
use super::erased_users::ErasedUsers;
use super::floats::{FloatSlice, Floats};
use super::popularity::Popularity;

/// A sparse matrix [n_users, n_items] in compressed rows; an absent entry counts as 0.
///
/// Invariants: those of [`CsrMatrix`], with ranks as columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratings {
    popularity: Popularity,
    offsets: Vec<u64>,
    ranks: Ranks,
    values: Floats,
}

/// Items named by their rank; narrow exactly where [`Ranks::are_narrow`] says so.
#[derive(Debug, Clone, PartialEq)]
pub enum Ranks {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

/// A user's ratings, ascending by rank of the item.
#[derive(Debug, Clone, Copy)]
pub struct Rated<'a> {
    popularity: &'a Popularity,
    pub ranks: RankSlice<'a>,
    /// One value per rank.
    pub values: FloatSlice<'a>,
}

/// Consecutive entries of [`Ranks`].
#[derive(Debug, Clone, Copy)]
pub enum RankSlice<'a> {
    Narrow(&'a [u16]),
    Wide(&'a [u32]),
}

/// The reason why arrays do not form [`Ratings`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RatingsError {
    #[error(transparent)]
    Sparse(#[from] SparseError),
    #[error("the items by popularity are not all items, most ratings first and equals in order")]
    Popularity,
}

impl Default for Ratings {
    /// Makes ratings of no users and no items.
    fn default() -> Self {
        Self {
            popularity: Popularity::new(&[]),
            offsets: vec![0],
            ranks: Ranks::new(Vec::new(), 0),
            values: Floats::new(Vec::new()),
        }
    }
}

impl Ratings {
    /// Takes over compressed rows: user u's entries stand at `offsets[u]..offsets[u + 1]`.
    ///
    /// `by_popularity`: all items, most ratings first, ties by index; `offsets`: n_users + 1; `ranks`, positions in
    /// `by_popularity`, and `values`: one per entry.
    ///
    /// # Errors
    /// Names a breach of the invariants by row and, as column, rank; or says that the items are in another order.
    pub fn new(by_popularity: Vec<u32>, offsets: Vec<u64>, ranks: Ranks, values: Floats) -> Result<Self, RatingsError> {
        check_offsets(&offsets, ranks.as_slice().len(), values.len())?;
        let rows = || offsets.windows(2).map(|row| row[0] as usize..row[1] as usize);
        let n_items = by_popularity.len();
        for (user, row) in rows().enumerate() {
            match ranks.as_slice().slice(row) {
                RankSlice::Narrow(ranks) => check_columns(user, ranks, n_items)?,
                RankSlice::Wide(ranks) => check_columns(user, ranks, n_items)?,
            }
        }
        // Distinct values are checked once each; only where one is wrong is the entry with it searched for.
        let are_valid = match values.as_slice() {
            FloatSlice::Coded(distinct, _) => distinct.values().iter().all(|&value| is_allowed(value)),
            FloatSlice::Plain(values) => values.iter().all(|&value| is_allowed(value)),
        };
        if !are_valid {
            for (row, mut entries) in rows().enumerate() {
                let value = |at| values.as_slice().get(at);
                if let Some(at) = entries.find(|&at| !is_allowed(value(at))) {
                    let (column, value) = (ranks.as_slice().get(at), value(at));
                    return Err(SparseError::Value { row, column, value }.into());
                }
            }
        }
        let mut raters = vec![0; n_items];
        match ranks.as_slice() {
            RankSlice::Narrow(ranks) => ranks.iter().for_each(|&rank| raters[usize::from(rank)] += 1),
            RankSlice::Wide(ranks) => ranks.iter().for_each(|&rank| raters[rank as usize] += 1),
        }
        Ok(Self {
            popularity: Popularity::ranked(by_popularity, raters).ok_or(RatingsError::Popularity)?,
            offsets,
            ranks,
            values,
        })
    }

    /// Converts a matrix whose columns are items by index. `purchased` has a bit per entry of the matrix, and the returned
    /// bits one per entry of the ratings.
    ///
    /// Time O(nnz · log of a row's length).
    pub fn of_matrix(matrix: CsrMatrix, purchased: &Bits) -> (Self, Bits) {
        let mut raters = vec![0; matrix.n_columns()];
        matrix.columns().iter().for_each(|&item| raters[item as usize] += 1);
        let popularity = Popularity::new(&raters);

        let (offsets, mut columns, mut values) = matrix.into_parts();
        let mut moved_purchased = Bits::zeros(columns.len());
        let mut row = Vec::new();
        for ends in offsets.windows(2) {
            let entries = ends[0] as usize..ends[1] as usize;
            row.clear();
            row.extend(entries.clone().map(|at| {
                let rank = popularity.rank(ItemIndex(columns[at]));
                (rank, values[at], purchased.get(at))
            }));
            row.sort_unstable_by_key(|&(rank, ..)| rank);
            for (at, &(rank, value, is_purchased)) in entries.zip(&row) {
                columns[at] = rank;
                values[at] = value;
                moved_purchased.set(at, is_purchased);
            }
        }
        let ratings = Self {
            ranks: Ranks::new(columns, popularity.len()),
            popularity,
            offsets,
            values: Floats::new(values),
        };
        (ratings, moved_purchased)
    }

    /// Returns the ratings without those of erased users, whose rows become empty. Items are ranked again by how many of the
    /// remaining ratings they have. `purchased` has a bit per entry of these ratings, and the returned bits one per remaining
    /// entry.
    ///
    /// Time O(nnz · log of a row's length).
    pub fn without(&self, erased: &ErasedUsers, purchased: &Bits) -> (Self, Bits) {
        let remaining = |user: &usize| !erased.has_row(*user);
        let mut raters = vec![0; self.n_items()];
        for user in (0..self.n_users()).filter(remaining) {
            self.row(user).iter().for_each(|(item, _)| raters[item.at()] += 1);
        }
        let popularity = Popularity::new(&raters);

        let (mut offsets, mut ranks, mut values) = (vec![0], Vec::new(), Vec::new());
        let mut left_purchased = Vec::new();
        for user in 0..self.n_users() {
            if remaining(&user) {
                let entries = self.row(user).iter().zip(self.row_range(user));
                let entry = |((item, value), at)| (popularity.rank(item), value, purchased.get(at));
                let mut row: Vec<(u32, f32, bool)> = entries.map(entry).collect();
                row.sort_unstable_by_key(|&(rank, ..)| rank);
                for (rank, value, is_purchased) in row {
                    ranks.push(rank);
                    values.push(value);
                    left_purchased.push(is_purchased);
                }
            }
            offsets.push(ranks.len() as u64);
        }
        let ratings = Self {
            ranks: Ranks::new(ranks, popularity.len()),
            popularity,
            offsets,
            values: Floats::new(values),
        };
        (ratings, left_purchased.into_iter().collect())
    }

    pub fn n_users(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn n_items(&self) -> usize {
        self.popularity.len()
    }

    /// Ranks the items by how many of these ratings they have.
    pub fn popularity(&self) -> &Popularity {
        &self.popularity
    }

    /// The number of entries.
    pub fn nnz(&self) -> usize {
        self.values.len()
    }

    /// Returns where the rows begin: n_users + 1.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Returns the ranks of all entries, row by row.
    pub fn ranks(&self) -> RankSlice<'_> {
        self.ranks.as_slice()
    }

    /// Returns the values of all entries, row by row.
    pub fn values(&self) -> &Floats {
        &self.values
    }

    #[inline]
    pub fn row(&self, user: usize) -> Rated<'_> {
        let range = self.row_range(user);
        Rated {
            popularity: &self.popularity,
            ranks: self.ranks.as_slice().slice(range.clone()),
            values: self.values.as_slice().slice(range),
        }
    }

    /// Returns the positions of the row's entries among all entries.
    #[inline]
    pub fn row_range(&self, user: usize) -> Range<usize> {
        self.offsets[user] as usize..self.offsets[user + 1] as usize
    }

    /// Returns the user's rating of `item`, in time O(log of the row's length).
    pub fn get(&self, user: usize, item: ItemIndex) -> Option<f32> {
        let rated = self.row(user);
        rated.position(item).map(|position| rated.values.get(position))
    }
}

impl Ranks {
    /// `ranks`: each below `n_items`.
    pub fn new(ranks: Vec<u32>, n_items: usize) -> Self {
        match Self::are_narrow(n_items) {
            // Below 2¹⁶: the cast loses nothing.
            true => Self::Narrow(ranks.into_iter().map(|rank| rank as u16).collect()),
            false => Self::Wide(ranks),
        }
    }

    /// Whether two bytes can name every one of `n_items`; ranks are then kept in two bytes.
    pub fn are_narrow(n_items: usize) -> bool {
        n_items <= 1 << 16
    }

    pub fn as_slice(&self) -> RankSlice<'_> {
        match self {
            Self::Narrow(ranks) => RankSlice::Narrow(ranks),
            Self::Wide(ranks) => RankSlice::Wide(ranks),
        }
    }
}

impl<'a> Rated<'a> {
    #[inline]
    pub fn len(self) -> usize {
        self.ranks.len()
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.ranks.is_empty()
    }

    /// Returns items and ratings, ascending by rank.
    pub fn iter(self) -> impl Iterator<Item = (ItemIndex, f32)> + use<'a> {
        let entries = Entries {
            rated: self,
            at: 0..self.len(),
        };
        entries.map(move |(rank, value)| (self.popularity.item(rank), value))
    }

    /// Finds the position of `item` in the row.
    pub fn position(self, item: ItemIndex) -> Option<usize> {
        self.ranks.position(self.popularity.rank(item))
    }
}

impl<'a> RankSlice<'a> {
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Narrow(ranks) => ranks.len(),
            Self::Wide(ranks) => ranks.len(),
        }
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns entry `at`, which is below `len`.
    #[inline]
    pub fn get(self, at: usize) -> u32 {
        match self {
            Self::Narrow(ranks) => u32::from(ranks[at]),
            Self::Wide(ranks) => ranks[at],
        }
    }

    /// Returns the entries at `range`.
    #[inline]
    pub fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::Narrow(ranks) => Self::Narrow(&ranks[range]),
            Self::Wide(ranks) => Self::Wide(&ranks[range]),
        }
    }

    /// Finds the position of `rank` among ranks that ascend.
    #[inline]
    pub fn position(self, rank: u32) -> Option<usize> {
        match self {
            Self::Narrow(ranks) => ranks.binary_search(&u16::try_from(rank).ok()?).ok(),
            Self::Wide(ranks) => ranks.binary_search(&rank).ok(),
        }
    }
}

/// Iterates over the entries of one user.
struct Entries<'a> {
    rated: Rated<'a>,
    at: Range<usize>,
}

impl Iterator for Entries<'_> {
    type Item = (u32, f32);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.next()?;
        Some((self.rated.ranks.get(at), self.rated.values.get(at)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.at.size_hint()
    }

    /// Matches on the form of storage once, not for every entry.
    #[inline]
    fn fold<B, F: FnMut(B, Self::Item) -> B>(self, init: B, mut f: F) -> B {
        let (ranks, values) = (
            self.rated.ranks.slice(self.at.clone()),
            self.rated.values.slice(self.at),
        );
        match (ranks, values) {
            (RankSlice::Narrow(ranks), FloatSlice::Coded(distinct, positions)) => {
                let entries = ranks.iter().zip(positions);
                entries.fold(init, |sum, (&rank, &at)| f(sum, (u32::from(rank), distinct.value(at))))
            }
            (RankSlice::Narrow(ranks), FloatSlice::Plain(values)) => {
                let entries = ranks.iter().zip(values);
                entries.fold(init, |sum, (&rank, &value)| f(sum, (u32::from(rank), value)))
            }
            (RankSlice::Wide(ranks), FloatSlice::Coded(distinct, positions)) => {
                let entries = ranks.iter().zip(positions);
                entries.fold(init, |sum, (&rank, &at)| f(sum, (rank, distinct.value(at))))
            }
            (RankSlice::Wide(ranks), FloatSlice::Plain(values)) => {
                let entries = ranks.iter().zip(values);
                entries.fold(init, |sum, (&rank, &value)| f(sum, (rank, value)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_breach_of_an_invariant_is_named() {
        let check = |ranks: &[u16], values: &[f32], expected: &str| {
            let narrow = Ranks::Narrow(ranks.to_vec());
            let wide = Ranks::Wide(ranks.iter().copied().map(u32::from).collect());
            for ranks in [narrow, wide] {
                let offsets = vec![0, 1, ranks.as_slice().len() as u64];
                let by_popularity = vec![0, 1, 2, 3, 4];
                let error = Ratings::new(by_popularity, offsets, ranks, Floats::new(values.to_vec())).unwrap_err();
                assert_eq!(error.to_string(), expected);
            }
        };
        check(
            &[0, 2, 5],
            &[1.0, 2.0, 3.0],
            "entry (row 1, column 5) lies outside of 5 columns",
        );
        check(
            &[0, 2, 2],
            &[1.0, 2.0, 3.0],
            "entry (row 1, column 2) is given twice; it must be given once",
        );
        check(
            &[4, 3, 2],
            &[1.0, 2.0, 3.0],
            "row 1: column 2 follows column 3; columns must ascend",
        );
        check(
            &[4, 2, 3],
            &[1.0, 2.0, 0.0],
            "entry (row 1, column 3) is 0; it must be finite and above 0",
        );
        let coded = [1.0, f32::INFINITY, 1.0];
        check(
            &[4, 2, 3],
            &coded,
            "entry (row 1, column 2) is inf; it must be finite and above 0",
        );
        check(
            &[4, 2, 3],
            &[1.0, 2.0],
            "there are 3 column or neighbor indices, but 2 values; there must be as many",
        );
        let out_of_order = "the items by popularity are not all items, most ratings first and equals in order";
        check(&[1, 1, 2], &[1.0, 2.0, 3.0], out_of_order);
    }

    /// Makes a matrix of `n_columns` that uses only `columns`, and a bit per entry.
    fn matrix(n_columns: usize, columns: Vec<u32>) -> impl Strategy<Value = (CsrMatrix, Bits)> {
        let value = prop_oneof![3 => Just(None), 3 => Just(Some(2.5)), 1 => (0.1_f32..9.0).prop_map(Some)];
        let row = vec((value, any::<bool>()), columns.len());
        vec(row, 1..6).prop_map(move |rows| {
            let (mut triplets, mut purchased) = (Vec::new(), Vec::new());
            for (row, cells) in (0..).zip(&rows) {
                for (&column, &(value, is_purchased)) in columns.iter().zip(cells) {
                    triplets.extend(value.map(|value| (row, column, value)));
                    purchased.extend(value.map(|_| is_purchased));
                }
            }
            let matrix = CsrMatrix::from_triplets(rows.len(), n_columns, triplets).unwrap();
            (matrix, purchased.into_iter().collect())
        })
    }

    proptest! {
        #[test]
        fn ratings_hold_the_entries_of_the_matrix(
            (matrix, purchased) in
                prop_oneof![matrix(9, (0..9).collect()), matrix(70_000, vec![0, 7, 65_535, 65_536, 69_999])],
        ) {
            let (ratings, moved) = Ratings::of_matrix(matrix.clone(), &purchased);
            prop_assert_eq!((ratings.n_users(), ratings.n_items()), (matrix.n_rows(), matrix.n_columns()));
            prop_assert_eq!((ratings.nnz(), moved.len()), (matrix.nnz(), matrix.nnz()));
            for user in 0..matrix.n_rows() {
                let (columns, values) = matrix.row(user);
                let mut expected: Vec<_> = columns.iter().map(|&item| ItemIndex(item)).zip(values.iter().copied()).collect();
                expected.sort_by_key(|&(item, _)| ratings.popularity().rank(item));
                let rated = ratings.row(user);
                prop_assert_eq!(ratings.row_range(user), matrix.row_range(user));
                prop_assert_eq!((rated.len(), rated.is_empty()), (expected.len(), expected.is_empty()));
                prop_assert_eq!(&rated.iter().collect::<Vec<_>>(), &expected);
                let folded = rated.iter().skip(1).fold(Vec::new(), |mut all, entry| { all.push(entry); all });
                prop_assert_eq!(&folded[..], expected.get(1..).unwrap_or_default());
                for item in [0, 1, 7, 65_535, 65_536, 69_999].into_iter().filter(|&item| item < matrix.n_columns()) {
                    let item = ItemIndex(item as u32);
                    prop_assert_eq!(ratings.get(user, item), matrix.get(user, item.0));
                    if let Some(position) = rated.position(item) {
                        let at = columns.binary_search(&item.0).unwrap();
                        let (here, there) = (ratings.row_range(user).start + position, matrix.row_range(user).start + at);
                        prop_assert_eq!(moved.get(here), purchased.get(there));
                    }
                }
            }
            for item in 0..matrix.n_columns() as u32 {
                let raters = (0..matrix.n_rows()).filter(|&user| matrix.get(user, item).is_some()).count();
                prop_assert_eq!(ratings.popularity().raters(ItemIndex(item)) as usize, raters);
            }
            let Ratings { popularity, offsets, ranks, values } = ratings.clone();
            let by_popularity = popularity.items().iter().map(|item| item.0).collect();
            prop_assert_eq!(Ratings::new(by_popularity, offsets, ranks, values).unwrap(), ratings);
        }
    }
}
