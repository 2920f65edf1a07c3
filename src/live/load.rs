//! Reading a stored snapshot: bytes, checksums, structure.

use std::sync::Arc;
use std::{io, thread};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::oneshot;

use crate::model::codec::{self, CodecError, DecodedPart};
use crate::model::overlay::Overlay;
use crate::model::snapshot::{Snapshot, SnapshotError};
use crate::store::changes::{self, Watermark};
use crate::store::error::StoreError;
use crate::store::pool::Pool;
use crate::store::snapshots::{self, StoredPart};

use super::{LoadedSnapshot, ROW_LIMIT, StepError, memory};

/// Why a version cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("snapshot {version} is gone")]
    Gone { version: i64 },
    #[error("snapshot {version} is damaged: {source}")]
    Damaged { version: i64, source: CodecError },
    #[error("snapshot {version} is inconsistent: {source}")]
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
    /// Whether it is likely to go away by itself.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.retry_after().is_some(),
            Self::Step(error) => matches!(error, StepError::TimedOut { .. }),
            Self::NoThread { .. } => true,
            _ => false,
        }
    }

    /// For callers: which version, and no more of the database than that it is to blame.
    pub fn for_callers(&self, version: i64) -> String {
        match self {
            Self::Store(error) => format!("snapshot {version} cannot be read: {}", error.for_callers()),
            Self::Step(error) => format!("snapshot {version} cannot be read: {error}"),
            error => error.to_string(),
        }
    }

    /// Also what caused it.
    pub fn for_log(&self) -> String {
        match self {
            Self::Store(error) => super::chain(error),
            error => error.to_string(),
        }
    }
}

/// Parts that are read and decoded at the same time; the bytes of so many are in memory beside what is decoded.
const CONCURRENT_PARTS: usize = 2;

/// Reads, verifies and decodes `version`, off the async workers. It is warm then: decoding has just written all of it
/// into memory of this process, and nothing is mapped or made at first use.
pub(super) async fn load(pool: &Pool, version: i64) -> Result<LoadedSnapshot, LoadError> {
    let record = snapshots::get(pool, version)
        .await?
        .ok_or(LoadError::Gone { version })?;
    let parts = stream::iter(snapshots::parts(pool, version).await?)
        .map(|part| load_part(pool, version, part))
        .buffer_unordered(CONCURRENT_PARTS)
        .try_collect()
        .await?;
    let checksum = record.checksum.clone();
    let assemble = move || {
        let snapshot = assemble(version, parts, &checksum);
        memory::give_back();
        snapshot
    };
    let snapshot = compute(version, assemble).await?;
    Ok(LoadedSnapshot {
        version,
        created_at: record.created_at,
        input_watermark: record.input_watermark,
        snapshot: Arc::new(snapshot),
    })
}

async fn load_part(pool: &Pool, version: i64, part: StoredPart) -> Result<DecodedPart, LoadError> {
    let bytes = snapshots::read_part(pool, version, &part).await?;
    compute(version, move || {
        codec::decode_part(&part.name, bytes).map_err(|source| LoadError::Damaged { version, source })
    })
    .await
}

fn assemble(version: i64, parts: Vec<DecodedPart>, checksum: &[u8]) -> Result<Snapshot, LoadError> {
    let parts = codec::assemble(parts, checksum).map_err(|source| LoadError::Damaged { version, source })?;
    Snapshot::new(parts).map_err(|source| LoadError::Inconsistent { version, source })
}

/// Does `work` on a thread of its own that steps back behind those that answer calls: a pool's thread could not be given
/// its priority back.
async fn compute<T: Send + 'static>(
    version: i64,
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let (sender, done) = oneshot::channel();
    let work = move || {
        step_back();
        // Nobody waits any more where the load was given up.
        let _ = sender.send(work());
    };
    let spawned = thread::Builder::new().name("loading".to_owned()).spawn(work);
    spawned.map_err(|source| LoadError::NoThread { version, source })?;
    done.await.map_err(|_| LoadError::Panicked { version })?
}

/// Lowers the priority of the calling thread, where the system has one for each: it gets a tenth of a core that another
/// one wants for itself.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        const NICE: libc::c_int = 10;
        // SAFETY: the call reads and writes no memory of this process.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    }
}

/// Applies to `overlay` what has been committed since `watermark`; returns up to where it is complete then.
pub(super) async fn catch_up(
    pool: &Pool,
    snapshot: &Snapshot,
    overlay: &mut Overlay,
    watermark: &Watermark,
    max_entries: usize,
) -> Result<Watermark, StoreError> {
    let apply = |change| overlay.apply(snapshot, change, max_entries);
    changes::since(pool, watermark, ROW_LIMIT, apply).await
}
