//! Fetching from memory what is needed soon.

/// Rows that are fetched before their turn: they lie anywhere in a large matrix, and the first access to each would be
/// waited for.
pub(super) const AHEAD: usize = 4;

/// Of each row; what comes after them the processor foresees.
const PREFETCHED_BYTES: usize = 512;

/// Has the beginning of `slice` fetched, and waits for nothing.
pub(super) fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let bytes = std::mem::size_of_val(slice).min(PREFETCHED_BYTES);
        let start = slice.as_ptr().cast::<i8>();
        for offset in (0..bytes).step_by(64) {
            // SAFETY: the offset lies within the slice; and a prefetch reads nothing that the program could see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}
