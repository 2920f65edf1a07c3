//! Leaves out of a batch what was told about users before they were erased.

use std::borrow::Cow;

use crate::store::catalog::ids::Told;
use crate::store::postgres::pool::Pool;

/// An entry of a batch that tells something about a user.
pub(in crate::store) trait AboutUser {
    /// Returns the user, and the time as far as it is known of what is written over the connections of `pool`.
    fn told<'a>(&'a self, pool: &Pool) -> Told<'a>;
}

/// The entries of a batch that are not dropped.
#[derive(Debug)]
pub(in crate::store) struct Kept<'a, T: Clone> {
    pub entries: Cow<'a, [T]>,
    /// The positions of the others in the batch, ascending.
    dropped: Vec<usize>,
}

impl<'a, T: Clone> Kept<'a, T> {
    /// `dropped`: positions in `entries`, ascending.
    pub fn new(entries: &'a [T], dropped: Vec<usize>) -> Self {
        if dropped.is_empty() {
            let entries = Cow::Borrowed(entries);
            return Self { entries, dropped };
        }
        count(dropped.len());
        let is_kept = |&(position, _): &(usize, &T)| dropped.binary_search(&position).is_err();
        let kept = entries
            .iter()
            .enumerate()
            .filter(is_kept)
            .map(|(_, entry)| entry.clone());
        Self {
            entries: Cow::Owned(kept.collect()),
            dropped,
        }
    }

    /// Removes from `column`, which has a value for every entry of the batch, the values of those that are dropped.
    pub fn retain<V>(&self, column: &mut Vec<V>) {
        if self.dropped.is_empty() {
            return;
        }
        let mut position = 0;
        column.retain(|_| {
            position += 1;
            self.dropped.binary_search(&(position - 1)).is_err()
        });
    }

    /// Returns the number of entries that are dropped.
    pub fn dropped(&self) -> usize {
        self.dropped.len()
    }

    /// Returns the outcomes of all entries of the batch.
    ///
    /// `kept`: those of the entries that were kept; `dropped`: the one of all others.
    pub fn outcomes<O: Clone>(&self, kept: Vec<O>, dropped: O) -> Vec<O> {
        let mut outcomes = kept;
        for &position in &self.dropped {
            outcomes.insert(position, dropped.clone());
        }
        outcomes
    }
}

/// Counts entries that were dropped.
pub(in crate::store) fn count(dropped: usize) {
    metrics::counter!("likemind_erased_events_dropped_total").increment(dropped as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_stand_at_the_positions_of_their_entries() {
        let check = |dropped: &[usize], kept: &[char], outcomes: &str| {
            let batch = Kept::new(&['a', 'b', 'c', 'd'], dropped.to_vec());
            assert_eq!(&batch.entries[..], kept);
            let mut column = vec!['a', 'b', 'c', 'd'];
            batch.retain(&mut column);
            assert_eq!(column, kept);
            let found = batch.outcomes(batch.entries.to_vec(), '-');
            assert_eq!(found.into_iter().collect::<String>(), outcomes);
        };
        check(&[], &['a', 'b', 'c', 'd'], "abcd");
        check(&[0, 1, 3], &['c'], "--c-");
        check(&[1, 2], &['a', 'd'], "a--d");
        check(&[0, 1, 2, 3], &[], "----");
    }
}
