//! ExportUserData: the parts of the document leave one by one, as fast as the client takes them.

use std::time::Instant;

use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::admission::StreamAuthorization;
use crate::app::user_export::UserExport;
use crate::grpc::proto::v1::ExportUserDataResponse;
use crate::grpc::row_stream;

pub type UserDataStream = ReceiverStream<Result<ExportUserDataResponse, Status>>;

/// The most parts that wait for the transport. Each holds up to 500 records.
const WAITING_PARTS: usize = 2;
/// The most bytes of a message.
const MAX_PART_BYTES: usize = 64 * 1024;

/// Streams the document for as long as `authorization` holds, and until `ends`.
pub fn stream(export: UserExport, authorization: StreamAuthorization, ends: Option<Instant>) -> UserDataStream {
    let (sender, receiver) = mpsc::channel(WAITING_PARTS);
    let send = async move {
        let mut export = export;
        let ended = row_stream::within(ends, send_all(&mut export, &authorization, &sender)).await;
        row_stream::end(&sender, ended, export.close()).await;
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
}

/// Returns when the whole document is sent or the client has gone away.
async fn send_all(
    export: &mut UserExport,
    authorization: &StreamAuthorization,
    sender: &Sender<Result<ExportUserDataResponse, Status>>,
) -> Result<(), Status> {
    while let Some(json) = export.next().await? {
        for part in json.chunks(MAX_PART_BYTES) {
            let Some(room) = row_stream::room(authorization, sender).await? else {
                return Ok(());
            };
            room.send(Ok(ExportUserDataResponse { json: part.to_vec() }));
        }
    }
    Ok(())
}
