//! Allocates the large arrays of a snapshot in huge pages.

/// Returns a vector with capacity for `len` entries, filled by `fill`, in huge pages where it fills such and the system has
/// them. Rows of such arrays are read in any order, and with small pages the processor would have to look up the address of
/// nearly every row first.
///
/// The program's other memory stays in small pages, because a huge page of small allocations is mostly waste.
pub(super) fn allocate_with_huge_pages<T, E>(
    len: usize,
    fill: impl FnOnce(&mut Vec<T>) -> Result<(), E>,
) -> Result<Vec<T>, E> {
    let mut array = Vec::with_capacity(len);
    let advice = Advice::on(&array);
    advice.use_huge_pages(true);
    let result = fill(&mut array);
    // Filled pages stay huge. Without this the advice would also hold for small allocations at this address after the array.
    advice.use_huge_pages(false);
    result.map(|()| array)
}

/// The huge pages that lie within the memory of a vector.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there is nothing to advise"))]
struct Advice {
    start: *const u8,
    bytes: usize,
}

impl Advice {
    fn on<T>(array: &Vec<T>) -> Self {
        // The size on most processors. Where it is larger, advice about part of a page does no harm.
        const HUGE_PAGE_BYTES: usize = 2 << 20;
        let start = array.as_ptr().cast::<u8>();
        let to_page = start.align_offset(HUGE_PAGE_BYTES);
        Self {
            start: start.wrapping_add(to_page),
            bytes: (array.capacity() * size_of::<T>()).saturating_sub(to_page) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES,
        }
    }

    #[cfg(target_os = "linux")]
    fn use_huge_pages(&self, is_on: bool) {
        let advice = match is_on {
            true => libc::MADV_HUGEPAGE,
            false => libc::MADV_NOHUGEPAGE,
        };
        if self.bytes > 0 {
            // SAFETY: this is advice: the contents of the pages do not change, whatever has become of the vector, and a refusal
            // changes nothing at all.
            unsafe { libc::madvise(self.start.cast_mut().cast(), self.bytes, advice) };
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn use_huge_pages(&self, _is_on: bool) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_has_capacity_for_as_many_as_asked_for() {
        for len in [0, 1, 1 << 10, 1 << 20, (3 << 20) + 5] {
            let mut start = None;
            let filled = allocate_with_huge_pages(len as usize, |array: &mut Vec<u32>| {
                assert!(array.capacity() >= len as usize, "{len}");
                start = Some(array.as_ptr());
                array.extend(0..len);
                Ok::<_, ()>(())
            });
            let filled = filled.unwrap();
            assert!(filled.iter().copied().eq(0..len), "{len}");
            assert_eq!(Some(filled.as_ptr()), start, "{len}: moved");
        }
        assert_eq!(allocate_with_huge_pages(1 << 20, |_: &mut Vec<u32>| Err(7)), Err(7));
    }
}
