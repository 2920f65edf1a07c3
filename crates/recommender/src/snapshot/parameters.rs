//! The parameters of a training run, which are kept with its snapshot.

use domain::error::InvalidField;
use domain::rating::RatingScale;

use super::settings::FittedSettings;

/// The rule by which purchases become ratings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImplicitFeedback {
    /// One of [`LogOrders`](Self::LogOrders) and [`Binary`](Self::Binary), whichever training finds to rank better. As long as it
    /// has not, the former.
    #[default]
    Fitted,
    /// min(rating.max, 1 + log2(orders)).
    LogOrders,
    /// 1 for every item bought.
    Binary,
    /// Purchases do not count as ratings.
    Off,
}

impl ImplicitFeedback {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fitted => "fitted",
            Self::LogOrders => "log_orders",
            Self::Binary => "binary",
            Self::Off => "off",
        }
    }

    fn effective_rating(self, explicit: Option<f32>, orders: u32, scale: &RatingScale) -> Option<f32> {
        explicit.or_else(|| match self {
            _ if orders == 0 => None,
            Self::Fitted | Self::LogOrders => Some((1.0 + f64::from(orders).log2()).min(f64::from(scale.max)) as f32),
            Self::Binary => Some(1f32.min(scale.max)),
            Self::Off => None,
        })
    }
}

/// Section `training` of the configuration: how a model is trained.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingOptions {
    pub implicit: ImplicitFeedback,
    /// Length of a neighbor list.
    pub neighbors: usize,
    /// λ of the user biases: so many ratings' weight is put on "no bias". At least 0.
    pub user_bias_shrinkage: f64,
    /// λ of the item biases. At least 0.
    pub item_bias_shrinkage: f64,
    /// Rounds of alternating least squares over item and user biases. At least 1.
    pub bias_iterations: u32,
    /// Seeds all sampling during evaluation.
    pub seed: u64,
}

impl Default for TrainingOptions {
    /// Takes shrinkage and iterations from Surprise's `BaselineOnly`, against which figures are compared.
    fn default() -> Self {
        Self {
            implicit: ImplicitFeedback::default(),
            neighbors: 50,
            user_bias_shrinkage: 15.0,
            item_bias_shrinkage: 10.0,
            bias_iterations: 10,
            seed: 1,
        }
    }
}

/// The longest neighbor list that may be configured.
const MAX_NEIGHBORS: usize = 10_000;

impl TrainingOptions {
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let out_of_range = |key: &str, message: String| Err(InvalidField::new(key, "OUT_OF_RANGE", message));
        if !(1..=MAX_NEIGHBORS).contains(&self.neighbors) {
            let message = format!("must lie between 1 and {MAX_NEIGHBORS}, is {}", self.neighbors);
            return out_of_range("training.neighbors", message);
        }
        for (key, value) in [
            ("training.user_bias_shrinkage", self.user_bias_shrinkage),
            ("training.item_bias_shrinkage", self.item_bias_shrinkage),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return out_of_range(key, format!("must be finite and 0 or more, is {value}"));
            }
        }
        if self.bias_iterations == 0 {
            return out_of_range("training.bias_iterations", "must be 1 or more, is 0".to_owned());
        }
        Ok(())
    }
}

/// Everything that determines a model besides its data.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingParameters {
    pub scale: RatingScale,
    pub options: TrainingOptions,
}

impl TrainingParameters {
    /// Returns the same parameters with the rule for purchases that `settings` hold, where it is to be fitted.
    pub fn resolved(&self, settings: &FittedSettings) -> Self {
        match self.options.implicit {
            ImplicitFeedback::Fitted => self.with_implicit(settings.implicit),
            _ => self.clone(),
        }
    }

    /// Returns the same parameters with this rule for purchases.
    pub fn with_implicit(&self, implicit: ImplicitFeedback) -> Self {
        Self {
            scale: self.scale,
            options: TrainingOptions {
                implicit,
                ..self.options.clone()
            },
        }
    }

    /// Returns the effective rating of one user and item: the explicit rating if there is one, else the one that the
    /// purchases imply; `None` when there is neither.
    ///
    /// `orders`: distinct orders of which something is left after returns.
    pub fn effective_rating(&self, explicit: Option<f32>, orders: u32) -> Option<f32> {
        self.options.implicit.effective_rating(explicit, orders, &self.scale)
    }
}

/// The ranker of recommendations for which the request names no basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultRanker {
    /// By similarity, item-based and user-based, weighted as fitted.
    #[default]
    Blended,
    /// By popularity: personal ranking did no better on the validation part.
    Popularity,
}

/// The share of the item-based part in a blend, 0 to 1; the user-based part has the rest.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlendWeights {
    /// Blends predicted ratings by weighted sum; fitted for RMSE.
    pub weighted_sum: f64,
    /// Blends predicted ratings by weighted mean; fitted for RMSE.
    pub weighted_mean: f64,
    /// Blends predicted ratings by baseline; fitted for RMSE.
    pub baseline: f64,
    /// Blends ranking scores; fitted for NDCG.
    pub ranking: f64,
}

impl Default for BlendWeights {
    /// Weighs both sides equally, as long as there is too little data to fit the weights.
    fn default() -> Self {
        Self {
            weighted_sum: 0.5,
            weighted_mean: 0.5,
            baseline: 0.5,
            ranking: 0.5,
        }
    }
}

impl BlendWeights {
    pub fn all(&self) -> [f64; 4] {
        [self.weighted_sum, self.weighted_mean, self.baseline, self.ranking]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_for_purchases_is_resolved_where_it_is_to_be_fitted() {
        let check = |configured, expected| {
            let parameters = TrainingParameters::default().with_implicit(configured);
            let settings = FittedSettings {
                implicit: ImplicitFeedback::Binary,
                ..FittedSettings::default()
            };
            assert_eq!(parameters.resolved(&settings).options.implicit, expected);
        };
        check(ImplicitFeedback::Fitted, ImplicitFeedback::Binary);
        for configured in [
            ImplicitFeedback::LogOrders,
            ImplicitFeedback::Binary,
            ImplicitFeedback::Off,
        ] {
            check(configured, configured);
        }
    }

    #[test]
    fn effective_ratings_follow_the_definition() {
        let scale = RatingScale::default();
        let check = |implicit: ImplicitFeedback, explicit, orders, expected| {
            assert_eq!(implicit.effective_rating(explicit, orders, &scale), expected);
        };
        check(ImplicitFeedback::LogOrders, None, 0, None);
        check(ImplicitFeedback::LogOrders, None, 1, Some(1.0));
        check(ImplicitFeedback::LogOrders, None, 2, Some(2.0));
        check(ImplicitFeedback::LogOrders, None, 3, Some(2.5849625));
        check(ImplicitFeedback::LogOrders, None, 1000, Some(5.0));
        check(ImplicitFeedback::LogOrders, Some(4.5), 1000, Some(4.5));
        check(ImplicitFeedback::Binary, None, 7, Some(1.0));
        check(ImplicitFeedback::Off, None, 7, None);
        check(ImplicitFeedback::Off, Some(3.0), 7, Some(3.0));
    }
}
