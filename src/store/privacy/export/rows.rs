//! The rows of an export, with the field names of the API.

use serde::Serialize;

use domain::time::Timestamp;

#[derive(Debug, Serialize)]
pub struct Attribute {
    pub(super) name: String,
    pub(super) value: String,
}

/// A rating, or a deleted one, of which only the time is left.
#[derive(Debug, Serialize)]
pub struct Rating {
    pub(super) item_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rated_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deleted_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
pub struct Money {
    pub(super) amount_minor: i64,
    pub(super) currency_code: String,
}

/// A line of an order; one with a negative quantity is a return.
#[derive(Debug, Serialize)]
pub struct PurchaseLine {
    pub(super) order_id: String,
    pub(super) line_number: i32,
    pub(super) item_id: String,
    pub(super) quantity: i32,
    pub(super) line_total: Money,
    pub(super) coupon_discount_minor: i64,
    pub(super) purchased_at: Timestamp,
}

#[derive(Debug, Serialize)]
pub struct ConsentEvent {
    pub(super) purpose: String,
    pub(super) granted: bool,
    pub(super) decided_at: Timestamp,
    pub(super) source: String,
    pub(super) recorded_at: Timestamp,
}

#[derive(Debug, Serialize)]
pub struct Suppression {
    pub(super) reason: String,
    pub(super) suppressed_at: Timestamp,
}

/// A campaign that the user is assigned to.
#[derive(Debug, Serialize)]
pub struct Assignment {
    pub(super) campaign_id: String,
    pub(super) assigned_at: Timestamp,
}

/// The first time that a coupon was offered to the user, or would have been.
#[derive(Debug, Serialize)]
pub struct Exposure {
    pub(super) coupon_id: String,
    pub(super) campaign_id: String,
    pub(super) held_out: bool,
    pub(super) snapshot_version: i64,
    pub(super) exposed_at: Timestamp,
}

#[derive(Debug, Serialize)]
pub struct Reservation {
    pub(super) reservation_id: String,
    pub(super) coupon_id: String,
    pub(super) campaign_id: String,
    pub(super) cart_id: Option<String>,
    pub(super) amount: Money,
    /// The amount that the coupon takes off each line of the cart.
    pub(super) lines: Vec<DiscountedLine>,
    pub(super) state: String,
    pub(super) reserved_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) closed_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
pub struct DiscountedLine {
    pub(super) item_id: String,
    pub(super) discount_minor: i64,
}

#[derive(Debug, Serialize)]
pub struct Redemption {
    pub(super) redemption_id: String,
    pub(super) reservation_id: Option<String>,
    pub(super) coupon_id: String,
    pub(super) campaign_id: String,
    pub(super) order_id: Option<String>,
    pub(super) amount: Money,
    pub(super) rolled_back_minor: i64,
    pub(super) cap_restored: bool,
    pub(super) redeemed_at: Timestamp,
}

/// How often the user has a coupon reserved and redeemed.
#[derive(Debug, Serialize)]
pub struct CouponUse {
    pub(super) coupon_id: String,
    pub(super) per_user_cap: Option<i64>,
    pub(super) reserved: i64,
    pub(super) redeemed: i64,
}

/// A change of what the user has reserved and redeemed, as the ledger counts it.
#[derive(Debug, Serialize)]
pub struct LedgerEntry {
    pub(super) at: Timestamp,
    pub(super) entry: String,
    pub(super) campaign_id: String,
    pub(super) coupon_id: String,
    pub(super) reservation_id: Option<String>,
    pub(super) redemption_id: Option<String>,
    pub(super) reserved_minor: i64,
    pub(super) spent_minor: i64,
    pub(super) reserved: i64,
    pub(super) redeemed: i64,
}

/// Something that was done with the data of the user.
#[derive(Debug, Serialize)]
pub struct AuditEntry {
    pub(super) at: Timestamp,
    pub(super) action: String,
    pub(super) note: String,
    pub(super) row_count: i64,
}

/// Copies of rows of the user in other places.
#[derive(Debug, Serialize)]
pub struct Copies {
    /// Answers to requests, kept for whoever sends one again.
    pub(super) request_log: i64,
    /// Rows that an import has written or overwritten, kept so that it can be undone.
    pub(super) import_copies: i64,
    /// Ratings that an import has overwritten.
    pub(super) import_overwritten_ratings: i64,
}
