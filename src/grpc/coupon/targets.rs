//! StreamCouponTargets: rows leave one by one, as fast as the client takes them, and no faster than they are looked at.

pub mod convert;

use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::app::targets::Targets;
use crate::grpc::access::StreamAuthorization;
use crate::grpc::proto::v1::StreamCouponTargetsResponse;
use domain::error::chain;

use self::convert::Rows;

pub type TargetsStream = ReceiverStream<Result<StreamCouponTargetsResponse, Status>>;

/// Rows that wait for the transport: what leaves has been looked at not long ago.
const WAITING_ROWS: usize = 32;
/// How often the key of a client that takes no rows is looked at.
const PASS_INTERVAL: Duration = Duration::from_secs(1);

/// The header and the rows; goes on by `pass`.
pub fn stream(targets: Targets, rows: Rows, pass: StreamAuthorization) -> TargetsStream {
    let (sender, receiver) = mpsc::channel(WAITING_ROWS);
    let send = async move {
        let mut targets = targets;
        let ended = send_all(&mut targets, &rows, &pass, &sender).await;
        // Before the end shows: who has seen it finds it written down. And what was ranked is freed.
        if let Err(error) = targets.close().await {
            tracing::error!(error = %chain(&error), "a list of targets could not be written to the audit");
        }
        if let Err(status) = ended {
            // A client that is gone has no need of it.
            let _ = sender.send(Err(status)).await;
        }
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
}

/// Returns also when the client has gone away.
async fn send_all(
    targets: &mut Targets,
    rows: &Rows,
    pass: &StreamAuthorization,
    sender: &Sender<Result<StreamCouponTargetsResponse, Status>>,
) -> Result<(), Status> {
    let mut header = Some(rows.header(targets.header()));
    loop {
        // First there is room, then the row is chosen.
        let permit = loop {
            match tokio::time::timeout(PASS_INTERVAL, sender.reserve()).await {
                Ok(Ok(permit)) => break permit,
                Ok(Err(_)) => return Ok(()),
                Err(_) => pass.check()?,
            }
        };
        pass.check()?;
        let message = match header.take() {
            Some(header) => header,
            None => match targets.next().await.map_err(Status::from)? {
                Some(target) => rows.row(targets.snapshot(), target),
                None => return Ok(()),
            },
        };
        permit.send(Ok(message));
    }
}
