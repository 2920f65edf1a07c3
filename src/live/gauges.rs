//! Sets the metrics of what is served, in a separate loop: the lag must grow while a read of the database hangs.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use metrics::gauge;
use tokio_util::sync::CancellationToken;

use crate::store::postgres::pool::Pool;
use domain::time::Timestamp;

use super::Shared;

const INTERVAL: Duration = Duration::from_secs(1);

/// Sets the metrics once a second. `pool`: the pool of the requests.
pub(super) async fn run(shared: Arc<Shared>, pool: Pool, shutdown: CancellationToken) {
    let started = Utc::now();
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => set(&shared, &pool, started, Utc::now()),
        }
    }
}

fn set(shared: &Shared, pool: &Pool, started: Timestamp, now: Timestamp) {
    let status = shared.status.load();
    let seconds_since = |at: Timestamp| (now - at).num_milliseconds() as f64 / 1_000.0;
    gauge!("likemind_fresh_lag_seconds").set(seconds_since(status.refreshed_at.unwrap_or(started)));
    gauge!("likemind_fresh_entries").set(status.fresh_entries as f64);
    gauge!("likemind_snapshot_version").set(status.snapshot_version.unwrap_or(0) as f64);
    gauge!("likemind_snapshot_fallback").set(f64::from(u8::from(status.is_fallback)));
    // It is not set without a snapshot, as 0 would mean a new one.
    if let Some(created_at) = status.snapshot_created_at {
        gauge!("likemind_snapshot_age_seconds").set(seconds_since(created_at));
    }
    let pool = pool.usage();
    gauge!("likemind_pool_connections", "state" => "busy").set(f64::from(pool.busy));
    gauge!("likemind_pool_connections", "state" => "idle").set(f64::from(pool.idle));
}
