//! Columns of floats that take a byte each where few distinct values occur, as in ratings on a scale of few steps.

/// The number of values that a position of one byte can name.
pub const MAX_DISTINCT: usize = 256;

/// A column of fixed length. Equal columns hold equal bits at equal positions.
#[derive(Debug, Clone, PartialEq)]
pub enum Floats {
    /// The value of entry i is `distinct[positions[i]]`.
    Coded {
        distinct: Distinct,
        positions: Vec<u8>,
    },
    Plain(Vec<f32>),
}

/// Up to 256 different values, ascending by their bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Distinct {
    len: usize,
    /// Padded with 0 to as many as a byte can name, so that a lookup needs no bounds check.
    values: Box<[f32; MAX_DISTINCT]>,
}

/// Some entries of [`Floats`], one after the other.
#[derive(Debug, Clone, Copy)]
pub enum FloatSlice<'a> {
    Coded(&'a Distinct, &'a [u8]),
    Plain(&'a [f32]),
}

impl Distinct {
    /// `None` unless there are 1 to 256, strictly ascending by their bits read as an unsigned integer.
    pub fn new(ascending: &[f32]) -> Option<Self> {
        let mut values = Box::new([0.0; MAX_DISTINCT]);
        values.get_mut(..ascending.len())?.copy_from_slice(ascending);
        let is_valid = !ascending.is_empty() && ascending.is_sorted_by(|a, b| a.to_bits() < b.to_bits());
        let len = ascending.len();
        is_valid.then_some(Self { len, values })
    }

    /// Collects the distinct ones of `values`; `None` where coding would take more bytes than the values themselves.
    fn of(values: &[f32]) -> Option<Self> {
        let mut distinct = Vec::new();
        for value in values {
            if let Err(position) = distinct.binary_search(&value.to_bits()) {
                if distinct.len() == MAX_DISTINCT {
                    return None;
                }
                distinct.insert(position, value.to_bits());
            }
        }
        let is_shorter = 4 * distinct.len() + values.len() < 4 * values.len();
        let distinct: Vec<f32> = distinct.into_iter().map(f32::from_bits).collect();
        Self::new(&distinct).filter(|_| is_shorter)
    }

    pub fn values(&self) -> &[f32] {
        &self.values[..self.len]
    }

    /// Returns the value at `position`, and 0 past the last.
    #[inline]
    pub fn value(&self, position: u8) -> f32 {
        self.values[usize::from(position)]
    }

    fn position(&self, value: f32) -> u8 {
        match self
            .values()
            .binary_search_by_key(&value.to_bits(), |value| value.to_bits())
        {
            Ok(position) => position as u8,
            Err(_) => unreachable!("every value is among the distinct ones"),
        }
    }
}

impl Floats {
    /// Makes a column of `values`, coded where that is shorter.
    pub fn new(values: Vec<f32>) -> Self {
        match Distinct::of(&values) {
            Some(distinct) => Self::Coded {
                positions: values.iter().map(|&value| distinct.position(value)).collect(),
                distinct,
            },
            None => Self::Plain(values),
        }
    }

    pub fn into_vec(self) -> Vec<f32> {
        match self {
            Self::Coded { distinct, positions } => {
                positions.into_iter().map(|position| distinct.value(position)).collect()
            }
            Self::Plain(values) => values,
        }
    }

    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn as_slice(&self) -> FloatSlice<'_> {
        match self {
            Self::Coded { distinct, positions } => FloatSlice::Coded(distinct, positions),
            Self::Plain(values) => FloatSlice::Plain(values),
        }
    }
}

impl<'a> FloatSlice<'a> {
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Coded(_, positions) => positions.len(),
            Self::Plain(values) => values.len(),
        }
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Entry `at` < `len`.
    #[inline]
    pub fn get(self, at: usize) -> f32 {
        match self {
            Self::Coded(distinct, positions) => distinct.value(positions[at]),
            Self::Plain(values) => values[at],
        }
    }

    /// Returns the entries at `range`.
    #[inline]
    pub fn slice(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::Coded(distinct, positions) => Self::Coded(distinct, &positions[range]),
            Self::Plain(values) => Self::Plain(&values[range]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_values_take_a_byte_each() {
        let check = |values: Vec<f32>, is_coded| {
            let floats = Floats::new(values.clone());
            assert_eq!(
                matches!(floats, Floats::Coded { .. }),
                is_coded,
                "{} values",
                values.len()
            );
            assert_eq!(floats.into_vec(), values);
        };
        let distinct = |n: u16| (0..n).map(f32::from).collect::<Vec<_>>();
        check(vec![], false);
        check(vec![1.5], false);
        check(vec![1.5; 2], true);
        check(distinct(256), false);
        check(distinct(256).repeat(2), true);
        check(distinct(257).repeat(2), false);
    }

    #[test]
    fn distinct_values_are_few_and_ascend() {
        assert!(Distinct::new(&[]).is_none());
        assert!(Distinct::new(&[1.0, 1.0]).is_none());
        assert!(Distinct::new(&[2.0, 1.0]).is_none());
        assert!(Distinct::new(&[1.0; 257]).is_none());
        assert!(Distinct::new(&[0.0, 1.0, -1.0]).is_some(), "by their bits");
    }

    proptest! {
        #[test]
        fn entries_come_back(values in vec(prop_oneof![-2.0_f32..2.0, Just(0.5), Just(-0.0)], 0..80)) {
            let floats = Floats::new(values.clone());
            prop_assert_eq!(floats.len(), values.len());
            for (at, value) in values.iter().enumerate() {
                prop_assert_eq!(floats.as_slice().get(at).to_bits(), value.to_bits());
                prop_assert_eq!(floats.as_slice().slice(at..values.len()).get(0).to_bits(), value.to_bits());
            }
        }
    }
}
