//! The contents of a file, as the summary of an import tells them.

use std::collections::{BTreeMap, HashSet};

use domain::money::{Currency, Money};
use domain::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::order_lines::AlreadyHashed;

/// The users, items, times, values and amounts in the accepted lines of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    pub users: Distinct,
    pub items: Distinct,
    times: Option<(Timestamp, Timestamp)>,
    values: Option<(f32, f32)>,
    amounts: BTreeMap<Currency, (i64, i64)>,
}

/// The findings in the form of the summary.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Contents {
    /// Absent where the kind of record has no users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Count>,
    /// The earliest and the latest time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<(Timestamp, Timestamp)>,
    /// The least and the greatest value, as text, for ratings or for each currency.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<(String, String)>,
}

/// A number of different ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    pub count: usize,
    /// Whether there may be more than `count`.
    pub is_at_least: bool,
}

impl Findings {
    pub fn time(&mut self, at: Timestamp) {
        self.times = Some(match self.times {
            Some((first, last)) => (first.min(at), last.max(at)),
            None => (at, at),
        });
    }

    pub fn value(&mut self, value: f32) {
        self.values = Some(match self.values {
            Some((least, most)) => (least.min(value), most.max(value)),
            None => (value, value),
        });
    }

    pub fn amount(&mut self, amount: Money) {
        let minor = amount.amount_minor;
        let (least, most) = self.amounts.entry(amount.currency).or_insert((minor, minor));
        (*least, *most) = ((*least).min(minor), (*most).max(minor));
    }

    pub fn contents(&self) -> Contents {
        let amounts = self.amounts.iter().map(|(&currency, &(least, most))| {
            let text = |amount_minor| Money { amount_minor, currency }.to_string();
            (text(least), text(most))
        });
        let values = self.values.map(|(least, most)| (least.to_string(), most.to_string()));
        Contents {
            users: self.users.count(),
            items: self.items.count(),
            times: self.times,
            values: values.into_iter().chain(amounts).collect(),
        }
    }
}

/// Counts different ids in bounded memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Distinct {
    hashes: HashSet<u64, AlreadyHashed>,
    /// The lines of a user often stand one after the other.
    last: u64,
    is_full: bool,
}

impl Distinct {
    const MAX: usize = 1 << 20;

    pub fn add(&mut self, id: &str) {
        let hash = xxh3_64(id.as_bytes());
        if hash == self.last {
            return;
        }
        self.last = hash;
        match self.hashes.len() < Self::MAX {
            true => _ = self.hashes.insert(hash),
            false => self.is_full |= !self.hashes.contains(&hash),
        }
    }

    fn count(&self) -> Option<Count> {
        (!self.hashes.is_empty()).then_some(Count {
            count: self.hashes.len(),
            is_at_least: self.is_full,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_different_ids_are_found() {
        let mut findings = Findings::default();
        assert_eq!(findings.contents(), Contents::default());
        for user in ["ann", "ann", "bob", "ann"] {
            findings.users.add(user);
        }
        let at = |seconds| Timestamp::from_timestamp_secs(seconds).unwrap();
        for seconds in [20, 10, 30] {
            findings.time(at(seconds));
        }
        let currency = Currency::new("GBP").unwrap();
        for amount_minor in [5, -150, 1999] {
            findings.amount(Money { amount_minor, currency });
        }
        let contents = findings.contents();
        let count = contents.users.unwrap();
        assert_eq!((count.count, count.is_at_least, contents.items), (2, false, None));
        assert_eq!(contents.times, Some((at(10), at(30))));
        assert_eq!(contents.values, [("-1.50 GBP".to_owned(), "19.99 GBP".to_owned())]);
    }
}
