//! The results of an evaluation, as they are stored with a snapshot.

use super::bias::report::RankerBias;
use crate::ranking::rankers::{POPULARITY, TRENDING};
use crate::snapshot::parameters::BlendWeights;
use crate::snapshot::propensity::PropensityQuality;
use crate::snapshot::settings::FittedSettings;
use domain::time::Timestamp;

/// The gate's decision about a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    Passed,
    Rejected,
    /// There were too few users to judge. The gate only checked that the model is finite and not empty.
    InsufficientEvaluation,
}

/// The origin of the parameters that were fitted on the earlier part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParametersOf {
    /// The present training run.
    Candidate,
    /// The active snapshot.
    Active,
}

/// A way of predicting ratings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatingPredictor {
    /// The global mean and the biases, without neighbors.
    Mean,
    ItemBased,
    UserBased,
    Blended,
}

/// The items that may be recommended, and that count if held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemScope {
    All,
    /// Only items that were not in the user's history before.
    New,
}

/// The quality of ranked lists, mean over `users`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RankingMetrics {
    pub parameters: ParametersOf,
    /// The name of one of the [`RANKERS`](crate::ranking::rankers::RANKERS), or of one that another release had.
    pub ranker: String,
    pub items: ItemScope,
    /// The number of users with a history before the split and at least one relevant held-out item.
    pub users: u64,
    pub ndcg_at_10: f64,
    /// The limits that hold NDCG@10 with a probability of 95 %, by the bootstrap over users; `None` if another release made the
    /// evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndcg_interval: Option<[f64; 2]>,
    pub recall_at_20: f64,
    /// The share of the listed items that are in any user's first 20.
    pub coverage_at_20: f64,
    /// The Gini index of how often each listed item is in a first 20: 0 if even, toward 1 if concentrated.
    pub gini: f64,
    /// The mean number of raters of the items in the first 20.
    pub mean_popularity: f64,
}

/// The error of ratings predicted by the baseline estimator on held-out (user, item) pairs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RatingMetrics {
    pub parameters: ParametersOf,
    pub predictor: RatingPredictor,
    pub ratings: u64,
    pub rmse: f64,
    pub mae: f64,
}

/// The ranker chosen on the validation part, with the figures behind the choice.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RankerChoice {
    /// The name of the chosen ranker.
    pub ranker: String,
    /// The number of users with a relevant new item in the validation part.
    pub users: u64,
    /// The figures of the rankers that could be chosen; empty with too few users to tell them apart.
    pub figures: Vec<RankerFigure>,
}

/// The quality of a ranker on new items in the validation part, mean over users.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RankerFigure {
    pub ranker: String,
    pub ndcg_at_10: f64,
}

/// When and on how much data settings were fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TuningRecord {
    /// When the data was read.
    pub at: Timestamp,
    /// The number of ratings and of items of orders.
    pub events: u64,
}

/// The settings of ranking scores that were tried on the validation part, for one kind of request.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SettingsTable {
    pub items: ItemScope,
    /// The number of users whom every setting was measured on.
    pub users: u64,
    /// The simplest setting first.
    pub rows: Vec<SettingRow>,
}

/// One setting and its figures, means over the users.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SettingRow {
    pub ranker: String,
    /// The share of the item-based side in a blend.
    pub item_weight: f64,
    /// The half-life of the trend; any where the exponent is 0.
    pub half_life_days: f64,
    pub trend_exponent: f64,
    pub habit_weight: f64,
    pub ndcg_at_10: f64,
    /// How far NDCG@10 lies below that of the best setting.
    pub below_best: f64,
    /// The standard error of that difference, by the bootstrap over users.
    pub standard_error: f64,
    pub is_chosen: bool,
}

impl RankerChoice {
    /// Returns a sentence that says what was chosen and why.
    pub fn sentence(&self) -> String {
        let Self { ranker, users, .. } = self;
        if self.figures.is_empty() {
            return format!(
                "the validation part has {users} users with new items, too few to choose a ranker by; {ranker} is the default"
            );
        }
        let figure = |figure: &RankerFigure| format!("{} for {}", four_digits(figure.ndcg_at_10), figure.ranker);
        let figures: Vec<String> = self.figures.iter().map(figure).collect();
        let figures = figures.join(" and ");
        let measured = format!("NDCG@10 on new items is {figures}, on the validation part of {users} users");
        let simple = [POPULARITY.name, TRENDING.name];
        match simple.contains(&&**ranker) {
            true => {
                let best = |is_simple: bool| {
                    let figures = self
                        .figures
                        .iter()
                        .filter(|figure| simple.contains(&&*figure.ranker) == is_simple);
                    figures.map(|figure| figure.ndcg_at_10).fold(0.0, f64::max)
                };
                let gain = match best(false) > best(true) {
                    true => ", a gain that may be chance",
                    false => "",
                };
                format!(
                    "personal ranking does not pay yet: {measured}{gain}; recommendations are by popularity unless a request \
                     names a basis"
                )
            }
            false => format!("personal ranking pays: {measured}"),
        }
    }
}

/// Writes a figure with four significant digits.
pub fn four_digits(value: f64) -> String {
    // A zero has no sign: the sum of nothing is a negative one.
    let value = value + 0.0;
    let scientific = format!("{value:.3e}");
    let exponent = scientific
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok());
    let decimals = 3_i32.saturating_sub(exponent.unwrap_or(0)).max(0);
    format!("{value:.*}", decimals as usize)
}

/// The evaluation of a training run.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evaluation {
    pub verdict: GateVerdict,
    /// Why the candidate was rejected or could not be judged, each reason with its numbers.
    pub reasons: Vec<String>,
    pub ranking: Vec<RankingMetrics>,
    pub rating: Vec<RatingMetrics>,
    /// The fitted weights of the blends; `None` if another release made the evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<BlendWeights>,
    /// The ranker that is the snapshot's default; `None` if another release made the evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<RankerChoice>,
    /// The settings of ranking scores; `None` if another release made the evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<FittedSettings>,
    /// The settings that were tried; empty if they were taken over from the active snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<SettingsTable>,
    /// When and on how much data the settings were fitted; `None` if there were too few users to fit them, or another release
    /// made the evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<TuningRecord>,
    /// `None` if no past campaign could be predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propensity: Option<PropensityQuality>,
    /// The bias report of the candidate; empty if nobody was measured, or if another release made the evaluation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bias: Vec<RankerBias>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_significant_digits() {
        let check = |value, expected: &str| assert_eq!(four_digits(value), expected);
        check(-0.0, "0.000");
        check(0.037_142_9, "0.03714");
        check(0.041_9, "0.04190");
        check(0.999_96, "1.000");
        check(0.001_234_56, "0.001235");
        check(12.345_6, "12.35");
        check(123_456.7, "123457");
        check(0.0, "0.000");
        check(1.0, "1.000");
    }

    #[test]
    fn the_choice_is_said_in_words_and_figures() {
        let choice = |ranker: &str, blended, popularity| RankerChoice {
            ranker: ranker.to_owned(),
            users: 600,
            figures: [("blended", blended), ("popularity", popularity)]
                .map(|(ranker, ndcg_at_10)| RankerFigure {
                    ranker: ranker.to_owned(),
                    ndcg_at_10,
                })
                .to_vec(),
        };
        let check = |choice: RankerChoice, expected: &str| assert_eq!(choice.sentence(), expected);
        check(
            choice("popularity", 0.0371, 0.0419),
            "personal ranking does not pay yet: NDCG@10 on new items is 0.03710 for blended and 0.04190 for popularity, \
             on the validation part of 600 users; recommendations are by popularity unless a request names a basis",
        );
        check(
            choice("blended", 0.0619, 0.0419),
            "personal ranking pays: NDCG@10 on new items is 0.06190 for blended and 0.04190 for popularity, on the \
             validation part of 600 users",
        );
        check(
            choice("popularity", 0.043, 0.0419),
            "personal ranking does not pay yet: NDCG@10 on new items is 0.04300 for blended and 0.04190 for popularity, \
             on the validation part of 600 users, a gain that may be chance; recommendations are by popularity unless a request \
             names a basis",
        );
        let unknown = RankerChoice {
            figures: Vec::new(),
            users: 7,
            ..choice("blended", 0.0, 0.0)
        };
        check(
            unknown,
            "the validation part has 7 users with new items, too few to choose a ranker by; blended is the default",
        );
    }
}
