//! Why no model can be fitted.

use similarity::cosine::SimilarityError;
use similarity::sparse::SparseError;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainingError {
    #[error("the rating of item {item} by user {user} is {value}; it must be finite and above 0")]
    Rating { user: String, item: String, value: f32 },
    #[error("the effective ratings form no matrix")]
    Matrix(#[from] SparseError),
    #[error("no neighbor lists can be computed")]
    Similarity(#[from] SimilarityError),
}
