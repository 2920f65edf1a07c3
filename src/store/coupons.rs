//! Creates, changes and reads coupons.

pub mod attributes;
pub mod audience;
pub mod campaigns;
pub mod eligibility;
pub mod exposures;
pub mod lift;
pub mod loads;
pub mod offer_catalog;
pub mod revision;
mod rows;

use domain::campaign::Campaign;
use domain::coupon::{Coupon, CouponPatch, Discount, Rule, Scope};
use domain::id::{CampaignId, CouponId, ItemId, MerchantId};

use self::campaigns::DefineError;
use self::rows::{CouponRow, corrupt, rules_to_json};
use crate::store::catalog::ids;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, Tx};

/// The most items that are read with a single coupon.
const MAX_SHOWN_ITEMS: i64 = 1_000;
/// The most items that are read with each coupon of a list, which could exceed the size of a message; also the most entries of
/// each list in its rules.
const MAX_LISTED_ITEMS: i64 = 10;

/// A coupon and how much of it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCoupon {
    /// Its scope names only the first of its `item_count` items if there are many.
    pub coupon: Coupon,
    pub item_count: i64,
    /// The number of names and values in all rules. In a list, the rules show only the first of each of their lists.
    pub rule_value_count: i64,
    pub reserved: i64,
    pub redeemed: i64,
}

/// Creates `coupon` in a campaign that `viewer` may see. Returns the stored one if it exists already and is the same.
/// Creates unknown items bare.
///
/// `viewer`: the merchant to which other merchants' campaigns do not exist; `None` sees all.
pub async fn create(pool: &Pool, coupon: &Coupon, viewer: Option<&MerchantId>) -> Result<StoredCoupon, DefineError> {
    pool.write(|mut tx| async move {
        let campaign = campaigns::read(&mut tx, &coupon.campaign, viewer, campaigns::Lock::None).await?;
        let Some(campaign) = campaign else {
            return Ok(Err(DefineError::UnknownCampaign(coupon.campaign.clone())));
        };
        let checked = check_merchants(&mut tx, &campaign.campaign, Some(&coupon.scope), &coupon.rules).await?;
        if let Err(error) = checked {
            return Ok(Err(error));
        }
        let columns = Columns::of(coupon);
        let created = sqlx::query_scalar!(
            "INSERT INTO coupons
                 (external_id, campaign_id, title, discount, percent_basis_points, amount_minor, max_discount_minor,
                  min_cart_minor, covers_all, categories, merchants, per_user_cap, reservation_ttl_seconds, rules,
                  min_cart_basis)
             SELECT $1, id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 FROM campaigns WHERE external_id = $2
             ON CONFLICT (external_id) DO NOTHING RETURNING id",
            coupon.id.as_str(),
            coupon.campaign.as_str(),
            coupon.title,
            coupon.discount.kind(),
            columns.percent_basis_points,
            columns.amount_minor,
            coupon.max_discount_minor,
            coupon.min_cart_minor,
            columns.covers_all,
            &columns.categories,
            &columns.merchants,
            coupon.per_user_cap,
            coupon.reservation_ttl_seconds,
            rules_to_json(&coupon.rules),
            coupon.min_cart_basis.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(id) = created else {
            let stored = read(&mut tx, &coupon.id, viewer).await?;
            let same = stored.filter(|stored| stored.is_complete() && stored.coupon == *coupon);
            return Ok(same.ok_or_else(|| DefineError::CouponExists(coupon.id.clone())));
        };
        sqlx::query!(
            "INSERT INTO coupon_counters (coupon_id, total_cap) VALUES ($1, $2)",
            id,
            coupon.total_cap
        )
        .execute(&mut *tx)
        .await?;
        add_items(&mut tx, id, columns.items).await?;
        finish(tx, &coupon.id).await
    })
    .await?
}

/// Changes a coupon. `viewer`: see [`create`].
pub async fn update(
    pool: &Pool,
    patch: &CouponPatch,
    viewer: Option<&MerchantId>,
) -> Result<StoredCoupon, DefineError> {
    pool.write(|mut tx| async move {
        let locked = sqlx::query!(
            "SELECT id, reserved + redeemed AS \"used!\",
                    (SELECT max(own.reserved + own.redeemed) FROM user_coupon_counters AS own WHERE own.coupon_id = id)
                        AS used_by_one
             FROM coupons JOIN coupon_counters ON coupon_id = id WHERE external_id = $1 FOR UPDATE OF coupon_counters",
            patch.id.as_str()
        )
        .fetch_optional(&mut *tx)
        .await?;
        let stored = read(&mut tx, &patch.id, viewer).await?;
        let Some((locked, stored)) = locked.zip(stored) else {
            return Ok(Err(DefineError::UnknownCoupon(patch.id.clone())));
        };
        let campaign = campaigns::read(&mut tx, &stored.coupon.campaign, viewer, campaigns::Lock::None).await?;
        let Some(campaign) = campaign else {
            return Ok(Err(DefineError::UnknownCoupon(patch.id.clone())));
        };
        let rules = patch.rules.as_deref().unwrap_or_default();
        if let Err(error) = check_merchants(&mut tx, &campaign.campaign, patch.scope.as_ref(), rules).await? {
            return Ok(Err(error));
        }
        let new = patch.apply(&stored.coupon);
        if let Err(error) = check_limits(&new, locked.used, locked.used_by_one.unwrap_or(0)) {
            return Ok(Err(error));
        }
        if new == stored.coupon && patch.scope.is_none() {
            return Ok(Ok(stored));
        }
        overwrite(&mut tx, locked.id, &new, patch.scope.is_some()).await?;
        finish(tx, &patch.id).await
    })
    .await?
}

/// Checks that no limit is below what is used: by all users together, and by the user who has used most.
fn check_limits(new: &Coupon, used: i64, used_by_one: i64) -> Result<(), DefineError> {
    let limits = [
        ("total_cap", new.total_cap, used),
        ("per_user_cap", new.per_user_cap.map(i64::from), used_by_one),
    ];
    for (field, limit, used) in limits {
        if let Some(limit) = limit
            && limit < used
        {
            return Err(DefineError::LimitBelowUse { field, limit, used });
        }
    }
    Ok(())
}

/// Writes `new` over the coupon with the key `coupon_key`. `replaces_items`: whether its items may have changed.
async fn overwrite(
    connection: &mut Connection,
    coupon_key: i64,
    new: &Coupon,
    replaces_items: bool,
) -> Result<(), StoreError> {
    let columns = Columns::of(new);
    sqlx::query!(
        "UPDATE coupons SET title = $2, discount = $3, percent_basis_points = $4, amount_minor = $5,
                    max_discount_minor = $6, min_cart_minor = $7, covers_all = $8, categories = $9, merchants = $10,
                    per_user_cap = $11, reservation_ttl_seconds = $12, rules = $13, min_cart_basis = $14
             WHERE id = $1",
        coupon_key,
        new.title,
        new.discount.kind(),
        columns.percent_basis_points,
        columns.amount_minor,
        new.max_discount_minor,
        new.min_cart_minor,
        columns.covers_all,
        &columns.categories,
        &columns.merchants,
        new.per_user_cap,
        new.reservation_ttl_seconds,
        rules_to_json(&new.rules),
        new.min_cart_basis.as_str(),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE coupon_counters SET total_cap = $2 WHERE coupon_id = $1",
        coupon_key,
        new.total_cap
    )
    .execute(&mut *connection)
    .await?;
    if replaces_items {
        sqlx::query!("DELETE FROM coupon_items WHERE coupon_id = $1", coupon_key)
            .execute(&mut *connection)
            .await?;
        add_items(connection, coupon_key, columns.items).await?;
    }
    Ok(())
}

/// Checks that the merchants which `scope` and `rules` name exist, and that a merchant's campaign names only its own.
async fn check_merchants(
    connection: &mut Connection,
    campaign: &Campaign,
    scope: Option<&Scope>,
    rules: &[Rule],
) -> Result<Result<(), DefineError>, StoreError> {
    let sets = scope.and_then(Scope::listed).into_iter();
    let sets = sets.chain(rules.iter().filter_map(Rule::set));
    let named: Vec<&MerchantId> = sets.flat_map(|set| &set.merchants).collect();
    if let Some(owner) = &campaign.merchant
        && let Some(&foreign) = named.iter().find(|named| **named != owner)
    {
        let (owner, named) = (owner.clone(), foreign.clone());
        return Ok(Err(DefineError::ForeignMerchant { owner, named }));
    }
    let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
    let known = sqlx::query_scalar!("SELECT external_id FROM merchants WHERE external_id = ANY($1)", &ids)
        .fetch_all(connection)
        .await?;
    let unknown = named
        .into_iter()
        .find(|merchant| !known.iter().any(|id| id == merchant.as_str()));
    Ok(match unknown {
        None => Ok(()),
        Some(merchant) => Err(DefineError::UnknownMerchant(merchant.clone())),
    })
}

async fn add_items(connection: &mut Connection, coupon_key: i64, items: &[ItemId]) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let keys = ids::ensure_items(connection, items.iter().map(ItemId::as_str)).await?;
    let item_ids: Vec<i64> = items.iter().map(|item| keys.key(item.as_str())).collect();
    sqlx::query!(
        "INSERT INTO coupon_items (coupon_id, item_id) SELECT $1, * FROM UNNEST($2::bigint[]) ON CONFLICT DO NOTHING",
        coupon_key,
        &item_ids
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Raises the revision of the definitions and commits. Returns the coupon as it is then.
async fn finish(mut tx: Tx, id: &CouponId) -> Result<Result<StoredCoupon, DefineError>, StoreError> {
    let stored = read(&mut tx, id, None).await?;
    revision::raise(&mut tx).await?;
    tx.commit().await?;
    Ok(stored.ok_or_else(|| DefineError::UnknownCoupon(id.clone())))
}

/// Reads a coupon. `viewer`: see [`create`].
pub async fn get(pool: &Pool, id: &CouponId, viewer: Option<&MerchantId>) -> Result<Option<StoredCoupon>, StoreError> {
    read(&mut *pool.acquire().await?, id, viewer).await
}

async fn read(
    connection: &mut Connection,
    id: &CouponId,
    viewer: Option<&MerchantId>,
) -> Result<Option<StoredCoupon>, StoreError> {
    let row = sqlx::query_as!(
        ShownRow,
        r#"SELECT coupons.id, coupons.external_id, campaigns.external_id AS campaign_id, title, discount,
                  percent_basis_points, amount_minor, max_discount_minor, min_cart_minor, covers_all, categories, merchants,
                  per_user_cap, total_cap, reservation_ttl_seconds, rules, min_cart_basis, reserved, redeemed,
                  (SELECT count(*) FROM coupon_items WHERE coupon_items.coupon_id = coupons.id) AS "item_count!",
                  ARRAY(SELECT items.external_id FROM coupon_items JOIN items ON items.id = item_id
                        WHERE coupon_items.coupon_id = coupons.id ORDER BY items.external_id LIMIT $3) AS "items!"
           FROM coupons JOIN campaigns ON campaigns.id = campaign_id
           JOIN coupon_counters ON coupon_counters.coupon_id = coupons.id
           LEFT JOIN merchants AS owners ON owners.id = campaigns.merchant_id
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
/// list in its rules.
pub async fn list(
    pool: &Pool,
    campaign: &CampaignId,
    after: &str,
    limit: i64,
) -> Result<Vec<StoredCoupon>, StoreError> {
    sqlx::query_as!(
        ShownRow,
        r#"SELECT coupons.id, coupons.external_id, campaigns.external_id AS campaign_id, title, discount,
                  percent_basis_points, amount_minor, max_discount_minor, min_cart_minor, covers_all, categories, merchants,
                  per_user_cap, total_cap, reservation_ttl_seconds, rules, min_cart_basis, reserved, redeemed,
                  (SELECT count(*) FROM coupon_items WHERE coupon_items.coupon_id = coupons.id) AS "item_count!",
                  ARRAY(SELECT items.external_id FROM coupon_items JOIN items ON items.id = item_id
                        WHERE coupon_items.coupon_id = coupons.id ORDER BY items.external_id LIMIT $4) AS "items!"
           FROM coupons JOIN campaigns ON campaigns.id = campaign_id
           JOIN coupon_counters ON coupon_counters.coupon_id = coupons.id
           WHERE campaigns.external_id = $1 AND coupons.external_id > $2
           ORDER BY coupons.external_id LIMIT $3"#,
        campaign.as_str(),
        after,
        limit,
        MAX_LISTED_ITEMS,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(|row| StoredCoupon::try_from(row).map(StoredCoupon::with_short_rules))
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
    item_count: i64,
    items: Vec<String>,
}

impl StoredCoupon {
    /// Returns whether the scope names all items.
    fn is_complete(&self) -> bool {
        let shown = self.coupon.scope.listed().map_or(0, |set| set.items.len());
        self.item_count == shown as i64
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
            .map(ItemId::new)
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
            rule_value_count: coupon.rules.iter().map(|rule| rule.n_values() as i64).sum(),
            coupon,
            item_count: row.item_count,
            reserved: row.reserved,
            redeemed: row.redeemed,
        })
    }
}

/// The fields of a coupon that are split over several columns.
struct Columns<'a> {
    percent_basis_points: Option<i32>,
    amount_minor: Option<i64>,
    covers_all: bool,
    items: &'a [ItemId],
    categories: Vec<String>,
    merchants: Vec<String>,
}

impl<'a> Columns<'a> {
    fn of(coupon: &'a Coupon) -> Self {
        let (percent_basis_points, amount_minor) = match coupon.discount {
            Discount::Percent { basis_points } => (Some(i32::from(basis_points)), None),
            Discount::Amount { amount_minor } => (None, Some(amount_minor)),
            Discount::FreeShipping => (None, None),
        };
        let listed = match &coupon.scope {
            Scope::All => None,
            Scope::Listed(set) => Some(set),
        };
        Self {
            percent_basis_points,
            amount_minor,
            covers_all: listed.is_none(),
            items: listed.map_or(&[], |set| &set.items),
            categories: listed.map_or_else(Vec::new, |set| set.categories.iter().map(ToString::to_string).collect()),
            merchants: listed.map_or_else(Vec::new, |set| set.merchants.iter().map(ToString::to_string).collect()),
        }
    }
}
