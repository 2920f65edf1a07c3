//! Remembers when PostgreSQL last refused work that it would do at another time: because it is read-only, as after a
//! failover, or because it is out of disk space, memory or other resources.
//!
//! The connections opened before that moment are closed rather than used again, as a new one may lead to another server.
//! A process has one database, so there is one moment for a process.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;

static LAST: RwLock<Option<Instant>> = RwLock::new(None);

/// How long after a refusal the database counts as not available, unless it refuses again.
const AFTERMATH: Duration = Duration::from_secs(10);
/// Refusals within this time of another count as one, so that a refusal for each call does not cost a new connection for
/// each call.
const SAME: Duration = Duration::from_secs(1);

/// Returns whether the code of an error says that PostgreSQL would do this work at another time.
pub(in crate::store) fn is_refusal(code: &str) -> bool {
    // read_only_sql_transaction; insufficient_resources.
    code == "25006" || code.starts_with("53")
}

/// Notes a refusal, and logs the first of many.
pub(in crate::store) fn note(error: &dyn DatabaseError) {
    let now = Instant::now();
    let mut last = LAST.write().unwrap_or_else(PoisonError::into_inner);
    let since = last.map(|last| now.duration_since(last));
    if since.is_none_or(|since| since >= AFTERMATH) {
        let (code, message) = (error.code().unwrap_or_default(), error.message());
        tracing::error!(%code, "PostgreSQL refuses work, so its connections are replaced: {message}");
    }
    if since.is_none_or(|since| since >= SAME) {
        *last = Some(now);
    }
}

/// Returns whether PostgreSQL has refused work a short time ago.
pub fn is_recent() -> bool {
    since().is_some_and(|since| since < AFTERMATH)
}

/// Returns whether a connection of this age was open when PostgreSQL last refused work.
pub(in crate::store) fn concerns(connection_age: Duration) -> bool {
    since().is_some_and(|since| since < connection_age)
}

fn since() -> Option<Duration> {
    let last = *LAST.read().unwrap_or_else(PoisonError::into_inner);
    last.map(|last| last.elapsed())
}
