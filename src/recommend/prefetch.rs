//! Fetching from memory what is needed soon.

use crate::model::floats::FloatSlice;
use crate::model::ratings::{ItemSlice, Rated};

/// Rows that are fetched before their turn: they lie anywhere in a large matrix, and the first access to each would be
/// waited for.
pub(super) const AHEAD: usize = 4;

/// Of the beginning of a row; what comes after it the processor foresees.
const BEGINNING_BYTES: usize = 512;

/// Has the beginning of `slice` fetched, and waits for nothing.
pub(super) fn prefetch_beginning<T>(slice: &[T]) {
    prefetch(&slice[..slice.len().min(BEGINNING_BYTES / size_of::<T>())]);
}

/// Has the beginnings of a user's items and ratings fetched, and waits for nothing.
pub(super) fn prefetch_rated(rated: Rated) {
    match rated.items {
        ItemSlice::Narrow(items) => prefetch_beginning(items),
        ItemSlice::Wide(items) => prefetch_beginning(items),
    }
    match rated.values {
        FloatSlice::Coded(_, positions) => prefetch_beginning(positions),
        FloatSlice::Plain(values) => prefetch_beginning(values),
    }
}

/// Has all of a user's items fetched, and waits for nothing.
pub(super) fn prefetch_items(items: ItemSlice) {
    match items {
        ItemSlice::Narrow(items) => prefetch(items),
        ItemSlice::Wide(items) => prefetch(items),
    }
}

/// Has entry `at` of `values` fetched, and waits for nothing.
pub(super) fn prefetch_value(values: FloatSlice, at: usize) {
    match values {
        FloatSlice::Coded(_, positions) => prefetch(&positions[at..=at]),
        FloatSlice::Plain(values) => prefetch(&values[at..=at]),
    }
}

/// Has all of `slice` fetched, and waits for nothing.
pub(super) fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = slice.as_ptr().cast::<i8>();
        for offset in (0..size_of_val(slice)).step_by(64) {
            // SAFETY: the offset lies within the slice; and a prefetch reads nothing that the program could see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}
