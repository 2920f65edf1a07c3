//! Trains a snapshot under a lease and activates it if the gate lets it pass. `run` tells a run phase by phase.

mod progress;
mod run;
mod tuning;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::live::VerifyError;
use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Held, Lease};
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::changes;
use crate::store::snapshots::{self, SnapshotRecord, TransitionError};
use demand::model::NoSales;
use domain::consent::PrivacyOptions;
use domain::error::{InvalidField, chain};
use recommender::evaluation::bias::options::BiasOptions;
use recommender::evaluation::error::EvaluationError;
use recommender::evaluation::gate::GateOptions;
use recommender::evaluation::options::EvaluationOptions;
use recommender::evaluation::report::Evaluation;
use recommender::snapshot::SnapshotError;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::training::error::TrainingError;

use self::run::Run;
use crate::app::redaction::RewriteError;

pub use self::progress::{Phase, Progress, Report};

/// Section `trainer`: how a training run behaves. These options do not affect the model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerOptions {
    /// How long the lease of a trainer that has died keeps others out. A running trainer renews it three times as often.
    pub lease_ms: u64,
    /// How many of the newest snapshots a run keeps. The active one and the one before are always kept.
    pub keep_snapshots: u32,
    /// After how many days the settings of ranking scores are fitted again; until then those of the active snapshot are taken
    /// over. 0 fits them in every run.
    pub tune_interval_days: u32,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            keep_snapshots: 5,
            tune_interval_days: 7,
        }
    }
}

impl TrainerOptions {
    const MIN_LEASE_MS: u64 = 100;

    /// # Errors
    /// [`InvalidField`] names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.lease_ms < Self::MIN_LEASE_MS {
            return Err(InvalidField::new(
                "trainer.lease_ms",
                "OUT_OF_RANGE",
                format!("must be {} or more, is {}", Self::MIN_LEASE_MS, self.lease_ms),
            ));
        }
        Ok(())
    }
}

/// The options of one run.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    pub parameters: TrainingParameters,
    pub evaluation: EvaluationOptions,
    pub gate: GateOptions,
    pub bias: BiasOptions,
    pub trainer: TrainerOptions,
    /// Decides whose data may be used for training.
    pub privacy: PrivacyOptions,
    /// The host and process of this trainer, shown to others while it holds the lease.
    pub holder: String,
    /// The least number of past redemptions that the propensity is fitted on.
    pub min_redemptions: u32,
    /// Fits the settings of ranking scores even if those of the active snapshot could be taken over.
    pub tune: bool,
    /// Activates a snapshot that the gate rejects. The reason is stored with the snapshot.
    pub force: Option<String>,
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Trained {
    pub snapshot: SnapshotRecord,
    pub evaluation: Evaluation,
}

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("another trainer is at work: {}, whose lease expires at {} unless it is renewed", .0.holder, .0.expires_at)]
    AnotherTrainer(Held),
    #[error(
        "the training lease was lost, because this process was paused or disconnected for longer than \
         trainer.lease_ms; nothing was published"
    )]
    LeaseLost,
    #[error("training was interrupted")]
    Interrupted,
    #[error("training ended with a panic")]
    Panicked,
    #[error("the model cannot be fitted")]
    Training(#[from] TrainingError),
    #[error("the model cannot be evaluated")]
    Evaluation(#[from] EvaluationError),
    #[error(transparent)]
    NoSales(#[from] NoSales),
    #[error("the fitted model is inconsistent")]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the snapshot cannot be published")]
    Transition(#[source] TransitionError),
    #[error("the snapshot was not stored as it was trained, and is not activated: {message}")]
    Unusable { message: String },
    #[error("erased users cannot be removed from the snapshot")]
    Redaction(#[from] RewriteError),
}

impl From<VerifyError> for TrainError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Unusable { message, .. } | VerifyError::Unread { message } => Self::Unusable { message },
            VerifyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<TransitionError> for TrainError {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::LeaseLost => Self::LeaseLost,
            TransitionError::Store(error) => Self::Store(error),
            error @ (TransitionError::Unknown { .. }
            | TransitionError::NotActivatable { .. }
            | TransitionError::ReasonRequired { .. }
            | TransitionError::NothingBefore
            | TransitionError::Behind { .. }
            | TransitionError::Overtaken) => Self::Transition(error),
        }
    }
}

/// Trains a snapshot on the data stored now, and activates it if the gate lets it pass.
///
/// Only one trainer runs at a time. Its lease is renewed in the background, and every transaction that publishes checks
/// the lease under lock. A run that ends early leaves the active snapshot as it was: an error leaves a `failed` version, a
/// kill at most a `building` or `candidate` version, which the next run deletes.
///
/// # Errors
/// See [`TrainError`]. A snapshot that the gate rejects is not an error but a result.
pub async fn train(
    pool: &Pool,
    options: &TrainOptions,
    interrupt: &CancellationToken,
    report: Report,
) -> Result<Trained, TrainError> {
    let time_to_live = Duration::from_millis(options.trainer.lease_ms);
    let lease = leases::acquire(pool, leases::TRAINING, &options.holder, time_to_live)
        .await?
        .map_err(TrainError::AnotherTrainer)?;
    let run = Run::new(pool, &lease, options, report);
    let result = tokio::select! {
        result = run.train() => result,
        () = keep_alive(pool, &lease) => Err(TrainError::LeaseLost),
        () = interrupt.cancelled() => Err(TrainError::Interrupted),
    };
    if let Err(error) = &result
        && let Err(error) = snapshots::fail(pool, &lease, &note(error)).await
    {
        tracing::warn!(error = %chain(&error), "the unfinished snapshot could not be marked as failed; the next run deletes it");
    }
    let result = match (result, leases::release(pool, &lease).await) {
        // A trainer that is disconnected for so long fails in the database before it notices that the lease is lost.
        (Err(TrainError::Store(error)), Ok(false)) => {
            tracing::warn!(error = %chain(&error), "training failed in the database, and its lease has expired");
            Err(TrainError::LeaseLost)
        }
        (result, Err(error)) => {
            tracing::warn!(error = %chain(&error), "the training lease could not be released; it expires by itself");
            result
        }
        (result, Ok(_)) => result,
    };
    if result.is_ok() {
        clean_up(pool, options.trainer.keep_snapshots).await;
    }
    result
}

/// Returns the note that is stored with a failed snapshot. Callers of RPCs see it, so that the database's own messages are
/// only logged.
fn note(error: &TrainError) -> String {
    match error {
        TrainError::Store(error) => error.for_callers(),
        error => chain(error),
    }
}

/// Renews the lease until it is lost.
pub(super) async fn keep_alive(pool: &Pool, lease: &Lease) {
    loop {
        tokio::time::sleep(lease.time_to_live / 3).await;
        match leases::renew(pool, lease).await {
            Ok(true) => {}
            Ok(false) => return,
            // The database may come back in time. Publishing checks the lease again.
            Err(error) => tracing::warn!(%error, lease = lease.name, "the lease could not be renewed"),
        }
    }
}

/// Deletes old snapshots and the changes that every remaining snapshot contains. A failure here does not fail the run.
async fn clean_up(pool: &Pool, keep: u32) {
    let pruned = async {
        let versions = snapshots::prune(pool, keep).await?;
        let changes = changes::prune(pool).await?;
        Ok::<_, StoreError>((versions, changes))
    };
    match pruned.await {
        Ok((versions, changes)) => tracing::info!(?versions, changes, "pruned old snapshots and changes"),
        Err(error) => tracing::warn!(%error, "old snapshots and changes could not be pruned"),
    }
}

/// Runs CPU work on a blocking thread.
pub(super) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TrainError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| TrainError::Panicked)
}
