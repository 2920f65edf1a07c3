//! Properties that hold in any world.

use proptest::prelude::*;

use super::*;

/// Generates worlds in which every fact is at the deciding value, or one off.
fn any_world() -> impl Strategy<Value = World> {
    let few = || 0..3_i64;
    let often = || prop::bool::weighted(0.8);
    let limits = (
        prop::option::of(few()),
        (few(), few()),
        prop::option::of(few()),
        (few(), few()),
        prop::option::of(1..4_i32),
        (few(), few()),
    );
    let rules = prop::collection::vec(
        prop::sample::select(vec![
            Rule::Attribute {
                name: "age".to_owned(),
                values: vec!["65+".to_owned()],
            },
            Rule::Attribute {
                name: "age".to_owned(),
                values: vec!["19-24".to_owned()],
            },
            Rule::Bought(item_set(&["i0"])),
            Rule::NotBought(item_set(&["i0"])),
            Rule::NewUser,
            Rule::LapsedUser { days: 14 },
            Rule::MinAffinity { min_score: 1.0 },
        ]),
        0..4,
    );
    let consents = (0_u8..128).prop_filter_map("no consents", Consents::from_bits);
    let people = (often(), any::<bool>(), any::<bool>(), consents, rules);
    let discount = prop::sample::select(vec![
        Discount::Percent { basis_points: 5_000 },
        Discount::Amount { amount_minor: 2 },
        Discount::FreeShipping,
    ]);
    let merchant = prop::option::of(prop::sample::select(vec!["acme", "zenith"]));
    let others = prop::collection::vec((prop::sample::select(vec!["k", "l", "m"]), any::<bool>()), 0..3);
    let offers = (any::<bool>(), merchant, few(), discount, any::<bool>(), others);
    let exposures = (prop::option::of(1..3_u32), 0..3_usize, any::<bool>());
    let moment = (0..5_usize, prop::sample::select(vec![9, 10, 15, 15, 19, 20]));
    (moment, limits, people, offers, exposures).prop_map(|((state, day), limits, people, offers, exposures)| {
        let mut world = World::new();
        (world.usage.state, world.now) = (CampaignState::ALL[state], noon(day));
        let (left, (reserved_minor, spent_minor), free, (reserved, redeemed), user_cap, of_user) = limits;
        (world.usage.reserved_minor, world.usage.spent_minor) = (reserved_minor, spent_minor);
        world.usage.limit_minor = left.map(|left| left + reserved_minor + spent_minor);
        (world.usage.reserved, world.usage.redeemed) = (reserved, redeemed);
        world.usage.total_cap = free.map(|free| free + reserved + redeemed);
        world.coupon.per_user_cap = user_cap;
        (world.usage.user_reserved, world.usage.user_redeemed) = of_user;
        let (is_known, is_for_assigned, is_assigned, consents, rules) = people;
        (world.user.is_known, world.user.consents) = (is_known, consents);
        world.usage.is_assigned = is_assigned;
        if is_for_assigned {
            world.campaign.audience = Audience::Assigned;
        }
        world.coupon.rules = rules;
        let (covers_all, merchant, min_cart_minor, discount, is_exclusive, others) = offers;
        if !covers_all {
            world.coupon.scope = listed(&["i0"]);
        }
        world.campaign.merchant = merchant.map(|id| MerchantId::new(id).unwrap());
        (world.coupon.min_cart_minor, world.coupon.discount) = (min_cart_minor, discount);
        world.campaign.is_exclusive = is_exclusive;
        let others = others.into_iter().enumerate();
        world.others = others
            .map(|(number, (campaign, is_exclusive))| other(&format!("other-{number}"), campaign, is_exclusive))
            .collect();
        let reserved = world.others.iter().take(1);
        world.user.reserved = reserved
            .map(|other| (other.coupon.id.clone(), other.campaign.id.clone()))
            .collect();
        let (max_exposures, exposed, is_held_out) = exposures;
        world.policy.max_exposures = max_exposures;
        let exposed = (0..exposed).map(|number| CouponId::new(format!("exposed-{number}")).unwrap());
        world.user.recent_exposures = exposed.collect();
        world.campaign.holdout.basis_points = if is_held_out { 10_000 } else { 0 };
        world
    })
}

fn any_cart() -> impl Strategy<Value = Cart> {
    let line = (prop::sample::select(vec!["i0", "i1", "unheard-of"]), 0..4_i64);
    let applied = prop::sample::subsequence(vec!["other-0", "other-1", "unheard-of"], 0..=3);
    (
        prop::bool::weighted(0.2),
        prop::collection::vec(line, 1..4),
        0..3_i64,
        applied,
    )
        .prop_map(|(is_foreign, lines, shipping_minor, applied)| {
            let filled = if is_foreign { euros(&lines) } else { cart(&lines) };
            let applied = applied.into_iter().map(|id| CouponId::new(id).unwrap()).collect();
            Cart {
                shipping_minor,
                applied,
                ..filled.unwrap()
            }
        })
}

fn codes(assessment: &Assessment) -> Vec<Code> {
    assessment.failures.iter().map(Failure::code).collect()
}

/// Returns whether the failures are in the order of the codes, each code once, except those that every rule may have.
fn is_ordered(assessment: &Assessment) -> bool {
    let may_repeat = |code| matches!(code, Code::RuleFailed | Code::ProfilingObjected);
    codes(assessment).is_sorted_by(|a, b| a < b || a == b && may_repeat(*a))
}

proptest! {
    #[test]
    fn a_verdict_follows_from_its_reasons(world in any_world(), cart in prop::option::of(any_cart())) {
        let world = World { cart, ..world };
        let assessment = world.assess();
        prop_assert!(is_ordered(&assessment), "{:?}", assessment.failures);
        prop_assert_eq!(assessment.verdict == Verdict::Ineligible, !assessment.failures.is_empty());
        prop_assert!(assessment.verdict != Verdict::Indeterminate || world.cart.is_none());
        let has_discount = assessment.verdict == Verdict::Eligible && world.cart.is_some();
        prop_assert_eq!(assessment.discount_minor.is_some(), has_discount);
        if let (Some(discount), Some(limit)) = (assessment.discount_minor, world.usage.limit_minor) {
            prop_assert!(discount <= limit - world.usage.reserved_minor - world.usage.spent_minor);
        }
        for reader in Reader::ALL {
            let told = visibility::of_assessment(assessment.clone(), reader, Some(&world.offer()));
            prop_assert!(is_ordered(&told), "{:?}", told.failures);
            prop_assert_eq!(told.verdict, assessment.verdict);
            prop_assert_eq!(told.is_target(), assessment.is_target());
            prop_assert!(reader == Reader::Operator || !told.failures.contains(&Failure::HeldOut));
        }
    }

    #[test]
    fn a_cart_only_adds_reasons(world in any_world(), cart in any_cart()) {
        let open = world.assess();
        let decided = World { cart: Some(cart), ..world }.assess();
        let (before, after) = (codes(&open), codes(&decided));
        for code in &before {
            prop_assert!(after.contains(code), "{code:?} is gone");
        }
        // A cart may exceed the budget, and may have other coupons applied.
        let may_come = |code: Code| code.needs_cart() || matches!(code, Code::BudgetExhausted | Code::ExclusiveConflict);
        for code in after {
            prop_assert!(before.contains(&code) || may_come(code), "{code:?} has come");
        }
        prop_assert!(decided.verdict != Verdict::Indeterminate);
        // If no cart is needed, every cart in the right currency qualifies.
        if open.verdict == Verdict::Eligible {
            let unmet = decided.failures.iter().map(Failure::code).find(|code| code.needs_cart());
            prop_assert!(matches!(unmet, None | Some(Code::CurrencyMismatch)), "{unmet:?}");
        }
    }
}
