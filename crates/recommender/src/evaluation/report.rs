//! The results of an evaluation, as they are stored with a snapshot.

use crate::snapshot::propensity::PropensityQuality;

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

/// The evaluation of a training run.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evaluation {
    pub verdict: GateVerdict,
    /// Why the candidate was rejected or could not be judged, each reason with its numbers.
    pub reasons: Vec<String>,
    pub ranking: Vec<RankingMetrics>,
    pub rating: Vec<RatingMetrics>,
    /// `None` if no past campaign could be predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propensity: Option<PropensityQuality>,
}
