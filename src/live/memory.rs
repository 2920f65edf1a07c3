//! Memory: given back when it is not needed any more, and in large pages where much of it is read in any order.

use crate::model::floats::FloatSlice;
use crate::model::ratings::ItemSlice;
use crate::model::snapshot::Snapshot;

/// Has the allocator give freed memory back to the system, which it would otherwise keep for later: to load a snapshot takes
/// its bytes beside what is decoded, and to drop one leaves as much as it was. Takes some milliseconds for each gigabyte.
pub(super) fn give_back() {
    // SAFETY: the function may be called at any time, from any thread; memory in use is not touched.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Has what answers read lie in large pages, where the system can: rows are met in any order, and with small pages the
/// processor would look up for nearly each where it lies. Everything else stays in small pages, of which a large one would
/// hold much that is not in use.
pub(super) fn gather(snapshot: &Snapshot) {
    let ratings = snapshot.ratings();
    match ratings.items() {
        ItemSlice::Narrow(items) => collapse(items),
        ItemSlice::Wide(items) => collapse(items),
    }
    match ratings.values().as_slice() {
        FloatSlice::Coded(_, positions) => collapse(positions),
        FloatSlice::Plain(values) => collapse(values),
    }
    for lists in [snapshot.user_neighbors(), snapshot.item_neighbors()] {
        collapse(lists.neighbors());
        collapse(lists.similarities());
    }
}

/// Moves what lies in `array` into large pages, all but its ends.
fn collapse<T>(array: &[T]) {
    #[cfg(target_os = "linux")]
    {
        // No system has smaller pages; where they are larger, this is refused.
        const PAGE: usize = 4096;
        let start = array.as_ptr().cast::<u8>();
        let to_page = start.align_offset(PAGE);
        let bytes = size_of_val(array).saturating_sub(to_page) / PAGE * PAGE;
        if bytes > 0 {
            // SAFETY: the pages lie within the array, and what they hold stays as it is. Refused, it changes nothing.
            unsafe { libc::madvise(start.add(to_page).cast_mut().cast(), bytes, libc::MADV_COLLAPSE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = array;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_moved_stays_as_it_was() {
        // Up to several large pages, from any place on.
        for (len, start) in [(0, 0), (1, 1), (1 << 10, 3), (1 << 20, 0), (3 << 20, 5)] {
            let array: Vec<u32> = (0..len).collect();
            collapse(&array[start..]);
            assert!(array.iter().copied().eq(0..len), "{len}");
        }
    }
}
