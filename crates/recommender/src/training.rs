//! From what has been rated and bought to a model: effective ratings, biases, neighbor lists.

pub mod activity;
pub mod biases;
pub mod error;
pub mod fit;
pub mod input;
pub mod matrix;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
