//! `likemind snapshots`: lists, shows, activates, rolls back and prunes snapshots.

use clap::Subcommand;
use serde_json::json;

use super::database::{Database, Purpose};
use super::{Exit, process, report};
use crate::app::activation;
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::changes;
use crate::store::snapshots::{self, Activation, SnapshotRecord};

#[derive(Debug, clap::Args)]
pub(super) struct SnapshotsArgs {
    #[command(subcommand)]
    action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List snapshots, newest first
    List {
        /// The greatest number of snapshots to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1_000))]
        limit: i64,
    },
    /// Show a snapshot with its parameters and evaluation
    Show {
        /// The version of the snapshot
        #[arg(value_name = "VERSION")]
        snapshot: i64,
    },
    /// Activate a candidate, rejected or retired snapshot
    Activate {
        /// The version of the snapshot
        #[arg(value_name = "VERSION")]
        snapshot: i64,
        /// The reason, stored with the snapshot; required to activate a rejected one
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Activate the snapshot that was active before the current one
    Rollback {
        /// The reason, stored with the snapshot
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Delete old snapshots, but never the active one or the one before it
    Prune {
        /// The number of newest snapshots to keep [default: trainer.keep_snapshots]
        #[arg(long)]
        keep: Option<u32>,
    },
}

pub(super) async fn run(args: SnapshotsArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    act(&database.pool, args, &config).await?;
    database.close().await?;
    Ok(Exit::Done)
}

async fn act(pool: &Pool, args: SnapshotsArgs, config: &Config) -> anyhow::Result<()> {
    let show = |record: &SnapshotRecord| match args.json {
        true => println!("{:#}", report::snapshot_json(record)),
        false => report::print_snapshot(record),
    };
    let actor = process::actor();
    match args.action {
        Action::List { limit } => {
            let records = snapshots::list(pool, i64::MAX, limit).await?;
            match args.json {
                true => println!(
                    "{:#}",
                    json!(records.iter().map(report::snapshot_json).collect::<Vec<_>>())
                ),
                false => report::print_snapshots(&records),
            }
        }
        Action::Show { snapshot } => {
            let record = snapshots::get(pool, snapshot).await?;
            show(&record.ok_or_else(|| anyhow::anyhow!("there is no snapshot {snapshot}"))?);
        }
        Action::Activate { snapshot, reason } => {
            show(&activation::activate(pool, snapshot, Activation::Operator { actor: &actor }, &reason).await?);
        }
        Action::Rollback { reason } => show(&activation::rollback(pool, &actor, &reason).await?),
        Action::Prune { keep } => {
            let versions = snapshots::prune(pool, keep.unwrap_or(config.trainer.keep_snapshots)).await?;
            let changes = changes::prune(pool).await?;
            match args.json {
                true => println!("{:#}", json!({ "versions": versions, "changes": changes })),
                false => println!("Deleted {} snapshots and {changes} changes.", versions.len()),
            }
        }
    }
    Ok(())
}
