//! Releases expired reservations and deletes old request records, in a loop.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::redemptions;
use crate::store::redemptions::requests;
use domain::error::chain;

/// How often old request records are deleted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Sweeps every `interval` until `shutdown`. Any number of servers may sweep at the same time.
pub async fn run(pool: Pool, interval: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pruned_at: Option<Instant> = None;
    let mut is_well = true;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let is_due = pruned_at.is_none_or(|at| at.elapsed() >= PRUNE_INTERVAL);
        let result = sweep(&pool, is_due).await;
        match &result {
            Ok(()) if is_due => pruned_at = Some(Instant::now()),
            Ok(()) => {}
            Err(error) if error.is_reported_elsewhere() || !is_well => {}
            Err(error) => tracing::error!(error = %chain(error), "expired reservations could not be released"),
        }
        is_well = result.is_ok();
    }
}

async fn sweep(pool: &Pool, with_requests: bool) -> Result<(), StoreError> {
    let expired = release_expired(pool).await?;
    if expired > 0 {
        tracing::debug!(expired, "released {expired} expired reservations");
    }
    if with_requests {
        requests::prune(pool).await?;
    }
    Ok(())
}

/// Releases the reservations that have expired by now. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn release_expired(pool: &Pool) -> Result<u64, StoreError> {
    let expired = redemptions::sweep(pool).await?;
    metrics::counter!("likemind_reservations_expired_total").increment(expired);
    Ok(expired)
}
