//! StreamCouponTargets: rows leave one by one, as fast as the client takes them. Each is checked shortly before it leaves.

pub mod convert;

use std::time::Instant;

use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::admission::StreamAuthorization;
use crate::app::targets::Targets;
use crate::grpc::proto::v1::StreamCouponTargetsResponse;
use crate::grpc::row_stream::{self, WAITING_ROWS};

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
        let ended = row_stream::within(ends, send_all(&mut targets, &rows, &authorization, &sender)).await;
        row_stream::end(&sender, ended, targets.close()).await;
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
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
