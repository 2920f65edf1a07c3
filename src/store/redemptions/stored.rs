//! The format in which answered redemptions are kept.

use crate::store::error::StoreError;
use domain::id::{CampaignId, CartId, CouponId, OrderId, RedemptionId, ReservationId, UserId};
use domain::money::Currency;
use domain::redemption::Redemption;
use domain::time::Timestamp;

/// A redemption in the format of `request_log`.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct StoredRedemption {
    pub id: String,
    /// `None` for a redemption that another system has made.
    pub reservation: Option<String>,
    pub user: String,
    pub coupon: String,
    /// Absent in rows of earlier versions, as is `cart`.
    #[serde(default)]
    pub campaign: Option<String>,
    #[serde(default)]
    pub cart: Option<String>,
    pub amount_minor: i64,
    pub currency: String,
    pub rolled_back_minor: i64,
    pub is_cap_restored: bool,
    pub order: Option<String>,
    pub redeemed_at: Timestamp,
}

impl TryFrom<StoredRedemption> for Redemption {
    type Error = StoreError;

    fn try_from(stored: StoredRedemption) -> Result<Self, StoreError> {
        let corrupt = |error| StoreError::corrupt("redemptions", error);
        Ok(Self {
            id: RedemptionId::stored(stored.id).map_err(corrupt)?,
            reservation: stored
                .reservation
                .map(ReservationId::stored)
                .transpose()
                .map_err(corrupt)?,
            user: UserId::stored(stored.user).map_err(corrupt)?,
            coupon: CouponId::stored(stored.coupon).map_err(corrupt)?,
            campaign: stored.campaign.map(CampaignId::stored).transpose().map_err(corrupt)?,
            cart: stored.cart.map(CartId::stored).transpose().map_err(corrupt)?,
            amount_minor: stored.amount_minor,
            currency: Currency::new(&stored.currency).map_err(corrupt)?,
            rolled_back_minor: stored.rolled_back_minor,
            is_cap_restored: stored.is_cap_restored,
            order: stored.order.map(OrderId::stored).transpose().map_err(corrupt)?,
            redeemed_at: stored.redeemed_at,
        })
    }
}
