//! The inner loops for x86-64, in AVX-512 and AVX2.

use std::arch::x86_64::*;

use super::{
    Block, Cutoff, GROUP, LANES, MAX_PAIRS, find_integer_candidates_portable, find_real_candidates_portable, real_value,
};

/// # Safety
/// There are as many norms and thresholds as dot products.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn find_integer_candidates_avx512(dots: &[u32], cutoff: Cutoff<'_, f32>, candidates: &mut Vec<u16>) {
    let (norm, threshold) = (_mm512_set1_ps(cutoff.norm), _mm512_set1_ps(cutoff.threshold));
    for start in (0..dots.len()).step_by(16) {
        let left = dots.len() - start;
        let within: __mmask16 = if left >= 16 { !0 } else { (1 << left) - 1 };
        // SAFETY: elements past the end are masked, and not read.
        let (dots, norms, scaled_thresholds) = unsafe {
            (
                _mm512_maskz_loadu_epi32(within, dots.as_ptr().add(start).cast()),
                _mm512_maskz_loadu_ps(within, cutoff.norms.as_ptr().add(start)),
                _mm512_maskz_loadu_ps(within, cutoff.scaled_thresholds.as_ptr().add(start)),
            )
        };
        let least = _mm512_mul_ps(norm, _mm512_min_ps(_mm512_mul_ps(threshold, norms), scaled_thresholds));
        let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_cvtepu32_ps(dots), least);
        let mut lanes = reached & _mm512_test_epi32_mask(dots, dots);
        while lanes != 0 {
            candidates.push((start + lanes.trailing_zeros() as usize) as u16);
            lanes &= lanes - 1;
        }
    }
}

#[target_feature(enable = "avx2")]
pub fn find_integer_candidates_avx2(dots: &[u32], cutoff: Cutoff<'_, f32>, candidates: &mut Vec<u16>) {
    find_integer_candidates_portable(dots, cutoff, candidates);
}

#[target_feature(enable = "avx512f,avx512bw")]
pub fn find_real_candidates_avx512(dots: &[f64], cutoff: Cutoff<'_, f64>, candidates: &mut Vec<u16>) {
    find_real_candidates_portable(dots, cutoff, candidates);
}

#[target_feature(enable = "avx2")]
pub fn find_real_candidates_avx2(dots: &[f64], cutoff: Cutoff<'_, f64>, candidates: &mut Vec<u16>) {
    find_real_candidates_portable(dots, cutoff, candidates);
}

/// Returns the entries in pairs. An odd last entry is paired with the value 0 in its own column.
fn in_pairs(entries: &[u32]) -> impl Iterator<Item = [u32; 2]> {
    let (pairs, last) = entries.as_chunks::<2>();
    pairs
        .iter()
        .copied()
        .chain(last.iter().map(|&entry| [entry, entry & !15]))
}

/// Returns the two values of a pair, beside each other in 16 bits.
fn pair_of_values(pair: [u32; 2]) -> i16 {
    ((pair[0] & 15) | (pair[1] & 15) << 8) as i16
}

/// # Safety
/// The places of `entries` lie inside of `block`, whose columns have `dots.len()` bytes. `n_lanes` is a multiple of
/// [`LANES`] and at most `dots.len()`.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn add_integer_products_avx512(block: Block<'_, u8>, entries: &[u32], dots: &mut [u32], n_lanes: usize) {
    let width = dots.len();
    for start in (0..n_lanes).step_by(LANES) {
        for entries in entries.chunks(2 * MAX_PAIRS) {
            // Each holds the sums of 32 lanes, in order, in 16 bits.
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
                    // SAFETY: the chunk holds 16 sums of 4 bytes.
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
    /// The number of lanes at once: their sums and the operands fit into 16 registers.
    const AT_ONCE: usize = 128;
    let width = dots.len();
    for start in (0..n_lanes).step_by(AT_ONCE) {
        for entries in entries.chunks(2 * MAX_PAIRS) {
            // Each holds the sums of 16 lanes, in order, in 16 bits.
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
                    // SAFETY: the chunk holds 8 sums of 4 bytes.
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
/// As for [`add_integer_products_avx512`], with f32 cells instead of bytes.
#[target_feature(enable = "avx512f")]
pub unsafe fn add_real_products_avx512(block: Block<'_, f32>, entries: &[u64], dots: &mut [f64], n_lanes: usize) {
    /// The number of lanes at once: their sums fill half of the registers.
    const AT_ONCE: usize = 128;
    let width = dots.len();
    for start in (0..n_lanes).step_by(AT_ONCE) {
        let dots = dots[start..][..AT_ONCE].as_mut_ptr();
        let mut sums = [_mm512_setzero_pd(); AT_ONCE / 8];
        for (eight, sum) in sums.iter_mut().enumerate() {
            // SAFETY: these are 8 of the `AT_ONCE` sums.
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
            // SAFETY: the sums are stored where they were loaded from.
            unsafe { _mm512_storeu_pd(dots.add(8 * eight), sum) };
        }
    }
}

/// # Safety
/// As for [`add_real_products_avx512`].
#[target_feature(enable = "avx2")]
pub unsafe fn add_real_products_avx2(block: Block<'_, f32>, entries: &[u64], dots: &mut [f64], n_lanes: usize) {
    /// The number of lanes at once: their sums fill half of the registers.
    const AT_ONCE: usize = 32;
    let width = dots.len();
    for start in (0..n_lanes).step_by(AT_ONCE) {
        let dots = dots[start..][..AT_ONCE].as_mut_ptr();
        let mut sums = [_mm256_setzero_pd(); AT_ONCE / 4];
        for (four, sum) in sums.iter_mut().enumerate() {
            // SAFETY: these are 4 of the `AT_ONCE` sums.
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
            // SAFETY: the sums are stored where they were loaded from.
            unsafe { _mm256_storeu_pd(dots.add(4 * four), sum) };
        }
    }
}
