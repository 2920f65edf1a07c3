//! Replaces the bytes of a stored snapshot by bytes without erased users.
//!
//! The numbers of erasures ascend in the order in which they are committed, so that one number says which of them the bytes of a
//! snapshot take into account. New chunks are written beside the old ones, under a higher `redaction`, and one transaction puts
//! them in their place. A process that is killed earlier leaves unread chunks, which the next rewrite deletes.

use std::collections::HashSet;

use super::VersionedBytes;
use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Lease};
use crate::store::postgres::pool::{Connection, Pool, limit_idle};

/// The lease of whoever rewrites snapshots.
pub const LEASE: &str = "redaction";

/// The actor in rows of audit.
const ACTOR: &str = "erasure";

/// The erasures that the bytes of a snapshot do not take into account yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The external ids of the users.
    pub ids: HashSet<String>,
    /// The number of the last of them.
    pub through: i64,
}

/// Reads the erasures after number `after`; `None` if there are none.
pub async fn pending(pool: &Pool, after: i64) -> Result<Option<Pending>, StoreError> {
    let rows = sqlx::query!("SELECT id, user_id FROM erasures WHERE id > $1", after)
        .fetch_all(&mut *pool.acquire().await?)
        .await?;
    let through = rows.iter().map(|row| row.id).max();
    let ids = rows.into_iter().filter_map(|row| row.user_id).collect();
    Ok(through.map(|through| Pending { ids, through }))
}

/// Returns the complete versions whose bytes do not take every erasure into account.
pub async fn behind(pool: &Pool) -> Result<Vec<VersionedBytes>, StoreError> {
    Ok(sqlx::query_as!(
        VersionedBytes,
        "SELECT version, redaction FROM snapshots
         WHERE state NOT IN ('building', 'failed') AND erased_through < (SELECT max(id) FROM erasures) ORDER BY version DESC"
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?)
}

/// The bytes that a rewrite starts from, and the number of those that it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    pub version: i64,
    pub from: i64,
    pub to: i64,
}

/// Begins to rewrite the bytes with number `redaction`, and deletes what an unfinished rewrite has left. Returns `None` when
/// `version` is gone, has other bytes by now, or the lease is lost.
pub async fn begin(pool: &Pool, lease: &Lease, version: i64, redaction: i64) -> Result<Option<Rewrite>, StoreError> {
    pool.write(|mut tx| async move {
        if !leases::is_held(&mut tx, lease).await? || lock(&mut tx, version).await? != Some(redaction) {
            return Ok(None);
        }
        // Above whatever was begun before: a process that has lost its lease may still write its chunks.
        let last = sqlx::query_scalar!("SELECT max(redaction) FROM snapshot_chunks WHERE version = $1", version)
            .fetch_one(&mut *tx)
            .await?;
        sqlx::query!(
            "DELETE FROM snapshot_chunks WHERE version = $1 AND redaction <> $2",
            version,
            redaction
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(Rewrite {
            version,
            from: redaction,
            to: last.unwrap_or(redaction).max(redaction) + 1,
        }))
    })
    .await
}

/// The new bytes of a snapshot.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The names of the parts that were written anew; all others stay as they are.
    pub parts: Vec<String>,
    pub checksum: [u8; 16],
    pub size_bytes: u64,
    /// The last erasure that they take into account.
    pub erased_through: i64,
}

/// Puts the new bytes in the place of the old ones. Servers then load them. Returns false, and changes nothing, when the lease is
/// lost, or the version is gone.
pub async fn finish(pool: &Pool, lease: &Lease, rewrite: Rewrite, rewritten: &Rewritten) -> Result<bool, StoreError> {
    let Rewrite { version, from, to } = rewrite;
    pool.write(|mut tx| async move {
        if !leases::is_held(&mut tx, lease).await? || lock(&mut tx, version).await? != Some(from) {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE snapshot_chunks SET redaction = $3 WHERE version = $1 AND redaction = $2 AND part <> ALL ($4::text[])",
            version,
            from,
            to,
            &rewritten.parts,
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "DELETE FROM snapshot_chunks WHERE version = $1 AND redaction <> $2",
            version,
            to
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE snapshots SET redaction = $2, checksum = $3, size_bytes = $4, erased_through = $5 WHERE version = $1",
            version,
            to,
            &rewritten.checksum[..],
            rewritten.size_bytes as i64,
            rewritten.erased_through,
        )
        .execute(&mut *tx)
        .await?;
        // This is only a hint, as after an activation.
        sqlx::query!("SELECT pg_notify('snapshots', '')")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    })
    .await
}

/// Notes that the bytes with number `redaction` hold nobody whose erasure has the number `erased_through` or a lower one.
pub async fn note_clean(pool: &Pool, version: i64, redaction: i64, erased_through: i64) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE snapshots SET erased_through = GREATEST(erased_through, $3) WHERE version = $1 AND redaction = $2",
        version,
        redaction,
        erased_through,
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(())
}

/// Deletes bytes that nobody can read, and marks their version as failed for `reason`. Returns false, and changes nothing, for the
/// active version, or if it has other bytes by now.
pub async fn discard(pool: &Pool, bytes: VersionedBytes, reason: &str) -> Result<bool, StoreError> {
    pool.write(|mut tx| async move {
        let discarded = sqlx::query!(
            "UPDATE snapshots SET state = 'failed', note = $2
             WHERE version = $1 AND redaction = $3 AND state IN ('candidate', 'retired', 'rejected')",
            bytes.version,
            reason,
            bytes.redaction,
        )
        .execute(&mut *tx)
        .await?;
        if discarded.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!("DELETE FROM snapshot_chunks WHERE version = $1", bytes.version)
            .execute(&mut *tx)
            .await?;
        let entry = audit::Entry {
            actor: ACTOR,
            action: Action::SnapshotDiscarded,
            subject: &format!("snapshot {}", bytes.version),
            note: reason,
            row_count: 1,
            snapshot_version: Some(bytes.version),
        };
        audit::record(&mut tx, entry).await?;
        tx.commit().await?;
        Ok(true)
    })
    .await
}

/// Locks the row of a version, and returns the number of its bytes.
async fn lock(connection: &mut Connection, version: i64) -> Result<Option<i64>, StoreError> {
    let redaction = sqlx::query_scalar!(
        "SELECT redaction FROM snapshots WHERE version = $1 AND state <> 'failed' FOR UPDATE",
        version
    );
    Ok(redaction.fetch_optional(connection).await?)
}

/// Keeps others from adding erasures until the transaction ends.
pub(in crate::store) async fn lock_erasures(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("SELECT FROM leases WHERE name = 'erasures' FOR UPDATE")
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the number of the last erasure; 0 without any.
pub async fn last(pool: &Pool) -> Result<i64, StoreError> {
    last_erasure(&mut *pool.acquire().await?).await
}

/// Returns the number of the last erasure that this transaction sees; 0 without any.
pub(in crate::store) async fn last_erasure(connection: &mut Connection) -> Result<i64, StoreError> {
    let last = sqlx::query_scalar!(r#"SELECT COALESCE(max(id), 0) AS "last!" FROM erasures"#);
    Ok(last.fetch_one(connection).await?)
}

/// Returns the highest number up to which no bytes of any snapshot hold a user whose erasure has it, not even those of a trainer
/// at work; `None` if no snapshot holds anybody. A version that is begun later is read without them, which the transaction that
/// begins it checks. So whoever commits a conclusion from this takes [`lock_erasures`] first.
///
/// The versions of trainers that have lost their lease are deleted: nobody will ever complete them.
pub(in crate::store) async fn clean_through(connection: &mut Connection) -> Result<Option<i64>, StoreError> {
    sqlx::query!(
        "DELETE FROM snapshots WHERE state = 'building'
             AND fencing_token NOT IN (SELECT fencing_token FROM leases
                                       WHERE name = 'training' AND expires_at > clock_timestamp())"
    )
    .execute(&mut *connection)
    .await?;
    let through = sqlx::query_scalar!("SELECT min(erased_through) FROM snapshots WHERE state <> 'failed'")
        .fetch_one(&mut *connection)
        .await?;
    Ok(through)
}

/// Sets the time of stage SNAPSHOTS_CLEAN of every erasure that no snapshot holds any more and whose rows are deleted. Returns
/// how many.
pub async fn set_clean(pool: &Pool) -> Result<u64, StoreError> {
    pool.write(|mut tx| async move {
        limit_idle(&mut tx, super::OPERATOR_IDLE_LIMIT).await?;
        lock_erasures(&mut tx).await?;
        let through = clean_through(&mut tx).await?.unwrap_or(i64::MAX);
        let reached = sqlx::query!(
            "UPDATE erasures SET snapshots_clean_at = clock_timestamp()
             WHERE snapshots_clean_at IS NULL AND rows_deleted_at IS NOT NULL AND id <= $1",
            through
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(reached.rows_affected())
    })
    .await
}

/// Returns whether a complete snapshot that may hold a user of `erasures` is not among `searched`. One that was trained later
/// holds only those who have come back.
pub(in crate::store) async fn is_any_unsearched(
    connection: &mut Connection,
    erasures: &[i64],
    searched: &HashSet<VersionedBytes>,
) -> Result<bool, StoreError> {
    let present = sqlx::query_as!(
        VersionedBytes,
        "SELECT version, redaction FROM snapshots
         WHERE state NOT IN ('building', 'failed') AND trained_through < (SELECT max(id) FROM UNNEST($1::bigint[]) AS id)",
        erasures
    )
    .fetch_all(connection)
    .await?;
    Ok(present.iter().any(|bytes| !searched.contains(bytes)))
}

/// Whether a snapshot should be trained because users were erased who were still among the data of the newest one. A version whose
/// trainer has lost its lease is none, as nobody will complete it.
pub async fn is_retraining_due(pool: &Pool) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM erasures WHERE snapshots_clean_at IS NOT NULL AND was_known
                   AND id > (SELECT max(trained_through) FROM snapshots
                             WHERE state NOT IN ('building', 'failed')
                                OR state = 'building' AND fencing_token IN (
                                       SELECT fencing_token FROM leases
                                       WHERE name = 'training' AND expires_at > clock_timestamp()))
           ) AS "is_due!""#
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?)
}
