//! Memory that is not needed any more.

/// Has the allocator give freed memory back to the system, which it would otherwise keep for later: to load a snapshot takes
/// its bytes beside what is decoded, and to drop one leaves as much as it was. Takes some milliseconds for each gigabyte.
pub(super) fn give_back() {
    // SAFETY: the function may be called at any time, from any thread; memory in use is not touched.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
