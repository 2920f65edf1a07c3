//! The consents, suppressions and erasures of users.

pub mod consents;
pub mod erasure_key;
pub mod erasures;
pub mod suppressions;
