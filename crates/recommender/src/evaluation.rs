//! Measures how good a model is, and decides whether it may be served.
//!
//! [`held_out`] splits the data in time. It fixes the users whom a model is asked about and the right answers, whatever the
//! model's parameters. [`evaluate`] fits a model with some parameters on the earlier part and measures its answers. [`gate`]
//! decides by the figures.

pub mod bias;
mod choice;
pub mod error;
pub mod evaluate;
pub mod gate;
pub mod held_out;
pub mod metrics;
pub mod options;
mod random;
mod ranking;
mod rating;
pub mod report;
mod sources;
pub mod split;
pub mod synthetic;
#[cfg(test)]
mod testing;
pub mod trade_offs;
mod tuning;
pub mod user_purchases;
mod weights;
