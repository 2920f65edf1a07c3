//! Maps external ids to dense indices and back. Indices ascend in byte order of the ids.

use std::marker::PhantomData;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// Strings in one allocation: text `i` is `bytes[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    offsets: Vec<u64>,
    bytes: String,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            offsets: vec![0],
            bytes: String::new(),
        }
    }
}

impl Texts {
    /// `None` unless the offsets start at 0, never fall, end at the length of `bytes` and cut between characters.
    pub fn from_parts(offsets: Vec<u64>, bytes: String) -> Option<Self> {
        let starts_at_zero = offsets.first() == Some(&0);
        let ends_at_len = offsets.last() == Some(&(bytes.len() as u64));
        let cuts_well = offsets.windows(2).all(|pair| pair[0] <= pair[1])
            && offsets.iter().all(|&offset| bytes.is_char_boundary(offset as usize));
        (starts_at_zero && ends_at_len && cuts_well).then_some(Self { offsets, bytes })
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    pub fn bytes(&self) -> &str {
        &self.bytes
    }

    /// `index` < `len`.
    #[inline]
    pub fn get(&self, index: usize) -> &str {
        let Range { start, end } = self.offsets[index] as usize..self.offsets[index + 1] as usize;
        &self.bytes[start..end]
    }

    /// Returns the bytes of one text.
    #[inline]
    fn bytes_of(&self, index: usize) -> &[u8] {
        let Range { start, end } = self.offsets[index] as usize..self.offsets[index + 1] as usize;
        &self.bytes.as_bytes()[start..end]
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Searches `text` among texts that are strictly ascending byte by byte, and returns its position.
    pub fn find(&self, text: &str) -> Option<usize> {
        let mut range = 0..self.len();
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            match self.get(middle).cmp(text) {
                std::cmp::Ordering::Less => range.start = middle + 1,
                std::cmp::Ordering::Greater => range.end = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }
}

impl<S: AsRef<str>> FromIterator<S> for Texts {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            all.bytes.push_str(text.as_ref());
            all.offsets.push(all.bytes.len() as u64);
        }
        all
    }
}

/// A dense index: from 0 to the number of ids of its kind, less one.
pub trait DenseIndex: Copy {
    fn new(index: u32) -> Self;
    fn get(self) -> u32;
}

macro_rules! dense_index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            pub fn at(self) -> usize {
                self.0 as usize
            }
        }

        impl DenseIndex for $name {
            fn new(index: u32) -> Self {
                Self(index)
            }

            fn get(self) -> u32 {
                self.0
            }
        }
    };
}

dense_index!(
    /// The index of a user in one snapshot.
    UserIndex
);
dense_index!(
    /// The index of an item in one snapshot.
    ItemIndex
);

/// All ids of one kind, strictly ascending byte by byte; the position is the dense index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary<I> {
    ids: Texts,
    /// A hash table of positions plus 1: each stands in the first slot at or after the one its id's hash names that was
    /// free; 0 marks a free slot. The number of slots is a power of two and at most half are taken, so that an id is found
    /// in about one access, where a binary search takes seventeen among 100,000.
    slots: Vec<u32>,
    index: PhantomData<I>,
}

impl<I> Default for Dictionary<I> {
    /// Makes a dictionary without ids.
    fn default() -> Self {
        let ids = Texts::default();
        Self {
            slots: slots(&ids),
            ids,
            index: PhantomData,
        }
    }
}

impl<I: DenseIndex> Dictionary<I> {
    /// `None` unless the ids are strictly ascending and fewer than 2³².
    pub fn new(ids: Texts) -> Option<Self> {
        let ascending = (1..ids.len()).all(|i| ids.get(i - 1) < ids.get(i));
        (ascending && u32::try_from(ids.len()).is_ok()).then(|| Self {
            slots: slots(&ids),
            ids,
            index: PhantomData,
        })
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn texts(&self) -> &Texts {
        &self.ids
    }

    /// Returns the external id of `index`, which must belong to this dictionary.
    pub fn id(&self, index: I) -> &str {
        self.ids.get(index.get() as usize)
    }

    pub fn find(&self, id: &str) -> Option<I> {
        let mask = self.slots.len() - 1;
        let mut slot = xxh3_64(id.as_bytes()) as usize & mask;
        while let Some(position) = self.slots[slot].checked_sub(1) {
            if self.ids.bytes_of(position as usize) == id.as_bytes() {
                return Some(I::new(position));
            }
            slot = (slot + 1) & mask;
        }
        None
    }
}

/// Builds the hash table of a [`Dictionary`].
fn slots(ids: &Texts) -> Vec<u32> {
    let mut slots = vec![0; (2 * ids.len()).next_power_of_two()];
    let mask = slots.len() - 1;
    for (id, number) in ids.iter().zip(1..) {
        let mut slot = xxh3_64(id.as_bytes()) as usize & mask;
        while slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        slots[slot] = number;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ids_of_the_dictionary_are_found() {
        let ids = ["", "A", "B", "a", "aa", "ä", "日本"];
        let dictionary = Dictionary::<ItemIndex>::new(ids.iter().collect()).unwrap();
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(dictionary.find(id), Some(ItemIndex(index as u32)));
            assert_eq!(dictionary.id(ItemIndex(index as u32)), *id);
        }
        for other in ["0", "AA", "b", "aaa", "zz", "日"] {
            assert_eq!(dictionary.find(other), None);
        }
    }

    #[test]
    fn many_ids_are_found_and_others_are_not() {
        let id = |n: u32| format!("{n:05}");
        for len in [0, 1, 2, 1_000, 5_000] {
            let dictionary = Dictionary::<UserIndex>::new((0..len).map(id).collect()).unwrap();
            for n in 0..len {
                assert_eq!(dictionary.find(&id(n)), Some(UserIndex(n)));
            }
            for n in len..len + 1_000 {
                assert_eq!(dictionary.find(&id(n)), None);
            }
        }
    }

    #[test]
    fn ids_must_be_strictly_ascending() {
        assert!(Dictionary::<UserIndex>::new(["b", "a"].iter().collect()).is_none());
        assert!(Dictionary::<UserIndex>::new(["a", "a"].iter().collect()).is_none());
        assert!(Dictionary::<UserIndex>::new(Texts::default()).is_some());
    }

    #[test]
    fn texts_cut_between_characters_only() {
        assert!(Texts::from_parts(vec![0, 2, 3], "é!".into()).is_some());
        assert!(Texts::from_parts(vec![0, 1, 3], "é!".into()).is_none());
        assert!(Texts::from_parts(vec![0, 9, 3], "é!".into()).is_none());
        assert!(Texts::from_parts(vec![], String::new()).is_none());
    }
}
