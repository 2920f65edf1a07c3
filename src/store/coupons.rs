//! Creates and changes coupons.

pub mod assignments;
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
mod scopes;
pub mod selection;
pub mod sensitive;
pub mod stored;

use domain::campaign::Campaign;
use domain::coupon::{Coupon, CouponPatch, Discount, Rule, Scope};
use domain::id::{CouponId, ItemId, MerchantId};

use self::campaigns::DefineError;
use self::rows::rules_to_json;
use self::stored::StoredCoupon;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, Tx};

/// Creates `coupon` in a campaign that `viewer` may see. Returns the stored one if it exists already and is the same.
/// Keeps the names of unknown items until these exist.
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
            return match stored::read(&mut tx, &coupon.id, viewer).await? {
                None => Ok(Err(DefineError::IdNotAvailable)),
                Some(stored) if stored.is_complete() && stored.coupon == *coupon => {
                    Ok(Ok(stored.compared_with_catalog(&mut tx).await?))
                }
                Some(_) => Ok(Err(DefineError::CouponExists(coupon.id.clone()))),
            };
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
        let stored = stored::read(&mut tx, &patch.id, viewer).await?;
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
            return Ok(Ok(stored.compared_with_catalog(&mut tx).await?));
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
    let mut unknown: Vec<MerchantId> = named
        .into_iter()
        .filter(|merchant| !known.iter().any(|id| id == merchant.as_str()))
        .cloned()
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    Ok(match unknown.len() {
        0 => Ok(()),
        1 => Err(DefineError::UnknownMerchant(unknown.remove(0))),
        _ => Err(DefineError::UnknownMerchants(unknown)),
    })
}

/// Adds `items` to those that the coupon names. Keeps the names of items that do not exist with the coupon itself.
async fn add_items(connection: &mut Connection, coupon_key: i64, items: &[ItemId]) -> Result<(), StoreError> {
    let named: Vec<String> = items.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "INSERT INTO coupon_items (coupon_id, item_id) SELECT $1, id FROM items WHERE external_id = ANY($2::text[])
         ON CONFLICT DO NOTHING",
        coupon_key,
        &named
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE coupons
         SET unseen_items = ARRAY(SELECT name FROM UNNEST($2::text[]) AS named (name)
                                  WHERE NOT EXISTS (SELECT FROM coupon_items JOIN items ON items.id = item_id
                                                    WHERE coupon_id = $1 AND items.external_id = name)
                                  ORDER BY name)
         WHERE id = $1",
        coupon_key,
        &named
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Raises the revision of the definitions and commits. Returns the coupon as it is then.
async fn finish(mut tx: Tx, id: &CouponId) -> Result<Result<StoredCoupon, DefineError>, StoreError> {
    let Some(stored) = stored::read(&mut tx, id, None).await? else {
        return Ok(Err(DefineError::UnknownCoupon(id.clone())));
    };
    let stored = stored.compared_with_catalog(&mut tx).await?;
    revision::raise(&mut tx).await?;
    tx.commit().await?;
    Ok(Ok(stored))
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
