//! What users have consented to.

pub mod consents;
