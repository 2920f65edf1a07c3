//! All SQL. Free functions that take a pool or a connection; the caller of the latter chooses the transaction.

pub mod audience;
mod audit;
pub mod book;
pub mod catalog;
pub mod changes;
pub mod consents;
pub mod coupon_loads;
mod coupons;
pub mod eligibility;
pub mod embedded;
pub mod error;
pub mod exposures;
mod ids;
pub mod keys;
pub mod leases;
pub mod migrations;
pub mod options;
pub mod outcome;
pub mod pool;
pub mod purchases;
pub mod ratings;
pub mod redemption_loads;
pub mod redemptions;
pub mod requests;
pub mod snapshots;
pub mod statistics;
pub mod training;
