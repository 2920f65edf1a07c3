//! What is trained and served: the immutable snapshot, its bytes, and what has changed since it was trained.

pub mod activity;
pub mod bits;
pub mod catalogue;
pub mod codec;
pub mod consents;
pub mod dictionary;
#[cfg(test)]
pub mod fixture;
pub mod floats;
pub mod followers;
pub mod overlay;
pub mod parameters;
pub mod popularity;
pub mod propensity;
pub mod ratings;
pub mod snapshot;
pub mod view;
