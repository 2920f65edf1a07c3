//! Has memory fetched into the processor's caches before it is read.

use crate::snapshot::floats::FloatSlice;
use crate::snapshot::ratings::{RankSlice, Rated};

/// The number of rows by which fetching runs ahead of reading. Rows lie anywhere in a large matrix, so that without it the
/// first access to each would wait for memory.
pub(crate) const AHEAD: usize = 4;

/// The bytes at the beginning of a row that are fetched; the processor foresees accesses to the rest.
const BEGINNING_BYTES: usize = 512;

/// Has the beginning of `slice` fetched, without waiting for it.
#[inline]
pub(crate) fn prefetch_beginning<T>(slice: &[T]) {
    prefetch(&slice[..slice.len().min(BEGINNING_BYTES / size_of::<T>())]);
}

/// Has the beginning of `ranks` fetched, without waiting for it.
#[inline]
pub(crate) fn prefetch_ranks_beginning(ranks: RankSlice) {
    match ranks {
        RankSlice::Narrow(ranks) => prefetch_beginning(ranks),
        RankSlice::Wide(ranks) => prefetch_beginning(ranks),
    }
}

/// Has the beginnings of a user's ranks and ratings fetched, without waiting for them.
#[inline]
pub(crate) fn prefetch_rated(rated: Rated) {
    prefetch_ranks_beginning(rated.ranks);
    match rated.values {
        FloatSlice::Coded(_, positions) => prefetch_beginning(positions),
        FloatSlice::Plain(values) => prefetch_beginning(values),
    }
}

/// Has all of `ranks` fetched, without waiting for them.
#[inline]
pub(crate) fn prefetch_ranks(ranks: RankSlice) {
    match ranks {
        RankSlice::Narrow(ranks) => prefetch(ranks),
        RankSlice::Wide(ranks) => prefetch(ranks),
    }
}

/// Has entry `at` of `values` fetched, without waiting for it.
#[inline]
pub(crate) fn prefetch_value(values: FloatSlice, at: usize) {
    match values {
        FloatSlice::Coded(_, positions) => prefetch(&positions[at..=at]),
        FloatSlice::Plain(values) => prefetch(&values[at..=at]),
    }
}

/// Has all of `slice` fetched, without waiting for it. A prefetch changes nothing that the program can see, so that its plain
/// reference is to do nothing.
#[inline]
pub(crate) fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = slice.as_ptr().cast::<i8>();
        let n_bytes = size_of_val(slice);
        // A slice may begin in the middle of a cache line, so that its last bytes may lie in one more line.
        for offset in (0..n_bytes).step_by(64).chain(n_bytes.checked_sub(1)) {
            // SAFETY: the offset lies within the slice, and a prefetch neither faults nor changes memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}
