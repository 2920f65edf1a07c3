//! Deletes records that are older than `privacy.retention_days` allows, in a loop. One server of a database does it at a time.

use std::time::Duration;

use chrono::Utc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Lease};
use crate::store::postgres::pool::Pool;
use crate::store::privacy::retention::{self, RecordKind};
use domain::error::{InvalidField, chain};
use domain::time::Timestamp;

/// How many days records of each kind are kept; `None` keeps them until they are erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionDays {
    /// Lines of orders, by `purchased_at`.
    pub purchases: Option<u32>,
    pub exposures: Option<u32>,
    /// The answers to mutations, which are never kept for longer than [`REQUEST_LOG_DAYS`].
    pub request_log: Option<u32>,
    pub audit: Option<u32>,
}

/// The days after which the answer to a mutation is deleted in any case.
pub const REQUEST_LOG_DAYS: u32 = 30;
/// A hundred years.
const MAX_DAYS: u32 = 36_500;

impl RetentionDays {
    pub fn of(&self, kind: RecordKind) -> Option<u32> {
        match kind {
            RecordKind::Purchases => self.purchases,
            RecordKind::Exposures => self.exposures,
            RecordKind::RequestLog => self.request_log,
            RecordKind::Audit => self.audit,
        }
    }

    fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// # Errors
    /// [`InvalidField`] names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        for kind in RecordKind::ALL {
            let most = match kind {
                RecordKind::RequestLog => REQUEST_LOG_DAYS,
                _ => MAX_DAYS,
            };
            if let Some(days) = self.of(kind).filter(|days| !(1..=most).contains(days)) {
                let key = format!("privacy.retention_days.{}", kind.as_str());
                let message = format!("must lie between 1 and {most}, is {days}");
                return Err(InvalidField::new(key, "OUT_OF_RANGE", message));
            }
        }
        Ok(())
    }
}

/// The pause after a batch, so that others get their turn.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a server asks whether it is its turn, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Deletes what is too old at once and then every `interval`, until `shutdown`. Of several servers the one that takes the lease
/// does it; the lease is not given back, so that the others leave it alone for the rest of the interval.
pub async fn run(pool: Pool, days: RetentionDays, interval: Duration, shutdown: CancellationToken) {
    if days.is_off() {
        return;
    }
    let mut ticks = tokio::time::interval(interval.min(LONGEST_WAIT));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_well = true;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let enforced = tokio::select! {
            () = shutdown.cancelled() => return,
            enforced = enforce(&pool, &days, interval) => enforced,
        };
        match &enforced {
            Ok(()) => {}
            Err(error) if error.is_reported_elsewhere() || !is_well => {}
            Err(error) => tracing::error!(error = %chain(error), "old records could not be deleted"),
        }
        is_well = enforced.is_ok();
    }
}

/// Deletes what is too old, if no other server does or has done it within `interval`.
async fn enforce(pool: &Pool, days: &RetentionDays, interval: Duration) -> Result<(), StoreError> {
    let holder = format!("likemind serve, process {}", std::process::id());
    let Ok(lease) = leases::acquire(pool, leases::RETENTION, &holder, interval).await? else {
        return Ok(());
    };
    let enforced = enforce_as_holder(pool, days, &lease).await;
    if enforced.is_err() {
        // Another server, or this one, tries again soon. The lease may be lost with the database.
        let _ = leases::release(pool, &lease).await;
    }
    enforced
}

async fn enforce_as_holder(pool: &Pool, days: &RetentionDays, lease: &Lease) -> Result<(), StoreError> {
    for kind in RecordKind::ALL {
        let Some(days) = days.of(kind) else { continue };
        let before = Utc::now() - chrono::Duration::days(days.into());
        let (deleted, is_holder) = delete(pool, kind, before, lease).await?;
        if deleted > 0 {
            let kind = kind.as_str();
            tracing::info!(
                kind,
                deleted,
                days,
                "deleted {deleted} records of {kind} older than {days} days"
            );
        }
        if !is_holder {
            break;
        }
    }
    Ok(())
}

/// Deletes the records of `kind` from before `before` in batches. Returns their number, and whether the lease is still held:
/// without it another server goes on.
async fn delete(pool: &Pool, kind: RecordKind, before: Timestamp, lease: &Lease) -> Result<(u64, bool), StoreError> {
    let counter = metrics::counter!("likemind_retention_deleted_total", "kind" => kind.as_str());
    let (mut deleted, mut from) = (0, 0);
    loop {
        let batch = retention::expire(pool, kind, from, before, ACTOR).await?;
        counter.increment(batch.deleted);
        deleted += batch.deleted;
        let is_holder = leases::renew(pool, lease).await?;
        match batch.next {
            Some(next) if is_holder => from = next,
            _ => return Ok((deleted, is_holder)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The actor in rows of audit.
const ACTOR: &str = "retention";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_out_of_range_are_refused_by_the_name_of_their_key() {
        let check = |days: RetentionDays, expected: Option<&str>| {
            let refused = days.validate().err().map(|error| error.field);
            assert_eq!(refused.as_deref(), expected, "{days:?}");
        };
        let purchases = |days| RetentionDays {
            purchases: Some(days),
            ..RetentionDays::default()
        };
        let requests = |days| RetentionDays {
            request_log: Some(days),
            ..RetentionDays::default()
        };
        check(RetentionDays::default(), None);
        check(purchases(1), None);
        check(purchases(MAX_DAYS), None);
        check(purchases(0), Some("privacy.retention_days.purchases"));
        check(purchases(MAX_DAYS + 1), Some("privacy.retention_days.purchases"));
        check(requests(30), None);
        check(requests(31), Some("privacy.retention_days.request_log"));
    }
}
