//! StreamCouponTargets: rows leave one by one, as fast as the client takes them. Each is checked shortly before it leaves.

pub mod convert;

use std::time::Instant;

use tokio::sync::mpsc::{self, Sender};
use tokio::time::error::Elapsed;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::admission::StreamAuthorization;
use crate::app::targets::Targets;
use crate::grpc::proto::v1::StreamCouponTargetsResponse;
use crate::grpc::row_stream::{self, WAITING_ROWS};
use crate::grpc::status;
use crate::store::error::StoreError;
use domain::error::chain;

use self::convert::Rows;

pub type TargetsStream = ReceiverStream<Result<StreamCouponTargetsResponse, Status>>;

/// Streams the header and the rows for as long as `authorization` holds, and until `ends`.
pub fn stream(
    targets: Targets,
    rows: Rows,
    authorization: StreamAuthorization,
    ends: Option<Instant>,
) -> TargetsStream {
    let (sender, receiver) = mpsc::channel(WAITING_ROWS);
    let send = async move {
        let mut targets = targets;
        let ended = within(ends, send_all(&mut targets, &rows, &authorization, &sender)).await;
        let Ok(ended) = ended else {
            // The client does not wait for the audit, as the database may be what is slow. Sending fails when the client is gone,
            // and an error of the audit is logged.
            let _ = tokio::join!(sender.send(Err(status::deadline_exceeded())), close(targets));
            return;
        };
        // The number of rows is written to the audit before the client sees the end, and the ranked targets are freed.
        let closed = close(targets).await;
        if let Err(status) = ended.and(closed.map_err(Status::from)) {
            // This fails when the client is gone, which does not matter.
            let _ = sender.send(Err(status)).await;
        }
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
}

async fn within<T>(ends: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    match ends {
        Some(ends) => tokio::time::timeout_at(ends.into(), work).await,
        None => Ok(work.await),
    }
}

/// Writes to the audit how many rows have left.
async fn close(targets: Targets) -> Result<(), StoreError> {
    let closed = targets.close().await;
    if let Err(error) = &closed {
        tracing::error!(error = %chain(error), "the end of a list of targets could not be written to the audit");
    }
    closed
}

/// Returns when all rows are sent or the client has gone away.
async fn send_all(
    targets: &mut Targets,
    rows: &Rows,
    authorization: &StreamAuthorization,
    sender: &Sender<Result<StreamCouponTargetsResponse, Status>>,
) -> Result<(), Status> {
    let mut header = Some(rows.header(targets.header()));
    while let Some(room) = row_stream::room(authorization, sender).await? {
        let message = match header.take() {
            Some(header) => header,
            None => match targets.next().await? {
                Some(target) => rows.row(targets.snapshot(), target),
                None => return Ok(()),
            },
        };
        room.send(Ok(message));
    }
    Ok(())
}
