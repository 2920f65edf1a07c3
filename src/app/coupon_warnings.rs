//! Warns of the parts of a coupon that match nothing in the catalog.

use std::fmt::Display;

use crate::store::coupons::stored::StoredCoupon;
use domain::coupon::{ItemSet, Rule, Scope};

/// The most names in one warning.
const MAX_NAMES: usize = 10;

/// A part of a coupon that matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponWarning {
    pub reason: &'static str,
    /// The field of the coupon, as the API names it.
    pub field: String,
    pub message: String,
    /// The first of the names that match nothing.
    pub names: Vec<String>,
    pub name_count: usize,
}

/// Returns the warnings about a coupon that was compared with the catalog, first those about its scope.
pub fn warnings(stored: &StoredCoupon) -> Vec<CouponWarning> {
    let mut warnings = Vec::new();
    if stored.covered_count == 0 {
        warnings.push(empty_scope(stored));
    }
    if let Scope::Listed(set) = &stored.coupon.scope {
        warnings.extend(unknown_names(stored, "coupon.scope.items", set));
    }
    for (position, rule) in stored.coupon.rules.iter().enumerate() {
        let at = format!("coupon.rules.rules[{position}]");
        match rule {
            Rule::Bought(set) => warnings.extend(unknown_names(stored, &format!("{at}.bought"), set)),
            Rule::NotBought(set) => warnings.extend(unknown_names(stored, &format!("{at}.not_bought"), set)),
            Rule::CategoryAffinity { category, .. } => {
                let field = format!("{at}.category_affinity.category");
                let category = std::slice::from_ref(category);
                warnings.extend(unknown(
                    stored,
                    &CATEGORY,
                    field,
                    category,
                    &stored.unmatched.categories,
                ));
            }
            Rule::MinAffinity { .. } | Rule::NewUser | Rule::LapsedUser { .. } | Rule::Attribute { .. } => {}
        }
    }
    warnings
}

/// The reason of the warning that a coupon covers no item.
pub const EMPTY_SCOPE: &str = "SCOPE_IS_EMPTY";

fn empty_scope(stored: &StoredCoupon) -> CouponWarning {
    CouponWarning {
        reason: EMPTY_SCOPE,
        field: "coupon.scope".to_owned(),
        message: format!("the coupon covers no item of {}, so it has no targets", source(stored)),
        names: Vec::new(),
        name_count: 0,
    }
}

/// Returns whose items a coupon can cover, in words.
fn source(stored: &StoredCoupon) -> String {
    match &stored.owner {
        None => "the catalog".to_owned(),
        Some(owner) => format!("merchant {owner}"),
    }
}

/// A kind of name, and what it means that one is unknown.
struct Kind {
    reason: &'static str,
    /// Follows "no item of the catalog".
    predicate: &'static str,
}

const ITEM: Kind = Kind {
    reason: "UNKNOWN_ITEM",
    predicate: "has the id",
};
const CATEGORY: Kind = Kind {
    reason: "UNKNOWN_CATEGORY",
    predicate: "is in the category",
};
const MERCHANT: Kind = Kind {
    reason: "UNKNOWN_MERCHANT",
    predicate: "belongs to the merchant",
};

fn unknown_names(stored: &StoredCoupon, at: &str, set: &ItemSet) -> Vec<CouponWarning> {
    let (at_items, at_categories) = (format!("{at}.item_ids"), format!("{at}.categories"));
    let at_merchants = format!("{at}.merchant_ids");
    let unmatched = &stored.unmatched;
    [
        unknown(stored, &ITEM, at_items, &set.items, &unmatched.items),
        unknown(stored, &CATEGORY, at_categories, &set.categories, &unmatched.categories),
        unknown(stored, &MERCHANT, at_merchants, &set.merchants, &unmatched.merchants),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Warns if any of `names` is among the `unmatched` ones, which ascend.
fn unknown<T: Ord + Display>(
    stored: &StoredCoupon,
    kind: &Kind,
    field: String,
    names: &[T],
    unmatched: &[T],
) -> Option<CouponWarning> {
    let unknown: Vec<&T> = names
        .iter()
        .filter(|name| unmatched.binary_search(name).is_ok())
        .collect();
    let names: Vec<String> = unknown.iter().take(MAX_NAMES).map(ToString::to_string).collect();
    let listed = match unknown.len().saturating_sub(MAX_NAMES) {
        0 => names.join(" or "),
        more => format!("{} or {more} more", names.join(" or ")),
    };
    (!unknown.is_empty()).then(|| CouponWarning {
        reason: kind.reason,
        message: format!("no item of {} {} {listed}", source(stored), kind.predicate),
        field,
        name_count: unknown.len(),
        names,
    })
}
