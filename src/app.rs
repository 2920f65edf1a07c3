//! What needs more than one floor below: fetch facts, call the pure functions, save.

pub mod eligibility;
pub mod evaluate;
pub mod import;
pub mod lift;
pub mod random;
pub mod redemption;
pub mod sweep;
pub mod targets;
pub mod train;
mod training_input;
