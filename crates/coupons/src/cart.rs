//! The lines of a cart that a coupon covers, what is left of them, and the discount on that.

use domain::coupon::{Cart, Discount, MAX_BASIS_POINTS};
use domain::id::ItemId;
use recommender::snapshot::overlay::ItemRef;
use recommender::snapshot::view::View;

use super::affinity::covers;
use super::offer_catalog::Offer;

/// The lines of a cart that a coupon covers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Covered {
    /// Whether each line of the cart is covered.
    pub is_covered: Vec<bool>,
}

impl Covered {
    /// Returns whether the coupon covers a line at all.
    pub fn any(&self) -> bool {
        self.is_covered.contains(&true)
    }
}

/// An amount for each line of a cart and one for its shipping, in minor units, 0 or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartAmounts {
    /// In the order of the cart's lines.
    pub lines_minor: Vec<i64>,
    pub shipping_minor: i64,
}

impl CartAmounts {
    /// Returns what `cart` costs.
    pub fn of(cart: &Cart) -> Self {
        Self {
            lines_minor: cart.lines.iter().map(|line| line.total_minor).collect(),
            shipping_minor: cart.shipping_minor,
        }
    }

    /// Returns the sum of all amounts, at most `i64::MAX`.
    pub fn total_minor(&self) -> i64 {
        let lines: i128 = self.lines_minor.iter().map(|&line| i128::from(line)).sum();
        i64::try_from(lines + i128::from(self.shipping_minor)).unwrap_or(i64::MAX)
    }

    /// Takes `taken` away, which must have an amount for each line and none that is larger than what is left.
    pub fn subtract(&mut self, taken: &Self) {
        for (left, taken) in self.lines_minor.iter_mut().zip(&taken.lines_minor) {
            *left -= taken;
        }
        self.shipping_minor -= taken.shipping_minor;
    }

    /// Returns the amounts of the covered lines, and 0 for every other line.
    pub fn of_covered_lines(&self, covered: &Covered) -> Vec<i64> {
        let lines = self.lines_minor.iter().zip(&covered.is_covered);
        lines
            .map(|(&left, &is_covered)| if is_covered { left } else { 0 })
            .collect()
    }

    /// Returns the sum of the covered lines.
    pub fn covered_minor(&self, covered: &Covered) -> i128 {
        let lines = self.lines_minor.iter().zip(&covered.is_covered);
        lines
            .filter(|&(_, &is_covered)| is_covered)
            .map(|(&left, _)| i128::from(left))
            .sum()
    }
}

/// Returns the lines of `cart` that `offer` covers, by the present facts about the items.
///
/// Without a view, only the items' ids are known.
pub fn covered_lines(offer: &Offer, cart: &Cart, view: Option<&View>) -> Covered {
    let lines = cart.lines.iter();
    Covered {
        is_covered: lines.map(|line| covers_item(offer, &line.item, view)).collect(),
    }
}

fn covers_item(offer: &Offer, item: &ItemId, view: Option<&View>) -> bool {
    let Some(view) = view else {
        return covers(offer, item.as_str(), None);
    };
    match view.item(item) {
        Some(ItemRef::Known(index)) => covers(offer, item.as_str(), Some(&view.facts(index))),
        Some(ItemRef::New(id)) => covers(offer, item.as_str(), view.overlay.new_item(&id).as_ref()),
        None => covers(offer, item.as_str(), None),
    }
}

/// Returns the discount of `offer` on what is left of a cart, in minor units, at most the coupon's `max_discount_minor`.
///
/// The discount is a percentage of what is left of the covered lines, rounded once, on their sum, to the minor unit, halves up; or
/// an amount, at most what is left of them; or what is left of the shipping. `left` has an amount for each line of the cart.
pub fn discount_minor(offer: &Offer, covered: &Covered, left: &CartAmounts) -> i64 {
    let covered_minor = left.covered_minor(covered);
    let discount = match offer.coupon.discount {
        Discount::Percent { basis_points } => {
            let whole = i128::from(MAX_BASIS_POINTS);
            (covered_minor * i128::from(basis_points) + whole / 2) / whole
        }
        Discount::Amount { amount_minor } => covered_minor.min(amount_minor.into()),
        Discount::FreeShipping => left.shipping_minor.into(),
    };
    let max_minor = offer.coupon.max_discount_minor.unwrap_or(i64::MAX);
    // Only a discount above the largest amount does not fit.
    i64::try_from(discount).unwrap_or(i64::MAX).min(max_minor)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{campaign, coupon, listed};
    use super::*;
    use domain::coupon::{CartLine, Coupon, ItemSet, Scope};
    use domain::id::{Category, MerchantId};
    use domain::item::ItemFacts;
    use domain::money::Currency;
    use recommender::snapshot::fixture::{self, EXAMPLE, item_facts, item_id, snapshot_parts};
    use recommender::snapshot::overlay::{FreshChange, Overlay};

    fn cart(lines: &[(&str, i64)], shipping_minor: i64) -> Cart {
        let line = |&(item, total_minor): &(&str, i64)| CartLine {
            item: item_id(item),
            quantity: 1,
            total_minor,
        };
        Cart {
            id: None,
            currency: Currency::new("USD").unwrap(),
            lines: lines.iter().map(line).collect(),
            shipping_minor,
            applied: Vec::new(),
        }
    }

    fn offer(change: impl FnOnce(&mut Coupon)) -> Offer {
        let mut coupon = coupon("c");
        change(&mut coupon);
        Offer {
            coupon,
            campaign: Arc::new(campaign("k")),
        }
    }

    /// Returns the number of covered lines, and the sum of their prices.
    fn covered_sum(offer: &Offer, cart: &Cart, view: Option<&View>) -> (usize, i128) {
        let covered = covered_lines(offer, cart, view);
        let lines = covered.is_covered.iter().filter(|&&is_covered| is_covered).count();
        (lines, CartAmounts::of(cart).covered_minor(&covered))
    }

    #[test]
    fn discounts_are_rounded_and_limited() {
        let check = |discount: Discount, max: Option<i64>, total: i64, expected: i64| {
            let offer = offer(|coupon| {
                coupon.discount = discount;
                coupon.max_discount_minor = max;
            });
            let cart = cart(&[("i0", total)], 495);
            let covered = covered_lines(&offer, &cart, None);
            let left = CartAmounts::of(&cart);
            assert_eq!(left.covered_minor(&covered), total.into());
            assert_eq!(
                discount_minor(&offer, &covered, &left),
                expected,
                "{discount:?} of {total}"
            );
        };
        let percent = |basis_points| Discount::Percent { basis_points };
        check(percent(1_000), None, 1_995, 200);
        check(percent(1_000), None, 1_994, 199);
        check(percent(3_333), None, 100, 33);
        check(percent(10_000), None, i64::MAX, i64::MAX);
        check(percent(1_000), Some(150), 1_995, 150);
        check(Discount::Amount { amount_minor: 500 }, None, 499, 499);
        check(Discount::Amount { amount_minor: 500 }, None, 500, 500);
        check(Discount::Amount { amount_minor: 500 }, None, 900, 500);
        check(Discount::FreeShipping, None, 900, 495);
        check(Discount::FreeShipping, Some(400), 900, 400);
    }

    #[test]
    fn a_merchants_campaign_covers_only_its_items() {
        let mut parts = snapshot_parts(&EXAMPLE);
        let facts = ["acme", "acme", "zenith", "acme", "zenith"].map(|merchant| item_facts("t", "tea", merchant));
        parts.catalog = fixture::catalog(&facts);
        let view = fixture::view(parts);
        let cart = cart(
            &[("i0", 1), ("i1", 10), ("i2", 100), ("i4", 1_000), ("other", 10_000)],
            0,
        );
        let check = |merchant: Option<&str>, items: Option<&[&str]>, expected: (usize, i128)| {
            let mut campaign = campaign("k");
            campaign.merchant = merchant.map(|id| MerchantId::new(id).unwrap());
            let mut coupon = coupon("c");
            if let Some(items) = items {
                coupon.scope = listed(items);
            }
            let offer = Offer {
                coupon,
                campaign: Arc::new(campaign),
            };
            assert_eq!(
                covered_sum(&offer, &cart, Some(&view)),
                expected,
                "{merchant:?} {items:?}"
            );
        };
        check(None, None, (5, 11_111));
        check(None, Some(&["i2", "other"]), (2, 10_100));
        check(Some("acme"), None, (2, 11));
        check(Some("zenith"), None, (2, 1_100));
        check(Some("zenith"), Some(&["i0", "i2"]), (1, 100));
        check(Some("nobody"), None, (0, 0));
    }

    /// In the snapshot i0 is tea of acme and i1 a mug of zenith. Since then i1 has become tea and is no longer listed, and j0,
    /// a mug of acme, is new.
    #[test]
    fn present_facts_decide_what_is_covered() {
        let mut parts = snapshot_parts(&[&[1.0, 1.0]]);
        parts.catalog = fixture::catalog(&[item_facts("A", "tea", "acme"), item_facts("B", "mugs", "zenith")]);
        let mut view = fixture::view(parts);
        let delisted = ItemFacts {
            listed: false,
            ..item_facts("B", "tea", "zenith")
        };
        let mut overlay = Overlay::default();
        for (item, facts) in [("i1", delisted), ("j0", item_facts("J", "mugs", "acme"))] {
            let item = item_id(item);
            overlay.apply(&view.snapshot, FreshChange::Item { item, facts }, usize::MAX);
        }
        view.overlay = Arc::new(overlay);
        let cart = cart(&[("i0", 1), ("i1", 20), ("j0", 300), ("unheard-of", 4_000)], 0);
        let check = |merchant: Option<&str>, category: &str, expected: (usize, i128)| {
            let mut campaign = campaign("k");
            campaign.merchant = merchant.map(|id| MerchantId::new(id).unwrap());
            let mut coupon = coupon("c");
            coupon.scope = Scope::Listed(ItemSet {
                categories: vec![Category::new(category).unwrap()],
                ..ItemSet::default()
            });
            let offer = Offer {
                coupon,
                campaign: Arc::new(campaign),
            };
            assert_eq!(
                covered_sum(&offer, &cart, Some(&view)),
                expected,
                "{merchant:?} {category}"
            );
            assert!(!covered_lines(&offer, &cart, None).any());
        };
        check(None, "tea", (2, 21));
        check(None, "mugs", (1, 300));
        check(Some("acme"), "tea", (1, 1));
        check(Some("acme"), "mugs", (1, 300));
        check(Some("zenith"), "mugs", (0, 0));
    }

    #[test]
    fn totals_do_not_overflow() {
        let cart = cart(&[("i0", i64::MAX), ("i0", 1)], 0);
        let offer = offer(|coupon| coupon.discount = Discount::Percent { basis_points: 10_000 });
        assert_eq!(covered_sum(&offer, &cart, None), (2, i128::from(i64::MAX) + 1));
        let covered = covered_lines(&offer, &cart, None);
        assert_eq!(discount_minor(&offer, &covered, &CartAmounts::of(&cart)), i64::MAX);
    }
}
