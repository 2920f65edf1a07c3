//! Campaigns and coupons: what is given, to whom, and how much of it.

use std::fmt;
use std::str::FromStr;

use super::error::InvalidField;
use super::id::{CampaignId, Category, CouponId, ItemId, MerchantId};
use super::money::Currency;
use super::time::Timestamp;

/// Most rules of a coupon.
pub const MAX_RULES: usize = 16;
/// Most values of one rule, or entries of one scope that a request names.
pub const MAX_VALUES: usize = 1_000;
/// A percentage of 100, in basis points.
pub const MAX_BASIS_POINTS: u16 = 10_000;
/// A day.
pub const MAX_RESERVATION_TTL_SECONDS: i32 = 86_400;
/// A quarter of an hour.
pub const DEFAULT_RESERVATION_TTL_SECONDS: i32 = 900;

/// `DRAFT → SCHEDULED → ACTIVE ⇄ PAUSED → ENDED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignState {
    /// Being made: nobody sees it.
    Draft,
    /// Becomes active by itself when its window begins.
    Scheduled,
    Active,
    Paused,
    /// For good.
    Ended,
}

impl CampaignState {
    pub const ALL: [Self; 5] = [Self::Draft, Self::Scheduled, Self::Active, Self::Paused, Self::Ended];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Scheduled => "scheduled",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }

    /// Whether a campaign in this state may be put into `next`.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Draft, Self::Scheduled | Self::Active) => true,
            (Self::Scheduled, Self::Draft | Self::Active | Self::Paused) => true,
            (Self::Active, Self::Paused) | (Self::Paused, Self::Active) => true,
            (Self::Ended, _) => false,
            (_, Self::Ended) => true,
            (from, to) => from == to,
        }
    }
}

impl fmt::Display for CampaignState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for CampaignState {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                let states = Self::ALL.map(Self::as_str).join(", ");
                InvalidField::new("state", "UNKNOWN_STATE", format!("must be one of {states}, is {text}"))
            })
    }
}

/// Who a campaign is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    Everybody,
    /// Users that were assigned to it; each of its coupons once.
    Assigned,
}

impl Audience {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everybody => "all",
            Self::Assigned => "assigned",
        }
    }
}

impl FromStr for Audience {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        match text {
            "all" => Ok(Self::Everybody),
            "assigned" => Ok(Self::Assigned),
            _ => Err(InvalidField::new(
                "audience",
                "UNKNOWN_AUDIENCE",
                format!("must be all or assigned, is {text}"),
            )),
        }
    }
}

/// From `starts_at` on, until before `ends_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
}

impl Window {
    /// # Errors
    /// `WINDOW_EMPTY` naming `ends_at`.
    pub fn new(starts_at: Timestamp, ends_at: Timestamp) -> Result<Self, InvalidField> {
        if starts_at >= ends_at {
            return Err(InvalidField::new(
                "ends_at",
                "WINDOW_EMPTY",
                format!("must be after starts_at ({starts_at}), is {ends_at}"),
            ));
        }
        Ok(Self { starts_at, ends_at })
    }
}

/// Who of those a campaign is for never gets it, so that its effect can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdout {
    /// Of 10 000.
    pub basis_points: u16,
    /// Makes the arms of different campaigns independent of each other.
    pub salt: [u8; 16],
}

/// A campaign as defined; what is used up of its budget is kept elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    pub id: CampaignId,
    /// `None`: the platform's own.
    pub merchant: Option<MerchantId>,
    pub name: String,
    pub state: CampaignState,
    pub window: Window,
    /// Of its budget, its coupons' amounts and the carts that they are used in.
    pub currency: Currency,
    /// `None`: without limit.
    pub budget_limit_minor: Option<i64>,
    /// Higher is shown first.
    pub priority: i32,
    /// Not together with coupons of other campaigns.
    pub is_exclusive: bool,
    pub audience: Audience,
    pub holdout: Holdout,
}

/// What a coupon takes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// Of what the cart's qualifying lines cost.
    Percent { basis_points: u16 },
    /// At most what they cost.
    Amount { amount_minor: i64 },
    /// What the cart's shipping costs.
    FreeShipping,
}

impl Discount {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Percent { .. } => "percent",
            Self::Amount { .. } => "amount",
            Self::FreeShipping => "free_shipping",
        }
    }
}

/// Items, by themselves or by what they have in common.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemSet {
    /// Ascending, each once.
    pub items: Vec<ItemId>,
    pub categories: Vec<Category>,
    pub merchants: Vec<MerchantId>,
}

impl ItemSet {
    pub fn contains(&self, item: &str, category: Option<&str>, merchant: Option<&str>) -> bool {
        self.items.binary_search_by(|id| id.as_str().cmp(item)).is_ok()
            || category.is_some_and(|own| self.categories.iter().any(|category| category.as_str() == own))
            || merchant.is_some_and(|own| self.merchants.iter().any(|merchant| merchant.as_str() == own))
    }
}

/// What a coupon covers; of a merchant's campaign never anything but that merchant's items.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    All,
    Listed(ItemSet),
}

impl Scope {
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
    /// Has bought one of the items.
    Bought(ItemSet),
    /// Has bought none of them.
    NotBought(ItemSet),
    /// At least this share of the user's history, by rating, is of the category.
    CategoryAffinity { category: Category, min_share: f64 },
    /// The affinity to what the coupon covers, as targets are ranked by, is at least this.
    MinAffinity { min_score: f64 },
    /// Has never bought anything.
    NewUser,
    /// Has bought something, but nothing for so long.
    LapsedUser { days: u32 },
    /// Has the attribute, with one of these values.
    Attribute { name: String, values: Vec<String> },
}

impl Rule {
    /// Whether it is about what the user did, which who objects to profiling need not have looked at.
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

    /// The items that it asks about, if it does.
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

    /// # Errors
    /// Names the field of the rule that is out of range.
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

/// A coupon as defined; how often it was used is kept elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Coupon {
    pub id: CouponId,
    pub campaign: CampaignId,
    pub title: String,
    pub discount: Discount,
    /// Of one redemption; `None`: without limit.
    pub max_discount_minor: Option<i64>,
    /// What the cart's qualifying lines must cost.
    pub min_cart_minor: i64,
    pub scope: Scope,
    /// Redemptions of one user; `None`: without limit.
    pub per_user_cap: Option<i32>,
    /// Redemptions of all users; `None`: without limit.
    pub total_cap: Option<i64>,
    /// How long a reservation holds what it has taken.
    pub reservation_ttl_seconds: i32,
    pub rules: Vec<Rule>,
}

/// A change of a campaign; `None` keeps what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignPatch {
    pub id: CampaignId,
    pub name: Option<String>,
    pub starts_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
    /// `Some(None)`: without limit.
    pub budget_limit_minor: Option<Option<i64>>,
    pub priority: Option<i32>,
    pub is_exclusive: Option<bool>,
    /// Only of a draft.
    pub audience: Option<Audience>,
    /// Only of a draft.
    pub holdout_basis_points: Option<u16>,
}

/// A change of a coupon; `None` keeps what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct CouponPatch {
    pub id: CouponId,
    pub title: Option<String>,
    pub discount: Option<Discount>,
    /// `Some(None)`: without limit.
    pub max_discount_minor: Option<Option<i64>>,
    pub min_cart_minor: Option<i64>,
    pub scope: Option<Scope>,
    /// `Some(None)`: without limit.
    pub per_user_cap: Option<Option<i32>>,
    /// `Some(None)`: without limit.
    pub total_cap: Option<Option<i64>>,
    pub reservation_ttl_seconds: Option<i32>,
    pub rules: Option<Vec<Rule>>,
}

impl CampaignPatch {
    /// `campaign` with the changes.
    ///
    /// # Errors
    /// A window that would be empty.
    pub fn apply(&self, campaign: &Campaign) -> Result<Campaign, InvalidField> {
        let window = &campaign.window;
        Ok(Campaign {
            name: self.name.clone().unwrap_or_else(|| campaign.name.clone()),
            window: Window::new(
                self.starts_at.unwrap_or(window.starts_at),
                self.ends_at.unwrap_or(window.ends_at),
            )?,
            budget_limit_minor: self.budget_limit_minor.unwrap_or(campaign.budget_limit_minor),
            priority: self.priority.unwrap_or(campaign.priority),
            is_exclusive: self.is_exclusive.unwrap_or(campaign.is_exclusive),
            audience: self.audience.unwrap_or(campaign.audience),
            holdout: Holdout {
                basis_points: self.holdout_basis_points.unwrap_or(campaign.holdout.basis_points),
                ..campaign.holdout
            },
            ..campaign.clone()
        })
    }
}

impl CouponPatch {
    /// `coupon` with the changes.
    pub fn apply(&self, coupon: &Coupon) -> Coupon {
        Coupon {
            title: self.title.clone().unwrap_or_else(|| coupon.title.clone()),
            discount: self.discount.unwrap_or(coupon.discount),
            max_discount_minor: self.max_discount_minor.unwrap_or(coupon.max_discount_minor),
            min_cart_minor: self.min_cart_minor.unwrap_or(coupon.min_cart_minor),
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
    /// Of the whole line, 0 or more.
    pub total_minor: i64,
}

/// What a user is about to buy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart {
    pub currency: Currency,
    pub lines: Vec<CartLine>,
    pub shipping_minor: i64,
    /// Coupons that are in use in this cart already.
    pub applied: Vec<CouponId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_one_another() {
        use CampaignState::{Active, Draft, Ended, Paused, Scheduled};
        let allowed = [
            (Draft, Scheduled),
            (Draft, Active),
            (Draft, Ended),
            (Scheduled, Draft),
            (Scheduled, Active),
            (Scheduled, Paused),
            (Scheduled, Ended),
            (Active, Paused),
            (Active, Ended),
            (Paused, Active),
            (Paused, Ended),
        ];
        for from in CampaignState::ALL {
            for to in CampaignState::ALL {
                let expected = allowed.contains(&(from, to)) || (from == to && from != Ended);
                assert_eq!(from.may_become(to), expected, "{from} to {to}");
                assert_eq!(from.as_str().parse(), Ok(from));
            }
        }
    }

    #[test]
    fn a_set_contains_what_it_names() {
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
    fn rules_are_checked() {
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
