//! Records erasures of users, and what each has reached. docs/privacy.md describes the stages.

mod received;
mod verified;

use std::time::Duration;

use domain::id::UserId;
use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Pool, without_timeouts};

pub use self::received::{ReceiveError, Received, Request, names, receive};
pub use self::verified::{
    Findings, Finished, KeyState, LEASE as VERIFICATION_LEASE, Search, Wanted, finish, key_state, search, wanted,
};

/// An erasure, and when it reached its stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    pub id: i64,
    /// The row of `users` that holds the pseudonym. It changes when rows are deleted.
    pub user_number: i64,
    /// The erased id; `None` once the erasure is verified.
    pub user: Option<UserId>,
    pub request_id: Option<String>,
    pub reason: String,
    pub requested_by: String,
    /// Whether anything was stored under the id.
    pub was_known: bool,
    /// The rows that were deleted or moved to the pseudonym.
    pub row_count: u64,
    /// The places where the last search has found the id; empty when it has found nothing. Once the erasure is verified: columns
    /// of sentences about something else, one of which equals the id.
    pub finding: String,
    pub received_at: Timestamp,
    pub masked_at: Option<Timestamp>,
    pub rows_deleted_at: Option<Timestamp>,
    pub snapshots_clean_at: Option<Timestamp>,
    pub verified_at: Option<Timestamp>,
}

struct Row {
    id: i64,
    user_number: i64,
    user_id: Option<String>,
    request_id: Option<String>,
    reason: String,
    requested_by: String,
    was_known: bool,
    row_count: i64,
    finding: String,
    received_at: Timestamp,
    masked_at: Option<Timestamp>,
    rows_deleted_at: Option<Timestamp>,
    snapshots_clean_at: Option<Timestamp>,
    verified_at: Option<Timestamp>,
}

impl TryFrom<Row> for Erasure {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let user = row.user_id.map(UserId::stored).transpose();
        Ok(Self {
            id: row.id,
            user_number: row.user_number,
            user: user.map_err(|error| StoreError::corrupt("erasures", error))?,
            request_id: row.request_id,
            reason: row.reason,
            requested_by: row.requested_by,
            was_known: row.was_known,
            row_count: row.row_count as u64,
            finding: row.finding,
            received_at: row.received_at,
            masked_at: row.masked_at,
            rows_deleted_at: row.rows_deleted_at,
            snapshots_clean_at: row.snapshots_clean_at,
            verified_at: row.verified_at,
        })
    }
}

pub async fn get(pool: &Pool, id: i64) -> Result<Option<Erasure>, StoreError> {
    sqlx::query_as!(
        Row,
        "SELECT id, user_number, user_id, request_id, reason, requested_by, was_known, row_count, finding, received_at,
                masked_at, rows_deleted_at, snapshots_clean_at, verified_at
         FROM erasures WHERE id = $1",
        id
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?
    .map(Erasure::try_from)
    .transpose()
}

/// Returns up to `limit` erasures with ids below `before`, the latest first.
///
/// `only_open`: leaves out those that are verified.
pub async fn list(pool: &Pool, before: i64, only_open: bool, limit: i64) -> Result<Vec<Erasure>, StoreError> {
    sqlx::query_as!(
        Row,
        "SELECT id, user_number, user_id, request_id, reason, requested_by, was_known, row_count, finding, received_at,
                masked_at, rows_deleted_at, snapshots_clean_at, verified_at
         FROM erasures WHERE id < $1 AND (verified_at IS NULL OR NOT $2) ORDER BY id DESC LIMIT $3",
        before,
        only_open,
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(Erasure::try_from)
    .collect()
}

/// Returns up to `limit` erasures with ids above `after` that are not verified, ascending by id.
pub async fn open(pool: &Pool, after: i64, limit: i64) -> Result<Vec<Erasure>, StoreError> {
    sqlx::query_as!(
        Row,
        "SELECT id, user_number, user_id, request_id, reason, requested_by, was_known, row_count, finding, received_at,
                masked_at, rows_deleted_at, snapshots_clean_at, verified_at
         FROM erasures WHERE verified_at IS NULL AND id > $1 ORDER BY id LIMIT $2",
        after,
        limit
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(Erasure::try_from)
    .collect()
}

/// Returns whether an erasure is not verified yet.
pub async fn is_any_open(pool: &Pool) -> Result<bool, StoreError> {
    Ok(
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM erasures WHERE verified_at IS NULL) AS "is_open!""#)
            .fetch_one(&mut *pool.acquire().await?)
            .await?,
    )
}

/// The number of erasures that have reached each stage and not the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageCounts {
    pub received: u64,
    pub masked: u64,
    pub rows_deleted: u64,
    pub snapshots_clean: u64,
    pub verified: u64,
    /// Those of `snapshots_clean` whose id was found somewhere.
    pub found: u64,
}

/// Counts `erasures` by their stages.
pub async fn count(pool: &Pool, erasures: &[i64]) -> Result<StageCounts, StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE masked_at IS NULL) AS "received!",
                  count(*) FILTER (WHERE masked_at IS NOT NULL AND rows_deleted_at IS NULL) AS "masked!",
                  count(*) FILTER (WHERE rows_deleted_at IS NOT NULL AND snapshots_clean_at IS NULL) AS "rows_deleted!",
                  count(*) FILTER (WHERE snapshots_clean_at IS NOT NULL AND verified_at IS NULL) AS "snapshots_clean!",
                  count(*) FILTER (WHERE verified_at IS NOT NULL) AS "verified!",
                  count(*) FILTER (WHERE verified_at IS NULL AND finding <> '') AS "found!"
           FROM erasures WHERE id = ANY($1)"#,
        erasures
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?;
    Ok(StageCounts {
        received: row.received as u64,
        masked: row.masked as u64,
        rows_deleted: row.rows_deleted as u64,
        snapshots_clean: row.snapshots_clean as u64,
        verified: row.verified as u64,
        found: row.found as u64,
    })
}

/// Returns whether the first of the erasures that wait for clean snapshots was received `settle` ago. Snapshots are rewritten
/// then, so that erasures that follow each other closely share a rewrite.
pub async fn are_settled(pool: &Pool, settle: Duration) -> Result<bool, StoreError> {
    let settled = sqlx::query_scalar!(
        r#"SELECT COALESCE(min(received_at) <= clock_timestamp() - make_interval(secs => $1), false) AS "settled!"
           FROM erasures WHERE verified_at IS NULL AND rows_deleted_at IS NOT NULL AND snapshots_clean_at IS NULL"#,
        settle.as_secs_f64()
    );
    Ok(settled.fetch_one(&mut *pool.acquire().await?).await?)
}

/// Returns where something was found of `erasures`: the id, whether it is verified, and the places, as [`Erasure::finding`].
pub async fn findings(pool: &Pool, erasures: &[i64]) -> Result<Vec<(i64, bool, String)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, verified_at IS NOT NULL AS "is_verified!", finding FROM erasures
           WHERE id = ANY($1) AND finding <> '' ORDER BY id"#,
        erasures
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, row.is_verified, row.finding))
        .collect())
}

/// Returns up to `limit` erasures that are masked and whose rows are there yet.
pub async fn masked(pool: &Pool, limit: i64) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM erasures WHERE verified_at IS NULL AND masked_at IS NOT NULL AND rows_deleted_at IS NULL
         ORDER BY id LIMIT $1",
        limit
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?)
}

/// Deletes the rows of the masked `erasures` and moves what is kept to new pseudonyms, in one transaction. Passes over those
/// whose rows are deleted already. Returns the number of erasures done.
pub async fn delete_rows(pool: &Pool, erasures: &[i64], actor: &str) -> Result<u64, StoreError> {
    pool.write(|mut tx| async move {
        without_timeouts(&mut tx).await?;
        let done = sqlx::query_scalar!(r#"SELECT erase_rows($1, $2) AS "done!""#, erasures, actor)
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(done as u64)
    })
    .await
}

/// Deletes the decisions on consent of users who were erased more than `days` days ago. Returns the number of users.
pub async fn drop_consent_proof(pool: &Pool, days: u32, actor: &str) -> Result<u64, StoreError> {
    const MOST_USERS: i32 = 1_000;
    let mut dropped = 0;
    loop {
        let batch = sqlx::query_scalar!(
            r#"SELECT drop_consent_proof($1, $2, $3) AS "dropped!""#,
            days.min(i32::MAX as u32) as i32,
            MOST_USERS,
            actor
        )
        .fetch_one(&mut *pool.acquire().await?)
        .await?;
        dropped += batch as u64;
        if batch < i64::from(MOST_USERS) {
            return Ok(dropped);
        }
    }
}
