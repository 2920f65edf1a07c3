//! Trains a model from ratings and purchases: effective ratings, biases, neighbor lists.

pub mod activity;
pub mod biases;
pub mod error;
pub mod fit;
pub mod input;
pub mod matrix;
pub mod orders;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
