//! Coupons: who may have one, who should get one, what it brought.

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
pub mod scoring;
pub mod targeting;
#[cfg(test)]
mod testing;
