//! StreamAudience: rows leave one by one, as fast as the client takes them.

pub mod convert;

use std::time::Instant;

use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::admission::StreamAuthorization;
use crate::app::audience::Audience;
use crate::grpc::proto::v1::StreamAudienceResponse;
use crate::grpc::row_stream::{self, WAITING_ROWS};

use self::convert::Rows;

pub type AudienceStream = ReceiverStream<Result<StreamAudienceResponse, Status>>;

/// Streams the header and the rows for as long as `authorization` holds, and until `ends`.
pub fn stream(
    audience: Audience,
    rows: Rows,
    authorization: StreamAuthorization,
    ends: Option<Instant>,
) -> AudienceStream {
    let (sender, receiver) = mpsc::channel(WAITING_ROWS);
    let send = async move {
        let mut audience = audience;
        let ended = row_stream::within(ends, send_all(&mut audience, &rows, &authorization, &sender)).await;
        row_stream::end(&sender, ended, audience.close()).await;
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
}

/// Returns when all rows are sent or the client has gone away.
async fn send_all(
    audience: &mut Audience,
    rows: &Rows,
    authorization: &StreamAuthorization,
    sender: &Sender<Result<StreamAudienceResponse, Status>>,
) -> Result<(), Status> {
    let mut header = Some(convert::header(audience.header()));
    while let Some(room) = row_stream::room(authorization, sender).await? {
        let message = match header.take() {
            Some(header) => header,
            None => match audience.next().await? {
                Some(member) => rows.row(member),
                None => return Ok(()),
            },
        };
        room.send(Ok(message));
    }
    Ok(())
}
