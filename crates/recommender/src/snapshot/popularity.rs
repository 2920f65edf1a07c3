//! The order of items by how many users have rated them.

use std::cmp::Reverse;

use super::dictionary::ItemIndex;

/// The n items and their ranks by popularity: most raters first, ties by index, which is the order of the ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Popularity {
    /// Items by rank.
    items: Vec<ItemIndex>,
    /// Ranks by item.
    ranks: Vec<u32>,
    /// Numbers of raters by rank.
    raters: Vec<u32>,
}

impl Popularity {
    /// `raters`: one an item.
    pub fn new(raters: &[u32]) -> Self {
        let mut items: Vec<u32> = (0..raters.len() as u32).collect();
        items.sort_unstable_by_key(|&item| (Reverse(raters[item as usize]), item));
        let raters = items.iter().map(|&item| raters[item as usize]).collect();
        let Some(popularity) = Self::ranked(items, raters) else {
            unreachable!("they were just sorted");
        };
        popularity
    }

    /// Takes over items and their raters, both by rank and equally many. `None` unless `items` are all indices below their
    /// number, each once, in order of popularity.
    pub fn ranked(items: Vec<u32>, raters: Vec<u32>) -> Option<Self> {
        const NONE: u32 = u32::MAX;
        let mut ranks = vec![NONE; items.len()];
        for (rank, &item) in (0..).zip(&items) {
            let of_item = ranks.get_mut(item as usize)?;
            if *of_item != NONE {
                return None;
            }
            *of_item = rank;
        }
        let is_in_order = |at: usize| {
            let key = |at: usize| (Reverse(raters[at]), items[at]);
            key(at - 1) < key(at)
        };
        (1..items.len()).all(is_in_order).then(|| Self {
            items: items.into_iter().map(ItemIndex).collect(),
            ranks,
            raters,
        })
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns all items by rank.
    pub fn items(&self) -> &[ItemIndex] {
        &self.items
    }

    /// `rank` < `len`.
    #[inline]
    pub fn item(&self, rank: u32) -> ItemIndex {
        self.items[rank as usize]
    }

    #[inline]
    pub fn rank(&self, item: ItemIndex) -> u32 {
        self.ranks[item.at()]
    }

    /// Returns how many users have rated `item`.
    #[inline]
    pub fn raters(&self, item: ItemIndex) -> u32 {
        self.raters[self.rank(item) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_raters_come_first_and_equals_in_their_order() {
        let popularity = Popularity::new(&[2, 0, 7, 2]);
        assert_eq!(popularity.items(), [2, 0, 3, 1].map(ItemIndex));
        let ranks = [0, 1, 2, 3].map(|item| popularity.rank(ItemIndex(item)));
        assert_eq!(ranks, [1, 3, 0, 2]);
        let raters = [0, 1, 2, 3].map(|item| popularity.raters(ItemIndex(item)));
        assert_eq!(raters, [2, 0, 7, 2]);
        assert_eq!(popularity.item(3), ItemIndex(1));
    }

    #[test]
    fn only_all_items_in_order_are_ranked() {
        let check = |items: &[u32], raters: &[u32], is_ranked| {
            let found = Popularity::ranked(items.to_vec(), raters.to_vec());
            assert_eq!(found.is_some(), is_ranked, "{items:?} {raters:?}");
        };
        check(&[2, 0, 3, 1], &[7, 2, 2, 0], true);
        check(&[], &[], true);
        check(&[2, 3, 0, 1], &[7, 2, 2, 0], false);
        check(&[0, 2, 3, 1], &[2, 7, 2, 0], false);
        check(&[2, 0, 0, 1], &[7, 2, 2, 0], false);
        check(&[0, 0], &[0, 0], false);
        check(&[2, 0, 4, 1], &[7, 2, 2, 0], false);
    }
}
