//! Reads a stored snapshot: its bytes, checksums and structure.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::{io, iter};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::changes::{self, Known};
use crate::store::snapshots::{self, SnapshotRecord, StoredPart, VersionedBytes};
use recommender::snapshot::codec::{self, CodecError, DecodedPart};
use recommender::snapshot::overlay::Overlay;
use recommender::snapshot::{Snapshot, SnapshotError};

use super::background_thread::{self, Priority};
use super::{LoadedSnapshot, ROW_LIMIT, StepError, memory};

/// The reason why a version cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("snapshot {version} is gone")]
    Gone { version: i64 },
    #[error("the bytes of snapshot {version} were replaced while they were read")]
    Replaced { version: i64 },
    #[error("snapshot {version} is damaged: {source}; activate another snapshot or train a new one")]
    Damaged { version: i64, source: CodecError },
    #[error("snapshot {version} is of another release: {source}; `likemind train` makes one that it can serve")]
    OtherFormat { version: i64, source: CodecError },
    #[error("snapshot {version} is inconsistent: {source}; activate another snapshot or train a new one")]
    Inconsistent { version: i64, source: SnapshotError },
    #[error("decoding snapshot {version} ended with a panic")]
    Panicked { version: i64 },
    #[error("snapshot {version} cannot be decoded: no thread can be started")]
    NoThread { version: i64, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Step(#[from] StepError),
}

impl LoadError {
    /// Whether the error is likely to go away by itself.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.retry_after().is_some(),
            Self::Step(error) => matches!(error, StepError::TimedOut { .. }),
            Self::NoThread { .. } | Self::Replaced { .. } => true,
            _ => false,
        }
    }

    /// Tells callers which version failed; of the database they learn only that it is to blame.
    pub fn for_callers(&self, version: i64) -> String {
        match self {
            Self::Store(error) => format!("snapshot {version} cannot be read: {}", error.for_callers()),
            Self::Step(error) => format!("snapshot {version} cannot be read: {error}"),
            error => error.to_string(),
        }
    }

    /// Tells operators also the causes.
    pub fn for_log(&self) -> String {
        match self {
            Self::Store(error) => super::chain(error),
            error => error.to_string(),
        }
    }
}

/// How often a version is checked whose bytes are replaced meanwhile.
const VERIFY_ATTEMPTS: u32 = 10;

/// Parts that are read and decoded at the same time. One chunk of each is in memory beside the decoded values.
const CONCURRENT_PARTS: usize = 2;

/// A load first runs only on otherwise idle CPU time, for this long and as long as its bytes take at this rate, which is a
/// tenth of that of an idle core. A load that has not ended by then begins anew with a share of its own, so that a machine
/// that is never idle does not leave a server with an old snapshot.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(1);
const LEFTOVERS_BYTES_PER_SECOND: f64 = 60e6;

/// Reads, verifies and decodes `version`, at a lower priority than the threads that answer. The result is warm: decoding
/// has just written all of it into memory of this process, and nothing is mapped or made at first use.
///
/// `is_first`: no snapshot is served yet, so that everybody waits for this one.
///
/// # Errors
/// [`LoadError::Replaced`] when erased users were removed from it in the meantime.
pub(super) async fn load(pool: &Pool, version: i64, is_first: bool) -> Result<LoadedSnapshot, LoadError> {
    let record = snapshots::get(pool, version)
        .await?
        .ok_or(LoadError::Gone { version })?;
    let decoded = decode_within(pool, &record, is_first).await;
    let snapshot = explained(pool, bytes_of(&record), decoded).await?;
    Ok(LoadedSnapshot {
        bytes: bytes_of(&record),
        created_at: record.created_at,
        known: Known {
            watermark: record.input_watermark,
            erased_through: record.erased_through,
        },
        snapshot: Arc::new(snapshot),
    })
}

/// Returns `result`, with the reason why these bytes could not be read where they were replaced in the meantime.
async fn explained<T>(pool: &Pool, bytes: VersionedBytes, result: Result<T, LoadError>) -> Result<T, LoadError> {
    match result {
        Err(LoadError::Damaged { version, .. }) if !snapshots::has_bytes(pool, bytes).await? => {
            Err(LoadError::Replaced { version })
        }
        result => result,
    }
}

fn bytes_of(record: &SnapshotRecord) -> VersionedBytes {
    VersionedBytes {
        version: record.version,
        redaction: record.redaction,
    }
}

/// Decodes a snapshot, on idle CPU time as long as nobody waits for it.
async fn decode_within(pool: &Pool, record: &SnapshotRecord, is_first: bool) -> Result<Snapshot, LoadError> {
    let version = record.version;
    let snapshot = if is_first {
        decode(Priority::Equal, pool, record).await?
    } else {
        let size_bytes = record.size_bytes as f64;
        let limit = LEFTOVERS_LIMIT + Duration::from_secs_f64(size_bytes / LEFTOVERS_BYTES_PER_SECOND);
        match tokio::time::timeout(limit, decode(Priority::Idle, pool, record)).await {
            Ok(decoded) => decoded?,
            Err(_) => {
                tracing::info!(
                    version,
                    "snapshot {version} was not loaded within {limit:?} of idle CPU time; loading it anew with a share of its own"
                );
                decode(Priority::Tenth, pool, record).await?
            }
        }
    };
    Ok(snapshot)
}

/// Checks that `version` can be served. Reads and decodes one part after another and keeps none of them.
pub(super) async fn verify(pool: &Pool, version: i64) -> Result<(), LoadError> {
    let mut attempt = 1;
    loop {
        match verify_bytes(pool, version).await {
            Err(LoadError::Replaced { .. }) if attempt < VERIFY_ATTEMPTS => attempt += 1,
            verified => return verified,
        }
    }
}

async fn verify_bytes(pool: &Pool, version: i64) -> Result<(), LoadError> {
    let record = snapshots::get(pool, version)
        .await?
        .ok_or(LoadError::Gone { version })?;
    let bytes = bytes_of(&record);
    let checked = async {
        let mut parts = Vec::new();
        for part in snapshots::parts(pool, bytes).await? {
            let decoded = decode_part(pool, bytes, part, Priority::Equal).await?;
            parts.push(decoded.without_contents());
        }
        codec::check_together(parts, &record.checksum).map_err(|source| unreadable(version, source))
    };
    explained(pool, bytes, checked.await).await
}

/// Reads and decodes one part.
pub(super) async fn decode_part(
    pool: &Pool,
    bytes: VersionedBytes,
    part: StoredPart,
    priority: Priority,
) -> Result<DecodedPart, LoadError> {
    let given_up = CancellationToken::new();
    let _given_up_when_dropped = given_up.clone().drop_guard();
    let stored = Stored {
        pool: pool.clone(),
        bytes,
        part,
        given_up,
    };
    let runtime = Handle::current();
    let decoded = compute(priority, bytes.version, move || stored.decode(&runtime)).await;
    explained(pool, bytes, decoded).await
}

async fn decode(priority: Priority, pool: &Pool, record: &SnapshotRecord) -> Result<Snapshot, LoadError> {
    let (version, bytes) = (record.version, bytes_of(record));
    let given_up = CancellationToken::new();
    let _given_up_when_dropped = given_up.clone().drop_guard();
    let parts = stream::iter(snapshots::parts(pool, bytes).await?)
        .map(|part| {
            let stored = Stored {
                pool: pool.clone(),
                bytes,
                part,
                given_up: given_up.clone(),
            };
            let runtime = Handle::current();
            compute(priority, version, move || stored.decode(&runtime))
        })
        .buffer_unordered(CONCURRENT_PARTS)
        .try_collect()
        .await?;
    let checksum = record.checksum.clone();
    let assemble = move || {
        // Given back before and after, so that memory that one step freed does not stay beside the memory of the next.
        memory::give_back();
        let snapshot = assemble(version, parts, &checksum);
        memory::give_back();
        snapshot
    };
    compute(priority, version, assemble).await
}

/// A part in the database, to be decoded.
struct Stored {
    pool: Pool,
    bytes: VersionedBytes,
    part: StoredPart,
    given_up: CancellationToken,
}

impl Stored {
    /// Decodes each chunk as it comes. Chunks are read on this very thread, so that reading has its priority too; `runtime`
    /// only waits for them.
    fn decode(&self, runtime: &Handle) -> Result<DecodedPart, LoadError> {
        let Self { bytes, part, .. } = self;
        let (bytes, version) = (*bytes, self.bytes.version);
        // A connection returns to its pool through the runtime.
        let _context = runtime.enter();
        let mut tx = runtime.block_on(self.pool.begin())?;
        let chunks = runtime.block_on(snapshots::read_part(&mut tx, bytes, &part.name))?;
        let mut chunks = pin!(chunks);
        let mut failed = None;
        let next = iter::from_fn(|| {
            let next = self.given_up.run_until_cancelled(chunks.try_next());
            runtime.block_on(next)?.unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        let decoded = codec::decode_part(&part.name, part.size_bytes as u64, next);
        let decoded = match failed {
            Some(error) => return Err(error.into()),
            None => decoded.map_err(|source| unreadable(version, source))?,
        };
        if let Some(reason) = decoded.left_out() {
            tracing::warn!(version, "snapshot {version}: {reason}");
        }
        Ok(decoded)
    }
}

fn unreadable(version: i64, source: CodecError) -> LoadError {
    match source.is_of_another_release() {
        true => LoadError::OtherFormat { version, source },
        false => LoadError::Damaged { version, source },
    }
}

fn assemble(version: i64, parts: Vec<DecodedPart>, checksum: &[u8]) -> Result<Snapshot, LoadError> {
    let parts = codec::assemble(parts, checksum).map_err(|source| unreadable(version, source))?;
    Snapshot::new(parts).map_err(|source| LoadError::Inconsistent { version, source })
}

/// Runs `work` on a thread of this priority and returns its result.
async fn compute<T: Send + 'static>(
    priority: Priority,
    version: i64,
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let (sender, done) = oneshot::channel();
    // The send fails where the load was given up, because nobody waits any more.
    let spawned = background_thread::spawn(priority, move || drop(sender.send(work())));
    spawned.map_err(|source| LoadError::NoThread { version, source })?;
    done.await.map_err(|_| LoadError::Panicked { version })?
}

/// Applies to `overlay` the changes committed since `known`; returns the changes that it holds then.
///
/// # Errors
/// [`LoadError::Replaced`] when users were erased whose ids are forgotten already, and the bytes may hold them.
pub(super) async fn catch_up(
    pool: &Pool,
    new: &LoadedSnapshot,
    overlay: &mut Overlay,
    known: &Known,
    max_entries: usize,
) -> Result<Known, LoadError> {
    let apply = |change| overlay.apply(&new.snapshot, change, max_entries);
    let reached = changes::since(pool, known, ROW_LIMIT, apply).await?;
    match reached.is_too_late && !snapshots::has_bytes(pool, new.bytes).await? {
        true => Err(LoadError::Replaced {
            version: new.bytes.version,
        }),
        false => Ok(reached.known),
    }
}
