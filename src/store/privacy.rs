//! The consents, suppressions and erasures of users, and what else the law asks about their data.

pub mod consent_history;
pub mod consents;
pub(in crate::store) mod dropped;
pub mod erasure_key;
pub mod erasures;
pub mod export;
pub mod rectification;
pub mod retention;
pub mod suppressions;
