//! Room for the arrays of a snapshot.

/// What `fill` puts into a vector with room for `len`. What fills large pages lies in them, where the system has any: rows of
/// such arrays are met in any order, and of small pages the processor would first have to look up for nearly each where it
/// lies.
///
/// The program's other memory is in small pages: a large one of small things is mostly waste.
pub(super) fn allocate_with_huge_pages<T, E>(
    len: usize,
    fill: impl FnOnce(&mut Vec<T>) -> Result<(), E>,
) -> Result<Vec<T>, E> {
    let mut room = Vec::with_capacity(len);
    let advice = Advice::on(&room);
    advice.use_large_pages(true);
    let result = fill(&mut room);
    // Those that are filled stay large. The advice holds for what comes to lie there after the array, too: small things.
    advice.use_large_pages(false);
    result.map(|()| room)
}

/// The large pages that lie within the room of a vector.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there is nothing to advise"))]
struct Advice {
    start: *const u8,
    bytes: usize,
}

impl Advice {
    fn on<T>(room: &Vec<T>) -> Self {
        // Of most processors. Where they are larger, part of one does no harm.
        const LARGE_PAGE: usize = 2 << 20;
        let start = room.as_ptr().cast::<u8>();
        let to_page = start.align_offset(LARGE_PAGE);
        Self {
            start: start.wrapping_add(to_page),
            bytes: (room.capacity() * size_of::<T>()).saturating_sub(to_page) / LARGE_PAGE * LARGE_PAGE,
        }
    }

    #[cfg(target_os = "linux")]
    fn use_large_pages(&self, is_on: bool) {
        let advice = match is_on {
            true => libc::MADV_HUGEPAGE,
            false => libc::MADV_NOHUGEPAGE,
        };
        if self.bytes > 0 {
            // SAFETY: it is advice: nothing in the pages changes, whatever has become of the room, and where it is refused,
            // nothing.
            unsafe { libc::madvise(self.start.cast_mut().cast(), self.bytes, advice) };
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn use_large_pages(&self, _is_on: bool) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_as_asked_for() {
        for len in [0, 1, 1 << 10, 1 << 20, (3 << 20) + 5] {
            let mut start = None;
            let filled = allocate_with_huge_pages(len as usize, |room: &mut Vec<u32>| {
                assert!(room.capacity() >= len as usize, "{len}");
                start = Some(room.as_ptr());
                room.extend(0..len);
                Ok::<_, ()>(())
            });
            let filled = filled.unwrap();
            assert!(filled.iter().copied().eq(0..len), "{len}");
            assert_eq!(Some(filled.as_ptr()), start, "{len}: moved");
        }
        assert_eq!(allocate_with_huge_pages(1 << 20, |_: &mut Vec<u32>| Err(7)), Err(7));
    }
}
