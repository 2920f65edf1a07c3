//! The loop that gives back what expired reservations hold, and forgets old requests.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::redemptions;
use crate::store::redemptions::requests;
use domain::error::chain;

/// How often old requests are forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Sweeps once an `interval` until `shutdown`. Any number of servers may do so at a time.
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
            // That the database is away is reported where fresh data is read.
            Err(error) if error.retry_after().is_some() || !is_well => {}
            Err(error) => tracing::error!(error = %chain(error), "expired reservations could not be given back"),
        }
        is_well = result.is_ok();
    }
}

async fn sweep(pool: &Pool, with_requests: bool) -> Result<(), StoreError> {
    let expired = give_back_expired(pool).await?;
    if expired > 0 {
        tracing::debug!(expired, "gave back what {expired} expired reservations held");
    }
    if with_requests {
        requests::prune(pool).await?;
    }
    Ok(())
}

/// Gives back what expired reservations hold now. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn give_back_expired(pool: &Pool) -> Result<u64, StoreError> {
    let expired = redemptions::sweep(pool).await?;
    metrics::counter!("likemind_reservations_expired_total").increment(expired);
    Ok(expired)
}
