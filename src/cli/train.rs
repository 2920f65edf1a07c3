//! `likemind train`.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::database::{Database, Purpose};
use super::report::{self, PhaseReport};
use super::{Exit, actor, shutdown};
use crate::app::train::{Progress, TrainError, TrainOptions, Trained, train};
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::SnapshotState;
use recommender::evaluation::report::GateVerdict;

#[derive(Debug, clap::Args)]
pub(super) struct TrainArgs {
    /// Activate the snapshot whatever the gate says; the reason is kept with it
    #[arg(long, value_name = "REASON", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    force: Option<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: TrainArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let result = train_now(&database.pool, &config, &shutdown::requested(), args.force).await;
    let exit = match result {
        Ok(trained) => {
            match args.json {
                true => println!("{}", serde_json::to_string_pretty(&to_json(&trained))?),
                false => print(&trained),
            }
            match trained.snapshot.state {
                SnapshotState::Rejected => Exit::Refused,
                _ => Exit::Done,
            }
        }
        Err(error) => ended(error)?,
    };
    database.close().await?;
    Ok(exit)
}

/// How the command ends that could not train.
pub(super) fn ended(error: TrainError) -> anyhow::Result<Exit> {
    let exit = match error {
        TrainError::AnotherTrainer(_) => Exit::AnotherTrainer,
        TrainError::LeaseLost => Exit::LeaseLost,
        TrainError::Interrupted => Exit::Interrupted,
        error => return Err(error.into()),
    };
    eprintln!("error: {error}");
    Ok(exit)
}

/// Trains with the configured parameters, showing progress.
pub(super) async fn train_now(
    pool: &Pool,
    config: &Config,
    interrupt: &CancellationToken,
    force: Option<String>,
) -> Result<Trained, TrainError> {
    let options = TrainOptions {
        parameters: config.training_parameters(),
        evaluation: config.evaluation.clone(),
        gate: config.gate.clone(),
        trainer: config.trainer.clone(),
        privacy: config.privacy,
        min_redemptions: config.coupons.min_redemptions,
        holder: actor::this_process(),
        force,
    };
    let report = Arc::new(PhaseReport::new());
    let told = report.clone();
    let told = move |progress: Progress| told.update(progress.phase.as_str(), progress.done, progress.total);
    let result = train(pool, &options, interrupt, Arc::new(told)).await;
    report.end();
    result
}

pub(super) fn print(trained: &Trained) {
    report::print_ranking(&trained.evaluation.ranking);
    report::print_rating(&trained.evaluation.rating);
    for reason in &trained.evaluation.reasons {
        println!("{reason}");
    }
    let snapshot = &trained.snapshot;
    let verdict = match trained.evaluation.verdict {
        GateVerdict::Passed => "PASSED",
        GateVerdict::Rejected => "REJECTED",
        GateVerdict::InsufficientEvaluation => "INSUFFICIENT_EVALUATION",
    };
    println!("snapshot {}: {verdict}, {}", snapshot.version, snapshot.state);
}

fn to_json(trained: &Trained) -> serde_json::Value {
    let mut value = report::snapshot_json(&trained.snapshot);
    value["evaluation"] = json!(trained.evaluation);
    value
}
