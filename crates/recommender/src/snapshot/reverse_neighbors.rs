//! The lists of item neighbors from the other side.

use std::ops::Range;

use similarity::lists::NeighborLists;

use super::dictionary::ItemIndex;
use super::popularity::Popularity;
use super::ratings::{RankSlice, Ranks};

/// For every item j the items that have j in their list of neighbors, by their rank by popularity as in
/// [`Ratings`](super::ratings::Ratings).
#[derive(Debug, Clone, PartialEq)]
pub struct ReverseNeighbors {
    offsets: Vec<u64>,
    ranks: Ranks,
    similarities: Vec<f32>,
}

impl ReverseNeighbors {
    /// `lists`: one for each item of `popularity`.
    pub fn new(lists: &NeighborLists, popularity: &Popularity) -> Self {
        let rank = |follower| popularity.rank(ItemIndex(follower));
        // In the form in which they are kept: the other one would take twice as much, beside two snapshots.
        let (offsets, ranks, similarities) = match Ranks::are_narrow(popularity.len()) {
            true => {
                // Below 2¹⁶: the cast loses nothing.
                let (offsets, ranks, similarities) = lists.transpose_as(|follower| rank(follower) as u16).into_parts();
                (offsets, Ranks::Narrow(ranks), similarities)
            }
            false => {
                let (offsets, ranks, similarities) = lists.transpose_as(rank).into_parts();
                (offsets, Ranks::Wide(ranks), similarities)
            }
        };
        Self {
            offsets,
            ranks,
            similarities,
        }
    }

    /// The ranks of the items that have `item` in their list, ascending by index, and their similarities to it.
    pub fn row(&self, item: ItemIndex) -> (RankSlice<'_>, &[f32]) {
        let range = self.row_range(item);
        (self.ranks.as_slice().slice(range.clone()), &self.similarities[range])
    }

    /// Positions of the row's entries among all.
    pub fn row_range(&self, item: ItemIndex) -> Range<usize> {
        self.offsets[item.at()] as usize..self.offsets[item.at() + 1] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_follows_an_item_has_it_in_the_list() {
        let lists = NeighborLists::new(3, vec![0, 2, 2, 4], vec![2, 1, 0, 1], vec![1.0, 0.25, 0.5, 0.5]).unwrap();
        // Item 2 has rank 0, item 0 rank 1.
        let reverse_neighbors = ReverseNeighbors::new(&lists, &Popularity::new(&[5, 1, 9]));
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
        let reverse_neighbors = ReverseNeighbors::new(&lists, &Popularity::new(&raters));
        let (ranks, similarities) = reverse_neighbors.row(ItemIndex(0));
        assert_eq!((ranks.len(), similarities), (1, &[0.5][..]));
        assert_eq!(ranks.get(0), 1 << 16);
    }
}
