//! Sets up logs on standard error, and metrics and probes on an HTTP port of their own.

mod http;
mod process;
mod text;
mod user_ids;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::text::EachFactOnce;
use self::user_ids::{JsonLines, UserIdFormat, UserIds};
use crate::app::random::NoRandomness;
use domain::error::InvalidField;

/// Section `telemetry`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryOptions {
    pub log_format: LogFormat,
    /// The directives of `tracing_subscriber::EnvFilter`, for example `info,likemind::live=debug`.
    pub log_filter: String,
    /// How lines of the log show the ids of users.
    pub user_ids: UserIdFormat,
    /// The file with the key of hashed ids, 16 bytes or more. Without it the key is random, and a user has another hash in every
    /// process.
    pub user_ids_key_file: Option<PathBuf>,
    /// Whether a server exposes Prometheus metrics.
    pub metrics: bool,
    /// The address of the metrics, which are served over plain HTTP without authentication.
    pub metrics_listen: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_filter: "info,sqlx=error,rustls=error".to_owned(),
            user_ids: UserIdFormat::Plain,
            user_ids_key_file: None,
            metrics: true,
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 9_464)),
        }
    }
}

impl TelemetryOptions {
    /// # Errors
    /// [`InvalidField`] names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        EnvFilter::try_new(&self.log_filter).map(drop).map_err(|error| {
            let message = format!("must be log directives, for example info,likemind::live=debug ({error})");
            InvalidField::new("telemetry.log_filter", "INVALID_FILTER", message)
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("metrics cannot be served on {listen} (telemetry.metrics_listen)")]
    Metrics {
        listen: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("metrics cannot be recorded")]
    Recorder(#[source] BuildError),
    #[error("the key of hashed user ids cannot be read from {} (telemetry.user_ids_key_file)", file.display())]
    UserIdKey {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// The upper bounds of the buckets of RPC latencies, in seconds.
const LATENCY_BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Sends logs to standard error. Only the first call has an effect.
///
/// # Errors
/// [`TelemetryError::UserIdKey`] when the key of hashed ids cannot be read.
pub fn init_logs(options: &TelemetryOptions) -> Result<(), TelemetryError> {
    let user_ids = Arc::new(UserIds::new(options.user_ids, options.user_ids_key_file.as_deref())?);
    let filter = EnvFilter::try_new(&options.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Such an error would be printed to standard error, which panics when nobody reads it any more.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let result = match options.log_format {
        LogFormat::Text => registry
            .with(layer.with_target(false).fmt_fields(EachFactOnce(user_ids)))
            .try_init(),
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_writer(JsonLines(user_ids)))
            .try_init(),
    };
    // It fails only if logs were set up before, which then stay as they are.
    drop(result);
    Ok(())
}

/// Whether the server should get calls, as `/readyz` answers it. The server says how to find out when it has started.
#[derive(Clone, Default)]
pub struct Readiness(Arc<OnceLock<Check>>);

type Check = Box<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

impl Readiness {
    /// `check` returns why the server should get no calls. Of several calls the first counts.
    pub fn set(&self, check: impl Fn() -> Result<(), &'static str> + Send + Sync + 'static) {
        // Whoever was first stays.
        let _ = self.0.set(Box::new(check));
    }

    fn get(&self) -> Result<(), &'static str> {
        self.0.get().map_or(Err("the server is starting"), |check| check())
    }
}

/// Starts the HTTP listener for metrics and probes on the current runtime.
///
/// # Errors
/// [`TelemetryError::Metrics`] when the address cannot be bound.
pub fn init_metrics(options: &TelemetryOptions) -> Result<Readiness, TelemetryError> {
    let readiness = Readiness::default();
    if !options.metrics {
        return Ok(readiness);
    }
    let listen = options.metrics_listen;
    let listener = http::bind(listen).map_err(|source| TelemetryError::Metrics { listen, source })?;
    let bound = listener.local_addr().unwrap_or(listen);
    let recorded = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("likemind_rpc_seconds".to_owned()), &LATENCY_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(TelemetryError::Recorder)?;
    describe();
    tokio::spawn(http::serve(listener, recorded, readiness.clone()));
    tracing::info!("serving metrics on http://{bound}/metrics");
    Ok(readiness)
}

/// Gives every metric its HELP line.
fn describe() {
    describe_histogram!(
        "likemind_rpc_seconds",
        "Latency of calls in seconds, by method and code."
    );
    describe_gauge!("likemind_rpc_in_flight", "Calls under way.");
    describe_counter!(
        "likemind_rpc_shed_total",
        "Calls that were refused because a limit was reached."
    );
    describe_counter!(
        "likemind_answer_cache_total",
        "Answers looked up in the cache, by method and result (hit, miss)."
    );
    describe_gauge!("likemind_connections", "Open connections of clients.");
    describe_counter!(
        "likemind_connections_refused_total",
        "Connections that were refused because a limit on connections was reached."
    );
    describe_counter!(
        "likemind_tls_handshake_failures_total",
        "Connections whose TLS handshake failed."
    );
    describe_gauge!(
        "likemind_snapshot_version",
        "Version of the snapshot that is served; 0 for none."
    );
    describe_gauge!(
        "likemind_snapshot_fallback",
        "1 while another snapshot is served because the active one cannot be loaded, else 0."
    );
    describe_gauge!(
        "likemind_snapshot_age_seconds",
        "Age of the snapshot that is served, in seconds."
    );
    describe_counter!(
        "likemind_snapshot_load_failures_total",
        "Snapshots that could not be loaded."
    );
    describe_gauge!(
        "likemind_fresh_lag_seconds",
        "Time in seconds since the last read of what is written."
    );
    describe_gauge!("likemind_fresh_entries", "Entries of the overlay.");
    describe_counter!(
        "likemind_erased_events_dropped_total",
        "Entries that were dropped because their users were erased since."
    );
    describe_counter!(
        "likemind_fresh_dropped_total",
        "Entries that the overlay had no room for."
    );
    describe_counter!(
        "likemind_reservations_expired_total",
        "Reservations that have expired and gave back what they held."
    );
    describe_counter!(
        "likemind_retention_deleted_total",
        "Records that were deleted because they were older than privacy.retention_days, by kind."
    );
    describe_gauge!(
        "likemind_pool_connections",
        "Connections to the database, by state (busy, idle)."
    );
}
