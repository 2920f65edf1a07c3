//! Coupons used together, in examples and for random carts.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::testing::{campaign, coupon, listed};
use super::*;
use domain::coupon::CartLine;
use recommender::snapshot::fixture::item_id;

const ITEMS: [&str; 4] = ["i0", "i1", "i2", "i3"];

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

fn offer(id: &str, discount: Discount, items: Option<&[&str]>) -> Offer {
    let mut coupon = coupon(id);
    coupon.discount = discount;
    if let Some(items) = items {
        coupon.scope = listed(items);
    }
    Offer {
        coupon,
        campaign: Arc::new(campaign("k")),
    }
}

fn percent(basis_points: u16) -> Discount {
    Discount::Percent { basis_points }
}

fn amount(amount_minor: i64) -> Discount {
    Discount::Amount { amount_minor }
}

/// Returns what `offer` takes when the held and applied coupons come first.
fn taken(offer: &Offer, cart: &Cart, held: &[HeldDiscount], applied: &[&Offer]) -> CartAmounts {
    let left = left_by_applied(cart, None, held, applied, |_| None);
    discount(offer, &covered_lines(offer, cart, None), &left)
}

fn held(offer: &Offer, cart: &Cart, taken: &CartAmounts) -> HeldDiscount {
    HeldDiscount {
        coupon: offer.coupon.id.clone(),
        currency: cart.currency,
        amount_minor: taken.total_minor(),
        shares: shares(cart, taken),
    }
}

#[test]
fn an_amount_is_spread_by_largest_remainder() {
    let check = |amount_minor: i64, weights: &[i64], expected: &[i64]| {
        assert_eq!(
            spread(amount_minor, weights),
            expected,
            "{amount_minor} over {weights:?}"
        );
    };
    check(10, &[1, 1, 1], &[1, 1, 1]);
    check(100, &[500, 300, 200], &[50, 30, 20]);
    check(100, &[100, 100, 100], &[34, 33, 33]);
    check(2, &[100, 100, 100], &[1, 1, 0]);
    check(5, &[1, 0, 9], &[1, 0, 4]);
    check(7, &[3, 10], &[2, 5]);
    check(1, &[], &[]);
    check(1, &[0, 0], &[0, 0]);
    check(i64::MAX, &[i64::MAX, i64::MAX], &[i64::MAX / 2 + 1, i64::MAX / 2]);
}

#[test]
fn two_percentages_take_one_after_the_other() {
    let cart = cart(&[("i0", 1_000)], 0);
    let (a, b) = (offer("a", percent(6_000), None), offer("b", percent(6_000), None));
    assert_eq!(taken(&a, &cart, &[], &[]).total_minor(), 600);
    assert_eq!(taken(&b, &cart, &[], &[&a]).total_minor(), 240);
    assert_eq!(
        taken(&offer("c", percent(6_000), None), &cart, &[], &[&a, &b]).total_minor(),
        96
    );
}

#[test]
fn shipping_is_free_only_once() {
    let cart = cart(&[("i0", 1_000)], 400);
    let (a, b) = (
        offer("a", Discount::FreeShipping, None),
        offer("b", Discount::FreeShipping, None),
    );
    assert_eq!(taken(&a, &cart, &[], &[]).shipping_minor, 400);
    assert_eq!(taken(&b, &cart, &[], &[&a]).total_minor(), 0);
}

#[test]
fn a_percentage_is_rounded_once_on_the_sum() {
    let cart = cart(&[("i0", 5), ("i1", 5), ("i2", 5)], 0);
    let taken = taken(&offer("a", percent(1_000), None), &cart, &[], &[]);
    assert_eq!(taken.lines_minor, [1, 1, 0]);
}

#[test]
fn only_what_is_left_of_covered_lines_counts() {
    let cart = cart(&[("i0", 1_000), ("i1", 500)], 0);
    let first = offer("a", amount(800), Some(&["i0"]));
    let everything = offer("b", amount(1_000), None);
    assert_eq!(taken(&everything, &cart, &[], &[&first]).lines_minor, [200, 500]);
    let other_line = offer("c", percent(5_000), Some(&["i1"]));
    assert_eq!(taken(&other_line, &cart, &[], &[&first]).lines_minor, [0, 250]);
}

#[test]
fn a_cap_is_spread_like_an_amount() {
    let cart = cart(&[("i0", 600), ("i1", 400)], 0);
    let mut capped = offer("a", percent(5_000), None);
    capped.coupon.max_discount_minor = Some(100);
    assert_eq!(taken(&capped, &cart, &[], &[]).lines_minor, [60, 40]);
}

#[test]
fn coupons_are_computed_by_priority_then_kind_then_id() {
    let preferred = Offer {
        campaign: Arc::new(domain::campaign::Campaign {
            priority: 1,
            ..campaign("l")
        }),
        ..offer("z", Discount::FreeShipping, None)
    };
    let ordered = [
        preferred,
        offer("b", percent(100), None),
        offer("c", percent(9_000), None),
        offer("a", amount(1), None),
        offer("a2", amount(9), None),
        offer("a0", Discount::FreeShipping, None),
    ];
    assert!(ordered.is_sorted_by(|a, b| compare(a, b) == Ordering::Less));
    // 50 % of 1,000 and then 300 leave 200; the other order would leave 350.
    let cart = cart(&[("i0", 1_000)], 0);
    let (half, fixed) = (offer("z", percent(5_000), None), offer("a", amount(300), None));
    for applied in [[&half, &fixed], [&fixed, &half]] {
        let left = left_by_applied(&cart, None, &[], &applied, |_| None);
        assert_eq!(left.lines_minor, [200]);
    }
}

#[test]
fn a_held_discount_keeps_its_shares() {
    let whole = cart(&[("i0", 1_000), ("i1", 1_000)], 0);
    let first = offer("a", amount(500), None);
    let mut kept = held(&first, &whole, &taken(&first, &whole, &[], &[]));
    let left = |cart: &Cart, kept: &HeldDiscount| {
        let covered = covered_lines(&first, cart, None);
        left_by_applied(cart, None, std::slice::from_ref(kept), &[], |_| Some(covered.clone())).lines_minor
    };
    assert_eq!(left(&whole, &kept), [750, 750]);
    // The lines may stand in another order.
    assert_eq!(left(&cart(&[("i1", 400), ("i0", 1_000)], 0), &kept), [150, 750]);
    // The share of a line that is gone moves to the other covered lines.
    assert_eq!(left(&cart(&[("i0", 1_000), ("i2", 1_000)], 0), &kept), [643, 857]);
    // The amounts that were given back are left again.
    kept.amount_minor = 300;
    assert_eq!(left(&whole, &kept), [750, 950]);
}

#[test]
fn discounts_in_another_currency_are_left_out() {
    let cart = cart(&[("i0", 1_000)], 0);
    let foreign = Offer {
        campaign: Arc::new(domain::campaign::Campaign {
            currency: Currency::new("EUR").unwrap(),
            ..campaign("l")
        }),
        ..offer("a", amount(500), None)
    };
    let kept = HeldDiscount {
        currency: Currency::new("EUR").unwrap(),
        ..held(&foreign, &cart, &CartAmounts::of(&cart))
    };
    let left = left_by_applied(&cart, None, &[kept], &[&foreign], |_| None);
    assert_eq!(left, CartAmounts::of(&cart));
}

fn any_discount() -> impl Strategy<Value = Discount> {
    prop_oneof![
        (1..=10_000_u16).prop_map(percent),
        (1..2_000_i64).prop_map(amount),
        Just(Discount::FreeShipping),
    ]
}

fn any_offers() -> impl Strategy<Value = Vec<Offer>> {
    let items = prop::option::of(prop::sample::subsequence(ITEMS.to_vec(), 1..=4));
    let one = (any_discount(), items, prop::option::of(1..500_i64), 0..2);
    prop::collection::vec(one, 1..6).prop_map(|offers| {
        let offers = offers.into_iter().enumerate();
        offers
            .map(|(number, (discount, items, max_discount_minor, priority))| {
                let mut offer = offer(&format!("c{number}"), discount, items.as_deref());
                offer.coupon.max_discount_minor = max_discount_minor;
                offer.campaign = Arc::new(domain::campaign::Campaign {
                    priority,
                    ..campaign("k")
                });
                offer
            })
            .collect()
    })
}

fn any_lines() -> impl Strategy<Value = (Vec<(&'static str, i64)>, i64)> {
    let line = (prop::sample::select(ITEMS.to_vec()), 0..1_500_i64);
    (prop::collection::vec(line, 1..7), 0..600_i64)
}

/// The step of a coupon, by its number: it is reserved, or a part of its discount is given back.
#[derive(Debug, Clone, Copy)]
enum Step {
    Reserve(usize),
    GiveBack { coupon: usize, percent: i64 },
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..6_usize).prop_map(Step::Reserve),
        1 => (0..6_usize, 1..=100_i64).prop_map(|(coupon, percent)| Step::GiveBack { coupon, percent }),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn shares_sum_to_the_amount_and_never_exceed_the_weights(
        amount_minor in 0..5_000_i64,
        weights in prop::collection::vec(0..900_i64, 0..9),
    ) {
        let shares = spread(amount_minor, &weights);
        prop_assert_eq!(shares.iter().sum::<i64>(), amount_minor.min(weights.iter().sum()));
        for (share, weight) in shares.iter().zip(&weights) {
            prop_assert!(share <= weight);
            let exact = amount_minor.min(weights.iter().sum()) as f64 * *weight as f64
                / weights.iter().sum::<i64>().max(1) as f64;
            prop_assert!((*share as f64 - exact).abs() < 1.0);
        }
    }

    #[test]
    fn applied_coupons_leave_nothing_below_zero(offers in any_offers(), (lines, shipping_minor) in any_lines()) {
        let cart = cart(&lines, shipping_minor);
        let applied: Vec<&Offer> = offers.iter().collect();
        let left = left_by_applied(&cart, None, &[], &applied, |_| None);
        prop_assert!(left.lines_minor.iter().all(|&left| left >= 0) && left.shipping_minor >= 0);
        let reversed: Vec<&Offer> = offers.iter().rev().collect();
        prop_assert_eq!(left_by_applied(&cart, None, &[], &reversed, |_| None), left);
    }

    /// In whatever order coupons are reserved, confirmed in part and rolled back.
    #[test]
    fn discounts_never_exceed_the_covered_lines(
        offers in any_offers(),
        (lines, shipping_minor) in any_lines(),
        steps in any_steps(),
    ) {
        let cart = cart(&lines, shipping_minor);
        let known = |id: &CouponId| {
            let offer = offers.iter().find(|offer| offer.coupon.id == *id)?;
            Some(covered_lines(offer, &cart, None))
        };
        let mut all: Vec<HeldDiscount> = Vec::new();
        for step in steps {
            match step {
                Step::Reserve(number) => {
                    let Some(offer) = offers.get(number) else { continue };
                    if all.iter().any(|held| held.coupon == offer.coupon.id) {
                        continue;
                    }
                    let left = left_by_applied(&cart, None, &all, &[], known);
                    let taken = discount(offer, &covered_lines(offer, &cart, None), &left);
                    prop_assert_eq!(taken.total_minor(), discount_minor(offer, &covered_lines(offer, &cart, None), &left));
                    all.push(held(offer, &cart, &taken));
                }
                Step::GiveBack { coupon, percent } => {
                    let position = all.iter().position(|held| held.coupon.as_str() == format!("c{coupon}"));
                    let Some(position) = position else { continue };
                    all[position].amount_minor -= all[position].amount_minor * percent / 100;
                    if percent == 100 {
                        all.remove(position);
                    }
                }
            }
            assert_within_cart(&offers, &all, &cart)?;
            // Everything that is held fits, so it is all missing from what is left.
            let left = left_by_applied(&cart, None, &all, &[], known);
            let sum: i64 = all.iter().map(|held| held.amount_minor).sum();
            prop_assert_eq!(CartAmounts::of(&cart).total_minor() - left.total_minor(), sum);
        }
    }
}

/// Asserts that the discounts on any of the covered sets of lines take at most those lines, and those on the shipping at most it.
fn assert_within_cart(offers: &[Offer], all: &[HeldDiscount], cart: &Cart) -> Result<(), TestCaseError> {
    let is_shipping = |held: &&HeldDiscount| held.shares.is_empty();
    let shipping: i64 = all.iter().filter(is_shipping).map(|held| held.amount_minor).sum();
    prop_assert!(shipping <= cart.shipping_minor);
    let of_lines: Vec<(&HeldDiscount, Covered)> = all
        .iter()
        .filter(|held| !held.shares.is_empty())
        .map(|held| {
            let offer = offers.iter().find(|offer| offer.coupon.id == held.coupon).unwrap();
            (held, covered_lines(offer, cart, None))
        })
        .collect();
    // Hall's condition: every subset of the coupons fits into the lines that at least one of them covers.
    for subset in 1..1_u32 << of_lines.len() {
        let chosen = of_lines.iter().enumerate();
        let chosen: Vec<_> = chosen
            .filter(|(at, _)| subset >> at & 1 == 1)
            .map(|(_, one)| one)
            .collect();
        let lines = cart.lines.iter().enumerate();
        let covered: i64 = lines
            .filter(|(at, _)| chosen.iter().any(|(_, covered)| covered.is_covered[*at]))
            .map(|(_, line)| line.total_minor)
            .sum();
        let sum: i64 = chosen.iter().map(|(held, _)| held.amount_minor).sum();
        prop_assert!(sum <= covered, "{sum} off {covered}");
    }
    Ok(())
}
