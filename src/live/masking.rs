//! Tells the database that this server is there, and up to which erasure it hides users.
//!
//! An erasure counts as masked once every server that was seen lately has told so. A server that cannot reach the database is not
//! waited for: it answers with what it has read so far, and learns of the erasure as soon as it reads again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::servers;

use super::{ROW_LIMIT, Shared, StepError, chain, supervised, within};

/// How often a server tells that it is there if nothing changes; well below the time after which it is not waited for.
const INTERVAL: Duration = Duration::from_secs(10);

/// The longest wait of a server that ends.
const LONGEST_LEAVE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum MaskingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Tells of the server at once, after every change, and once an interval, until `shutdown`.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut masked_through = shared.masked_through.subscribe();
    let mut is_reported = false;
    loop {
        let through = *masked_through.borrow_and_update();
        match within::<(), MaskingError>(ROW_LIMIT, supervised(tell(&shared, through))).await {
            Ok(()) => is_reported = false,
            Err(MaskingError::Store(error)) if error.is_reported_elsewhere() => {}
            Err(error) if !is_reported => {
                tracing::error!(error = %chain(&error), "the database could not be told of this server; erasures do not wait for it");
                is_reported = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            changed = masked_through.changed() => if changed.is_err() { return },
        }
    }
}

async fn tell(shared: &Shared, through: i64) -> Result<(), MaskingError> {
    let mut id = shared.server_id.lock().await;
    if let Some(known) = &*id
        && servers::tell(&shared.pool, known, through).await?
    {
        return Ok(());
    }
    *id = Some(servers::join(&shared.pool, through).await?);
    Ok(())
}

/// Tells that this server has ended: without this the erasures of the next seconds would wait for it.
pub(super) async fn leave(shared: &Shared) {
    let leave = async {
        match &*shared.server_id.lock().await {
            Some(id) => Ok(servers::leave(&shared.pool, id).await?),
            None => Ok(()),
        }
    };
    let _ = within::<(), MaskingError>(LONGEST_LEAVE, leave).await;
}
