//! Streams of rows that leave one by one, as fast as the client takes them. A row is chosen only when there is room for it, so
//! that what was checked about it is not old when it leaves.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Permit, Sender};
use tokio::time::error::Elapsed;
use tonic::Status;

use super::status;
use crate::admission::StreamAuthorization;
use crate::store::error::StoreError;
use domain::error::chain;

/// Most rows that wait for the transport, few enough that each was checked not long before it leaves.
pub const WAITING_ROWS: usize = 32;
/// How often the key of a client that takes no rows is checked.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until there is room for a row. Returns `None` when the client has gone away.
///
/// # Errors
/// UNAUTHENTICATED when the key of the client is no longer valid.
pub async fn room<'a, M>(
    authorization: &StreamAuthorization,
    sender: &'a Sender<Result<M, Status>>,
) -> Result<Option<Permit<'a, Result<M, Status>>>, Status> {
    let permit = loop {
        match tokio::time::timeout(KEY_CHECK_INTERVAL, sender.reserve()).await {
            Ok(Ok(permit)) => break permit,
            Ok(Err(_)) => return Ok(None),
            Err(_) => authorization.check()?,
        }
    };
    authorization.check()?;
    Ok(Some(permit))
}

/// Awaits `rows`, at most until `ends`.
pub async fn within<T>(ends: Option<Instant>, rows: impl Future<Output = T>) -> Result<T, Elapsed> {
    match ends {
        Some(ends) => tokio::time::timeout_at(ends.into(), rows).await,
        None => Ok(rows.await),
    }
}

/// Ends a stream: awaits `close`, which writes to the audit how many rows have left where that is audited, and tells the client
/// what went wrong.
///
/// `ended`: how the rows ended, see [`within`].
pub async fn end<M>(
    sender: &Sender<Result<M, Status>>,
    ended: Result<Result<(), Status>, Elapsed>,
    close: impl Future<Output = Result<(), StoreError>>,
) {
    let close = async {
        let closed = close.await;
        if let Err(error) = &closed {
            tracing::error!(error = %chain(error), "the end of a stream could not be written to the audit");
        }
        closed
    };
    let Ok(ended) = ended else {
        // The client does not wait for the audit, as the database may be what is slow. Sending fails when the client is gone,
        // and an error of the audit is logged.
        let _ = tokio::join!(sender.send(Err(status::deadline_exceeded())), close);
        return;
    };
    // The number of rows is written to the audit before the client sees the end.
    let closed = close.await;
    if let Err(status) = ended.and(closed.map_err(Status::from)) {
        // This fails when the client is gone, which does not matter.
        let _ = sender.send(Err(status)).await;
    }
}
