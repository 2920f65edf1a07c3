//! Section `privacy` of the configuration.

use std::path::PathBuf;

use super::retention::RetentionDays;
use super::sensitive_attributes::SensitiveAttributes;
use domain::consent::PrivacyOptions;
use domain::error::InvalidField;
use domain::text_list;

/// The uses of users' data that need no record of consent, and the attributes that need an operator's permission.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacySection {
    pub marketing_without_record: bool,
    pub profiling_without_record: bool,
    pub training_without_record: bool,
    /// The user attributes that no rule of a coupon may name unless an operator allows it for the campaign.
    #[serde(deserialize_with = "text_list::deserialize")]
    pub sensitive_attributes: Vec<String>,
    /// How many days records of each kind are kept.
    pub retention_days: RetentionDays,
    /// How often records that are too old are deleted.
    pub retention_interval_ms: u64,
    /// The file with the key of the hashes by which erased users are remembered. Without it nobody can be erased.
    pub erasure_key_file: Option<PathBuf>,
    /// For how many days after an erasure the decisions of the user are kept, under the pseudonym, to prove what they had agreed to.
    pub consent_proof_days: u32,
}

/// A week. An expired record stays no longer than this.
const MAX_RETENTION_INTERVAL_MS: u64 = 7 * 86_400_000;

impl Default for PrivacySection {
    fn default() -> Self {
        let consent = PrivacyOptions::default();
        Self {
            marketing_without_record: consent.marketing_without_record,
            profiling_without_record: consent.profiling_without_record,
            training_without_record: consent.training_without_record,
            sensitive_attributes: Vec::new(),
            retention_days: RetentionDays::default(),
            retention_interval_ms: 6 * 3_600_000,
            erasure_key_file: None,
            consent_proof_days: 1_095,
        }
    }
}

impl PrivacySection {
    /// # Errors
    /// [`InvalidField`] names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if !(1..=MAX_RETENTION_INTERVAL_MS).contains(&self.retention_interval_ms) {
            let message = format!(
                "must lie between 1 and {MAX_RETENTION_INTERVAL_MS}, is {}",
                self.retention_interval_ms
            );
            return Err(InvalidField::new(
                "privacy.retention_interval_ms",
                "OUT_OF_RANGE",
                message,
            ));
        }
        self.retention_days.validate()
    }

    /// Returns what it means that a user has nothing on record.
    pub fn consent(&self) -> PrivacyOptions {
        PrivacyOptions {
            marketing_without_record: self.marketing_without_record,
            profiling_without_record: self.profiling_without_record,
            training_without_record: self.training_without_record,
        }
    }

    pub fn sensitive(&self) -> SensitiveAttributes {
        SensitiveAttributes(self.sensitive_attributes.clone())
    }
}
