//! ListReplenishment: rows leave one by one, as fast as the client takes them.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::admission::StreamAuthorization;
use crate::grpc::proto::v1::ListReplenishmentResponse;

pub type ReplenishmentStream = ReceiverStream<Result<ListReplenishmentResponse, Status>>;

/// Most rows that wait for the transport.
const WAITING_ROWS: usize = 64;

/// Sends `messages` for as long as `authorization` holds.
pub fn stream(messages: Vec<ListReplenishmentResponse>, authorization: StreamAuthorization) -> ReplenishmentStream {
    let (sender, receiver) = mpsc::channel(WAITING_ROWS);
    let send = async move {
        for message in messages {
            let message = authorization.check().map(|()| message).map_err(Status::from);
            let is_refused = message.is_err();
            // This fails when the client is gone.
            if sender.send(message).await.is_err() || is_refused {
                return;
            }
        }
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
}
