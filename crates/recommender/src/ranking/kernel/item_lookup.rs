//! Finding in the rows of neighbors the few items that a request asks about.
//!
//! Where the processor has AVX2, a row is gone through 32 entries at a time. Two bytes of each are looked up in two sets of bytes, those of what is asked
//! about: the low byte, and the other one mixed with it. A set is two tables of 16 bytes, in which one instruction looks up
//! 32 bytes at once. With 20 items asked about, one in 150 of all others passes as well; what passes is looked at for itself.

use crate::snapshot::bits::Bits;
use crate::snapshot::ratings::RankSlice;

/// Items that a request asks about, by their ranks, each with its place there; between requests there are none.
#[derive(Debug, Default)]
pub(crate) struct RequestedItems {
    ranks: Vec<u32>,
    /// Whether a rank is among them: a bit a rank stays in the first-level cache.
    bits: Bits,
    /// One a rank, of those that are not among them any.
    places: Vec<u32>,
    sieve: Sieve,
}

/// What bytes the items have.
#[derive(Debug, Default)]
struct Sieve {
    low: ByteSet,
    mixed: ByteSet,
}

/// Of byte b bit `b / 16 % 8` of `halves[b / 128][b % 16]`.
#[derive(Debug, Default)]
struct ByteSet {
    halves: [[u8; 16]; 2],
}

/// Room for positions in a row at which something was met.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    positions: Vec<u32>,
}

impl RequestedItems {
    /// There are none yet.
    pub fn grow(&mut self, n_items: usize) {
        if self.places.len() < n_items {
            self.places.resize(n_items, 0);
            self.bits = Bits::zeros(n_items);
        }
    }

    /// `rank`: of an item that there is room for.
    pub fn insert(&mut self, rank: u32, place: u32) {
        self.bits.set(rank as usize, true);
        self.places[rank as usize] = place;
        self.sieve.insert(rank);
        self.ranks.push(rank);
    }

    pub fn clear(&mut self) {
        for rank in self.ranks.drain(..) {
            self.bits.set(rank as usize, false);
        }
        self.sieve = Sieve::default();
    }

    /// Of one of the items.
    pub fn place(&self, rank: u32) -> usize {
        self.places[rank as usize] as usize
    }

    /// Those of the items.
    pub fn ranks(&self) -> &[u32] {
        &self.ranks
    }

    /// Whether going through a row of `len` entries is quicker than looking for each of the items.
    pub fn is_short(&self, len: usize) -> bool {
        let max_scan = if self.sifts() { MAX_SIFT } else { MAX_SCAN };
        len <= max_scan * self.ranks.len()
    }

    /// Whether there are the instructions for the sieve, and so few items that it lets hardly anything else pass.
    fn sifts(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let has_instructions = is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        let has_instructions = false;
        has_instructions && self.ranks.len() <= MAX_SIFTED
    }

    /// Where in `row` the items stand.
    ///
    /// `row`: of items that there is room for.
    pub fn met_in<'a>(&self, row: RankSlice, met: &'a mut Hits) -> &'a [u32] {
        #[cfg(target_arch = "x86_64")]
        if self.sifts() {
            let is_met = |rank: u32| self.bits.get(rank as usize);
            met.positions.clear();
            // SAFETY: the processor has the instructions.
            unsafe {
                match row {
                    RankSlice::Narrow(row) => x86::sift(&self.sieve, row, is_met, &mut met.positions),
                    RankSlice::Wide(row) => x86::sift(&self.sieve, row, is_met, &mut met.positions),
                }
            }
            return &met.positions;
        }
        self.met_portably(row, met)
    }

    fn met_portably<'a>(&self, row: RankSlice, met: &'a mut Hits) -> &'a [u32] {
        let is_met = |rank: u32| self.bits.get(rank as usize);
        match row {
            RankSlice::Narrow(row) => met.among(row, is_met),
            RankSlice::Wide(row) => met.among(row, is_met),
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty() && self.bits.count_ones() == 0
    }
}

impl Sieve {
    fn insert(&mut self, rank: u32) {
        let [low, mixed] = bytes(rank);
        self.low.insert(low);
        self.mixed.insert(mixed);
    }
}

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.halves[usize::from(byte >> 7)][usize::from(byte & 15)] |= 1 << (byte >> 4 & 7);
    }
}

impl Hits {
    /// Positions of those of the `indices` that are `is_met`, noted without a branch: it would be one that cannot be
    /// foreseen.
    #[inline]
    pub fn among<I: Copy + Into<u32>>(&mut self, indices: &[I], is_met: impl Fn(u32) -> bool) -> &[u32] {
        if self.positions.len() < indices.len() {
            self.positions.resize(indices.len(), 0);
        }
        let positions = &mut self.positions[..];
        let mut n_met = 0;
        for (position, &index) in (0..).zip(indices) {
            positions[n_met] = position;
            n_met += usize::from(is_met(index.into()));
        }
        &positions[..n_met]
    }
}

/// The low byte, and the second one mixed with it: ranks of a row ascend, so that neighbors have the second in common.
fn bytes(rank: u32) -> [u8; 2] {
    let [low, second, ..] = rank.to_le_bytes();
    [low, second ^ low.rotate_left(4)]
}

/// Entries of a row for every item asked about, above which looking for the items is quicker than to go through them.
const MAX_SCAN: usize = if cfg!(test) { 1 } else { 40 };
/// The same with the sieve.
const MAX_SIFT: usize = if cfg!(test) { 2 } else { 200 };
/// Items asked about, with which one entry of six passes the sieve.
const MAX_SIFTED: usize = 128;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{ByteSet, Sieve};

    /// Entries that are looked at together.
    const AT_ONCE: usize = 32;

    /// A rank, as a row has it.
    pub trait Entry: Copy + Default + Into<u32> {
        /// The lower 16 bits of each, in order.
        ///
        /// # Safety
        /// The processor has AVX2.
        unsafe fn low_halves(entries: &[Self; AT_ONCE]) -> [__m256i; 2];
    }

    impl Entry for u16 {
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn low_halves(entries: &[Self; AT_ONCE]) -> [__m256i; 2] {
            let start: *const __m256i = entries.as_ptr().cast();
            // SAFETY: there are 64 bytes.
            unsafe { [_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))] }
        }
    }

    impl Entry for u32 {
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn low_halves(entries: &[Self; AT_ONCE]) -> [__m256i; 2] {
            let start: *const __m256i = entries.as_ptr().cast();
            // SAFETY: there are 128 bytes.
            let [a, b, c, d] = unsafe {
                [
                    _mm256_loadu_si256(start),
                    _mm256_loadu_si256(start.add(1)),
                    _mm256_loadu_si256(start.add(2)),
                    _mm256_loadu_si256(start.add(3)),
                ]
            };
            [halves(a, b), halves(c, d)]
        }
    }

    /// The lower 16 bits of each of 16 entries.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(first: __m256i, last: __m256i) -> __m256i {
        let lower = _mm256_set1_epi32(0xffff);
        in_order(_mm256_packus_epi32(
            _mm256_and_si256(first, lower),
            _mm256_and_si256(last, lower),
        ))
    }

    /// Packing leaves the quarters in the order 0, 2, 1, 3.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_order(packed: __m256i) -> __m256i {
        _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
    }

    /// Appends to `positions` those of the `entries` that pass the sieve and are `is_met`.
    #[target_feature(enable = "avx2")]
    pub fn sift<E: Entry>(sieve: &Sieve, entries: &[E], is_met: impl Fn(u32) -> bool, positions: &mut Vec<u32>) {
        let (low, mixed) = (Tables::new(&sieve.low), Tables::new(&sieve.mixed));
        let mut note = |first: usize, entries: &[E; AT_ONCE], mut passed: u32| {
            while passed != 0 {
                let at = passed.trailing_zeros() as usize;
                if is_met(entries[at].into()) {
                    positions.push((first + at) as u32);
                }
                passed &= passed - 1;
            }
        };
        let (chunks, rest) = entries.as_chunks::<AT_ONCE>();
        for (chunk, first) in chunks.iter().zip((0..).step_by(AT_ONCE)) {
            note(first, chunk, passed(low, mixed, chunk));
        }
        if rest.is_empty() {
            return;
        }
        if let Some(last) = entries.last_chunk::<AT_ONCE>() {
            let were_seen = (1 << (AT_ONCE - rest.len())) - 1;
            note(entries.len() - AT_ONCE, last, passed(low, mixed, last) & !were_seen);
        } else {
            let mut chunk = [E::default(); AT_ONCE];
            chunk[..rest.len()].copy_from_slice(rest);
            let are_there = (1 << rest.len()) - 1;
            note(0, &chunk, passed(low, mixed, &chunk) & are_there);
        }
    }

    /// A bit an entry, the lowest for the first.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn passed<E: Entry>(low: Tables, mixed: Tables, entries: &[E; AT_ONCE]) -> u32 {
        // SAFETY: the processor has the instructions.
        let [first, last] = unsafe { E::low_halves(entries) };
        let byte = _mm256_set1_epi16(0xff);
        let lows = _mm256_packus_epi16(_mm256_and_si256(first, byte), _mm256_and_si256(last, byte));
        let seconds = _mm256_packus_epi16(_mm256_srli_epi16::<8>(first), _mm256_srli_epi16::<8>(last));
        let nibble = _mm256_set1_epi8(15);
        let turned = _mm256_or_si256(
            _mm256_slli_epi16::<4>(_mm256_and_si256(lows, nibble)),
            _mm256_and_si256(_mm256_srli_epi16::<4>(lows), nibble),
        );
        let found = _mm256_and_si256(low.have(lows), mixed.have(_mm256_xor_si256(seconds, turned)));
        _mm256_movemask_epi8(in_order(found)) as u32
    }

    /// A [`ByteSet`], both of its halves in every 16 bytes.
    #[derive(Clone, Copy)]
    struct Tables {
        halves: [__m256i; 2],
    }

    impl Tables {
        #[inline]
        #[target_feature(enable = "avx2")]
        fn new(set: &ByteSet) -> Self {
            let table = |half: &[u8; 16]| {
                // SAFETY: 16 bytes are there.
                let half = unsafe { _mm_loadu_si128(half.as_ptr().cast()) };
                _mm256_broadcastsi128_si256(half)
            };
            let [lower, upper] = &set.halves;
            Self {
                halves: [table(lower), table(upper)],
            }
        }

        /// All bits of a byte that the set has, none of another.
        #[inline]
        #[target_feature(enable = "avx2")]
        fn have(self, bytes: __m256i) -> __m256i {
            let nibble = _mm256_set1_epi8(15);
            let (columns, rows) = (
                _mm256_and_si256(bytes, nibble),
                _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble),
            );
            let [lower, upper] = self.halves;
            // The highest bit of a byte says which half it is in.
            let cells = _mm256_blendv_epi8(
                _mm256_shuffle_epi8(lower, columns),
                _mm256_shuffle_epi8(upper, columns),
                bytes,
            );
            let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let bits = _mm256_shuffle_epi8(bits, rows);
            _mm256_cmpeq_epi8(_mm256_and_si256(cells, bits), bits)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_shares_the_low_bytes_is_not_met() {
        let (mut asked, mut met) = (RequestedItems::default(), Hits::default());
        asked.grow(200_000);
        asked.insert(7, 0);
        let row = [7, 7 + (1 << 16), 7 + (2 << 16)];
        assert_eq!(asked.met_in(RankSlice::Wide(&row), &mut met), [0]);
        assert!(asked.met_in(RankSlice::Wide(&row[1..]), &mut met).is_empty());
    }

    proptest! {
        /// Rows of any length, in catalogs of both kinds, with few and with many items asked about.
        #[test]
        fn all_that_is_asked_about_is_met_and_nothing_else(
            n_items in prop_oneof![Just(300_u32), Just(65_536), Just(200_000)],
            row in btree_set(0_u32..200_000, 0..300),
            of_the_row in vec(any::<prop::sample::Index>(), 0..40),
            others in btree_set(0_u32..200_000, 0..40),
        ) {
            let row: Vec<u32> = row.into_iter().map(|item| item % n_items).collect();
            let row: Vec<u32> = std::collections::BTreeSet::from_iter(row).into_iter().collect();
            let of_the_row = of_the_row.iter().filter(|_| !row.is_empty()).map(|at| row[at.index(row.len())]);
            let items: std::collections::BTreeSet<u32> =
                of_the_row.chain(others.iter().map(|item| item % n_items)).collect();
            let (mut asked, mut met) = (RequestedItems::default(), Hits::default());
            asked.grow(n_items as usize);
            // A second time, for what is left of the first.
            for n_asked in [items.len() / 2, items.len()] {
                for (place, &item) in (0..).zip(items.iter().take(n_asked)) {
                    asked.insert(item, place);
                }
                let is_asked = |item: &u32| items.iter().take(n_asked).any(|other| other == item);
                let expected: Vec<u32> =
                    (0..).zip(&row).filter(|(_, item)| is_asked(item)).map(|(at, _)| at).collect();
                let mut narrow = Vec::new();
                if n_items <= 65_536 {
                    narrow.extend(row.iter().map(|&item| item as u16));
                    prop_assert_eq!(asked.met_in(RankSlice::Narrow(&narrow), &mut met), &expected[..]);
                    prop_assert_eq!(asked.met_portably(RankSlice::Narrow(&narrow), &mut met), &expected[..]);
                }
                prop_assert_eq!(asked.met_in(RankSlice::Wide(&row), &mut met), &expected[..]);
                prop_assert_eq!(asked.met_portably(RankSlice::Wide(&row), &mut met), &expected[..]);
                for (place, &item) in items.iter().take(n_asked).enumerate() {
                    prop_assert_eq!(asked.place(item), place);
                }
                asked.clear();
                prop_assert!(asked.is_empty());
            }
        }
    }
}
