//! Room for the arrays of a snapshot.

/// As `Vec::with_capacity`; what fills large pages lies in them, where the system has any. Rows of such arrays are met in
/// any order, and of small pages the processor would first have to look up for nearly each where it lies.
///
/// The program's other memory is in small pages: a large one of small things is mostly waste.
pub(super) fn room<T>(len: usize) -> Vec<T> {
    let room = Vec::<T>::with_capacity(len);
    #[cfg(target_os = "linux")]
    {
        // Of most processors. Where they are larger, part of one does no harm.
        const LARGE_PAGE: usize = 2 << 20;
        let start = room.as_ptr().cast::<u8>();
        let to_page = start.align_offset(LARGE_PAGE);
        let bytes = (room.capacity() * size_of::<T>()).saturating_sub(to_page) / LARGE_PAGE * LARGE_PAGE;
        if bytes > 0 {
            // SAFETY: the pages lie within the room. It is advice: nothing in them changes, and where it is refused, nothing.
            unsafe { libc::madvise(start.add(to_page).cast_mut().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_as_asked_for() {
        for len in [0, 1, 1 << 10, 1 << 20, (3 << 20) + 5] {
            let mut filled = room::<u32>(len as usize);
            assert!(filled.capacity() >= len as usize, "{len}");
            let start = filled.as_ptr();
            filled.extend(0..len);
            assert!(filled.iter().copied().eq(0..len), "{len}");
            assert_eq!(filled.as_ptr(), start, "{len}: moved");
        }
    }
}
