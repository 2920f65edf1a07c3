//! `likemind serve`: runs the gRPC server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::database::{Database, Purpose};
use super::train::{self, Requested};
use super::{Exit, process};
use crate::admission::Access;
use crate::admission::keyring::Keyring;
use crate::app::erasure::{self, Eraser};
use crate::app::retraining::{self, Retrain};
use crate::app::{retention, sweep};
use crate::config::Config;
use crate::grpc::server::{self, Listener, Services};
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::telemetry::{self, Readiness};
use coupons::eligibility::Policy;

/// How often a server looks whether a training is due.
const RETRAINING_INTERVAL: Duration = Duration::from_secs(5);
/// The longest wait of a server that ends for its own training to give up the lease.
const LONGEST_GIVING_BACK: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Address and port to listen on (server.listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<SocketAddr>,
}

pub(super) async fn run(config: Config) -> anyhow::Result<Exit> {
    let shutdown = process::shutdown_requested();
    let listener = server::bind(&config.server, &config.tls, config.database.open_files()).await?;
    let readiness = telemetry::init_metrics(&config.telemetry)?;
    let database = Database::open(&config, Purpose::Serving).await?;
    serve(listener, &config, database.pool.clone(), readiness, shutdown).await?;
    database.close().await?;
    Ok(Exit::Done)
}

/// Loads the active snapshot, then serves until `shutdown`.
pub(super) async fn serve(
    listener: Listener,
    config: &Config,
    pool: Pool,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if config.server.allow_unauthenticated && !config.server.listen.ip().is_loopback() {
        tracing::warn!(
            address = %listener.address,
            "server.allow_unauthenticated is set, so anyone who can reach {} may read and write everything",
            listener.address
        );
    }
    if config.server.allow_plaintext && config.server.is_plaintext_beyond_loopback(&config.tls) {
        tracing::warn!(
            address = %listener.address,
            "server.allow_plaintext is set, so traffic to and from {} can be read and changed by others on the network",
            listener.address
        );
    }
    let interval = Duration::from_millis(config.live.refresh_interval_ms);
    let keyring = Keyring::start(pool.clone(), &config.access, interval, shutdown.clone()).await;
    let access = Access {
        keyring,
        keyless: config.server.keyless(),
        capacity: config.server.capacity(),
    };
    let live = Live::start(
        pool.clone(),
        config.live.clone(),
        config.privacy.consent(),
        shutdown.clone(),
    )
    .await;
    readiness.set({
        let (live, shutdown) = (live.clone(), shutdown.clone());
        move || match (shutdown.is_cancelled(), live.view()) {
            (true, _) => Err("the server is stopping"),
            (false, None) => Err("no snapshot is loaded"),
            (false, Some(_)) => Ok(()),
        }
    });
    let interval = Duration::from_millis(config.coupons.sweep_interval_ms);
    let sweeping = tokio::spawn(sweep::run(pool.clone(), interval, shutdown.clone()));
    let retraining = match config.erasure.retrain {
        Retrain::Next => None,
        Retrain::Always => {
            let options = train::options(config, Requested::default());
            let looks = retraining::run(pool.clone(), options, RETRAINING_INTERVAL, shutdown.clone());
            Some(tokio::spawn(looks))
        }
    };
    let interval = Duration::from_millis(config.privacy.retention_interval_ms);
    let days = config.privacy.retention_days;
    let expiring = tokio::spawn(retention::run(pool.clone(), days, interval, shutdown.clone()));
    let eraser = Eraser {
        pool: pool.clone(),
        consent_proof_days: config.privacy.consent_proof_days,
        settle: Duration::from_millis(config.erasure.settle_ms),
        actor: process::actor(),
    };
    let interval = Duration::from_millis(config.erasure.interval_ms);
    let erasing = tokio::spawn(erasure::run(eraser, interval, shutdown.clone()));
    let services = Services {
        pool,
        live: live.clone(),
        scale: config.rating,
        sensitive: config.privacy.sensitive(),
        bias: config.bias.clone(),
        import: config.import,
        rules: config.holding_rules(),
        policy: Policy::new(config.privacy.consent(), &config.coupons),
        access,
    };
    let served = server::serve(listener, &config.server, services, shutdown).await;
    sweeping.abort();
    live.leave().await;
    if let Some(retraining) = retraining {
        // It ends with the shutdown, and gives its lease back.
        let _ = tokio::time::timeout(LONGEST_GIVING_BACK, retraining).await;
    }
    expiring.abort();
    erasing.abort();
    Ok(served?)
}
