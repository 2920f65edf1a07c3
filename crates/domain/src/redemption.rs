//! Reservations and redemptions of coupons.

use std::str::FromStr;

use super::error::InvalidField;
use super::id::{CampaignId, CartId, CouponId, OrderId, RedemptionId, ReservationId, UserId};
use super::money::Currency;
use super::time::Timestamp;

/// A discount that is set aside until the shopper has paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub id: ReservationId,
    pub user: UserId,
    pub coupon: CouponId,
    pub campaign: CampaignId,
    /// `None` for a cart without an identity.
    pub cart: Option<CartId>,
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
    /// `None` in an answer that was kept before answers had it.
    pub campaign: Option<CampaignId>,
    /// The cart of the reservation, if it had an identity.
    pub cart: Option<CartId>,
    pub amount_minor: i64,
    pub currency: Currency,
    /// The amount that was given back so far; at most `amount_minor`.
    pub rolled_back_minor: i64,
    /// Whether a rollback restored the user's cap, so that they may use the coupon again.
    pub is_cap_restored: bool,
    pub order: Option<OrderId>,
    pub redeemed_at: Timestamp,
}

/// The state of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReservationState {
    /// It is open.
    Reserved,
    Confirmed,
    Released,
    Expired,
}

impl ReservationState {
    /// Returns the name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }
}

impl FromStr for ReservationState {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let all = [Self::Reserved, Self::Confirmed, Self::Released, Self::Expired];
        all.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let message = format!("must be reserved, confirmed, released or expired, is {text:?}");
            InvalidField::new("state", "UNKNOWN_STATE", message)
        })
    }
}

/// How much of a redemption was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RedemptionStatus {
    /// Nothing.
    Redeemed,
    PartlyRolledBack,
    /// All of it, or the user's cap.
    RolledBack,
}

impl RedemptionStatus {
    /// Returns the name, in lower snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redeemed => "redeemed",
            Self::PartlyRolledBack => "partly_rolled_back",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl Redemption {
    pub fn status(&self) -> RedemptionStatus {
        let is_whole = self.rolled_back_minor > 0 && self.rolled_back_minor == self.amount_minor;
        match self.rolled_back_minor {
            _ if self.is_cap_restored || is_whole => RedemptionStatus::RolledBack,
            0 => RedemptionStatus::Redeemed,
            _ => RedemptionStatus::PartlyRolledBack,
        }
    }
}
