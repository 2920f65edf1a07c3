//! What an evaluation found, as kept with a snapshot.

use crate::snapshot::propensity::PropensityQuality;

/// The gate's word on a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Rejected,
    /// Too few users to judge: only checked for being finite and not empty.
    InsufficientEvaluation,
}

/// Whose parameters were fitted on the earlier part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParametersOf {
    /// The run that is going on.
    Candidate,
    /// The active snapshot.
    Active,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranker {
    Popularity,
    ItemBased,
    UserBased,
    Blended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predictor {
    /// Global mean and biases, no neighbors.
    Mean,
    ItemBased,
    UserBased,
    Blended,
}

/// Which held-out items count, and which may be recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemScope {
    All,
    /// Only those that were not in the user's history before.
    New,
}

/// Quality of ranked lists, mean over `users`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RankingMetrics {
    pub parameters: ParametersOf,
    pub ranker: Ranker,
    pub items: ItemScope,
    /// With a history before the cut and at least one relevant held-out item.
    pub users: u64,
    pub ndcg_at_10: f64,
    pub recall_at_20: f64,
    /// Share of the listed items that stand in anyone's first 20.
    pub coverage_at_20: f64,
    /// Of how often each listed item stands in a first 20: 0 even, toward 1 concentrated.
    pub gini: f64,
    /// Mean number of raters of the items in the first 20.
    pub mean_popularity: f64,
}

/// Error of predicted ratings by the baseline estimator on held-out (user, item) pairs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RatingMetrics {
    pub parameters: ParametersOf,
    pub predictor: Predictor,
    pub ratings: u64,
    pub rmse: f64,
    pub mae: f64,
}

/// The outcome of a training run's evaluation.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evaluation {
    pub verdict: Verdict,
    /// Why it was rejected, or why it could not be judged, each with its numbers.
    pub reasons: Vec<String>,
    pub ranking: Vec<RankingMetrics>,
    pub rating: Vec<RatingMetrics>,
    /// Absent where no past campaign could be predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propensity: Option<PropensityQuality>,
}
