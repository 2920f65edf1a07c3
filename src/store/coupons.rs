//! Coupons: made, changed, and as they are stored.

pub mod audience;
pub mod campaigns;
pub mod eligibility;
pub mod exposures;
pub mod lift;
pub mod loads;
pub mod offer_catalog;

use domain::campaign::Campaign;
use domain::coupon::{Coupon, CouponPatch, Discount, ItemSet, Rule, Scope};
use domain::id::{CampaignId, Category, CouponId, ItemId, MerchantId};

use self::campaigns::DefineError;
use crate::store::catalog::ids;
use crate::store::coupons::offer_catalog::{coupon_id, raise_revision};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, Tx};

/// Most items of a scope that are read with a coupon that somebody looks at.
const MAX_SHOWN_ITEMS: i64 = 1_000;
/// The same with each coupon of a list, which would be too long for a message.
const MAX_LISTED_ITEMS: i64 = 10;

/// A coupon with what is used of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCoupon {
    /// Its scope names the first ones of `item_count` items.
    pub coupon: Coupon,
    pub item_count: i64,
    pub reserved: i64,
    pub redeemed: i64,
}

/// Makes `coupon` of a campaign that `viewer` may see; one that is there already, and the same, is answered again. Items
/// that are not known are created bare.
///
/// `viewer`: the only merchant whose campaigns there are; `None`: all.
pub async fn create(pool: &Pool, coupon: &Coupon, viewer: Option<&MerchantId>) -> Result<StoredCoupon, DefineError> {
    pool.write(|mut tx| async move {
        let campaign = campaigns::read(&mut tx, &coupon.campaign, viewer, campaigns::Lock::None).await?;
        let Some(campaign) = campaign else {
            return Ok(Err(DefineError::UnknownCampaign(coupon.campaign.clone())));
        };
        let named = check_merchants(&mut tx, &campaign.campaign, Some(&coupon.scope), &coupon.rules).await?;
        if let Err(error) = named {
            return Ok(Err(error));
        }
        let columns = Columns::of(coupon);
        let created = sqlx::query_scalar!(
            "INSERT INTO coupons
                 (external_id, campaign_id, title, discount, percent_basis_points, amount_minor, max_discount_minor,
                  min_cart_minor, covers_all, categories, merchants, per_user_cap, reservation_ttl_seconds, rules)
             SELECT $1, id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 FROM campaigns WHERE external_id = $2
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
        let limits = [
            ("total_cap", new.total_cap, locked.used),
            (
                "per_user_cap",
                new.per_user_cap.map(i64::from),
                locked.used_by_one.unwrap_or(0),
            ),
        ];
        for (field, limit, used) in limits {
            if let Some(limit) = limit
                && limit < used
            {
                return Ok(Err(DefineError::LimitBelowUse { field, limit, used }));
            }
        }
        if new == stored.coupon && patch.scope.is_none() {
            return Ok(Ok(stored));
        }
        let columns = Columns::of(&new);
        sqlx::query!(
            "UPDATE coupons SET title = $2, discount = $3, percent_basis_points = $4, amount_minor = $5,
                    max_discount_minor = $6, min_cart_minor = $7, covers_all = $8, categories = $9, merchants = $10,
                    per_user_cap = $11, reservation_ttl_seconds = $12, rules = $13
             WHERE id = $1",
            locked.id,
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
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE coupon_counters SET total_cap = $2 WHERE coupon_id = $1",
            locked.id,
            new.total_cap
        )
        .execute(&mut *tx)
        .await?;
        if patch.scope.is_some() {
            sqlx::query!("DELETE FROM coupon_items WHERE coupon_id = $1", locked.id)
                .execute(&mut *tx)
                .await?;
            add_items(&mut tx, locked.id, columns.items).await?;
        }
        finish(tx, &patch.id).await
    })
    .await?
}

/// That the merchants which a scope and rules name are there, and for a merchant's campaign none but its own.
async fn check_merchants(
    connection: &mut Connection,
    campaign: &Campaign,
    scope: Option<&Scope>,
    rules: &[Rule],
) -> Result<Result<(), DefineError>, StoreError> {
    let sets = scope.and_then(Scope::listed).into_iter();
    let sets = sets.chain(rules.iter().filter_map(Rule::set));
    let named: Vec<&MerchantId> = sets.flat_map(|set| &set.merchants).collect();
    if let Some(of) = &campaign.merchant
        && let Some(&foreign) = named.iter().find(|named| **named != of)
    {
        let (of, named) = (of.clone(), foreign.clone());
        return Ok(Err(DefineError::ForeignMerchant { of, named }));
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

/// Commits, having said that definitions have changed; the coupon as it is then.
async fn finish(mut tx: Tx, id: &CouponId) -> Result<Result<StoredCoupon, DefineError>, StoreError> {
    let stored = read(&mut tx, id, None).await?;
    raise_revision(&mut tx).await?;
    tx.commit().await?;
    Ok(stored.ok_or_else(|| DefineError::UnknownCoupon(id.clone())))
}

/// `viewer`: see [`create`].
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
                  per_user_cap, total_cap, reservation_ttl_seconds, rules, reserved, redeemed,
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

/// Up to `limit` coupons of `campaign` after `after`, ascending by id, each with the first 10 of its items.
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
                  per_user_cap, total_cap, reservation_ttl_seconds, rules, reserved, redeemed,
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
    .map(StoredCoupon::try_from)
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
    /// Whether `coupon` has all items of the scope.
    fn is_complete(&self) -> bool {
        let shown = self.coupon.scope.listed().map_or(0, |set| set.items.len());
        self.item_count == shown as i64
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
            covers_all: row.covers_all,
            categories: row.categories,
            merchants: row.merchants,
            per_user_cap: row.per_user_cap,
            total_cap: row.total_cap,
            reservation_ttl_seconds: row.reservation_ttl_seconds,
            rules: row.rules,
        };
        Ok(Self {
            coupon: coupon.coupon(items)?,
            item_count: row.item_count,
            reserved: row.reserved,
            redeemed: row.redeemed,
        })
    }
}

/// What a coupon has in columns of their own.
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

pub(super) struct CouponRow {
    pub id: i64,
    pub external_id: String,
    pub campaign_id: String,
    pub title: String,
    pub discount: String,
    pub percent_basis_points: Option<i32>,
    pub amount_minor: Option<i64>,
    pub max_discount_minor: Option<i64>,
    pub min_cart_minor: i64,
    pub covers_all: bool,
    pub categories: Vec<String>,
    pub merchants: Vec<String>,
    pub per_user_cap: Option<i32>,
    pub total_cap: Option<i64>,
    pub reservation_ttl_seconds: i32,
    pub rules: serde_json::Value,
}

impl CouponRow {
    /// `items`: those that the coupon names, ascending.
    pub fn coupon(self, items: Vec<ItemId>) -> Result<Coupon, StoreError> {
        let discount = match (self.discount.as_str(), self.percent_basis_points, self.amount_minor) {
            ("percent", Some(basis_points), None) => u16::try_from(basis_points)
                .ok()
                .map(|basis_points| Discount::Percent { basis_points }),
            ("amount", None, Some(amount_minor)) => Some(Discount::Amount { amount_minor }),
            ("free_shipping", None, None) => Some(Discount::FreeShipping),
            _ => None,
        };
        let scope = match self.covers_all {
            true => Scope::All,
            false => Scope::Listed(ItemSet {
                items,
                ..item_set(Vec::new(), self.categories, self.merchants)?
            }),
        };
        Ok(Coupon {
            id: coupon_id(self.external_id)?,
            campaign: CampaignId::new(self.campaign_id).map_err(corrupt)?,
            title: self.title,
            discount: discount.ok_or_else(|| StoreError::corrupt("coupons", "discount"))?,
            max_discount_minor: self.max_discount_minor,
            min_cart_minor: self.min_cart_minor,
            scope,
            per_user_cap: self.per_user_cap,
            total_cap: self.total_cap,
            reservation_ttl_seconds: self.reservation_ttl_seconds,
            rules: rules_from_json(self.rules)?,
        })
    }
}

/// A rule as the column `rules` keeps it.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StoredRule {
    Bought(StoredItems),
    NotBought(StoredItems),
    CategoryAffinity { category: String, min_share: f64 },
    MinAffinity { min_score: f64 },
    NewUser,
    LapsedUser { days: u32 },
    Attribute { name: String, values: Vec<String> },
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StoredItems {
    items: Vec<String>,
    categories: Vec<String>,
    merchants: Vec<String>,
}

impl From<&ItemSet> for StoredItems {
    fn from(set: &ItemSet) -> Self {
        Self {
            items: set.items.iter().map(ToString::to_string).collect(),
            categories: set.categories.iter().map(ToString::to_string).collect(),
            merchants: set.merchants.iter().map(ToString::to_string).collect(),
        }
    }
}

fn rules_to_json(rules: &[Rule]) -> serde_json::Value {
    let stored: Vec<StoredRule> = rules.iter().map(stored_rule).collect();
    serde_json::to_value(stored).unwrap_or_else(|_| unreachable!("finite numbers and texts"))
}

fn stored_rule(rule: &Rule) -> StoredRule {
    match rule {
        Rule::Bought(set) => StoredRule::Bought(set.into()),
        Rule::NotBought(set) => StoredRule::NotBought(set.into()),
        Rule::CategoryAffinity { category, min_share } => StoredRule::CategoryAffinity {
            category: category.to_string(),
            min_share: *min_share,
        },
        Rule::MinAffinity { min_score } => StoredRule::MinAffinity { min_score: *min_score },
        Rule::NewUser => StoredRule::NewUser,
        Rule::LapsedUser { days } => StoredRule::LapsedUser { days: *days },
        Rule::Attribute { name, values } => StoredRule::Attribute {
            name: name.clone(),
            values: values.clone(),
        },
    }
}

fn rules_from_json(rules: serde_json::Value) -> Result<Vec<Rule>, StoreError> {
    let stored: Vec<StoredRule> =
        serde_json::from_value(rules).map_err(|error| StoreError::corrupt("coupons", error))?;
    stored.into_iter().map(rule).collect()
}

fn rule(stored: StoredRule) -> Result<Rule, StoreError> {
    let set = |set: StoredItems| item_set(set.items, set.categories, set.merchants);
    Ok(match stored {
        StoredRule::Bought(items) => Rule::Bought(set(items)?),
        StoredRule::NotBought(items) => Rule::NotBought(set(items)?),
        StoredRule::CategoryAffinity { category, min_share } => Rule::CategoryAffinity {
            category: Category::new(category).map_err(corrupt)?,
            min_share,
        },
        StoredRule::MinAffinity { min_score } => Rule::MinAffinity { min_score },
        StoredRule::NewUser => Rule::NewUser,
        StoredRule::LapsedUser { days } => Rule::LapsedUser { days },
        StoredRule::Attribute { name, values } => Rule::Attribute { name, values },
    })
}

fn item_set(items: Vec<String>, categories: Vec<String>, merchants: Vec<String>) -> Result<ItemSet, StoreError> {
    Ok(ItemSet {
        items: items
            .into_iter()
            .map(ItemId::new)
            .collect::<Result<_, _>>()
            .map_err(corrupt)?,
        categories: categories
            .into_iter()
            .map(Category::new)
            .collect::<Result<_, _>>()
            .map_err(corrupt)?,
        merchants: merchants
            .into_iter()
            .map(MerchantId::new)
            .collect::<Result<_, _>>()
            .map_err(corrupt)?,
    })
}

fn corrupt(problem: impl ToString) -> StoreError {
    StoreError::corrupt("coupons", problem)
}
