//! How likely a user is to redeem a coupon: what was fitted at training.

/// The fitted model, or why there is none.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Propensity {
    Fitted(PropensityModel),
    NotFitted {
        /// For people: what is missing.
        reason: String,
    },
}

impl Default for Propensity {
    fn default() -> Self {
        Self::NotFitted {
            reason: "the snapshot was trained without campaigns".to_owned(),
        }
    }
}

/// A logistic regression: the log-odds of redeeming are `intercept` + Σ weight · (transformed feature − mean) / scale.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropensityModel {
    pub intercept: f64,
    pub terms: Vec<PropensityTerm>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropensityTerm {
    /// Name of the feature.
    pub feature: String,
    pub mean: f64,
    /// Above 0.
    pub scale: f64,
    pub weight: f64,
}
