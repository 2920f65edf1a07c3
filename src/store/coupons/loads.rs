//! Campaigns, coupons and what belongs to them, many at a time: from files.
//!
//! Every function stores a batch in one transaction and answers each entry for itself: one that names what there is not
//! is refused, all others are stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::campaign::{Audience, CampaignState, Window};
use domain::coupon::{DEFAULT_RESERVATION_TTL_SECONDS, Discount};
use domain::error::InvalidField;
use domain::id::{CampaignId, CouponId, ItemId, MerchantId, UserId};
use domain::money::Currency;

use crate::store::catalog::ids;
use crate::store::coupons::offer_catalog::raise_revision;
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::postgres::pool::{Connection, Pool};

/// A campaign as a file has it; `None` keeps what is stored, or is the default of a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignLoad {
    pub id: CampaignId,
    pub merchant: Option<MerchantId>,
    pub name: Option<String>,
    pub state: Option<CampaignState>,
    pub window: Window,
    pub currency: Currency,
    pub budget_limit_minor: Option<i64>,
    pub priority: Option<i32>,
    pub is_exclusive: Option<bool>,
    pub audience: Option<Audience>,
    /// Of 10 000.
    pub holdout_basis_points: Option<u16>,
    /// State of a new one of which the file says nothing.
    pub default_state: CampaignState,
}

/// A coupon as a file has it; `None` keeps what is stored, or is the default of a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct CouponLoad {
    pub id: CouponId,
    pub campaign: CampaignId,
    pub title: Option<String>,
    pub discount: Discount,
    /// Of the amounts; must be the campaign's.
    pub currency: Currency,
    pub max_discount_minor: Option<i64>,
    pub min_cart_minor: Option<i64>,
    /// Whether it covers all that its campaign may, instead of the items that it names.
    pub covers_all: Option<bool>,
    pub per_user_cap: Option<i32>,
    pub total_cap: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponItemLoad {
    pub coupon: CouponId,
    pub item: ItemId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentLoad {
    pub campaign: CampaignId,
    pub user: UserId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeLoad {
    pub user: UserId,
    pub name: String,
    pub value: String,
}

/// Stores `campaigns`. Merchants that are not known are created bare. Merchant and currency of a stored one stay.
pub async fn upsert_campaigns(pool: &Pool, campaigns: &[CampaignLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let mut outcomes = Vec::with_capacity(campaigns.len());
        let named = campaigns.iter().filter_map(|campaign| campaign.merchant.as_ref());
        let merchants = ids::ensure_merchants(&mut tx, named.map(MerchantId::as_str)).await?;
        // One after the other: there are never many, and each may depend on the one before.
        for campaign in campaigns {
            let merchant_id = campaign
                .merchant
                .as_ref()
                .map(|merchant| merchants.key(merchant.as_str()));
            outcomes.push(upsert_campaign(&mut tx, campaign, merchant_id).await?);
        }
        finish(tx, &outcomes).await?;
        Ok(outcomes)
    })
    .await
}

async fn upsert_campaign(
    connection: &mut Connection,
    campaign: &CampaignLoad,
    merchant_id: Option<i64>,
) -> Result<LoadOutcome, StoreError> {
    let created = sqlx::query_scalar!(
        "INSERT INTO campaigns
             (external_id, merchant_id, name, currency_code, priority, is_exclusive, audience, holdout_basis_points,
              holdout_salt)
         VALUES ($1, $2, COALESCE($3, ''), $4, COALESCE($5, 0), COALESCE($6, false), COALESCE($7, 'all'), COALESCE($8, 0),
                 -- 122 random bits.
                 uuid_send(gen_random_uuid()))
         ON CONFLICT (external_id) DO NOTHING RETURNING id",
        campaign.id.as_str(),
        merchant_id,
        campaign.name,
        campaign.currency.as_str(),
        campaign.priority,
        campaign.is_exclusive,
        campaign.audience.map(Audience::as_str),
        campaign.holdout_basis_points.map(i32::from),
    )
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(id) = created {
        sqlx::query!(
            "INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at, limit_minor) VALUES ($1, $2, $3, $4, $5)",
            id,
            campaign.state.unwrap_or(campaign.default_state).as_str(),
            campaign.window.starts_at,
            campaign.window.ends_at,
            campaign.budget_limit_minor,
        )
        .execute(connection)
        .await?;
        return Ok(LoadOutcome::Stored);
    }
    let stored = sqlx::query!(
        "SELECT id, merchant_id, currency_code, state, audience, holdout_basis_points,
                spent_minor + reserved_minor AS \"used_minor!\"
         FROM campaigns JOIN campaign_states ON campaign_id = id WHERE external_id = $1 FOR NO KEY UPDATE",
        campaign.id.as_str()
    )
    .fetch_one(&mut *connection)
    .await?;
    let refused =
        |field: &str, reason, message: String| Ok(LoadOutcome::Refused(InvalidField::new(field, reason, message)));
    if merchant_id.is_some() && merchant_id != stored.merchant_id {
        let message = "must be the merchant that the campaign has, or absent".to_owned();
        return refused("merchant_id", "MERCHANT_CANNOT_CHANGE", message);
    }
    if campaign.currency.as_str() != stored.currency_code {
        let message = format!(
            "must be {}, the campaign's, is {}",
            stored.currency_code, campaign.currency
        );
        return refused("currency", "CURRENCY_CANNOT_CHANGE", message);
    }
    if campaign
        .budget_limit_minor
        .is_some_and(|limit| limit < stored.used_minor)
    {
        let message = format!("must be at least {}, which is reserved or spent", stored.used_minor);
        return refused("budget_minor", "LIMIT_BELOW_USE", message);
    }
    if stored.state != CampaignState::Draft.as_str() {
        let audience = campaign.audience.map(Audience::as_str);
        let share = campaign.holdout_basis_points.map(i32::from);
        let fixed = || format!("cannot change any more: the campaign is {}, no draft", stored.state);
        if audience.is_some_and(|audience| audience != stored.audience) {
            return refused("audience", "CAMPAIGN_NOT_DRAFT", fixed());
        }
        if share.is_some_and(|share| share != stored.holdout_basis_points) {
            return refused("holdout_basis_points", "CAMPAIGN_NOT_DRAFT", fixed());
        }
    }
    let changed = sqlx::query!(
        "UPDATE campaigns SET name = COALESCE($2, name), priority = COALESCE($3, priority),
                is_exclusive = COALESCE($4, is_exclusive), audience = COALESCE($5, audience),
                holdout_basis_points = COALESCE($6, holdout_basis_points)
         WHERE id = $1
           AND (name, priority, is_exclusive, audience, holdout_basis_points)
               IS DISTINCT FROM
               (COALESCE($2, name), COALESCE($3, priority), COALESCE($4, is_exclusive), COALESCE($5, audience),
                COALESCE($6, holdout_basis_points))",
        stored.id,
        campaign.name,
        campaign.priority,
        campaign.is_exclusive,
        campaign.audience.map(Audience::as_str),
        campaign.holdout_basis_points.map(i32::from),
    )
    .execute(&mut *connection)
    .await?;
    let moved = sqlx::query!(
        "UPDATE campaign_states SET state = COALESCE($2, state), starts_at = $3, ends_at = $4,
                limit_minor = COALESCE($5, limit_minor)
         WHERE campaign_id = $1
           AND (state, starts_at, ends_at, limit_minor)
               IS DISTINCT FROM (COALESCE($2, state), $3, $4, COALESCE($5, limit_minor))",
        stored.id,
        campaign.state.map(CampaignState::as_str),
        campaign.window.starts_at,
        campaign.window.ends_at,
        campaign.budget_limit_minor,
    )
    .execute(connection)
    .await?;
    Ok(LoadOutcome::of(changed.rows_affected() + moved.rows_affected() > 0))
}

/// Stores `coupons` of campaigns that there are; of several with one id the last counts.
pub async fn upsert_coupons(pool: &Pool, coupons: &[CouponLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = upsert_coupons_in(&mut tx, coupons).await?;
        finish(tx, &outcomes).await?;
        Ok(outcomes)
    })
    .await
}

async fn upsert_coupons_in(
    connection: &mut Connection,
    coupons: &[CouponLoad],
) -> Result<Vec<LoadOutcome>, StoreError> {
    let campaigns = campaigns_of(connection, coupons.iter().map(|coupon| coupon.campaign.as_str())).await?;
    let stored = coupons_of(connection, coupons.iter().map(|coupon| coupon.id.as_str())).await?;
    let mut outcomes = vec![LoadOutcome::Merged; coupons.len()];
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, coupon) in coupons.iter().enumerate() {
        match refusal(
            coupon,
            campaigns.get(coupon.campaign.as_str()),
            stored.get(coupon.id.as_str()),
        ) {
            Some(refusal) => outcomes[position] = LoadOutcome::Refused(refusal),
            None => {
                last.insert(coupon.id.as_str(), position);
            }
        }
    }
    let wanted: Vec<&CouponLoad> = last.values().map(|&position| &coupons[position]).collect();
    let ids: Vec<String> = wanted.iter().map(|coupon| coupon.id.to_string()).collect();
    let campaign_ids: Vec<i64> = wanted
        .iter()
        .map(|coupon| campaigns[coupon.campaign.as_str()].id)
        .collect();
    let titles: Vec<Option<String>> = wanted.iter().map(|coupon| coupon.title.clone()).collect();
    let discounts: Vec<String> = wanted.iter().map(|coupon| coupon.discount.kind().to_owned()).collect();
    let percents: Vec<Option<i32>> = wanted.iter().map(|coupon| percent_of(coupon.discount)).collect();
    let amounts: Vec<Option<i64>> = wanted.iter().map(|coupon| amount_of(coupon.discount)).collect();
    let max_discounts: Vec<Option<i64>> = wanted.iter().map(|coupon| coupon.max_discount_minor).collect();
    let min_carts: Vec<Option<i64>> = wanted.iter().map(|coupon| coupon.min_cart_minor).collect();
    let covers_all: Vec<Option<bool>> = wanted.iter().map(|coupon| coupon.covers_all).collect();
    let per_user_caps: Vec<Option<i32>> = wanted.iter().map(|coupon| coupon.per_user_cap).collect();
    let total_caps: Vec<Option<i64>> = wanted.iter().map(|coupon| coupon.total_cap).collect();
    let changed = sqlx::query_scalar!(
        "UPDATE coupons AS old
         SET title = COALESCE(given.title, old.title), discount = given.discount,
             percent_basis_points = given.percent, amount_minor = given.amount,
             max_discount_minor = COALESCE(given.max_discount, old.max_discount_minor),
             min_cart_minor = COALESCE(given.min_cart, old.min_cart_minor),
             covers_all = COALESCE(given.covers_all, old.covers_all),
             per_user_cap = COALESCE(given.per_user_cap, old.per_user_cap)
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::boolean[], $9::integer[])
             AS given (external_id, title, discount, percent, amount, max_discount, min_cart, covers_all, per_user_cap)
         WHERE old.external_id = given.external_id
           AND (old.title, old.discount, old.percent_basis_points, old.amount_minor, old.max_discount_minor,
                old.min_cart_minor, old.covers_all, old.per_user_cap)
               IS DISTINCT FROM
               (COALESCE(given.title, old.title), given.discount, given.percent, given.amount,
                COALESCE(given.max_discount, old.max_discount_minor), COALESCE(given.min_cart, old.min_cart_minor),
                COALESCE(given.covers_all, old.covers_all), COALESCE(given.per_user_cap, old.per_user_cap))
         RETURNING old.external_id",
        &ids,
        &titles as &[Option<String>],
        &discounts,
        &percents as &[Option<i32>],
        &amounts as &[Option<i64>],
        &max_discounts as &[Option<i64>],
        &min_carts as &[Option<i64>],
        &covers_all as &[Option<bool>],
        &per_user_caps as &[Option<i32>],
    )
    .fetch_all(&mut *connection)
    .await?;
    let created = sqlx::query_scalar!(
        "INSERT INTO coupons
             (external_id, campaign_id, title, discount, percent_basis_points, amount_minor, max_discount_minor,
              min_cart_minor, covers_all, per_user_cap, reservation_ttl_seconds)
         SELECT external_id, campaign_id, COALESCE(title, ''), discount, percent, amount, max_discount,
                COALESCE(min_cart, 0), COALESCE(covers_all, false), per_user_cap, $11
         FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::bigint[],
                     $8::bigint[], $9::boolean[], $10::integer[])
             AS given (external_id, campaign_id, title, discount, percent, amount, max_discount, min_cart, covers_all,
                       per_user_cap)
         ON CONFLICT (external_id) DO NOTHING RETURNING external_id",
        &ids,
        &campaign_ids,
        &titles as &[Option<String>],
        &discounts,
        &percents as &[Option<i32>],
        &amounts as &[Option<i64>],
        &max_discounts as &[Option<i64>],
        &min_carts as &[Option<i64>],
        &covers_all as &[Option<bool>],
        &per_user_caps as &[Option<i32>],
        DEFAULT_RESERVATION_TTL_SECONDS,
    )
    .fetch_all(&mut *connection)
    .await?;
    // A cap below what is used was refused above; what has been used since then keeps the cap as it was.
    let capped = sqlx::query_scalar!(
        "INSERT INTO coupon_counters AS old (coupon_id, total_cap)
         SELECT coupons.id, given.total_cap
         FROM UNNEST($1::text[], $2::bigint[]) AS given (external_id, total_cap)
         JOIN coupons ON coupons.external_id = given.external_id ORDER BY coupons.id
         ON CONFLICT (coupon_id) DO UPDATE SET total_cap = excluded.total_cap
         WHERE excluded.total_cap >= old.reserved + old.redeemed AND excluded.total_cap IS DISTINCT FROM old.total_cap
         RETURNING (SELECT external_id FROM coupons WHERE id = old.coupon_id) AS \"external_id!\"",
        &ids,
        &total_caps as &[Option<i64>],
    )
    .fetch_all(connection)
    .await?;
    for id in changed.iter().chain(&created).chain(&capped) {
        outcomes[last[id.as_str()]] = LoadOutcome::Stored;
    }
    Ok(outcomes)
}

fn refusal(
    coupon: &CouponLoad,
    campaign: Option<&StoredCampaign>,
    stored: Option<&StoredCoupon>,
) -> Option<InvalidField> {
    let refusal = |field: &str, reason, message: String| Some(InvalidField::new(field, reason, message));
    let Some(campaign) = campaign else {
        return Some(no_campaign(&coupon.campaign));
    };
    if coupon.currency.as_str() != campaign.currency_code {
        let message = format!(
            "must be {}, the campaign's, is {}",
            campaign.currency_code, coupon.currency
        );
        return refusal("currency", "CURRENCY_MISMATCH", message);
    }
    let stored = stored?;
    if stored.campaign_id != campaign.id {
        let message = format!("the coupon {} belongs to another campaign", coupon.id);
        return refusal("campaign_id", "CAMPAIGN_CANNOT_CHANGE", message);
    }
    if coupon.total_cap.is_some_and(|cap| cap < stored.used) {
        let message = format!("must be at least {}, which are reserved or redeemed", stored.used);
        return refusal("total_cap", "LIMIT_BELOW_USE", message);
    }
    None
}

fn percent_of(discount: Discount) -> Option<i32> {
    match discount {
        Discount::Percent { basis_points } => Some(basis_points.into()),
        Discount::Amount { .. } | Discount::FreeShipping => None,
    }
}

fn amount_of(discount: Discount) -> Option<i64> {
    match discount {
        Discount::Amount { amount_minor } => Some(amount_minor),
        Discount::Percent { .. } | Discount::FreeShipping => None,
    }
}

/// Adds items to what coupons cover. Items that are not known are created bare.
pub async fn add_coupon_items(pool: &Pool, entries: &[CouponItemLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let coupons = coupons_of(&mut tx, entries.iter().map(|entry| entry.coupon.as_str())).await?;
        let known = |entry: &&CouponItemLoad| coupons.contains_key(entry.coupon.as_str());
        let items = ids::ensure_items(&mut tx, entries.iter().filter(known).map(|entry| entry.item.as_str())).await?;
        let key = |entry: &CouponItemLoad| {
            let coupon = coupons.get(entry.coupon.as_str())?;
            Some((coupon.id, items.key(entry.item.as_str())))
        };
        let keys: Vec<Option<(i64, i64)>> = entries.iter().map(key).collect();
        let (coupon_ids, item_ids): (Vec<i64>, Vec<i64>) = distinct(&keys).into_iter().unzip();
        let stored = sqlx::query!(
            "INSERT INTO coupon_items (coupon_id, item_id) SELECT * FROM UNNEST($1::bigint[], $2::bigint[])
             ON CONFLICT DO NOTHING RETURNING coupon_id, item_id",
            &coupon_ids,
            &item_ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        let stored = stored.into_iter().map(|row| (row.coupon_id, row.item_id)).collect();
        let outcomes = answered(&keys, stored, |position| no_coupon(&entries[position].coupon));
        finish(tx, &outcomes).await?;
        Ok(outcomes)
    })
    .await
}

/// Assigns users to campaigns. Users that are not known are created bare.
pub async fn assign(pool: &Pool, entries: &[AssignmentLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let campaigns = campaigns_of(&mut tx, entries.iter().map(|entry| entry.campaign.as_str())).await?;
        let known = |entry: &&AssignmentLoad| campaigns.contains_key(entry.campaign.as_str());
        let users = ids::ensure_users(&mut tx, entries.iter().filter(known).map(|entry| entry.user.as_str())).await?;
        let key = |entry: &AssignmentLoad| {
            let campaign = campaigns.get(entry.campaign.as_str())?;
            Some((campaign.id, users.key(entry.user.as_str())))
        };
        let keys: Vec<Option<(i64, i64)>> = entries.iter().map(key).collect();
        let (campaign_ids, user_ids): (Vec<i64>, Vec<i64>) = distinct(&keys).into_iter().unzip();
        let stored = sqlx::query!(
            "INSERT INTO assignments (campaign_id, user_id) SELECT * FROM UNNEST($1::bigint[], $2::bigint[])
             ON CONFLICT DO NOTHING RETURNING campaign_id, user_id",
            &campaign_ids,
            &user_ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let stored = stored.into_iter().map(|row| (row.campaign_id, row.user_id)).collect();
        Ok(answered(&keys, stored, |position| {
            no_campaign(&entries[position].campaign)
        }))
    })
    .await
}

/// Sets attributes of users; of several of one user and name the last counts. Users that are not known are created bare.
pub async fn set_attributes(pool: &Pool, entries: &[AttributeLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let users = ids::ensure_users(&mut tx, entries.iter().map(|entry| entry.user.as_str())).await?;
        let mut last: BTreeMap<(i64, &str), usize> = BTreeMap::new();
        for (position, entry) in entries.iter().enumerate() {
            last.insert((users.key(entry.user.as_str()), entry.name.as_str()), position);
        }
        let user_ids: Vec<i64> = last.keys().map(|key| key.0).collect();
        let names: Vec<String> = last.keys().map(|key| key.1.to_owned()).collect();
        let values: Vec<String> = last.values().map(|&position| entries[position].value.clone()).collect();
        let stored = sqlx::query!(
            "INSERT INTO user_attributes AS old (user_id, name, value)
             SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[])
             ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value WHERE old.value <> excluded.value
             RETURNING user_id, name",
            &user_ids,
            &names,
            &values,
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let mut outcomes = vec![LoadOutcome::Merged; entries.len()];
        for row in stored {
            outcomes[last[&(row.user_id, row.name.as_str())]] = LoadOutcome::Stored;
        }
        Ok(outcomes)
    })
    .await
}

/// Commits, having said that definitions have changed if any has.
async fn finish(mut tx: crate::store::postgres::pool::Tx, outcomes: &[LoadOutcome]) -> Result<(), StoreError> {
    if outcomes.contains(&LoadOutcome::Stored) {
        raise_revision(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Each pair once, ascending: the order in which locks are taken.
fn distinct(keys: &[Option<(i64, i64)>]) -> Vec<(i64, i64)> {
    let mut distinct: Vec<(i64, i64)> = keys.iter().copied().flatten().collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// What became of each entry: one without a key is refused, of several with one key the first stored it.
fn answered(
    keys: &[Option<(i64, i64)>],
    mut stored: HashSet<(i64, i64)>,
    refusal: impl Fn(usize) -> InvalidField,
) -> Vec<LoadOutcome> {
    let answer = |(position, key): (usize, &Option<(i64, i64)>)| match key {
        Some(key) => LoadOutcome::of(stored.remove(key)),
        None => LoadOutcome::Refused(refusal(position)),
    };
    keys.iter().enumerate().map(answer).collect()
}

pub(in crate::store) fn no_campaign(id: &CampaignId) -> InvalidField {
    InvalidField::new(
        "campaign_id",
        "CAMPAIGN_NOT_FOUND",
        format!("there is no campaign {id}"),
    )
}

pub(in crate::store) fn no_coupon(id: &CouponId) -> InvalidField {
    InvalidField::new("coupon_id", "COUPON_NOT_FOUND", format!("there is no coupon {id}"))
}

struct StoredCampaign {
    id: i64,
    currency_code: String,
}

/// Those of the campaigns that there are, by external id.
async fn campaigns_of<'a>(
    connection: &mut Connection,
    external_ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, StoredCampaign>, StoreError> {
    let ids: Vec<String> = external_ids
        .collect::<HashSet<_>>()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let rows = sqlx::query!(
        "SELECT id, external_id, currency_code FROM campaigns WHERE external_id = ANY($1::text[])",
        &ids
    )
    .fetch_all(connection)
    .await?;
    let stored = rows.into_iter().map(|row| {
        let campaign = StoredCampaign {
            id: row.id,
            currency_code: row.currency_code,
        };
        (row.external_id, campaign)
    });
    Ok(stored.collect())
}

pub(in crate::store) struct StoredCoupon {
    pub id: i64,
    pub campaign_id: i64,
    /// Reserved or redeemed.
    pub used: i64,
}

/// Those of the coupons that there are, by external id.
pub(in crate::store) async fn coupons_of<'a>(
    connection: &mut Connection,
    external_ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, StoredCoupon>, StoreError> {
    let ids: Vec<String> = external_ids
        .collect::<HashSet<_>>()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let rows = sqlx::query!(
        r#"SELECT coupons.id, external_id, campaign_id, reserved + redeemed AS "used!"
           FROM coupons JOIN coupon_counters ON coupon_id = coupons.id WHERE external_id = ANY($1::text[])"#,
        &ids
    )
    .fetch_all(connection)
    .await?;
    let stored = rows.into_iter().map(|row| {
        let coupon = StoredCoupon {
            id: row.id,
            campaign_id: row.campaign_id,
            used: row.used,
        };
        (row.external_id, coupon)
    });
    Ok(stored.collect())
}
