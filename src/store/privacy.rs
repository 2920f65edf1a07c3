//! The consents and suppressions of users.

pub mod consents;
pub mod suppressions;
