//! CheckEligibility and ListUserCoupons.

use std::collections::{BTreeMap, BTreeSet};

use likemind::grpc::proto::v1::stream_coupon_targets_response::Message;
use likemind::grpc::proto::v1::{
    Cart, CheckEligibilityRequest, Eligibility, ListUserCouponsRequest, ListUserCouponsResponse, ReasonCode,
    StreamCouponTargetsRequest, Verdict,
};
use sqlx::PgConnection;
use tonic::Code;

use crate::support::answers::assert_status;
use crate::support::api_keys::create_key;
use crate::support::coupons::{CouponClient, Offer, cart};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::shop::user;
use crate::support::{postgres, shop};

/// Opens the shop with these offers.
async fn open(offers: &[Offer]) -> (TestDatabase, PgConnection) {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    for offer in offers {
        offer.create(&mut connection).await;
    }
    (database, connection)
}

/// Checks `coupons`, or all coupons on offer if none is named.
async fn check(client: &CouponClient, user: &str, coupons: &[&str], cart: Option<Cart>) -> Vec<Eligibility> {
    let request = CheckEligibilityRequest {
        user_id: user.to_owned(),
        coupon_ids: coupons.iter().map(|&id| id.to_owned()).collect(),
        cart,
    };
    let answer = client.rpc.clone().check_eligibility(request).await.unwrap();
    answer.into_inner().coupons
}

async fn list(client: &CouponClient, request: ListUserCouponsRequest) -> ListUserCouponsResponse {
    client
        .rpc
        .clone()
        .list_user_coupons(request)
        .await
        .unwrap()
        .into_inner()
}

fn asked(user: &str) -> ListUserCouponsRequest {
    ListUserCouponsRequest {
        user_id: user.to_owned(),
        preview: true,
        ..ListUserCouponsRequest::default()
    }
}

fn ids(listed: &ListUserCouponsResponse) -> Vec<&str> {
    let coupons = listed.coupons.iter();
    coupons
        .map(|listed| listed.coupon.as_ref().unwrap().coupon_id.as_str())
        .collect()
}

fn codes(found: &Eligibility) -> Vec<ReasonCode> {
    found.reasons.iter().map(|reason| reason.code()).collect()
}

fn texts(found: &Eligibility) -> Vec<(&str, &str)> {
    let reasons = found.reasons.iter();
    reasons
        .map(|reason| (reason.required.as_str(), reason.seen.as_str()))
        .collect()
}

/// Returns one offer of every kind. The ids say what is particular about each.
fn all_kinds() -> Vec<Offer> {
    vec![
        Offer::of("any"),
        Offer {
            min_cart_minor: 5_000,
            ..Offer::of("big-cart")
        },
        Offer {
            covers: Some(&[2, 4]),
            ..Offer::of("i02-or-i04")
        },
        Offer {
            state: "draft",
            ..Offer::of("draft")
        },
        Offer {
            state: "scheduled",
            starts_in: "1 hour",
            ..Offer::of("soon")
        },
        Offer {
            state: "scheduled",
            ..Offer::of("begun")
        },
        Offer {
            starts_in: "-2 days",
            ends_in: "-1 minute",
            ..Offer::of("over")
        },
        Offer {
            state: "ended",
            ..Offer::of("ended")
        },
        Offer {
            state: "paused",
            limit_minor: Some(0),
            total_cap: Some(0),
            ..Offer::of("paused-and-used-up")
        },
        Offer {
            limit_minor: Some(999),
            ..Offer::of("almost-spent")
        },
        Offer {
            is_assigned: true,
            ..Offer::of("assigned")
        },
        Offer {
            holdout_basis_points: 10_000,
            ..Offer::of("held-out")
        },
        Offer {
            rules: r#"[{"attribute": {"name": "tier", "values": ["gold"]}}, {"bought": {"items": ["i03"]}}]"#,
            ..Offer::of("gold-i03")
        },
    ]
}

const ALL_KINDS: [&str; 14] = [
    "gold-i03",
    "any",
    "big-cart",
    "i02-or-i04",
    "draft",
    "soon",
    "begun",
    "over",
    "ended",
    "paused-and-used-up",
    "almost-spent",
    "assigned",
    "held-out",
    "none",
];

type Verdicts = BTreeMap<String, (Verdict, Vec<ReasonCode>)>;

/// Returns the verdicts by coupon, which must come in the order of the request, [`ALL_KINDS`].
fn verdicts(found: &[Eligibility]) -> Verdicts {
    assert!(found.iter().map(|found| found.coupon_id.as_str()).eq(ALL_KINDS));
    let verdict = |found: &Eligibility| (found.coupon_id.clone(), (found.verdict(), codes(found)));
    found.iter().map(verdict).collect()
}

/// Returns the verdicts that user 1 gets for [`ALL_KINDS`] with any cart, and `others`, which depend on the cart.
fn expected_verdicts(others: &[(&str, Verdict, &[ReasonCode])]) -> Verdicts {
    use ReasonCode::*;
    let ineligible: [(&str, &[ReasonCode]); 9] = [
        ("gold-i03", &[RuleFailed, RuleFailed]),
        ("draft", &[CampaignDraft]),
        ("soon", &[CampaignNotStarted]),
        ("over", &[CampaignEnded]),
        ("ended", &[CampaignEnded]),
        (
            "paused-and-used-up",
            &[CampaignPaused, BudgetExhausted, TotalCapReached],
        ),
        ("assigned", &[NotAssigned]),
        ("held-out", &[HeldOut]),
        ("none", &[CouponUnknown]),
    ];
    let ineligible = ineligible.map(|(id, codes)| (id, Verdict::Ineligible, codes));
    ineligible
        .iter()
        .chain(others)
        .map(|(id, verdict, codes)| ((*id).to_owned(), (*verdict, codes.to_vec())))
        .collect()
}

#[tokio::test]
async fn a_verdict_without_a_cart_gives_every_reason_and_names_the_missing_cart() {
    let (database, _) = open(&all_kinds()).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    let found = check(&client, &user(1), &ALL_KINDS, None).await;
    let expected = expected_verdicts(&[
        ("any", Verdict::Eligible, &[]),
        ("begun", Verdict::Eligible, &[]),
        ("almost-spent", Verdict::Eligible, &[]),
        ("big-cart", Verdict::Indeterminate, &[]),
        ("i02-or-i04", Verdict::Indeterminate, &[]),
    ]);
    assert_eq!(verdicts(&found), expected);
    for found in &found {
        let missing: &[&str] = match found.verdict() {
            Verdict::Indeterminate => &["cart"],
            _ => &[],
        };
        assert_eq!(found.missing, missing, "{found:?}");
        assert_eq!(found.discount_minor, None);
        for reason in &found.reasons {
            assert!(!reason.required.is_empty() && !reason.seen.is_empty(), "{found:?}");
        }
    }
}

#[tokio::test]
async fn a_cart_decides_and_each_reason_says_what_is_required_and_what_was_seen() {
    let (database, _) = open(&all_kinds()).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    let two_items = cart(&[(1, 1_200), (2, 700)]);
    let found = check(&client, &user(1), &ALL_KINDS, Some(two_items)).await;
    let expected = expected_verdicts(&[
        ("any", Verdict::Eligible, &[]),
        ("begun", Verdict::Eligible, &[]),
        ("almost-spent", Verdict::Ineligible, &[ReasonCode::BudgetExhausted]),
        ("big-cart", Verdict::Ineligible, &[ReasonCode::MinCartNotMet]),
        ("i02-or-i04", Verdict::Eligible, &[]),
    ]);
    assert_eq!(verdicts(&found), expected);
    let of = |id: &str| found.iter().find(|found| found.coupon_id == id).unwrap();
    assert_eq!(of("any").discount_minor, Some(1_000));
    assert_eq!(of("i02-or-i04").discount_minor, Some(700));
    assert_eq!(of("big-cart").discount_minor, None);
    assert_eq!(
        texts(of("big-cart")),
        [("at least 50.00 GBP of covered items", "19.00 GBP")]
    );
    assert_eq!(
        texts(of("almost-spent")),
        [("at least 10.00 GBP left of the budget", "9.99 GBP left")]
    );
    assert_eq!(
        texts(of("gold-i03")),
        [("tier is gold", "unknown"), ("has bought i03", "bought none of them")]
    );
}

#[tokio::test]
async fn attributes_consents_suppressions_and_assignments_decide_at_the_next_check() {
    use ReasonCode::*;
    let (database, mut connection) = open(&all_kinds()).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    let before = check(&client, &user(1), &["any", "gold-i03", "assigned"], None).await;
    assert_eq!(
        before.iter().map(codes).collect::<Vec<_>>(),
        [vec![], vec![RuleFailed, RuleFailed], vec![NotAssigned]]
    );
    // The server holds none of these in memory.
    execute(
        &mut connection,
        "INSERT INTO user_attributes SELECT id, 'tier', 'gold' FROM users WHERE external_id = 'u001';
         INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         SELECT id, purpose, false, now() FROM users, (VALUES ('marketing'), ('profiling')) AS all_of (purpose)
         WHERE external_id = 'u001';
         INSERT INTO suppressions (user_id) SELECT id FROM users WHERE external_id = 'u001'",
    )
    .await;
    execute(&mut connection, ASSIGN_USER_1).await;
    let found = check(&client, &user(1), &["any", "gold-i03", "assigned"], None).await;
    assert_eq!(
        found.iter().map(codes).collect::<Vec<_>>(),
        [
            vec![NoMarketingConsent, Suppressed],
            vec![NoMarketingConsent, ProfilingObjected, Suppressed],
            vec![NoMarketingConsent, Suppressed],
        ]
    );
}

#[tokio::test]
async fn an_unknown_user_is_refused_as_unknown_and_fails_every_rule() {
    use ReasonCode::*;
    let (database, _) = open(&all_kinds()).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    let found = check(&client, "nobody", &["any", "gold-i03"], None).await;
    assert_eq!(codes(&found[0]), [UserUnknown]);
    assert_eq!(codes(&found[1]), [UserUnknown, RuleFailed, RuleFailed]);
}

/// Assigns user 1 to the campaign of the offer "assigned".
const ASSIGN_USER_1: &str = "INSERT INTO assignments SELECT campaigns.id, users.id FROM campaigns, users
    WHERE campaigns.external_id = 'k-assigned' AND users.external_id = 'u001'";

#[tokio::test]
async fn only_operators_see_that_a_user_is_held_out() {
    let (database, mut connection) = open(&all_kinds()).await;
    let keys = ["operator", "service", "marketer"].map(|role| create_key(&database, &["--role", role]));
    let server = Server::start(&database);
    let on_offer = [
        "almost-spent",
        "any",
        "begun",
        "big-cart",
        "gold-i03",
        "i02-or-i04",
        "paused-and-used-up",
        "soon",
    ];
    for (role, key) in ["operator", "service", "marketer"].into_iter().zip(&keys) {
        let client = CouponClient::with_key(&server, Some(key)).await;
        let named = check(&client, &user(1), &["held-out", "assigned"], None).await;
        let all = check(&client, &user(1), &[], None).await;
        let mut expected = on_offer.to_vec();
        if role == "operator" {
            assert_eq!(codes(&named[0]), [ReasonCode::HeldOut]);
            expected.push("held-out");
            expected.sort_unstable();
        } else {
            // The answer is the same as for a coupon that is not assigned to the user.
            assert_eq!(codes(&named[0]), [ReasonCode::NotAssigned], "{role}");
            assert_eq!(named[0].reasons, named[1].reasons, "{role}");
        }
        let found: Vec<&str> = all.iter().map(|found| found.coupon_id.as_str()).collect();
        assert_eq!(found, expected, "{role}");
    }
    // The coupon is offered to an assigned user.
    execute(&mut connection, ASSIGN_USER_1).await;
    let client = CouponClient::with_key(&server, Some(&keys[1])).await;
    let all = check(&client, &user(1), &[], None).await;
    assert_eq!(all[2].coupon_id, "assigned");
    assert_eq!((all[2].verdict(), all.len()), (Verdict::Eligible, on_offer.len() + 1));
}

#[tokio::test]
async fn a_merchants_key_learns_only_of_its_own_coupons() {
    let offers = [
        Offer {
            merchant: Some("m0"),
            rules: r#"[{"not_bought": {"categories": ["games"]}}]"#,
            ..Offer::of("own")
        },
        Offer {
            merchant: Some("m1"),
            is_exclusive: true,
            ..Offer::of("theirs")
        },
        Offer::of("platforms"),
    ];
    let (database, _) = open(&offers).await;
    let own = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
    let service = create_key(&database, &["--role", "service"]);
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    let (own, service) = (
        CouponClient::with_key(&server, Some(&own)).await,
        CouponClient::with_key(&server, Some(&service)).await,
    );
    let found = check(&own, &user(1), &["own", "theirs", "platforms", "none"], None).await;
    assert!(codes(&found[0]).is_empty(), "{found:?}");
    for other in &found[1..] {
        assert_eq!(
            (other.verdict(), codes(other)),
            (Verdict::Ineligible, vec![ReasonCode::CouponUnknown])
        );
        assert_eq!(other.reasons, found[3].reasons);
    }
    let found = check(&own, &user(1), &[], None).await;
    assert_eq!(
        found.iter().map(|found| found.coupon_id.as_str()).collect::<Vec<_>>(),
        ["own"]
    );
    assert_eq!(ids(&list(&own, asked(&user(1))).await), ["own"]);

    // A foreign coupon in the cart does not reveal whether it exists.
    let applied = Cart {
        applied_coupon_ids: vec!["theirs".to_owned()],
        ..cart(&[(2, 2_000)])
    };
    let found = check(&own, &user(1), &["own"], Some(applied.clone())).await;
    assert!(codes(&found[0]).is_empty(), "{found:?}");
    let found = check(&service, &user(1), &["own"], Some(applied)).await;
    assert_eq!(codes(&found[0]), [ReasonCode::ExclusiveConflict]);
    assert_eq!(found[0].reasons[0].seen, "coupon theirs is in use");
    // That the user has reserved a coupon of somebody else looks as if the own one were not offered to them.
    service.reserve("r", &user(1), "theirs", 2_000).await.unwrap();
    let found = check(&own, &user(1), &["own"], None).await;
    assert_eq!(codes(&found[0]), [ReasonCode::NotAssigned]);
    assert_eq!(found[0].reasons[0].seen, "not offered to this user");
    assert!(check(&own, &user(1), &[], None).await.is_empty());
    let found = check(&service, &user(1), &["own"], None).await;
    assert_eq!(found[0].reasons[0].seen, "coupon theirs is in use");
}

/// Returns the exposures of a user: the coupons, and whether the user is held out of them.
async fn exposed(connection: &mut PgConnection, user: &str) -> Vec<(String, bool)> {
    sqlx::query_as(
        "SELECT coupons.external_id, is_held_out FROM exposures
         JOIN coupons ON coupons.id = coupon_id JOIN users ON users.id = user_id
         WHERE users.external_id = $1 ORDER BY coupons.external_id",
    )
    .bind(user)
    .fetch_all(connection)
    .await
    .unwrap()
}

fn to_be_ranked() -> Vec<Offer> {
    vec![
        Offer {
            priority: 1,
            ends_in: "9 days",
            ..Offer::of("preferred")
        },
        Offer {
            priority: -1,
            ..Offer::of("last")
        },
        Offer {
            covers: Some(&[4, 8, 12]),
            ends_in: "3 days",
            ..Offer::of("a")
        },
        Offer {
            covers: Some(&[5, 9, 13]),
            ends_in: "2 days",
            ..Offer::of("b")
        },
        Offer {
            covers: Some(&[6, 10, 14]),
            ends_in: "2 days",
            ..Offer::of("c")
        },
        Offer {
            covers: Some(&[7, 11, 15]),
            ends_in: "1 day",
            ..Offer::of("d")
        },
    ]
}

/// Returns the scores that `StreamCouponTargets` gives the users for `coupon`.
async fn affinities(client: &CouponClient, coupon: &str) -> BTreeMap<String, f64> {
    let request = StreamCouponTargetsRequest {
        coupon_id: coupon.to_owned(),
        preview: true,
        ..StreamCouponTargetsRequest::default()
    };
    let answer = client.rpc.clone().stream_coupon_targets(request).await.unwrap();
    let mut stream = answer.into_inner();
    let mut scores = BTreeMap::new();
    while let Some(message) = stream.message().await.unwrap() {
        if let Some(Message::Target(target)) = message.message {
            scores.insert(target.user_id, target.score);
        }
    }
    scores
}

/// The order of [`to_be_ranked`] without anybody's history.
const ORDER_WITHOUT_HISTORY: [&str; 6] = ["preferred", "d", "b", "c", "a", "last"];

#[tokio::test]
async fn coupons_are_ranked_by_priority_then_affinity() {
    let (database, _) = open(&to_be_ranked()).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    // The scores are those of the list of targets, to the last bit.
    let mut scores: BTreeMap<&str, BTreeMap<String, f64>> = BTreeMap::new();
    for coupon in ORDER_WITHOUT_HISTORY {
        scores.insert(coupon, affinities(&client, coupon).await);
    }
    let mut orders = BTreeSet::new();
    for number in 0..8 {
        let listed = list(&client, asked(&user(number))).await;
        assert_eq!((listed.snapshot_version, listed.personalized), (1, true));
        let order = ids(&listed);
        assert_eq!((order.len(), order[0], order[5]), (6, "preferred", "last"));
        for (coupon, rank) in listed.coupons.iter().zip(1..) {
            let id = coupon.coupon.as_ref().unwrap().coupon_id.as_str();
            assert_eq!((coupon.rank, coupon.score), (rank, scores[id][&user(number)]), "{id}");
        }
        assert!(listed.coupons[1..5].is_sorted_by(|a, b| a.score >= b.score));
        orders.insert(order[1..5].join(" "));
    }
    assert!(orders.len() > 1, "{orders:?}");
}

#[track_caller]
fn assert_not_personalized(listed: &ListUserCouponsResponse) {
    assert!(!listed.personalized && listed.coupons.iter().all(|coupon| coupon.score == 0.0));
    assert_eq!(ids(listed), ORDER_WITHOUT_HISTORY);
}

#[tokio::test]
async fn without_personalization_coupons_are_ranked_by_priority_then_end() {
    let (database, mut connection) = open(&to_be_ranked()).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    for number in 0..8 {
        let request = ListUserCouponsRequest {
            personalized: Some(false),
            ..asked(&user(number))
        };
        assert_not_personalized(&list(&client, request).await);
    }
    // An objection to profiling has the same effect; an unknown user gets no coupons.
    execute(
        &mut connection,
        "INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         SELECT id, 'profiling', false, now() FROM users WHERE external_id = 'u001'",
    )
    .await;
    assert_not_personalized(&list(&client, asked(&user(1))).await);
    assert_eq!(ids(&list(&client, asked("nobody")).await), [""; 0]);
}

#[tokio::test]
async fn a_cart_leaves_only_the_coupons_that_it_qualifies_for() {
    let (database, _) = open(&to_be_ranked()).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    let request = ListUserCouponsRequest {
        cart: Some(cart(&[(5, 600)])),
        limit: 2,
        ..asked(&user(2))
    };
    let listed = list(&client, request).await;
    assert_eq!(ids(&listed), ["preferred", "b"]);
    for coupon in &listed.coupons {
        assert_eq!(
            (coupon.verdict(), coupon.discount_minor),
            (Verdict::Eligible, Some(600))
        );
        let shown = coupon.coupon.as_ref().unwrap();
        assert_eq!(
            (shown.offer.as_str(), shown.currency_code.as_str()),
            ("10.00 GBP off", "GBP")
        );
    }
    let without_cart = list(&client, asked(&user(2))).await;
    let b = without_cart
        .coupons
        .iter()
        .find(|coupon| coupon.coupon.as_ref().unwrap().coupon_id == "b");
    assert_eq!(
        b.map(|b| (b.verdict(), b.discount_minor)),
        Some((Verdict::Indeterminate, None))
    );
}

#[tokio::test]
async fn a_shown_coupon_is_logged_once_and_a_held_out_one_as_held_out() {
    let mut offers = to_be_ranked();
    for offer in &mut offers {
        // These two are shown to nobody.
        if ["preferred", "last"].contains(&offer.id) {
            offer.holdout_basis_points = 10_000;
        }
    }
    let (database, mut connection) = open(&offers).await;
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    let plain = |preview: bool, limit: i32| ListUserCouponsRequest {
        personalized: Some(false),
        preview,
        limit,
        ..asked(&user(1))
    };
    assert_eq!(ids(&list(&client, plain(true, 2)).await), ["d", "b"]);
    assert!(exposed(&mut connection, &user(1)).await.is_empty());
    assert_eq!(ids(&list(&client, plain(false, 2)).await), ["d", "b"]);
    let row = |id: &str, is_held_out: bool| (id.to_owned(), is_held_out);
    // "preferred" would have been the first of the two; "last" would not have been among them.
    assert_eq!(
        exposed(&mut connection, &user(1)).await,
        [row("b", false), row("d", false), row("preferred", true)]
    );
    let first_at = "SELECT max(exposed_at)::text FROM exposures";
    let before: String = sqlx::query_scalar(first_at).fetch_one(&mut connection).await.unwrap();
    assert_eq!(ids(&list(&client, plain(false, 2)).await), ["d", "b"]);
    let after: String = sqlx::query_scalar(first_at).fetch_one(&mut connection).await.unwrap();
    assert_eq!(before, after);
    assert_eq!(ids(&list(&client, plain(false, 0)).await), ["d", "b", "c", "a"]);
    assert_eq!(
        exposed(&mut connection, &user(1)).await,
        [
            row("a", false),
            row("b", false),
            row("c", false),
            row("d", false),
            row("last", true),
            row("preferred", true)
        ]
    );
}

#[tokio::test]
async fn no_user_is_offered_more_coupons_than_max_exposures() {
    let (database, mut connection) = open(&to_be_ranked()).await;
    let server = Server::with(&database, &[("coupons.max_exposures", "3")]);
    let client = CouponClient::of(&server).await;
    let plain = |preview: bool| ListUserCouponsRequest {
        personalized: Some(false),
        preview,
        ..asked(&user(1))
    };
    assert_eq!(ids(&list(&client, plain(true)).await), ["preferred", "d", "b"]);
    assert_eq!(ids(&list(&client, plain(false)).await), ["preferred", "d", "b"]);
    assert_eq!(exposed(&mut connection, &user(1)).await.len(), 3);
    // A coupon that was offered may be offered again; no other may.
    assert_eq!(ids(&list(&client, plain(false)).await), ["preferred", "d", "b"]);
    let found = check(&client, &user(1), &["d", "c"], None).await;
    assert!(codes(&found[0]).is_empty(), "{found:?}");
    assert_eq!(codes(&found[1]), [ReasonCode::FrequencyCapped]);
    assert_eq!(
        texts(&found[1]),
        [("fewer than 3 coupons offered in 7 days", "3 offered")]
    );
    assert_eq!(ids(&list(&client, asked(&user(2))).await).len(), 3);
}

/// Counts the statements that servers have sent to this database since it logs them.
async fn statements(connection: &mut PgConnection) -> usize {
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'likemind'",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let marks: Vec<String> = pids.iter().map(|pid| format!("[{pid}] LOG:  execute")).collect();
    let log = std::fs::read_to_string(postgres::folder("postgresql").join("postgres.log")).unwrap();
    log.lines()
        .filter(|line| marks.iter().any(|mark| line.contains(mark)))
        .count()
}

#[tokio::test]
async fn a_check_of_many_coupons_needs_one_statement() {
    let (database, mut connection) = open(&to_be_ranked()).await;
    execute(
        &mut connection,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET log_statement = ''all''', current_database()); END $$",
    )
    .await;
    // The server sends statements only for the requests of this test.
    let quiet = [
        ("live.refresh_interval_ms", "3600000"),
        ("coupons.sweep_interval_ms", "3600000"),
    ];
    let server = Server::with(&database, &quiet);
    let client = CouponClient::of(&server).await;
    // In the first round the server may still be starting, so the least of all rounds counts.
    let [mut named, mut all, mut listed, mut logged] = [usize::MAX; 4];
    for round in 0..4 {
        let mut before = statements(&mut connection).await;
        let mut asked_since = async || {
            let now = statements(&mut connection).await;
            now - std::mem::replace(&mut before, now)
        };
        let found = check(&client, &user(1), &["a", "b", "c", "d", "last", "preferred"], None).await;
        assert_eq!(found.len(), 6);
        named = named.min(asked_since().await);
        assert_eq!(check(&client, &user(1), &[], Some(cart(&[(5, 600)]))).await.len(), 6);
        all = all.min(asked_since().await);
        assert_eq!(list(&client, asked(&user(1))).await.coupons.len(), 6);
        listed = listed.min(asked_since().await);
        let request = ListUserCouponsRequest {
            preview: false,
            ..asked(&user(10 + round))
        };
        list(&client, request).await;
        logged = logged.min(asked_since().await);
    }
    // The last request also logs what it shows.
    assert_eq!([named, all, listed, logged], [1, 1, 1, 2]);
}

#[tokio::test]
async fn an_answer_that_clients_would_not_accept_is_refused_by_name() {
    let values = ["v".repeat(1_000), "w".repeat(1_000), "x".repeat(1_000)];
    let rule = |number| format!(r#"{{"attribute": {{"name": "tier{number}", "values": {values:?}}}}}"#);
    let rules: Vec<String> = (0..16).map(rule).collect();
    let rules: &'static str = format!("[{}]", rules.join(",")).leak();
    let ids: Vec<&'static str> = (0..100).map(|number| &*format!("c{number}").leak()).collect();
    let offers: Vec<Offer> = ids.iter().map(|&id| Offer { rules, ..Offer::of(id) }).collect();
    let (database, _) = open(&offers).await;
    let server = Server::start(&database);
    let client = CouponClient::with_key(&server, None).await;
    for coupon_ids in [Vec::new(), ids.iter().map(|&id| id.to_owned()).collect()] {
        let request = CheckEligibilityRequest {
            user_id: user(1),
            coupon_ids,
            cart: None,
        };
        let refused = client.rpc.clone().check_eligibility(request).await.unwrap_err();
        assert_status(&refused, Code::InvalidArgument, "ANSWER_TOO_LARGE");
        assert!(refused.message().contains("the limit is: 4194304 bytes"), "{refused:?}");
    }
    assert_eq!(check(&client, &user(1), &ids[..50], None).await.len(), 50);
}
