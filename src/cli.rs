//! The commands, one file each.

// Its macros take the place of the standard library's in all commands.
#[macro_use]
mod output;

mod bias;
pub mod call;
mod config;
mod csv_output;
mod database;
mod erase;
mod evaluate;
mod export_user;
mod figures;
mod forecast;
mod ids;
mod import;
mod keys;
mod migrate;
mod process;
mod quickstart;
mod replenish;
mod report;
mod secret;
mod serve;
mod snapshots;
mod synth;
mod targets;
mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use self::call::CallOutcome;
use crate::config::{Config, Sources};
use crate::store::postgres::options::without_passwords;
use crate::telemetry;
use domain::error::chain;

/// Learns from ratings and purchases, and serves recommendations and coupon decisions over gRPC.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct GlobalArgs {
    /// Configuration file [default: likemind.toml in the working folder, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a configuration key, overriding file and environment; may be repeated
    #[arg(long = "set-config", global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set_config: Vec<(String, String)>,
    /// PostgreSQL database to use instead of a private one (database.url). Every user of this machine can read the arguments of
    /// a running command: give a URL with a password by --database-url-file, by the environment variable
    /// LIKEMIND__DATABASE__URL or in the configuration file
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// File that holds the URL of the database, or - to read it from standard input
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
    /// Folder of the private PostgreSQL (data_dir)
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try everything on sample data: import, train, serve and show live answers
    Quickstart(quickstart::QuickstartArgs),
    /// Serve the active snapshot over gRPC
    Serve(serve::ServeArgs),
    /// Migrate the database schema to the version of this program
    Migrate,
    /// Import ratings, purchases, items, campaigns and other records from a file
    Import(Box<import::ImportCommand>),
    /// Train a snapshot on the stored data, and activate it if it passes the gate
    Train(train::TrainArgs),
    /// Measure how well the configured parameters predict past data; store nothing
    Evaluate(evaluate::EvaluateArgs),
    /// List, show, activate, roll back or prune snapshots
    Snapshots(snapshots::SnapshotsArgs),
    /// Show how a snapshot treats items, merchants and groups of users
    Bias(bias::BiasArgs),
    /// List the users who should get a coupon, best first
    Targets(targets::TargetsArgs),
    /// Forecast how much of an item, a category or a merchant will sell
    Forecast(forecast::ForecastArgs),
    /// List what to reorder, most urgent first, and what is overstocked
    Replenish(replenish::ReplenishArgs),
    /// Write everything that is held on a user, as JSON
    ExportUser(export_user::ExportUserArgs),
    /// Erase users: their rows, and what snapshots hold of them
    Erase(erase::EraseArgs),
    /// Create, list or revoke API keys
    Keys(keys::KeysArgs),
    /// Print the configuration in effect, without secrets
    Config(config::ConfigArgs),
    /// Call an RPC of a running server
    Call(call::CallArgs),
    /// Write synthetic ratings for benchmarks
    #[command(hide = true)]
    Synth(synth::SynthArgs),
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure; the message says why
  2  invalid usage or configuration
  3  train: the gate rejected the snapshot
     call: the RPC answered with an error
     targets: the propensity is not fitted, or the campaign has stopped; rows printed before remain valid
  4  train: another trainer is at work
  5  train: the lease was lost, and nothing was published
  6  import: no line was accepted, or more were rejected than allowed
130  interrupted";

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    Usage,
    /// Refused by the gate, by the called server, or because of the state of a campaign.
    Refused,
    AnotherTrainer,
    LeaseLost,
    /// No line of a file was accepted, or too many were rejected.
    Rejected,
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::AnotherTrainer => 4,
            Exit::LeaseLost => 5,
            Exit::Rejected => 6,
            Exit::Interrupted => 130,
        })
    }
}

/// Runs the command named by the arguments of this process. Returns the exit code.
///
/// The runtime is created here and not in `main`, so that the commands are compiled once, with the library.
pub fn run() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| exit_for_usage(&error));
    let result = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(dispatch(cli));
        // Blocking computations that were abandoned need not finish.
        runtime.shutdown_background();
        result
    });
    match (result, output::failure()) {
        (Ok(Exit::Done), Some(error)) => {
            eprintln!("error: standard output cannot be written: {error}");
            ExitCode::FAILURE
        }
        (Ok(exit), _) => exit.into(),
        (Err(error), _) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Prints the help, the version, or what is wrong with the arguments, and ends the process.
fn exit_for_usage(error: &clap::Error) -> ! {
    let text = error.to_string();
    let shown = without_passwords(&text);
    // The library prints in color, but quotes the arguments as they are.
    match shown == text {
        true => error.exit(),
        false => {
            eprintln!("{}", shown.trim_end());
            std::process::exit(error.exit_code())
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let config = match cli.sources().and_then(|sources| Ok(Config::load(&sources)?)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            return Ok(Exit::Usage);
        }
    };
    if let Err(error) = telemetry::init_logs(&config.telemetry) {
        eprintln!("error: {}", chain(&error));
        return Ok(Exit::Usage);
    }
    match cli.command {
        Command::Quickstart(args) => quickstart::run(args, config).await,
        Command::Serve(_) => serve::run(config).await,
        Command::Migrate => migrate::run(config).await,
        Command::Import(args) => import::run(*args, config).await,
        Command::Train(args) => train::run(args, config).await,
        Command::Evaluate(args) => evaluate::run(args, config).await,
        Command::Snapshots(args) => snapshots::run(args, config).await,
        Command::Bias(args) => bias::run(args, config).await,
        Command::Targets(args) => targets::run(args, config).await,
        Command::Forecast(args) => forecast::run(args, config).await,
        Command::Replenish(args) => replenish::run(args, config).await,
        Command::ExportUser(args) => export_user::run(args, config).await,
        Command::Erase(args) => erase::run(args, config).await,
        Command::Keys(args) => keys::run(args, config).await,
        Command::Config(args) => config::run(args, &config),
        Command::Synth(args) => synth::run(args),
        Command::Call(args) => Ok(match call::run(args, &config.server.address(&config.tls)).await? {
            CallOutcome::Ok => Exit::Done,
            CallOutcome::Status(_) => Exit::Refused,
            CallOutcome::Usage => Exit::Usage,
        }),
    }
}

impl Cli {
    /// # Errors
    /// The file with the URL of the database cannot be read.
    fn sources(&self) -> anyhow::Result<Sources> {
        let database_url = match &self.global.database_url_file {
            Some(file) => Some(secret::read(file).context("--database-url-file")?),
            None => self.global.database_url.clone(),
        };
        let listen = match &self.command {
            Command::Quickstart(args) => args.listen,
            Command::Serve(args) => args.listen,
            _ => None,
        };
        let mut flags = self.global.set_config.clone();
        let named = [
            ("database.url", database_url),
            ("data_dir", self.global.data_dir.clone()),
            ("server.listen", listen.map(|listen| listen.to_string())),
        ];
        for (key, value) in named {
            flags.extend(value.map(|value| (key.to_owned(), value)));
        }
        Ok(Sources {
            file: self.global.config.clone(),
            environment: std::env::vars_os()
                .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags,
        })
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("must be KEY=VALUE, for example training.neighbors=80")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
