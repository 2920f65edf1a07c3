//! Transposed lists of items: for every item, the items whose lists name it.

use std::ops::Range;

use similarity::lists::ListEntries;

use super::dictionary::ItemIndex;
use super::popularity::Popularity;
use super::ratings::{RankSlice, Ranks};

/// For every item j the items that have j in their list, named by their rank by popularity as in
/// [`Ratings`](super::ratings::Ratings), with their similarities or weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ReverseNeighbors {
    offsets: Vec<u64>,
    ranks: Ranks,
    values: Vec<f32>,
}

impl ReverseNeighbors {
    /// `lists`: one for each item of `popularity`.
    pub fn new(lists: ListEntries<'_>, popularity: &Popularity) -> Self {
        let rank = |item| popularity.rank(ItemIndex(item));
        // Transposed at once into the width that is kept: a wide copy would take twice the memory, beside two snapshots.
        let (offsets, ranks, values) = match Ranks::are_narrow(popularity.len()) {
            true => {
                // Below 2¹⁶: the cast loses nothing.
                let (offsets, ranks, values) = lists.transpose_as(|item| rank(item) as u16).into_parts();
                (offsets, Ranks::Narrow(ranks), values)
            }
            false => {
                let (offsets, ranks, values) = lists.transpose_as(rank).into_parts();
                (offsets, Ranks::Wide(ranks), values)
            }
        };
        Self { offsets, ranks, values }
    }

    /// Returns the ranks of the items that have `item` in their list, by ascending index, and its similarity or weight there.
    #[inline]
    pub fn row(&self, item: ItemIndex) -> (RankSlice<'_>, &[f32]) {
        let range = self.row_range(item);
        (self.ranks.as_slice().slice(range.clone()), &self.values[range])
    }

    /// Returns the positions of the row's entries among all entries.
    #[inline]
    pub fn row_range(&self, item: ItemIndex) -> Range<usize> {
        self.offsets[item.at()] as usize..self.offsets[item.at() + 1] as usize
    }
}

#[cfg(test)]
mod tests {
    use similarity::lists::NeighborLists;

    use super::*;

    #[test]
    fn an_item_is_found_by_those_that_have_it_in_their_list() {
        let lists = NeighborLists::new(3, vec![0, 2, 2, 4], vec![2, 1, 0, 1], vec![1.0, 0.25, 0.5, 0.5]).unwrap();
        // Item 2 has rank 0, item 0 rank 1.
        let reverse_neighbors = ReverseNeighbors::new(lists.entries(), &Popularity::new(&[5, 1, 9]));
        let row = |item| {
            let (ranks, similarities) = reverse_neighbors.row(ItemIndex(item));
            assert_eq!(reverse_neighbors.row_range(ItemIndex(item)).len(), ranks.len());
            let ranks: Vec<u32> = (0..ranks.len()).map(|at| ranks.get(at)).collect();
            (ranks, similarities.to_vec())
        };
        assert_eq!(row(0), (vec![0], vec![0.5]));
        assert_eq!(row(1), (vec![1, 0], vec![0.25, 0.5]));
        assert_eq!(row(2), (vec![1], vec![1.0]));
    }

    #[test]
    fn ranks_of_more_than_two_bytes_are_kept_whole() {
        // Item 1 has the last rank, and item 0 in its list; all others have none.
        let n = (1 << 16) + 1;
        let mut offsets = vec![1; n + 1];
        offsets[..2].fill(0);
        let lists = NeighborLists::new(n, offsets, vec![0], vec![0.5]).unwrap();
        let mut raters = vec![3; n];
        raters[1] = 1;
        let reverse_neighbors = ReverseNeighbors::new(lists.entries(), &Popularity::new(&raters));
        let (ranks, similarities) = reverse_neighbors.row(ItemIndex(0));
        assert_eq!((ranks.len(), similarities), (1, &[0.5][..]));
        assert_eq!(ranks.get(0), 1 << 16);
    }
}
