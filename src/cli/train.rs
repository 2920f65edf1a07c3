//! `likemind train`: trains a snapshot.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::database::{Database, Purpose};
use super::report::{self, PhaseReport};
use super::{Exit, process};
use crate::app::train::{Progress, TrainError, TrainOptions, Trained, train};
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::SnapshotState;
use recommender::evaluation::gate::SnapshotCounts;
use recommender::evaluation::report::GateVerdict;

#[derive(Debug, clap::Args)]
pub(super) struct TrainArgs {
    /// Activate the snapshot even if the gate rejects it; the reason is stored with it
    #[arg(long, value_name = "REASON", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    force: Option<String>,
    /// Fit the settings of ranking scores anew, even if those of the active snapshot are recent enough to be taken over
    #[arg(long)]
    tune: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: TrainArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let requested = Requested {
        tune: args.tune,
        force: args.force,
    };
    let result = train_with_progress(&database.pool, &config, &process::shutdown_requested(), requested).await;
    let exit = match result {
        Ok(trained) => {
            match args.json {
                true => println!("{}", serde_json::to_string_pretty(&to_json(&trained))?),
                false => print(&trained),
            }
            match trained.snapshot.state {
                SnapshotState::Rejected => {
                    let version = trained.snapshot.version;
                    let is_empty = trained.snapshot.counts.is_some_and(SnapshotCounts::is_empty);
                    let why = match is_empty {
                        true => {
                            ", as there is nothing to recommend by: train again when ratings or purchases are imported"
                        }
                        false => "",
                    };
                    eprintln!(
                        "the gate rejected snapshot {version}{why}; to serve it all the same, run \
                         `likemind snapshots activate {version} --reason REASON`, or train with `--force REASON`"
                    );
                    Exit::Refused
                }
                _ => Exit::Done,
            }
        }
        Err(error) => exit_of(error)?,
    };
    database.close().await?;
    Ok(exit)
}

/// Prints why training ended early and returns the exit code, for errors that have one of their own.
pub(super) fn exit_of(error: TrainError) -> anyhow::Result<Exit> {
    let exit = match error {
        TrainError::AnotherTrainer(_) => Exit::AnotherTrainer,
        TrainError::LeaseLost => Exit::LeaseLost,
        TrainError::Interrupted => Exit::Interrupted,
        error => return Err(error.into()),
    };
    eprintln!("error: {error}");
    Ok(exit)
}

/// The options that the caller gives beside the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Requested {
    /// Fit the settings of ranking scores anew.
    pub tune: bool,
    /// Activate a rejected snapshot, for this reason.
    pub force: Option<String>,
}

/// Trains with the configured parameters and shows the progress.
pub(super) async fn train_with_progress(
    pool: &Pool,
    config: &Config,
    interrupt: &CancellationToken,
    requested: Requested,
) -> Result<Trained, TrainError> {
    let options = options(config, requested);
    let report = Arc::new(PhaseReport::new());
    let receiver = report.clone();
    let receive = move |progress: Progress| receiver.update(progress.phase.as_str(), progress.done, progress.total);
    let result = train(pool, &options, interrupt, Arc::new(receive)).await;
    report.end();
    result
}

/// Returns the options of a run with the configured parameters.
pub(super) fn options(config: &Config, Requested { tune, force }: Requested) -> TrainOptions {
    TrainOptions {
        parameters: config.training_parameters(),
        evaluation: config.evaluation.clone(),
        gate: config.gate.clone(),
        bias: config.bias.clone(),
        trainer: config.trainer.clone(),
        privacy: config.privacy.consent(),
        min_redemptions: config.coupons.min_redemptions,
        holder: process::actor(),
        tune,
        force,
    }
}

pub(super) fn print(trained: &Trained) {
    report::print_ranking(&trained.evaluation.ranking);
    report::print_rating(&trained.evaluation.rating);
    report::print_settings(trained.evaluation.settings.as_ref(), &trained.evaluation.tables);
    report::print_choices(trained.evaluation.weights.as_ref(), trained.evaluation.choice.as_ref());
    for reason in &trained.evaluation.reasons {
        println!("{reason}");
    }
    let snapshot = &trained.snapshot;
    let verdict = match trained.evaluation.verdict {
        GateVerdict::Passed => "PASSED",
        GateVerdict::Rejected => "REJECTED",
        GateVerdict::InsufficientEvaluation => "INSUFFICIENT_EVALUATION",
    };
    match (trained.evaluation.verdict, snapshot.state) {
        // The state would only repeat the verdict.
        (GateVerdict::Rejected, SnapshotState::Rejected) => println!("snapshot {}: {verdict}", snapshot.version),
        (_, state) => println!("snapshot {}: {verdict}, {state}", snapshot.version),
    }
}

fn to_json(trained: &Trained) -> serde_json::Value {
    let mut value = report::snapshot_json(&trained.snapshot);
    value["evaluation"] = json!(trained.evaluation);
    value
}
