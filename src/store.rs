//! Holds all SQL, in one folder for each subject: free functions that take a pool or a connection. A caller that passes a
//! connection chooses the transaction.
//!
//! To add a subject, create a folder here and write its queries in it, each beside the struct of its rows; then run `just
//! sqlx`. "Not found" is `Ok(None)`; every other failure is a [`StoreError`](error::StoreError).

pub mod access;
pub mod catalog;
pub mod coupons;
pub mod error;
pub mod error_cause;
pub mod imports;
pub mod inventory;
pub mod outcome;
pub mod postgres;
pub mod privacy;
pub mod purchases;
pub mod ratings;
pub mod redemptions;
pub mod sales;
pub mod servers;
pub mod snapshots;
pub mod token_key;
