//! All definitions of campaigns and coupons, and whether they have changed.

use std::collections::HashMap;

use coupons::offer_catalog::OfferCatalog;
use domain::campaign::{Campaign, Holdout, Window};
use domain::coupon::Coupon;
use domain::id::{CampaignId, CouponId, ItemId, MerchantId};
use domain::money::Currency;
use domain::time::Timestamp;

use crate::store::coupons::CouponRow;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, without_timeouts};

/// Raised by every change of a definition.
pub async fn revision(pool: &Pool) -> Result<i64, StoreError> {
    let revision = sqlx::query_scalar!("SELECT revision FROM coupon_book")
        .fetch_one(&mut *pool.acquire().await?)
        .await?;
    Ok(revision)
}

/// Says that a definition has changed. The last statement of its transaction: from here on others wait.
pub(in crate::store) async fn raise_revision(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("UPDATE coupon_book SET revision = revision + 1")
        .execute(connection)
        .await?;
    Ok(())
}

/// All definitions, and their revision.
pub async fn read(pool: &Pool) -> Result<(OfferCatalog, i64), StoreError> {
    let mut tx = pool.begin_picture().await?;
    // There may be very many items.
    without_timeouts(&mut tx).await?;
    let revision = sqlx::query_scalar!("SELECT revision FROM coupon_book")
        .fetch_one(&mut *tx)
        .await?;
    let campaigns = read_campaigns(&mut tx).await?;
    let coupons = read_coupons(&mut tx).await?;
    Ok((OfferCatalog::new(campaigns, coupons), revision))
}

pub(in crate::store) async fn read_campaigns(connection: &mut Connection) -> Result<Vec<Campaign>, StoreError> {
    sqlx::query_as!(
        CampaignRow,
        r#"SELECT campaigns.external_id, merchants.external_id AS "merchant_id?", campaigns.name, state, starts_at, ends_at,
                  currency_code, limit_minor, priority, is_exclusive, audience, holdout_basis_points, holdout_salt
           FROM campaigns JOIN campaign_states ON campaign_states.campaign_id = campaigns.id
           LEFT JOIN merchants ON merchants.id = merchant_id"#
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(Campaign::try_from)
    .collect()
}

pub(in crate::store) async fn read_coupons(connection: &mut Connection) -> Result<Vec<Coupon>, StoreError> {
    let mut items: HashMap<i64, Vec<ItemId>> = HashMap::new();
    let rows = sqlx::query!(
        "SELECT coupon_id, items.external_id FROM coupon_items JOIN items ON items.id = item_id ORDER BY external_id"
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let item = ItemId::new(row.external_id).map_err(|error| StoreError::corrupt("items", error))?;
        items.entry(row.coupon_id).or_default().push(item);
    }
    let rows = sqlx::query_as!(
        CouponRow,
        r#"SELECT coupons.id, coupons.external_id, campaigns.external_id AS campaign_id, title, discount,
                  percent_basis_points, amount_minor, max_discount_minor, min_cart_minor, covers_all, categories, merchants,
                  per_user_cap, total_cap, reservation_ttl_seconds, rules
           FROM coupons JOIN campaigns ON campaigns.id = campaign_id
           JOIN coupon_counters ON coupon_counters.coupon_id = coupons.id"#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let items = items.remove(&row.id).unwrap_or_default();
            row.coupon(items)
        })
        .collect()
}

pub(in crate::store) struct CampaignRow {
    pub external_id: String,
    pub merchant_id: Option<String>,
    pub name: String,
    pub state: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub currency_code: String,
    pub limit_minor: Option<i64>,
    pub priority: i32,
    pub is_exclusive: bool,
    pub audience: String,
    pub holdout_basis_points: i32,
    pub holdout_salt: Vec<u8>,
}

impl TryFrom<CampaignRow> for Campaign {
    type Error = StoreError;

    fn try_from(row: CampaignRow) -> Result<Self, StoreError> {
        let corrupt = |error| StoreError::corrupt("campaigns", error);
        let salt = <[u8; 16]>::try_from(row.holdout_salt);
        let basis_points = u16::try_from(row.holdout_basis_points);
        Ok(Self {
            id: CampaignId::new(row.external_id).map_err(corrupt)?,
            merchant: row.merchant_id.map(MerchantId::new).transpose().map_err(corrupt)?,
            name: row.name,
            state: row.state.parse().map_err(corrupt)?,
            window: Window::new(row.starts_at, row.ends_at).map_err(corrupt)?,
            currency: Currency::new(&row.currency_code).map_err(corrupt)?,
            budget_limit_minor: row.limit_minor,
            priority: row.priority,
            is_exclusive: row.is_exclusive,
            audience: row.audience.parse().map_err(corrupt)?,
            holdout: Holdout {
                basis_points: basis_points.map_err(|_| StoreError::corrupt("campaigns", "holdout_basis_points"))?,
                salt: salt.map_err(|_| StoreError::corrupt("campaigns", "holdout_salt"))?,
            },
        })
    }
}

/// Of a coupon that a row names.
pub(in crate::store) fn coupon_id(id: String) -> Result<CouponId, StoreError> {
    CouponId::new(id).map_err(|error| StoreError::corrupt("coupons", error))
}
