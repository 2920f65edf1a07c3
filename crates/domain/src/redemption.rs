//! What is set aside of a coupon, and what was used.

use super::id::{CouponId, OrderId, RedemptionId, ReservationId, UserId};
use super::money::Currency;
use super::time::Timestamp;

/// A discount that is set aside until the shopper has paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub id: ReservationId,
    pub user: UserId,
    pub coupon: CouponId,
    pub amount_minor: i64,
    pub currency: Currency,
    pub reserved_at: Timestamp,
    /// It can be confirmed until before this.
    pub expires_at: Timestamp,
}

/// A coupon that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    pub id: RedemptionId,
    /// None of one that another system has made.
    pub reservation: Option<ReservationId>,
    pub user: UserId,
    pub coupon: CouponId,
    pub amount_minor: i64,
    pub currency: Currency,
    /// Given back until now; at most `amount_minor`.
    pub rolled_back_minor: i64,
    /// Whether the user may have the coupon again.
    pub is_cap_restored: bool,
    pub order: Option<OrderId>,
    pub redeemed_at: Timestamp,
}
