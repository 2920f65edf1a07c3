//! Assesses scenarios in which one thing or several are wrong.

use chrono::Duration;

use super::super::holdout::arm_number;
use super::super::rules::Users;
use super::super::scope;
use super::super::testing::{campaign, coupon, item_set, listed, noon};
use super::*;
use crate::visibility::{self, Reader};
use domain::campaign::{Audience, Campaign};
use domain::coupon::{CartLine, Coupon, Discount, ItemSet, MinCartBasis, Rule};
use domain::id::{Category, MerchantId};
use recommender::snapshot::activity::Activity;
use recommender::snapshot::fixture::{self, EXAMPLE, item_facts, item_id, snapshot_parts, user_id};
use recommender::snapshot::overlay::{FreshChange, Overlay};

mod properties;
mod readers;

/// Everything that decides, all in favor of the user. A test changes what it is about.
#[derive(Debug, Clone)]
struct World {
    campaign: Campaign,
    coupon: Coupon,
    user: UserFacts,
    usage: Usage,
    cart: Option<Cart>,
    left: Option<CartAmounts>,
    others: Vec<Arc<Offer>>,
    policy: Policy,
    view: View,
    now: Timestamp,
}

/// Returns the failures that `reader` is told of.
fn told(world: &World, reader: Reader) -> Vec<Failure> {
    visibility::of_assessment(world.assess(), reader, Some(&world.offer())).failures
}

fn usd() -> Currency {
    Currency::new("USD").unwrap()
}

impl World {
    /// Returns a world with users u0 to u2 of [`EXAMPLE`]. u0 has bought i0 on the 1st and i3; 4 of the 6 points of u0's ratings
    /// are of tea.
    fn new() -> Self {
        let campaign = campaign("k");
        let mut parts = snapshot_parts(&EXAMPLE);
        let facts = ["tea", "mugs", "mugs", "mugs", "mugs"].map(|category| item_facts("t", category, "acme"));
        parts.catalog = fixture::catalog(&facts);
        fixture::buy(&mut parts, 0, &[0, 3]);
        parts.activity = Activity::none(3, noon(9).timestamp());
        parts.activity.orders[0] = 2;
        parts.activity.last_order_at[0] = noon(1).timestamp();
        Self {
            usage: Usage {
                state: campaign.state,
                window: campaign.window,
                limit_minor: None,
                reserved_minor: 0,
                spent_minor: 0,
                total_cap: None,
                reserved: 0,
                redeemed: 0,
                is_assigned: false,
                user_reserved: 0,
                user_redeemed: 0,
            },
            campaign,
            coupon: coupon("c"),
            user: UserFacts {
                id: user_id("u0"),
                is_known: true,
                consents: Consents::default(),
                attributes: vec![
                    ("age".to_owned(), "65+".to_owned()),
                    ("town".to_owned(), "Ely".to_owned()),
                ],
                recent_exposures: Vec::new(),
                reserved: Vec::new(),
            },
            cart: None,
            left: None,
            others: Vec::new(),
            policy: Policy {
                privacy: PrivacyOptions::default(),
                max_exposures: None,
                exposure_window_days: 7,
            },
            view: fixture::view(parts),
            now: noon(15),
        }
    }

    fn offer(&self) -> Offer {
        Offer {
            coupon: self.coupon.clone(),
            campaign: Arc::new(self.campaign.clone()),
        }
    }

    fn assess(&self) -> Assessment {
        let offer = self.offer();
        let history = History::of_user(&self.view, &self.user.id);
        let assess = |users| {
            let facts = AssessmentInput {
                offer: &offer,
                rules: &CompiledRules::new(&offer, Some(&self.view), users),
                user: &self.user,
                usage: &self.usage,
                is_scope_empty: scope::is_empty(&offer, &self.view),
                history: Some(&history),
                view: Some(&self.view),
                cart: self.cart.as_ref(),
                left: self.left.as_ref(),
                others: &self.others,
                now: self.now,
            };
            assess(&facts, &self.policy)
        };
        let assessment = assess(Users::One);
        assert_eq!(assess(Users::Many), assessment, "looked up for many users");
        for failure in &assessment.failures {
            assert!(
                !failure.required(Some(&offer)).is_empty() && !failure.seen().is_empty(),
                "{failure:?}"
            );
        }
        assessment
    }

    fn apply(&mut self, change: FreshChange) {
        let mut overlay = Overlay::clone(&self.view.overlay);
        overlay.apply(&self.view.snapshot, change, usize::MAX);
        self.view.overlay = Arc::new(overlay);
    }
}

fn cart(lines: &[(&str, i64)]) -> Option<Cart> {
    let line = |&(item, total_minor): &(&str, i64)| CartLine {
        item: item_id(item),
        quantity: 1,
        total_minor,
    };
    Some(Cart {
        id: None,
        currency: usd(),
        lines: lines.iter().map(line).collect(),
        shipping_minor: 0,
        applied: Vec::new(),
    })
}

fn euros(lines: &[(&str, i64)]) -> Option<Cart> {
    let currency = Currency::new("EUR").unwrap();
    cart(lines).map(|cart| Cart { currency, ..cart })
}

fn other(id: &str, campaign_id: &str, is_exclusive: bool) -> Arc<Offer> {
    let mut campaign = campaign(campaign_id);
    campaign.is_exclusive = is_exclusive;
    Arc::new(Offer {
        coupon: coupon(id),
        campaign: Arc::new(campaign),
    })
}

fn bought(user: &str, item: &str, orders: u32, at: Timestamp) -> FreshChange {
    FreshChange::Interaction {
        user: user_id(user),
        item: item_id(item),
        rating: None,
        orders,
        last_order_at: at.timestamp(),
        ordered_at: vec![at.timestamp(); orders as usize],
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut World), expected: &[&str]) {
    let mut world = World::new();
    change(&mut world);
    let codes: Vec<&str> = world
        .assess()
        .failures
        .iter()
        .map(|failure| failure.code().name())
        .collect();
    assert_eq!(codes, expected);
}

#[track_caller]
fn check_rule(rule: Rule, change: impl FnOnce(&mut World), holds: bool) {
    let with_rule = |world: &mut World| {
        world.coupon.rules = vec![rule];
        change(world);
    };
    check(with_rule, if holds { &[] } else { &["RULE_FAILED"] });
}

#[test]
fn a_user_without_failures_is_eligible() {
    check(|_| {}, &[]);
    assert_eq!(World::new().assess().verdict, Verdict::Eligible);
}

#[test]
fn campaigns_give_coupons_only_within_their_window() {
    let state = |state| move |world: &mut World| world.usage.state = state;
    check(state(CampaignState::Draft), &["CAMPAIGN_DRAFT"]);
    check(state(CampaignState::Scheduled), &[]);
    check(state(CampaignState::Paused), &["CAMPAIGN_PAUSED"]);
    check(state(CampaignState::Ended), &["CAMPAIGN_ENDED"]);
    let at = |now| move |world: &mut World| world.now = now;
    let instant = Duration::microseconds(1);
    check(at(noon(10) - instant), &["CAMPAIGN_NOT_STARTED"]);
    check(at(noon(10)), &[]);
    check(at(noon(20) - instant), &[]);
    check(at(noon(20)), &["CAMPAIGN_ENDED"]);
    let both = |state: CampaignState, now| {
        move |world: &mut World| {
            world.usage.state = state;
            world.now = now;
        }
    };
    check(both(CampaignState::Scheduled, noon(1)), &["CAMPAIGN_NOT_STARTED"]);
    check(
        both(CampaignState::Paused, noon(25)),
        &["CAMPAIGN_ENDED", "CAMPAIGN_PAUSED"],
    );
    check(
        both(CampaignState::Draft, noon(25)),
        &["CAMPAIGN_DRAFT", "CAMPAIGN_ENDED"],
    );
    check(both(CampaignState::Draft, noon(1)), &["CAMPAIGN_DRAFT"]);
    check(both(CampaignState::Ended, noon(15)), &["CAMPAIGN_ENDED"]);
}

#[test]
fn budgets_are_used_to_the_last_minor_unit() {
    let budget = |limit_minor: i64, spent_minor: i64, cart: Option<Cart>| {
        move |world: &mut World| {
            world.usage.limit_minor = Some(limit_minor);
            world.usage.spent_minor = spent_minor;
            world.usage.reserved_minor = 10;
            world.cart = cart;
        }
    };
    check(budget(500, 490, None), &["BUDGET_EXHAUSTED"]);
    check(budget(500, 489, None), &[]);
    // The coupon takes 1.00 off.
    check(budget(500, 391, cart(&[("i0", 900)])), &["BUDGET_EXHAUSTED"]);
    check(budget(500, 390, cart(&[("i0", 900)])), &[]);
    check(budget(500, 489, cart(&[("i0", 1)])), &[]);
    check(budget(10, 0, None), &["BUDGET_EXHAUSTED"]);
    // The discount is 0, but at least 1 must be left, as for a user without a cart.
    check(budget(11, 0, cart(&[("i0", 0)])), &[]);
    check(budget(10, 0, cart(&[("i0", 0)])), &["BUDGET_EXHAUSTED"]);
    check(
        budget(10, 0, euros(&[("i0", 900)])),
        &["BUDGET_EXHAUSTED", "CURRENCY_MISMATCH"],
    );
    check(budget(11, 0, euros(&[("i0", 900)])), &["CURRENCY_MISMATCH"]);
}

#[test]
fn caps_are_reached_and_not_exceeded() {
    let total = |cap, reserved, redeemed| {
        move |world: &mut World| {
            world.usage.total_cap = Some(cap);
            world.usage.reserved = reserved;
            world.usage.redeemed = redeemed;
        }
    };
    check(total(3, 1, 1), &[]);
    check(total(3, 1, 2), &["TOTAL_CAP_REACHED"]);
    check(total(0, 0, 0), &["TOTAL_CAP_REACHED"]);
    let own = |cap, reserved, redeemed| {
        move |world: &mut World| {
            world.coupon.per_user_cap = cap;
            world.usage.user_reserved = reserved;
            world.usage.user_redeemed = redeemed;
        }
    };
    check(own(None, 10, 10), &[]);
    check(own(Some(2), 0, 1), &[]);
    check(own(Some(2), 1, 1), &["USER_CAP_REACHED"]);
    let assigned = |is_assigned, reserved, redeemed| {
        move |world: &mut World| {
            world.campaign.audience = Audience::Assigned;
            world.coupon.per_user_cap = Some(9);
            world.usage.is_assigned = is_assigned;
            world.usage.user_reserved = reserved;
            world.usage.user_redeemed = redeemed;
        }
    };
    check(assigned(true, 0, 0), &[]);
    check(assigned(false, 0, 0), &["NOT_ASSIGNED"]);
    check(assigned(true, 1, 0), &["USER_CAP_REACHED"]);
    check(assigned(true, 0, 1), &["ALREADY_REDEEMED"]);
}

#[test]
fn carts_must_qualify() {
    let with = |cart: Option<Cart>, min_cart_minor, items: &'static [&'static str]| {
        move |world: &mut World| {
            world.cart = cart;
            world.coupon.min_cart_minor = min_cart_minor;
            world.coupon.scope = listed(items);
        }
    };
    check(with(cart(&[("i0", 499)]), 500, &["i0"]), &["MIN_CART_NOT_MET"]);
    check(with(cart(&[("i0", 500)]), 500, &["i0"]), &[]);
    check(
        with(cart(&[("i0", 499), ("i1", 900)]), 500, &["i0"]),
        &["MIN_CART_NOT_MET"],
    );
    check(with(cart(&[("i1", 900)]), 0, &["i0"]), &["NO_QUALIFYING_ITEM"]);
    check(
        with(cart(&[("i1", 900)]), 500, &["i0"]),
        &["MIN_CART_NOT_MET", "NO_QUALIFYING_ITEM"],
    );
    check(with(cart(&[("unheard-of", 900)]), 500, &["unheard-of"]), &[]);
    // Amounts in another currency are not compared.
    check(with(euros(&[("i0", 1)]), 500, &["i0"]), &["CURRENCY_MISMATCH"]);
    check(
        with(euros(&[("i0", 1)]), 500, &["i1"]),
        &["NO_QUALIFYING_ITEM", "CURRENCY_MISMATCH"],
    );

    let verdict = |change: fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        let assessment = world.assess();
        (assessment.verdict, assessment.discount_minor)
    };
    assert_eq!(verdict(|_| {}), (Verdict::Eligible, None));
    assert_eq!(
        verdict(|world| world.coupon.min_cart_minor = 1),
        (Verdict::Indeterminate, None)
    );
    assert_eq!(
        verdict(|world| world.coupon.scope = listed(&["i0"])),
        (Verdict::Indeterminate, None)
    );
    assert_eq!(
        verdict(|world| world.campaign.merchant = Some(MerchantId::new("acme").unwrap())),
        (Verdict::Indeterminate, None)
    );
    let ended = |world: &mut World| {
        world.coupon.min_cart_minor = 1;
        world.usage.state = CampaignState::Ended;
    };
    assert_eq!(verdict(ended), (Verdict::Ineligible, None));
    let bought = |world: &mut World| {
        world.coupon.discount = Discount::Percent { basis_points: 1_000 };
        world.cart = cart(&[("i0", 995)]);
    };
    assert_eq!(verdict(bought), (Verdict::Eligible, Some(100)));
}

#[test]
fn a_minimum_is_checked_before_or_after_other_discounts() {
    let with = |min_cart_basis, left_minor: i64| {
        move |world: &mut World| {
            world.cart = cart(&[("i0", 900)]);
            world.left = Some(CartAmounts {
                lines_minor: vec![left_minor],
                shipping_minor: 0,
            });
            (world.coupon.min_cart_minor, world.coupon.min_cart_basis) = (500, min_cart_basis);
        }
    };
    check(with(MinCartBasis::BeforeDiscounts, 499), &[]);
    check(with(MinCartBasis::AfterDiscounts, 500), &[]);
    check(with(MinCartBasis::AfterDiscounts, 499), &["MIN_CART_NOT_MET"]);
}

#[test]
fn coupons_of_exclusive_campaigns_are_not_combined() {
    let with = |own: bool, applied: &'static [&'static str], reserved: &'static [&'static str]| {
        move |world: &mut World| {
            world.campaign.is_exclusive = own;
            world.others = vec![
                other("same", "k", true),
                other("other", "l", false),
                other("alone", "m", true),
            ];
            let mut filled = cart(&[("i0", 900)]).unwrap();
            filled.applied = applied.iter().map(|id| CouponId::new(id).unwrap()).collect();
            world.cart = Some(filled);
            let campaign = |id: &str| {
                world
                    .others
                    .iter()
                    .find(|offer| offer.coupon.id.as_str() == id)
                    .unwrap()
                    .campaign
                    .id
                    .clone()
            };
            world.user.reserved = reserved
                .iter()
                .map(|id| (CouponId::new(id).unwrap(), campaign(id)))
                .collect();
        }
    };
    check(with(false, &["other", "same"], &[]), &[]);
    check(with(true, &["same"], &["same"]), &[]);
    check(with(true, &["other"], &[]), &["EXCLUSIVE_CONFLICT"]);
    check(with(false, &["alone"], &[]), &["EXCLUSIVE_CONFLICT"]);
    check(with(true, &[], &["other"]), &["EXCLUSIVE_CONFLICT"]);
    check(with(false, &[], &["alone"]), &["EXCLUSIVE_CONFLICT"]);
    check(with(true, &["unheard-of"], &[]), &[]);
    // The campaign of a reserved coupon is known even if the coupon itself is not.
    let reserved = |own: bool| {
        move |world: &mut World| {
            world.campaign.is_exclusive = own;
            world.user.reserved = vec![(CouponId::new("unheard-of").unwrap(), CampaignId::new("l").unwrap())];
        }
    };
    check(reserved(true), &["EXCLUSIVE_CONFLICT"]);
    check(reserved(false), &[]);
}

#[test]
fn an_unknown_user_has_no_history() {
    let with = |rules: Vec<Rule>| {
        move |world: &mut World| {
            world.user.is_known = false;
            world.coupon.rules = rules;
        }
    };
    check(
        with(vec![Rule::NewUser, Rule::NotBought(item_set(&["i0"]))]),
        &["USER_UNKNOWN"],
    );
    check(
        with(vec![Rule::Bought(item_set(&["i0"])), Rule::LapsedUser { days: 1 }]),
        &["USER_UNKNOWN", "RULE_FAILED", "RULE_FAILED"],
    );
}

#[test]
fn failures_say_what_was_seen() {
    let check = |change: fn(&mut World), expected: Failure, required: &str, seen: &str| {
        let mut world = World::new();
        change(&mut world);
        assert_eq!(world.assess().failures, std::slice::from_ref(&expected));
        let offer = other("c", "k", false);
        let texts = (expected.required(Some(&offer)), expected.seen());
        assert_eq!(texts, (required.to_owned(), seen.to_owned()));
    };
    let (starts_at, now) = (noon(10), noon(9));
    check(
        |world| world.now = noon(9),
        Failure::CampaignNotStarted { starts_at, now },
        "from 2025-01-10T12:00:00Z on",
        "it is 2025-01-09T12:00:00Z",
    );
    let (ends_at, now) = (noon(20), noon(21));
    check(
        |world| world.now = noon(21),
        Failure::CampaignEnded { ends_at, now },
        "before 2025-01-20T12:00:00Z",
        "it is 2025-01-21T12:00:00Z",
    );
    let now = noon(15);
    check(
        |world| world.usage.state = CampaignState::Ended,
        Failure::CampaignEnded { ends_at, now },
        "a campaign that has not been ended",
        "ended before the end of its window",
    );
    check(
        |world| {
            (
                world.usage.limit_minor,
                world.usage.spent_minor,
                world.usage.reserved_minor,
            ) = (Some(1_000), 600, 395);
            world.cart = cart(&[("i0", 2_000)]);
        },
        Failure::BudgetExhausted {
            needed_minor: 100,
            left_minor: 5,
            currency: usd(),
        },
        "at least 1.00 USD left of the budget",
        "0.05 USD left",
    );
    check(
        |world| {
            world.coupon.min_cart_minor = 2_000;
            world.cart = cart(&[("i0", 1_250)]);
        },
        Failure::MinCartNotMet {
            required_minor: 2_000,
            seen_minor: 1_250,
            currency: usd(),
        },
        "at least 20.00 USD of covered items",
        "12.50 USD",
    );
    check(
        |world| world.policy.privacy.marketing_without_record = false,
        Failure::NoMarketingConsent { is_refused: false },
        "consent to marketing",
        "no consent on record",
    );
    check(
        |world| world.user.consents = world.user.consents.with(Purpose::Marketing, Some(false)),
        Failure::NoMarketingConsent { is_refused: true },
        "consent to marketing",
        "the user has opted out",
    );
    check(
        |world| {
            world.policy.max_exposures = Some(2);
            world.user.recent_exposures = ["a", "b", "d"].map(|id| CouponId::new(id).unwrap()).to_vec();
        },
        Failure::FrequencyCapped {
            max: 2,
            seen: 3,
            days: 7,
        },
        "fewer than 2 coupons offered in 7 days",
        "3 offered",
    );
}

#[test]
fn the_last_arm_below_the_basis_points_is_held_out() {
    let with = |more: u16| {
        move |world: &mut World| {
            let arm = arm_number(&world.campaign.holdout.salt, &world.user.id);
            world.campaign.holdout.basis_points = arm + more;
        }
    };
    check(with(0), &[]);
    check(with(1), &["HELD_OUT"]);
    // The order of other failures stays the same.
    let mut world = World::new();
    with(1)(&mut world);
    world.usage.state = CampaignState::Paused;
    world.user.consents = world.user.consents.suppressed(true);
    let masked = told(&world, Reader::Other);
    assert_eq!(
        masked,
        [Failure::CampaignPaused, Failure::NotAssigned, Failure::Suppressed]
    );
}

#[test]
fn a_view_is_needed_for_history_and_facts_of_items() {
    let cart = cart(&[("i0", 900)]);
    let check = |change: fn(&mut World), without_cart: bool, with_cart: bool| {
        let mut world = World::new();
        change(&mut world);
        let offer = Offer {
            coupon: world.coupon,
            campaign: Arc::new(world.campaign),
        };
        assert_eq!(needs_view(&offer, None), without_cart, "{offer:?}");
        assert_eq!(needs_view(&offer, cart.as_ref()), with_cart, "{offer:?}");
    };
    let of_tea = |world: &mut World| {
        let categories = vec![Category::new("tea").unwrap()];
        world.coupon.scope = Scope::Listed(ItemSet {
            categories,
            ..ItemSet::default()
        });
    };
    check(|_| (), false, false);
    check(|world| world.coupon.scope = listed(&["i0"]), false, false);
    check(of_tea, false, true);
    check(
        |world| world.campaign.merchant = Some(MerchantId::new("acme").unwrap()),
        false,
        true,
    );
    check(|world| world.coupon.rules = vec![Rule::NewUser], true, true);
    let attribute = |world: &mut World| {
        let (name, values) = ("age".to_owned(), vec!["65+".to_owned()]);
        world.coupon.rules = vec![Rule::Attribute { name, values }];
    };
    check(attribute, false, false);
}

#[test]
fn codes_ascend_and_are_named_as_on_the_wire() {
    assert!(Code::ALL.is_sorted_by(|a, b| a < b));
    for (number, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!(code as usize, number);
        // CouponUnknown, for example, is COUPON_UNKNOWN.
        let mut name = String::new();
        for letter in format!("{code:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        assert_eq!(code.name(), name);
    }
    assert_eq!(Assessment::unknown_coupon().failures, [Failure::CouponUnknown]);
}

#[test]
fn consent_suppression_and_frequency_cap_are_checked() {
    let said = |purpose, record| {
        move |world: &mut World| {
            world.user.consents = world.user.consents.with(purpose, record);
        }
    };
    check(said(Purpose::Marketing, Some(false)), &["NO_MARKETING_CONSENT"]);
    check(said(Purpose::Marketing, Some(true)), &[]);
    check(said(Purpose::Profiling, Some(false)), &[]);
    check(
        |world| world.policy.privacy.marketing_without_record = false,
        &["NO_MARKETING_CONSENT"],
    );
    check(
        |world| world.user.consents = world.user.consents.suppressed(true),
        &["SUPPRESSED"],
    );
    let objects = |rules: Vec<Rule>| {
        move |world: &mut World| {
            world.coupon.rules = rules;
            world.user.consents = world.user.consents.with(Purpose::Profiling, Some(false));
        }
    };
    let attribute = Rule::Attribute {
        name: "age".to_owned(),
        values: vec!["19-24".to_owned()],
    };
    check(
        objects(vec![Rule::NewUser, attribute, Rule::Bought(item_set(&["i0"]))]),
        &["RULE_FAILED", "PROFILING_OBJECTED", "PROFILING_OBJECTED"],
    );
    let exposed = |max, ids: &'static [&'static str]| {
        move |world: &mut World| {
            world.policy.max_exposures = max;
            world.user.recent_exposures = ids.iter().map(|id| CouponId::new(id).unwrap()).collect();
        }
    };
    check(exposed(None, &["a", "b"]), &[]);
    check(exposed(Some(2), &["a"]), &[]);
    check(exposed(Some(2), &["a", "b"]), &["FREQUENCY_CAPPED"]);
    check(exposed(Some(2), &["a", "b", "c"]), &[]);
}

#[test]
fn only_operators_see_who_is_held_out() {
    let mut world = World::new();
    world.campaign.holdout.basis_points = 10_000;
    let assessment = world.assess();
    assert_eq!(assessment.failures, [Failure::HeldOut]);
    assert!(assessment.is_held_out_target() && !assessment.is_target());
    assert_eq!(told(&world, Reader::Operator), assessment.failures);
    assert_eq!(told(&world, Reader::Other), [Failure::NotAssigned]);
    world.campaign.audience = Audience::Assigned;
    world.user.is_known = false;
    let masked = told(&world, Reader::Other);
    assert_eq!(masked, [Failure::NotAssigned, Failure::UserUnknown]);
    world.usage.is_assigned = true;
    let masked = told(&world, Reader::Other);
    assert_eq!(
        masked,
        [Failure::NotAssigned, Failure::UserUnknown],
        "in the order of the codes"
    );
}

#[test]
fn rules_check_the_present_history() {
    let same = |_: &mut World| {};
    let bought_set = |items| Rule::Bought(item_set(items));
    check_rule(bought_set(&["i0"]), same, true);
    // u0 has rated i4, but not bought it.
    check_rule(bought_set(&["i4"]), same, false);
    check_rule(
        bought_set(&["i4"]),
        |world| world.apply(bought("u0", "i4", 1, noon(14))),
        true,
    );
    check_rule(
        bought_set(&["i0"]),
        |world| world.apply(bought("u0", "i0", 0, noon(1))),
        false,
    );
    check_rule(
        bought_set(&["brand-new"]),
        |world| world.apply(bought("u0", "brand-new", 1, noon(14))),
        true,
    );
    check_rule(Rule::NotBought(item_set(&["i0", "i1"])), same, false);
    check_rule(Rule::NotBought(item_set(&["i1", "i4"])), same, true);
    let tea = || Category::new("tea").unwrap();
    let of_tea = || ItemSet {
        categories: vec![tea()],
        ..ItemSet::default()
    };
    check_rule(Rule::Bought(of_tea()), same, true);
    check_rule(Rule::Bought(of_tea()), |world| world.user.id = user_id("u1"), false);
    let share = |min_share| Rule::CategoryAffinity {
        category: tea(),
        min_share,
    };
    check_rule(share(0.66), same, true);
    check_rule(share(0.67), same, false);
    let snapshot_affinity = affinity_of_u0();
    check_rule(
        Rule::MinAffinity {
            min_score: snapshot_affinity,
        },
        same,
        true,
    );
    check_rule(
        Rule::MinAffinity {
            min_score: snapshot_affinity * 1.000_001,
        },
        same,
        false,
    );
    check_rule(Rule::NewUser, same, false);
    check_rule(Rule::NewUser, |world| world.user.id = user_id("u1"), true);
    check_rule(Rule::NewUser, |world| world.user.id = user_id("nobody"), true);
    let u1_buys = |world: &mut World| {
        world.user.id = user_id("u1");
        world.apply(bought("u1", "i0", 1, noon(14)));
    };
    check_rule(Rule::NewUser, u1_buys, false);
    // The last order was 14 days ago.
    check_rule(Rule::LapsedUser { days: 14 }, same, true);
    check_rule(Rule::LapsedUser { days: 15 }, same, false);
    check_rule(
        Rule::LapsedUser { days: 14 },
        |world| world.apply(bought("u0", "i1", 1, noon(5))),
        false,
    );
    check_rule(
        Rule::LapsedUser { days: 1 },
        |world| world.user.id = user_id("u1"),
        false,
    );
    let attribute = |name: &str, values: &[&str]| Rule::Attribute {
        name: name.to_owned(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
    };
    check_rule(attribute("age", &["19-24", "65+"]), same, true);
    check_rule(attribute("age", &["19-24"]), same, false);
    check_rule(attribute("income", &["19-24"]), same, false);
}

fn affinity_of_u0() -> f64 {
    let world = World::new();
    let user = world.view.user(&user_id("u0")).unwrap();
    super::super::affinity::affinity_of(&world.view.snapshot, |_| true, user)
}

#[test]
fn all_failures_at_once_are_in_the_order_of_the_codes() {
    let everything = |world: &mut World| {
        world.usage.state = CampaignState::Paused;
        world.now = noon(25);
        world.usage.limit_minor = Some(0);
        world.usage.total_cap = Some(0);
        world.campaign.audience = Audience::Assigned;
        world.user.is_known = false;
        let attribute = Rule::Attribute {
            name: "x".to_owned(),
            values: vec![],
        };
        world.coupon.rules = vec![Rule::Bought(item_set(&["i0"])), attribute];
        world.coupon.scope = listed(&["i0"]);
        world.coupon.min_cart_minor = 500;
        world.cart = cart(&[("i1", 900)]).map(|cart| Cart {
            applied: vec![world.coupon.id.clone()],
            ..cart
        });
        world.campaign.is_exclusive = true;
        world.user.reserved = vec![(CouponId::new("other").unwrap(), CampaignId::new("l").unwrap())];
        let consents = world.user.consents.with(Purpose::Marketing, Some(false));
        world.user.consents = consents.with(Purpose::Profiling, Some(false)).suppressed(true);
        world.policy.max_exposures = Some(0);
        world.campaign.holdout.basis_points = 10_000;
    };
    // These failures exclude one of the others.
    let excluded = [
        Code::CouponUnknown,
        Code::CampaignDraft,
        Code::CampaignNotStarted,
        Code::UserCapReached,
        Code::AlreadyRedeemed,
        Code::CurrencyMismatch,
    ];
    let expected = Code::ALL.into_iter().filter(|code| !excluded.contains(code));
    check(everything, &expected.map(Code::name).collect::<Vec<_>>());
}
