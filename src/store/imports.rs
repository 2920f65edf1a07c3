//! Keeps a record of every import, and undoes imports. The schema copies what an import overwrites
//! (migrations/0009_imports.sql).
//!
//! Copies refer to users in `import_copies.user_id` and `import_overwritten_ratings.user_ids`.

use domain::time::Timestamp;

use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, without_timeouts};

/// The state of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    Running,
    /// It has not reported for `ABANDONED_AFTER_S`: its process was killed, or cannot reach the database.
    Abandoned,
    Done,
    /// It ended early with an error.
    Stopped,
    Interrupted,
    /// Too many lines were rejected.
    Rejected,
    Undone,
}

impl ImportState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Abandoned => "abandoned",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::Rejected => "rejected",
            Self::Undone => "undone",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        let all = [
            Self::Running,
            Self::Abandoned,
            Self::Done,
            Self::Stopped,
            Self::Interrupted,
            Self::Rejected,
            Self::Undone,
        ];
        let found = all.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| StoreError::corrupt("imports", format!("unknown state {text:?}")))
    }
}

/// Seconds after which an import that has not reported counts as abandoned.
const ABANDONED_AFTER_S: f64 = 30.0;

/// The numbers of lines of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LineCounts {
    pub read: u64,
    pub stored: u64,
    pub merged: u64,
    pub rejected: u64,
}

/// One import.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ImportRecord {
    pub id: i64,
    /// The kind of record.
    pub kind: String,
    /// The name of the file.
    pub source: String,
    pub state: ImportState,
    pub lines: LineCounts,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub undone_at: Option<Timestamp>,
    /// Whether it can be undone. After `import.undo_days` it cannot.
    pub is_undoable: bool,
}

/// The numbers of rows and redemptions that undoing an import has changed or kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Undone {
    /// Rows that hold again what they held before.
    pub restored: u64,
    pub removed: u64,
    /// Redemptions that were rolled back.
    pub rolled_back: u64,
    /// Rows that stay, because other rows refer to them or because they refuse consent.
    pub kept: u64,
}

/// The reason why an import was not undone.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    #[error("there is no import {0}")]
    Unknown(i64),
    #[error("import {0} is running: stop it first; if it was killed, this is noticed within 30 seconds")]
    Running(i64),
    #[error("import {0} is undone already")]
    UndoneBefore(i64),
    #[error("import {0} is too old to be undone (import.undo_days)")]
    TooOld(i64),
    #[error("import {later} has overwritten rows of import {id}: undo it first")]
    Overwritten { id: i64, later: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Records the beginning of an import, also in the audit, and returns its id.
pub async fn begin(pool: &Pool, kind: &str, source: &str, actor: &str) -> Result<i64, StoreError> {
    let mut tx = pool.begin().await?;
    let id = sqlx::query_scalar!(
        "INSERT INTO imports (kind, source, state, alive_at) VALUES ($1, $2, 'running', clock_timestamp()) RETURNING id",
        kind,
        source,
    )
    .fetch_one(&mut *tx)
    .await?;
    let note = format!("{kind} from {source}");
    record(&mut tx, actor, Action::ImportStarted, id, &note, 0).await?;
    tx.commit().await?;
    Ok(id)
}

/// Records that an import is running, and its counts so far. Returns whether it still counts as running.
pub async fn report(pool: &Pool, id: i64, lines: LineCounts) -> Result<bool, StoreError> {
    let reported = sqlx::query!(
        "UPDATE imports SET alive_at = clock_timestamp(), read = $2, stored = $3, merged = $4, rejected = $5
         WHERE id = $1 AND state = 'running'",
        id,
        lines.read as i64,
        lines.stored as i64,
        lines.merged as i64,
        lines.rejected as i64,
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(reported.rows_affected() > 0)
}

/// Records how an import has ended, also in the audit.
pub async fn end(pool: &Pool, id: i64, state: ImportState, lines: LineCounts, actor: &str) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "UPDATE imports SET state = $2, read = $3, stored = $4, merged = $5, rejected = $6, ended_at = clock_timestamp()
         WHERE id = $1 AND state = 'running'",
        id,
        state.as_str(),
        lines.read as i64,
        lines.stored as i64,
        lines.merged as i64,
        lines.rejected as i64,
    )
    .execute(&mut *tx)
    .await?;
    record(
        &mut tx,
        actor,
        Action::ImportEnded,
        id,
        state.as_str(),
        lines.stored as i64,
    )
    .await?;
    Ok(tx.commit().await?)
}

/// Removes the record of an import that has stored nothing. The audit keeps it.
pub async fn discard(pool: &Pool, id: i64, actor: &str) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    sqlx::query!("DELETE FROM imports WHERE id = $1", id)
        .execute(&mut *tx)
        .await?;
    record(&mut tx, actor, Action::ImportEnded, id, "nothing was stored", 0).await?;
    Ok(tx.commit().await?)
}

async fn record(
    connection: &mut Connection,
    actor: &str,
    action: Action,
    id: i64,
    note: &str,
    row_count: i64,
) -> Result<(), StoreError> {
    let entry = audit::Entry {
        actor,
        action,
        subject: &id.to_string(),
        note,
        row_count,
        snapshot_version: None,
    };
    audit::record(connection, entry).await
}

struct Row {
    id: i64,
    kind: String,
    source: String,
    state: String,
    read: i64,
    stored: i64,
    merged: i64,
    rejected: i64,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    undone_at: Option<Timestamp>,
    is_undoable: bool,
}

impl TryFrom<Row> for ImportRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let state = ImportState::parse(&row.state)?;
        Ok(Self {
            id: row.id,
            kind: row.kind,
            source: row.source,
            state,
            lines: LineCounts {
                read: row.read as u64,
                stored: row.stored as u64,
                merged: row.merged as u64,
                rejected: row.rejected as u64,
            },
            started_at: row.started_at,
            ended_at: row.ended_at,
            undone_at: row.undone_at,
            is_undoable: row.is_undoable && state != ImportState::Undone,
        })
    }
}

/// Returns up to `limit` imports with ids below `before`, the latest first.
pub async fn list(pool: &Pool, before: i64, limit: i64) -> Result<Vec<ImportRecord>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, kind, source, read, stored, merged, rejected, started_at, ended_at, undone_at, is_undoable,
                  CASE WHEN state = 'running' AND COALESCE(alive_at, started_at) < clock_timestamp() - make_interval(secs => $3)
                       THEN 'abandoned' ELSE state END AS "state!"
           FROM imports WHERE id < $1 ORDER BY id DESC LIMIT $2"#,
        before,
        limit,
        ABANDONED_AFTER_S,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(ImportRecord::try_from)
    .collect()
}

pub async fn get(pool: &Pool, id: i64) -> Result<Option<ImportRecord>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, kind, source, read, stored, merged, rejected, started_at, ended_at, undone_at, is_undoable,
                  CASE WHEN state = 'running' AND COALESCE(alive_at, started_at) < clock_timestamp() - make_interval(secs => $2)
                       THEN 'abandoned' ELSE state END AS "state!"
           FROM imports WHERE id = $1"#,
        id,
        ABANDONED_AFTER_S,
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?
    .map(ImportRecord::try_from)
    .transpose()
}

/// Undoes an import in one transaction: removes the rows that it wrote last, gives those back that it has overwritten, and
/// rolls its redemptions back. Rows that have been written since stay. `actor` stands in the audit.
pub async fn undo(pool: &Pool, id: i64, actor: &str) -> Result<Undone, UndoError> {
    pool.write(|mut tx| async move {
        without_timeouts(&mut tx).await?;
        match undo_in(&mut tx, id, actor).await {
            Ok(undone) => {
                tx.commit().await?;
                Ok(Ok(undone))
            }
            Err(UndoError::Store(error)) => Err(error),
            Err(refused) => Ok(Err(refused)),
        }
    })
    .await?
}

async fn undo_in(connection: &mut Connection, id: i64, actor: &str) -> Result<Undone, UndoError> {
    let import = sqlx::query!(
        r#"SELECT state, is_undoable,
                  state = 'running' AND COALESCE(alive_at, started_at) >= clock_timestamp() - make_interval(secs => $2)
                  AS "is_running!"
           FROM imports WHERE id = $1 FOR UPDATE"#,
        id,
        ABANDONED_AFTER_S
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(StoreError::from)?
    .ok_or(UndoError::Unknown(id))?;
    if import.is_running {
        return Err(UndoError::Running(id));
    }
    if import.state == ImportState::Undone.as_str() {
        return Err(UndoError::UndoneBefore(id));
    }
    if !import.is_undoable {
        return Err(UndoError::TooOld(id));
    }
    if let Some(later) = overwritten_by(connection, id).await? {
        return Err(UndoError::Overwritten { id, later });
    }
    let undone = sqlx::query!(
        r#"SELECT restored AS "restored!", removed AS "removed!", rolled_back AS "rolled_back!", kept AS "kept!"
           FROM undo_import($1)"#,
        id
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(StoreError::from)?;
    sqlx::query!(
        "UPDATE imports SET state = 'undone', undone_at = clock_timestamp() WHERE id = $1",
        id
    )
    .execute(&mut *connection)
    .await
    .map_err(StoreError::from)?;
    let rows = undone.restored + undone.removed + undone.rolled_back;
    record(connection, actor, Action::ImportUndone, id, "", rows).await?;
    Ok(Undone {
        restored: undone.restored as u64,
        removed: undone.removed as u64,
        rolled_back: undone.rolled_back as u64,
        kept: undone.kept as u64,
    })
}

/// Returns the latest import that has overwritten rows which import `id` had written last.
async fn overwritten_by(connection: &mut Connection, id: i64) -> Result<Option<i64>, StoreError> {
    let later = sqlx::query_scalar!(
        r#"SELECT max(import_id) FROM (
               SELECT import_id FROM import_overwritten_ratings WHERE import_id <> $1 AND $1 = ANY (import_ids)
               UNION ALL
               SELECT later.import_id FROM import_copies AS later JOIN import_copies AS own
                   ON own.import_id = $1 AND later.table_name = own.table_name AND later.row_before = own.row_after
               WHERE later.import_id > $1
               UNION ALL
               SELECT import_id FROM import_copies
               WHERE import_id > $1 AND table_name IN ('purchases', 'order_lines')
                   AND (row_before ->> 'import_id')::bigint = $1
           ) AS later"#,
        id
    )
    .fetch_one(connection)
    .await?;
    Ok(later)
}

/// Drops what is kept for undoing imports that ended before `before`.
pub async fn prune(pool: &Pool, before: Timestamp) -> Result<(), StoreError> {
    pool.write(|mut tx| async move {
        let old: Vec<i64> = sqlx::query_scalar!(
            "UPDATE imports SET is_undoable = false
             WHERE is_undoable AND COALESCE(ended_at, started_at) < $1 RETURNING id",
            before
        )
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query!("DELETE FROM import_overwritten_ratings WHERE import_id = ANY($1)", &old)
            .execute(&mut *tx)
            .await?;
        sqlx::query!("DELETE FROM import_copies WHERE import_id = ANY($1)", &old)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    })
    .await
}
