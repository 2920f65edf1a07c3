//! Converts the messages of StreamCouponTargets.

use std::sync::Arc;

use tonic::Status;

use crate::app::targets::{Header, Position, Target, TargetsRequest};
use crate::grpc::convert::{row_limit, score};
use crate::grpc::coupon::convert::code;
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;
use crate::store::snapshots::VersionedBytes;
use crate::store::token_key::KEY_BYTES;
use coupons::affinity::AffinityTerm;
use coupons::propensity::{FeatureContribution, PropensityExplanation};
use coupons::scoring::{AffinityExplanation, Explanation, RankBy};
use domain::access::Caller;
use domain::error::InvalidField;
use domain::id::{CouponId, UserId};
use recommender::snapshot::Snapshot;

/// Everything that decides which rows there are, except the page. Page tokens are bound to it.
#[derive(Debug, serde::Serialize)]
struct TokenKey {
    rpc: &'static str,
    coupon: String,
    by: RankBy,
    min_score: Option<u64>,
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

/// No list is as long as this, and a rank counted on from here still fits the answer.
const MAX_RANK: u64 = 1 << 53;

impl Cursor {
    fn is_possible(&self) -> bool {
        let score = f64::from_bits(self.score_bits);
        let is_rank = |rank: u64| (1..MAX_RANK).contains(&rank);
        self.version > 0
            && self.redaction >= 0
            && is_rank(self.rank)
            && score.is_finite()
            && score >= 0.0
            && UserId::stored(&self.user).is_ok()
    }
}

/// Makes the messages that answer one request.
pub struct Rows {
    secret: [u8; KEY_BYTES],
    token_key: TokenKey,
    bytes: VersionedBytes,
}

/// Returns the request, and what makes its answers once the snapshot is known. `secret`: authenticates page tokens.
pub fn request(
    request: v1::StreamCouponTargetsRequest,
    caller: Arc<Caller>,
    secret: [u8; KEY_BYTES],
) -> Result<(TargetsRequest, RowsBuilder), Status> {
    let mut violations = Violations::default();
    let coupon = violations.check(CouponId::new(request.coupon_id));
    let limit = violations.check(row_limit(request.limit));
    let min_score = violations.check(score("min_score", request.min_score));
    let by = violations.check(by(request.by));
    let Some((((coupon, limit), min_score), by)) = coupon.zip(limit).zip(min_score).zip(by) else {
        return violations.finish(None);
    };
    let token_key = TokenKey {
        rpc: "StreamCouponTargets",
        coupon: coupon.to_string(),
        by,
        min_score: min_score.map(f64::to_bits),
        merchant: caller.merchant.as_ref().map(ToString::to_string),
    };
    let cursor = page::authentic_cursor(&secret, &token_key, &request.page_token, Cursor::is_possible);
    let cursor = violations.check(cursor);
    let request = cursor.map(|cursor| TargetsRequest {
        coupon,
        by,
        limit,
        min_score,
        after: cursor.map(|cursor| Position {
            bytes: VersionedBytes {
                version: cursor.version,
                redaction: cursor.redaction,
            },
            score: f64::from_bits(cursor.score_bits),
            user: cursor.user,
            rank: cursor.rank,
        }),
        explain: request.explain,
        preview: request.preview,
        caller,
    });
    Ok((violations.finish(request)?, RowsBuilder { secret, token_key }))
}

/// Makes [`Rows`] once it is known which snapshot they come from.
pub struct RowsBuilder {
    secret: [u8; KEY_BYTES],
    token_key: TokenKey,
}

impl RowsBuilder {
    pub fn build(self, header: &Header) -> Rows {
        Rows {
            secret: self.secret,
            token_key: self.token_key,
            bytes: header.bytes,
        }
    }
}

fn by(by: i32) -> Result<RankBy, InvalidField> {
    match v1::TargetBy::try_from(by) {
        Ok(v1::TargetBy::Unspecified | v1::TargetBy::Affinity) => Ok(RankBy::Affinity),
        Ok(v1::TargetBy::Propensity) => Ok(RankBy::Propensity),
        Err(_) => Err(InvalidField::new(
            "by",
            "UNKNOWN_ENUM_VALUE",
            format!("must be a value of its enum, is {by}"),
        )),
    }
}

impl Rows {
    pub fn header(&self, header: &Header) -> v1::StreamCouponTargetsResponse {
        let excluded = header.counts.excluded.iter().map(|(&reason, &users)| v1::ReasonCount {
            code: code(reason).into(),
            users: users.all as i64,
            users_by_first_reason: users.first as i64,
        });
        message(v1::stream_coupon_targets_response::Message::Header(v1::TargetsHeader {
            snapshot_version: header.bytes.version,
            coupon_id: header.coupon.to_string(),
            by: match header.by {
                RankBy::Affinity => v1::TargetBy::Affinity,
                RankBy::Propensity => v1::TargetBy::Propensity,
            }
            .into(),
            audience_count: header.counts.audience as i64,
            logged: header.is_logged,
            eligible_count: header.counts.eligible as i64,
            excluded: excluded.collect(),
        }))
    }

    /// `snapshot`: the one that the target's score comes from.
    pub fn row(&self, snapshot: &Snapshot, target: Target) -> v1::StreamCouponTargetsResponse {
        let cursor = Cursor {
            version: self.bytes.version,
            redaction: self.bytes.redaction,
            score_bits: target.score.to_bits(),
            user: target.user,
            rank: target.rank,
        };
        let page_token = page::authentic_token(&self.secret, &self.token_key, &cursor);
        message(v1::stream_coupon_targets_response::Message::Target(v1::Target {
            rank: target.rank as i64,
            user_id: cursor.user,
            score: target.score,
            explanation: target.explanation.map(|explanation| match explanation {
                Explanation::Affinity(affinity) => {
                    v1::target::Explanation::Affinity(affinity_explanation(snapshot, &affinity))
                }
                Explanation::Propensity(propensity) => {
                    v1::target::Explanation::Propensity(propensity_explanation(propensity))
                }
            }),
            page_token,
        }))
    }
}

fn message(message: v1::stream_coupon_targets_response::Message) -> v1::StreamCouponTargetsResponse {
    v1::StreamCouponTargetsResponse { message: Some(message) }
}

fn affinity_explanation(snapshot: &Snapshot, explanation: &AffinityExplanation) -> v1::AffinityExplanation {
    let item = |term: &AffinityTerm| v1::HistoryItem {
        item_id: snapshot.items().id(term.item).to_owned(),
        title: snapshot.catalog().facts(term.item).title.to_owned(),
        rating: term.rating,
        contribution: term.contribution,
    };
    v1::AffinityExplanation {
        items: explanation.items.iter().map(item).collect(),
        other_items_contribution: explanation.other_items_contribution,
        other_items: explanation.other_items,
    }
}

fn propensity_explanation(explanation: PropensityExplanation) -> v1::PropensityExplanation {
    let feature = |contribution: FeatureContribution| v1::FeatureContribution {
        feature: contribution.feature.as_str().to_owned(),
        value: contribution.value,
        contribution: contribution.contribution,
    };
    v1::PropensityExplanation {
        base_log_odds: explanation.base_log_odds,
        features: explanation.features.into_iter().map(feature).collect(),
        other_features_contribution: explanation.other_features_contribution,
    }
}
