//! Sets up logs on standard error and metrics on an HTTP port of their own.

mod text;

use std::io::IsTerminal;
use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::text::EachFactOnce;
use domain::error::InvalidField;

/// Section `telemetry`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryOptions {
    pub log_format: LogFormat,
    /// The directives of `tracing_subscriber::EnvFilter`, for example `info,likemind::live=debug`.
    pub log_filter: String,
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
        source: BuildError,
    },
}

/// The upper bounds of the buckets of RPC latencies, in seconds.
const LATENCY_BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];

/// Sends logs to standard error. Only the first call has an effect.
pub fn init_logs(options: &TelemetryOptions) {
    let filter = EnvFilter::try_new(&options.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Such an error would be printed to standard error, which panics when nobody reads it any more.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let result = match options.log_format {
        LogFormat::Text => registry
            .with(layer.with_target(false).fmt_fields(EachFactOnce))
            .try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    // It fails only if logs were set up before, which then stay as they are.
    drop(result);
}

/// Starts the HTTP listener of the metrics on the current runtime.
///
/// # Errors
/// [`TelemetryError::Metrics`] when the address cannot be bound.
pub fn init_metrics(options: &TelemetryOptions) -> Result<(), TelemetryError> {
    if !options.metrics {
        return Ok(());
    }
    let listen = options.metrics_listen;
    let error = |source| TelemetryError::Metrics { listen, source };
    PrometheusBuilder::new()
        .with_http_listener(listen)
        .set_buckets_for_metric(Matcher::Full("likemind_rpc_seconds".to_owned()), &LATENCY_BUCKETS)
        .and_then(PrometheusBuilder::install)
        .map_err(error)?;
    tracing::info!(%listen, "serving metrics on http://{listen}/metrics");
    Ok(())
}
