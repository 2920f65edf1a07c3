//! The settings of ranking scores, which training fits on the validation part.

use super::parameters::{BlendWeights, DefaultRanker, ImplicitFeedback};

/// The ranker and the weights that make a score, for one kind of request.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreSettings {
    /// The ranker of requests that name no basis.
    pub ranker: DefaultRanker,
    /// w: the share of the item-based side in a blend, 0 to 1.
    pub item_weight: f64,
    /// g: the exponent of the trend factor, at least 0; 0 for no trend.
    pub trend_exponent: f64,
    /// o: the weight of own habits beside the blend, at least 0; 0 where history is not allowed.
    pub habit_weight: f64,
}

/// The settings that training has fitted.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedSettings {
    /// For requests that leave the user's history out.
    pub new_items: ScoreSettings,
    /// For requests that allow it.
    pub all_items: ScoreSettings,
    /// The exponent of the trend factor in popularity; 0 for popularity of all time.
    pub popularity_trend_exponent: f64,
    /// h: the half-life of orders in trends.
    pub half_life_days: f64,
    /// s: a similarity of two items that rests on s co-raters counts half; 0 for the plain cosine.
    pub significance: f64,
    /// λ: what is added to Σ|sim| in the denominator of BASELINE.
    pub baseline_shrinkage: f64,
    /// How purchases become ratings where that is to be fitted.
    #[serde(default = "default_implicit")]
    pub implicit: ImplicitFeedback,
}

fn default_implicit() -> ImplicitFeedback {
    ImplicitFeedback::LogOrders
}

impl FittedSettings {
    /// The half-life as long as none is fitted.
    const HALF_LIFE_DAYS: f64 = 14.0;

    /// Returns the settings of a snapshot that has no others: its blend and its ranker, without any further term.
    pub fn plain(weights: &BlendWeights, ranker: DefaultRanker) -> Self {
        let score = ScoreSettings {
            ranker,
            item_weight: weights.ranking,
            trend_exponent: 0.0,
            habit_weight: 0.0,
        };
        Self {
            new_items: score,
            all_items: score,
            popularity_trend_exponent: 0.0,
            half_life_days: Self::HALF_LIFE_DAYS,
            significance: 0.0,
            baseline_shrinkage: 0.0,
            implicit: default_implicit(),
        }
    }

    /// Whether every number is finite and in its range.
    pub fn is_valid(&self) -> bool {
        let is_weight = |weight: f64| (0.0..=1.0).contains(&weight);
        let is_amount = |amount: f64| (0.0..=1e6).contains(&amount);
        let scores = [&self.new_items, &self.all_items];
        let is_score = |score: &&ScoreSettings| {
            is_weight(score.item_weight) && is_amount(score.trend_exponent) && is_amount(score.habit_weight)
        };
        let amounts = [
            self.popularity_trend_exponent,
            self.significance,
            self.baseline_shrinkage,
        ];
        scores.iter().all(is_score)
            && amounts.into_iter().all(is_amount)
            && (f64::MIN_POSITIVE..=1e6).contains(&self.half_life_days)
    }
}

impl Default for FittedSettings {
    fn default() -> Self {
        Self::plain(&BlendWeights::default(), DefaultRanker::default())
    }
}
