//! Stores snapshots, and switches which of them is active.

pub mod changes;
pub mod redaction;
pub mod training;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt, stream};

use domain::time::Timestamp;
use recommender::evaluation::gate::SnapshotCounts;
use recommender::evaluation::report::Evaluation;
use recommender::snapshot::codec::EncodedPart;
use recommender::snapshot::parameters::TrainingParameters;

use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Lease};
use crate::store::postgres::pool::{Connection, Pool, Tx, limit_idle, without_timeouts};
use crate::store::snapshots::changes::Watermark;
use crate::store::snapshots::redaction::Rewrite;

/// The size of a stored chunk. PostgreSQL refuses fields of 1 GB and slows down well before.
const CHUNK_BYTES: usize = 512 * 1024;

/// The number of chunks that are written at the same time: one core of the database does not keep up with its log.
const CONCURRENT_WRITES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Being trained and written; nothing reads it.
    Building,
    /// Complete, not activated yet.
    Candidate,
    /// Served by all servers. At most one snapshot is active.
    Active,
    /// Was active.
    Retired,
    /// Complete, refused by the gate.
    Rejected,
    /// Training ended with an error.
    Failed,
}

impl SnapshotState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Candidate => "candidate",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for SnapshotState {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        [
            Self::Building,
            Self::Candidate,
            Self::Active,
            Self::Retired,
            Self::Rejected,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| StoreError::corrupt("snapshots", format!("state {text}")))
    }
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A snapshot without its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotRecord {
    pub version: i64,
    pub state: SnapshotState,
    pub parameters: TrainingParameters,
    /// Absent while the snapshot is being built.
    pub evaluation: Option<Evaluation>,
    pub counts: Option<SnapshotCounts>,
    pub size_bytes: u64,
    pub checksum: Vec<u8>,
    pub input_watermark: Watermark,
    /// Counts how often erased users were removed from the bytes.
    pub redaction: i64,
    /// The bytes hold nobody whose erasure has this number or a lower one.
    pub erased_through: i64,
    /// The same of the data that it was trained on.
    pub trained_through: i64,
    /// The reason why it was activated by hand, or why it failed.
    pub note: String,
    pub created_at: Timestamp,
    pub activated_at: Option<Timestamp>,
}

/// The reason why a snapshot did not change its state.
#[derive(Debug, thiserror::Error)]
pub enum TransitionError {
    #[error("there is no snapshot {version}")]
    Unknown { version: i64 },
    #[error("snapshot {version} is {state} and cannot be activated")]
    NotActivatable { version: i64, state: SnapshotState },
    #[error("snapshot {version} was rejected by the gate; give a reason to activate it nevertheless")]
    ReasonRequired { version: i64 },
    #[error("there is no earlier snapshot to go back to")]
    NothingBefore,
    /// The version to go back to is another one by now.
    #[error("other activations came first; try again")]
    Overtaken,
    /// Its data hold users whose erasure has ended, or its bytes such whose erasure has begun.
    #[error("users were erased since the data of snapshot {version} were read")]
    Behind { version: i64 },
    /// The lease ran out, or another trainer has it.
    #[error("the training lease is lost, so nothing may be published")]
    LeaseLost,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Begins a version in state `building`. Deletes the versions that a killed trainer has left in that state, or has
/// completed but not activated.
///
/// `erased_through`: the last erasure that the data take into account.
///
/// # Errors
/// [`TransitionError::Behind`] if a later erasure is verified, so that nobody knows any more whom to remove: then the data have to
/// be read again.
pub async fn begin(
    pool: &Pool,
    lease: &Lease,
    parameters: &TrainingParameters,
    watermark: &Watermark,
    erased_through: i64,
) -> Result<i64, TransitionError> {
    let parameters = to_json(parameters)?;
    pool.write(|mut tx| {
        let parameters = parameters.clone();
        async move {
            if !leases::is_held(&mut tx, lease).await? {
                return Ok(Err(TransitionError::LeaseLost));
            }
            redaction::lock_erasures(&mut tx).await?;
            let verified = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM erasures WHERE id > $1 AND verified_at IS NOT NULL) AS "verified!""#,
                erased_through
            )
            .fetch_one(&mut *tx)
            .await?;
            sqlx::query!("DELETE FROM snapshots WHERE state IN ('building', 'candidate')")
                .execute(&mut *tx)
                .await?;
            let version = sqlx::query_scalar!(
                "INSERT INTO snapshots
                         (state, fencing_token, parameters, input_watermark, erased_through, trained_through)
                     VALUES ('building', $1, $2::text::jsonb, $3, $4, $4) RETURNING version",
                lease.fencing_token,
                parameters,
                watermark.0,
                erased_through,
            )
            .fetch_one(&mut *tx)
            .await?;
            if verified {
                return Ok(Err(TransitionError::Behind { version }));
            }
            tx.commit().await?;
            Ok(Ok(version))
        }
    })
    .await?
}

/// The place of new bytes.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// A version that is being built.
    Building { version: i64 },
    /// Beside the present bytes of a complete version, or of one that is being built.
    Beside(Rewrite),
}

/// Stores the bytes of a part. Each chunk is committed by itself, a few of them at the same time.
///
/// # Errors
/// [`TransitionError::LeaseLost`] when another trainer has deleted the version, or the version has other bytes by now.
pub async fn write_part(pool: &Pool, place: Place, part: &EncodedPart) -> Result<(), TransitionError> {
    stream::iter(part.bytes.chunks(CHUNK_BYTES).zip(0..).map(Ok))
        .try_for_each_concurrent(CONCURRENT_WRITES, |(bytes, chunk)| {
            write_chunk(pool, place, part.name, chunk, bytes)
        })
        .await
}

/// Stores one chunk. COPY would not be faster; it would hold its locks for as long as the bytes take to arrive, and no
/// timeout of PostgreSQL ends it when a trainer stops in the middle.
async fn write_chunk(pool: &Pool, place: Place, part: &str, chunk: i32, bytes: &[u8]) -> Result<(), TransitionError> {
    let (version, from, to) = match place {
        Place::Building { version } => (version, 0, 0),
        Place::Beside(Rewrite { version, from, to }) => (version, from, to),
    };
    // The lock lets no chunk in after the transaction that puts the new bytes in the place of the old ones.
    let written = sqlx::query!(
        "INSERT INTO snapshot_chunks (version, part, chunk, bytes, redaction)
         SELECT version, $2::text, $3::integer, $4::bytea, $6::bigint FROM snapshots
         WHERE version = $1 AND redaction = $5 AND (state = 'building' OR $5::bigint < $6 AND state <> 'failed') FOR SHARE",
        version,
        part,
        chunk,
        bytes,
        from,
        to,
    )
    .execute(&mut *pool.acquire().await?)
    .await
    .map_err(StoreError::from)?;
    match written.rows_affected() {
        0 => Err(TransitionError::LeaseLost),
        _ => Ok(()),
    }
}

/// The facts about a version that are known when it is complete.
#[derive(Debug, Clone)]
pub struct Finished {
    pub evaluation: Evaluation,
    pub counts: SnapshotCounts,
    pub size_bytes: u64,
    pub checksum: [u8; 16],
}

/// Completes a version that is being built, as `candidate` or `rejected`. Checks under lock that the lease is held, and that its
/// bytes take every erasure into account: none can be added before this transaction ends.
///
/// # Errors
/// [`TransitionError::Behind`] when users have to be removed first.
pub async fn finish(
    pool: &Pool,
    lease: &Lease,
    version: i64,
    finished: &Finished,
    state: SnapshotState,
) -> Result<(), TransitionError> {
    let evaluation = to_json(&finished.evaluation)?;
    pool.write(|mut tx| {
        let evaluation = evaluation.clone();
        async move {
            if !leases::is_held(&mut tx, lease).await? {
                return Ok(Err(TransitionError::LeaseLost));
            }
            redaction::lock_erasures(&mut tx).await?;
            let last = redaction::last_erasure(&mut tx).await?;
            let through = sqlx::query_scalar!("SELECT erased_through FROM snapshots WHERE version = $1", version)
                .fetch_optional(&mut *tx)
                .await?;
            if through.is_some_and(|through| through < last) {
                return Ok(Err(TransitionError::Behind { version }));
            }
            let finished = sqlx::query!(
                "UPDATE snapshots
                     SET state = $3, evaluation = $4::text::jsonb, user_count = $5, item_count = $6,
                         rating_count = $7, size_bytes = $8, checksum = $9
                     WHERE version = $1 AND fencing_token = $2 AND state = 'building'",
                version,
                lease.fencing_token,
                state.as_str(),
                evaluation,
                finished.counts.users as i64,
                finished.counts.items as i64,
                finished.counts.ratings as i64,
                finished.size_bytes as i64,
                &finished.checksum[..],
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(match finished.rows_affected() {
                1 => Ok(()),
                _ => Err(TransitionError::LeaseLost),
            })
        }
    })
    .await?
}

/// Marks the versions that were built under `lease` and never activated as failed, and deletes their bytes. Changes nothing
/// when another trainer has deleted them.
pub async fn fail(pool: &Pool, lease: &Lease, reason: &str) -> Result<(), StoreError> {
    pool.write(|mut tx| async move {
        limit_idle(&mut tx, lease.time_to_live).await?;
        let failed = sqlx::query_scalar!(
            "UPDATE snapshots SET state = 'failed', note = $2
             WHERE fencing_token = $1 AND state IN ('building', 'candidate') RETURNING version",
            lease.fencing_token,
            reason,
        )
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query!("DELETE FROM snapshot_chunks WHERE version = ANY($1)", &failed)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// The one who activates a version.
#[derive(Debug, Clone, Copy)]
pub enum Activation<'a> {
    /// The trainer, under its lease.
    Trainer { lease: &'a Lease, actor: &'a str },
    /// An operator, who must give a reason to activate a rejected version.
    Operator { actor: &'a str },
}

impl<'a> Activation<'a> {
    /// Returns the actor for the audit.
    fn actor(self) -> &'a str {
        match self {
            Self::Trainer { actor, .. } | Self::Operator { actor } => actor,
        }
    }
}

/// Retires the active version and activates `version`, in one transaction. Keeps `note` with it unless that is empty.
pub async fn activate(
    pool: &Pool,
    version: i64,
    by: Activation<'_>,
    note: &str,
) -> Result<SnapshotRecord, TransitionError> {
    switch(pool, Target::Version(version), by, note).await
}

/// Activates the version that was active before the present one. `actor`: for the audit.
///
/// # Errors
/// [`TransitionError::Overtaken`] when that is no longer `version`.
pub async fn rollback(pool: &Pool, version: i64, actor: &str, note: &str) -> Result<SnapshotRecord, TransitionError> {
    switch(pool, Target::Previous(version), Activation::Operator { actor }, note).await
}

#[derive(Clone, Copy)]
enum Target {
    Version(i64),
    /// The version that was active before the present one.
    Previous(i64),
}

async fn switch(
    pool: &Pool,
    target: Target,
    by: Activation<'_>,
    note: &str,
) -> Result<SnapshotRecord, TransitionError> {
    let outcome = pool
        .write(|mut tx| async move {
            let outcome = transition(&mut tx, target, by, note).await?;
            tx.commit().await?;
            Ok(outcome)
        })
        .await?;
    let version = outcome?;
    get(pool, version).await?.ok_or(TransitionError::Unknown { version })
}

/// How long a stopped process of an operator can keep others from activating a version.
const OPERATOR_IDLE_LIMIT: Duration = Duration::from_secs(10);

/// The version that is active now, or the reason why nothing changed. Committing after a refusal is harmless.
type Transition = Result<i64, TransitionError>;

async fn transition(
    connection: &mut Connection,
    target: Target,
    by: Activation<'_>,
    note: &str,
) -> Result<Transition, StoreError> {
    match by {
        Activation::Trainer { lease, .. } if leases::is_held(connection, lease).await? => {}
        Activation::Trainer { .. } => return Ok(Err(TransitionError::LeaseLost)),
        Activation::Operator { .. } => limit_idle(connection, OPERATOR_IDLE_LIMIT).await?,
    }
    // Every change of the active version takes this row lock, even when no version is active yet.
    sqlx::query!(
        "INSERT INTO leases (name, holder, fencing_token, expires_at)
         VALUES ('activation', '', 0, clock_timestamp()) ON CONFLICT (name) DO UPDATE SET holder = ''"
    )
    .execute(&mut *connection)
    .await?;
    let version = match target {
        Target::Version(version) => version,
        Target::Previous(expected) => match previous_version(connection).await? {
            Some(version) if version == expected => version,
            Some(_) => return Ok(Err(TransitionError::Overtaken)),
            None => return Ok(Err(TransitionError::NothingBefore)),
        },
    };
    let state = sqlx::query_scalar!("SELECT state FROM snapshots WHERE version = $1 FOR UPDATE", version)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(state) = state else {
        return Ok(Err(TransitionError::Unknown { version }));
    };
    let state = state.parse()?;
    match state {
        SnapshotState::Active => return Ok(Ok(version)),
        SnapshotState::Candidate | SnapshotState::Retired => {}
        SnapshotState::Rejected if !note.is_empty() => {}
        SnapshotState::Rejected => return Ok(Err(TransitionError::ReasonRequired { version })),
        state @ (SnapshotState::Building | SnapshotState::Failed) => {
            return Ok(Err(TransitionError::NotActivatable { version, state }));
        }
    }
    sqlx::query!("UPDATE snapshots SET state = 'retired' WHERE state = 'active'")
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "UPDATE snapshots
         SET state = 'active', activated_at = clock_timestamp(), note = CASE WHEN $2 = '' THEN note ELSE $2 END
         WHERE version = $1",
        version,
        note,
    )
    .execute(&mut *connection)
    .await?;
    let entry = audit::Entry {
        actor: by.actor(),
        action: match (target, state) {
            (Target::Previous(_), _) => Action::SnapshotRolledBack,
            (Target::Version(_), SnapshotState::Rejected) => Action::SnapshotForced,
            (Target::Version(_), _) => Action::SnapshotActivated,
        },
        subject: &format!("snapshot {version}"),
        note,
        row_count: 1,
        snapshot_version: Some(version),
    };
    audit::record(connection, entry).await?;
    // This is only a hint: servers poll, so an engine without NOTIFY only loses a moment.
    sqlx::query!("SELECT pg_notify('snapshots', '')")
        .execute(&mut *connection)
        .await?;
    Ok(Ok(version))
}

/// Returns the version that was active last before the present one.
pub async fn previous(pool: &Pool) -> Result<Option<i64>, StoreError> {
    previous_version(&mut *pool.acquire().await?).await
}

async fn previous_version(connection: &mut Connection) -> Result<Option<i64>, StoreError> {
    let previous = sqlx::query_scalar!(
        "SELECT version FROM snapshots WHERE state = 'retired' ORDER BY activated_at DESC, version DESC LIMIT 1"
    )
    .fetch_optional(connection)
    .await?;
    Ok(previous)
}

pub async fn active_version(pool: &Pool) -> Result<Option<i64>, StoreError> {
    Ok(active_bytes(pool).await?.map(|bytes| bytes.version))
}

/// A version, and which of its bytes: they change when erased users are removed from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionedBytes {
    pub version: i64,
    pub redaction: i64,
}

pub async fn active_bytes(pool: &Pool) -> Result<Option<VersionedBytes>, StoreError> {
    Ok(sqlx::query_as!(
        VersionedBytes,
        "SELECT version, redaction FROM snapshots WHERE state = 'active'"
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?)
}

/// Whether a version still has these bytes.
pub async fn has_bytes(pool: &Pool, bytes: VersionedBytes) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM snapshots WHERE version = $1 AND redaction = $2) AS "has!""#,
        bytes.version,
        bytes.redaction,
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?)
}

/// Returns the snapshot of a version, or the active one; `None` if there is none.
pub async fn get_or_active(pool: &Pool, version: Option<i64>) -> Result<Option<SnapshotRecord>, StoreError> {
    let version = match version {
        Some(version) => Some(version),
        None => active_version(pool).await?,
    };
    match version {
        Some(version) => get(pool, version).await,
        None => Ok(None),
    }
}

pub async fn get(pool: &Pool, version: i64) -> Result<Option<SnapshotRecord>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT version, state, parameters::text AS "parameters!", evaluation::text AS evaluation, user_count,
                  item_count, rating_count, size_bytes, checksum, input_watermark, redaction, erased_through,
                  trained_through, note, created_at, activated_at
           FROM snapshots WHERE version = $1"#,
        version,
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?
    .map(SnapshotRecord::try_from)
    .transpose()
}

/// Returns up to `limit` versions below `before`, newest first.
pub async fn list(pool: &Pool, before: i64, limit: i64) -> Result<Vec<SnapshotRecord>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT version, state, parameters::text AS "parameters!", evaluation::text AS evaluation, user_count,
                  item_count, rating_count, size_bytes, checksum, input_watermark, redaction, erased_through,
                  trained_through, note, created_at, activated_at
           FROM snapshots WHERE version < $1 ORDER BY version DESC LIMIT $2"#,
        before,
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(SnapshotRecord::try_from)
    .collect()
}

/// A part of a stored version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    pub name: String,
    pub size_bytes: i64,
}

/// Lists the parts of these bytes, largest first.
pub async fn parts(pool: &Pool, bytes: VersionedBytes) -> Result<Vec<StoredPart>, StoreError> {
    Ok(sqlx::query_as!(
        StoredPart,
        r#"SELECT part AS name, sum(octet_length(bytes)) AS "size_bytes!" FROM snapshot_chunks
           WHERE version = $1 AND redaction = $2 GROUP BY part ORDER BY 2 DESC, part"#,
        bytes.version,
        bytes.redaction,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?)
}

/// Reads the bytes of one of [`parts`] in order. They are incomplete when the version is being deleted, or its bytes are replaced.
pub async fn read_part<'a>(
    tx: &'a mut Tx,
    bytes: VersionedBytes,
    part: &'a str,
) -> Result<impl Stream<Item = Result<Vec<u8>, StoreError>> + use<'a>, StoreError> {
    without_timeouts(tx).await?;
    Ok(sqlx::query_scalar!(
        "SELECT bytes FROM snapshot_chunks WHERE version = $1 AND redaction = $2 AND part = $3 ORDER BY chunk",
        bytes.version,
        bytes.redaction,
        part,
    )
    .fetch(&mut **tx)
    .err_into())
}

/// Reads the checksum at the end of one of [`parts`], with what stands right before it.
pub async fn part_end(pool: &Pool, bytes: VersionedBytes, part: &str) -> Result<Vec<u8>, StoreError> {
    let mut ends = sqlx::query_scalar!(
        r#"SELECT substring(bytes FROM GREATEST(octet_length(bytes) - 31, 1)) AS "end!" FROM snapshot_chunks
           WHERE version = $1 AND redaction = $2 AND part = $3 ORDER BY chunk DESC LIMIT 2"#,
        bytes.version,
        bytes.redaction,
        part,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    ends.reverse();
    Ok(ends.concat())
}

/// Deletes all complete or failed versions except the `keep` newest, the active one, the one before it, and that of a
/// trainer at work. Returns the deleted versions.
pub async fn prune(pool: &Pool, keep: u32) -> Result<Vec<i64>, StoreError> {
    let mut pruned = sqlx::query_scalar!(
        "DELETE FROM snapshots
         WHERE state IN ('candidate', 'retired', 'rejected', 'failed')
           AND fencing_token NOT IN (SELECT fencing_token FROM leases
                                     WHERE name = 'training' AND expires_at > clock_timestamp())
           AND version NOT IN (SELECT version FROM snapshots WHERE state <> 'building' ORDER BY version DESC LIMIT $1)
           AND version NOT IN (SELECT version FROM snapshots WHERE state = 'retired'
                               ORDER BY activated_at DESC, version DESC LIMIT 1)
         RETURNING version",
        i64::from(keep),
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    pruned.sort_unstable();
    Ok(pruned)
}

/// Hints that the active version may have changed, on a connection of their own.
#[derive(Debug)]
pub struct Hints {
    listener: sqlx::postgres::PgListener,
}

impl Hints {
    /// Takes a connection and begins to listen.
    pub async fn listen(pool: &Pool) -> Result<Self, StoreError> {
        let mut listener = sqlx::postgres::PgListener::connect_with(&pool.inner).await?;
        listener.listen("snapshots").await?;
        Ok(Self { listener })
    }

    /// Waits for the next hint.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        self.listener.recv().await?;
        Ok(())
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::corrupt("snapshots", error))
}

struct Row {
    version: i64,
    state: String,
    parameters: String,
    evaluation: Option<String>,
    user_count: Option<i64>,
    item_count: Option<i64>,
    rating_count: Option<i64>,
    size_bytes: Option<i64>,
    checksum: Option<Vec<u8>>,
    input_watermark: String,
    redaction: i64,
    erased_through: i64,
    trained_through: i64,
    note: String,
    created_at: Timestamp,
    activated_at: Option<Timestamp>,
}

impl TryFrom<Row> for SnapshotRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::corrupt("snapshots", error);
        let counts = match (row.user_count, row.item_count, row.rating_count) {
            (Some(users), Some(items), Some(ratings)) => Some(SnapshotCounts {
                users: users as u64,
                items: items as u64,
                ratings: ratings as u64,
            }),
            _ => None,
        };
        Ok(Self {
            version: row.version,
            state: row.state.parse()?,
            parameters: serde_json::from_str(&row.parameters).map_err(corrupt)?,
            evaluation: row
                .evaluation
                .as_deref()
                .map(serde_json::from_str)
                .transpose()
                .map_err(corrupt)?,
            counts,
            size_bytes: row.size_bytes.unwrap_or(0) as u64,
            checksum: row.checksum.unwrap_or_default(),
            input_watermark: Watermark(row.input_watermark),
            redaction: row.redaction,
            erased_through: row.erased_through,
            trained_through: row.trained_through,
            note: row.note,
            created_at: row.created_at,
            activated_at: row.activated_at,
        })
    }
}
