//! The rows of campaigns and coupons, and their conversion into the types of the domain.

use domain::campaign::{Campaign, Holdout, Window};
use domain::coupon::{Coupon, Discount, ItemSet, Rule, Scope};
use domain::id::{CampaignId, Category, CouponId, ItemId, MerchantId};
use domain::money::Currency;
use domain::time::Timestamp;

use crate::store::error::StoreError;

pub(super) struct CampaignRow {
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
    pub history_scope: String,
}

impl TryFrom<CampaignRow> for Campaign {
    type Error = StoreError;

    fn try_from(row: CampaignRow) -> Result<Self, StoreError> {
        let corrupt = |error| StoreError::corrupt("campaigns", error);
        let salt = <[u8; 16]>::try_from(row.holdout_salt);
        let basis_points = u16::try_from(row.holdout_basis_points);
        Ok(Self {
            id: CampaignId::stored(row.external_id).map_err(corrupt)?,
            merchant: row.merchant_id.map(MerchantId::stored).transpose().map_err(corrupt)?,
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
            history_scope: row.history_scope.parse().map_err(corrupt)?,
        })
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
    pub min_cart_basis: String,
    pub covers_all: bool,
    pub categories: Vec<String>,
    pub merchants: Vec<String>,
    pub per_user_cap: Option<i32>,
    pub total_cap: Option<i64>,
    pub reservation_ttl_seconds: i32,
    pub rules: serde_json::Value,
}

impl CouponRow {
    /// `items`: the items that the coupon names, ascending.
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
            campaign: CampaignId::stored(self.campaign_id).map_err(corrupt)?,
            title: self.title,
            discount: discount.ok_or_else(|| StoreError::corrupt("coupons", "discount"))?,
            max_discount_minor: self.max_discount_minor,
            min_cart_minor: self.min_cart_minor,
            min_cart_basis: self
                .min_cart_basis
                .parse()
                .map_err(|error| StoreError::corrupt("coupons", error))?,
            scope,
            per_user_cap: self.per_user_cap,
            total_cap: self.total_cap,
            reservation_ttl_seconds: self.reservation_ttl_seconds,
            rules: rules_from_json(self.rules)?,
        })
    }
}

/// A rule in the format of the column `rules`.
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

pub(super) fn rules_to_json(rules: &[Rule]) -> serde_json::Value {
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
            category: Category::stored(category).map_err(corrupt)?,
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
            .map(ItemId::stored)
            .collect::<Result<_, _>>()
            .map_err(corrupt)?,
        categories: categories
            .into_iter()
            .map(Category::stored)
            .collect::<Result<_, _>>()
            .map_err(corrupt)?,
        merchants: merchants
            .into_iter()
            .map(MerchantId::stored)
            .collect::<Result<_, _>>()
            .map_err(corrupt)?,
    })
}

pub(super) fn corrupt(problem: impl ToString) -> StoreError {
    StoreError::corrupt("coupons", problem)
}

/// Converts the id of a coupon in a row.
pub(super) fn coupon_id(id: String) -> Result<CouponId, StoreError> {
    CouponId::stored(id).map_err(|error| StoreError::corrupt("coupons", error))
}
