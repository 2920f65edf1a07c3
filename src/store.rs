//! All SQL, in a folder a subject: free functions that take a pool or a connection. Whoever passes a connection chooses
//! the transaction.
//!
//! To add a subject, write its queries in a file of its folder here, with the structs that their rows become beside them,
//! then run `just sqlx`. "Not found" is `Ok(None)`; every other failure is a [`StoreError`](error::StoreError).

pub mod access;
pub mod catalog;
pub mod coupons;
pub mod error;
pub mod outcome;
pub mod postgres;
pub mod privacy;
pub mod purchases;
pub mod ratings;
pub mod redemptions;
pub mod snapshots;
