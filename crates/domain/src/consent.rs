//! Consent: the purposes for which a user's data may be used.

use std::fmt;
use std::str::FromStr;

use super::error::InvalidField;
use super::id::UserId;
use super::time::{EventTime, Timestamp};

/// A purpose for which a user's data may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// The user is offered coupons.
    Marketing,
    /// The user's history ranks items for them, and they are shown as similar to other users.
    Profiling,
    /// The user's data is part of the next snapshot.
    Training,
}

impl Purpose {
    pub const ALL: [Self; 3] = [Self::Marketing, Self::Profiling, Self::Training];

    /// Returns the name in storage and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Marketing => "marketing",
            Self::Profiling => "profiling",
            Self::Training => "training",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
            .ok_or_else(|| {
                let purposes = Self::ALL.map(Self::as_str).join(", ");
                let message = format!("must be one of {purposes}, is {text}");
                InvalidField::new("purpose", "UNKNOWN_PURPOSE", message)
            })
    }
}

/// A decision of a user about one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentDecision {
    pub user: UserId,
    pub purpose: Purpose,
    pub is_granted: bool,
    /// The latest decision is in force; of two at the same instant, the refusal. A decision without a given time counts as
    /// made after all that were received before it.
    pub decided_at: EventTime,
    /// Where the user made the decision, for the record.
    pub source: String,
}

/// The decision that is in force for a purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentInForce {
    pub purpose: Purpose,
    pub is_granted: bool,
    pub decided_at: Timestamp,
    pub source: String,
}

/// The consent record of a user: granted, refused or nothing for every purpose, and whether the user is suppressed.
///
/// It takes one byte: two bits per purpose, in the order of [`Purpose::ALL`] from the least significant (0 nothing,
/// 1 granted, 2 refused), then one bit for suppressed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Consents(u8);

const GRANTED: u8 = 1;
const REFUSED: u8 = 2;
const SUPPRESSED: u8 = 1 << 6;

impl Consents {
    /// Returns the record with these bits; `None` for bits without a meaning.
    pub fn from_bits(bits: u8) -> Option<Self> {
        let is_known = Purpose::ALL.iter().all(|&purpose| bits >> shift(purpose) & 3 != 3);
        (bits & 1 << 7 == 0 && is_known).then_some(Self(bits))
    }

    /// Returns the bits, for [`from_bits`](Self::from_bits).
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether the user has granted `purpose`; `None` if nothing is on record.
    pub fn record(self, purpose: Purpose) -> Option<bool> {
        match self.0 >> shift(purpose) & 3 {
            GRANTED => Some(true),
            REFUSED => Some(false),
            _ => None,
        }
    }

    /// Returns the same record with `record` for `purpose`.
    pub fn with(self, purpose: Purpose, record: Option<bool>) -> Self {
        let bits = match record {
            Some(true) => GRANTED,
            Some(false) => REFUSED,
            None => 0,
        };
        Self(self.0 & !(3 << shift(purpose)) | bits << shift(purpose))
    }

    /// Returns whether the user is never offered anything, whatever they have granted.
    pub fn is_suppressed(self) -> bool {
        self.0 & SUPPRESSED != 0
    }

    /// Returns the same record, suppressed or not.
    pub fn suppressed(self, is_suppressed: bool) -> Self {
        Self(if is_suppressed {
            self.0 | SUPPRESSED
        } else {
            self.0 & !SUPPRESSED
        })
    }
}

impl fmt::Debug for Consents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = formatter.debug_map();
        for purpose in Purpose::ALL {
            map.entry(&purpose.as_str(), &self.record(purpose));
        }
        map.entry(&"suppressed", &self.is_suppressed()).finish()
    }
}

fn shift(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Marketing => 0,
        Purpose::Profiling => 2,
        Purpose::Training => 4,
    }
}

/// Section `privacy` of the configuration: whether data may be used for a purpose without a record of consent.
///
/// A refusal on record always holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacyOptions {
    pub marketing_without_record: bool,
    pub profiling_without_record: bool,
    pub training_without_record: bool,
}

impl Default for PrivacyOptions {
    fn default() -> Self {
        Self {
            marketing_without_record: true,
            profiling_without_record: true,
            training_without_record: true,
        }
    }
}

impl PrivacyOptions {
    /// Returns whether the data of a user with these `consents` may be used for `purpose`.
    pub fn allows(&self, consents: Consents, purpose: Purpose) -> bool {
        consents.record(purpose).unwrap_or(self.without_record(purpose))
    }

    /// Returns whether `purpose` is allowed for a user without a record.
    pub fn without_record(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Marketing => self.marketing_without_record,
            Purpose::Profiling => self.profiling_without_record,
            Purpose::Training => self.training_without_record,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_one_purpose_leaves_the_others() {
        let mut consents = Consents::default();
        for purpose in Purpose::ALL {
            for record in [Some(true), Some(false), None, Some(false)] {
                let others: Vec<_> = Purpose::ALL.into_iter().filter(|&other| other != purpose).collect();
                let before: Vec<_> = others.iter().map(|&other| consents.record(other)).collect();
                consents = consents.with(purpose, record);
                assert_eq!(consents.record(purpose), record, "{purpose}");
                let after: Vec<_> = others.iter().map(|&other| consents.record(other)).collect();
                assert_eq!(before, after, "{purpose}");
            }
            assert_eq!(purpose.as_str().parse(), Ok(purpose));
        }
        assert!(!consents.is_suppressed());
        assert!(consents.suppressed(true).is_suppressed());
        assert_eq!(consents.suppressed(true).suppressed(false), consents);
        assert_eq!(Consents::from_bits(consents.bits()), Some(consents));
        for bits in [0b11, 0b1100, 0b11_0000, 0x80] {
            assert_eq!(Consents::from_bits(bits), None, "{bits:b}");
        }
    }

    #[test]
    fn the_configuration_decides_only_without_a_record() {
        let strict = PrivacyOptions {
            marketing_without_record: false,
            profiling_without_record: false,
            training_without_record: false,
        };
        for purpose in Purpose::ALL {
            let with = |record| Consents::default().with(purpose, record);
            for (options, default) in [(PrivacyOptions::default(), true), (strict, false)] {
                assert_eq!(options.allows(with(None), purpose), default);
                assert!(options.allows(with(Some(true)), purpose));
                assert!(!options.allows(with(Some(false)), purpose));
            }
        }
    }
}
