//! Keeps the best few of many scored items.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::snapshot::dictionary::ItemIndex;

/// An item and its score, which is a number. Ascending order puts higher scores first and breaks ties by lower index, which is
/// the order of the item ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scored {
    pub score: f64,
    pub item: ItemIndex,
}

/// The comparisons are written out, since those that follow from `cmp` take several times the instructions, and a ranking
/// compares often.
impl PartialOrd for Scored {
    #[inline]
    fn lt(&self, other: &Self) -> bool {
        self.score > other.score || self.score == other.score && self.item < other.item
    }

    #[inline]
    fn gt(&self, other: &Self) -> bool {
        other < self
    }

    #[inline]
    fn le(&self, other: &Self) -> bool {
        self.score > other.score || self.score == other.score && self.item <= other.item
    }

    #[inline]
    fn ge(&self, other: &Self) -> bool {
        other <= self
    }

    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self < other, other < self) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.score == other.score && self.item == other.item
    }
}

impl Eq for Scored {}

/// The best `limit` items so far; the worst of them is on top of the heap.
pub(crate) struct Top {
    limit: usize,
    heap: BinaryHeap<Scored>,
}

impl Top {
    /// `offered`: the largest number of items that will be offered.
    pub fn new(limit: usize, offered: usize) -> Self {
        Self {
            limit,
            heap: BinaryHeap::with_capacity(limit.min(offered)),
        }
    }

    /// Tells whether `scored` would be among the best so far.
    pub fn admits(&self, scored: Scored) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|last| scored < *last)
    }

    /// Returns a score below which no item is admitted.
    pub fn least(&self) -> f64 {
        match self.heap.len() < self.limit {
            true => f64::NEG_INFINITY,
            false => self.heap.peek().map_or(f64::INFINITY, |last| last.score),
        }
    }

    /// Inserts an admitted item; it replaces the worst if there are `limit` already.
    pub fn insert(&mut self, scored: Scored) {
        if self.heap.len() < self.limit {
            self.heap.push(scored);
        } else if let Some(mut last) = self.heap.peek_mut() {
            *last = scored;
        }
    }

    /// Returns the items, best first.
    pub fn into_ranked(self) -> Vec<Scored> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_are_those_that_a_full_sort_puts_first(
            scores in prop::collection::vec(0u8..6, 0..40),
            limit in 0usize..12,
            backwards: bool,
        ) {
            let mut all: Vec<Scored> = (0..).zip(&scores)
                .map(|(item, &score)| Scored { score: f64::from(score), item: ItemIndex(item) })
                .collect();
            if backwards {
                all.reverse();
            }
            let mut top = Top::new(limit, all.len());
            for &scored in &all {
                if top.admits(scored) {
                    top.insert(scored);
                }
            }
            let mut sorted: Vec<(u8, u32)> = scores.iter().copied().zip(0..).collect();
            sorted.sort_by_key(|&(score, item)| (std::cmp::Reverse(score), item));
            let expected: Vec<u32> = sorted.iter().take(limit).map(|&(_, item)| item).collect();
            let ranked: Vec<u32> = top.into_ranked().iter().map(|scored| scored.item.0).collect();
            prop_assert_eq!(ranked, expected);
        }
    }
}
