//! The inner loops in the instruction sets that the processor has, and portably. All `unsafe` code of the
//! similarity kernels is here.
//!
//! Each loop exists once in plain Rust. What vectorises by itself is compiled again with wider instructions allowed;
//! products are written out: no compiler finds those of small integers, nor keeps as many sums of real ones in registers.

/// Tiles are padded to a multiple of so many rows (lanes), for every instruction set.
pub(super) const LANES: usize = 256;

/// Lanes whose bytes stand together: see [`byte_of_lane`].
const GROUP: usize = 64;

/// Two products of values up to 15 fit this many times into 16 bits: 145 · 2 · 15² = 65,250.
const MAX_PAIRS: usize = 145;

/// What the inner loops run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512 F and BW.
    Avx512,
    Avx2,
    Portable,
}

impl InstructionSet {
    /// The best one that this processor has.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, the best first.
    pub(super) fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                available.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") {
                available.push(Self::Avx2);
            }
        }
        available.push(Self::Portable);
        available
    }
}

impl std::fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2",
            Self::Portable => "portable",
        })
    }
}

/// Where the byte of a lane stands in its column.
///
/// In every 64 bytes, eight of a lane below 32 alternate with eight of one from 32 on: interleaving two columns, as the
/// instructions do it within 16 bytes, then leaves the lanes in order.
pub(super) fn byte_of_lane(lane: usize) -> usize {
    let (group, lane) = (lane / GROUP, lane % GROUP);
    group * GROUP + lane % 32 / 8 * 16 + lane / 32 * 8 + lane % 8
}

/// Dense columns, one after the other, each with a cell for every lane.
///
/// Cells of integers are bytes, values up to 15, ordered by [`byte_of_lane`]; those of real values are f32s, in the order of
/// the lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a, C> {
    pub cells: &'a [C],
    /// Place of the first column.
    pub first: usize,
}

/// Adds to the first `n_lanes` of `dots`, rounded up to [`LANES`], the products of a row with columns of bytes.
///
/// `block`: columns of `dots.len()` cells each, a multiple of [`LANES`]. `entries`: `place << 4 | value` of the row,
/// `place` of a column of the block.
///
/// # Panics
/// A place outside of the block, another number of lanes.
pub(super) fn add_integer_products(
    set: InstructionSet,
    block: Block<'_, u8>,
    entries: &[u32],
    dots: &mut [u32],
    n_lanes: usize,
) {
    let n_lanes = whole_lanes(n_lanes, dots.len());
    let Some((low, high)) = ends(entries) else {
        return;
    };
    check_inside(block, dots.len(), (low >> 4) as usize, (high >> 4) as usize);
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set was detected; places and lanes were checked above.
        InstructionSet::Avx512 => unsafe { x86::add_integer_products_avx512(block, entries, dots, n_lanes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { x86::add_integer_products_avx2(block, entries, dots, n_lanes) },
        _ => add_integer_products_portable(block, entries, dots, n_lanes),
    }
}

/// Adds to the first `n_lanes` of `dots`, rounded up to [`LANES`], the products of a row with columns of f32s, one entry
/// after the other: as every product is exact, all instruction sets give the same bits, whether they round it or not.
///
/// `block`: as for [`add_integer_products`]. `entries`: `place << 32 | bits of the value`.
///
/// # Panics
/// A place outside of the block, another number of lanes.
pub(super) fn add_real_products(
    set: InstructionSet,
    block: Block<'_, f32>,
    entries: &[u64],
    dots: &mut [f64],
    n_lanes: usize,
) {
    let n_lanes = whole_lanes(n_lanes, dots.len());
    let Some((low, high)) = ends(entries) else {
        return;
    };
    check_inside(block, dots.len(), (low >> 32) as usize, (high >> 32) as usize);
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set was detected; places and lanes were checked above.
        InstructionSet::Avx512 => unsafe { x86::add_real_products_avx512(block, entries, dots, n_lanes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { x86::add_real_products_avx2(block, entries, dots, n_lanes) },
        _ => add_real_products_portable(block, entries, dots, n_lanes),
    }
}

/// `n_lanes`, rounded up to whole [`LANES`], of which there must be as many as `width`.
fn whole_lanes(n_lanes: usize, width: usize) -> usize {
    let n_lanes = n_lanes.next_multiple_of(LANES);
    assert!(width.is_multiple_of(LANES) && n_lanes <= width, "not whole lanes");
    n_lanes
}

/// The least and the largest entry. All are looked at, as memory is accessed by them.
fn ends<E: Copy + Ord>(entries: &[E]) -> Option<(E, E)> {
    let &first = entries.first()?;
    let ends = |(low, high): (E, E), &entry: &E| (low.min(entry), high.max(entry));
    Some(entries.iter().fold((first, first), ends))
}

/// `low` and `high`: places between which all that are asked for lie.
fn check_inside<C>(block: Block<'_, C>, width: usize, low: usize, high: usize) {
    let is_inside = low >= block.first && (high - block.first + 1) * width <= block.cells.len();
    assert!(is_inside, "a column lies outside of the block");
}

fn add_real_products_portable(block: Block<'_, f32>, entries: &[u64], dots: &mut [f64], n_lanes: usize) {
    let width = dots.len();
    for entry in entries {
        let (place, value) = ((entry >> 32) as usize, real_value(*entry));
        let column = &block.cells[(place - block.first) * width..][..n_lanes];
        for (dot, &cell) in dots.iter_mut().zip(column) {
            *dot += value * f64::from(cell);
        }
    }
}

fn real_value(entry: u64) -> f64 {
    f64::from(f32::from_bits(entry as u32))
}

fn add_integer_products_portable(block: Block<'_, u8>, entries: &[u32], dots: &mut [u32], n_lanes: usize) {
    let width = dots.len();
    for entry in entries {
        let (place, value) = ((entry >> 4) as usize, entry & 15);
        let column = &block.cells[(place - block.first) * width..][..n_lanes];
        for (dots, bytes) in dots.chunks_exact_mut(GROUP).zip(column.chunks_exact(GROUP)) {
            let (low, high) = dots.split_at_mut(GROUP / 2);
            for (eight, bytes) in bytes.chunks_exact(16).enumerate() {
                for lane in 0..8 {
                    low[eight * 8 + lane] += value * u32::from(bytes[lane]);
                    high[eight * 8 + lane] += value * u32::from(bytes[8 + lane]);
                }
            }
        }
    }
}

/// What the product of a pair must reach to matter to one of the two rows.
///
/// At least `norm · min(bar · norms[lane], limits[lane])`, and more than 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach<'a, F> {
    /// Of the row.
    pub norm: F,
    /// The similarity that matters to the row.
    pub bar: F,
    /// Per lane.
    pub norms: &'a [F],
    /// Per lane, the similarity that matters to it times its norm.
    pub limits: &'a [F],
}

/// Appends the lanes whose product with the row is within reach.
///
/// # Panics
/// Not as many norms and limits as products.
pub(super) fn find_integers(set: InstructionSet, dots: &[u32], reach: Reach<'_, f32>, found: &mut Vec<u16>) {
    assert!(dots.len() == reach.norms.len() && dots.len() == reach.limits.len());
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set was detected; lengths were checked above.
        InstructionSet::Avx512 => unsafe { x86::find_integers_avx512(dots, reach, found) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set was detected.
        InstructionSet::Avx2 => unsafe { x86::find_integers_avx2(dots, reach, found) },
        _ => find_integers_portable(dots, reach, found),
    }
}

/// [`find_integers`] of real products.
pub(super) fn find_reals(set: InstructionSet, dots: &[f64], reach: Reach<'_, f64>, found: &mut Vec<u16>) {
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set was detected.
        InstructionSet::Avx512 => unsafe { x86::find_reals_avx512(dots, reach, found) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set was detected.
        InstructionSet::Avx2 => unsafe { x86::find_reals_avx2(dots, reach, found) },
        _ => find_reals_portable(dots, reach, found),
    }
}

#[inline(always)]
fn find_integers_portable(dots: &[u32], reach: Reach<'_, f32>, found: &mut Vec<u16>) {
    find(dots, reach.norms, reach.limits, found, |dot, norm, limit| {
        let least = reach.norm * (reach.bar * norm).min(limit);
        (dot as f32 >= least) & (dot > 0)
    });
}

#[inline(always)]
fn find_reals_portable(dots: &[f64], reach: Reach<'_, f64>, found: &mut Vec<u16>) {
    find(dots, reach.norms, reach.limits, found, |dot, norm, limit| {
        let least = reach.norm * (reach.bar * norm).min(limit);
        (dot >= least) & (dot > 0.0)
    });
}

/// Looks at 32 lanes at once, as hardly any is within reach.
#[inline(always)]
fn find<D: Copy, F: Copy>(
    dots: &[D],
    norms: &[F],
    limits: &[F],
    found: &mut Vec<u16>,
    is_within: impl Fn(D, F, F) -> bool,
) {
    const AT_ONCE: usize = 32;
    assert!(dots.len() == norms.len() && dots.len() == limits.len());
    let chunks = dots
        .chunks(AT_ONCE)
        .zip(norms.chunks(AT_ONCE))
        .zip(limits.chunks(AT_ONCE));
    for (chunk, ((dots, norms), limits)) in chunks.enumerate() {
        let lanes = || dots.iter().zip(norms).zip(limits);
        let any = match (
            <&[D; AT_ONCE]>::try_from(dots),
            <&[F; AT_ONCE]>::try_from(norms),
            <&[F; AT_ONCE]>::try_from(limits),
        ) {
            (Ok(dots), Ok(norms), Ok(limits)) => {
                let mut any = false;
                for lane in 0..AT_ONCE {
                    any |= is_within(dots[lane], norms[lane], limits[lane]);
                }
                any
            }
            _ => true,
        };
        if any {
            let within = lanes()
                .enumerate()
                .filter(|&(_, ((&dot, &norm), &limit))| is_within(dot, norm, limit));
            found.extend(within.map(|(lane, _)| (chunk * AT_ONCE + lane) as u16));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, GROUP, LANES, MAX_PAIRS, Reach, find_integers_portable, find_reals_portable, real_value};

    /// # Safety
    /// As many norms and limits as products.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn find_integers_avx512(dots: &[u32], reach: Reach<'_, f32>, found: &mut Vec<u16>) {
        let (norm, bar) = (_mm512_set1_ps(reach.norm), _mm512_set1_ps(reach.bar));
        for start in (0..dots.len()).step_by(16) {
            let left = dots.len() - start;
            let within: __mmask16 = if left >= 16 { !0 } else { (1 << left) - 1 };
            // SAFETY: what lies behind the end is masked, and not read.
            let (dots, norms, limits) = unsafe {
                (
                    _mm512_maskz_loadu_epi32(within, dots.as_ptr().add(start).cast()),
                    _mm512_maskz_loadu_ps(within, reach.norms.as_ptr().add(start)),
                    _mm512_maskz_loadu_ps(within, reach.limits.as_ptr().add(start)),
                )
            };
            let least = _mm512_mul_ps(norm, _mm512_min_ps(_mm512_mul_ps(bar, norms), limits));
            let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_cvtepu32_ps(dots), least);
            let mut lanes = reached & _mm512_test_epi32_mask(dots, dots);
            while lanes != 0 {
                found.push((start + lanes.trailing_zeros() as usize) as u16);
                lanes &= lanes - 1;
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn find_integers_avx2(dots: &[u32], reach: Reach<'_, f32>, found: &mut Vec<u16>) {
        find_integers_portable(dots, reach, found);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn find_reals_avx512(dots: &[f64], reach: Reach<'_, f64>, found: &mut Vec<u16>) {
        find_reals_portable(dots, reach, found);
    }

    #[target_feature(enable = "avx2")]
    pub fn find_reals_avx2(dots: &[f64], reach: Reach<'_, f64>, found: &mut Vec<u16>) {
        find_reals_portable(dots, reach, found);
    }

    /// Entries two by two; with an odd one goes a product with nothing, in its own column.
    fn in_pairs(entries: &[u32]) -> impl Iterator<Item = [u32; 2]> {
        let (pairs, last) = entries.as_chunks::<2>();
        pairs
            .iter()
            .copied()
            .chain(last.iter().map(|&entry| [entry, entry & !15]))
    }

    /// The two values of a pair, beside each other in every 16 bits.
    fn pair_of_values(pair: [u32; 2]) -> i16 {
        ((pair[0] & 15) | (pair[1] & 15) << 8) as i16
    }

    /// # Safety
    /// Places of `entries` lie inside of `block`, in columns of `dots.len()` bytes; `n_lanes`, a multiple of [`LANES`],
    /// is not more than `dots.len()`.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn add_integer_products_avx512(block: Block<'_, u8>, entries: &[u32], dots: &mut [u32], n_lanes: usize) {
        let width = dots.len();
        for start in (0..n_lanes).step_by(LANES) {
            for entries in entries.chunks(2 * MAX_PAIRS) {
                // The sums of 32 lanes each, in order, in 16 bits.
                let mut sums = [_mm512_setzero_si512(); LANES / 32];
                for pair in in_pairs(entries) {
                    let values = _mm512_set1_epi16(pair_of_values(pair));
                    let column = |entry: u32| {
                        let place = (entry >> 4) as usize - block.first;
                        // SAFETY: the caller's promise; `start + LANES <= n_lanes <= width`.
                        unsafe { block.cells.as_ptr().add(place * width + start) }
                    };
                    let (first, second) = (column(pair[0]), column(pair[1]));
                    for group in 0..LANES / GROUP {
                        // SAFETY: 64 bytes from `start + 64 · group` on lie in the column.
                        let (first, second) = unsafe {
                            (
                                _mm512_loadu_si512(first.add(group * GROUP).cast()),
                                _mm512_loadu_si512(second.add(group * GROUP).cast()),
                            )
                        };
                        let low = _mm512_maddubs_epi16(_mm512_unpacklo_epi8(first, second), values);
                        let high = _mm512_maddubs_epi16(_mm512_unpackhi_epi8(first, second), values);
                        sums[2 * group] = _mm512_add_epi16(sums[2 * group], low);
                        sums[2 * group + 1] = _mm512_add_epi16(sums[2 * group + 1], high);
                    }
                }
                for (sums, dots) in sums.iter().zip(dots[start..].chunks_exact_mut(32)) {
                    let halves = [_mm512_castsi512_si256(*sums), _mm512_extracti64x4_epi64::<1>(*sums)];
                    for (half, dots) in halves.into_iter().zip(dots.chunks_exact_mut(16)) {
                        let dots = dots.as_mut_ptr().cast();
                        // SAFETY: 16 products of 4 bytes.
                        unsafe {
                            let sum = _mm512_add_epi32(_mm512_loadu_si512(dots), _mm512_cvtepu16_epi32(half));
                            _mm512_storeu_si512(dots, sum);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`add_integer_products_avx512`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn add_integer_products_avx2(block: Block<'_, u8>, entries: &[u32], dots: &mut [u32], n_lanes: usize) {
        /// Lanes at once: their sums and what they need besides fit into 16 registers.
        const AT_ONCE: usize = 128;
        let width = dots.len();
        for start in (0..n_lanes).step_by(AT_ONCE) {
            for entries in entries.chunks(2 * MAX_PAIRS) {
                // The sums of 16 lanes each, in order, in 16 bits.
                let mut sums = [_mm256_setzero_si256(); AT_ONCE / 16];
                for pair in in_pairs(entries) {
                    let values = _mm256_set1_epi16(pair_of_values(pair));
                    let column = |entry: u32| {
                        let place = (entry >> 4) as usize - block.first;
                        // SAFETY: the caller's promise; `start + AT_ONCE <= n_lanes <= width`.
                        unsafe { block.cells.as_ptr().add(place * width + start) }
                    };
                    let (first, second) = (column(pair[0]), column(pair[1]));
                    for half in 0..AT_ONCE / 32 {
                        // SAFETY: 32 bytes from `start + 32 · half` on lie in the column.
                        let (first, second) = unsafe {
                            (
                                _mm256_loadu_si256(first.add(half * 32).cast()),
                                _mm256_loadu_si256(second.add(half * 32).cast()),
                            )
                        };
                        let low = _mm256_maddubs_epi16(_mm256_unpacklo_epi8(first, second), values);
                        let high = _mm256_maddubs_epi16(_mm256_unpackhi_epi8(first, second), values);
                        // The low lanes of a group of 64 fill two registers, the high ones the next two.
                        let at = half / 2 * 4 + half % 2;
                        sums[at] = _mm256_add_epi16(sums[at], low);
                        sums[at + 2] = _mm256_add_epi16(sums[at + 2], high);
                    }
                }
                for (sums, dots) in sums.iter().zip(dots[start..].chunks_exact_mut(16)) {
                    let halves = [_mm256_castsi256_si128(*sums), _mm256_extracti128_si256::<1>(*sums)];
                    for (half, dots) in halves.into_iter().zip(dots.chunks_exact_mut(8)) {
                        let dots = dots.as_mut_ptr().cast();
                        // SAFETY: 8 products of 4 bytes.
                        unsafe {
                            let sum = _mm256_add_epi32(_mm256_loadu_si256(dots), _mm256_cvtepu16_epi32(half));
                            _mm256_storeu_si256(dots, sum);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`add_integer_products_avx512`], with cells instead of bytes.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn add_real_products_avx512(block: Block<'_, f32>, entries: &[u64], dots: &mut [f64], n_lanes: usize) {
        /// Lanes at once: their sums fill half of the registers.
        const AT_ONCE: usize = 128;
        let width = dots.len();
        for start in (0..n_lanes).step_by(AT_ONCE) {
            let dots = dots[start..][..AT_ONCE].as_mut_ptr();
            let mut sums = [_mm512_setzero_pd(); AT_ONCE / 8];
            for (eight, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 8 of the `AT_ONCE` products.
                *sum = unsafe { _mm512_loadu_pd(dots.add(8 * eight)) };
            }
            for &entry in entries {
                let place = (entry >> 32) as usize - block.first;
                let value = _mm512_set1_pd(real_value(entry));
                for (eight, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller's promise; `start + AT_ONCE <= n_lanes <= width`.
                    let cells = unsafe {
                        let column = block.cells.as_ptr().add(place * width + start);
                        _mm256_loadu_ps(column.add(8 * eight))
                    };
                    *sum = _mm512_fmadd_pd(value, _mm512_cvtps_pd(cells), *sum);
                }
            }
            for (eight, sum) in sums.into_iter().enumerate() {
                // SAFETY: as they were loaded.
                unsafe { _mm512_storeu_pd(dots.add(8 * eight), sum) };
            }
        }
    }

    /// # Safety
    /// As for [`add_real_products_avx512`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn add_real_products_avx2(block: Block<'_, f32>, entries: &[u64], dots: &mut [f64], n_lanes: usize) {
        /// Lanes at once: their sums fill half of the registers.
        const AT_ONCE: usize = 32;
        let width = dots.len();
        for start in (0..n_lanes).step_by(AT_ONCE) {
            let dots = dots[start..][..AT_ONCE].as_mut_ptr();
            let mut sums = [_mm256_setzero_pd(); AT_ONCE / 4];
            for (four, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 4 of the `AT_ONCE` products.
                *sum = unsafe { _mm256_loadu_pd(dots.add(4 * four)) };
            }
            for &entry in entries {
                let place = (entry >> 32) as usize - block.first;
                let value = _mm256_set1_pd(real_value(entry));
                for (four, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller's promise; `start + AT_ONCE <= n_lanes <= width`.
                    let cells = unsafe {
                        let column = block.cells.as_ptr().add(place * width + start);
                        _mm_loadu_ps(column.add(4 * four))
                    };
                    *sum = _mm256_add_pd(*sum, _mm256_mul_pd(value, _mm256_cvtps_pd(cells)));
                }
            }
            for (four, sum) in sums.into_iter().enumerate() {
                // SAFETY: as they were loaded.
                unsafe { _mm256_storeu_pd(dots.add(4 * four), sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
