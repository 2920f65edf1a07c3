//! Deletes records that are older than they may be kept, in batches. The functions of the database that do it are the only way past
//! the triggers that keep exposures and the audit from being changed, and write to the audit how many rows went.

use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, without_timeouts};

/// A kind of record with a limit on its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Lines of orders. The pairs of user and item that lose one are in the feed of changes.
    Purchases,
    Exposures,
    /// The answers to mutations, which are kept for whoever sends one again.
    RequestLog,
    Audit,
}

impl RecordKind {
    pub const ALL: [Self; 4] = [Self::Purchases, Self::Exposures, Self::RequestLog, Self::Audit];

    /// Returns the name of the key in `privacy.retention_days`, which is also that of the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchases => "purchases",
            Self::Exposures => "exposures",
            Self::RequestLog => "request_log",
            Self::Audit => "audit",
        }
    }
}

/// The outcome of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    pub deleted: u64,
    /// Where the next batch begins; `None` after the last one.
    pub next: Option<i64>,
}

/// The users whose records one batch holds.
const BATCH_USERS: i32 = 500;
/// The most rows of one batch of other records.
const BATCH_ROWS: i32 = 5_000;

/// Deletes one batch of the records of `kind` from before `before`, in one transaction.
///
/// `from`: 0 for the first batch, else [`Expired::next`] of the batch before.
pub async fn expire(
    pool: &Pool,
    kind: RecordKind,
    from: i64,
    before: Timestamp,
    actor: &str,
) -> Result<Expired, StoreError> {
    pool.write(|mut tx| async move {
        // A batch that took too long would take too long every time.
        without_timeouts(&mut tx).await?;
        let expired = match kind {
            RecordKind::Purchases => expire_purchases(&mut tx, from, before, actor).await?,
            RecordKind::Exposures => expire_exposures(&mut tx, from, before, actor).await?,
            RecordKind::RequestLog => expire_requests(&mut tx, before, actor).await?,
            RecordKind::Audit => expire_audit(&mut tx, before, actor).await?,
        };
        tx.commit().await?;
        Ok(expired)
    })
    .await
}

async fn expire_purchases(
    connection: &mut Connection,
    from: i64,
    before: Timestamp,
    actor: &str,
) -> Result<Expired, StoreError> {
    let batch = sqlx::query!(
        r#"SELECT last, deleted AS "deleted!" FROM expire_purchases($1, $2, $3, $4)"#,
        from,
        BATCH_USERS,
        before,
        actor,
    )
    .fetch_one(connection)
    .await?;
    Ok(Expired::of_users(batch.deleted, batch.last))
}

async fn expire_exposures(
    connection: &mut Connection,
    from: i64,
    before: Timestamp,
    actor: &str,
) -> Result<Expired, StoreError> {
    let batch = sqlx::query!(
        r#"SELECT last, deleted AS "deleted!" FROM expire_exposures($1, $2, $3, $4)"#,
        from,
        BATCH_USERS,
        before,
        actor,
    )
    .fetch_one(connection)
    .await?;
    Ok(Expired::of_users(batch.deleted, batch.last))
}

async fn expire_requests(connection: &mut Connection, before: Timestamp, actor: &str) -> Result<Expired, StoreError> {
    let deleted = sqlx::query_scalar!(
        r#"SELECT expire_requests($1, $2, $3) AS "deleted!""#,
        BATCH_ROWS,
        before,
        actor
    )
    .fetch_one(connection)
    .await?;
    Ok(Expired::of_rows(deleted))
}

async fn expire_audit(connection: &mut Connection, before: Timestamp, actor: &str) -> Result<Expired, StoreError> {
    let deleted = sqlx::query_scalar!(
        r#"SELECT expire_audit($1, $2, $3) AS "deleted!""#,
        BATCH_ROWS,
        before,
        actor
    )
    .fetch_one(connection)
    .await?;
    Ok(Expired::of_rows(deleted))
}

impl Expired {
    /// Returns the outcome of a batch of users. `last`: the last of them; `None` if there are no others.
    fn of_users(deleted: i64, last: Option<i64>) -> Self {
        Self {
            deleted: deleted as u64,
            next: last,
        }
    }

    /// Returns the outcome of a batch of the oldest rows: the last one is not full.
    fn of_rows(deleted: i64) -> Self {
        Self {
            deleted: deleted as u64,
            next: (deleted == i64::from(BATCH_ROWS)).then_some(deleted),
        }
    }
}
