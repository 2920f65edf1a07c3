//! Converts the messages of ModelService.

use tonic::Status;

use crate::live::ServingStatus;
use crate::store::snapshots::{SnapshotRecord, SnapshotState};
use domain::error::InvalidField;
use domain::item::check_text;
use recommender::evaluation::report::{
    Evaluation, GateVerdict, ItemScope, ParametersOf, RankerChoice, RankingMetrics, RatingMetrics, RatingPredictor,
    SettingRow, SettingsTable,
};
use recommender::snapshot::parameters::{BlendWeights, DefaultRanker, TrainingParameters};
use recommender::snapshot::settings::{FittedSettings, ScoreSettings};

use crate::grpc::convert::timestamp;
use crate::grpc::proto::v1;
use crate::grpc::status::{Violations, invalid_argument};

/// Page tokens of ListSnapshots are bound to the name alone: the request has nothing but the page.
pub const LIST_KEY: &str = "ListSnapshots";

fn check_version(version: i64) -> Result<i64, InvalidField> {
    if version < 1 {
        return Err(InvalidField::new(
            "version",
            "VERSION_OUT_OF_RANGE",
            format!("must be 1 or more, is {version}"),
        ));
    }
    Ok(version)
}

pub fn version(version: i64) -> Result<i64, Status> {
    check_version(version).map_err(|error| invalid_argument(vec![error]))
}

pub fn reason(reason: String) -> Result<String, Status> {
    check_text("reason", reason).map_err(|error| invalid_argument(vec![error]))
}

pub struct ActivateSnapshot {
    pub version: i64,
    pub reason: String,
}

impl TryFrom<v1::ActivateSnapshotRequest> for ActivateSnapshot {
    type Error = Status;

    fn try_from(request: v1::ActivateSnapshotRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let version = violations.check(check_version(request.version));
        let reason = violations.check(check_text("reason", request.reason));
        violations.finish(version.zip(reason).map(|(version, reason)| Self { version, reason }))
    }
}

impl From<SnapshotState> for v1::SnapshotState {
    fn from(state: SnapshotState) -> Self {
        match state {
            SnapshotState::Building => Self::Building,
            SnapshotState::Candidate => Self::Candidate,
            SnapshotState::Active => Self::Active,
            SnapshotState::Retired => Self::Retired,
            SnapshotState::Rejected => Self::Rejected,
            SnapshotState::Failed => Self::Failed,
        }
    }
}

impl From<SnapshotRecord> for v1::Snapshot {
    fn from(record: SnapshotRecord) -> Self {
        let TrainingParameters { scale, options } = record.parameters;
        Self {
            version: record.version,
            state: v1::SnapshotState::from(record.state).into(),
            created_at: Some(timestamp(record.created_at)),
            activated_at: record.activated_at.map(timestamp),
            counts: record.counts.map(|counts| v1::SnapshotCounts {
                users: counts.users,
                items: counts.items,
                ratings: counts.ratings,
            }),
            parameters: Some(v1::TrainingParameters {
                neighbors: options.neighbors as u32,
                implicit: options.implicit.as_str().to_owned(),
                rating_min: f64::from(scale.min),
                rating_max: f64::from(scale.max),
                user_bias_shrinkage: options.user_bias_shrinkage,
                item_bias_shrinkage: options.item_bias_shrinkage,
                bias_iterations: options.bias_iterations,
                seed: options.seed,
            }),
            evaluation: record.evaluation.map(Into::into),
            input_watermark: record.input_watermark.as_str().to_owned(),
            checksum: record.checksum.iter().map(|byte| format!("{byte:02x}")).collect(),
            size_bytes: record.size_bytes,
            note: record.note,
        }
    }
}

impl From<Evaluation> for v1::Evaluation {
    fn from(evaluation: Evaluation) -> Self {
        let verdict = match evaluation.verdict {
            GateVerdict::Passed => v1::GateVerdict::Passed,
            GateVerdict::Rejected => v1::GateVerdict::Rejected,
            GateVerdict::InsufficientEvaluation => v1::GateVerdict::InsufficientEvaluation,
        };
        Self {
            verdict: verdict.into(),
            reasons: evaluation.reasons,
            ranking: evaluation.ranking.into_iter().map(Into::into).collect(),
            rating: evaluation.rating.into_iter().map(Into::into).collect(),
            weights: evaluation.weights.map(Into::into),
            choice: evaluation.choice.map(Into::into),
            settings: evaluation.settings.map(Into::into),
            tables: evaluation.tables.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<BlendWeights> for v1::BlendWeights {
    fn from(weights: BlendWeights) -> Self {
        Self {
            weighted_sum: weights.weighted_sum,
            weighted_mean: weights.weighted_mean,
            baseline: weights.baseline,
            ranking: weights.ranking,
        }
    }
}

impl From<FittedSettings> for v1::FittedSettings {
    fn from(settings: FittedSettings) -> Self {
        Self {
            new_items: Some(settings.new_items.into()),
            all_items: Some(settings.all_items.into()),
            popularity_trend_exponent: settings.popularity_trend_exponent,
            half_life_days: settings.half_life_days,
            significance: settings.significance,
            baseline_shrinkage: settings.baseline_shrinkage,
            implicit: settings.implicit.as_str().to_owned(),
        }
    }
}

impl From<ScoreSettings> for v1::ScoreSettings {
    fn from(settings: ScoreSettings) -> Self {
        Self {
            ranker: match settings.ranker {
                DefaultRanker::Blended => "blended",
                DefaultRanker::Popularity => "popularity",
            }
            .to_owned(),
            item_weight: settings.item_weight,
            trend_exponent: settings.trend_exponent,
            habit_weight: settings.habit_weight,
        }
    }
}

impl From<SettingsTable> for v1::SettingsTable {
    fn from(table: SettingsTable) -> Self {
        Self {
            items: items(table.items),
            users: table.users,
            rows: table.rows.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<SettingRow> for v1::SettingRow {
    fn from(row: SettingRow) -> Self {
        Self {
            ranker: row.ranker,
            item_weight: row.item_weight,
            half_life_days: row.half_life_days,
            trend_exponent: row.trend_exponent,
            habit_weight: row.habit_weight,
            ndcg_at_10: row.ndcg_at_10,
            below_best: row.below_best,
            standard_error: row.standard_error,
            is_chosen: row.is_chosen,
        }
    }
}

fn items(scope: ItemScope) -> String {
    match scope {
        ItemScope::All => "all",
        ItemScope::New => "new",
    }
    .to_owned()
}

impl From<RankerChoice> for v1::RankerChoice {
    fn from(choice: RankerChoice) -> Self {
        let summary = choice.sentence();
        let figures = choice.figures.into_iter().map(|figure| v1::RankerFigure {
            ranker: figure.ranker,
            ndcg_at_10: figure.ndcg_at_10,
        });
        Self {
            ranker: choice.ranker,
            users: choice.users,
            figures: figures.collect(),
            summary,
        }
    }
}

impl From<RankingMetrics> for v1::RankingMetrics {
    fn from(metrics: RankingMetrics) -> Self {
        Self {
            parameters: parameters_of(metrics.parameters),
            ranker: metrics.ranker,
            items: items(metrics.items),
            users: metrics.users,
            ndcg_at_10: metrics.ndcg_at_10,
            recall_at_20: metrics.recall_at_20,
            coverage_at_20: metrics.coverage_at_20,
            gini: metrics.gini,
            mean_popularity: metrics.mean_popularity,
            ndcg_low: metrics.ndcg_interval.map(|[low, _]| low),
            ndcg_high: metrics.ndcg_interval.map(|[_, high]| high),
        }
    }
}

impl From<RatingMetrics> for v1::RatingMetrics {
    fn from(metrics: RatingMetrics) -> Self {
        Self {
            parameters: parameters_of(metrics.parameters),
            predictor: match metrics.predictor {
                RatingPredictor::Mean => "mean",
                RatingPredictor::ItemBased => "item_based",
                RatingPredictor::UserBased => "user_based",
                RatingPredictor::Blended => "blended",
            }
            .to_owned(),
            ratings: metrics.ratings,
            rmse: metrics.rmse,
            mae: metrics.mae,
        }
    }
}

fn parameters_of(parameters: ParametersOf) -> String {
    match parameters {
        ParametersOf::Candidate => "candidate",
        ParametersOf::Active => "active",
    }
    .to_owned()
}

impl From<&ServingStatus> for v1::GetServingStatusResponse {
    fn from(status: &ServingStatus) -> Self {
        Self {
            snapshot_version: status.snapshot_version,
            snapshot_created_at: status.snapshot_created_at.map(timestamp),
            loaded_at: status.loaded_at.map(timestamp),
            previous_version: status.previous_version,
            fresh_entries: status.fresh_entries as u64,
            fresh_entries_dropped: status.fresh_entries_dropped,
            refreshed_at: status.refreshed_at.map(timestamp),
            database_available: status.database_available,
            load_error: status.load_error.clone().unwrap_or_default(),
        }
    }
}
