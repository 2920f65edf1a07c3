//! API keys, and the record of who did what.

pub(in crate::store) mod audit;
pub mod keys;
