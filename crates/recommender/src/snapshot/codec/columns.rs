//! Writes and reads the columns that parts are made of, each as a whole.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

use similarity::lists::{NeighborLists, WeightLists};
use similarity::sparse::SparseError;

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::{DenseIndex, Dictionary, Texts};
use crate::snapshot::floats::{Distinct, FloatSlice, Floats, MAX_DISTINCT};

use super::CodecError;
use super::huge_pages;

/// Appends columns to the bytes of a part.
pub(in crate::snapshot) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// `value`: numbers and names in plain structs, which are all JSON can hold.
    pub fn json(&mut self, value: &impl Serialize) {
        let json = serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("numbers and names in plain structs"));
        self.raw(&json);
    }

    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub fn integers(&mut self, values: impl ExactSizeIterator<Item = u64> + Clone) {
        let all_bits = values.clone().fold(0, |bits, value| bits | value);
        let n_bytes = (u64::BITS - all_bits.leading_zeros()).div_ceil(u8::BITS);
        let low_bytes = u64::to_le_bytes;
        self.u64(values.len() as u64);
        match n_bytes {
            0 | 1 => self.narrowed::<1>(values.map(low_bytes)),
            2 => self.narrowed::<2>(values.map(low_bytes)),
            3 => self.narrowed::<3>(values.map(low_bytes)),
            4 => self.narrowed::<4>(values.map(low_bytes)),
            _ => self.narrowed::<8>(values.map(low_bytes)),
        }
    }

    fn narrowed<const W: usize>(&mut self, values: impl ExactSizeIterator<Item = [u8; 8]>) {
        self.raw(&[W as u8]);
        self.chunks(values.map(|bytes| {
            *bytes
                .first_chunk::<W>()
                .unwrap_or_else(|| unreachable!("W is at most 8"))
        }));
    }

    /// `offsets`: those of a valid matrix, list or text column, so one at least and never falling.
    pub fn lengths(&mut self, offsets: &[u64]) {
        self.integers(offsets.windows(2).map(|pair| pair[1] - pair[0]));
    }

    pub fn packed_floats(&mut self, floats: &Floats) {
        self.u64(floats.len() as u64);
        match floats.as_slice() {
            FloatSlice::Plain(values) => {
                self.raw(&0_u16.to_le_bytes());
                self.chunks(values.iter().map(|value| value.to_le_bytes()));
            }
            FloatSlice::Coded(distinct, positions) => {
                self.raw(&(distinct.values().len() as u16).to_le_bytes());
                self.chunks(distinct.values().iter().map(|value| value.to_le_bytes()));
                self.raw(positions);
            }
        }
    }

    /// Writes the same column as [`packed_floats`](Self::packed_floats), of values that are not kept as [`Floats`].
    pub fn floats(&mut self, values: &[f32]) {
        self.packed_floats(&Floats::new(values.to_vec()));
    }

    pub fn doubles(&mut self, values: &[f64]) {
        self.u64(values.len() as u64);
        self.chunks(values.iter().map(|value| value.to_le_bytes()));
    }

    pub fn bits(&mut self, bits: &Bits) {
        self.u64(bits.len() as u64);
        self.chunks(bits.words().iter().map(|word| word.to_le_bytes()));
    }

    pub fn texts(&mut self, texts: &Texts) {
        self.lengths(texts.offsets());
        self.raw(texts.bytes().as_bytes());
    }

    pub fn neighbor_lists(&mut self, lists: &NeighborLists) {
        self.lists(lists.offsets(), lists.neighbors(), lists.similarities());
    }

    pub fn weight_lists(&mut self, lists: &WeightLists) {
        self.lists(lists.offsets(), lists.targets(), lists.weights());
    }

    /// `offsets`: one more than rows, and as many rows as targets.
    fn lists(&mut self, offsets: &[u64], targets: &[u32], values: &[f32]) {
        self.u64(offsets.len() as u64 - 1);
        self.lengths(offsets);
        self.integers(targets.iter().map(|&target| u64::from(target)));
        self.floats(values);
    }

    /// Makes the place first and then stores into it: the compiler turns that into a copy, which it does not do with
    /// appending.
    fn chunks<const W: usize>(&mut self, chunks: impl ExactSizeIterator<Item = [u8; W]>) {
        let start = self.bytes.len();
        self.bytes.resize(start + chunks.len() * W, 0);
        let (places, _) = self.bytes[start..].as_chunks_mut();
        for (place, chunk) in places.iter_mut().zip(chunks) {
            *place = chunk;
        }
    }
}

/// Takes the fields of a part from the front of its bytes, which come chunk by chunk: only one chunk is in memory beside
/// the values that are decoded from it.
pub(in crate::snapshot) struct Reader<'a> {
    part: &'a str,
    chunks: &'a mut dyn Iterator<Item = Vec<u8>>,
    /// The chunk that came last; its bytes before `at` are taken.
    chunk: Vec<u8>,
    at: usize,
    /// Bytes that may still be taken.
    left: u64,
    /// Bytes still to come that the checksum covers.
    unhashed: u64,
    hasher: Xxh3,
}

impl<'a> Reader<'a> {
    /// `n_bytes`: the length of all `chunks` together; the checksum covers all but the last `n_unhashed`.
    pub fn new(part: &'a str, n_bytes: u64, n_unhashed: usize, chunks: &'a mut dyn Iterator<Item = Vec<u8>>) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
        Self {
            part,
            chunks,
            chunk: Vec::new(),
            at: 0,
            left: n_bytes,
            unhashed: n_bytes.saturating_sub(n_unhashed as u64),
            hasher,
        }
    }

    fn part(&self) -> String {
        self.part.to_owned()
    }

    /// The error about a field of the part; `problem` continues the sentence that begins with the field.
    pub fn invalid(&self, field: &'static str, problem: &'static str) -> CodecError {
        let part = self.part();
        CodecError::Field { part, field, problem }
    }

    /// The error about rows that do not form a matrix or lists.
    pub fn inconsistent(&self, source: SparseError) -> CodecError {
        let part = self.part();
        CodecError::Sparse { part, source }
    }

    fn ended(&self, field: &'static str) -> CodecError {
        let part = self.part();
        CodecError::Ended { part, field }
    }

    /// Goes on to the next chunk; false where there is none.
    fn advance(&mut self) -> bool {
        let Some(chunk) = self.chunks.next() else { return false };
        let n_hashed = self.unhashed.min(chunk.len() as u64);
        self.hasher.update(&chunk[..n_hashed as usize]);
        self.unhashed -= n_hashed;
        (self.chunk, self.at) = (chunk, 0);
        true
    }

    /// Reserves the last `n_bytes`, which may not be taken as contents.
    pub fn keep_back(&mut self, field: &'static str, n_bytes: usize) -> Result<(), CodecError> {
        self.left = self.left.checked_sub(n_bytes as u64).ok_or_else(|| self.ended(field))?;
        Ok(())
    }

    /// Takes all that is left.
    fn rest(&mut self, field: &'static str) -> Result<Vec<u8>, CodecError> {
        self.bytes(field, self.left)
    }

    /// # Errors
    /// Bytes are left.
    pub fn finish(&self) -> Result<(), CodecError> {
        match usize::try_from(self.left).unwrap_or(usize::MAX) {
            0 => Ok(()),
            n_bytes => Err(CodecError::Surplus {
                part: self.part(),
                n_bytes,
            }),
        }
    }

    /// Returns the reserved bytes and the checksum of all bytes before them, taken or not; `None` where fewer or more bytes
    /// have come than [`new`](Self::new) was told.
    pub fn close<const W: usize>(mut self) -> Option<([u8; W], [u8; 16])> {
        let mut skipped = self.left;
        while skipped > 0 {
            let here = skipped.min((self.chunk.len() - self.at) as u64);
            self.at += here as usize;
            skipped -= here;
            if skipped > 0 && !self.advance() {
                return None;
            }
        }
        self.left = W as u64;
        let kept = self.array("").ok()?;
        let is_all = self.at == self.chunk.len() && !self.advance();
        is_all.then(|| (kept, self.hasher.digest128().to_le_bytes()))
    }

    pub fn array<const W: usize>(&mut self, field: &'static str) -> Result<[u8; W], CodecError> {
        let mut taken = [0; W];
        self.runs(field, 1, |run| taken = run[0])?;
        Ok(taken)
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Takes a count of something that is not itself in the bytes: memory must not be allocated by it.
    pub fn size(&mut self, field: &'static str) -> Result<usize, CodecError> {
        usize::try_from(self.u64(field)?).map_err(|_| self.invalid(field, "is more than memory can hold"))
    }

    /// Returns `count` if the bytes that are left hold so many entries of `width`: then memory may be allocated for them.
    fn counted(&self, field: &'static str, count: u64, width: usize) -> Result<usize, CodecError> {
        match usize::try_from(count) {
            Ok(entries) if count <= self.left / width as u64 => Ok(entries),
            _ => Err(self.ended(field)),
        }
    }

    /// Hands the next `count` times W bytes to `take`, as many at a time as stand together.
    fn runs<const W: usize>(
        &mut self,
        field: &'static str,
        count: u64,
        mut take: impl FnMut(&[[u8; W]]),
    ) -> Result<(), CodecError> {
        let mut count = self.counted(field, count, W)?;
        self.left -= (count * W) as u64;
        while count > 0 {
            let (whole, _) = self.chunk[self.at..].as_chunks();
            let run = &whole[..whole.len().min(count)];
            if !run.is_empty() {
                take(run);
                self.at += run.len() * W;
                count -= run.len();
                continue;
            }
            // An entry that begins in this chunk and ends in another.
            let mut entry = [0; W];
            let mut filled = 0;
            while filled < W {
                let here = &self.chunk[self.at..];
                let n_bytes = here.len().min(W - filled);
                entry[filled..][..n_bytes].copy_from_slice(&here[..n_bytes]);
                self.at += n_bytes;
                filled += n_bytes;
                if filled < W && !self.advance() {
                    return Err(self.ended(field));
                }
            }
            take(&[entry]);
            count -= 1;
        }
        Ok(())
    }

    /// Takes the next `count` times W bytes and makes each a `T`.
    pub fn entries<const W: usize, T>(
        &mut self,
        field: &'static str,
        count: u64,
        entry: impl Fn([u8; W]) -> T,
    ) -> Result<Vec<T>, CodecError> {
        huge_pages::allocate_with_huge_pages(self.counted(field, count, W)?, |entries| {
            self.runs(field, count, |run| {
                entries.extend(run.iter().map(|&bytes| entry(bytes)))
            })
        })
    }

    fn bytes(&mut self, field: &'static str, count: u64) -> Result<Vec<u8>, CodecError> {
        huge_pages::allocate_with_huge_pages(self.counted(field, count, 1)?, |bytes| {
            self.runs::<1>(field, count, |run| bytes.extend_from_slice(run.as_flattened()))
        })
    }

    pub fn u16s(&mut self, field: &'static str) -> Result<Vec<u16>, CodecError> {
        let (count, width) = (self.u64(field)?, self.array(field)?);
        match width {
            [1] => self.widened::<1, 2, _>(field, count, u16::from_le_bytes),
            [2] => self.widened::<2, 2, _>(field, count, u16::from_le_bytes),
            _ => Err(self.invalid(field, "are not 1 or 2 bytes wide")),
        }
    }

    pub fn u32s(&mut self, field: &'static str) -> Result<Vec<u32>, CodecError> {
        let (count, width) = (self.u64(field)?, self.array(field)?);
        match width {
            [1] => self.widened::<1, 4, _>(field, count, u32::from_le_bytes),
            [2] => self.widened::<2, 4, _>(field, count, u32::from_le_bytes),
            [3] => self.widened::<3, 4, _>(field, count, u32::from_le_bytes),
            [4] => self.widened::<4, 4, _>(field, count, u32::from_le_bytes),
            _ => Err(self.invalid(field, "are not 1 to 4 bytes wide")),
        }
    }

    pub fn u64s(&mut self, field: &'static str) -> Result<Vec<u64>, CodecError> {
        let (count, width) = (self.u64(field)?, self.array(field)?);
        match width {
            [1] => self.widened::<1, 8, _>(field, count, u64::from_le_bytes),
            [2] => self.widened::<2, 8, _>(field, count, u64::from_le_bytes),
            [3] => self.widened::<3, 8, _>(field, count, u64::from_le_bytes),
            [4] => self.widened::<4, 8, _>(field, count, u64::from_le_bytes),
            [8] => self.widened::<8, 8, _>(field, count, u64::from_le_bytes),
            _ => Err(self.invalid(field, "are not 1 to 4 or 8 bytes wide")),
        }
    }

    /// Takes numbers of W bytes and widens them to N.
    fn widened<const W: usize, const N: usize, T>(
        &mut self,
        field: &'static str,
        count: u64,
        number: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, CodecError> {
        self.entries(field, count, |low: [u8; W]| {
            let mut bytes = [0; N];
            bytes[..W].copy_from_slice(&low);
            number(bytes)
        })
    }

    /// Takes lengths and returns where their entries begin, and the last of them ends: one more than lengths.
    pub fn offsets(&mut self, field: &'static str) -> Result<Vec<u64>, CodecError> {
        let lengths = self.u64s(field)?;
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0_u64;
        offsets.push(end);
        for length in lengths {
            end = end
                .checked_add(length)
                .ok_or_else(|| self.invalid(field, "add up to more than 64 bits"))?;
            offsets.push(end);
        }
        Ok(offsets)
    }

    pub fn floats(&mut self, field: &'static str) -> Result<Floats, CodecError> {
        let count = self.u64(field)?;
        let n_distinct = u16::from_le_bytes(self.array(field)?);
        if n_distinct == 0 {
            return self.entries(field, count, f32::from_le_bytes).map(Floats::Plain);
        }
        if usize::from(n_distinct) > MAX_DISTINCT {
            return Err(self.invalid(field, "have more distinct values than a byte can name"));
        }
        let distinct = self.entries(field, u64::from(n_distinct), f32::from_le_bytes)?;
        let Some(distinct) = Distinct::new(&distinct) else {
            return Err(self.invalid(field, "have distinct values that do not ascend"));
        };
        let positions = self.bytes(field, count)?;
        if u16::from(positions.iter().copied().fold(0, u8::max)) >= n_distinct {
            return Err(self.invalid(field, "refer to a distinct value that does not exist"));
        }
        Ok(Floats::Coded { distinct, positions })
    }

    /// Takes exactly `N` doubles.
    pub fn doubles<const N: usize>(&mut self, field: &'static str) -> Result<[f64; N], CodecError> {
        let count = self.u64(field)?;
        if count != N as u64 {
            return Err(self.invalid(field, "are not as many as this program knows"));
        }
        let mut values = [0.0; N];
        for value in &mut values {
            *value = f64::from_le_bytes(self.array(field)?);
        }
        Ok(values)
    }

    pub fn bits(&mut self, field: &'static str) -> Result<Bits, CodecError> {
        let len = self.size(field)?;
        let words = self.entries(field, len.div_ceil(64) as u64, u64::from_le_bytes)?;
        Bits::from_words(len, words).ok_or_else(|| self.invalid(field, "have bits past their end"))
    }

    pub fn texts(&mut self, field: &'static str) -> Result<Texts, CodecError> {
        let offsets = self.offsets(field)?;
        let n_bytes = offsets.last().copied().unwrap_or(0);
        let bytes = String::from_utf8(self.bytes(field, n_bytes)?).map_err(|_| self.invalid(field, "are not UTF-8"))?;
        Texts::from_parts(offsets, bytes).ok_or_else(|| self.invalid(field, "are cut inside of a character"))
    }

    /// Takes texts that are strictly ascending ids.
    pub fn dictionary<I: DenseIndex>(&mut self, field: &'static str) -> Result<Dictionary<I>, CodecError> {
        let ids = self.texts(field)?;
        Dictionary::new(ids).ok_or_else(|| self.invalid(field, "are not strictly ascending, or too many"))
    }

    pub fn neighbor_lists(&mut self) -> Result<NeighborLists, CodecError> {
        let offsets = self.square_offsets()?;
        let (neighbors, similarities) = (self.u32s("neighbors")?, self.floats("similarities")?.into_vec());
        NeighborLists::new(offsets.len() - 1, offsets, neighbors, similarities)
            .map_err(|source| self.inconsistent(source))
    }

    pub fn weight_lists(&mut self) -> Result<WeightLists, CodecError> {
        let offsets = self.square_offsets()?;
        let (targets, weights) = (self.u32s("targets")?, self.floats("weights")?.into_vec());
        WeightLists::new(offsets.len() - 1, offsets, targets, weights).map_err(|source| self.inconsistent(source))
    }

    /// Takes the number of targets and the lengths of as many lists, and returns where the lists begin.
    fn square_offsets(&mut self) -> Result<Vec<u64>, CodecError> {
        let n_targets = self.size("number of targets")?;
        let offsets = self.offsets("lengths")?;
        // Nothing else bounds the number of targets by the number of bytes, and checking the lists allocates by it.
        match n_targets == offsets.len() - 1 {
            true => Ok(offsets),
            false => Err(self.invalid("number of targets", "is not the number of lists")),
        }
    }

    /// Takes all that is left as JSON.
    pub fn json<T: DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        let json = self.rest("contents")?;
        serde_json::from_slice(&json).map_err(|source| {
            let part = self.part();
            CodecError::Json { part, source }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        write(&mut writer);
        writer.into_bytes()
    }

    fn read<T>(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>) -> T {
        let mut chunks = bytes.chunks(7).map(<[u8]>::to_vec);
        let mut reader = Reader::new("part", bytes.len() as u64, 0, &mut chunks);
        let value = read(&mut reader).unwrap();
        reader.finish().unwrap();
        value
    }

    #[test]
    fn integers_are_as_wide_as_the_greatest() {
        let check = |greatest: u64, width: usize| {
            let integers = [0, greatest, 1];
            let bytes = written(|to| to.integers(integers.into_iter()));
            assert_eq!(
                (bytes.len(), usize::from(bytes[8])),
                (9 + 3 * width, width),
                "{greatest}"
            );
            assert_eq!(read(&bytes, |from| from.u64s("field")), integers);
            if let Ok(greatest) = u32::try_from(greatest) {
                assert_eq!(read(&bytes, |from| from.u32s("field")), [0, greatest, 1]);
            }
        };
        check(0, 1);
        check(0xff, 1);
        check(0x100, 2);
        check(0xffff, 2);
        check(0x1_0000, 3);
        check(0xff_ffff, 3);
        check(0x100_0000, 4);
        check(u64::from(u32::MAX), 4);
        check(1 << 32, 8);
        check(u64::MAX, 8);
    }

    #[test]
    fn floats_take_a_byte_where_few_differ() {
        let check = |values: Vec<f32>, n_bytes: usize| {
            let bytes = written(|to| to.floats(&values));
            assert_eq!(
                (bytes.len(), read(&bytes, |from| from.floats("field")).into_vec()),
                (10 + n_bytes, values)
            );
        };
        let distinct = |n: u16| (0..n).map(f32::from).collect::<Vec<_>>();
        check(vec![], 0);
        check(vec![1.5], 4);
        check(vec![1.5; 3], 4 + 3);
        check(distinct(256), 4 * 256);
        check(distinct(256).repeat(2), 4 * 256 + 512);
        check(distinct(257).repeat(2), 4 * 514);
    }

    proptest! {
        #[test]
        fn columns_come_back(
            integers in vec(any::<u64>(), 0..40),
            small in vec(any::<u32>(), 0..40),
            floats in vec(prop_oneof![-2.0_f32..2.0, Just(0.5), Just(-0.0)], 0..80),
            bits in vec(any::<bool>(), 0..200),
            texts in vec("\\PC{0,9}", 0..20),
        ) {
            let (bits, texts): (Bits, Texts) = (bits.into_iter().collect(), texts.iter().collect());
            let bytes = written(|to| {
                to.integers(integers.iter().copied());
                to.integers(small.iter().map(|&integer| u64::from(integer)));
                to.floats(&floats);
                to.bits(&bits);
                to.texts(&texts);
            });
            let columns = read(&bytes, |from| {
                Ok((from.u64s("a")?, from.u32s("b")?, from.floats("c")?.into_vec(), from.bits("d")?, from.texts("e")?))
            });
            prop_assert_eq!(columns, (integers, small, floats, bits, texts));
        }
    }
}
