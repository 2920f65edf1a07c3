//! The inner loops of ranking and prediction, each beside its plain reference and a property test that both agree.
//!
//! `sums` adds up and searches the sums that rank items, row by row with `accumulate`, and `top` keeps the best of them.
//! `item_lookup` finds the requested items in rows of ratings. `prefetch` has memory fetched ahead of its use.

pub(crate) mod accumulate;
pub(crate) mod item_lookup;
pub(crate) mod prefetch;
pub(crate) mod sums;
pub(crate) mod top;
