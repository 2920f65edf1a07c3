//! The kernel's inner loops, each in portable Rust and in the instruction sets of x86-64.
//!
//! All `unsafe` code of the crate is here and in `simd/x86.rs`. Loops that the compiler vectorizes are compiled again with
//! wider instructions allowed. The products are written in intrinsics, because compilers neither find the instructions for
//! small integers nor keep as many real sums in registers. The portable loops are the reference that the tests compare
//! the others with.

#[cfg(target_arch = "x86_64")]
mod x86;

/// The number of lanes of a tile is padded to a multiple of this, for every instruction set.
pub(super) const LANES: usize = 256;

/// The number of lanes whose bytes are stored together; see [`byte_of_lane`].
const GROUP: usize = 64;

/// The number of pairs of products of values up to 15 whose sum fits into 16 bits: 145 · 2 · 15² = 65,250.
const MAX_PAIRS: usize = 145;

/// The instructions that the inner loops use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512 F and BW.
    Avx512,
    Avx2,
    Portable,
}

impl InstructionSet {
    /// Returns the best set that this processor has.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// Returns all sets that this processor has, the best first.
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

/// Returns the position of a lane's byte in its column.
///
/// In every 64 bytes, eight bytes of lanes below 32 alternate with eight bytes of lanes from 32 on. The instructions
/// interleave two columns within 16 bytes; with this layout the lanes are in order afterwards.
pub(super) fn byte_of_lane(lane: usize) -> usize {
    let (group, lane) = (lane / GROUP, lane % GROUP);
    group * GROUP + lane % 32 / 8 * 16 + lane / 32 * 8 + lane % 8
}

/// Dense columns, one after another, each with a cell for every lane.
///
/// Integer cells are bytes with values up to 15, in the order of [`byte_of_lane`]. Real cells are f32s in the order of the
/// lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a, C> {
    pub cells: &'a [C],
    /// The place of the first column.
    pub first: usize,
}

/// Adds the products of a row with columns of bytes to the first `n_lanes` of `dots`, rounded up to [`LANES`].
///
/// `block`: columns of `dots.len()` cells each, a multiple of [`LANES`]. `entries`: the row's `place << 4 | value`, each
/// `place` that of a column in the block.
///
/// # Panics
/// If a place lies outside of the block, if `dots.len()` is no multiple of [`LANES`], or if it is below `n_lanes`.
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
        // SAFETY: the processor has the set; places and lanes were checked above.
        InstructionSet::Avx512 => unsafe { x86::add_integer_products_avx512(block, entries, dots, n_lanes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { x86::add_integer_products_avx2(block, entries, dots, n_lanes) },
        _ => add_integer_products_portable(block, entries, dots, n_lanes),
    }
}

/// Adds the products of a row with columns of f32s to the first `n_lanes` of `dots`, rounded up to [`LANES`].
///
/// Entries are added one after another. As every product is exact, all instruction sets give the same bits, whether they
/// round the product or not.
///
/// `block`: as for [`add_integer_products`]. `entries`: `place << 32 | bits of the value`.
///
/// # Panics
/// As [`add_integer_products`].
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
        // SAFETY: the processor has the set; places and lanes were checked above.
        InstructionSet::Avx512 => unsafe { x86::add_real_products_avx512(block, entries, dots, n_lanes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { x86::add_real_products_avx2(block, entries, dots, n_lanes) },
        _ => add_real_products_portable(block, entries, dots, n_lanes),
    }
}

/// Rounds `n_lanes` up to whole [`LANES`] and checks that a column of `width` lanes holds them.
fn whole_lanes(n_lanes: usize, width: usize) -> usize {
    let n_lanes = n_lanes.next_multiple_of(LANES);
    assert!(width.is_multiple_of(LANES) && n_lanes <= width, "not whole lanes");
    n_lanes
}

/// Returns the least and the largest entry. It reads all of them, because memory is accessed by their places.
fn ends<E: Copy + Ord>(entries: &[E]) -> Option<(E, E)> {
    let &first = entries.first()?;
    let ends = |(low, high): (E, E), &entry: &E| (low.min(entry), high.max(entry));
    Some(entries.iter().fold((first, first), ends))
}

/// Checks that the columns from place `low` to place `high` lie inside of the block.
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

/// The dot product that a pair must reach to enter the list of one of its two rows.
///
/// It is `norm · min(threshold · norms[lane], scaled_thresholds[lane])`, and must be above 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cutoff<'a, F> {
    /// The row's norm.
    pub norm: F,
    /// The similarity that a neighbor of the row must reach.
    pub threshold: F,
    /// Per lane.
    pub norms: &'a [F],
    /// Per lane, the similarity that its neighbors must reach, times its norm.
    pub scaled_thresholds: &'a [F],
}

/// Appends the lanes whose dot product with the row reaches the cutoff.
///
/// # Panics
/// If there are not as many norms and thresholds as dot products.
pub(super) fn find_integer_candidates(
    set: InstructionSet,
    dots: &[u32],
    cutoff: Cutoff<'_, f32>,
    candidates: &mut Vec<u16>,
) {
    assert!(dots.len() == cutoff.norms.len() && dots.len() == cutoff.scaled_thresholds.len());
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the set; lengths were checked above.
        InstructionSet::Avx512 => unsafe { x86::find_integer_candidates_avx512(dots, cutoff, candidates) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the set.
        InstructionSet::Avx2 => unsafe { x86::find_integer_candidates_avx2(dots, cutoff, candidates) },
        _ => find_integer_candidates_portable(dots, cutoff, candidates),
    }
}

/// Does the same as [`find_integer_candidates`] for real dot products.
///
/// # Panics
/// As [`find_integer_candidates`].
pub(super) fn find_real_candidates(
    set: InstructionSet,
    dots: &[f64],
    cutoff: Cutoff<'_, f64>,
    candidates: &mut Vec<u16>,
) {
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the set.
        InstructionSet::Avx512 => unsafe { x86::find_real_candidates_avx512(dots, cutoff, candidates) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the set.
        InstructionSet::Avx2 => unsafe { x86::find_real_candidates_avx2(dots, cutoff, candidates) },
        _ => find_real_candidates_portable(dots, cutoff, candidates),
    }
}

#[inline(always)]
fn find_integer_candidates_portable(dots: &[u32], cutoff: Cutoff<'_, f32>, candidates: &mut Vec<u16>) {
    let (norms, scaled_thresholds) = (cutoff.norms, cutoff.scaled_thresholds);
    find_candidates(
        dots,
        norms,
        scaled_thresholds,
        candidates,
        |dot, norm, scaled_threshold| {
            let least = cutoff.norm * (cutoff.threshold * norm).min(scaled_threshold);
            (dot as f32 >= least) & (dot > 0)
        },
    );
}

#[inline(always)]
fn find_real_candidates_portable(dots: &[f64], cutoff: Cutoff<'_, f64>, candidates: &mut Vec<u16>) {
    let (norms, scaled_thresholds) = (cutoff.norms, cutoff.scaled_thresholds);
    find_candidates(
        dots,
        norms,
        scaled_thresholds,
        candidates,
        |dot, norm, scaled_threshold| {
            let least = cutoff.norm * (cutoff.threshold * norm).min(scaled_threshold);
            (dot >= least) & (dot > 0.0)
        },
    );
}

/// Appends the lanes that reach the cutoff. It tests 32 lanes at once, as hardly any lane does.
#[inline(always)]
fn find_candidates<D: Copy, F: Copy>(
    dots: &[D],
    norms: &[F],
    scaled_thresholds: &[F],
    candidates: &mut Vec<u16>,
    reaches: impl Fn(D, F, F) -> bool,
) {
    const AT_ONCE: usize = 32;
    assert!(dots.len() == norms.len() && dots.len() == scaled_thresholds.len());
    let chunks = dots
        .chunks(AT_ONCE)
        .zip(norms.chunks(AT_ONCE))
        .zip(scaled_thresholds.chunks(AT_ONCE));
    for (chunk, ((dots, norms), scaled_thresholds)) in chunks.enumerate() {
        let lanes = || dots.iter().zip(norms).zip(scaled_thresholds);
        let any = match (
            <&[D; AT_ONCE]>::try_from(dots),
            <&[F; AT_ONCE]>::try_from(norms),
            <&[F; AT_ONCE]>::try_from(scaled_thresholds),
        ) {
            (Ok(dots), Ok(norms), Ok(scaled_thresholds)) => {
                let mut any = false;
                for lane in 0..AT_ONCE {
                    any |= reaches(dots[lane], norms[lane], scaled_thresholds[lane]);
                }
                any
            }
            _ => true,
        };
        if any {
            let reaching = lanes()
                .enumerate()
                .filter(|&(_, ((&dot, &norm), &scaled_threshold))| reaches(dot, norm, scaled_threshold));
            candidates.extend(reaching.map(|(lane, _)| (chunk * AT_ONCE + lane) as u16));
        }
    }
}

#[cfg(test)]
mod tests;
