//! Training: read, evaluate, fit, store, judge, activate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Held, Lease};
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::changes;
use crate::store::snapshots::{self, Activation, Finished, SnapshotRecord, SnapshotState, TransitionError};
use coupons::backtest::{BacktestOptions, backtest};
use coupons::propensity::fit::{FitOptions, past_campaigns};
use coupons::{affinity, propensity};
use domain::consent::PrivacyOptions;
use domain::error::{InvalidField, chain};
use recommender::evaluation::error::EvaluationError;
use recommender::evaluation::evaluate::evaluate;
use recommender::evaluation::gate::{Evidence, GateOptions, SnapshotCounts, judge};
use recommender::evaluation::held_out::HeldOutParts;
use recommender::evaluation::options::EvaluationOptions;
use recommender::evaluation::report::{Evaluation, GateVerdict, ParametersOf};
use recommender::evaluation::split::Cut;
use recommender::snapshot::codec::{self, Checksum};
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::Propensity;
use recommender::snapshot::{Snapshot, SnapshotError};
use recommender::training::error::TrainingError;
use recommender::training::fit::{FitEvent, ModelOptions, Stage, fit};
use recommender::training::input::TrainingInput;
use recommender::training::matrix::effective_ratings;

use super::training_input;

/// Section `trainer`: how a training run behaves, which is no part of the model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerOptions {
    /// How long a trainer that has died keeps others out. A living one renews its lease three times as often.
    pub lease_ms: u64,
    /// How many of the newest snapshots a run leaves; the active one and the one before stay in any case.
    pub keep_snapshots: u32,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            keep_snapshots: 5,
        }
    }
}

impl TrainerOptions {
    const MIN_LEASE_MS: u64 = 100;

    /// # Errors
    /// Names the key.
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

/// Everything a run is told.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    pub parameters: TrainingParameters,
    pub evaluation: EvaluationOptions,
    pub gate: GateOptions,
    pub trainer: TrainerOptions,
    /// Whose data may be used.
    pub privacy: PrivacyOptions,
    /// Who this trainer is, for whoever finds the lease taken: host and process.
    pub holder: String,
    /// Fewest redemptions of past campaigns from which the propensity is fitted.
    pub min_redemptions: u32,
    /// Activate whatever the gate says; the reason is kept with the snapshot.
    pub force: Option<String>,
}

impl TrainOptions {
    /// Of how many past campaigns the propensity is measured on, the latest: each costs a model of what was before it.
    const BACKTESTED_CAMPAIGNS: usize = 10;

    fn propensity(&self) -> FitOptions {
        FitOptions::new(self.min_redemptions)
    }

    fn backtest(&self) -> BacktestOptions {
        BacktestOptions {
            max_campaigns: Self::BACKTESTED_CAMPAIGNS,
            rankers: &[],
            ..BacktestOptions::new(self.propensity(), self.parameters.options.seed)
        }
    }
}

/// What a run is doing, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Reading,
    /// Fitting on the earlier part of the history and measuring on the later one.
    Evaluating,
    /// Making effective ratings of what was read.
    Rating,
    Fitting(Stage),
    /// Holding the model to what a server demands of it, and fitting the propensity.
    Checking,
    Writing,
    Activating,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Evaluating => "evaluating",
            Self::Rating => "effective ratings",
            Self::Fitting(Stage::Biases) => "biases",
            Self::Fitting(Stage::ItemNeighbors) => "item neighbors",
            Self::Fitting(Stage::UserNeighbors) => "user neighbors",
            Self::Checking => "checking",
            Self::Writing => "writing",
            Self::Activating => "activating",
        }
    }
}

/// How far a phase is, told when it begins and as it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    pub done: u64,
    /// 0: not known.
    pub total: u64,
}

impl Progress {
    fn begin(phase: Phase) -> Self {
        Self {
            phase,
            done: 0,
            total: 0,
        }
    }
}

/// Who is told of it, from any thread.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a run has made.
#[derive(Debug, Clone)]
pub struct Trained {
    pub snapshot: SnapshotRecord,
    pub evaluation: Evaluation,
}

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("another trainer is at work: {}, until {} at the latest unless it renews", .0.holder, .0.expires_at)]
    AnotherTrainer(Held),
    #[error("the training lease was lost: this process was paused or cut off for longer than trainer.lease_ms")]
    LeaseLost,
    #[error("training was interrupted")]
    Interrupted,
    #[error("training ended with a panic")]
    Panicked,
    #[error("the model cannot be fitted")]
    Training(#[from] TrainingError),
    #[error("the model cannot be evaluated")]
    Evaluation(#[from] EvaluationError),
    #[error("the fitted model is inconsistent")]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the snapshot cannot be published")]
    Transition(#[source] TransitionError),
}

impl From<TransitionError> for TrainError {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::LeaseLost => Self::LeaseLost,
            TransitionError::Store(error) => Self::Store(error),
            error @ (TransitionError::Unknown { .. }
            | TransitionError::NotActivatable { .. }
            | TransitionError::ReasonRequired { .. }
            | TransitionError::NothingBefore) => Self::Transition(error),
        }
    }
}

/// Trains a snapshot on what is stored now, and activates it if the gate lets it pass.
///
/// Only one trainer runs at a time, under a lease that is renewed in the background and checked, under lock, by every
/// transaction that publishes. Whatever ends the run early leaves the active snapshot as it was; an error leaves a
/// `failed` version, a kill at most one that is `building` or a `candidate`, which the next run deletes.
///
/// # Errors
/// See [`TrainError`]; a snapshot that the gate rejects is no error, but an outcome.
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
    let result = tokio::select! {
        result = run(pool, &lease, options, report) => result,
        () = keep_alive(pool, &lease) => Err(TrainError::LeaseLost),
        () = interrupt.cancelled() => Err(TrainError::Interrupted),
    };
    if let Err(error) = &result
        && let Err(error) = snapshots::fail(pool, &lease, &note(error)).await
    {
        tracing::warn!(error = %chain(&error), "the failed snapshot could not be marked; the next run deletes it");
    }
    let result = match (result, leases::release(pool, &lease).await) {
        // Whoever is cut off for so long fails in the database first.
        (Err(TrainError::Store(error)), Ok(false)) => {
            tracing::warn!(error = %chain(&error), "training failed in the database, and the lease has run out");
            Err(TrainError::LeaseLost)
        }
        (result, Err(error)) => {
            tracing::warn!(error = %chain(&error), "the training lease could not be given back; it runs out by itself");
            result
        }
        (result, Ok(_)) => result,
    };
    if result.is_ok() {
        clean_up(pool, options.trainer.keep_snapshots).await;
    }
    result
}

/// What is kept with a failed snapshot. Callers of RPCs see it, so that the database's own words stay in the log.
fn note(error: &TrainError) -> String {
    match error {
        TrainError::Store(error) => error.for_callers(),
        error => chain(error),
    }
}

/// Renews the lease; ends when it is lost.
async fn keep_alive(pool: &Pool, lease: &Lease) {
    loop {
        tokio::time::sleep(lease.time_to_live / 3).await;
        match leases::renew(pool, lease).await {
            Ok(true) => {}
            Ok(false) => return,
            // Perhaps it comes back in time; whoever publishes asks again.
            Err(error) => tracing::warn!(%error, "the training lease could not be renewed"),
        }
    }
}

async fn run(pool: &Pool, lease: &Lease, options: &TrainOptions, report: Report) -> Result<Trained, TrainError> {
    let begin = |phase| report(Progress::begin(phase));
    begin(Phase::Reading);
    let (input, watermark) = training_input::read(pool, &options.privacy).await?;
    let version = snapshots::begin(pool, lease, &options.parameters, &watermark).await?;
    tracing::info!(
        version,
        users = input.users.len(),
        items = input.items.len(),
        ratings = input.ratings.len(),
        orders = input.orders.len(),
        "training snapshot {version}"
    );
    let active = match snapshots::active_version(pool).await? {
        Some(active) => snapshots::get(pool, active).await?,
        None => None,
    };

    begin(Phase::Evaluating);
    let parameters = options.parameters.clone();
    let active_parameters = active.as_ref().map(|active| active.parameters.clone());
    let evaluation_options = options.evaluation.clone();
    let backtest_options = options.backtest();
    let (input, candidate, refitted, propensity_quality) = compute(move || {
        let held_out = HeldOutParts::new(&input, &parameters, &Cut::PerUser, &evaluation_options)?;
        let candidate = evaluate(&input, &held_out, &parameters, ParametersOf::Candidate)?;
        // The active snapshot's bytes have seen what is held out, so that only its parameters are compared.
        let refitted = match active_parameters {
            None => None,
            Some(active) if active == parameters => Some(candidate.clone().relabeled(ParametersOf::Active)),
            Some(active) => Some(evaluate(&input, &held_out, &active, ParametersOf::Active)?),
        };
        let propensity = backtest(&input, &parameters, &backtest_options)?.propensity;
        Ok::<_, EvaluationError>((input, candidate, refitted, propensity))
    })
    .await??;

    let parameters = options.parameters.clone();
    let propensity = options.propensity();
    let weights = candidate.weights;
    let fitting = report.clone();
    let snapshot = compute(move || {
        fitting(Progress::begin(Phase::Rating));
        let effective = effective_ratings(&input, &parameters, |_, _| true)?;
        let observe = |event| match event {
            FitEvent::Progress { stage, done, total } => fitting(Progress {
                phase: Phase::Fitting(stage),
                done,
                total,
            }),
            FitEvent::Computed { stage, path } => {
                let phase = Phase::Fitting(stage).as_str();
                tracing::info!(phase, %path, "{phase}: {path}");
            }
        };
        let options = ModelOptions {
            parameters: &parameters,
            weights,
            listed_users: None,
        };
        let parts = fit(&input, effective, &options, &observe)?;
        fitting(Progress::begin(Phase::Checking));
        let snapshot = Snapshot::new(parts)?;
        let propensity = fit_propensity(&input, &parameters, &snapshot, &propensity)?;
        Ok::<_, TrainError>(snapshot.with_propensity(propensity)?)
    })
    .await??;

    let counts = SnapshotCounts::of(snapshot.parts());
    let evidence = Evidence {
        candidate: &candidate,
        active: refitted.as_ref(),
        counts,
        active_counts: active.and_then(|active| active.counts),
    };
    let judgment = judge(&evidence, &options.gate);
    let evaluated = || [Some(&candidate), refitted.as_ref()].into_iter().flatten();
    let evaluation = Evaluation {
        verdict: judgment.verdict,
        reasons: judgment.reasons,
        ranking: evaluated().flat_map(|evaluated| evaluated.ranking.clone()).collect(),
        rating: evaluated().flat_map(|evaluated| evaluated.rating.clone()).collect(),
        propensity: propensity_quality,
    };

    begin(Phase::Writing);
    let (checksum, size_bytes) = write(pool, version, snapshot).await?;
    let finished = Finished {
        evaluation: evaluation.clone(),
        counts,
        size_bytes,
        checksum,
    };
    let passed = evaluation.verdict != GateVerdict::Rejected;
    let state = match passed {
        true => SnapshotState::Candidate,
        false => SnapshotState::Rejected,
    };
    snapshots::finish(pool, lease, version, &finished, state).await?;

    if passed || options.force.is_some() {
        begin(Phase::Activating);
        let note = match &options.force {
            Some(reason) if !passed => format!("forced: {reason}"),
            _ => String::new(),
        };
        let by = Activation::Trainer {
            lease,
            actor: &options.holder,
        };
        snapshots::activate(pool, version, by, &note).await?;
    }
    let snapshot = snapshots::get(pool, version).await?;
    let snapshot = snapshot.ok_or(TrainError::Transition(TransitionError::Unknown { version }))?;
    Ok(Trained { snapshot, evaluation })
}

/// On all that is known, with the lists of `snapshot`, which is what scores by it.
fn fit_propensity(
    input: &TrainingInput,
    parameters: &TrainingParameters,
    snapshot: &Snapshot,
    options: &FitOptions,
) -> Result<Propensity, TrainingError> {
    let until = input.known_until().unwrap_or(input.as_of);
    let campaigns = past_campaigns(input, parameters, until, options)?;
    let weights = |covered: &_| affinity::weights(snapshot, covered);
    let propensity = propensity::fit::fit(&campaigns, &weights, until, options);
    match &propensity {
        Propensity::Fitted(model) => tracing::info!(
            campaigns = model.evidence.campaigns,
            redemptions = model.evidence.redemptions,
            "fitted the propensity on {} redemptions of {} campaigns",
            model.evidence.redemptions,
            model.evidence.campaigns
        ),
        Propensity::NotFitted { reason } => tracing::info!(%reason, "the propensity is not fitted: {reason}"),
    }
    Ok(propensity)
}

/// Encodes one part while the one before is stored, so that no more than three are in memory. Returns checksum and size.
async fn write(pool: &Pool, version: i64, snapshot: Snapshot) -> Result<([u8; 16], u64), TrainError> {
    let (sender, mut parts) = tokio::sync::mpsc::channel(1);
    let encoder = compute(move || {
        let mut encoding = Duration::ZERO;
        let mut began = Instant::now();
        for part in codec::encode(snapshot.parts()) {
            encoding += began.elapsed();
            if sender.blocking_send(part).is_err() {
                break;
            }
            began = Instant::now();
        }
        encoding
    });
    let store = async {
        let mut checksum = Checksum::default();
        let mut size_bytes = 0;
        while let Some(part) = parts.recv().await {
            checksum.add(part.name, &part.bytes);
            size_bytes += part.bytes.len() as u64;
            snapshots::write_part(pool, version, &part).await?;
        }
        Ok((checksum.finish(), size_bytes))
    };
    let (encoding, (checksum, size_bytes)) = tokio::try_join!(encoder, store)?;
    let encoding_ms = encoding.as_millis() as u64;
    tracing::info!(
        size_bytes,
        encoding_ms,
        "wrote {size_bytes} bytes, {encoding_ms} ms of it encoding them"
    );
    Ok((checksum, size_bytes))
}

/// Deletes old snapshots, and the changes that every one left has seen. The run has ended well whatever happens here.
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

/// Runs CPU work off the async workers.
pub(super) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TrainError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| TrainError::Panicked)
}
