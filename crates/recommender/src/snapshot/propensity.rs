//! How likely a user is to redeem a coupon: what was fitted at training, and how good it is.

use domain::error::InvalidField;

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

/// What is known of a user before a campaign starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Coupons of any campaign that the user has redeemed.
    Redemptions,
    /// Order lines on which a coupon took something off.
    DiscountedLines,
    /// The ranking score summed over the covered items.
    Affinity,
    /// Covered items that the user has bought, each once.
    OwnPurchases,
    /// Frequency: distinct orders.
    Orders,
    /// Recency: days since the last order; [`Feature::NEVER_DAYS`] without any.
    DaysSinceOrder,
    /// Sum of all line totals, in minor units; at least 0.
    Spend,
}

impl Feature {
    pub const ALL: [Self; 7] = [
        Self::Redemptions,
        Self::DiscountedLines,
        Self::Affinity,
        Self::OwnPurchases,
        Self::Orders,
        Self::DaysSinceOrder,
        Self::Spend,
    ];

    /// The recency of a user who has never ordered anything.
    pub const NEVER_DAYS: f64 = 365.0;

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redemptions => "redemptions",
            Self::DiscountedLines => "discounted_lines",
            Self::Affinity => "affinity",
            Self::OwnPurchases => "own_purchases",
            Self::Orders => "orders",
            Self::DaysSinceOrder => "days_since_order",
            Self::Spend => "spend",
        }
    }

    /// Of a user without any history.
    pub fn of_nobody(self) -> f64 {
        match self {
            Self::DaysSinceOrder => Self::NEVER_DAYS,
            _ => 0.0,
        }
    }
}

/// A logistic regression on ln(1 + feature), each standardized, with one random effect a campaign.
///
/// Before the campaign is known, the log-odds of redeeming within its whole window are
/// `(intercept + Σ weight · z) / √(1 + 0.346 · campaign_variance)`, z = (ln(1 + feature) − mean) / scale, held within ±4.
///
/// Source: Zeger, Liang & Albert 1988, "Models for Longitudinal Data", §3: the mean of a logistic normal, 0.346 = (16√3/15π)².
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropensityModel {
    pub intercept: f64,
    /// Of the campaigns' own intercepts around the common one; 0 or more.
    pub campaign_variance: f64,
    pub terms: Vec<PropensityTerm>,
    /// What it was fitted on.
    pub evidence: PropensityEvidence,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropensityTerm {
    pub feature: Feature,
    /// Of ln(1 + feature) over what the model was fitted on.
    pub mean: f64,
    /// Its standard deviation; above 0.
    pub scale: f64,
    pub weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropensityEvidence {
    pub campaigns: u64,
    /// Pairs of a campaign and a recipient.
    pub recipients: u64,
    /// Of those, how many redeemed something.
    pub redeemers: u64,
    pub redemptions: u64,
}

impl PropensityModel {
    /// Standardized features further from their mean count as this far.
    const MAX_Z: f64 = 4.0;

    /// What `value` of the term's feature adds to the linear predictor, before it is shrunk for the unknown campaign.
    pub fn term(term: &PropensityTerm, value: f64) -> f64 {
        let z = (value.max(0.0).ln_1p() - term.mean) / term.scale;
        term.weight * z.clamp(-Self::MAX_Z, Self::MAX_Z)
    }

    /// By which log-odds given the campaign become log-odds over all campaigns; in (0, 1].
    pub fn shrinkage(&self) -> f64 {
        1.0 / (1.0 + 0.346 * self.campaign_variance).sqrt()
    }

    /// intercept + Σ weight · z. `value`: of a feature, as it stands.
    pub fn predictor(&self, value: impl Fn(Feature) -> f64) -> f64 {
        let terms = self.terms.iter();
        terms.fold(self.intercept, |sum, term| sum + Self::term(term, value(term.feature)))
    }

    /// The probability of redeeming within the whole window of a campaign that nothing else is known of; in (0, 1).
    pub fn probability(&self, value: impl Fn(Feature) -> f64) -> f64 {
        sigmoid(self.predictor(value) * self.shrinkage())
    }

    /// # Errors
    /// Names what is not finite or out of range.
    pub fn check(&self) -> Result<(), InvalidField> {
        let invalid = |field: &str, value: f64| {
            let message = format!("must be finite and within its range, is {value}");
            Err(InvalidField::new(field, "OUT_OF_RANGE", message))
        };
        if !self.intercept.is_finite() {
            return invalid("intercept", self.intercept);
        }
        if !(self.campaign_variance.is_finite() && self.campaign_variance >= 0.0) {
            return invalid("campaign_variance", self.campaign_variance);
        }
        for term in &self.terms {
            let field = term.feature.as_str();
            for value in [term.mean, term.weight, term.scale] {
                if !value.is_finite() {
                    return invalid(field, value);
                }
            }
            if term.scale <= 0.0 {
                return invalid(field, term.scale);
            }
        }
        Ok(())
    }
}

/// 1 / (1 + e^−x).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// How good a propensity was on past campaigns, each predicted by a model of what was known when it started.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PropensityQuality {
    /// Mean over the campaigns of the probability that a redeemer is ranked before a recipient who did not redeem.
    pub roc_auc: f64,
    /// Mean over the campaigns: rate of redeemers in the top tenth over that of all.
    pub lift_at_10_percent: f64,
    /// Mean squared error of the probability, over all recipients.
    pub brier: f64,
    /// Of predicting everybody the rate that turned out.
    pub brier_of_rate: f64,
    /// Mean of −ln of the probability of what happened, over all recipients.
    pub log_loss: f64,
    /// Recipients in five parts of one size, by predicted probability.
    pub reliability: Vec<ReliabilityBin>,
    /// By start.
    pub campaigns: Vec<CampaignCalibration>,
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ReliabilityBin {
    pub recipients: u64,
    /// Mean predicted probability.
    pub predicted: f64,
    /// Share that redeemed.
    pub observed: f64,
}

/// Redeemers of one campaign.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CampaignCalibration {
    pub campaign_id: String,
    pub recipients: u64,
    pub predicted: f64,
    /// 95 % of the campaigns should lie within, as far as the model is right about how much campaigns differ.
    pub predicted_low: f64,
    pub predicted_high: f64,
    pub observed: u64,
    pub roc_auc: f64,
    pub lift_at_10_percent: f64,
    /// Share of the window that the labels reach to: below 1 they end before it does, and so does the prediction.
    pub observed_share: f64,
    /// Of the model that predicted it.
    pub evidence: PropensityEvidence,
}
