//! Decides whether the settings of ranking scores are fitted again, or taken over from the active snapshot.

use chrono::Duration;

use super::TrainOptions;
use crate::store::snapshots::SnapshotRecord;
use recommender::evaluation::evaluate::Fitted;
use recommender::evaluation::report::{RankerChoice, TuningRecord};
use recommender::training::input::TrainingInput;

/// Settings are fitted again once the data has grown to so many times its size.
const GROWTH: f64 = 1.2;

/// Settings, and when they were fitted.
#[derive(Debug, Clone)]
pub(super) struct TunedSettings {
    pub fitted: Fitted,
    pub choice: RankerChoice,
    pub tuned: TuningRecord,
}

/// Returns what was fitted for `snapshot`, as far as the evaluation that is stored with it says.
pub(super) fn fitted_of(snapshot: &SnapshotRecord) -> Option<Fitted> {
    let evaluation = snapshot.evaluation.as_ref()?;
    Some(Fitted {
        weights: evaluation.weights?,
        settings: evaluation.settings?,
    })
}

/// Returns the record of settings that are fitted on `input`.
pub(super) fn record(input: &TrainingInput) -> TuningRecord {
    TuningRecord {
        at: input.as_of,
        events: (input.ratings.len() + input.orders.len()) as u64,
    }
}

/// Returns the settings of the active snapshot where they may be taken over: its parameters are those of this run, the settings
/// are not older than configured, and the data has not grown by a fifth since they were fitted.
pub(super) fn reusable(
    active: Option<&SnapshotRecord>,
    input: &TrainingInput,
    options: &TrainOptions,
) -> Option<TunedSettings> {
    let active = active.filter(|active| active.parameters == options.parameters && !options.tune)?;
    let fitted = fitted_of(active)?;
    let evaluation = active.evaluation.as_ref()?;
    let (tuned, choice) = (evaluation.tuned?, evaluation.choice.clone()?);
    let now = record(input);
    let is_recent = now.at - tuned.at < Duration::days(i64::from(options.trainer.tune_interval_days));
    let has_grown = now.events as f64 >= GROWTH * tuned.events as f64;
    (is_recent && !has_grown).then_some(TunedSettings { fitted, choice, tuned })
}
