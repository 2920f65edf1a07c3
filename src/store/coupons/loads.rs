//! Stores campaigns, coupons and what belongs to them in batches, as they come from files.
//!
//! Every function stores a batch in one transaction and returns an outcome for each entry. An entry that refers to an
//! unknown record is refused; all others are stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::campaign::{Audience, CampaignState, Window};
use domain::coupon::{DEFAULT_RESERVATION_TTL_SECONDS, Discount, MinCartBasis};
use domain::error::InvalidField;
use domain::id::{CampaignId, CouponId, ItemId, MerchantId, UserId};
use domain::money::Currency;

use super::revision;
use crate::store::catalog::ids::{self, Told};
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::postgres::pool::{Connection, Pool, Tx};
use crate::store::privacy::dropped::AboutUser;

/// A campaign as it stands in a file. `None` keeps the stored value; a new campaign gets the default.
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
    /// The held-out share, of 10 000.
    pub holdout_basis_points: Option<u16>,
    /// The state of a new campaign when `state` is `None`.
    pub default_state: CampaignState,
}

/// A coupon as it stands in a file. `None` keeps the stored value; a new coupon gets the default.
#[derive(Debug, Clone, PartialEq)]
pub struct CouponLoad {
    pub id: CouponId,
    pub campaign: CampaignId,
    pub title: Option<String>,
    pub discount: Discount,
    /// The currency of the amounts; must be that of the campaign.
    pub currency: Currency,
    pub max_discount_minor: Option<i64>,
    pub min_cart_minor: Option<i64>,
    pub min_cart_basis: Option<MinCartBasis>,
    /// Whether the coupon covers every item that its campaign may cover, instead of the items that it names.
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

/// Stores `campaigns`. Creates unknown merchants bare. The merchant and the currency of a stored campaign cannot change.
pub async fn upsert_campaigns(pool: &Pool, campaigns: &[CampaignLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let mut outcomes = Vec::with_capacity(campaigns.len());
        let named = campaigns.iter().filter_map(|campaign| campaign.merchant.as_ref());
        let merchants = ids::ensure_merchants(&mut tx, named.map(MerchantId::as_str)).await?;
        // They are stored one by one: there are never many, and each may depend on the one before.
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
    if insert_campaign(connection, campaign, merchant_id).await? {
        return Ok(LoadOutcome::Stored);
    }
    let stored = lock_campaign(connection, campaign).await?;
    if let Err(refusal) = stored.check(campaign, merchant_id) {
        return Ok(LoadOutcome::Refused(refusal));
    }
    update_campaign(connection, stored.id, campaign).await
}

/// Inserts a campaign that is not stored yet, and returns whether it did.
async fn insert_campaign(
    connection: &mut Connection,
    campaign: &CampaignLoad,
    merchant_id: Option<i64>,
) -> Result<bool, StoreError> {
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
    let Some(id) = created else { return Ok(false) };
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
    Ok(true)
}

/// The fields of a stored campaign that decide whether it may change.
struct LockedCampaign {
    id: i64,
    merchant_id: Option<i64>,
    currency_code: String,
    state: String,
    audience: String,
    holdout_basis_points: i32,
    used_minor: i64,
}

async fn lock_campaign(connection: &mut Connection, campaign: &CampaignLoad) -> Result<LockedCampaign, StoreError> {
    let stored = sqlx::query_as!(
        LockedCampaign,
        "SELECT id, merchant_id, currency_code, state, audience, holdout_basis_points,
                spent_minor + reserved_minor AS \"used_minor!\"
         FROM campaigns JOIN campaign_states ON campaign_id = id WHERE external_id = $1 FOR NO KEY UPDATE",
        campaign.id.as_str()
    )
    .fetch_one(connection)
    .await?;
    Ok(stored)
}

impl LockedCampaign {
    /// Checks that `campaign` changes nothing that may not change.
    ///
    /// # Errors
    /// Names the field.
    fn check(&self, campaign: &CampaignLoad, merchant_id: Option<i64>) -> Result<(), InvalidField> {
        let refused = |field: &str, reason, message: String| Err(InvalidField::new(field, reason, message));
        if merchant_id.is_some() && merchant_id != self.merchant_id {
            let message = "must be the merchant of the campaign, or absent".to_owned();
            return refused("merchant_id", "MERCHANT_CANNOT_CHANGE", message);
        }
        if campaign.currency.as_str() != self.currency_code {
            let message = format!(
                "must be {}, the currency of the campaign, is {}",
                self.currency_code, campaign.currency
            );
            return refused("currency", "CURRENCY_CANNOT_CHANGE", message);
        }
        if campaign.budget_limit_minor.is_some_and(|limit| limit < self.used_minor) {
            let message = format!("must be at least {}, which is reserved or spent", self.used_minor);
            return refused("budget_minor", "LIMIT_BELOW_USE", message);
        }
        if self.state != CampaignState::Draft.as_str() {
            let audience = campaign.audience.map(Audience::as_str);
            let share = campaign.holdout_basis_points.map(i32::from);
            let fixed = || format!("can change only while the campaign is a draft; it is {}", self.state);
            if audience.is_some_and(|audience| audience != self.audience) {
                return refused("audience", "CAMPAIGN_NOT_DRAFT", fixed());
            }
            if share.is_some_and(|share| share != self.holdout_basis_points) {
                return refused("holdout_basis_points", "CAMPAIGN_NOT_DRAFT", fixed());
            }
        }
        Ok(())
    }
}

async fn update_campaign(
    connection: &mut Connection,
    campaign_id: i64,
    campaign: &CampaignLoad,
) -> Result<LoadOutcome, StoreError> {
    let changed = sqlx::query!(
        "UPDATE campaigns SET name = COALESCE($2, name), priority = COALESCE($3, priority),
                is_exclusive = COALESCE($4, is_exclusive), audience = COALESCE($5, audience),
                holdout_basis_points = COALESCE($6, holdout_basis_points)
         WHERE id = $1
           AND (name, priority, is_exclusive, audience, holdout_basis_points)
               IS DISTINCT FROM
               (COALESCE($2, name), COALESCE($3, priority), COALESCE($4, is_exclusive), COALESCE($5, audience),
                COALESCE($6, holdout_basis_points))",
        campaign_id,
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
        campaign_id,
        campaign.state.map(CampaignState::as_str),
        campaign.window.starts_at,
        campaign.window.ends_at,
        campaign.budget_limit_minor,
    )
    .execute(connection)
    .await?;
    Ok(LoadOutcome::of(changed.rows_affected() + moved.rows_affected() > 0))
}

/// Stores `coupons` of known campaigns. Among several coupons of one id the last one counts.
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
    let columns = CouponColumns::new(&wanted, &campaigns);
    let changed = columns.update(connection).await?;
    let created = columns.insert(connection).await?;
    let capped = columns.cap(connection).await?;
    for id in changed.iter().chain(&created).chain(&capped) {
        outcomes[last[id.as_str()]] = LoadOutcome::Stored;
    }
    Ok(outcomes)
}

/// Coupons as columns, for statements that take all of them at once.
struct CouponColumns {
    ids: Vec<String>,
    campaign_ids: Vec<i64>,
    titles: Vec<Option<String>>,
    discounts: Vec<String>,
    percents: Vec<Option<i32>>,
    amounts: Vec<Option<i64>>,
    max_discounts: Vec<Option<i64>>,
    min_carts: Vec<Option<i64>>,
    min_cart_bases: Vec<Option<String>>,
    covers_all: Vec<Option<bool>>,
    per_user_caps: Vec<Option<i32>>,
    total_caps: Vec<Option<i64>>,
}

/// Collects what `field` returns for each of `coupons`.
fn column<T>(coupons: &[&CouponLoad], field: impl Fn(&CouponLoad) -> T) -> Vec<T> {
    coupons.iter().map(|coupon| field(coupon)).collect()
}

impl CouponColumns {
    /// `campaigns`: must hold the campaign of every coupon.
    fn new(coupons: &[&CouponLoad], campaigns: &HashMap<String, CampaignRef>) -> Self {
        Self {
            ids: column(coupons, |coupon| coupon.id.to_string()),
            campaign_ids: column(coupons, |coupon| campaigns[coupon.campaign.as_str()].id),
            titles: column(coupons, |coupon| coupon.title.clone()),
            discounts: column(coupons, |coupon| coupon.discount.kind().to_owned()),
            percents: column(coupons, |coupon| percent_of(coupon.discount)),
            amounts: column(coupons, |coupon| amount_of(coupon.discount)),
            max_discounts: column(coupons, |coupon| coupon.max_discount_minor),
            min_carts: column(coupons, |coupon| coupon.min_cart_minor),
            min_cart_bases: column(coupons, |coupon| {
                coupon.min_cart_basis.map(|basis| basis.as_str().to_owned())
            }),
            covers_all: column(coupons, |coupon| coupon.covers_all),
            per_user_caps: column(coupons, |coupon| coupon.per_user_cap),
            total_caps: column(coupons, |coupon| coupon.total_cap),
        }
    }

    /// Updates the coupons that are stored, and returns the ids of those that changed.
    async fn update(&self, connection: &mut Connection) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            "UPDATE coupons AS old
         SET title = COALESCE(given.title, old.title), discount = given.discount,
             percent_basis_points = given.percent, amount_minor = given.amount,
             max_discount_minor = COALESCE(given.max_discount, old.max_discount_minor),
             min_cart_minor = COALESCE(given.min_cart, old.min_cart_minor),
             min_cart_basis = COALESCE(given.min_cart_basis, old.min_cart_basis),
             covers_all = COALESCE(given.covers_all, old.covers_all),
             per_user_cap = COALESCE(given.per_user_cap, old.per_user_cap)
         FROM UNNEST($1::text[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::boolean[], $9::integer[], $10::text[])
             AS given (external_id, title, discount, percent, amount, max_discount, min_cart, covers_all, per_user_cap,
                       min_cart_basis)
         WHERE old.external_id = given.external_id
           AND (old.title, old.discount, old.percent_basis_points, old.amount_minor, old.max_discount_minor,
                old.min_cart_minor, old.covers_all, old.per_user_cap, old.min_cart_basis)
               IS DISTINCT FROM
               (COALESCE(given.title, old.title), given.discount, given.percent, given.amount,
                COALESCE(given.max_discount, old.max_discount_minor), COALESCE(given.min_cart, old.min_cart_minor),
                COALESCE(given.covers_all, old.covers_all), COALESCE(given.per_user_cap, old.per_user_cap),
                COALESCE(given.min_cart_basis, old.min_cart_basis))
         RETURNING old.external_id",
            &self.ids,
            &self.titles as &[Option<String>],
            &self.discounts,
            &self.percents as &[Option<i32>],
            &self.amounts as &[Option<i64>],
            &self.max_discounts as &[Option<i64>],
            &self.min_carts as &[Option<i64>],
            &self.covers_all as &[Option<bool>],
            &self.per_user_caps as &[Option<i32>],
            &self.min_cart_bases as &[Option<String>],
        )
        .fetch_all(connection)
        .await?)
    }

    /// Inserts the coupons that are not stored yet, and returns their ids.
    async fn insert(&self, connection: &mut Connection) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            "INSERT INTO coupons
             (external_id, campaign_id, title, discount, percent_basis_points, amount_minor, max_discount_minor,
              min_cart_minor, covers_all, per_user_cap, reservation_ttl_seconds, min_cart_basis)
         SELECT external_id, campaign_id, COALESCE(title, ''), discount, percent, amount, max_discount,
                COALESCE(min_cart, 0), COALESCE(covers_all, false), per_user_cap, $11,
                COALESCE(min_cart_basis, 'before_discounts')
         FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::bigint[],
                     $8::bigint[], $9::boolean[], $10::integer[], $12::text[])
             AS given (external_id, campaign_id, title, discount, percent, amount, max_discount, min_cart, covers_all,
                       per_user_cap, min_cart_basis)
         ON CONFLICT (external_id) DO NOTHING RETURNING external_id",
            &self.ids,
            &self.campaign_ids,
            &self.titles as &[Option<String>],
            &self.discounts,
            &self.percents as &[Option<i32>],
            &self.amounts as &[Option<i64>],
            &self.max_discounts as &[Option<i64>],
            &self.min_carts as &[Option<i64>],
            &self.covers_all as &[Option<bool>],
            &self.per_user_caps as &[Option<i32>],
            DEFAULT_RESERVATION_TTL_SECONDS,
            &self.min_cart_bases as &[Option<String>],
        )
        .fetch_all(connection)
        .await?)
    }

    /// Sets the total caps, and returns the ids of the coupons whose cap changed.
    async fn cap(&self, connection: &mut Connection) -> Result<Vec<String>, StoreError> {
        // A cap below what is used was refused before; where more has been used since then, the cap stays as it was.
        Ok(sqlx::query_scalar!(
            "INSERT INTO coupon_counters AS old (coupon_id, total_cap)
         SELECT coupons.id, given.total_cap
         FROM UNNEST($1::text[], $2::bigint[]) AS given (external_id, total_cap)
         JOIN coupons ON coupons.external_id = given.external_id ORDER BY coupons.id
         ON CONFLICT (coupon_id) DO UPDATE SET total_cap = excluded.total_cap
         WHERE excluded.total_cap >= old.reserved + old.redeemed AND excluded.total_cap IS DISTINCT FROM old.total_cap
         RETURNING (SELECT external_id FROM coupons WHERE id = old.coupon_id) AS \"external_id!\"",
            &self.ids,
            &self.total_caps as &[Option<i64>],
        )
        .fetch_all(connection)
        .await?)
    }
}

/// Returns why `coupon` cannot be stored, if it cannot.
fn refusal(coupon: &CouponLoad, campaign: Option<&CampaignRef>, stored: Option<&CouponRef>) -> Option<InvalidField> {
    let refusal = |field: &str, reason, message: String| Some(InvalidField::new(field, reason, message));
    let Some(campaign) = campaign else {
        return Some(no_campaign(&coupon.campaign));
    };
    if coupon.currency.as_str() != campaign.currency_code {
        let message = format!(
            "must be {}, the currency of the campaign, is {}",
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

/// Adds items to those that coupons cover. Creates unknown items bare.
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

/// An assignment has no time, and neither has an attribute.
impl AboutUser for AssignmentLoad {
    fn told<'a>(&'a self, _: &Pool) -> Told<'a> {
        (&self.user, None)
    }
}

impl AboutUser for AttributeLoad {
    fn told<'a>(&'a self, _: &Pool) -> Told<'a> {
        (&self.user, None)
    }
}

/// Assigns users to campaigns. Creates unknown users bare.
pub async fn assign(pool: &Pool, entries: &[AssignmentLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = assign_in(&mut tx, pool, entries).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Does the same as [`assign`], in a transaction of the caller.
pub(super) async fn assign_in(
    connection: &mut Connection,
    pool: &Pool,
    entries: &[AssignmentLoad],
) -> Result<Vec<LoadOutcome>, StoreError> {
    let campaigns = campaigns_of(connection, entries.iter().map(|entry| entry.campaign.as_str())).await?;
    let known = |entry: &&AssignmentLoad| campaigns.contains_key(entry.campaign.as_str());
    let of_known = entries.iter().filter(known).map(|entry| entry.told(pool));
    let users = ids::ensure_users(connection, pool.erasure_key(), of_known).await?;
    let kept = users.kept(pool, entries);
    let entries = &kept.entries[..];
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
    .fetch_all(connection)
    .await?;
    let stored = stored.into_iter().map(|row| (row.campaign_id, row.user_id)).collect();
    let outcomes = answered(&keys, stored, |position| no_campaign(&entries[position].campaign));
    Ok(kept.outcomes(outcomes, LoadOutcome::Dropped))
}

/// Sets attributes of users. Among several values of one user and name the last one counts. Creates unknown users bare.
pub async fn set_attributes(pool: &Pool, entries: &[AttributeLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = set_attributes_in(&mut tx, pool, entries).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Does the same as [`set_attributes`], in a transaction of the caller.
pub(in crate::store) async fn set_attributes_in(
    connection: &mut Connection,
    pool: &Pool,
    entries: &[AttributeLoad],
) -> Result<Vec<LoadOutcome>, StoreError> {
    let users = ids::ensure_users(
        connection,
        pool.erasure_key(),
        entries.iter().map(|entry| entry.told(pool)),
    )
    .await?;
    let kept = users.kept(pool, entries);
    let entries = &kept.entries[..];
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
    .fetch_all(connection)
    .await?;
    let mut outcomes = vec![LoadOutcome::Merged; entries.len()];
    for row in stored {
        outcomes[last[&(row.user_id, row.name.as_str())]] = LoadOutcome::Stored;
    }
    Ok(kept.outcomes(outcomes, LoadOutcome::Dropped))
}

/// Raises the revision of the definitions if any has changed, and commits.
async fn finish(mut tx: Tx, outcomes: &[LoadOutcome]) -> Result<(), StoreError> {
    if outcomes.contains(&LoadOutcome::Stored) {
        revision::raise(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Returns each pair once, ascending: this is the order in which locks are taken.
fn distinct(keys: &[Option<(i64, i64)>]) -> Vec<(i64, i64)> {
    let mut distinct: Vec<(i64, i64)> = keys.iter().copied().flatten().collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// Returns the outcome of each entry: an entry without a key is refused, and of several with one key the first stored it.
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

/// The key of a campaign, and what coupons must agree with.
struct CampaignRef {
    id: i64,
    currency_code: String,
}

/// Finds the campaigns that exist, by external id.
async fn campaigns_of<'a>(
    connection: &mut Connection,
    external_ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, CampaignRef>, StoreError> {
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
        let campaign = CampaignRef {
            id: row.id,
            currency_code: row.currency_code,
        };
        (row.external_id, campaign)
    });
    Ok(stored.collect())
}

/// The keys of a coupon and of its campaign, and how often it is used.
pub(in crate::store) struct CouponRef {
    pub id: i64,
    pub campaign_id: i64,
    /// Reserved or redeemed.
    pub used: i64,
}

/// Finds the coupons that exist, by external id.
pub(in crate::store) async fn coupons_of<'a>(
    connection: &mut Connection,
    external_ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, CouponRef>, StoreError> {
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
        let coupon = CouponRef {
            id: row.id,
            campaign_id: row.campaign_id,
            used: row.used,
        };
        (row.external_id, coupon)
    });
    Ok(stored.collect())
}
