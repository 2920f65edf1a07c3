//! Converts the messages of StreamAudience.

use std::sync::Arc;

use tonic::Status;

use crate::app::audience::{AudienceRequest, Goods, Header, Member};
use crate::app::targets::Position;
use crate::grpc::convert::{required, row_limit, score};
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::proto::v1::stream_audience_request::Of;
use crate::grpc::proto::v1::stream_audience_response::Message;
use crate::grpc::status::Violations;
use crate::store::snapshots::VersionedBytes;
use domain::access::Caller;
use domain::id::{Category, ItemId, UserId};
use domain::item::check_text;

/// Everything that decides which rows there are, except the page. Page tokens are bound to it.
#[derive(Debug, serde::Serialize)]
struct TokenKey {
    rpc: &'static str,
    item: Option<String>,
    category: Option<String>,
    min_score: Option<u64>,
    exclude_purchased: bool,
    merchant: Option<String>,
}

/// The last row before a page, as its token holds it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Cursor {
    version: i64,
    /// Which bytes of the version. The release before knew only one.
    #[serde(default)]
    redaction: i64,
    score_bits: u64,
    user: String,
    rank: u64,
}

impl Cursor {
    fn is_possible(&self) -> bool {
        let score = f64::from_bits(self.score_bits);
        self.version > 0
            && self.redaction >= 0
            && self.rank > 0
            && score.is_finite()
            && UserId::stored(&self.user).is_ok()
    }
}

/// Makes the messages that answer one request.
#[derive(Debug)]
pub struct Rows {
    token_key: TokenKey,
    bytes: VersionedBytes,
}

/// Makes [`Rows`] once it is known which snapshot they come from.
#[derive(Debug)]
pub struct RowsBuilder {
    token_key: TokenKey,
}

impl RowsBuilder {
    pub fn build(self, header: &Header) -> Rows {
        Rows {
            token_key: self.token_key,
            bytes: header.bytes,
        }
    }
}

/// Returns the request, and what makes its answers once the snapshot is known.
pub fn request(
    request: v1::StreamAudienceRequest,
    caller: Arc<Caller>,
) -> Result<(AudienceRequest, RowsBuilder), Status> {
    let mut violations = Violations::default();
    let goods = violations.check(required("of", request.of).and_then(|of| match of {
        Of::ItemId(id) => ItemId::new(id).map(Goods::Item),
        Of::Category(name) => Category::new(name).map(Goods::Category),
    }));
    let limit = violations.check(row_limit(request.limit));
    let min_score = violations.check(score("min_score", request.min_score));
    let note = violations.check(check_text("note", request.note));
    let Some((((goods, limit), min_score), note)) = goods.zip(limit).zip(min_score).zip(note) else {
        return violations.finish(None);
    };
    let token_key = TokenKey {
        rpc: "StreamAudience",
        item: match &goods {
            Goods::Item(item) => Some(item.to_string()),
            Goods::Category(_) => None,
        },
        category: match &goods {
            Goods::Item(_) => None,
            Goods::Category(category) => Some(category.to_string()),
        },
        min_score: min_score.map(f64::to_bits),
        exclude_purchased: request.exclude_purchased,
        merchant: caller.merchant.as_ref().map(ToString::to_string),
    };
    let cursor = violations.check(page::cursor(&token_key, &request.page_token, Cursor::is_possible));
    let request = cursor.map(|cursor| AudienceRequest {
        goods,
        limit,
        min_score,
        exclude_purchased: request.exclude_purchased,
        after: cursor.map(|cursor| Position {
            bytes: VersionedBytes {
                version: cursor.version,
                redaction: cursor.redaction,
            },
            score: f64::from_bits(cursor.score_bits),
            user: cursor.user,
            rank: cursor.rank,
        }),
        note,
        caller,
    });
    Ok((violations.finish(request)?, RowsBuilder { token_key }))
}

pub fn header(header: &Header) -> v1::StreamAudienceResponse {
    let counts = &header.counts;
    message(Message::Header(v1::AudienceHeader {
        snapshot_version: header.bytes.version,
        item_count: header.items as i64,
        considered_count: counts.considered as i64,
        without_consent_count: counts.without_consent as i64,
        without_affinity_count: counts.without_affinity as i64,
        bought_count: counts.bought as i64,
        below_min_score_count: counts.below_min_score as i64,
        audience_count: counts.audience as i64,
    }))
}

impl Rows {
    pub fn row(&self, member: Member) -> v1::StreamAudienceResponse {
        let cursor = Cursor {
            version: self.bytes.version,
            redaction: self.bytes.redaction,
            score_bits: member.score.to_bits(),
            user: member.user,
            rank: member.rank,
        };
        let page_token = page::token(&self.token_key, &cursor);
        message(Message::Row(v1::AudienceRow {
            rank: member.rank as i64,
            user_id: cursor.user,
            score: member.score,
            page_token,
        }))
    }
}

fn message(message: Message) -> v1::StreamAudienceResponse {
    v1::StreamAudienceResponse { message: Some(message) }
}
