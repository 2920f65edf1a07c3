//! Activates snapshots: only those whose stored bytes a server can load.

use crate::live::{self, VerifyError};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::{self, Activation, SnapshotRecord, SnapshotState, TransitionError};

/// Attempts at a rollback while others change which snapshot was active before.
const ROLLBACK_ATTEMPTS: u32 = 3;

/// The reason why a snapshot was not activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    #[error(transparent)]
    Transition(#[from] TransitionError),
    #[error("{message}; nothing was changed")]
    Unusable { message: String },
}

impl From<StoreError> for ActivationError {
    fn from(error: StoreError) -> Self {
        Self::Transition(error.into())
    }
}

impl From<VerifyError> for ActivationError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Unusable { message, .. } | VerifyError::Unread { message } => Self::Unusable { message },
            VerifyError::Store(error) => error.into(),
        }
    }
}

/// Reads all of `version`, then retires the active version and activates this one. Keeps `note` with it unless that is empty.
///
/// # Errors
/// [`ActivationError`]; the active version then stays as it was.
pub async fn activate(
    pool: &Pool,
    version: i64,
    by: Activation<'_>,
    note: &str,
) -> Result<SnapshotRecord, ActivationError> {
    // The transition refuses all others, and says why.
    let is_activatable = |record: &SnapshotRecord| match record.state {
        SnapshotState::Candidate | SnapshotState::Retired => true,
        SnapshotState::Rejected => !note.is_empty(),
        SnapshotState::Active | SnapshotState::Building | SnapshotState::Failed => false,
    };
    if snapshots::get(pool, version)
        .await?
        .is_some_and(|record| is_activatable(&record))
    {
        live::verify(pool, version).await?;
    }
    Ok(snapshots::activate(pool, version, by, note).await?)
}

/// Does the same with the version that was active before the present one. `actor`: for the audit.
///
/// # Errors
/// [`ActivationError`]; the active version then stays as it was.
pub async fn rollback(pool: &Pool, actor: &str, note: &str) -> Result<SnapshotRecord, ActivationError> {
    let mut attempt = 1;
    loop {
        let version = snapshots::previous(pool).await?.ok_or(TransitionError::NothingBefore)?;
        live::verify(pool, version).await?;
        match snapshots::rollback(pool, version, actor, note).await {
            Err(TransitionError::Overtaken) if attempt < ROLLBACK_ATTEMPTS => attempt += 1,
            rolled_back => return Ok(rolled_back?),
        }
    }
}
