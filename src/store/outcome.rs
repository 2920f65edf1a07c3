//! What a write did.

use domain::error::InvalidField;

/// The fate of one entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// New, or different from what was stored.
    Stored,
    /// Nothing changed: stored already, older than what is stored, or superseded within the batch.
    Merged,
}

/// The fate of one line of a file, where only the store can tell whether it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadOutcome {
    Stored,
    Merged,
    /// It names what there is not, or what it may not change.
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
        }
    }
}
