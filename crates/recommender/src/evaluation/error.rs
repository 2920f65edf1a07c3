//! Why nothing can be evaluated.

use crate::snapshot::SnapshotError;
use crate::training::error::TrainingError;
use domain::time::Timestamp;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    #[error("there are no ratings and no purchases to split")]
    NoEvents,
    #[error("a cut at {at} leaves nothing on one side: the data reach from {first} to {last}")]
    CutOutsideOfData {
        at: Timestamp,
        first: Timestamp,
        last: Timestamp,
    },
    #[error("the model of the earlier part cannot be fitted")]
    Training(#[from] TrainingError),
    #[error("the model of the earlier part is not valid")]
    Snapshot(#[from] SnapshotError),
}
