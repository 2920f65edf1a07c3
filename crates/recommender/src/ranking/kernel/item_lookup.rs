//! Finds the few items of a request in rows of ratings.

#[cfg(target_arch = "x86_64")]
mod byte_filter;

use crate::snapshot::bits::Bits;
use crate::snapshot::ratings::RankSlice;

#[cfg(target_arch = "x86_64")]
use self::byte_filter::ByteFilter;

/// The items of a request by rank, each with its position in the request. Between requests there are none.
#[derive(Debug, Default)]
pub(crate) struct RequestedItems {
    ranks: Vec<u32>,
    /// Tells for every rank whether it is requested. With one bit a rank it stays in the first-level cache.
    bits: Bits,
    /// The position in the request of every requested rank; any value for the others.
    positions: Vec<u32>,
    #[cfg(target_arch = "x86_64")]
    byte_filter: ByteFilter,
}

/// Decides how rows are looked through. This changes how long an answer takes, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupOptions {
    /// The most entries per requested item in a row that is scanned; a longer row is searched for each item.
    pub max_scanned: usize,
    /// The same where the byte filter is used.
    pub max_filtered: usize,
    /// The most requested items with which the byte filter is used. With 128 of them it lets one entry in six pass.
    pub max_filter_items: usize,
}

impl Default for LookupOptions {
    fn default() -> Self {
        Self {
            max_scanned: 40,
            max_filtered: 200,
            max_filter_items: 128,
        }
    }
}

/// A buffer for the positions in a row at which something was found.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    positions: Vec<u32>,
}

impl RequestedItems {
    /// Makes room for the ranks of `n_items`. No item may be requested at that time.
    pub fn grow(&mut self, n_items: usize) {
        if self.positions.len() < n_items {
            self.positions.resize(n_items, 0);
            self.bits = Bits::zeros(n_items);
        }
    }

    /// Adds the item of `rank`, for which there must be room, and which stands at `position` in the request.
    #[inline]
    pub fn insert(&mut self, rank: u32, position: u32) {
        self.bits.set(rank as usize, true);
        self.positions[rank as usize] = position;
        #[cfg(target_arch = "x86_64")]
        self.byte_filter.insert(rank);
        self.ranks.push(rank);
    }

    pub fn clear(&mut self) {
        for rank in self.ranks.drain(..) {
            self.bits.set(rank as usize, false);
        }
        #[cfg(target_arch = "x86_64")]
        self.byte_filter.clear();
    }

    /// Returns the position in the request of a requested rank.
    #[inline]
    pub fn position(&self, rank: u32) -> usize {
        self.positions[rank as usize] as usize
    }

    /// Returns the requested ranks, in order of the request.
    pub fn ranks(&self) -> &[u32] {
        &self.ranks
    }

    /// Tells whether scanning a row of `len` entries with [`Self::find_in`] is faster than searching it for each item.
    #[inline]
    pub fn is_scan_faster(&self, len: usize, options: &LookupOptions) -> bool {
        let max_entries = if self.uses_byte_filter(options) {
            options.max_filtered
        } else {
            options.max_scanned
        };
        len <= max_entries * self.ranks.len()
    }

    #[inline]
    fn uses_byte_filter(&self, options: &LookupOptions) -> bool {
        #[cfg(target_arch = "x86_64")]
        let is_available = ByteFilter::is_available();
        #[cfg(not(target_arch = "x86_64"))]
        let is_available = false;
        is_available && self.ranks.len() <= options.max_filter_items
    }

    /// Returns the positions of the requested items in `row`, ascending. There must be room for all items of the row.
    #[inline]
    pub fn find_in<'a>(&self, row: RankSlice, options: &LookupOptions, hits: &'a mut Hits) -> &'a [u32] {
        #[cfg(target_arch = "x86_64")]
        if self.uses_byte_filter(options) {
            let is_requested = |rank: u32| self.bits.get(rank as usize);
            self.byte_filter.find(row, is_requested, &mut hits.positions);
            return &hits.positions;
        }
        self.find_plainly(row, hits)
    }

    /// The plain reference of [`Self::find_in`], and what it does without the byte filter.
    fn find_plainly<'a>(&self, row: RankSlice, hits: &'a mut Hits) -> &'a [u32] {
        let is_requested = |rank: u32| self.bits.get(rank as usize);
        match row {
            RankSlice::Narrow(row) => hits.find(row, is_requested),
            RankSlice::Wide(row) => hits.find(row, is_requested),
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty() && self.bits.count_ones() == 0
    }
}

impl Hits {
    /// Returns the positions of the `indices` that are `wanted`, ascending. It writes every position and only counts the
    /// wanted ones, because a branch on `wanted` would be hard to predict.
    #[inline]
    pub fn find<I: Copy + Into<u32>>(&mut self, indices: &[I], wanted: impl Fn(u32) -> bool) -> &[u32] {
        if self.positions.len() < indices.len() {
            self.positions.resize(indices.len(), 0);
        }
        let positions = &mut self.positions[..];
        let mut n_found = 0;
        for (position, &index) in (0..).zip(indices) {
            positions[n_found] = position;
            n_found += usize::from(wanted(index.into()));
        }
        &positions[..n_found]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_that_shares_the_low_bytes_of_a_requested_one_is_not_found() {
        let (mut requested, mut hits) = (RequestedItems::default(), Hits::default());
        let options = LookupOptions::default();
        requested.grow(200_000);
        requested.insert(7, 0);
        let row = [7, 7 + (1 << 16), 7 + (2 << 16)];
        assert_eq!(requested.find_in(RankSlice::Wide(&row), &options, &mut hits), [0]);
        assert!(
            requested
                .find_in(RankSlice::Wide(&row[1..]), &options, &mut hits)
                .is_empty()
        );
    }

    #[test]
    fn rows_are_scanned_up_to_a_length_per_requested_item() {
        let mut requested = RequestedItems::default();
        requested.grow(9);
        requested.insert(3, 0);
        requested.insert(5, 1);
        let check = |max_filter_items, max_len| {
            let options = LookupOptions {
                max_scanned: 10,
                max_filtered: 10,
                max_filter_items,
            };
            assert!(requested.is_scan_faster(max_len, &options));
            assert!(!requested.is_scan_faster(max_len + 1, &options));
        };
        check(0, 20);
        check(2, 20);
    }

    proptest! {
        /// Rows have any length, ranks of both widths, and few or many requested items.
        #[test]
        fn exactly_the_requested_items_are_found(
            n_items in prop_oneof![Just(300_u32), Just(65_536), Just(200_000)],
            row in btree_set(0_u32..200_000, 0..300),
            of_the_row in vec(any::<prop::sample::Index>(), 0..40),
            others in btree_set(0_u32..200_000, 0..40),
            max_filter_items in prop_oneof![Just(0_usize), Just(20), Just(128)],
        ) {
            let options = LookupOptions { max_filter_items, ..LookupOptions::default() };
            let row: Vec<u32> = row.into_iter().map(|item| item % n_items).collect();
            let row: Vec<u32> = BTreeSet::from_iter(row).into_iter().collect();
            let of_the_row = of_the_row.iter().filter(|_| !row.is_empty()).map(|at| row[at.index(row.len())]);
            let items: BTreeSet<u32> = of_the_row.chain(others.iter().map(|item| item % n_items)).collect();
            let (mut requested, mut hits) = (RequestedItems::default(), Hits::default());
            requested.grow(n_items as usize);
            // The second request would find what is left of the first.
            for n_requested in [items.len() / 2, items.len()] {
                for (position, &item) in (0..).zip(items.iter().take(n_requested)) {
                    requested.insert(item, position);
                }
                let is_requested = |item: &u32| items.iter().take(n_requested).any(|other| other == item);
                let expected: Vec<u32> =
                    (0..).zip(&row).filter(|(_, item)| is_requested(item)).map(|(at, _)| at).collect();
                let mut narrow = Vec::new();
                if n_items <= 65_536 {
                    narrow.extend(row.iter().map(|&item| item as u16));
                    let narrow = RankSlice::Narrow(&narrow);
                    prop_assert_eq!(requested.find_in(narrow, &options, &mut hits), &expected[..]);
                    prop_assert_eq!(requested.find_plainly(narrow, &mut hits), &expected[..]);
                }
                let wide = RankSlice::Wide(&row);
                prop_assert_eq!(requested.find_in(wide, &options, &mut hits), &expected[..]);
                prop_assert_eq!(requested.find_plainly(wide, &mut hits), &expected[..]);
                for (position, &item) in items.iter().take(n_requested).enumerate() {
                    prop_assert_eq!(requested.position(item), position);
                }
                requested.clear();
                prop_assert!(requested.is_empty());
            }
        }
    }
}
