//! Coupons whose scope or rules name what the catalog does not have.

use std::collections::BTreeMap;

use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::{
    CampaignSpec, CampaignState, CategoryAffinity, CheckEligibilityRequest, Coupon, CouponSpec, CouponWarning,
    CreateCouponRequest, GetCouponRequest, GetItemRequest, Item, ReasonCode, Scope, StreamCouponTargetsRequest,
    UpdateCouponRequest, UpsertItemsRequest, Verdict, rule, stream_coupon_targets_response::Message,
};
use tonic::Code;

use crate::support::answers::assert_status;
use crate::support::api_keys::create_key;
use crate::support::campaigns::{
    CampaignClient, a_campaign, a_coupon, a_set, coupon_change, covering, everything, rules,
};
use crate::support::coupons::cart;
use crate::support::postgres::TestDatabase;
use crate::support::program::{Server, succeed_at};
use crate::support::shop::{self, ITEMS, USERS, user};

/// Starts a server of the shop with the active campaign k of the platform, and m of merchant m0. Even items are books of m0,
/// odd ones games of m1.
async fn serve() -> (TestDatabase, Server, CampaignClient) {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Active).await.unwrap();
    let of_m0 = CampaignSpec {
        merchant_id: Some("m0".to_owned()),
        ..a_campaign("m")
    };
    client.create(of_m0, CampaignState::Active).await.unwrap();
    (database, server, client)
}

async fn create(client: &CampaignClient, coupon: CouponSpec) -> (Coupon, Vec<CouponWarning>) {
    let request = CreateCouponRequest { coupon: Some(coupon) };
    let answer = client.rpc.clone().create_coupon(request).await.unwrap().into_inner();
    (answer.coupon.unwrap(), answer.warnings)
}

async fn update(client: &CampaignClient, coupon: CouponSpec) -> (Coupon, Vec<CouponWarning>) {
    let request = UpdateCouponRequest {
        coupon: Some(coupon),
        ..UpdateCouponRequest::default()
    };
    let answer = client.rpc.clone().update_coupon(request).await.unwrap().into_inner();
    (answer.coupon.unwrap(), answer.warnings)
}

/// Returns the reason, the field and the names of each warning.
fn told(warnings: &[CouponWarning]) -> Vec<(&str, &str, Vec<&str>)> {
    warnings
        .iter()
        .map(|warning| {
            let names = warning.names.iter().map(String::as_str).collect();
            (warning.reason.as_str(), warning.field.as_str(), names)
        })
        .collect()
}

/// Lists the targets. Returns how many users were considered, are eligible, and were excluded by reason, and the rows.
async fn targets(server: &Server, coupon: &str) -> (i64, i64, BTreeMap<ReasonCode, i64>, usize) {
    let request = StreamCouponTargetsRequest {
        coupon_id: coupon.to_owned(),
        preview: true,
        ..StreamCouponTargetsRequest::default()
    };
    let mut client = CouponServiceClient::new(server.channel().await);
    let mut stream = client.stream_coupon_targets(request).await.unwrap().into_inner();
    let Some(Message::Header(header)) = stream.message().await.unwrap().unwrap().message else {
        panic!("no header");
    };
    let mut rows = 0;
    while stream.message().await.unwrap().is_some() {
        rows += 1;
    }
    let excluded = header.excluded.iter().map(|count| (count.code(), count.users));
    (header.audience_count, header.eligible_count, excluded.collect(), rows)
}

async fn check(server: &Server, coupon: &str, with_cart: bool) -> (Verdict, Vec<ReasonCode>) {
    let request = CheckEligibilityRequest {
        user_id: user(0),
        coupon_ids: vec![coupon.to_owned()],
        cart: with_cart.then(|| cart(&[(1, 5_000)])),
    };
    let mut client = CouponServiceClient::new(server.channel().await);
    let answer = client.check_eligibility(request).await.unwrap().into_inner();
    let only = &answer.coupons[0];
    (
        only.verdict(),
        only.reasons.iter().map(|reason| reason.code()).collect(),
    )
}

#[tokio::test]
async fn a_coupon_says_how_many_items_its_scope_covers_whatever_kind_it_is() {
    let (_database, _server, client) = serve().await;
    let half = ITEMS as i64 / 2;
    let cases: [(&str, Option<Scope>, i64); 9] = [
        ("k", None, 2 * half),
        ("k", everything(), 2 * half),
        ("k", covering(a_set(&[], &["books"], &[])), half),
        ("k", covering(a_set(&[], &["books", "games"], &[])), 2 * half),
        // i02 is a book, so that only i01 and i03 are more.
        (
            "k",
            covering(a_set(&["i01", "i02", "i03"], &["books"], &["m0"])),
            half + 2,
        ),
        ("k", covering(a_set(&["i01"], &[], &["m1"])), half),
        ("m", everything(), half),
        ("m", covering(a_set(&["i01", "i02"], &[], &[])), 1),
        ("m", covering(a_set(&["i02"], &["books", "games"], &["m0"])), half),
    ];
    for (number, (campaign, scope, expected)) in cases.into_iter().enumerate() {
        let spec = CouponSpec {
            scope,
            ..a_coupon(&format!("c{number}"), campaign)
        };
        let (coupon, warnings) = create(&client, spec.clone()).await;
        assert_eq!(coupon.scope_item_count, expected, "{spec:?}");
        assert!(
            warnings.iter().all(|warning| warning.reason != "SCOPE_IS_EMPTY"),
            "{warnings:?}"
        );
        assert_eq!(client.get_coupon(&spec.coupon_id).await.unwrap(), coupon);
        let (listed, _) = client.list_coupons(campaign, 0, String::new()).await.unwrap();
        assert!(listed.contains(&coupon), "{listed:?}");
    }
}

#[tokio::test]
async fn a_scope_that_covers_nothing_is_warned_of_and_has_no_targets() {
    let (_database, server, client) = serve().await;
    let cases = [
        (
            "k",
            covering(a_set(&[], &["BOOKS"], &[])),
            ("UNKNOWN_CATEGORY", "categories", vec!["BOOKS"]),
        ),
        (
            "k",
            covering(a_set(&["no", "nor"], &[], &[])),
            ("UNKNOWN_ITEM", "item_ids", vec!["no", "nor"]),
        ),
        // Those of another merchant do not exist for the campaign.
        (
            "m",
            covering(a_set(&["i01"], &[], &[])),
            ("UNKNOWN_ITEM", "item_ids", vec!["i01"]),
        ),
        (
            "m",
            covering(a_set(&[], &["games"], &[])),
            ("UNKNOWN_CATEGORY", "categories", vec!["games"]),
        ),
    ];
    for (number, (campaign, scope, (reason, list, names))) in cases.into_iter().enumerate() {
        let id = format!("c{number}");
        let spec = CouponSpec {
            scope,
            ..a_coupon(&id, campaign)
        };
        let (coupon, warnings) = create(&client, spec.clone()).await;
        let field = format!("coupon.scope.items.{list}");
        let expected = [
            ("SCOPE_IS_EMPTY", "coupon.scope", vec![]),
            (reason, field.as_str(), names),
        ];
        assert_eq!((coupon.scope_item_count, told(&warnings)), (0, expected.to_vec()));
        // Sent again, and read, it is told again.
        assert_eq!(create(&client, spec).await, (coupon.clone(), warnings.clone()));
        let request = GetCouponRequest { coupon_id: id.clone() };
        let read = client.rpc.clone().get_coupon(request).await.unwrap().into_inner();
        assert_eq!((read.coupon, read.warnings), (Some(coupon), warnings));

        let everybody = USERS as i64;
        let nobody = BTreeMap::from([(ReasonCode::NoQualifyingItem, everybody)]);
        assert_eq!(targets(&server, &id).await, (everybody, 0, nobody, 0), "{id}");
        for with_cart in [false, true] {
            let expected = (Verdict::Ineligible, vec![ReasonCode::NoQualifyingItem]);
            assert_eq!(
                check(&server, &id, with_cart).await,
                expected,
                "{id}, cart: {with_cart}"
            );
        }
    }
    let request = GetItemRequest {
        item_id: "no".to_owned(),
    };
    let status = server.catalog().await.get_item(request).await.unwrap_err();
    assert_status(&status, Code::NotFound, "ITEM_NOT_FOUND");
}

#[tokio::test]
async fn a_coupon_covers_an_item_and_a_category_as_soon_as_they_exist() {
    let (database, server, client) = serve().await;
    for (id, scope) in [("i", a_set(&["new"], &[], &[])), ("c", a_set(&[], &["toys"], &[]))] {
        let spec = CouponSpec {
            scope: covering(scope),
            ..a_coupon(id, "k")
        };
        let (coupon, _) = create(&client, spec).await;
        assert_eq!((coupon.scope_item_count, targets(&server, id).await.1), (0, 0));
    }
    let new = Item {
        item_id: "new".to_owned(),
        category: Some("toys".to_owned()),
        ..Item::default()
    };
    let put = async |item: Item| {
        let request = UpsertItemsRequest { items: vec![item] };
        server.catalog().await.upsert_items(request).await.unwrap();
    };
    put(new.clone()).await;
    for id in ["i", "c"] {
        let (coupon, warnings) = update(&client, coupon_change(id)).await;
        assert_eq!((coupon.scope_item_count, warnings), (1, vec![]), "{id}");
        assert_eq!(targets(&server, id).await.1, USERS as i64, "{id}");
        assert_eq!(
            check(&server, id, false).await,
            (Verdict::Indeterminate, vec![]),
            "{id}"
        );
    }
    // The category is empty again.
    let moved = Item {
        category: Some("books".to_owned()),
        ..new
    };
    put(moved).await;
    assert_eq!(
        (targets(&server, "i").await.1, targets(&server, "c").await.1),
        (USERS as i64, 0)
    );
    // A snapshot that was trained afterwards says the same.
    succeed_at(database.url(), &["train", "--set-config=gate.min_users=1000000"]);
    let server = Server::start(&database);
    assert_eq!(
        (targets(&server, "i").await.1, targets(&server, "c").await.1),
        (USERS as i64, 0)
    );
}

#[tokio::test]
async fn a_cart_with_an_unknown_item_that_the_coupon_names_qualifies() {
    let (_database, server, client) = serve().await;
    let spec = CouponSpec {
        scope: covering(a_set(&["unheard-of"], &[], &[])),
        ..a_coupon("c", "k")
    };
    create(&client, spec).await;
    let mut cart = cart(&[(1, 5_000)]);
    cart.lines[0].item_id = "unheard-of".to_owned();
    let request = CheckEligibilityRequest {
        user_id: user(0),
        coupon_ids: vec!["c".to_owned()],
        cart: Some(cart),
    };
    let mut client = CouponServiceClient::new(server.channel().await);
    let answer = client.check_eligibility(request).await.unwrap().into_inner();
    assert_eq!(
        (answer.coupons[0].verdict(), answer.coupons[0].discount_minor),
        (Verdict::Eligible, Some(100))
    );
}

#[tokio::test]
async fn unknown_names_in_rules_are_told_and_a_long_list_is_cut() {
    let (_database, _server, client) = serve().await;
    let names: Vec<String> = (0..12).map(|number| format!("x{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let spec = CouponSpec {
        rules: rules([
            rule::Kind::NewUser(true),
            rule::Kind::NotBought(a_set(&[&names[..], &["i00"]].concat(), &["games"], &["m1"])),
            rule::Kind::CategoryAffinity(CategoryAffinity {
                category: "Books".to_owned(),
                min_share: 0.5,
            }),
        ]),
        ..a_coupon("c", "k")
    };
    let (_, warnings) = create(&client, spec).await;
    let expected = [
        (
            "UNKNOWN_ITEM",
            "coupon.rules.rules[1].not_bought.item_ids",
            names[..10].to_vec(),
        ),
        (
            "UNKNOWN_CATEGORY",
            "coupon.rules.rules[2].category_affinity.category",
            vec!["Books"],
        ),
    ];
    assert_eq!(told(&warnings), expected);
    assert_eq!(warnings[0].name_count, 12);
    assert!(warnings[0].message.ends_with("or 2 more"), "{}", warnings[0].message);
}

#[tokio::test]
async fn all_unknown_merchants_of_a_scope_are_named() {
    let (_database, _server, client) = serve().await;
    let spec = CouponSpec {
        scope: covering(a_set(&[], &[], &["nobody", "m0", "no one"])),
        ..a_coupon("c", "k")
    };
    let status = client.create_coupon(spec).await.unwrap_err();
    assert_status(&status, Code::NotFound, "MERCHANT_NOT_FOUND");
    assert_eq!(status.message(), "there are no merchants no one, nobody");
}

#[tokio::test]
async fn a_merchants_key_learns_nothing_about_other_merchants_from_a_warning() {
    let (database, server, _client) = serve().await;
    let key = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
    drop(server);
    let server = Server::start(&database);
    let own = CampaignClient::with_key(&server, Some(&key)).await;
    let spec = |id: &str, items: &[&str], categories: &[&str]| CouponSpec {
        scope: covering(a_set(items, categories, &[])),
        ..a_coupon(id, "m")
    };
    // i01 and games are of merchant m1, the others of nobody.
    let (foreign, of_foreign) = create(&own, spec("c", &["i01", "i02"], &["games"])).await;
    let (unknown, of_unknown) = create(&own, spec("d", &["a01", "i02"], &["hames"])).await;
    assert_eq!((foreign.scope_item_count, unknown.scope_item_count), (1, 1));
    let text = |warnings: Vec<CouponWarning>| format!("{warnings:?}").replace("a01", "i01").replace("hames", "games");
    assert_eq!(of_foreign.len(), 2);
    assert_eq!(text(of_foreign), text(of_unknown));
}
