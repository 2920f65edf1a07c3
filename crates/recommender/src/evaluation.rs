//! How good a model is, and whether it may be served: splits in time, fitted weights, metrics, gate.
//!
//! [`holdout`] cuts the data and fixes whom a model is asked about and what would be right, whatever the parameters;
//! [`evaluate`] fits a model with some parameters on the earlier part and asks it; [`gate`] judges the figures.

pub mod error;
pub mod evaluate;
pub mod gate;
pub mod holdout;
pub mod metrics;
pub mod options;
mod ranking;
mod rating;
pub mod report;
pub mod split;
pub mod synthetic;
#[cfg(test)]
mod testing;
mod weights;
