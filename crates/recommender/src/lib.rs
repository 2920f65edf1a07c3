//! Learns from ratings and purchases, and ranks and predicts from what it has learned.
//!
//! [`training`] turns ratings and orders into a [`snapshot`]; [`ranking`] and [`prediction`] answer from it;
//! [`evaluation`] measures how good the answers are and decides whether a snapshot may be served.

pub mod evaluation;
pub mod prediction;
pub mod ranking;
pub mod snapshot;
pub mod training;
