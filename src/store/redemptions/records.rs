//! Reads reservations and redemptions as they are now, one by one and as lists.

use domain::id::{CampaignId, CartId, CouponId, MerchantId, OrderId, RedemptionId, ReservationId, UserId};
use domain::redemption::{Redemption, RedemptionStatus, Reservation, ReservationState};
use domain::time::Timestamp;

use super::currency;
use super::stored::StoredRedemption;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// A reservation and how it has ended, if it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRecord {
    pub reservation: Reservation,
    /// Expired from `expires_at` on, whether it was swept or not.
    pub state: ReservationState,
    /// When it was confirmed, released or swept.
    pub closed_at: Option<Timestamp>,
    /// The redemption of a confirmed one.
    pub redemption: Option<RedemptionId>,
}

/// The records to list; `None` stands for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    pub campaign: Option<CampaignId>,
    pub coupon: Option<CouponId>,
    pub user: Option<UserId>,
    /// The first instant of the time in which it was reserved or redeemed.
    pub from: Option<Timestamp>,
    /// The first instant after that time.
    pub before: Option<Timestamp>,
    /// The merchant whose campaigns are seen.
    pub viewer: Option<MerchantId>,
}

/// The position of a record in a list, which goes from the latest backward.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordCursor {
    pub at: Timestamp,
    pub id: String,
}

/// Reads a reservation of a campaign that `viewer` may see.
pub async fn reservation(
    pool: &Pool,
    id: &ReservationId,
    viewer: Option<&MerchantId>,
) -> Result<Option<ReservationRecord>, StoreError> {
    let row = sqlx::query_as!(
        ReservationRow,
        r#"SELECT reservations.external_id AS id, users.external_id AS "user", coupons.external_id AS coupon,
                  campaigns.external_id AS campaign, cart_id, reservations.amount_minor, currency_code, reserved_at,
                  expires_at, closed_at, redemptions.external_id AS "redemption?",
                  CASE WHEN state = 'reserved' AND expires_at <= now() THEN 'expired' ELSE state END AS "state!"
           FROM reservations
           JOIN users ON users.id = reservations.user_id
           JOIN coupons ON coupons.id = reservations.coupon_id
           JOIN campaigns ON campaigns.id = reservations.campaign_id
           LEFT JOIN merchants AS owners ON owners.id = campaigns.merchant_id
           LEFT JOIN redemptions ON redemptions.reservation_id = reservations.id
           WHERE reservations.external_id = $1 AND ($2::text IS NULL OR owners.external_id = $2)"#,
        id.as_str(),
        viewer.map(MerchantId::as_str),
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?;
    row.map(ReservationRecord::try_from).transpose()
}

/// Returns up to `limit` reservations that match, latest first, after `cursor`.
///
/// `states`: the states to list; empty for all.
pub async fn reservations(
    pool: &Pool,
    filter: &RecordFilter,
    states: &[ReservationState],
    cursor: Option<&RecordCursor>,
    limit: i64,
) -> Result<Vec<ReservationRecord>, StoreError> {
    let states: Vec<String> = states.iter().map(|state| state.as_str().to_owned()).collect();
    let rows = sqlx::query_as!(
        ReservationRow,
        r#"SELECT reservations.external_id AS id, users.external_id AS "user", coupons.external_id AS coupon,
                  campaigns.external_id AS campaign, cart_id, reservations.amount_minor, currency_code, reserved_at,
                  expires_at, closed_at, redemptions.external_id AS "redemption?",
                  CASE WHEN state = 'reserved' AND expires_at <= now() THEN 'expired' ELSE state END AS "state!"
           FROM reservations
           JOIN users ON users.id = reservations.user_id
           JOIN coupons ON coupons.id = reservations.coupon_id
           JOIN campaigns ON campaigns.id = reservations.campaign_id
           LEFT JOIN merchants AS owners ON owners.id = campaigns.merchant_id
           LEFT JOIN redemptions ON redemptions.reservation_id = reservations.id
           WHERE ($1::text IS NULL OR campaigns.external_id = $1)
             AND ($2::text IS NULL OR coupons.external_id = $2)
             AND ($3::text IS NULL OR users.external_id = $3 AND NOT is_pseudonym)
             AND ($4::text IS NULL OR owners.external_id = $4)
             AND reserved_at >= COALESCE($5::timestamptz, '-infinity')
             AND reserved_at < COALESCE($6::timestamptz, 'infinity')
             AND (reserved_at, reservations.external_id) < (COALESCE($7::timestamptz, 'infinity'), $8::text)
             AND (cardinality($9::text[]) = 0
                  OR CASE WHEN state = 'reserved' AND expires_at <= now() THEN 'expired' ELSE state END = ANY($9))
           ORDER BY reserved_at DESC, reservations.external_id DESC LIMIT $10"#,
        filter.campaign.as_ref().map(CampaignId::as_str),
        filter.coupon.as_ref().map(CouponId::as_str),
        filter.user.as_ref().map(UserId::as_str),
        filter.viewer.as_ref().map(MerchantId::as_str),
        filter.from,
        filter.before,
        cursor.map(|cursor| cursor.at),
        cursor.map_or("", |cursor| cursor.id.as_str()),
        &states,
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter().map(ReservationRecord::try_from).collect()
}

/// Reads a redemption of a campaign that `viewer` may see.
pub async fn redemption(
    pool: &Pool,
    id: &RedemptionId,
    viewer: Option<&MerchantId>,
) -> Result<Option<Redemption>, StoreError> {
    let row = sqlx::query_as!(
        StoredRedemption,
        r#"SELECT redemptions.external_id AS id, reservations.external_id AS "reservation?", users.external_id AS "user",
                  coupons.external_id AS coupon, campaigns.external_id AS "campaign?", cart_id AS "cart?",
                  redemptions.amount_minor, currency_code AS currency, rolled_back_minor, is_cap_restored,
                  order_id AS "order?", redeemed_at
           FROM redemptions
           JOIN users ON users.id = redemptions.user_id
           JOIN coupons ON coupons.id = redemptions.coupon_id
           JOIN campaigns ON campaigns.id = redemptions.campaign_id
           LEFT JOIN merchants AS owners ON owners.id = campaigns.merchant_id
           LEFT JOIN reservations ON reservations.id = reservation_id
           WHERE redemptions.external_id = $1 AND ($2::text IS NULL OR owners.external_id = $2)"#,
        id.as_str(),
        viewer.map(MerchantId::as_str),
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?;
    row.map(Redemption::try_from).transpose()
}

/// Returns up to `limit` redemptions that match, latest first, after `cursor`.
///
/// `statuses`: the statuses to list; empty for all.
pub async fn redemptions(
    pool: &Pool,
    filter: &RecordFilter,
    order: Option<&OrderId>,
    statuses: &[RedemptionStatus],
    cursor: Option<&RecordCursor>,
    limit: i64,
) -> Result<Vec<Redemption>, StoreError> {
    let statuses: Vec<String> = statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let rows = sqlx::query_as!(
        StoredRedemption,
        r#"SELECT redemptions.external_id AS id, reservations.external_id AS "reservation?", users.external_id AS "user",
                  coupons.external_id AS coupon, campaigns.external_id AS "campaign?", cart_id AS "cart?",
                  redemptions.amount_minor, currency_code AS currency, rolled_back_minor, is_cap_restored,
                  order_id AS "order?", redeemed_at
           FROM redemptions
           JOIN users ON users.id = redemptions.user_id
           JOIN coupons ON coupons.id = redemptions.coupon_id
           JOIN campaigns ON campaigns.id = redemptions.campaign_id
           LEFT JOIN merchants AS owners ON owners.id = campaigns.merchant_id
           LEFT JOIN reservations ON reservations.id = reservation_id
           WHERE ($1::text IS NULL OR campaigns.external_id = $1)
             AND ($2::text IS NULL OR coupons.external_id = $2)
             AND ($3::text IS NULL OR users.external_id = $3 AND NOT is_pseudonym)
             AND ($4::text IS NULL OR owners.external_id = $4)
             AND ($5::text IS NULL OR order_id = $5)
             AND redeemed_at >= COALESCE($6::timestamptz, '-infinity')
             AND redeemed_at < COALESCE($7::timestamptz, 'infinity')
             AND (redeemed_at, redemptions.external_id) < (COALESCE($8::timestamptz, 'infinity'), $9::text)
             -- The same cases as in Redemption::status.
             AND (cardinality($10::text[]) = 0
                  OR CASE WHEN is_cap_restored OR rolled_back_minor > 0 AND rolled_back_minor = redemptions.amount_minor
                          THEN 'rolled_back'
                          WHEN rolled_back_minor > 0 THEN 'partly_rolled_back'
                          ELSE 'redeemed' END = ANY($10))
           ORDER BY redeemed_at DESC, redemptions.external_id DESC LIMIT $11"#,
        filter.campaign.as_ref().map(CampaignId::as_str),
        filter.coupon.as_ref().map(CouponId::as_str),
        filter.user.as_ref().map(UserId::as_str),
        filter.viewer.as_ref().map(MerchantId::as_str),
        order.map(OrderId::as_str),
        filter.from,
        filter.before,
        cursor.map(|cursor| cursor.at),
        cursor.map_or("", |cursor| cursor.id.as_str()),
        &statuses,
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter().map(Redemption::try_from).collect()
}

struct ReservationRow {
    id: String,
    user: String,
    coupon: String,
    campaign: String,
    cart_id: Option<String>,
    amount_minor: i64,
    currency_code: String,
    reserved_at: Timestamp,
    expires_at: Timestamp,
    closed_at: Option<Timestamp>,
    redemption: Option<String>,
    state: String,
}

impl TryFrom<ReservationRow> for ReservationRecord {
    type Error = StoreError;

    fn try_from(row: ReservationRow) -> Result<Self, StoreError> {
        let corrupt = |error| StoreError::corrupt("reservations", error);
        Ok(Self {
            reservation: Reservation {
                id: ReservationId::stored(row.id).map_err(corrupt)?,
                user: UserId::stored(row.user).map_err(corrupt)?,
                coupon: CouponId::stored(row.coupon).map_err(corrupt)?,
                campaign: CampaignId::stored(row.campaign).map_err(corrupt)?,
                cart: row.cart_id.map(CartId::stored).transpose().map_err(corrupt)?,
                amount_minor: row.amount_minor,
                currency: currency(&row.currency_code)?,
                reserved_at: row.reserved_at,
                expires_at: row.expires_at,
            },
            state: row.state.parse().map_err(corrupt)?,
            closed_at: row.closed_at,
            redemption: row.redemption.map(RedemptionId::stored).transpose().map_err(corrupt)?,
        })
    }
}
