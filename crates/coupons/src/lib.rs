//! Coupons: eligibility, targeting, propensity, holdout and lift.

pub mod affinity;
pub mod audience;
pub mod backtest;
pub mod cart;
pub mod eligibility;
pub mod holdout;
pub mod lift;
pub mod offer_catalog;
pub mod options;
pub mod propensity;
pub mod rules;
pub mod scope;
pub mod scoring;
pub mod selection;
pub mod stacking;
pub mod targeting;
#[cfg(test)]
mod testing;
pub mod user_set;
pub mod visibility;
