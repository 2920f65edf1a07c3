//! Removes erased users from the parts of a snapshot.
//!
//! A part that holds something about single users does it in its `Part::REDACT`. The dense indices of all other users stay:
//! an erased user keeps an index with nothing behind it, and an id that is nobody's.

use std::collections::HashSet;

use similarity::lists::NeighborLists;

use super::dictionary::Texts;

/// Begins the end of an id that is nobody's. External ids hold no control characters, so that no id can be equal, and the
/// rest of a text from here on comes before every id that continues the same way.
const BLANK_MARK: char = '\u{1}';

/// The users to remove from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedUsers {
    ids: HashSet<String>,
    /// The indices of those whom the snapshot knows as users, ascending.
    rows: Vec<u32>,
}

impl ErasedUsers {
    /// `users`: the ids of the part `users`, strictly ascending.
    pub fn new(ids: HashSet<String>, users: &Texts) -> Self {
        let mut rows: Vec<u32> = ids
            .iter()
            .filter_map(|id| users.find(id))
            .filter_map(|row| u32::try_from(row).ok())
            .collect();
        rows.sort_unstable();
        Self { ids, rows }
    }

    /// Whether this is the external id of an erased user.
    pub fn has_id(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Whether the user with this index is erased.
    pub fn has_row(&self, row: usize) -> bool {
        u32::try_from(row).is_ok_and(|row| self.rows.binary_search(&row).is_ok())
    }

    /// The number of erased users who have a row.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Returns the indices of the erased users, ascending.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|&row| row as usize)
    }

    /// Replaces the ids of the erased users, and of those erased before, by ids that are nobody's. The result still ascends
    /// strictly, and follows from the remaining ids and from where the others stood, whatever was erased first.
    pub(super) fn blank(&self, users: &Texts) -> Texts {
        let (mut last, mut n_blanks) = ("", 0_u32);
        let blanked = users.iter().enumerate().map(|(row, id)| {
            if self.has_row(row) || is_blank(id) {
                let blank = format!("{last}{BLANK_MARK}{n_blanks:08x}");
                n_blanks += 1;
                return blank;
            }
            (last, n_blanks) = (id, 0);
            id.to_owned()
        });
        blanked.collect()
    }

    /// Empties the lists of the erased users and takes them out of all others, whose order stays.
    pub(super) fn leave_lists(&self, lists: &NeighborLists) -> NeighborLists {
        let (mut offsets, mut neighbors, mut similarities) = (vec![0], Vec::new(), Vec::new());
        for row in 0..lists.n_rows() {
            if !self.has_row(row) {
                let (named, values) = lists.row(row);
                let kept = named
                    .iter()
                    .zip(values)
                    .filter(|&(&named, _)| !self.has_row(named as usize));
                for (&named, &value) in kept {
                    neighbors.push(named);
                    similarities.push(value);
                }
            }
            offsets.push(neighbors.len() as u64);
        }
        let Ok(left) = NeighborLists::new(lists.n_targets(), offsets, neighbors, similarities) else {
            unreachable!("fewer neighbors in the same order are still valid lists");
        };
        left
    }

    /// Sets the entry of every erased user to the default. `column`: one entry a user.
    pub(super) fn reset<T: Default>(&self, column: &mut [T]) {
        for row in self.rows() {
            column[row] = T::default();
        }
    }

    /// Empties the rows of the erased users. Returns where the remaining rows begin.
    ///
    /// `offsets`: where the rows begin, one more than there are users; `columns`: one entry for each entry of a row.
    pub(super) fn drop_rows<A: Copy, B: Copy>(&self, offsets: &[u64], columns: (&mut Vec<A>, &mut Vec<B>)) -> Vec<u64> {
        let (first, second) = columns;
        let (mut left, mut n_entries) = (vec![0], 0);
        for (row, ends) in offsets.windows(2).enumerate() {
            let range = ends[0] as usize..ends[1] as usize;
            if !self.has_row(row) {
                first.copy_within(range.clone(), n_entries);
                second.copy_within(range.clone(), n_entries);
                n_entries += range.len();
            }
            left.push(n_entries as u64);
        }
        first.truncate(n_entries);
        second.truncate(n_entries);
        left
    }
}

/// Whether this stands for the id of a user who was erased.
pub fn is_blank(id: &str) -> bool {
    id.contains(BLANK_MARK)
}

#[cfg(test)]
mod tests;
