//! `likemind quickstart`: shows everything at once, on samples of real purchases and coupons.

mod campaign;
mod commands;
mod coupons;
mod demand;
mod demo;
mod recommendations;
mod sample;

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use self::commands::Commands;
use self::demo::Demo;
use super::database::{Database, Purpose};
use super::keys::random_key;
use super::{Exit, process, serve};
use crate::config::Config;
use crate::grpc::server::{self, Listener};
use crate::store::access::keys::{self, NewKey};
use crate::store::postgres::pool::Pool;
use crate::telemetry::{self, Readiness};
use domain::access::Role;
use domain::error::chain;

#[derive(Debug, clap::Args)]
pub(super) struct QuickstartArgs {
    /// Address and port to listen on (server.listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// Exit after the answers instead of serving
    #[arg(long)]
    exit: bool,
}

/// The note on the keys of quickstart.
const QUICKSTART: &str = "quickstart";

pub(super) async fn run(args: QuickstartArgs, config: Config) -> anyhow::Result<Exit> {
    if config.tls.is_on() {
        bail!(
            "quickstart calls its own server in plain text; leave out tls.certificate_file and tls.key_file, or use serve"
        );
    }
    let shutdown = process::shutdown_requested();
    let listener = server::bind(&config.server, &config.tls, config.database.open_files()).await?;
    let address = format!("http://{}", listener.address);
    let database = Database::open(&config, Purpose::Job).await?;
    let exit = match sample::prepare(&database.pool, &config, &shutdown).await? {
        Exit::Done => show_and_serve(&args, &config, &database, listener, &address, shutdown).await?,
        early => early,
    };
    database.close().await?;
    Ok(exit)
}

/// Starts the server, shows its answers, and serves on unless `--exit` is given.
async fn show_and_serve(
    args: &QuickstartArgs,
    config: &Config,
    database: &Database,
    listener: Listener,
    address: &str,
    shutdown: CancellationToken,
) -> anyhow::Result<Exit> {
    let readiness = telemetry::init_metrics(&config.telemetry).unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "metrics are not available");
        Readiness::default()
    });
    let pool = database.pool_for(config, Purpose::Serving)?;
    let key = new_key(&database.pool).await?;
    let mut serving = tokio::spawn({
        let (config, pool, shutdown) = (config.clone(), pool.clone(), shutdown.clone());
        async move { serve::serve(listener, &config, pool, readiness, shutdown).await }
    });
    const PANICKED: &str = "the server ended with a panic";
    let shown = tokio::select! {
        shown = show(config, address, &key) => shown,
        ended = &mut serving => {
            ended.context(PANICKED)??;
            return Ok(Exit::Interrupted);
        }
    };
    match (&shown, args.exit) {
        (Ok(commands), false) => {
            commands.print(&key);
            println!("\nServing on {address} until Ctrl-C.");
        }
        _ => shutdown.cancel(),
    }
    serving.await.context(PANICKED)??;
    pool.close().await;
    shown?;
    if args.exit {
        Commands::print_how_to_start_again();
    }
    Ok(Exit::Done)
}

/// Creates a key for this run and revokes those of earlier runs, which nobody uses any more.
async fn new_key(pool: &Pool) -> anyhow::Result<String> {
    let actor = process::actor();
    for record in keys::list(pool).await? {
        if record.note == QUICKSTART && record.revoked_at.is_none() {
            keys::revoke(pool, &record.id, &actor).await?;
        }
    }
    let key = random_key()?;
    let new = NewKey {
        id: key.id.clone(),
        secret_hash: key.secret_hash(),
        role: Role::Admin,
        merchant: None,
        note: QUICKSTART.to_owned(),
        expires_at: None,
    };
    keys::create(pool, &new, &actor).await?;
    Ok(key.expose())
}

/// Calls the running server over gRPC and prints its answers. Returns the commands to try next.
async fn show(config: &Config, address: &str, key: &str) -> anyhow::Result<Commands> {
    let mut demo = Demo::connect(address, key).await?;
    demo.wait_for_snapshot().await?;
    let mut commands = Commands::new(config, address);
    recommendations::show(&mut demo, &mut commands).await?;
    coupons::show(&mut demo, &mut commands).await?;
    demand::show(&mut demo, &mut commands).await?;
    Ok(commands)
}
