//! Removes erased users from stored snapshots.
//!
//! Parts that hold nothing about single users keep their bytes. The others are read, rewritten and stored one after another
//! beside the old bytes, which one transaction replaces at the end. Servers then load the new ones; until then they hide the
//! users themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::live::{self, VerifyError};
use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Lease};
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::redaction::{self, Pending, Rewritten};
use crate::store::snapshots::{
    self, Place, SnapshotRecord, SnapshotState, StoredPart, TransitionError, VersionedBytes,
};
use recommender::snapshot::codec::{self, Checksum, CodecError, DecodedPart, EncodedPart};
use recommender::snapshot::erased_users::ErasedUsers;

use super::train::keep_alive;

/// How long the lease of a process that has died keeps others from rewriting.
const LEASE_TIME: Duration = Duration::from_secs(30);

/// The part that names the users.
const USERS: &str = "users";

/// The reason why users were not removed from a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// Its bytes are damaged, or of another release.
    #[error("{message}")]
    Unusable {
        message: String,
        is_of_another_release: bool,
    },
    /// They could not be read this time.
    #[error("{message}")]
    Unread { message: String },
    #[error("snapshot {version} cannot be rewritten: {source}")]
    Part { version: i64, source: CodecError },
    #[error("rewriting a part ended with a panic")]
    Panicked,
    #[error("the lease was lost, or the snapshot is gone")]
    Overtaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<VerifyError> for RewriteError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Unusable {
                message,
                is_of_another_release,
            } => Self::Unusable {
                message,
                is_of_another_release,
            },
            VerifyError::Unread { message } => Self::Unread { message },
            VerifyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<TransitionError> for RewriteError {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::Store(error) => Self::Store(error),
            _ => Self::Overtaken,
        }
    }
}

/// The reason why some snapshots may still hold erased users.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The other snapshots were cleaned nevertheless.
    #[error("snapshot {version} may still hold erased users")]
    Version {
        version: i64,
        #[source]
        source: RewriteError,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes all erased users from all complete snapshots: one rewrite for each snapshot, however many they are. A snapshot that
/// nobody can read is deleted, unless it is active. Does nothing while another process is at it.
///
/// # Errors
/// [`CleanError`] for the first snapshot that was not cleaned, after all others were.
pub async fn clean(pool: &Pool, holder: &str) -> Result<(), CleanError> {
    if redaction::behind(pool).await?.is_empty() {
        return Ok(());
    }
    let Ok(lease) = leases::acquire(pool, redaction::LEASE, holder, LEASE_TIME).await? else {
        return Ok(());
    };
    let result = tokio::select! {
        result = clean_under(pool, &lease) => result,
        () = keep_alive(pool, &lease) => Ok(()),
    };
    leases::release(pool, &lease).await?;
    result
}

async fn clean_under(pool: &Pool, lease: &Lease) -> Result<(), CleanError> {
    let mut first_error = None;
    for bytes in redaction::behind(pool).await? {
        let version = bytes.version;
        match rewrite(pool, lease, version).await {
            // A version that is gone holds nobody.
            Ok(_) | Err(RewriteError::Overtaken) => {}
            Err(RewriteError::Store(error)) => return Err(error.into()),
            Err(error) => {
                if !discard_unusable(pool, bytes, &error).await? {
                    first_error.get_or_insert(CleanError::Version { version, source: error });
                }
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Deletes bytes that nobody can read any more and that may hold erased users, unless they are those of the active version.
/// Returns whether it did.
async fn discard_unusable(pool: &Pool, bytes: VersionedBytes, error: &RewriteError) -> Result<bool, StoreError> {
    let RewriteError::Unusable {
        message,
        is_of_another_release: false,
    } = error
    else {
        return Ok(false);
    };
    let is_discarded = redaction::discard(pool, bytes, message).await?;
    if is_discarded {
        let version = bytes.version;
        tracing::warn!(version, %error, "deleted snapshot {version}, from which erased users could not be removed: {error}");
    }
    Ok(is_discarded)
}

/// Removes all erased users from the bytes of `version`, which may still be built. Returns the new bytes; `None` where the present
/// ones hold none of them.
///
/// `lease`: of whoever may do this; checked under lock by the transaction that puts the new bytes in place.
///
/// # Errors
/// [`RewriteError`]; the bytes then are those from before.
pub async fn rewrite(pool: &Pool, lease: &Lease, version: i64) -> Result<Option<Rewritten>, RewriteError> {
    let record = snapshots::get(pool, version).await?.ok_or(RewriteError::Overtaken)?;
    let bytes = VersionedBytes {
        version,
        redaction: record.redaction,
    };
    let Some(pending) = redaction::pending(pool, record.erased_through).await? else {
        return Ok(None);
    };
    let stored = snapshots::parts(pool, bytes).await?;
    let Some(erased) = find_users(pool, bytes, &stored, &pending).await? else {
        redaction::note_clean(pool, version, bytes.redaction, pending.through).await?;
        return Ok(None);
    };
    let erased = Arc::new(erased);
    let begun = redaction::begin(pool, lease, version, bytes.redaction).await?;
    let rewrite = begun.ok_or(RewriteError::Overtaken)?;
    let mut rewritten = Rewritten {
        parts: Vec::new(),
        checksum: [0; 16],
        size_bytes: 0,
        erased_through: pending.through,
    };
    let mut checksum = Checksum::default();
    for part in stored {
        if codec::concerns_users(&part.name) == Some(false) {
            checksum.add(&part.name, &snapshots::part_end(pool, bytes, &part.name).await?);
            rewritten.size_bytes += part.size_bytes as u64;
            continue;
        }
        let decoded = live::decode_part(pool, bytes, part).await?;
        let encoded = without_users(version, decoded, &erased).await?;
        checksum.add(encoded.name, &encoded.bytes);
        rewritten.size_bytes += encoded.bytes.len() as u64;
        snapshots::write_part(pool, Place::Beside(rewrite), &encoded).await?;
        rewritten.parts.push(encoded.name.to_owned());
    }
    rewritten.checksum = checksum.finish();
    match redaction::finish(pool, lease, rewrite, &rewritten).await? {
        true => {
            let n_users = erased.n_rows();
            tracing::info!(
                version,
                n_users,
                "removed {n_users} erased users from snapshot {version}"
            );
            Ok(Some(rewritten))
        }
        false => Err(RewriteError::Overtaken),
    }
}

/// Finds the erased users whom these bytes hold; `None` if there are none.
async fn find_users(
    pool: &Pool,
    bytes: VersionedBytes,
    stored: &[StoredPart],
    pending: &Pending,
) -> Result<Option<ErasedUsers>, RewriteError> {
    let (mut users, mut is_held) = (None, false);
    for part in stored
        .iter()
        .filter(|part| codec::names_users(&part.name) != Some(false))
    {
        let is_users = part.name == USERS;
        let decoded = live::decode_part(pool, bytes, part.clone()).await?;
        // A part that is not known may hold anybody.
        is_held |= decoded.left_out().is_some() || decoded.user_ids().any(|id| pending.ids.contains(id));
        if is_users {
            users = Some(decoded.find_users(pending.ids.clone()));
        }
    }
    let users = users.ok_or_else(|| RewriteError::Unusable {
        message: format!("snapshot {} is damaged: part {USERS} is missing", bytes.version),
        is_of_another_release: false,
    })?;
    Ok(is_held.then_some(users))
}

/// Removes users from one part on a blocking thread.
async fn without_users(
    version: i64,
    part: DecodedPart,
    erased: &Arc<ErasedUsers>,
) -> Result<EncodedPart, RewriteError> {
    let erased = Arc::clone(erased);
    let encoded = tokio::task::spawn_blocking(move || part.without_users(&erased)).await;
    let encoded = encoded.map_err(|_| RewriteError::Panicked)?;
    encoded.map_err(|source| RewriteError::Part { version, source })
}

/// An erased id in a stored snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub version: i64,
    pub part: String,
    pub user: String,
}

/// Decodes every part of every stored snapshot that names users, and returns where an erased id is among them.
///
/// `erased`: the external ids with the numbers of their erasures. Whoever is in the data of a snapshot that was trained after the
/// erasure has come back and is somebody else. `searched`: the bytes that need not be searched again; those that were searched now
/// are added.
///
/// # Errors
/// [`RewriteError`] for a snapshot that cannot be read.
pub async fn find(
    pool: &Pool,
    erased: &HashMap<String, i64>,
    searched: &mut HashSet<VersionedBytes>,
) -> Result<Vec<Found>, RewriteError> {
    let mut found = Vec::new();
    for record in snapshots::list(pool, i64::MAX, i64::MAX).await? {
        let mut present = Some(record);
        while let Some(record) = present {
            let bytes = VersionedBytes {
                version: record.version,
                redaction: record.redaction,
            };
            if searched.contains(&bytes) {
                break;
            }
            match find_in(pool, &record, bytes, erased).await {
                // They were replaced meanwhile, or their version is gone.
                Err(RewriteError::Unusable { .. } | RewriteError::Unread { .. })
                    if !snapshots::has_bytes(pool, bytes).await? =>
                {
                    present = snapshots::get(pool, bytes.version).await?;
                }
                Err(error) if discard_unusable(pool, bytes, &error).await? => break,
                of_version => {
                    found.extend(of_version?);
                    searched.insert(bytes);
                    break;
                }
            }
        }
    }
    Ok(found)
}

async fn find_in(
    pool: &Pool,
    record: &SnapshotRecord,
    bytes: VersionedBytes,
    erased: &HashMap<String, i64>,
) -> Result<Vec<Found>, RewriteError> {
    let mut found = Vec::new();
    // A version that is being built read its data after the erasure, or its trainer removes the users before it publishes.
    if matches!(record.state, SnapshotState::Failed | SnapshotState::Building) {
        return Ok(found);
    }
    let stored = snapshots::parts(pool, bytes).await?;
    for part in stored
        .into_iter()
        .filter(|part| codec::names_users(&part.name) != Some(false))
    {
        let name = part.name.clone();
        let decoded = live::decode_part(pool, bytes, part).await?;
        let is_held = |id: &&str| erased.get(*id).is_some_and(|&erasure| record.trained_through < erasure);
        found.extend(decoded.user_ids().filter(is_held).map(|id| Found {
            version: bytes.version,
            part: name.clone(),
            user: id.to_owned(),
        }));
    }
    Ok(found)
}
