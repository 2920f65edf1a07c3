//! The outcomes of writes.

use domain::error::InvalidField;

/// The outcome of one entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The entry is new or differs from the stored one.
    Stored,
    /// Nothing changed: the entry is stored already, older than the stored one, or superseded within the batch.
    Merged,
    /// The user was erased since what the entry tells.
    Dropped,
}

/// The numbers of lines in a batch of an import, by their outcome. All other lines were stored already as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadCounts {
    pub stored: usize,
    /// Lines that are older than what is stored.
    pub older: usize,
    /// Lines that a later line of the batch overwrites.
    pub overwritten: usize,
    /// Lines whose user was erased since what they tell.
    pub dropped: usize,
}

/// The outcome of one entry that the store may refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadOutcome {
    Stored,
    Merged,
    /// The user was erased since what the entry tells.
    Dropped,
    /// The entry refers to an unknown record, or changes what may not change.
    Refused(InvalidField),
}

impl LoadOutcome {
    pub(super) fn of(is_stored: bool) -> Self {
        match is_stored {
            true => Self::Stored,
            false => Self::Merged,
        }
    }
}

impl From<WriteOutcome> for LoadOutcome {
    fn from(outcome: WriteOutcome) -> Self {
        match outcome {
            WriteOutcome::Stored => Self::Stored,
            WriteOutcome::Merged => Self::Merged,
            WriteOutcome::Dropped => Self::Dropped,
        }
    }
}
