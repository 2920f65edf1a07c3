//! Reads all definitions of campaigns and coupons.

use std::collections::HashMap;

use coupons::offer_catalog::OfferCatalog;
use domain::campaign::Campaign;
use domain::coupon::Coupon;
use domain::id::ItemId;

use super::rows::{CampaignRow, CouponRow};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, without_timeouts};

/// Reads all definitions, and their revision.
pub async fn read(pool: &Pool) -> Result<(OfferCatalog, i64), StoreError> {
    let mut tx = pool.begin_snapshot().await?;
    // There may be very many items.
    without_timeouts(&mut tx).await?;
    let revision = sqlx::query_scalar!("SELECT revision FROM coupon_book")
        .fetch_one(&mut *tx)
        .await?;
    let campaigns = read_campaigns(&mut tx).await?;
    let coupons = read_coupons(&mut tx).await?;
    Ok((OfferCatalog::new(campaigns, coupons), revision))
}

/// Reads all campaigns, in any order.
pub(in crate::store) async fn read_campaigns(connection: &mut Connection) -> Result<Vec<Campaign>, StoreError> {
    sqlx::query_as!(
        CampaignRow,
        r#"SELECT campaigns.external_id, merchants.external_id AS "merchant_id?", campaigns.name, state, starts_at, ends_at,
                  currency_code, limit_minor, priority, is_exclusive, audience, holdout_basis_points, holdout_salt,
                  history_scope
           FROM campaigns JOIN campaign_states ON campaign_states.campaign_id = campaigns.id
           LEFT JOIN merchants ON merchants.id = merchant_id"#
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(Campaign::try_from)
    .collect()
}

/// Reads all coupons with all their items, in any order.
pub(in crate::store) async fn read_coupons(connection: &mut Connection) -> Result<Vec<Coupon>, StoreError> {
    let mut items: HashMap<i64, Vec<ItemId>> = HashMap::new();
    let rows = sqlx::query!(
        r#"SELECT coupon_id AS "coupon_id!", items.external_id AS "external_id!"
           FROM coupon_items JOIN items ON items.id = item_id
           UNION SELECT id, UNNEST(unseen_items) FROM coupons
           ORDER BY 2"#
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let item = ItemId::stored(row.external_id).map_err(|error| StoreError::corrupt("items", error))?;
        items.entry(row.coupon_id).or_default().push(item);
    }
    let rows = sqlx::query_as!(
        CouponRow,
        r#"SELECT coupons.id, coupons.external_id, campaigns.external_id AS campaign_id, title, discount,
                  percent_basis_points, amount_minor, max_discount_minor, min_cart_minor, covers_all, categories, merchants,
                  per_user_cap, total_cap, reservation_ttl_seconds, rules, min_cart_basis
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
