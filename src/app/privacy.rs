//! Section `privacy` of the configuration.

use super::sensitive_attributes::SensitiveAttributes;
use domain::consent::PrivacyOptions;
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
}

impl Default for PrivacySection {
    fn default() -> Self {
        let consent = PrivacyOptions::default();
        Self {
            marketing_without_record: consent.marketing_without_record,
            profiling_without_record: consent.profiling_without_record,
            training_without_record: consent.training_without_record,
            sensitive_attributes: Vec::new(),
        }
    }
}

impl PrivacySection {
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
