//! Reservations and redemptions of coupons.

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
    /// The reservation can be confirmed before this instant.
    pub expires_at: Timestamp,
}

/// The use of a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    pub id: RedemptionId,
    /// `None` if another system made the redemption.
    pub reservation: Option<ReservationId>,
    pub user: UserId,
    pub coupon: CouponId,
    pub amount_minor: i64,
    pub currency: Currency,
    /// The amount that was given back so far; at most `amount_minor`.
    pub rolled_back_minor: i64,
    /// Whether a rollback restored the user's cap, so that they may use the coupon again.
    pub is_cap_restored: bool,
    pub order: Option<OrderId>,
    pub redeemed_at: Timestamp,
}
