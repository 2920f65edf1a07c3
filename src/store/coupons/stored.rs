//! Reads coupons as they are stored and used, and compares them with the catalog.

use domain::coupon::{Coupon, ItemSet};
use domain::id::{CampaignId, CouponId, ItemId, MerchantId};

use super::rows::{CouponRow, corrupt};
use super::scopes;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// The most items that are read with a single coupon.
const MAX_SHOWN_ITEMS: i32 = 1_000;
/// The most items that are read with each coupon of a list, which could exceed the size of a message; also the most entries of
/// each list in its rules.
const MAX_LISTED_ITEMS: i32 = 10;

/// A coupon and how much of it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCoupon {
    pub(super) key: i64,
    /// The merchant of the campaign; `None` for the platform.
    pub owner: Option<MerchantId>,
    /// Its scope names only the first of its `item_count` items if there are many.
    pub coupon: Coupon,
    pub item_count: i64,
    /// The number of the catalog's items that the coupon covers.
    pub covered_count: i64,
    /// The names in the scope and the rules that match no item of the catalog, or of the campaign's merchant.
    pub unmatched: ItemSet,
    /// The number of names and values in all rules. In a list, the rules show only the first of each of their lists.
    pub rule_value_count: i64,
    pub reserved: i64,
    pub redeemed: i64,
}

/// Reads a coupon. `viewer`: see [`create`](super::create).
pub async fn get(pool: &Pool, id: &CouponId, viewer: Option<&MerchantId>) -> Result<Option<StoredCoupon>, StoreError> {
    let mut connection = pool.acquire().await?;
    match read(&mut connection, id, viewer).await? {
        Some(stored) => Ok(Some(stored.compared_with_catalog(&mut connection).await?)),
        None => Ok(None),
    }
}

/// Does the same as [`get`], on a connection of the caller and without looking at the catalog.
pub(super) async fn read(
    connection: &mut Connection,
    id: &CouponId,
    viewer: Option<&MerchantId>,
) -> Result<Option<StoredCoupon>, StoreError> {
    let row = sqlx::query_as!(
        ShownRow,
        r#"SELECT coupons.id, coupons.external_id, campaigns.external_id AS campaign_id, title, discount,
                  percent_basis_points, amount_minor, max_discount_minor, min_cart_minor, covers_all, categories, merchants,
                  per_user_cap, total_cap, reservation_ttl_seconds, rules, min_cart_basis, reserved, redeemed,
                  owners.external_id AS "owner?", item_count AS "item_count!", items AS "items!"
           FROM coupons JOIN campaigns ON campaigns.id = campaign_id
           JOIN coupon_counters ON coupon_counters.coupon_id = coupons.id
           LEFT JOIN merchants AS owners ON owners.id = campaigns.merchant_id
           CROSS JOIN LATERAL (
               SELECT count(*) AS item_count, COALESCE((array_agg(item ORDER BY item))[:$3::integer], '{}') AS items
               FROM (SELECT items.external_id AS item FROM coupon_items JOIN items ON items.id = item_id
                     WHERE coupon_items.coupon_id = coupons.id
                     UNION SELECT UNNEST(unseen_items)) AS named
           ) AS named
           WHERE coupons.external_id = $1 AND ($2::text IS NULL OR owners.external_id = $2)"#,
        id.as_str(),
        viewer.map(MerchantId::as_str),
        MAX_SHOWN_ITEMS,
    )
    .fetch_optional(connection)
    .await?;
    row.map(StoredCoupon::try_from).transpose()
}

/// Returns up to `limit` coupons of `campaign` after `after`, ascending by id, each with the first 10 of its items and of each
/// list in its rules. It does not look for names that match nothing.
pub async fn list(
    pool: &Pool,
    campaign: &CampaignId,
    after: &str,
    limit: i64,
) -> Result<Vec<StoredCoupon>, StoreError> {
    let mut connection = pool.acquire().await?;
    let rows = sqlx::query_as!(
        ShownRow,
        r#"SELECT coupons.id, coupons.external_id, campaigns.external_id AS campaign_id, title, discount,
                  percent_basis_points, amount_minor, max_discount_minor, min_cart_minor, covers_all, categories, merchants,
                  per_user_cap, total_cap, reservation_ttl_seconds, rules, min_cart_basis, reserved, redeemed,
                  owners.external_id AS "owner?", item_count AS "item_count!", items AS "items!"
           FROM coupons JOIN campaigns ON campaigns.id = campaign_id
           JOIN coupon_counters ON coupon_counters.coupon_id = coupons.id
           LEFT JOIN merchants AS owners ON owners.id = campaigns.merchant_id
           CROSS JOIN LATERAL (
               SELECT count(*) AS item_count, COALESCE((array_agg(item ORDER BY item))[:$4::integer], '{}') AS items
               FROM (SELECT items.external_id AS item FROM coupon_items JOIN items ON items.id = item_id
                     WHERE coupon_items.coupon_id = coupons.id
                     UNION SELECT UNNEST(unseen_items)) AS named
           ) AS named
           WHERE campaigns.external_id = $1 AND coupons.external_id > $2
           ORDER BY coupons.external_id LIMIT $3"#,
        campaign.as_str(),
        after,
        limit,
        MAX_LISTED_ITEMS,
    )
    .fetch_all(&mut *connection)
    .await?;
    let keys: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let covered = scopes::count_covered(&mut connection, &keys).await?;
    rows.into_iter()
        .map(|row| {
            let covered_count = covered.get(&row.id).copied().unwrap_or_default();
            let stored = StoredCoupon::try_from(row)?.with_short_rules();
            Ok(StoredCoupon {
                covered_count,
                ..stored
            })
        })
        .collect()
}

struct ShownRow {
    id: i64,
    external_id: String,
    campaign_id: String,
    title: String,
    discount: String,
    percent_basis_points: Option<i32>,
    amount_minor: Option<i64>,
    max_discount_minor: Option<i64>,
    min_cart_minor: i64,
    min_cart_basis: String,
    covers_all: bool,
    categories: Vec<String>,
    merchants: Vec<String>,
    per_user_cap: Option<i32>,
    total_cap: Option<i64>,
    reservation_ttl_seconds: i32,
    rules: serde_json::Value,
    reserved: i64,
    redeemed: i64,
    owner: Option<String>,
    item_count: i64,
    items: Vec<String>,
}

impl StoredCoupon {
    /// Returns whether the scope names all items.
    pub(super) fn is_complete(&self) -> bool {
        let shown = self.coupon.scope.listed().map_or(0, |set| set.items.len());
        self.item_count == shown as i64
    }

    /// Compares the names in the scope and the rules with the items that exist.
    pub(super) async fn compared_with_catalog(self, connection: &mut Connection) -> Result<Self, StoreError> {
        let covered = scopes::count_covered(connection, &[self.key]).await?;
        let names = scopes::all_names(&self.coupon);
        let unmatched = scopes::unmatched(connection, self.owner.as_ref(), &names).await?;
        Ok(Self {
            covered_count: covered.get(&self.key).copied().unwrap_or_default(),
            unmatched,
            ..self
        })
    }

    /// Shortens the lists in the rules.
    fn with_short_rules(mut self) -> Self {
        for rule in &mut self.coupon.rules {
            rule.truncate(MAX_LISTED_ITEMS as usize);
        }
        self
    }
}

impl TryFrom<ShownRow> for StoredCoupon {
    type Error = StoreError;

    fn try_from(row: ShownRow) -> Result<Self, StoreError> {
        let items = row
            .items
            .into_iter()
            .map(ItemId::stored)
            .collect::<Result<_, _>>()
            .map_err(corrupt)?;
        let coupon = CouponRow {
            id: row.id,
            external_id: row.external_id,
            campaign_id: row.campaign_id,
            title: row.title,
            discount: row.discount,
            percent_basis_points: row.percent_basis_points,
            amount_minor: row.amount_minor,
            max_discount_minor: row.max_discount_minor,
            min_cart_minor: row.min_cart_minor,
            min_cart_basis: row.min_cart_basis,
            covers_all: row.covers_all,
            categories: row.categories,
            merchants: row.merchants,
            per_user_cap: row.per_user_cap,
            total_cap: row.total_cap,
            reservation_ttl_seconds: row.reservation_ttl_seconds,
            rules: row.rules,
        };
        let coupon = coupon.coupon(items)?;
        Ok(Self {
            key: row.id,
            owner: row.owner.map(MerchantId::stored).transpose().map_err(corrupt)?,
            covered_count: 0,
            unmatched: ItemSet::default(),
            rule_value_count: coupon.rules.iter().map(|rule| rule.n_values() as i64).sum(),
            coupon,
            item_count: row.item_count,
            reserved: row.reserved,
            redeemed: row.redeemed,
        })
    }
}
