//! Streams of rows that leave one by one, as fast as the client takes them. A row is chosen only when there is room for it, so that
//! what was checked about it is not old when it leaves.

use std::time::Duration;

use tokio::sync::mpsc::{Permit, Sender};
use tonic::Status;

use crate::admission::StreamAuthorization;

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
