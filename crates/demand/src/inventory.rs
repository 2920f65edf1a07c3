//! The stock of items and the rules for ordering it, as callers give them: positions, and policies for items, categories and
//! merchants.

use std::collections::HashMap;

use domain::error::InvalidField;
use domain::id::{Category, ItemId, MerchantId};
use domain::money::Money;
use domain::time::Timestamp;

use super::replenishment::{Arrival, MAX_UNITS, Policy, PolicyError, Stock, bound};

/// Seconds of a day.
const DAY_SECONDS: f64 = 86_400.0;

/// The stock of an item as it was counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    pub item: ItemId,
    /// Units, at least 0.
    pub on_hand: f64,
    /// Units that customers wait for, at least 0.
    pub backordered: f64,
    pub on_order: Vec<OnOrder>,
    pub counted_at: Timestamp,
}

/// Units that were ordered and had not arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnOrder {
    /// Units, at least 0.
    pub quantity: f64,
    pub expected_at: Timestamp,
}

/// The most orders that one position names.
pub const MAX_ON_ORDER: usize = 100;

impl Position {
    /// # Errors
    /// [`InvalidField`] names the first quantity that is not within 0 and [`MAX_UNITS`].
    pub fn check(&self) -> Result<(), InvalidField> {
        check_quantity("on_hand", self.on_hand)?;
        check_quantity("backordered", self.backordered)?;
        if self.on_order.len() > MAX_ON_ORDER {
            let message = format!("must have at most {MAX_ON_ORDER} entries, has {}", self.on_order.len());
            return Err(InvalidField::new("on_order", "BATCH_SIZE_OUT_OF_RANGE", message));
        }
        for (at, order) in self.on_order.iter().enumerate() {
            check_quantity(&format!("on_order[{at}].quantity"), order.quantity)?;
        }
        Ok(())
    }

    /// Returns the stock at `now`, of which `sold_units` were sold since it was counted. Units that were sold beyond those on
    /// hand are owed to customers.
    pub fn stock(&self, sold_units: f64, now: Timestamp) -> Stock {
        let left = self.on_hand - sold_units;
        let arrival = |order: &OnOrder| Arrival {
            quantity: order.quantity,
            in_days: (order.expected_at - now).as_seconds_f64() / DAY_SECONDS,
        };
        Stock {
            on_hand: left.max(0.0),
            backordered: self.backordered + (-left).max(0.0),
            arrivals: self.on_order.iter().map(arrival).collect(),
        }
    }

    /// Returns the age of the count in days.
    pub fn age_days(&self, now: Timestamp) -> f64 {
        (now - self.counted_at).as_seconds_f64() / DAY_SECONDS
    }
}

fn check_quantity(field: &str, quantity: f64) -> Result<(), InvalidField> {
    match (0.0..=MAX_UNITS).contains(&quantity) {
        true => Ok(()),
        false => {
            let message = format!("must be 0 to {MAX_UNITS:e}, is {quantity:?}");
            Err(InvalidField::new(field, "QUANTITY_OUT_OF_RANGE", message))
        }
    }
}

/// The items that a policy is for. An item follows the most specific policy that fits it: its own, else that of its category,
/// else that of its merchant, else that of all items.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyScope {
    Item(ItemId),
    Category(Category),
    Merchant(MerchantId),
    All,
}

impl PolicyScope {
    /// Returns the name of the kind of scope, as it is stored and as files have it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Item(_) => "item",
            Self::Category(_) => "category",
            Self::Merchant(_) => "merchant",
            Self::All => "default",
        }
    }

    /// Returns the id of the item or merchant, or the category; empty for all items.
    pub fn id(&self) -> &str {
        match self {
            Self::Item(item) => item.as_str(),
            Self::Category(category) => category.as_str(),
            Self::Merchant(merchant) => merchant.as_str(),
            Self::All => "",
        }
    }

    /// # Errors
    /// [`InvalidField`] names `scope` or `id`.
    pub fn new(kind: &str, id: &str) -> Result<Self, InvalidField> {
        match (kind, id) {
            ("item", id) => ItemId::new(id).map(Self::Item).map_err(named),
            ("category", id) => Category::new(id).map(Self::Category).map_err(named),
            ("merchant", id) => MerchantId::new(id).map(Self::Merchant).map_err(named),
            ("default", "") => Ok(Self::All),
            ("default", _) => Err(InvalidField::new("id", "NOT_EMPTY", "must be empty for scope default")),
            _ => {
                let message = format!("must be item, category, merchant or default, is {kind}");
                Err(InvalidField::new("scope", "UNKNOWN_SCOPE", message))
            }
        }
    }
}

fn named(error: InvalidField) -> InvalidField {
    InvalidField {
        field: "id".to_owned(),
        ..error
    }
}

/// A policy and the items that it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopedPolicy {
    pub scope: PolicyScope,
    pub policy: Policy,
    /// The price of a unit when it is ordered.
    pub unit_cost: Option<Money>,
}

impl ScopedPolicy {
    /// # Errors
    /// [`InvalidField`] names the first field that is out of range.
    pub fn check(&self) -> Result<(), InvalidField> {
        self.policy.check().map_err(invalid_field)?;
        match self.unit_cost {
            Some(cost) if cost.amount_minor <= 0 => {
                let message = format!("must be above 0, is {}", cost.amount_minor);
                Err(InvalidField::new(
                    "unit_cost.amount_minor",
                    "COST_OUT_OF_RANGE",
                    message,
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Says of a policy what is wrong with its field.
fn invalid_field(error: PolicyError) -> InvalidField {
    match error {
        PolicyError::Share { field, value } => {
            let message = format!("must be above 0 and below 1, is {value}");
            InvalidField::new(field, "LEVEL_OUT_OF_RANGE", message)
        }
        PolicyError::Quantity {
            field,
            least,
            most,
            value,
        } => {
            let message = format!("must be {least} to {}, is {value:?}", bound(most));
            InvalidField::new(field, "QUANTITY_OUT_OF_RANGE", message)
        }
        error @ PolicyError::Horizon { .. } => {
            InvalidField::new("lead_time_days", "HORIZON_OUT_OF_RANGE", error.to_string())
        }
        error @ PolicyError::Cover { .. } => {
            InvalidField::new("max_cover_days", "HORIZON_OUT_OF_RANGE", error.to_string())
        }
    }
}

/// All policies, by scope.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policies {
    by_scope: HashMap<PolicyScope, ScopedPolicy>,
}

impl Policies {
    /// Keeps the last of several policies with one scope.
    pub fn new(policies: impl IntoIterator<Item = ScopedPolicy>) -> Self {
        let by_scope = policies.into_iter().map(|policy| (policy.scope.clone(), policy));
        Self {
            by_scope: by_scope.collect(),
        }
    }

    /// Returns the most specific policy for an item.
    pub fn find(&self, item: &str, category: Option<&str>, merchant: Option<&str>) -> Option<&ScopedPolicy> {
        let item = ItemId::new(item).ok().map(PolicyScope::Item);
        let category = category
            .and_then(|id| Category::new(id).ok())
            .map(PolicyScope::Category);
        let merchant = merchant
            .and_then(|id| MerchantId::new(id).ok())
            .map(PolicyScope::Merchant);
        let scopes = [item, category, merchant, Some(PolicyScope::All)];
        scopes.into_iter().flatten().find_map(|scope| self.by_scope.get(&scope))
    }

    pub fn is_empty(&self) -> bool {
        self.by_scope.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use chrono::{Duration, TimeZone, Utc};

    use super::*;
    use crate::replenishment::ServiceGoal;

    fn policy(scope: PolicyScope) -> ScopedPolicy {
        ScopedPolicy {
            scope,
            policy: Policy {
                lead_time_days: 7.0,
                review_period_days: 7.0,
                goal: ServiceGoal::FillRate(0.95),
                min_order_quantity: 0.0,
                order_multiple: 1.0,
                max_cover_days: 182.0,
            },
            unit_cost: None,
        }
    }

    fn scope(kind: &str, id: &str) -> PolicyScope {
        PolicyScope::new(kind, id).unwrap()
    }

    #[test]
    fn the_most_specific_policy_is_followed() {
        let scopes = [
            scope("item", "mug"),
            scope("category", "tea"),
            scope("merchant", "acme"),
            scope("default", ""),
        ];
        let policies = Policies::new(scopes.clone().map(policy));
        let check = |item, category, merchant, expected: usize| {
            let found = policies.find(item, category, merchant).unwrap();
            assert_eq!(found.scope, scopes[expected], "{item} {category:?} {merchant:?}");
        };
        check("mug", Some("tea"), Some("acme"), 0);
        check("pot", Some("tea"), Some("acme"), 1);
        check("pot", Some("art"), Some("acme"), 2);
        check("pot", None, None, 3);
        assert_eq!(Policies::default().find("mug", None, None), None);
    }

    #[test]
    fn scopes_come_back_and_bad_ones_name_their_field() {
        for (kind, id) in [
            ("item", "mug"),
            ("category", "tea"),
            ("merchant", "acme"),
            ("default", ""),
        ] {
            let found = scope(kind, id);
            assert_eq!((found.kind(), found.id()), (kind, id));
        }
        let check = |kind, id, field: &str| assert_eq!(PolicyScope::new(kind, id).unwrap_err().field, field);
        check("shelf", "x", "scope");
        check("item", "", "id");
        check("default", "x", "id");
    }

    #[test]
    fn what_was_sold_since_the_count_is_no_longer_there() {
        let now = Utc.with_ymd_and_hms(2025, 6, 2, 0, 0, 0).unwrap();
        let position = Position {
            item: ItemId::new("mug").unwrap(),
            on_hand: 10.0,
            backordered: 1.0,
            on_order: vec![OnOrder {
                quantity: 20.0,
                expected_at: now + Duration::hours(36),
            }],
            counted_at: now - Duration::days(3),
        };
        let stock = position.stock(4.0, now);
        assert_eq!((stock.on_hand, stock.backordered, stock.position()), (6.0, 1.0, 25.0));
        assert_eq!(stock.arrivals[0].in_days, 1.5);
        let stock = position.stock(12.0, now);
        assert_eq!((stock.on_hand, stock.backordered, stock.position()), (0.0, 3.0, 17.0));
        assert_eq!(position.age_days(now), 3.0);
        assert!(position.check().is_ok());
        let bad = Position {
            on_hand: f64::NAN,
            ..position
        };
        assert_eq!(bad.check().unwrap_err().field, "on_hand");
        // Sums of such quantities are finite.
        let mut huge = Position {
            on_order: vec![bad.on_order[0]; MAX_ON_ORDER],
            on_hand: MAX_UNITS,
            backordered: 0.0,
            ..bad
        };
        huge.on_order.iter_mut().for_each(|order| order.quantity = MAX_UNITS);
        assert!(huge.check().is_ok() && huge.stock(0.0, now).position().is_finite());
        huge.on_order[1].quantity = 1e300;
        let error = huge.check().unwrap_err();
        assert_eq!(
            (&error.field[..], &error.message[..]),
            ("on_order[1].quantity", "must be 0 to 1e15, is 1e300")
        );
    }

    #[test]
    fn a_cost_of_nothing_is_refused() {
        let free = ScopedPolicy {
            unit_cost: Some(Money {
                amount_minor: 0,
                currency: domain::money::Currency::new("GBP").unwrap(),
            }),
            ..policy(PolicyScope::All)
        };
        assert_eq!(free.check().unwrap_err().field, "unit_cost.amount_minor");
        assert!(policy(PolicyScope::All).check().is_ok());
    }
}
