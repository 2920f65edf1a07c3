//! StreamConsentChanges: decisions leave one by one, as fast as the client takes them.

use std::time::Instant;

use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;

use crate::admission::StreamAuthorization;
use crate::grpc::proto::v1::{ConsentChange, StreamConsentChangesResponse};
use crate::grpc::row_stream::{self, WAITING_ROWS};
use crate::store::postgres::pool::Pool;
use crate::store::privacy::consent_history::{self, FeedPosition};
use crate::store::token_key::KEY_BYTES;

use super::convert::history::position_token;

pub type ConsentChanges = ReceiverStream<Result<StreamConsentChangesResponse, Status>>;

/// The most decisions that are read at once.
const PAGE_ROWS: u64 = 500;

/// The decisions that a stream hands out.
pub struct Feed {
    pub pool: Pool,
    pub position: FeedPosition,
    /// The most decisions; `None` for all.
    pub limit: Option<u64>,
    /// Authenticates positions.
    pub secret: [u8; KEY_BYTES],
}

/// Streams the decisions for as long as `authorization` holds, and until `ends`.
pub fn stream(feed: Feed, authorization: StreamAuthorization, ends: Option<Instant>) -> ConsentChanges {
    let (sender, receiver) = mpsc::channel(WAITING_ROWS);
    let send = async move {
        let ended = row_stream::within(ends, send_all(feed, &authorization, &sender)).await;
        row_stream::end(&sender, ended, async { Ok(()) }).await;
    };
    tokio::spawn(send.in_current_span());
    ReceiverStream::new(receiver)
}

/// Returns when the limit or the present moment is reached, or the client has gone away.
async fn send_all(
    mut feed: Feed,
    authorization: &StreamAuthorization,
    sender: &Sender<Result<StreamConsentChangesResponse, Status>>,
) -> Result<(), Status> {
    let mut left = feed.limit.unwrap_or(u64::MAX);
    loop {
        let most = left.min(PAGE_ROWS);
        let page = consent_history::feed(&feed.pool, &feed.position, most as i64).await?;
        let n_rows = page.len() as u64;
        for (user, event) in page {
            let Some(room) = row_stream::room(authorization, sender).await? else {
                return Ok(());
            };
            feed.position = feed.position.after(event.id);
            room.send(Ok(StreamConsentChangesResponse {
                change: Some(ConsentChange {
                    user_id: user.to_string(),
                    event: Some(event.into()),
                }),
                position: position_token(&feed.position, &feed.secret),
            }));
        }
        left -= n_rows;
        if n_rows < most {
            break;
        }
        if left == 0 {
            return Ok(());
        }
    }
    if let Some(room) = row_stream::room(authorization, sender).await? {
        room.send(Ok(StreamConsentChangesResponse {
            change: None,
            position: position_token(&feed.position.at_end(), &feed.secret),
        }));
    }
    Ok(())
}
