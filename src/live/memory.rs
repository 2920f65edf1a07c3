//! Returns free memory to the system.

/// Makes the allocator return freed memory to the system instead of keeping it for later. Loading a snapshot frees its
/// encoded bytes, and dropping one frees all of its memory. Takes some milliseconds for each gigabyte.
pub(super) fn give_back() {
    // SAFETY: the function may be called at any time, from any thread; it does not touch memory in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
