//! One training run, phase by phase: read, evaluate, fit, judge, write, activate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::live::{self, VerifyError};
use crate::store::postgres::leases::{self, Lease};
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::training::sales::Sales;
use crate::store::snapshots::{self, Activation, Finished, Place, SnapshotRecord, SnapshotState, TransitionError};
use coupons::backtest::{BacktestOptions, backtest};
use coupons::propensity::fit::{FitOptions, past_campaigns};
use coupons::{affinity, propensity};
use demand::model::Demand;
use recommender::evaluation::bias::{self, report::RankerBias};
use recommender::evaluation::error::EvaluationError;
use recommender::evaluation::evaluate::{Evaluated, Fitted, evaluate, still_beats_popularity};
use recommender::evaluation::gate::{Evidence, SnapshotCounts, judge};
use recommender::evaluation::held_out::HeldOutParts;
use recommender::evaluation::report::{Evaluation, GateVerdict, ParametersOf, TuningRecord};
use recommender::evaluation::split::Cut;
use recommender::snapshot::codec::{self, Checksum};
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::{Propensity, PropensityQuality};
use recommender::snapshot::{Snapshot, SnapshotParts};
use recommender::training::error::TrainingError;
use recommender::training::fit::{FitEvent, ModelOptions, fit};
use recommender::training::input::TrainingInput;
use recommender::training::matrix::effective_ratings;
use recommender::training::orders::orders;

use super::tuning::{fitted_of, record, reusable};
use super::{Phase, Progress, Report, TrainError, TrainOptions, Trained, compute};
use crate::app::demand::fit::{self as fit_demand, UserModel};
use crate::app::redaction;
use crate::app::training_input::{self, Read};

/// The propensity is measured on this many past campaigns, the latest: each needs a model of the data before it.
const BACKTESTED_CAMPAIGNS: usize = 10;

/// How often the data are read while erasures of users end meanwhile.
const READ_ATTEMPTS: u32 = 5;

/// A run under a lease.
pub(super) struct Run<'a> {
    pool: &'a Pool,
    lease: &'a Lease,
    options: &'a TrainOptions,
    report: Report,
}

/// The data of a run and the version that it builds.
struct Begun {
    version: i64,
    /// Dropped once the model is fitted, before it is written.
    input: Arc<TrainingInput>,
    sales: Sales,
    /// The snapshot that is active when the run begins.
    active: Option<SnapshotRecord>,
}

/// The figures that the gate judges by.
struct Measured {
    candidate: Evaluated,
    /// The active snapshot's parameters, fitted and measured on the same data as the candidate's.
    active: Option<Evaluated>,
    /// When the settings were fitted; `None` with too few users to fit them.
    tuned: Option<TuningRecord>,
    propensity: Option<PropensityQuality>,
    bias: Vec<RankerBias>,
}

impl<'a> Run<'a> {
    pub fn new(pool: &'a Pool, lease: &'a Lease, options: &'a TrainOptions, report: Report) -> Self {
        Self {
            pool,
            lease,
            options,
            report,
        }
    }

    pub async fn train(&self) -> Result<Trained, TrainError> {
        let Begun {
            version,
            input,
            sales,
            active,
        } = self.read().await?;
        let measured = self.measure(input.clone(), active.as_ref()).await?;
        let snapshot = self.fit(input.clone(), &measured.candidate).await?;
        self.begin(Phase::Demand);
        let snapshot = self.with_demand(snapshot, sales, input).await?;
        let counts = SnapshotCounts::of(snapshot.parts());
        let evaluation = self.judge(measured, counts, active.as_ref());
        self.write(version, snapshot, counts, &evaluation).await?;
        let snapshot = self.activate(version, evaluation.verdict).await?;
        Ok(Trained { snapshot, evaluation })
    }

    fn begin(&self, phase: Phase) {
        (self.report)(Progress::begin(phase));
    }

    /// Reads everything that the model is trained on, and begins a version.
    async fn read(&self) -> Result<Begun, TrainError> {
        self.begin(Phase::Reading);
        let mut attempt = 1;
        let (version, Read { input, sales, .. }) = loop {
            let read = training_input::read(self.pool, &self.options.privacy).await?;
            let (parameters, erased_through) = (&self.options.parameters, read.erased_through);
            match snapshots::begin(self.pool, self.lease, parameters, &read.watermark, erased_through).await {
                Err(TransitionError::Behind { .. }) if attempt < READ_ATTEMPTS => attempt += 1,
                begun => break (begun?, read),
            }
        };
        tracing::info!(
            version,
            users = input.users.len(),
            items = input.items.len(),
            ratings = input.ratings.len(),
            orders = input.orders.len(),
            "training snapshot {version}"
        );
        let active = snapshots::get_or_active(self.pool, None).await?;
        let input = Arc::new(input);
        Ok(Begun {
            version,
            input,
            sales,
            active,
        })
    }

    /// Fits the candidate's and the active parameters on the earlier part of the data, and measures both on the later part.
    async fn measure(
        &self,
        input: Arc<TrainingInput>,
        active: Option<&SnapshotRecord>,
    ) -> Result<Measured, TrainError> {
        self.begin(Phase::Evaluating);
        let reusable = reusable(active, &input, self.options);
        let active = active.map(|active| (active.parameters.clone(), fitted_of(active)));
        let parameters = self.options.parameters.clone();
        let (options, bias_options) = (self.options.evaluation.clone(), self.options.bias.clone());
        let attributes = training_input::attributes(self.pool, &input, &bias_options.attributes).await?;
        let backtest_options = BacktestOptions {
            max_campaigns: BACKTESTED_CAMPAIGNS,
            rankers: &[],
            ..BacktestOptions::new(self.propensity_options(), parameters.options.seed)
        };
        let measured = compute(move || {
            let held_out = HeldOutParts::new(&input, &parameters, &Cut::Latest, &options)?;
            let reused = match reusable {
                Some(reusable) if still_beats_popularity(&input, &held_out, &parameters, &reusable.fitted)? => {
                    Some(reusable)
                }
                _ => None,
            };
            let given = reused.as_ref().map(|reused| &reused.fitted);
            let mut candidate = evaluate(&input, &held_out, &parameters, given, ParametersOf::Candidate)?;
            let tuned = match (reused, candidate.tables.is_empty()) {
                (Some(reused), _) => {
                    candidate.choice = reused.choice;
                    Some(reused.tuned)
                }
                (None, false) => Some(record(&input)),
                (None, true) => None,
            };
            // The active snapshot itself was trained on the held-out data, so only its parameters are compared.
            let active = match active {
                None => None,
                Some((active, Some(fitted))) if active == parameters && fitted == candidate.fitted => {
                    Some(candidate.clone().relabeled(ParametersOf::Active))
                }
                Some((active, fitted)) => Some(evaluate(
                    &input,
                    &held_out,
                    &active,
                    fitted.as_ref(),
                    ParametersOf::Active,
                )?),
            };
            let resolved = parameters.resolved(&candidate.fitted.settings);
            let propensity = backtest(&input, &resolved, &backtest_options)?.propensity;
            let seed = parameters.options.seed;
            let bias = bias::shown::report(&candidate.shown, &input, &held_out, &attributes, &bias_options, seed);
            Ok::<_, EvaluationError>(Measured {
                candidate,
                active,
                tuned,
                propensity,
                bias,
            })
        });
        Ok(measured.await??)
    }

    /// Fits the demand of items on `sales`. Where that is not possible the snapshot gets the reason, for it is no reason to publish
    /// nothing.
    async fn with_demand(
        &self,
        snapshot: Snapshot,
        sales: Sales,
        input: Arc<TrainingInput>,
    ) -> Result<Snapshot, TrainError> {
        let n_items = snapshot.items().len();
        let parameters = self.options.parameters.clone();
        let settings = *snapshot.settings();
        let fit = move || {
            let users = UserModel {
                input: &input,
                parameters: &parameters,
                settings,
            };
            fit_demand::fit(sales, n_items, input.as_of, &users)
        };
        let demand = match compute(fit).await {
            Ok(demand) => demand,
            Err(_) => Demand::NotFitted {
                reason: "fitting it ended with a panic".to_owned(),
            },
        };
        if let Demand::NotFitted { reason } = &demand {
            tracing::warn!(%reason, "the demand of items is not fitted: {reason}");
        }
        Ok(snapshot.with_demand(demand)?)
    }

    /// Fits the model on everything.
    async fn fit(&self, input: Arc<TrainingInput>, candidate: &Evaluated) -> Result<Snapshot, TrainError> {
        let Fitted { weights, settings } = candidate.fitted.clone();
        let parameters = self.options.parameters.resolved(&settings);
        let propensity_options = self.propensity_options();
        let report = self.report.clone();
        let snapshot = compute(move || {
            report(Progress::begin(Phase::Rating));
            let effective = effective_ratings(&input, &parameters, |_, _, _| true)?;
            let observe = |event| match event {
                FitEvent::Progress { stage, done, total } => report(Progress {
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
                settings,
                listed_users: None,
            };
            let parts = fit(&input, effective, &options, &observe)?;
            let orders = orders(&input, &parts, settings.half_life_days, |_, _, _| true);
            let parts = SnapshotParts { orders, ..parts };
            report(Progress::begin(Phase::Checking));
            let snapshot = Snapshot::new(parts)?;
            let propensity = fit_propensity(&input, &parameters, &snapshot, &propensity_options)?;
            Ok::<_, TrainError>(snapshot.with_propensity(propensity)?)
        });
        snapshot.await?
    }

    /// Asks the gate whether the snapshot may become the active one.
    fn judge(&self, measured: Measured, counts: SnapshotCounts, active: Option<&SnapshotRecord>) -> Evaluation {
        let evidence = Evidence {
            candidate: &measured.candidate,
            active: measured.active.as_ref(),
            bias: &measured.bias,
            counts,
            active_counts: active.and_then(|active| active.counts),
        };
        let judgment = judge(&evidence, &self.options.gate);
        let Fitted { weights, settings } = measured.candidate.fitted.clone();
        let (choice, tables) = (measured.candidate.choice.clone(), measured.candidate.tables.clone());
        let evaluated = [Some(measured.candidate), measured.active].into_iter().flatten();
        let (ranking, rating): (Vec<_>, Vec<_>) =
            evaluated.map(|evaluated| (evaluated.ranking, evaluated.rating)).unzip();
        Evaluation {
            verdict: judgment.verdict,
            reasons: judgment.reasons,
            ranking: ranking.concat(),
            rating: rating.concat(),
            weights: Some(weights),
            choice: Some(choice),
            settings: Some(settings),
            tables,
            tuned: measured.tuned,
            propensity: measured.propensity,
            bias: measured.bias,
        }
    }

    /// Stores the snapshot as a candidate, or as rejected.
    async fn write(
        &self,
        version: i64,
        snapshot: Snapshot,
        counts: SnapshotCounts,
        evaluation: &Evaluation,
    ) -> Result<(), TrainError> {
        self.begin(Phase::Writing);
        let (checksum, size_bytes) = write_parts(self.pool, version, snapshot).await?;
        let mut finished = Finished {
            evaluation: evaluation.clone(),
            counts,
            size_bytes,
            checksum,
        };
        let state = match evaluation.verdict {
            GateVerdict::Rejected => SnapshotState::Rejected,
            GateVerdict::Passed | GateVerdict::InsufficientEvaluation => SnapshotState::Candidate,
        };
        loop {
            match snapshots::finish(self.pool, self.lease, version, &finished, state).await {
                // Users were erased since the data were read. Whoever is erased after the next look is found by the one after it.
                Err(TransitionError::Behind { .. }) => {
                    if let Some(rewritten) = redaction::rewrite(self.pool, self.lease, version).await? {
                        finished.checksum = rewritten.checksum;
                        finished.size_bytes = rewritten.size_bytes;
                    }
                }
                published => return Ok(published?),
            }
        }
    }

    /// Activates the snapshot unless it was rejected; a rejected one too if that is forced. Returns it as it is stored then.
    async fn activate(&self, version: i64, verdict: GateVerdict) -> Result<SnapshotRecord, TrainError> {
        let is_rejected = verdict == GateVerdict::Rejected;
        if !is_rejected || self.options.force.is_some() {
            self.begin(Phase::Activating);
            let note = match &self.options.force {
                Some(reason) if is_rejected => format!("forced: {reason}"),
                _ => String::new(),
            };
            let by = Activation::Trainer {
                lease: self.lease,
                actor: &self.options.holder,
            };
            self.verify(version).await?;
            snapshots::activate(self.pool, version, by, &note).await?;
        }
        let snapshot = snapshots::get(self.pool, version).await?;
        snapshot.ok_or(TrainError::Transition(TransitionError::Unknown { version }))
    }

    /// Reads back what is stored. Another trainer, which has taken the lease, may have deleted it.
    async fn verify(&self, version: i64) -> Result<(), TrainError> {
        match live::verify(self.pool, version).await {
            Err(VerifyError::Unusable { .. } | VerifyError::Unread { .. })
                if !leases::renew(self.pool, self.lease).await? =>
            {
                Err(TrainError::LeaseLost)
            }
            verified => Ok(verified?),
        }
    }

    fn propensity_options(&self) -> FitOptions {
        FitOptions::new(self.options.min_redemptions)
    }
}

/// Fits the propensity on all known campaigns, with the neighbor lists of `snapshot`, which will be used to score.
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

/// Stores the parts of `snapshot`. Encodes one part while the one before is stored, so that no more than three are in
/// memory. Returns checksum and size in bytes.
async fn write_parts(pool: &Pool, version: i64, snapshot: Snapshot) -> Result<([u8; 16], u64), TrainError> {
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
            snapshots::write_part(pool, Place::Building { version }, &part).await?;
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
