//! The probability that a user redeems a coupon: the fitted model as plain data, and its measured quality.

use domain::error::InvalidField;

/// The fitted model, or why there is none.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Propensity {
    Fitted(PropensityModel),
    NotFitted {
        /// Tells people what is missing.
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

/// One figure about a user that is known before a campaign starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Coupons that the user has redeemed, of any campaign.
    Redemptions,
    /// Order lines that a coupon discounted.
    DiscountedLines,
    /// The ranking score summed over the covered items.
    Affinity,
    /// Distinct covered items that the user has bought.
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

    /// Returns the value for a user without any history.
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
    /// The variance of the campaigns' own intercepts around the common one; 0 or more.
    pub campaign_variance: f64,
    pub terms: Vec<PropensityTerm>,
    /// The data that the model was fitted on.
    pub evidence: PropensityEvidence,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropensityTerm {
    pub feature: Feature,
    /// The mean of ln(1 + feature) over the data that the model was fitted on.
    pub mean: f64,
    /// The standard deviation of ln(1 + feature) over the same data; above 0.
    pub scale: f64,
    pub weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropensityEvidence {
    pub campaigns: u64,
    /// Pairs of a campaign and a recipient.
    pub recipients: u64,
    /// Pairs in which the recipient redeemed something.
    pub redeemers: u64,
    pub redemptions: u64,
}

impl PropensityModel {
    /// Standardized features are limited to this distance from their mean.
    const MAX_Z: f64 = 4.0;

    /// Returns how much `value` of the term's feature adds to the linear predictor, before it is shrunk for the unknown
    /// campaign.
    pub fn term(term: &PropensityTerm, value: f64) -> f64 {
        let z = (value.max(0.0).ln_1p() - term.mean) / term.scale;
        term.weight * z.clamp(-Self::MAX_Z, Self::MAX_Z)
    }

    /// Returns the factor by which log-odds given the campaign become log-odds over all campaigns; in (0, 1].
    pub fn shrinkage(&self) -> f64 {
        1.0 / (1.0 + 0.346 * self.campaign_variance).sqrt()
    }

    /// Computes intercept + Σ weight · z. `value` returns the raw value of a feature.
    pub fn predictor(&self, value: impl Fn(Feature) -> f64) -> f64 {
        let terms = self.terms.iter();
        terms.fold(self.intercept, |sum, term| sum + Self::term(term, value(term.feature)))
    }

    /// Computes the probability of redeeming within the whole window of a campaign of which nothing else is known; in (0, 1).
    pub fn probability(&self, value: impl Fn(Feature) -> f64) -> f64 {
        sigmoid(self.predictor(value) * self.shrinkage())
    }

    /// # Errors
    /// Names the field that is not finite or out of range.
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

/// Computes 1 / (1 + e^−x).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The quality of propensities on past campaigns, each predicted by a model fitted on the data known when it started.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PropensityQuality {
    /// Mean over the campaigns of the probability that a redeemer is ranked before a recipient who did not redeem.
    pub roc_auc: f64,
    /// Mean over the campaigns: rate of redeemers in the top tenth over that of all.
    pub lift_at_10_percent: f64,
    /// Mean squared error of the probability, over all recipients.
    pub brier: f64,
    /// The Brier score of predicting for everybody the rate that turned out.
    pub brier_of_rate: f64,
    /// Mean of −ln of the probability given to the outcome, over all recipients.
    pub log_loss: f64,
    /// Recipients in five parts of equal size, by predicted probability.
    pub reliability: Vec<ReliabilityBin>,
    /// Ordered by start.
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

/// Predicted and observed redeemers of one campaign.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CampaignCalibration {
    pub campaign_id: String,
    pub recipients: u64,
    pub predicted: f64,
    /// 95 % of the campaigns should lie within the two limits, as far as the model is right about how much campaigns differ.
    pub predicted_low: f64,
    pub predicted_high: f64,
    pub observed: u64,
    pub roc_auc: f64,
    pub lift_at_10_percent: f64,
    /// The share of the window that labels cover. Below 1 they end before the window does, and so does the prediction.
    pub observed_share: f64,
    /// The data of the model that predicted the campaign.
    pub evidence: PropensityEvidence,
}
