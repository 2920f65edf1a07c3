use std::sync::Arc;

use super::*;
use crate::testing::{campaign, coupon};
use domain::campaign::HistoryScope;
use domain::coupon::{ItemSet, Scope};
use domain::id::{Category, MerchantId};
use domain::item::ItemFacts;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::fixture::{buy, catalog, item_facts, item_id, snapshot_parts, user_id, view};
use recommender::snapshot::merchant_orders::MerchantOrders;
use recommender::snapshot::overlay::{FreshChange, LastOrders, Overlay};
use recommender::snapshot::parameters::ImplicitFeedback;
use recommender::snapshot::parts::Optional;

const DAY: i64 = 86_400;
/// The time of the last order of u0 and u1.
const LAST_ORDER: i64 = 100 * DAY;

/// Returns a shop where i0 is a mug of acme, i1 a print of acme, i2 a mug of zenith, i3 has no facts, and i4 is an unlisted
/// book of press. u0 has bought i0, i3 and i4 and rated i1; u1 has bought i2; u2 has rated i0.
fn shop() -> View {
    let mut parts = snapshot_parts(&[
        &[1.0, 4.0, 0.0, 2.0, 3.0],
        &[0.0, 0.0, 5.0, 0.0, 0.0],
        &[2.0, 0.0, 0.0, 0.0, 0.0],
    ]);
    parts.catalog = catalog(&[
        item_facts("A", "mugs", "acme"),
        item_facts("B", "prints", "acme"),
        item_facts("C", "mugs", "zenith"),
        ItemFacts::default(),
        unlisted(item_facts("E", "books", "press")),
    ]);
    buy(&mut parts, 0, &[0, 3, 4]);
    buy(&mut parts, 1, &[2]);
    parts.activity.orders = vec![2, 1, 0];
    parts.activity.last_order_at = vec![LAST_ORDER, LAST_ORDER, 0];
    // The merchants are acme, press and zenith.
    let orders = [(0, 0, LAST_ORDER - 5 * DAY), (0, 1, LAST_ORDER), (1, 2, LAST_ORDER)];
    parts.merchant_orders = Optional::Present(MerchantOrders::new(3, &orders));
    view(parts)
}

fn unlisted(facts: ItemFacts) -> ItemFacts {
    ItemFacts { listed: false, ..facts }
}

fn changed(view: View, changes: impl IntoIterator<Item = FreshChange>) -> View {
    let mut overlay = Overlay::clone(&view.overlay);
    for change in changes {
        overlay.apply(&view.snapshot, change, usize::MAX);
    }
    View {
        overlay: Arc::new(overlay),
        ..view
    }
}

fn last_orders(user: &str, at: Option<i64>, by_merchant: &[(&str, i64)]) -> FreshChange {
    let of_merchant = |&(merchant, at): &(&str, i64)| (MerchantId::new(merchant).unwrap(), at);
    FreshChange::LastOrders {
        user: user_id(user),
        last_orders: LastOrders {
            at,
            by_merchant: by_merchant.iter().map(of_merchant).collect(),
        },
    }
}

fn facts_change(item: &str, facts: ItemFacts) -> FreshChange {
    FreshChange::Item {
        item: item_id(item),
        facts,
    }
}

/// Returns the change by which the user has `orders` of the item, the last at `last_order_at`, and no rating of it.
fn ordered(user: &str, item: &str, orders: u32, last_order_at: i64) -> FreshChange {
    FreshChange::Interaction {
        user: user_id(user),
        item: item_id(item),
        rating: None,
        orders,
        last_order_at,
        ordered_at: vec![last_order_at; orders as usize],
    }
}

fn rated(user: &str, item: &str, rating: Option<f32>) -> FreshChange {
    FreshChange::Interaction {
        user: user_id(user),
        item: item_id(item),
        rating,
        orders: 0,
        last_order_at: 0,
        ordered_at: Vec::new(),
    }
}

fn set(items: &[&str], categories: &[&str], merchants: &[&str]) -> ItemSet {
    ItemSet {
        items: items.iter().map(|id| item_id(id)).collect(),
        categories: categories.iter().map(|name| Category::new(name).unwrap()).collect(),
        merchants: merchants.iter().map(|name| MerchantId::new(name).unwrap()).collect(),
    }
}

fn offer_of(rule: Rule, scope: Scope) -> Offer {
    let mut coupon = coupon("c");
    coupon.rules = vec![rule];
    coupon.scope = scope;
    Offer {
        coupon,
        campaign: Arc::new(campaign("k")),
    }
}

/// Returns what is seen if the rule of `offer` fails. `now`: microseconds since 1970.
fn seen(view: &View, user: &str, offer: &Offer, now: i64) -> Option<Seen> {
    let attributes = [("city", "Graz"), ("tier", "gold")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let history = History::of_user(view, &user_id(user));
    let found = |users: Users| {
        let rules = CompiledRules::new(offer, Some(view), users);
        let now = Timestamp::from_timestamp_micros(now).unwrap();
        rules.check(0, &attributes, Some(&history), now).err()
    };
    let seen = found(Users::One);
    assert_eq!(
        found(Users::Many),
        seen,
        "a user alone and one of many get the same answer"
    );
    seen
}

/// Checks that `Bought` holds for those of u0, u1, u2 and "new" for whom an item is given, and that `NotBought` fails with it.
#[track_caller]
fn check_bought(view: &View, items: ItemSet, expected: [Option<&str>; 4]) {
    let bought = offer_of(Rule::Bought(items.clone()), Scope::All);
    let not_bought = offer_of(Rule::NotBought(items), Scope::All);
    for (user, expected) in ["u0", "u1", "u2", "new"].into_iter().zip(expected) {
        let item = expected.map(item_id);
        let missing = item.is_none().then_some(Seen::NoneBought);
        assert_eq!(
            seen(view, user, &bought, 0),
            missing,
            "{user} {:?}",
            bought.coupon.rules
        );
        let present = item.map(|item| Seen::Bought { item });
        assert_eq!(
            seen(view, user, &not_bought, 0),
            present,
            "{user} {:?}",
            not_bought.coupon.rules
        );
    }
}

#[test]
fn the_first_bought_item_by_id_is_named() {
    // Item 1 is more popular.
    let mut parts = snapshot_parts(&[&[1.0, 2.0], &[0.0, 3.0]]);
    buy(&mut parts, 0, &[0, 1]);
    check_bought(
        &view(parts),
        set(&["i0", "i1"], &[], &[]),
        [Some("i0"), None, None, None],
    );
}

#[test]
fn purchases_are_found_by_id_category_and_merchant() {
    let shop = shop();
    check_bought(&shop, set(&["i0"], &[], &[]), [Some("i0"), None, None, None]);
    // A rating is no purchase.
    check_bought(&shop, set(&["i1"], &[], &[]), [None; 4]);
    check_bought(
        &shop,
        set(&["i2", "i3"], &[], &[]),
        [Some("i3"), Some("i2"), None, None],
    );
    check_bought(&shop, set(&[], &["mugs"], &[]), [Some("i0"), Some("i2"), None, None]);
    check_bought(&shop, set(&[], &["prints"], &[]), [None; 4]);
    check_bought(&shop, set(&[], &[], &["acme"]), [Some("i0"), None, None, None]);
    // An item that is no longer listed still counts as bought.
    check_bought(&shop, set(&[], &["books"], &[]), [Some("i4"), None, None, None]);
    check_bought(
        &shop,
        set(&["i1"], &["prints"], &["zenith"]),
        [None, Some("i2"), None, None],
    );
    check_bought(&shop, set(&["i9"], &["unheard of"], &["unheard of"]), [None; 4]);
}

#[test]
fn a_merchants_rules_see_only_its_items() {
    let of = |merchant: &str, rule: Rule| {
        let mut campaign = campaign("k");
        campaign.merchant = Some(MerchantId::new(merchant).unwrap());
        Offer {
            campaign: Arc::new(campaign),
            ..offer_of(rule, Scope::All)
        }
    };
    let bought = |merchant, set| seen(&shop(), "u0", &of(merchant, Rule::Bought(set)), 0);
    // u0 has bought i0 of acme, i3 of nobody and i4 of press.
    for set in [set(&["i0"], &[], &[]), set(&[], &["mugs"], &[])] {
        assert_eq!(bought("acme", set.clone()), None);
        assert_eq!(bought("zenith", set.clone()), Some(Seen::NoneBought));
        assert_eq!(bought("unheard of", set.clone()), Some(Seen::NoneBought));
        assert_eq!(seen(&shop(), "u0", &of("zenith", Rule::NotBought(set)), 0), None);
    }
    assert_eq!(
        bought("acme", set(&["i3", "i4"], &["books"], &[])),
        Some(Seen::NoneBought)
    );
    // Ratings of u0: 1 for a mug and 4 for a print of acme, 5 for what others sell.
    let share = |merchant, category: &str| {
        let category = Category::new(category).unwrap();
        let min_share = 1.0;
        let rule = Rule::CategoryAffinity { category, min_share };
        seen(&shop(), "u0", &of(merchant, rule), 0)
    };
    assert_eq!(share("acme", "mugs"), Some(Seen::Share(0.2)));
    assert_eq!(share("acme", "books"), Some(Seen::Share(0.0)));
    assert_eq!(share("press", "books"), None);
    // The present facts about an item count.
    let sold = changed(shop(), [facts_change("i0", item_facts("A", "mugs", "zenith"))]);
    let rule = |merchant| of(merchant, Rule::Bought(set(&["i0"], &[], &[])));
    assert_eq!(seen(&sold, "u0", &rule("acme"), 0), Some(Seen::NoneBought));
    assert_eq!(seen(&sold, "u0", &rule("zenith"), 0), None);
}

/// Returns an offer of a merchant, whose rules see what `scope` says.
fn offer_of_merchant(merchant: &str, history_scope: HistoryScope, rule: Rule) -> Offer {
    let mut campaign = campaign("k");
    campaign.merchant = Some(MerchantId::new(merchant).unwrap());
    campaign.history_scope = history_scope;
    Offer {
        campaign: Arc::new(campaign),
        ..offer_of(rule, Scope::All)
    }
}

/// Checks what `NewUser` and `LapsedUser` of a merchant's campaign see: the time of a last order, nothing, or that it is not
/// known.
#[track_caller]
fn check_own_order(view: &View, user: &str, merchant: &str, expected: Result<Option<i64>, ()>) {
    let own = |rule| offer_of_merchant(merchant, HistoryScope::OwnMerchant, rule);
    let at = |at| Seen::LastBought {
        at: Timestamp::from_timestamp(at, 0).unwrap(),
    };
    let (new, lapsed) = match expected {
        Ok(None) => (None, Some(Seen::NeverBought)),
        Ok(Some(last)) => (Some(at(last)), Some(at(last))),
        Err(()) => (Some(Seen::NotTrained), Some(Seen::NotTrained)),
    };
    assert_eq!(seen(view, user, &own(Rule::NewUser), 0), new, "{user} {merchant}");
    let lapsed_rule = own(Rule::LapsedUser { days: 30 });
    assert_eq!(seen(view, user, &lapsed_rule, 0), lapsed, "{user} {merchant}");
    if let Ok(Some(last)) = expected {
        let lapses_at = (last + 30 * DAY) * 1_000_000;
        assert_eq!(seen(view, user, &lapsed_rule, lapses_at), None, "{user} {merchant}");
        assert_eq!(
            seen(view, user, &lapsed_rule, lapses_at - 1),
            Some(at(last)),
            "{user} {merchant}"
        );
    }
}

#[test]
fn a_merchant_learns_only_of_orders_from_itself() {
    let stored = shop();
    check_own_order(&stored, "u0", "acme", Ok(Some(LAST_ORDER - 5 * DAY)));
    check_own_order(&stored, "u0", "press", Ok(Some(LAST_ORDER)));
    check_own_order(&stored, "u0", "zenith", Ok(None));
    check_own_order(&stored, "u1", "acme", Ok(None));
    check_own_order(&stored, "u1", "zenith", Ok(Some(LAST_ORDER)));
    check_own_order(&stored, "u2", "acme", Ok(None));
    check_own_order(&stored, "new", "acme", Ok(None));
    check_own_order(&stored, "u0", "unheard of", Ok(None));

    let fresh = changed(
        shop(),
        [
            // Sent back to acme, bought from acme for the first time, and bought from others.
            ordered("u0", "i0", 0, 0),
            ordered("u1", "i1", 1, LAST_ORDER + DAY),
            ordered("u2", "i4", 1, LAST_ORDER + DAY),
            ordered("new", "j0", 1, LAST_ORDER + 2 * DAY),
            facts_change("j0", item_facts("J", "lamps", "zenith")),
        ],
    );
    check_own_order(&fresh, "u0", "acme", Ok(None));
    check_own_order(&fresh, "u0", "press", Ok(Some(LAST_ORDER)));
    check_own_order(&fresh, "u1", "acme", Ok(Some(LAST_ORDER + DAY)));
    check_own_order(&fresh, "u1", "zenith", Ok(Some(LAST_ORDER)));
    check_own_order(&fresh, "u2", "acme", Ok(None));
    check_own_order(&fresh, "u2", "press", Ok(Some(LAST_ORDER + DAY)));
    check_own_order(&fresh, "new", "zenith", Ok(Some(LAST_ORDER + 2 * DAY)));
    check_own_order(&fresh, "new", "acme", Ok(None));

    // An older snapshot does not tell when, so that nobody passes who may have bought something.
    let mut parts = shop().snapshot.parts().clone();
    parts.merchant_orders = Optional::default();
    let older = view(parts);
    check_own_order(&older, "u0", "acme", Err(()));
    check_own_order(&older, "u1", "acme", Ok(None));
    check_own_order(&older, "new", "acme", Ok(None));
}

#[test]
fn orders_from_a_merchant_count_where_purchases_are_no_ratings() {
    let mut parts = shop().snapshot.parts().clone();
    parts.parameters.options.implicit = ImplicitFeedback::Off;
    parts.purchased = Bits::zeros(parts.ratings.nnz());
    let stored = view(parts.clone());
    check_own_order(&stored, "u0", "acme", Ok(Some(LAST_ORDER - 5 * DAY)));
    check_own_order(&stored, "u1", "acme", Ok(None));
    parts.merchant_orders = Optional::default();
    check_own_order(&view(parts), "u1", "acme", Err(()));
}

#[test]
fn an_operator_lets_a_campaign_see_the_whole_platform() {
    let granted = |rule| offer_of_merchant("acme", HistoryScope::Platform, rule);
    let last = Seen::LastBought {
        at: Timestamp::from_timestamp(LAST_ORDER, 0).unwrap(),
    };
    assert_eq!(seen(&shop(), "u1", &granted(Rule::NewUser), 0), Some(last));
    assert_eq!(
        seen(&shop(), "u1", &granted(Rule::Bought(set(&["i2"], &[], &[]))), 0),
        None
    );
}

#[test]
fn the_affinity_of_a_merchants_rule_comes_from_its_own_items() {
    // Items 0 and 1 are alike. The merchant sells the first and covers only that.
    let mut parts = snapshot_parts(&[&[1.0, 1.0, 0.0], &[2.0, 2.0, 0.0], &[0.0, 0.0, 1.0]]);
    let facts = ["acme", "zenith", "acme"].map(|merchant| item_facts("t", "mugs", merchant));
    parts.catalog = catalog(&facts);
    let shop = view(parts);
    let check = |scope: HistoryScope, score: f64| {
        let offer = |min_score| offer_of_merchant("acme", scope, Rule::MinAffinity { min_score });
        assert_eq!(seen(&shop, "u1", &offer(score), 0), None);
        assert_eq!(
            seen(&shop, "u1", &offer(score.next_up()), 0),
            Some(Seen::Affinity(score))
        );
    };
    check(HistoryScope::OwnMerchant, 0.0);
    check(HistoryScope::Platform, 2.0);
}

#[test]
fn changes_since_the_snapshot_count() {
    let shop = changed(
        shop(),
        [
            // Sent back, bought for the first time, bought an item that has come since, and one of which nothing is known.
            ordered("u0", "i0", 0, 0),
            ordered("u2", "i1", 1, LAST_ORDER),
            ordered("u1", "j0", 2, LAST_ORDER),
            ordered("new", "j1", 1, LAST_ORDER),
            facts_change("j0", item_facts("J", "lamps", "acme")),
            // The item has another category and is delisted.
            facts_change("i3", item_facts("D", "lamps", "zenith")),
            facts_change("i2", unlisted(item_facts("C", "cups", "zenith"))),
        ],
    );
    check_bought(&shop, set(&["i0"], &[], &[]), [None; 4]);
    check_bought(&shop, set(&["i1"], &[], &[]), [None, None, Some("i1"), None]);
    check_bought(
        &shop,
        set(&["j0", "j1"], &[], &[]),
        [None, Some("j0"), None, Some("j1")],
    );
    check_bought(&shop, set(&[], &["mugs"], &[]), [None; 4]);
    check_bought(&shop, set(&[], &["cups"], &[]), [None, Some("i2"), None, None]);
    check_bought(&shop, set(&[], &["lamps"], &[]), [Some("i3"), Some("j0"), None, None]);
    check_bought(&shop, set(&[], &[], &["acme"]), [None, Some("j0"), Some("i1"), None]);
    check_bought(&shop, set(&[], &[], &["zenith"]), [Some("i3"), Some("i2"), None, None]);
}

/// Checks that a `min_share` of "mugs" holds up to `expected` and not above.
#[track_caller]
fn check_share(view: &View, user: &str, expected: f64) {
    let rule = |min_share| {
        let category = Category::new("mugs").unwrap();
        offer_of(Rule::CategoryAffinity { category, min_share }, Scope::All)
    };
    assert_eq!(seen(view, user, &rule(expected), 0), None, "{user}");
    let above = expected.next_up();
    assert_eq!(seen(view, user, &rule(above), 0), Some(Seen::Share(expected)), "{user}");
}

#[test]
fn a_category_has_a_share_of_the_history() {
    let shop = shop();
    // 1 of 1 + 4 + 2 + 3.
    check_share(&shop, "u0", 0.1);
    check_share(&shop, "u1", 1.0);
    check_share(&shop, "new", 0.0);
    let shop = changed(
        shop,
        [
            rated("u0", "i1", None),
            rated("u0", "i2", Some(3.0)),
            rated("u0", "j0", Some(1.0)),
            rated("u0", "j1", Some(5.0)),
            facts_change("j0", item_facts("J", "mugs", "acme")),
            rated("new", "j0", Some(2.0)),
            rated("new", "i1", Some(2.0)),
            facts_change("i0", item_facts("A", "cups", "acme")),
            facts_change("i3", item_facts("D", "mugs", "acme")),
        ],
    );
    // i3 2 + i2 3 + j0 1, of those and i0 1 + i4 3 + j1 5.
    check_share(&shop, "u0", 0.4);
    check_share(&shop, "new", 0.5);
    // The history is empty.
    check_share(&changed(shop, [rated("u1", "i2", None)]), "u1", 0.0);
}

/// Checks that `NewUser` and `LapsedUser` see a last order at `last_order_at`, or none.
#[track_caller]
fn check_last_order(view: &View, user: &str, last_order_at: Option<i64>) {
    let last = last_order_at.map(|at| Seen::LastBought {
        at: Timestamp::from_timestamp(at, 0).unwrap(),
    });
    assert_eq!(
        seen(view, user, &offer_of(Rule::NewUser, Scope::All), 0),
        last,
        "{user}"
    );
    let lapsed = offer_of(Rule::LapsedUser { days: 30 }, Scope::All);
    let Some(at) = last_order_at else {
        assert_eq!(
            seen(view, user, &lapsed, i64::MAX / 10),
            Some(Seen::NeverBought),
            "{user}"
        );
        return;
    };
    let lapses_at = (at + 30 * DAY) * 1_000_000;
    assert_eq!(seen(view, user, &lapsed, lapses_at), None, "{user}");
    assert_eq!(seen(view, user, &lapsed, lapses_at - 1), last, "{user}");
}

#[test]
fn the_last_order_decides_who_is_new_or_lapsed() {
    let shop = shop();
    check_last_order(&shop, "u0", Some(LAST_ORDER));
    // A rating is no order.
    check_last_order(&shop, "u2", None);
    check_last_order(&shop, "new", None);
    let shop = changed(
        shop,
        [
            ordered("u0", "i1", 1, LAST_ORDER + DAY),
            // The order was imported late.
            ordered("u1", "i0", 1, LAST_ORDER - DAY),
            ordered("u2", "i1", 1, 7 * DAY),
            ordered("new", "j0", 1, 9 * DAY),
        ],
    );
    check_last_order(&shop, "u0", Some(LAST_ORDER + DAY));
    check_last_order(&shop, "u1", Some(LAST_ORDER));
    check_last_order(&shop, "u2", Some(7 * DAY));
    check_last_order(&shop, "new", Some(9 * DAY));
    // Everything is returned, or what was ordered last.
    let returns = [
        ordered("u0", "i1", 0, 0),
        last_orders("u0", Some(3 * DAY), &[]),
        ordered("u1", "i0", 0, 0),
        ordered("u1", "i2", 0, 0),
        last_orders("u1", None, &[]),
        ordered("new", "j0", 0, 0),
        last_orders("new", None, &[]),
    ];
    let shop = changed(shop, returns);
    check_last_order(&shop, "u0", Some(3 * DAY));
    check_last_order(&shop, "u1", None);
    check_last_order(&shop, "new", None);
    let shop = changed(shop, [ordered("u1", "i2", 1, 2 * DAY)]);
    check_last_order(&shop, "u1", Some(2 * DAY));
}

#[test]
fn orders_count_where_purchases_are_no_ratings() {
    let mut parts = shop().snapshot.parts().clone();
    parts.parameters.options.implicit = ImplicitFeedback::Off;
    parts.purchased = Bits::zeros(parts.ratings.nnz());
    let shop = view(parts);
    check_last_order(&shop, "u0", Some(LAST_ORDER));
    check_last_order(&shop, "u2", None);
    let shop = changed(shop, [ordered("u0", "i0", 0, 0), last_orders("u0", None, &[])]);
    check_last_order(&shop, "u0", None);
}

#[test]
fn affinity_is_that_of_the_snapshot_to_the_covered_items() {
    // Items 0 and 1 are alike, 2 is alike to neither: u0 and u1 have rated both, u2 the third.
    let shop = view(snapshot_parts(&[&[1.0, 1.0, 0.0], &[2.0, 2.0, 0.0], &[0.0, 0.0, 1.0]]));
    let check = |view: &View, user: &str, scope: Scope, score: f64| {
        let rule = |min_score| offer_of(Rule::MinAffinity { min_score }, scope.clone());
        assert_eq!(seen(view, user, &rule(score), 0), None, "{user}");
        let failure = seen(view, user, &rule(score.next_up()), 0);
        assert_eq!(failure, Some(Seen::Affinity(score)), "{user}");
    };
    let listed = |items: &[&str]| Scope::Listed(set(items, &[], &[]));
    check(&shop, "u0", Scope::All, 2.0);
    check(&shop, "u1", Scope::All, 4.0);
    check(&shop, "u1", listed(&["i0"]), 2.0);
    check(&shop, "u1", listed(&["i2"]), 0.0);
    check(&shop, "u2", Scope::All, 0.0);
    check(&shop, "new", Scope::All, 0.0);
    // The affinity is the one that ranks targets, so newer data does not count.
    let shop = changed(shop, [rated("u2", "i1", Some(5.0)), rated("u0", "i1", None)]);
    check(&shop, "u0", Scope::All, 2.0);
    check(&shop, "u2", Scope::All, 0.0);
}

#[test]
fn an_attribute_must_have_one_of_the_values() {
    let shop = shop();
    let check = |name: &str, values: &[&str], expected: Option<Seen>| {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        let name = name.to_owned();
        let offer = offer_of(Rule::Attribute { name, values }, Scope::All);
        assert_eq!(seen(&shop, "u0", &offer, 0), expected, "{:?}", offer.coupon.rules);
    };
    let seen = |value: &str| Some(Seen::Attribute(Some(value.to_owned())));
    check("tier", &["silver", "gold"], None);
    check("tier", &["silver"], seen("gold"));
    check("tier", &["Gold"], seen("gold"));
    check("city", &["Graz"], None);
    check("age", &["gold"], Some(Seen::Attribute(None)));
}
