//! The effective ratings of a snapshot, by user: most of its memory, and most of what answering reads.
//!
//! An item takes 2 bytes where there are up to 65,536, else 4, and a rating 1 where few differ, else 4 ([`Floats`]): 3 bytes
//! an entry on a scale of half stars, for 8 of a [`CsrMatrix`]. It is not the size alone: rows are met in any order, and
//! what is waited for is memory.

use std::ops::Range;

use crate::similarity::sparse::{CsrMatrix, SparseError, check_columns, check_offsets, is_allowed};

use super::floats::{FloatSlice, Floats};

/// A sparse matrix [n_users, n_items] in compressed rows; an absent entry counts as 0.
///
/// Invariants: those of [`CsrMatrix`].
#[derive(Debug, Clone, PartialEq)]
pub struct Ratings {
    n_items: usize,
    offsets: Vec<u64>,
    items: Items,
    values: Floats,
}

/// One an entry; narrow exactly where [`Items::are_narrow`].
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

/// A user's ratings, ascending by item.
#[derive(Debug, Clone, Copy)]
pub struct Rated<'a> {
    pub items: ItemSlice<'a>,
    /// One an item.
    pub values: FloatSlice<'a>,
}

/// Some of [`Items`], one after the other.
#[derive(Debug, Clone, Copy)]
pub enum ItemSlice<'a> {
    Narrow(&'a [u16]),
    Wide(&'a [u32]),
}

impl Ratings {
    /// Takes over compressed rows: user u's entries stand at `offsets[u]..offsets[u + 1]`.
    ///
    /// `offsets`: n_users + 1; `items` and `values`: one per entry.
    ///
    /// # Errors
    /// The first breach of the invariants, by row and column.
    pub fn new(n_items: usize, offsets: Vec<u64>, items: Items, values: Floats) -> Result<Self, SparseError> {
        check_offsets(&offsets, items.as_slice().len(), values.len())?;
        let ratings = Self {
            n_items,
            offsets,
            items,
            values,
        };
        // Few values are looked at once; where one of them is wrong, the entry that has it is looked for.
        let are_valid = match ratings.values.as_slice() {
            FloatSlice::Coded(distinct, _) => distinct.values().iter().all(|&value| is_allowed(value)),
            FloatSlice::Plain(values) => values.iter().all(|&value| is_allowed(value)),
        };
        for user in 0..ratings.n_users() {
            let rated = ratings.row(user);
            match rated.items {
                ItemSlice::Narrow(items) => check_columns(user, items, n_items)?,
                ItemSlice::Wide(items) => check_columns(user, items, n_items)?,
            }
            if !are_valid && let Some((column, value)) = rated.iter().find(|&(_, value)| !is_allowed(value)) {
                return Err(SparseError::Value {
                    row: user,
                    column,
                    value,
                });
            }
        }
        Ok(ratings)
    }

    pub fn n_users(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn n_items(&self) -> usize {
        self.n_items
    }

    /// The number of entries.
    pub fn nnz(&self) -> usize {
        self.values.len()
    }

    /// Where rows begin: n_users + 1.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Of all entries, row by row.
    pub fn items(&self) -> ItemSlice<'_> {
        self.items.as_slice()
    }

    /// Of all entries, row by row.
    pub fn values(&self) -> &Floats {
        &self.values
    }

    pub fn row(&self, user: usize) -> Rated<'_> {
        let range = self.row_range(user);
        Rated {
            items: self.items.as_slice().slice(range.clone()),
            values: self.values.as_slice().slice(range),
        }
    }

    /// Positions of the row's entries among all.
    pub fn row_range(&self, user: usize) -> Range<usize> {
        self.offsets[user] as usize..self.offsets[user + 1] as usize
    }

    /// The user's rating of `item`; O(log of the row's length).
    pub fn get(&self, user: usize, item: u32) -> Option<f32> {
        let rated = self.row(user);
        rated.items.position(item).map(|position| rated.values.get(position))
    }
}

impl From<CsrMatrix> for Ratings {
    fn from(matrix: CsrMatrix) -> Self {
        let n_items = matrix.n_columns();
        let (offsets, columns, values) = matrix.into_parts();
        Self {
            n_items,
            offsets,
            items: Items::new(columns, n_items),
            values: Floats::new(values),
        }
    }
}

impl Items {
    /// `items`: each below `n_items`.
    fn new(items: Vec<u32>, n_items: usize) -> Self {
        match Self::are_narrow(n_items) {
            // Below 2¹⁶: the cast loses nothing.
            true => Self::Narrow(items.into_iter().map(|item| item as u16).collect()),
            false => Self::Wide(items),
        }
    }

    /// Whether two bytes name every one of `n_items`; then they are kept in two.
    pub fn are_narrow(n_items: usize) -> bool {
        n_items <= 1 << 16
    }

    fn as_slice(&self) -> ItemSlice<'_> {
        match self {
            Self::Narrow(items) => ItemSlice::Narrow(items),
            Self::Wide(items) => ItemSlice::Wide(items),
        }
    }
}

impl<'a> Rated<'a> {
    pub fn len(self) -> usize {
        self.items.len()
    }

    pub fn is_empty(self) -> bool {
        self.items.is_empty()
    }

    /// (item, rating), ascending.
    pub fn iter(self) -> impl Iterator<Item = (u32, f32)> + use<'a> {
        Entries {
            rated: self,
            at: 0..self.len(),
        }
    }
}

impl<'a> ItemSlice<'a> {
    pub fn len(self) -> usize {
        match self {
            Self::Narrow(items) => items.len(),
            Self::Wide(items) => items.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Entry `at` < `len`.
    #[inline]
    pub fn get(self, at: usize) -> u32 {
        match self {
            Self::Narrow(items) => u32::from(items[at]),
            Self::Wide(items) => items[at],
        }
    }

    /// Those at `range`.
    pub fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::Narrow(items) => Self::Narrow(&items[range]),
            Self::Wide(items) => Self::Wide(&items[range]),
        }
    }

    /// Where `item` stands among ascending ones.
    pub fn position(self, item: u32) -> Option<usize> {
        match self {
            Self::Narrow(items) => items.binary_search(&u16::try_from(item).ok()?).ok(),
            Self::Wide(items) => items.binary_search(&item).ok(),
        }
    }
}

/// Of one user.
struct Entries<'a> {
    rated: Rated<'a>,
    at: Range<usize>,
}

impl Iterator for Entries<'_> {
    type Item = (u32, f32);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.next()?;
        Some((self.rated.items.get(at), self.rated.values.get(at)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.at.size_hint()
    }

    /// How entries are stored is asked once, and not for every one of them.
    #[inline]
    fn fold<B, F: FnMut(B, Self::Item) -> B>(self, init: B, mut f: F) -> B {
        let (items, values) = (
            self.rated.items.slice(self.at.clone()),
            self.rated.values.slice(self.at),
        );
        match (items, values) {
            (ItemSlice::Narrow(items), FloatSlice::Coded(distinct, positions)) => {
                let entries = items.iter().zip(positions);
                entries.fold(init, |sum, (&item, &at)| f(sum, (u32::from(item), distinct.value(at))))
            }
            (ItemSlice::Narrow(items), FloatSlice::Plain(values)) => {
                let entries = items.iter().zip(values);
                entries.fold(init, |sum, (&item, &value)| f(sum, (u32::from(item), value)))
            }
            (ItemSlice::Wide(items), FloatSlice::Coded(distinct, positions)) => {
                let entries = items.iter().zip(positions);
                entries.fold(init, |sum, (&item, &at)| f(sum, (item, distinct.value(at))))
            }
            (ItemSlice::Wide(items), FloatSlice::Plain(values)) => {
                let entries = items.iter().zip(values);
                entries.fold(init, |sum, (&item, &value)| f(sum, (item, value)))
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
    fn what_breaks_an_invariant_is_named() {
        let check = |items: &[u16], values: &[f32], expected: &str| {
            let narrow = Items::Narrow(items.to_vec());
            let wide = Items::Wide(items.iter().copied().map(u32::from).collect());
            for items in [narrow, wide] {
                let offsets = vec![0, 1, items.as_slice().len() as u64];
                let error = Ratings::new(5, offsets, items, Floats::new(values.to_vec())).unwrap_err();
                assert_eq!(error.to_string(), expected);
            }
        };
        check(
            &[0, 2, 5],
            &[1.0, 2.0, 3.0],
            "entry (row 1, column 5) lies outside of 5 columns",
        );
        check(&[0, 2, 2], &[1.0, 2.0, 3.0], "entry (row 1, column 2) is given twice");
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
        check(&[4, 2, 3], &[1.0, 2.0], "3 column or neighbor indices, but 2 values");
    }

    /// Of `n_columns`, with `columns` of them used.
    fn matrix(n_columns: usize, columns: Vec<u32>) -> impl Strategy<Value = CsrMatrix> {
        let value = prop_oneof![3 => Just(None), 3 => Just(Some(2.5)), 1 => (0.1_f32..9.0).prop_map(Some)];
        let row = vec(value, columns.len());
        vec(row, 1..6).prop_map(move |rows| {
            let mut triplets = Vec::new();
            for (row, values) in (0..).zip(&rows) {
                let entries = columns.iter().zip(values);
                triplets.extend(entries.filter_map(|(&column, value)| Some((row, column, (*value)?))));
            }
            CsrMatrix::from_triplets(rows.len(), n_columns, triplets).unwrap()
        })
    }

    proptest! {
        #[test]
        fn they_hold_what_the_matrix_holds(
            matrix in prop_oneof![matrix(9, (0..9).collect()), matrix(70_000, vec![0, 7, 65_535, 65_536, 69_999])],
        ) {
            let ratings = Ratings::from(matrix.clone());
            prop_assert_eq!((ratings.n_users(), ratings.n_items()), (matrix.n_rows(), matrix.n_columns()));
            prop_assert_eq!(ratings.nnz(), matrix.nnz());
            for user in 0..matrix.n_rows() {
                let (columns, values) = matrix.row(user);
                let expected: Vec<_> = columns.iter().copied().zip(values.iter().copied()).collect();
                let rated = ratings.row(user);
                prop_assert_eq!(ratings.row_range(user), matrix.row_range(user));
                prop_assert_eq!((rated.len(), rated.is_empty()), (expected.len(), expected.is_empty()));
                prop_assert_eq!(&rated.iter().collect::<Vec<_>>(), &expected);
                let folded = rated.iter().skip(1).fold(Vec::new(), |mut all, entry| { all.push(entry); all });
                prop_assert_eq!(&folded[..], expected.get(1..).unwrap_or_default());
                for item in [0, 1, 7, 65_535, 65_536, 69_999] {
                    prop_assert_eq!(ratings.get(user, item), matrix.get(user, item));
                }
            }
            let Ratings { n_items, offsets, items, values } = ratings.clone();
            prop_assert_eq!(Ratings::new(n_items, offsets, items, values).unwrap(), ratings);
        }
    }
}
