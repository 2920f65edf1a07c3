//! What a write did.

/// The fate of one entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// New, or different from what was stored.
    Stored,
    /// Nothing changed: stored already, older than what is stored, or superseded within the batch.
    Merged,
}
