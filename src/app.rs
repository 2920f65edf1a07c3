//! Use cases that need more than one of the layers below: they fetch data, call pure functions and store the result.

pub mod activation;
pub mod audience;
pub mod campaign_bias;
pub mod coupon_warnings;
pub mod demand;
pub mod eligibility;
pub mod erasure;
pub mod evaluate;
pub mod import;
pub mod lift;
pub mod privacy;
pub mod random;
pub mod redaction;
pub mod redemption;
pub mod retention;
pub mod retraining;
pub mod sensitive_attributes;
pub mod sweep;
pub mod targets;
pub mod train;
mod training_input;
pub mod user_export;
