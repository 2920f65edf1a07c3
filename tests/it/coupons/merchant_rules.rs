//! The facts about users that a merchant learns by the rules of its coupons.

use std::collections::BTreeSet;

use likemind::grpc::proto::v1::purchase_service_client::PurchaseServiceClient;
use likemind::grpc::proto::v1::stream_coupon_targets_response::Message;
use likemind::grpc::proto::v1::{
    CampaignSpec, CampaignState, Cart, CheckEligibilityRequest, DeletePurchasesRequest, DeletionOutcome, EntryOutcome,
    HistoryScope, PurchaseLine, PurchaseSelection, Reason, ReasonCode, RecordPurchasesRequest, ReserveCouponRequest,
    StreamCouponTargetsRequest, Verdict,
};
use sqlx::PgConnection;
use tonic::Code;

use crate::support::answers::{assert_outcomes, assert_status};
use crate::support::api_keys::{WithKey, create_key};
use crate::support::caller::pounds;
use crate::support::campaigns::{CampaignClient, a_campaign, a_coupon, campaign_change};
use crate::support::coupons::{CouponClient, Offer, cart};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::shop::{self, USERS, user};

/// Coupons of merchant m0 with a rule each. Even items belong to m0, odd ones to m1.
const COUPONS: [(&str, &str); 7] = [
    ("new", r#"["new_user"]"#),
    ("lapsed", r#"[{"lapsed_user": {"days": 30}}]"#),
    ("bought", r#"[{"bought": {"items": ["i01", "i02"]}}]"#),
    ("not-bought", r#"[{"not_bought": {"items": ["i01", "i02"]}}]"#),
    ("affinity", r#"[{"min_affinity": {"min_score": 2.0}}]"#),
    (
        "games",
        r#"[{"category_affinity": {"category": "games", "min_share": 0.1}}]"#,
    ),
    ("gold", r#"[{"attribute": {"name": "tier", "values": ["gold"]}}]"#),
];

fn offers() -> Vec<Offer> {
    let offer = |(id, rules)| Offer {
        merchant: Some("m0"),
        rules,
        ..Offer::of(id)
    };
    COUPONS.map(offer).to_vec()
}

/// u001 has bought from m1 only, u002 from m0 only, u003 from both, u007 twice from m0, all of them long ago.
const BOUGHT: &str = "INSERT INTO purchases (order_id, user_id, item_id, line_number, quantity, line_total_minor,
                                         currency_code, purchased_at)
    SELECT 'o' || users.id || items.id, users.id, items.id, 1, 1, 100, 'GBP',
           now() - interval '90 days' + make_interval(days => items.id::int)
    FROM users JOIN items ON (users.external_id, items.external_id) IN
        (('u001', 'i01'), ('u002', 'i02'), ('u003', 'i02'), ('u003', 'i03'), ('u007', 'i02'), ('u007', 'i20'));
    INSERT INTO user_attributes SELECT id, 'tier', 'silver' FROM users WHERE external_id = 'u001'";

struct World {
    _database: TestDatabase,
    connection: PgConnection,
    server: Server,
    own: CouponClient,
    operator: CouponClient,
    own_key: String,
    operator_key: String,
}

impl World {
    async fn open() -> Self {
        let database = shop::open().await;
        let mut connection = database.connect().await;
        execute(&mut connection, BOUGHT).await;
        shop::train(database.url());
        for offer in offers() {
            offer.create(&mut connection).await;
        }
        let own_key = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
        let operator_key = create_key(&database, &["--role", "admin"]);
        let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
        Self {
            own: CouponClient::with_key(&server, Some(&own_key)).await,
            operator: CouponClient::with_key(&server, Some(&operator_key)).await,
            _database: database,
            connection,
            server,
            own_key,
            operator_key,
        }
    }

    async fn check(&self, client: &CouponClient, number: usize, coupon: &str) -> (Verdict, Vec<Reason>) {
        let request = CheckEligibilityRequest {
            user_id: user(number),
            coupon_ids: vec![coupon.to_owned()],
            cart: None,
        };
        let answer = client.rpc.clone().check_eligibility(request).await.unwrap();
        let found = answer.into_inner().coupons.remove(0);
        (found.verdict(), found.reasons)
    }

    /// Returns what the merchant is told that a rule saw; `None` where it holds.
    async fn seen(&self, number: usize, coupon: &str) -> Option<String> {
        let (verdict, reasons) = self.check(&self.own, number, coupon).await;
        assert_eq!(verdict == Verdict::Ineligible, !reasons.is_empty());
        reasons.into_iter().next().map(|reason| {
            assert_eq!(reason.code(), ReasonCode::RuleFailed);
            reason.seen
        })
    }

    async fn buy(&self, number: usize, item: usize) {
        let line = PurchaseLine {
            order_id: format!("new-{number}"),
            line_number: 1,
            user_id: user(number),
            item_id: shop::item(item),
            quantity: 1,
            line_total: Some(pounds(100)),
            ..PurchaseLine::default()
        };
        let request = RecordPurchasesRequest { lines: vec![line] };
        let key = WithKey::new(Some(&self.operator_key));
        let mut client = PurchaseServiceClient::with_interceptor(self.server.channel().await, key);
        let answer = client.record_purchases(request).await.unwrap().into_inner();
        assert_outcomes(&answer.results, &[Ok(EntryOutcome::Stored)]);
    }

    /// Takes the purchase of an item back that the snapshot knows.
    async fn take_back(&mut self, number: usize, item: usize) {
        let order = "SELECT order_id FROM purchases JOIN users ON users.id = user_id JOIN items ON items.id = item_id
                     WHERE (users.external_id, items.external_id) = ($1, $2)";
        let order = sqlx::query_scalar(order).bind(user(number)).bind(shop::item(item));
        let selection = PurchaseSelection {
            order_id: order.fetch_one(&mut self.connection).await.unwrap(),
            ..PurchaseSelection::default()
        };
        let request = DeletePurchasesRequest {
            selections: vec![selection],
        };
        let key = WithKey::new(Some(&self.operator_key));
        let mut client = PurchaseServiceClient::with_interceptor(self.server.channel().await, key);
        let answer = client.delete_purchases(request).await.unwrap().into_inner();
        assert_eq!(answer.results[0].outcome(), DeletionOutcome::Deleted);
    }

    /// Asserts that the targets of every coupon are the users whom CheckEligibility finds eligible.
    async fn assert_targets_are_the_eligible(&self) {
        for (coupon, _) in COUPONS {
            let request = StreamCouponTargetsRequest {
                coupon_id: coupon.to_owned(),
                preview: true,
                ..StreamCouponTargetsRequest::default()
            };
            let mut stream = self
                .own
                .rpc
                .clone()
                .stream_coupon_targets(request)
                .await
                .unwrap()
                .into_inner();
            let mut listed = BTreeSet::new();
            while let Some(message) = stream.message().await.unwrap() {
                if let Some(Message::Target(target)) = message.message {
                    listed.insert(target.user_id);
                }
            }
            let mut eligible = BTreeSet::new();
            for number in 0..USERS {
                if self.check(&self.own, number, coupon).await.0 != Verdict::Ineligible {
                    eligible.insert(user(number));
                }
            }
            assert_eq!(listed, eligible, "{coupon}");
        }
    }
}

#[tokio::test]
async fn rules_of_a_merchants_coupons_see_only_its_own_facts() {
    let world = World::open().await;
    let last = |seen: Option<String>| seen.is_some_and(|seen| seen.starts_with("last bought something at "));
    // u001 has bought only from m1, which m0 must not learn.
    assert_eq!(world.seen(1, "new").await, None);
    assert_eq!(
        world.seen(1, "lapsed").await.as_deref(),
        Some("has never bought anything")
    );
    assert_eq!(world.seen(1, "bought").await.as_deref(), Some("bought none of them"));
    assert_eq!(world.seen(1, "not-bought").await, None);
    assert_eq!(world.seen(1, "games").await.as_deref(), Some("a share of 0"));
    assert_eq!(world.seen(1, "gold").await.as_deref(), Some("something else"));
    assert_eq!(world.seen(5, "gold").await.as_deref(), Some("something else"));
    assert!(last(world.seen(2, "new").await));
    assert_eq!(world.seen(2, "lapsed").await, None);
    // The order from m1 came later, and is not the one that is told.
    let (of_u002, of_u003) = (world.seen(2, "new").await, world.seen(3, "new").await);
    assert!(last(of_u003.clone()));
    assert_eq!(of_u002, of_u003);
    world.assert_targets_are_the_eligible().await;

    // A purchase counts at once, in both answers.
    for (number, item) in [(1, 4), (2, 5), (4, 7)] {
        world.buy(number, item).await;
    }
    assert!(world.seen(1, "new").await.is_some());
    assert_eq!(
        world.seen(2, "lapsed").await,
        None,
        "the purchase was from another merchant"
    );
    assert_eq!(world.seen(4, "new").await, None);
    world.assert_targets_are_the_eligible().await;
}

#[tokio::test]
async fn a_last_order_from_a_merchant_that_is_taken_back_counts_no_more() {
    let mut world = World::open().await;
    let (earlier, later) = (world.seen(2, "new").await, world.seen(7, "new").await);
    assert!(
        earlier.is_some() && later.is_some() && earlier != later,
        "{earlier:?}, {later:?}"
    );
    world.take_back(7, 20).await;
    assert_eq!(world.seen(7, "new").await, earlier);
    world.buy(7, 5).await;
    assert_eq!(
        world.seen(7, "new").await,
        earlier,
        "the purchase was from another merchant"
    );
    world.take_back(7, 2).await;
    assert_eq!(world.seen(7, "new").await, None);
    world.assert_targets_are_the_eligible().await;
}

#[tokio::test]
async fn the_preview_of_a_cart_tells_a_merchant_nothing_of_the_coupons_of_others() {
    let mut world = World::open().await;
    for (merchant, id, amount_minor) in [(None, "platforms", 600), (Some("m0"), "own", 5_000)] {
        let offer = Offer {
            merchant,
            amount_minor,
            ..Offer::of(id)
        };
        offer.create(&mut world.connection).await;
    }
    let cart = Cart {
        cart_id: "basket".to_owned(),
        ..cart(&[(2, 1_000)])
    };
    let reserved = ReserveCouponRequest {
        request_id: "r".to_owned(),
        user_id: user(9),
        coupon_id: "platforms".to_owned(),
        cart: Some(cart.clone()),
    };
    world.operator.rpc.clone().reserve_coupon(reserved).await.unwrap();
    for (client, left_minor) in [(&world.operator, 400), (&world.own, 1_000)] {
        let request = CheckEligibilityRequest {
            user_id: user(9),
            coupon_ids: vec!["own".to_owned()],
            cart: Some(cart.clone()),
        };
        let answer = client
            .rpc
            .clone()
            .check_eligibility(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.coupons[0].discount_minor, Some(left_minor));
    }
}

#[tokio::test]
async fn an_operator_grants_a_campaign_the_history_of_the_platform_and_the_audit_tells() {
    let mut world = World::open().await;
    let own = CampaignClient::with_key(&world.server, Some(&world.own_key)).await;
    let operator = CampaignClient::with_key(&world.server, Some(&world.operator_key)).await;
    let scope = |scope: HistoryScope| CampaignSpec {
        history_scope: Some(scope.into()),
        ..campaign_change("k-new")
    };
    let refused = own.update(scope(HistoryScope::Platform)).await.unwrap_err();
    assert_status(&refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    let created = CampaignSpec {
        history_scope: Some(HistoryScope::Platform.into()),
        ..a_campaign("mine")
    };
    let refused = own.create(created, CampaignState::Draft).await.unwrap_err();
    assert_status(&refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    assert_eq!(own.get("k-new").await.unwrap().history_scope(), HistoryScope::Own);

    assert_eq!(world.seen(1, "new").await, None);
    let granted = operator.update(scope(HistoryScope::Platform)).await.unwrap();
    assert_eq!(granted.history_scope(), HistoryScope::Platform);
    // The merchant learns that the rule fails, but not when the user bought something.
    assert_eq!(world.seen(1, "new").await.as_deref(), Some("something else"));
    let (_, reasons) = world.check(&world.operator, 1, "new").await;
    assert!(reasons[0].seen.starts_with("last bought something at "), "{reasons:?}");
    world.assert_targets_are_the_eligible().await;

    // The merchant may change its campaign and may give the grant back.
    own.update(campaign_change("k-new")).await.unwrap();
    assert_eq!(own.get("k-new").await.unwrap().history_scope(), HistoryScope::Platform);
    own.update(scope(HistoryScope::Own)).await.unwrap();
    assert_eq!(world.seen(1, "new").await, None);
    let audit: Vec<(String, String)> =
        sqlx::query_as("SELECT action, subject FROM audit WHERE action LIKE 'PLATFORM_HISTORY%' ORDER BY id")
            .fetch_all(&mut world.connection)
            .await
            .unwrap();
    let row = |action: &str| (action.to_owned(), "k-new".to_owned());
    assert_eq!(
        audit,
        [row("PLATFORM_HISTORY_GRANTED"), row("PLATFORM_HISTORY_WITHDRAWN")]
    );
}

#[tokio::test]
async fn an_id_of_somebody_else_is_refused_without_saying_whose_it_is() {
    let mut world = World::open().await;
    let theirs = Offer {
        merchant: Some("m1"),
        ..Offer::of("theirs")
    };
    theirs.create(&mut world.connection).await;
    Offer::of("platforms").create(&mut world.connection).await;
    let own = CampaignClient::with_key(&world.server, Some(&world.own_key)).await;
    for id in ["k-theirs", "k-platforms"] {
        let refused = own.create(a_campaign(id), CampaignState::Draft).await.unwrap_err();
        assert_status(&refused, Code::FailedPrecondition, "ID_NOT_AVAILABLE");
        assert!(!refused.message().contains(id), "{refused:?}");
    }
    for id in ["theirs", "platforms"] {
        let refused = own.create_coupon(a_coupon(id, "k-new")).await.unwrap_err();
        assert_status(&refused, Code::FailedPrecondition, "ID_NOT_AVAILABLE");
        assert!(!refused.message().contains(id), "{refused:?}");
    }
    let refused = own.create_coupon(a_coupon("new", "k-new")).await.unwrap_err();
    assert_status(&refused, Code::AlreadyExists, "COUPON_EXISTS");
}
