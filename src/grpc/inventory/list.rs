//! ListReplenishment: rows leave one by one, as fast as the client takes them.

use std::time::Instant;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::admission::StreamAuthorization;
use crate::grpc::proto::v1::ListReplenishmentResponse;
use crate::grpc::row_stream::{self, WAITING_ROWS};

pub type ReplenishmentStream = ReceiverStream<Result<ListReplenishmentResponse, Status>>;

/// Sends `messages` for as long as `authorization` holds, and until `ends`.
pub fn stream(
    messages: Vec<ListReplenishmentResponse>,
    authorization: StreamAuthorization,
    ends: Option<Instant>,
) -> ReplenishmentStream {
    let (sender, receiver) = mpsc::channel(WAITING_ROWS);
    let send = async move {
        let rows = async {
            for message in messages {
                let Some(room) = row_stream::room(&authorization, &sender).await? else {
                    return Ok(());
                };
                room.send(Ok(message));
            }
            Ok(())
        };
        let ended = row_stream::within(ends, rows).await;
        row_stream::end(&sender, ended, async { Ok(()) }).await;
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
}
