//! What users have agreed and objected to.

use std::fmt;
use std::str::FromStr;

use super::error::InvalidField;
use super::id::UserId;
use super::time::{EventTime, Timestamp};

/// What a user's data may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Being offered coupons.
    Marketing,
    /// Being ranked for by history, and shown as similar to others.
    Profiling,
    /// Being part of the next snapshot.
    Training,
}

impl Purpose {
    pub const ALL: [Self; 3] = [Self::Marketing, Self::Profiling, Self::Training];

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

/// What a user has said about one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentDecision {
    pub user: UserId,
    pub purpose: Purpose,
    pub is_granted: bool,
    /// Of two decisions the later one is in force, and of two at one instant the refusal. One that is only received was
    /// made after all that were received before.
    pub decided_at: EventTime,
    /// Where it was said, for the record.
    pub source: String,
}

/// The decision of a user that is in force for a purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentInForce {
    pub purpose: Purpose,
    pub is_granted: bool,
    pub decided_at: Timestamp,
    pub source: String,
}

/// What is on record for a user: for every purpose granted, refused or nothing; and whether they are suppressed.
///
/// One byte: two bits a purpose, in the order of [`Purpose::ALL`] from the least significant (0 nothing, 1 granted,
/// 2 refused), then one bit for suppressed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Consents(u8);

const GRANTED: u8 = 1;
const REFUSED: u8 = 2;
const SUPPRESSED: u8 = 1 << 6;

impl Consents {
    /// `None` for bits that mean nothing.
    pub fn from_bits(bits: u8) -> Option<Self> {
        let is_known = Purpose::ALL.iter().all(|&purpose| bits >> shift(purpose) & 3 != 3);
        (bits & 1 << 7 == 0 && is_known).then_some(Self(bits))
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    /// What the user has said; `None`: nothing.
    pub fn record(self, purpose: Purpose) -> Option<bool> {
        match self.0 >> shift(purpose) & 3 {
            GRANTED => Some(true),
            REFUSED => Some(false),
            _ => None,
        }
    }

    /// The same, but with `record` for `purpose`.
    pub fn with(self, purpose: Purpose, record: Option<bool>) -> Self {
        let bits = match record {
            Some(true) => GRANTED,
            Some(false) => REFUSED,
            None => 0,
        };
        Self(self.0 & !(3 << shift(purpose)) | bits << shift(purpose))
    }

    /// Whether the user is never offered anything, whatever they have agreed to.
    pub fn is_suppressed(self) -> bool {
        self.0 & SUPPRESSED != 0
    }

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

/// Section `privacy`: whether data may be used for a purpose of which a user has said nothing. What a user has refused
/// stays refused.
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
    /// Whether the data of a user with these `consents` may be used for `purpose`.
    pub fn allows(&self, consents: Consents, purpose: Purpose) -> bool {
        consents.record(purpose).unwrap_or(self.without_record(purpose))
    }

    /// What silence means.
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
    fn a_record_decides_and_nothing_else_is_touched() {
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
    fn silence_means_what_is_configured_and_a_refusal_stays() {
        let strict = PrivacyOptions {
            marketing_without_record: false,
            profiling_without_record: false,
            training_without_record: false,
        };
        for purpose in Purpose::ALL {
            let said = |record| Consents::default().with(purpose, record);
            for (options, silence) in [(PrivacyOptions::default(), true), (strict, false)] {
                assert_eq!(options.allows(said(None), purpose), silence);
                assert!(options.allows(said(Some(true)), purpose));
                assert!(!options.allows(said(Some(false)), purpose));
            }
        }
    }
}
