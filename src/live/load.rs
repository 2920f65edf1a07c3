//! Reading a stored snapshot: bytes, checksums, structure.

use std::sync::Arc;

use crate::model::codec::{self, CodecError};
use crate::model::overlay::Overlay;
use crate::model::snapshot::{Snapshot, SnapshotError};
use crate::store::changes::{self, Watermark};
use crate::store::error::StoreError;
use crate::store::pool::Pool;
use crate::store::snapshots;

use super::LoadedSnapshot;

/// Why a version cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("snapshot {version} is gone")]
    Gone { version: i64 },
    #[error("snapshot {version} is damaged: {source}")]
    Damaged { version: i64, source: CodecError },
    #[error("the stored bytes of snapshot {version} are not those that were written")]
    Checksum { version: i64 },
    #[error("snapshot {version} is inconsistent: {source}")]
    Inconsistent { version: i64, source: SnapshotError },
    #[error("decoding snapshot {version} ended with a panic")]
    Panicked { version: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads, verifies and decodes `version`, off the async workers.
pub(super) async fn load(pool: &Pool, version: i64) -> Result<LoadedSnapshot, LoadError> {
    let record = snapshots::get(pool, version).await?.ok_or(LoadError::Gone { version })?;
    let parts = snapshots::read_parts(pool, version).await?;
    let checksum = record.checksum.clone();
    let snapshot = tokio::task::spawn_blocking(move || decode(version, parts, &checksum))
        .await
        .map_err(|_| LoadError::Panicked { version })??;
    Ok(LoadedSnapshot {
        version,
        created_at: record.created_at,
        input_watermark: record.input_watermark,
        snapshot: Arc::new(snapshot),
    })
}

fn decode(version: i64, parts: Vec<(String, Vec<u8>)>, checksum: &[u8]) -> Result<Snapshot, LoadError> {
    let actual = codec::checksum(parts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    // The parts name what is damaged; the checksum over all of them also sees one that was exchanged.
    let parts = codec::decode(parts).map_err(|source| LoadError::Damaged { version, source })?;
    if actual != checksum {
        return Err(LoadError::Checksum { version });
    }
    Snapshot::new(parts).map_err(|source| LoadError::Inconsistent { version, source })
}

/// Applies to `overlay` what has been committed since `watermark`; returns up to where it is complete then.
pub(super) async fn catch_up(
    pool: &Pool,
    snapshot: &Snapshot,
    overlay: &mut Overlay,
    watermark: &Watermark,
    max_entries: usize,
) -> Result<Watermark, StoreError> {
    changes::since(pool, watermark, |change| overlay.apply(snapshot, change, max_entries)).await
}
