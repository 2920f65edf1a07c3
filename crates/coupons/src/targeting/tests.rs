//! Compares the targets with a plain reference: users assessed one by one, then sorted.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::rules::Users;
use crate::scope;
use crate::scoring::{RankBy, Scorer};
use crate::testing::{campaign, coupon, listed, noon};
use crate::visibility;
use domain::campaign::{Campaign, HistoryScope, Holdout};
use domain::consent::PrivacyOptions;
use domain::coupon::{Coupon, Rule};
use domain::id::MerchantId;
use recommender::snapshot::fixture::{EXAMPLE, catalog, item_facts, snapshot_parts, user_id, view};
use recommender::snapshot::overlay::{FreshChange, Overlay};

/// Users of the snapshot are u0, u1 and u2.
const USERS: [&str; 8] = ["a", "u0", "u1", "u11", "u12", "u2", "u3", "z"];

#[derive(Debug, Clone)]
struct World {
    audience: BTreeSet<usize>,
    campaign: Campaign,
    coupon: Coupon,
    other: Campaign,
    /// Bits of [`Consents`] of each user.
    consents: Vec<u8>,
    usage: Vec<(i64, i64)>,
    reserved: BTreeSet<usize>,
    exposures: Vec<usize>,
    attributes: BTreeSet<usize>,
    max_exposures: Option<u32>,
    min_score: Option<f64>,
    reader: Reader,
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = prop_oneof![
        Just(Rule::Attribute {
            name: "age".to_owned(),
            values: vec!["65+".to_owned()]
        }),
        Just(Rule::MinAffinity { min_score: 1.0 }),
        Just(Rule::NewUser),
    ];
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(rule, 1..3)]
}

fn any_world() -> impl Strategy<Value = World> {
    let n = USERS.len();
    let users = || prop::collection::btree_set(0..n, 0..n);
    let definition = (
        any_rules(),
        prop::option::of(1..3),
        prop::bool::ANY,
        prop::bool::ANY,
        prop_oneof![Just(0_u16), Just(3_000), Just(10_000)],
    );
    let consents = (0u8..3, 0u8..3, prop::bool::weighted(0.1))
        .prop_map(|(marketing, profiling, suppressed)| marketing | profiling << 2 | u8::from(suppressed) << 6);
    let facts = (
        prop::collection::vec(consents, n),
        prop::collection::vec((0i64..2, 0i64..2), n),
        users(),
        prop::collection::vec(0usize..4, n),
        users(),
    );
    let asked = (
        prop::option::of(1u32..3),
        prop::option::of(prop_oneof![Just(0.0), Just(0.5), Just(2.0)]),
        prop::sample::select(Reader::ALL.to_vec()),
        prop_oneof![
            Just(None),
            Just(Some(HistoryScope::OwnMerchant)),
            Just(Some(HistoryScope::Platform))
        ],
    );
    (users(), definition, facts, asked).prop_map(|(audience, definition, facts, asked)| {
        let (rules, per_user_cap, is_exclusive, other_is_exclusive, basis_points) = definition;
        let (consents, usage, reserved, exposures, attributes) = facts;
        World {
            audience,
            campaign: Campaign {
                is_exclusive,
                holdout: Holdout {
                    basis_points,
                    salt: [3; 16],
                },
                merchant: asked.3.map(|_| MerchantId::new("m").unwrap()),
                history_scope: asked.3.unwrap_or_default(),
                ..campaign("k")
            },
            coupon: Coupon {
                rules,
                per_user_cap,
                scope: listed(&["i0", "i3"]),
                ..coupon("c")
            },
            other: Campaign {
                is_exclusive: other_is_exclusive,
                ..campaign("other")
            },
            consents,
            usage,
            reserved,
            exposures,
            attributes,
            max_exposures: asked.0,
            min_score: asked.1,
            reader: asked.2,
        }
    })
}

impl World {
    fn offer_catalog(&self) -> OfferCatalog {
        let other = Coupon {
            campaign: CampaignId::new("other").unwrap(),
            ..coupon("o")
        };
        let campaigns = vec![self.campaign.clone(), self.other.clone()];
        OfferCatalog::new(campaigns, vec![self.coupon.clone(), other])
    }

    fn view(&self) -> View {
        let mut parts = snapshot_parts(&EXAMPLE);
        parts.catalog = catalog(&["m", "z", "m", "m", "z"].map(|merchant| item_facts("t", "c", merchant)));
        let trained = view(parts);
        let mut overlay = Overlay::default();
        for (user, &bits) in USERS.iter().zip(&self.consents) {
            let change = FreshChange::Consents {
                user: user_id(user),
                consents: Consents::from_bits(bits).unwrap(),
            };
            overlay.apply(&trained.snapshot, change, usize::MAX);
        }
        View {
            overlay: Arc::new(overlay),
            ..trained
        }
    }

    fn reserved_coupons() -> (CouponId, CampaignId) {
        (CouponId::new("o").unwrap(), CampaignId::new("other").unwrap())
    }

    fn exposed_coupons(&self, user: usize) -> Vec<CouponId> {
        (0..self.exposures[user])
            .map(|number| CouponId::new(format!("e{number}")).unwrap())
            .collect()
    }

    fn attributes_of(&self, user: usize) -> Vec<(String, String)> {
        let attribute = ("age".to_owned(), "65+".to_owned());
        self.attributes
            .contains(&user)
            .then_some(attribute)
            .into_iter()
            .collect()
    }

    /// Returns the records of every user in descending order, as the store may read them.
    fn records(&self) -> UserRecords {
        let mut records = UserRecords::default();
        for (user, id) in USERS.iter().enumerate().rev() {
            let id = || (*id).to_owned();
            records.usage.push((id(), self.usage[user]));
            if self.reserved.contains(&user) {
                records.reserved.push((id(), Self::reserved_coupons()));
            }
            records
                .exposures
                .extend(self.exposed_coupons(user).into_iter().map(|coupon| (id(), coupon)));
            records
                .attributes
                .extend(self.attributes_of(user).into_iter().map(|row| (id(), row)));
        }
        records
    }

    fn usage(&self) -> Usage {
        Usage {
            state: self.campaign.state,
            window: self.campaign.window,
            limit_minor: None,
            reserved_minor: 0,
            spent_minor: 0,
            total_cap: None,
            reserved: 0,
            redeemed: 0,
            is_assigned: false,
            user_reserved: 0,
            user_redeemed: 0,
        }
    }

    /// Returns the assessment of one user alone.
    fn assess_alone(&self, user: usize, view: &View, policy: &Policy) -> Assessment {
        let offer_catalog = self.offer_catalog();
        let offer = offer_catalog.offer(&self.coupon.id).unwrap();
        let is_reserved = self.reserved.contains(&user);
        let facts = UserFacts {
            id: user_id(USERS[user]),
            is_known: true,
            consents: Consents::from_bits(self.consents[user]).unwrap(),
            attributes: self.attributes_of(user),
            recent_exposures: self.exposed_coupons(user),
            reserved: is_reserved.then(Self::reserved_coupons).into_iter().collect(),
        };
        let usage = Usage {
            user_reserved: self.usage[user].0,
            user_redeemed: self.usage[user].1,
            ..self.usage()
        };
        let others: Vec<_> = offer_catalog.offers().cloned().collect();
        let facts = AssessmentInput {
            offer,
            rules: &CompiledRules::new(offer, Some(view), Users::One),
            user: &facts,
            usage: &usage,
            is_scope_empty: scope::is_empty(offer, view),
            history: Some(&History::of_user(view, &facts.id)),
            view: Some(view),
            cart: None,
            left: None,
            others: &others,
            now: noon(15),
        };
        assess(&facts, policy)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn exactly_the_eligible_users_are_listed(world in any_world()) {
        let (view, offer_catalog) = (world.view(), world.offer_catalog());
        let offer = offer_catalog.offer(&world.coupon.id).unwrap();
        let policy = Policy {
            privacy: PrivacyOptions::default(),
            max_exposures: world.max_exposures,
            exposure_window_days: 7,
        };
        let scorer = Scorer::new(RankBy::Affinity, &view.snapshot, offer).unwrap();
        let scores = scorer.scores(&view.snapshot);
        let ids = world.audience.iter().map(|&user| USERS[user]);
        let audience = UserSet::new(view.snapshot.clone(), ids, |_| false).unwrap();
        let ranking = RankedTargets::new(audience, world.records(), &TargetingInput {
            offer,
            rules: &CompiledRules::new(offer, Some(&view), Users::Many),
            offer_catalog: &offer_catalog,
            policy: &policy,
            view: &view,
            usage: &world.usage(),
            is_scope_empty: scope::is_empty(offer, &view),
            scores: &scores,
            min_score: world.min_score,
            reader: world.reader,
            now: noon(15),
        });

        let mut expected = Vec::new();
        let mut counts = Counts { audience: world.audience.len(), ..Counts::default() };
        for &user in &world.audience {
            let assessment = world.assess_alone(user, &view, &policy);
            let (is_target, is_held_out) = (assessment.is_target(), assessment.is_held_out_target());
            counts.eligible += usize::from(is_target);
            let codes: BTreeSet<Code> =
                assessment.failures.iter().map(|failure| visibility::counted_as(failure, world.reader)).collect();
            for code in &codes {
                let users = counts.excluded.entry(*code).or_default();
                users.all += 1;
                users.first += usize::from(Some(code) == codes.first());
            }
            let consents = Consents::from_bits(world.consents[user]).unwrap();
            let index = view.snapshot.users().find(USERS[user])
                .filter(|_| policy.privacy.allows(consents, Purpose::Profiling));
            let score = index.map_or(0.0, |index| scores.users[index.at()]);
            if (is_target || is_held_out) && world.min_score.is_none_or(|least| score >= least) {
                expected.push(RankedUser { id: USERS[user], index, score, is_held_out });
            }
        }
        expected.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(b.id)));
        prop_assert_eq!(ranking.counts(), &counts);
        let left_out: usize = counts.excluded.values().map(|users| users.first).sum();
        prop_assert_eq!(counts.eligible + left_out, counts.audience);
        let found: Vec<RankedUser> = (0..ranking.len()).map(|position| ranking.get(position)).collect();
        prop_assert_eq!(&found, &expected);
        for (position, ranked) in found.iter().enumerate() {
            prop_assert_eq!(ranking.position_after(ranked.score, ranked.id), position + 1);
            // The position after a user with the same score who is no longer there.
            let gone = format!("{}!", ranked.id);
            prop_assert_eq!(ranking.position_after(ranked.score, &gone), position + 1);
        }
        prop_assert_eq!(ranking.position_after(f64::MAX, "z"), 0);
        prop_assert_eq!(ranking.position_after(-1.0, "a"), ranking.len());
    }
}
