//! Sparse ratings and the all-pairs cosine similarity of their rows, the best few of each row.
//!
//! [`cosine::top_k`] is the kernel, [`mod@reference`] the same in plain dense loops; both give the same
//! bytes. Items are the rows of the transposed matrix, so one kernel serves users and items.

pub mod cosine;
pub mod lists;
pub mod reference;
pub mod sparse;
