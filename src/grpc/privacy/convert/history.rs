//! Converts the messages about the history of consent.

use tonic::Status;

use crate::grpc::convert::{instant, row_limit, timestamp};
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::proto::v1::stream_consent_changes_request::Start;
use crate::grpc::status::Violations;
use crate::store::privacy::consent_history::{ConsentEvent, FeedPosition};
use crate::store::token_key::KEY_BYTES;
use domain::error::InvalidField;
use domain::id::UserId;
use domain::time::Timestamp;

pub struct ListConsents {
    pub user: UserId,
    /// The id of the last event before the page.
    pub before: i64,
    pub page_size: i64,
}

impl ListConsents {
    /// Returns what a page token is bound to.
    pub fn key(&self) -> impl serde::Serialize + use<> {
        ("consent events", self.user.to_string())
    }
}

impl TryFrom<v1::ListConsentsRequest> for ListConsents {
    type Error = Status;

    fn try_from(request: v1::ListConsentsRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(UserId::asked(request.user_id));
        let page_size = violations.check(page::page_size(request.page_size));
        let list = user.zip(page_size).map(|(user, page_size)| Self {
            user,
            before: i64::MAX,
            page_size,
        });
        let token = |list: &Self| page::cursor(&list.key(), &request.page_token, |&id: &i64| id > 0);
        let before = list.as_ref().and_then(|list| violations.check(token(list)));
        violations.finish(list.zip(before).map(|(list, before)| Self {
            before: before.unwrap_or(list.before),
            ..list
        }))
    }
}

impl From<ConsentEvent> for v1::ConsentEvent {
    fn from(event: ConsentEvent) -> Self {
        Self {
            purpose: v1::Purpose::from(event.purpose).into(),
            granted: event.is_granted,
            decided_at: Some(timestamp(event.decided_at)),
            source: event.source,
            recorded_at: Some(timestamp(event.recorded_at)),
        }
    }
}

/// Where a stream of changes begins.
pub enum FeedStart {
    At(FeedPosition),
    Since(Option<Timestamp>),
}

/// The positions of all streams are of one kind: a position of one stream continues every other.
const POSITION_OF: &str = "consent changes";

/// Returns where the stream begins, and the most rows that it may have.
///
/// # Errors
/// INVALID_ARGUMENT for a position that no server of this database has made.
pub fn feed_start(
    request: v1::StreamConsentChangesRequest,
    secret: &[u8; KEY_BYTES],
) -> Result<(FeedStart, Option<u64>), Status> {
    let mut violations = Violations::default();
    let start = violations.check(match request.start {
        None => Ok(FeedStart::Since(None)),
        Some(Start::Since(since)) => instant("since", since).map(|since| FeedStart::Since(Some(since))),
        Some(Start::Position(position)) => feed_position(&position, secret).map(FeedStart::At),
    });
    let limit = violations.check(row_limit(request.limit));
    violations.finish(start.zip(limit))
}

fn feed_position(position: &str, secret: &[u8; KEY_BYTES]) -> Result<FeedPosition, InvalidField> {
    let found = page::authentic_cursor(secret, &POSITION_OF, position, |_: &FeedPosition| true);
    found.ok().flatten().ok_or_else(|| {
        let message =
            "must be the position of an answer of StreamConsentChanges; begin with `since` when there is none";
        InvalidField::new("position", "INVALID_POSITION", message)
    })
}

pub fn position_token(position: &FeedPosition, secret: &[u8; KEY_BYTES]) -> String {
    page::authentic_token(secret, &POSITION_OF, position)
}
