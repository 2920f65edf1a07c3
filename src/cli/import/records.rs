//! `likemind import list` and `likemind import undo`.

use crate::cli::{Exit, process};
use crate::store::imports::{self, ImportRecord};
use crate::store::postgres::pool::Pool;

#[derive(Debug, clap::Subcommand)]
pub(super) enum RecordsCommand {
    /// List the imports, the latest first
    List {
        /// How many to list
        #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take an import back: remove its rows, restore what it has overwritten, and roll its redemptions back
    Undo {
        /// The id that the import printed
        id: i64,
        /// Print what has changed as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: RecordsCommand, pool: &Pool) -> anyhow::Result<Exit> {
    match command {
        RecordsCommand::List { limit, json } => {
            let imports = imports::list(pool, i64::MAX, limit.into()).await?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&imports)?),
                false => imports.iter().for_each(print),
            }
        }
        RecordsCommand::Undo { id, json } => {
            let undone = imports::undo(pool, id, &process::actor()).await?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&undone)?),
                false => println!(
                    "import {id} is undone: {} rows restored, {} removed, {} redemptions rolled back, {} rows kept",
                    undone.restored, undone.removed, undone.rolled_back, undone.kept
                ),
            }
        }
    }
    Ok(Exit::Done)
}

fn print(import: &ImportRecord) {
    let undo = if import.is_undoable { "" } else { ", cannot be undone" };
    println!(
        "{:>6}  {}  {:<12} {:<11} {} stored, {} merged, {} rejected{undo}  {}",
        import.id,
        import.started_at.format("%Y-%m-%d %H:%M:%S"),
        import.kind,
        import.state.as_str(),
        import.lines.stored,
        import.lines.merged,
        import.lines.rejected,
        import.source
    );
}
