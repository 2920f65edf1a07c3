//! The errors of an evaluation.

use crate::snapshot::SnapshotError;
use crate::training::error::TrainingError;
use domain::time::Timestamp;

/// A reason why nothing can be evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    #[error("there are no ratings and no purchases to split")]
    NoEvents,
    #[error("a split at {at} leaves nothing on one side; it must lie after {first} and not after {last}")]
    CutOutsideOfData {
        at: Timestamp,
        first: Timestamp,
        last: Timestamp,
    },
    #[error("the model cannot be fitted on the earlier part")]
    Training(#[from] TrainingError),
    #[error("the model fitted on the earlier part is not valid")]
    Snapshot(#[from] SnapshotError),
}
