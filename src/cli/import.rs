//! `likemind import`: imports records from a file.

mod arguments;
mod help;
mod progress;
mod records;
mod summary;

use anyhow::Context;
use tabular::input::Input;
use tokio_util::sync::CancellationToken;

use super::database::{Database, Purpose};
use super::{Exit, process};
use crate::app::import::{ImportError, ImportOptions, ImportSummary, import};
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use domain::error::{InvalidField, chain};

use self::arguments::ImportArgs;
use self::help::HELP;
use self::progress::Report;
use self::records::RecordsCommand;
pub(super) use self::summary::print_counts;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_long_help = HELP)]
pub struct ImportCommand {
    #[command(subcommand)]
    records: Option<RecordsCommand>,
    #[command(flatten)]
    import: ImportArgs,
}

pub(super) async fn run(command: ImportCommand, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    if let Some(command) = command.records {
        let ran = records::run(command, &database.pool).await;
        database.close().await?;
        return ran;
    }
    let imported = import_file(command.import, &database.pool, &config).await;
    database.close().await?;
    match imported {
        Ok(summary) if summary.interrupted => Ok(Exit::Interrupted),
        Ok(_) => Ok(Exit::Done),
        Err(error) => match exit_of(&error) {
            Some(exit) => {
                eprintln!("error: {}", chain(&*error));
                Ok(exit)
            }
            None => Err(error),
        },
    }
}

/// Returns the exit code of an error that has one of its own: wrong options, or too many rejected lines.
fn exit_of(error: &anyhow::Error) -> Option<Exit> {
    match error.downcast_ref() {
        Some(ImportError::Columns(_) | ImportError::Rules(_)) => Some(Exit::Usage),
        Some(ImportError::Rejected { .. }) => Some(Exit::Rejected),
        _ => error.is::<InvalidField>().then_some(Exit::Usage),
    }
}

/// Imports a file and prints the summary, also when the import stopped early.
async fn import_file(args: ImportArgs, pool: &Pool, config: &Config) -> anyhow::Result<ImportSummary> {
    let input = match args.file() {
        None => Input::stdin(),
        Some(file) => Input::file(file).with_context(|| format!("{} cannot be opened", file.display()))?,
    };
    let json = args.json;
    let options = ImportOptions {
        undo_days: config.import.undo_days,
        actor: process::actor(),
        ..args.options(config.rating)?
    };
    let result = import_with_progress(pool, input, &options, &process::shutdown_requested()).await;
    match &result {
        Ok(summary) => summary::print(summary, json)?,
        Err(ImportError::Stopped { summary, .. } | ImportError::Rejected { summary, .. }) => {
            summary::print(summary, json)?;
        }
        Err(_) => {}
    }
    Ok(result?)
}

/// Imports and shows the progress.
pub(super) async fn import_with_progress(
    pool: &Pool,
    input: Input,
    options: &ImportOptions,
    interrupt: &CancellationToken,
) -> Result<ImportSummary, ImportError> {
    let mut report = Report::new(&input);
    let result = import(pool, input, options, interrupt, |progress| report.update(progress)).await;
    report.end();
    result
}
