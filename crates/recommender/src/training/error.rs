//! The errors of training.

use similarity::cosine::SimilarityError;
use similarity::sparse::SparseError;

/// A reason why no model can be fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainingError {
    #[error("the rating of item {item} by user {user} is {value}; it must be finite and above 0")]
    Rating { user: String, item: String, value: f32 },
    #[error("the effective ratings form no valid matrix")]
    Matrix(#[from] SparseError),
    #[error("the neighbor lists cannot be computed")]
    Similarity(#[from] SimilarityError),
}
