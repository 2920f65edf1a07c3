//! Walks every reason for every reader.

use super::*;
use domain::campaign::HistoryScope;

/// Returns an offer of the merchant acme with a rule of every kind.
fn offer(history_scope: HistoryScope) -> Offer {
    let mut world = World::new();
    world.campaign.merchant = Some(MerchantId::new("acme").unwrap());
    world.campaign.history_scope = history_scope;
    world.coupon.rules = rules().into_iter().map(|(rule, _)| rule).collect();
    world.offer()
}

/// Returns a rule of every kind, each with what it may see.
fn rules() -> Vec<(Rule, Vec<Seen>)> {
    let set = || item_set(&["i0"]);
    let category = Category::new("tea").unwrap();
    let last_bought = Seen::LastBought { at: noon(1) };
    let attribute = Rule::Attribute {
        name: "town".to_owned(),
        values: vec!["Bath".to_owned()],
    };
    let ely = Seen::Attribute(Some("Ely".to_owned()));
    vec![
        (Rule::Bought(set()), vec![Seen::NoneBought]),
        (Rule::NotBought(set()), vec![Seen::Bought { item: item_id("i0") }]),
        (
            Rule::CategoryAffinity {
                category,
                min_share: 0.5,
            },
            vec![Seen::Share(0.25)],
        ),
        (Rule::MinAffinity { min_score: 3.0 }, vec![Seen::Affinity(1.5)]),
        (Rule::NewUser, vec![last_bought.clone(), Seen::NotTrained]),
        (
            Rule::LapsedUser { days: 30 },
            vec![last_bought, Seen::NeverBought, Seen::NotTrained],
        ),
        (attribute, vec![ely, Seen::Attribute(None)]),
    ]
}

/// The position of the attribute's rule among [`rules`].
const ATTRIBUTE: usize = 6;

/// Returns every failure with this code that a reader could be told differently from another one.
fn examples(code: Code) -> Vec<Failure> {
    let (now, currency) = (noon(15), usd());
    let conflict = |with_own_merchant| Failure::ExclusiveConflict {
        with: CouponId::new("theirs").unwrap(),
        with_own_merchant,
    };
    match code {
        Code::CouponUnknown => vec![Failure::CouponUnknown],
        Code::CampaignDraft => vec![Failure::CampaignDraft],
        Code::CampaignNotStarted => vec![Failure::CampaignNotStarted {
            starts_at: noon(16),
            now,
        }],
        Code::CampaignEnded => vec![Failure::CampaignEnded { ends_at: noon(14), now }],
        Code::CampaignPaused => vec![Failure::CampaignPaused],
        Code::BudgetExhausted => vec![Failure::BudgetExhausted {
            needed_minor: 2,
            left_minor: 1,
            currency,
        }],
        Code::TotalCapReached => vec![Failure::TotalCapReached {
            cap: 2,
            reserved: 1,
            redeemed: 1,
        }],
        Code::UserCapReached => vec![Failure::UserCapReached {
            cap: 2,
            reserved: 1,
            redeemed: 1,
        }],
        Code::AlreadyRedeemed => vec![Failure::AlreadyRedeemed],
        Code::NotAssigned => vec![Failure::NotAssigned],
        Code::UserUnknown => vec![Failure::UserUnknown],
        Code::RuleFailed => {
            let rules = (0..).zip(rules());
            rules
                .flat_map(|(rule, (_, seen))| seen.into_iter().map(move |seen| Failure::RuleFailed { rule, seen }))
                .collect()
        }
        Code::MinCartNotMet => vec![Failure::MinCartNotMet {
            required_minor: 2,
            seen_minor: 1,
            currency,
        }],
        Code::NoQualifyingItem => vec![Failure::NoQualifyingItem, Failure::EmptyScope],
        Code::CurrencyMismatch => vec![Failure::CurrencyMismatch {
            required: currency,
            seen: currency,
        }],
        Code::ExclusiveConflict => vec![conflict(false), conflict(true)],
        Code::NoMarketingConsent => vec![
            Failure::NoMarketingConsent { is_refused: true },
            Failure::NoMarketingConsent { is_refused: false },
        ],
        Code::ProfilingObjected => vec![Failure::ProfilingObjected { rule: 0 }],
        Code::Suppressed => vec![Failure::Suppressed],
        Code::FrequencyCapped => vec![Failure::FrequencyCapped {
            max: 2,
            seen: 3,
            days: 7,
        }],
        Code::HeldOut => vec![Failure::HeldOut],
        Code::AlreadyApplied => vec![Failure::AlreadyApplied],
    }
}

/// Returns what `reader` must be told in the place of `failure`.
fn expected(failure: &Failure, reader: Reader, scope: HistoryScope) -> Failure {
    match (reader, failure) {
        (Reader::Other | Reader::Merchant, Failure::HeldOut) => Failure::NotAssigned,
        (
            Reader::Merchant,
            Failure::FrequencyCapped { .. }
            | Failure::ExclusiveConflict {
                with_own_merchant: false,
                ..
            },
        ) => Failure::NotAssigned,
        (Reader::Merchant, &Failure::RuleFailed { rule, .. })
            if rule == ATTRIBUTE || scope == HistoryScope::Platform =>
        {
            let seen = Seen::Hidden;
            Failure::RuleFailed { rule, seen }
        }
        (_, failure) => failure.clone(),
    }
}

#[test]
fn every_reader_is_told_every_reason_as_it_may_see_it() {
    for scope in [HistoryScope::OwnMerchant, HistoryScope::Platform] {
        let offer = offer(scope);
        for (code, reader) in Code::ALL
            .into_iter()
            .flat_map(|code| Reader::ALL.map(|reader| (code, reader)))
        {
            for failure in examples(code) {
                assert_eq!(failure.code(), code);
                let assessment = Assessment {
                    verdict: Verdict::Ineligible,
                    failures: vec![failure.clone()],
                    discount_minor: None,
                };
                let told = visibility::of_assessment(assessment, reader, Some(&offer));
                assert_eq!(told.verdict, Verdict::Ineligible);
                assert_eq!(
                    told.failures,
                    [expected(&failure, reader, scope)],
                    "{reader:?} {scope:?}"
                );
                let texts = told.failures[0].required(Some(&offer)) + &told.failures[0].seen();
                let names_theirs = reader == Reader::Merchant
                    && !matches!(
                        failure,
                        Failure::ExclusiveConflict {
                            with_own_merchant: true,
                            ..
                        }
                    );
                for secret in ["theirs", "Ely", "3 offered", "held out"]
                    .into_iter()
                    .filter(|_| names_theirs)
                {
                    assert!(!texts.contains(secret), "{texts}");
                }
            }
        }
    }
}

#[test]
fn several_hidden_reasons_are_told_as_one() {
    let mut world = World::new();
    world.campaign.merchant = Some(MerchantId::new("acme").unwrap());
    world.campaign.holdout.basis_points = 10_000;
    world.campaign.is_exclusive = true;
    world.user.reserved = vec![(CouponId::new("theirs").unwrap(), CampaignId::new("l").unwrap())];
    world.policy.max_exposures = Some(1);
    world.user.recent_exposures = vec![CouponId::new("theirs").unwrap()];
    world.user.consents = world.user.consents.suppressed(true);
    let codes = |reader| told(&world, reader).iter().map(Failure::code).collect::<Vec<_>>();
    assert_eq!(codes(Reader::Merchant), [Code::NotAssigned, Code::Suppressed]);
    assert_eq!(
        codes(Reader::Other),
        [
            Code::NotAssigned,
            Code::ExclusiveConflict,
            Code::Suppressed,
            Code::FrequencyCapped
        ]
    );
    assert_eq!(
        codes(Reader::Operator),
        [
            Code::ExclusiveConflict,
            Code::Suppressed,
            Code::FrequencyCapped,
            Code::HeldOut
        ]
    );
}

#[test]
fn a_conflict_with_a_coupon_of_the_same_merchant_is_told_to_the_merchant() {
    let mut world = World::new();
    world.campaign.merchant = Some(MerchantId::new("acme").unwrap());
    world.campaign.is_exclusive = true;
    let other = |coupon_id: &str, campaign_id: &str, merchant: Option<&str>| {
        let mut campaign = campaign(campaign_id);
        campaign.merchant = merchant.map(|id| MerchantId::new(id).unwrap());
        let campaign = Arc::new(campaign);
        Arc::new(Offer {
            coupon: coupon(coupon_id),
            campaign,
        })
    };
    world.others = vec![
        other("theirs", "l", Some("zenith")),
        other("ours", "m", Some("acme")),
        other("platform", "n", None),
    ];
    let reserve = |world: &World, ids: &[(&str, &str)]| {
        let mut world = world.clone();
        let id =
            |&(coupon, campaign): &(&str, &str)| (CouponId::new(coupon).unwrap(), CampaignId::new(campaign).unwrap());
        world.user.reserved = ids.iter().map(id).collect();
        told(&world, Reader::Merchant)
    };
    let ours = [Failure::ExclusiveConflict {
        with: CouponId::new("ours").unwrap(),
        with_own_merchant: true,
    }];
    assert_eq!(reserve(&world, &[("theirs", "l")]), [Failure::NotAssigned]);
    assert_eq!(reserve(&world, &[("platform", "n")]), [Failure::NotAssigned]);
    assert_eq!(reserve(&world, &[("ours", "m")]), ours);
    assert_eq!(reserve(&world, &[("theirs", "l"), ("ours", "m")]), ours);
}
