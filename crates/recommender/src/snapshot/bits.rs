//! A fixed-length row of bits.

/// `len` bits, all 0 at first; one bit an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bits {
    len: usize,
    words: Vec<u64>,
}

impl Bits {
    pub fn zeros(len: usize) -> Self {
        Self {
            len,
            words: vec![0; len.div_ceil(64)],
        }
    }

    /// Takes over the bits of `words`, lowest first; `None` unless there are exactly as many words as `len` needs and the
    /// bits past `len` are 0.
    pub fn from_words(len: usize, words: Vec<u64>) -> Option<Self> {
        let tail = len % 64;
        let tail_is_clear = tail == 0 || words.last().is_some_and(|word| word >> tail == 0);
        (words.len() == len.div_ceil(64) && tail_is_clear).then_some(Self { len, words })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// `position` < `len`.
    #[inline]
    pub fn get(&self, position: usize) -> bool {
        debug_assert!(position < self.len);
        self.words[position / 64] >> (position % 64) & 1 == 1
    }

    /// `position` < `len`.
    pub fn set(&mut self, position: usize, value: bool) {
        debug_assert!(position < self.len);
        let mask = 1 << (position % 64);
        if value {
            self.words[position / 64] |= mask;
        } else {
            self.words[position / 64] &= !mask;
        }
    }

    pub fn count_ones(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl FromIterator<bool> for Bits {
    fn from_iter<I: IntoIterator<Item = bool>>(values: I) -> Self {
        let mut bits = Self::default();
        for value in values {
            if bits.len.is_multiple_of(64) {
                bits.words.push(0);
            }
            bits.len += 1;
            bits.set(bits.len - 1, value);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_as_they_were_set() {
        for len in [0, 1, 63, 64, 65, 200] {
            let bits: Bits = (0..len).map(|i| i % 3 == 0).collect();
            assert_eq!(bits.len(), len);
            assert!((0..len).all(|i| bits.get(i) == (i % 3 == 0)));
            assert_eq!(bits.count_ones(), len.div_ceil(3));
            assert_eq!(Bits::from_words(len, bits.words().to_vec()), Some(bits));
        }
        assert_eq!(Bits::from_words(3, vec![0b1000]), None);
        assert_eq!(Bits::from_words(65, vec![0]), None);
    }
}
