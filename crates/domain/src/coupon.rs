//! Coupons: what they take off, which items they cover, which users may have them; and carts.

use std::str::FromStr;

use super::error::InvalidField;
use super::id::{CampaignId, CartId, Category, CouponId, ItemId, MerchantId};
use super::money::Currency;

/// The most rules of a coupon.
pub const MAX_RULES: usize = 16;
/// The most values of one rule, or entries of one scope, that a request may name.
pub const MAX_VALUES: usize = 1_000;
/// 100 %, in basis points.
pub const MAX_BASIS_POINTS: u16 = 10_000;
/// The longest time that a reservation holds its amount: one day.
pub const MAX_RESERVATION_TTL_SECONDS: i32 = 86_400;
/// The time that a reservation holds its amount unless the coupon says otherwise: 15 minutes.
pub const DEFAULT_RESERVATION_TTL_SECONDS: i32 = 900;

/// The discount of a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// A share of what the covered lines of the cart cost.
    Percent { basis_points: u16 },
    /// An amount, but at most what the covered lines cost.
    Amount { amount_minor: i64 },
    /// The shipping of the cart.
    FreeShipping,
}

impl Discount {
    /// Returns the name of the kind of discount in storage and files.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Percent { .. } => "percent",
            Self::Amount { .. } => "amount",
            Self::FreeShipping => "free_shipping",
        }
    }
}

/// The moment at which the covered lines of a cart are compared with a coupon's minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinCartBasis {
    /// Before the discounts of other coupons.
    #[default]
    BeforeDiscounts,
    /// After the discounts of the coupons that are applied to the cart.
    AfterDiscounts,
}

impl MinCartBasis {
    /// Returns the name in storage.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeDiscounts => "before_discounts",
            Self::AfterDiscounts => "after_discounts",
        }
    }
}

impl FromStr for MinCartBasis {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        match text {
            "before_discounts" => Ok(Self::BeforeDiscounts),
            "after_discounts" => Ok(Self::AfterDiscounts),
            _ => Err(InvalidField::new(
                "min_cart_basis",
                "UNKNOWN_MIN_CART_BASIS",
                format!("must be before_discounts or after_discounts, is {text:?}"),
            )),
        }
    }
}

/// A set of items, named one by one, by category and by merchant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemSet {
    /// Strictly ascending.
    pub items: Vec<ItemId>,
    pub categories: Vec<Category>,
    pub merchants: Vec<MerchantId>,
}

impl ItemSet {
    /// Returns whether the set names the item, its category or its merchant.
    pub fn contains(&self, item: &str, category: Option<&str>, merchant: Option<&str>) -> bool {
        self.items.binary_search_by(|id| id.as_str().cmp(item)).is_ok()
            || category.is_some_and(|own| self.categories.iter().any(|category| category.as_str() == own))
            || merchant.is_some_and(|own| self.merchants.iter().any(|merchant| merchant.as_str() == own))
    }
}

/// The items that a coupon covers. A coupon of a merchant's campaign covers only items of that merchant, whatever its scope.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    All,
    Listed(ItemSet),
}

impl Scope {
    /// Returns the listed items; `None` if all items are covered.
    pub fn listed(&self) -> Option<&ItemSet> {
        match self {
            Self::All => None,
            Self::Listed(set) => Some(set),
        }
    }
}

/// A condition on a user. All rules of a coupon must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The user has bought one of the items.
    Bought(ItemSet),
    /// The user has bought none of the items.
    NotBought(ItemSet),
    /// Items of the category make up at least this share of the sum of the user's ratings, 0 to 1.
    CategoryAffinity { category: Category, min_share: f64 },
    /// The user's affinity to the covered items, the score that ranks targets, is at least this.
    MinAffinity { min_score: f64 },
    /// The user has never bought anything.
    NewUser,
    /// The user has bought something, but nothing for this many days.
    LapsedUser { days: u32 },
    /// The user has the attribute, with one of these values.
    Attribute { name: String, values: Vec<String> },
}

impl Rule {
    /// Returns whether the rule looks at the user's history. Such a rule fails for users who object to profiling.
    pub fn needs_history(&self) -> bool {
        match self {
            Self::Bought(_)
            | Self::NotBought(_)
            | Self::CategoryAffinity { .. }
            | Self::MinAffinity { .. }
            | Self::NewUser
            | Self::LapsedUser { .. } => true,
            Self::Attribute { .. } => false,
        }
    }

    /// Returns the items that the rule names; `None` for rules about something else.
    pub fn set(&self) -> Option<&ItemSet> {
        match self {
            Self::Bought(set) | Self::NotBought(set) => Some(set),
            Self::CategoryAffinity { .. }
            | Self::MinAffinity { .. }
            | Self::NewUser
            | Self::LapsedUser { .. }
            | Self::Attribute { .. } => None,
        }
    }

    /// Returns the number of ids, categories, merchants and values that the rule lists.
    pub fn n_values(&self) -> usize {
        match self {
            Self::Bought(set) | Self::NotBought(set) => set.items.len() + set.categories.len() + set.merchants.len(),
            Self::Attribute { values, .. } => values.len(),
            Self::CategoryAffinity { .. } | Self::MinAffinity { .. } | Self::NewUser | Self::LapsedUser { .. } => 0,
        }
    }

    /// Keeps the first `n` entries of each list of the rule, to be shown.
    pub fn truncate(&mut self, n: usize) {
        match self {
            Self::Bought(set) | Self::NotBought(set) => {
                set.items.truncate(n);
                set.categories.truncate(n);
                set.merchants.truncate(n);
            }
            Self::Attribute { values, .. } => values.truncate(n),
            Self::CategoryAffinity { .. } | Self::MinAffinity { .. } | Self::NewUser | Self::LapsedUser { .. } => {}
        }
    }

    /// Checks the values of the rule.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` or `EMPTY`, naming the field of the rule.
    pub fn check(self) -> Result<Self, InvalidField> {
        let out_of_range = |field: &str, message: String| Err(InvalidField::new(field, "OUT_OF_RANGE", message));
        match &self {
            Self::CategoryAffinity { min_share, .. } if !(0.0..=1.0).contains(min_share) => {
                out_of_range("min_share", format!("must lie between 0 and 1, is {min_share}"))
            }
            Self::MinAffinity { min_score } if !(min_score.is_finite() && *min_score >= 0.0) => {
                out_of_range("min_score", format!("must be finite and 0 or more, is {min_score}"))
            }
            Self::LapsedUser { days: 0 } => out_of_range("days", "must be 1 or more, is 0".to_owned()),
            Self::Bought(set) | Self::NotBought(set)
                if set.items.is_empty() && set.categories.is_empty() && set.merchants.is_empty() =>
            {
                Err(InvalidField::new(
                    "items",
                    "EMPTY",
                    "must name an item, a category or a merchant",
                ))
            }
            Self::Attribute { values, .. } if values.is_empty() || values.len() > MAX_VALUES => out_of_range(
                "values",
                format!("must have 1 to {MAX_VALUES} entries, has {}", values.len()),
            ),
            _ => Ok(self),
        }
    }
}

/// The definition of a coupon. Its reservations and redemptions are counted elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Coupon {
    pub id: CouponId,
    pub campaign: CampaignId,
    pub title: String,
    pub discount: Discount,
    /// The limit of the discount of one redemption; `None` for no limit.
    pub max_discount_minor: Option<i64>,
    /// The least that the covered lines of the cart must cost.
    pub min_cart_minor: i64,
    pub min_cart_basis: MinCartBasis,
    pub scope: Scope,
    /// The most redemptions by one user; `None` for no limit.
    pub per_user_cap: Option<i32>,
    /// The most redemptions by all users; `None` for no limit.
    pub total_cap: Option<i64>,
    /// How long a reservation holds its amount.
    pub reservation_ttl_seconds: i32,
    pub rules: Vec<Rule>,
}

/// A change of a coupon. A field that is `None` keeps what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct CouponPatch {
    pub id: CouponId,
    pub title: Option<String>,
    pub discount: Option<Discount>,
    /// `Some(None)` removes the limit.
    pub max_discount_minor: Option<Option<i64>>,
    pub min_cart_minor: Option<i64>,
    pub min_cart_basis: Option<MinCartBasis>,
    pub scope: Option<Scope>,
    /// `Some(None)` removes the limit.
    pub per_user_cap: Option<Option<i32>>,
    /// `Some(None)` removes the limit.
    pub total_cap: Option<Option<i64>>,
    pub reservation_ttl_seconds: Option<i32>,
    pub rules: Option<Vec<Rule>>,
}

impl CouponPatch {
    /// Returns `coupon` with the changes.
    pub fn apply(&self, coupon: &Coupon) -> Coupon {
        Coupon {
            title: self.title.clone().unwrap_or_else(|| coupon.title.clone()),
            discount: self.discount.unwrap_or(coupon.discount),
            max_discount_minor: self.max_discount_minor.unwrap_or(coupon.max_discount_minor),
            min_cart_minor: self.min_cart_minor.unwrap_or(coupon.min_cart_minor),
            min_cart_basis: self.min_cart_basis.unwrap_or(coupon.min_cart_basis),
            scope: self.scope.clone().unwrap_or_else(|| coupon.scope.clone()),
            per_user_cap: self.per_user_cap.unwrap_or(coupon.per_user_cap),
            total_cap: self.total_cap.unwrap_or(coupon.total_cap),
            reservation_ttl_seconds: self.reservation_ttl_seconds.unwrap_or(coupon.reservation_ttl_seconds),
            rules: self.rules.clone().unwrap_or_else(|| coupon.rules.clone()),
            ..coupon.clone()
        }
    }
}

/// One line of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartLine {
    pub item: ItemId,
    pub quantity: i32,
    /// The price of the whole line, 0 or more.
    pub total_minor: i64,
}

/// The cart of a user: what they are about to buy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart {
    /// `None` for a cart without an identity, whose reservations are not known.
    pub id: Option<CartId>,
    pub currency: Currency,
    pub lines: Vec<CartLine>,
    pub shipping_minor: i64,
    /// The coupons that are applied to this cart already.
    pub applied: Vec<CouponId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_items_by_id_category_and_merchant() {
        let set = ItemSet {
            items: ["a", "c"].map(|id| ItemId::new(id).unwrap()).to_vec(),
            categories: vec![Category::new("tea").unwrap()],
            merchants: vec![MerchantId::new("acme").unwrap()],
        };
        let check = |item: &str, category: Option<&str>, merchant: Option<&str>, expected: bool| {
            assert_eq!(
                set.contains(item, category, merchant),
                expected,
                "{item} {category:?} {merchant:?}"
            );
        };
        check("a", None, None, true);
        check("b", None, None, false);
        check("b", Some("tea"), None, true);
        check("b", Some("coffee"), Some("acme2"), false);
        check("b", Some("coffee"), Some("acme"), true);
    }

    #[test]
    fn rule_values_out_of_range_are_refused() {
        let check = |rule: Rule, field: Option<&str>| {
            let error = rule.clone().check().err().map(|error| error.field);
            assert_eq!(error.as_deref(), field, "{rule:?}");
        };
        let tea = Category::new("tea").unwrap();
        let affinity = |min_share| Rule::CategoryAffinity {
            category: tea.clone(),
            min_share,
        };
        check(affinity(0.0), None);
        check(affinity(1.0), None);
        check(affinity(1.01), Some("min_share"));
        check(affinity(f64::NAN), Some("min_share"));
        check(Rule::MinAffinity { min_score: -1.0 }, Some("min_score"));
        check(
            Rule::MinAffinity {
                min_score: f64::INFINITY,
            },
            Some("min_score"),
        );
        check(Rule::LapsedUser { days: 0 }, Some("days"));
        check(Rule::Bought(ItemSet::default()), Some("items"));
        let attribute = |values: usize| Rule::Attribute {
            name: "age".to_owned(),
            values: vec!["65+".to_owned(); values],
        };
        check(attribute(0), Some("values"));
        check(attribute(MAX_VALUES), None);
        check(attribute(MAX_VALUES + 1), Some("values"));
    }
}
