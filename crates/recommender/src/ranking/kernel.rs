//! The inner loops of ranking and prediction: sums over neighbors, lookup of the items asked about, prefetching.

pub(crate) mod item_lookup;
pub(crate) mod prefetch;
pub(crate) mod sums;
pub(crate) mod top;
