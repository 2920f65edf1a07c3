//! Coupons as merchants define them: created, changed and listed.

use likemind::grpc::proto::v1::{
    AttributeRule, CampaignSpec, CampaignState, CategoryAffinity, Coupon, CouponSpec, Discount, GetItemRequest,
    MinCartBasis, Rules, Scope, UpdateCouponRequest, Usage, discount, rule,
};
use tonic::{Code, Status};

use crate::support::answers::{all_pages, assert_invalid, assert_status};
use crate::support::campaigns::{
    CampaignClient, a_campaign, a_coupon, a_set, campaign_change, coupon_change, covering, everything, off, rules,
};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::shop::{self, item};

/// Returns one rule of every kind.
fn all_rules() -> Option<Rules> {
    rules([
        rule::Kind::Bought(a_set(&["i01", "i00"], &["books"], &["m0", "m1"])),
        rule::Kind::NotBought(a_set(&["unheard-of"], &[], &[])),
        rule::Kind::CategoryAffinity(CategoryAffinity {
            category: "books".to_owned(),
            min_share: 0.25,
        }),
        rule::Kind::MinAffinity(0.5),
        rule::Kind::NewUser(true),
        rule::Kind::LapsedDays(36_500),
        rule::Kind::Attribute(AttributeRule {
            name: "age".to_owned(),
            values: vec!["65+".to_owned(), "45-54".to_owned()],
        }),
    ])
}

/// Returns a coupon of the campaign k with every field given. It names items in no order, one of them twice, and one that
/// is not in the catalog.
fn a_full_coupon() -> CouponSpec {
    CouponSpec {
        title: Some("Half the price".to_owned()),
        discount: off(discount::Kind::PercentBasisPoints(5_000)),
        max_discount_minor: Some(1_000),
        min_cart_minor: Some(500),
        min_cart_basis: Some(MinCartBasis::AfterDiscounts.into()),
        scope: covering(a_set(
            &["new one", "i01", "i00", "i01"],
            &["games", "books"],
            &["m1", "m0"],
        )),
        per_user_cap: Some(2),
        total_cap: Some(0),
        reservation_ttl_seconds: Some(86_400),
        rules: all_rules(),
        ..a_coupon("full", "k")
    }
}

/// Starts a server of the shop with the draft campaign k.
async fn serve_with_campaign() -> (TestDatabase, Server, CampaignClient) {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Draft).await.unwrap();
    (database, server, client)
}

#[tokio::test]
async fn a_coupon_has_defaults_for_every_field_that_is_not_given() {
    let (_database, _server, client) = serve_with_campaign().await;
    let bare = client.create_coupon(a_coupon("bare", "k")).await.unwrap();
    let expected = Coupon {
        coupon_id: "bare".to_owned(),
        campaign_id: "k".to_owned(),
        discount: off(discount::Kind::AmountMinor(100)),
        scope: everything(),
        scope_item_count: shop::ITEMS as i64,
        reservation_ttl_seconds: 900,
        rules: rules([]),
        min_cart_basis: MinCartBasis::BeforeDiscounts.into(),
        usage: Some(Usage::default()),
        ..Coupon::default()
    };
    assert_eq!(bare, expected);
}

#[tokio::test]
async fn a_coupon_reads_back_as_created_with_items_that_do_not_exist_yet() {
    let (_database, server, client) = serve_with_campaign().await;
    let full = a_full_coupon();
    let created = client.create_coupon(full.clone()).await.unwrap();
    let scope = covering(a_set(&["i00", "i01", "new one"], &["books", "games"], &["m0", "m1"]));
    assert_eq!((created.scope.clone(), created.scope_named_item_count), (scope, 3));
    assert_eq!(created.scope_item_count, shop::ITEMS as i64);
    assert_eq!(
        (created.title.as_str(), created.max_discount_minor),
        ("Half the price", Some(1_000))
    );
    assert_eq!((created.min_cart_minor, created.per_user_cap), (500, Some(2)));
    assert_eq!(created.min_cart_basis(), MinCartBasis::AfterDiscounts);
    assert_eq!(
        (created.reservation_ttl_seconds, created.discount),
        (86_400, full.discount)
    );
    assert_eq!(created.usage.unwrap().total_cap, Some(0));
    assert_eq!(created.rule_value_count, 8);
    assert_eq!(
        created.rules.as_ref().unwrap().rules[1..],
        all_rules().unwrap().rules[1..]
    );
    assert_eq!(client.get_coupon("full").await.unwrap(), created);
    let new_item = GetItemRequest {
        item_id: "new one".to_owned(),
    };
    let status = server.catalog().await.get_item(new_item).await.unwrap_err();
    assert_status(&status, Code::NotFound, "ITEM_NOT_FOUND");
}

#[tokio::test]
async fn creating_a_coupon_again_returns_it_and_another_one_with_its_id_is_refused() {
    let (_database, _server, client) = serve_with_campaign().await;
    let full = a_full_coupon();
    let created = client.create_coupon(full.clone()).await.unwrap();
    let again = CouponSpec {
        scope: covering(a_set(&["i00", "new one", "i01"], &["books", "games"], &["m0", "m1"])),
        ..full.clone()
    };
    assert_eq!(client.create_coupon(again).await.unwrap(), created);
    let other = CouponSpec {
        scope: covering(a_set(&["i00", "i01"], &["books", "games"], &["m0", "m1"])),
        ..full
    };
    let status = client.create_coupon(other).await.unwrap_err();
    assert_status(&status, Code::AlreadyExists, "COUPON_EXISTS");
    let status = client.create_coupon(a_coupon("c", "no")).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");
}

#[tokio::test]
async fn a_change_of_a_coupon_keeps_the_fields_that_it_does_not_name() {
    let (_database, _server, client) = serve_with_campaign().await;
    let created = client.create_coupon(a_full_coupon()).await.unwrap();
    assert_eq!(client.update_coupon(coupon_change("full")).await.unwrap(), created);
    let change = CouponSpec {
        title: Some(String::new()),
        discount: off(discount::Kind::FreeShipping(true)),
        scope: covering(a_set(&["i02", "i00"], &[], &[])),
        rules: rules([rule::Kind::NewUser(true)]),
        ..coupon_change("full")
    };
    let changed = Coupon {
        title: String::new(),
        discount: off(discount::Kind::FreeShipping(true)),
        scope: covering(a_set(&["i00", "i02"], &[], &[])),
        scope_item_count: 2,
        scope_named_item_count: 2,
        rule_value_count: 0,
        rules: rules([rule::Kind::NewUser(true)]),
        ..created
    };
    assert_eq!(client.update_coupon(change).await.unwrap(), changed);
    for status in [
        client.update_coupon(coupon_change("no")).await.unwrap_err(),
        client.get_coupon("no").await.unwrap_err(),
    ] {
        assert_status(&status, Code::NotFound, "COUPON_NOT_FOUND");
    }
}

#[tokio::test]
async fn limits_and_scope_of_a_coupon_can_be_cleared_but_not_cleared_and_set_at_once() {
    let (_database, _server, client) = serve_with_campaign().await;
    let created = client.create_coupon(a_full_coupon()).await.unwrap();
    let change = UpdateCouponRequest {
        coupon: Some(CouponSpec {
            scope: everything(),
            rules: rules([]),
            ..coupon_change("full")
        }),
        clear_max_discount: true,
        clear_per_user_cap: true,
        clear_total_cap: true,
    };
    let answer = client.rpc.clone().update_coupon(change.clone()).await.unwrap();
    let cleared = Coupon {
        scope: everything(),
        scope_item_count: shop::ITEMS as i64,
        scope_named_item_count: 0,
        rule_value_count: 0,
        rules: rules([]),
        max_discount_minor: None,
        per_user_cap: None,
        usage: Some(Usage::default()),
        ..created
    };
    assert_eq!(answer.into_inner().coupon.unwrap(), cleared);
    assert_eq!(client.get_coupon("full").await.unwrap(), cleared);
    let contradiction = UpdateCouponRequest {
        coupon: Some(CouponSpec {
            total_cap: Some(1),
            ..coupon_change("full")
        }),
        ..change
    };
    let status = client.rpc.clone().update_coupon(contradiction).await.unwrap_err();
    assert_invalid(&status, "CONTRADICTION", &["coupon.total_cap"]);
}

#[tokio::test]
async fn every_bad_field_of_a_new_coupon_is_named() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Draft).await.unwrap();
    let wrong = CouponSpec {
        discount: off(discount::Kind::PercentBasisPoints(0)),
        max_discount_minor: Some(0),
        min_cart_minor: Some(-1),
        scope: covering(a_set(&["i1", ""], &[], &[])),
        per_user_cap: Some(0),
        total_cap: Some(-1),
        reservation_ttl_seconds: Some(86_401),
        rules: rules([
            rule::Kind::NewUser(false),
            rule::Kind::LapsedDays(36_501),
            rule::Kind::Bought(a_set(&[], &[], &[])),
            rule::Kind::MinAffinity(f64::NAN),
            rule::Kind::CategoryAffinity(CategoryAffinity {
                category: "tea".to_owned(),
                min_share: 1.5,
            }),
            rule::Kind::Attribute(AttributeRule {
                name: "age".to_owned(),
                values: Vec::new(),
            }),
        ]),
        ..a_coupon("c", "k")
    };
    let status = client.create_coupon(wrong).await.unwrap_err();
    let fields = [
        "coupon.discount.percent_basis_points",
        "coupon.max_discount_minor",
        "coupon.min_cart_minor",
        "coupon.scope.items.item_ids[1]",
        "coupon.per_user_cap",
        "coupon.total_cap",
        "coupon.reservation_ttl_seconds",
        "coupon.rules.rules[0].new_user",
        "coupon.rules.rules[1].lapsed_days",
        "coupon.rules.rules[2].bought.items",
        "coupon.rules.rules[3].min_affinity",
        "coupon.rules.rules[4].category_affinity.min_share",
        "coupon.rules.rules[5].attribute.values",
    ];
    assert_invalid(&status, "OUT_OF_RANGE", &fields);
}

#[tokio::test]
async fn a_coupon_without_discount_kind_scope_or_campaign_is_refused() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Draft).await.unwrap();
    let check = async |coupon: CouponSpec, reason: &str, field: &str| {
        assert_invalid(&client.create_coupon(coupon).await.unwrap_err(), reason, &[field]);
    };
    let without_discount = CouponSpec {
        discount: None,
        ..a_coupon("c", "k")
    };
    check(without_discount, "MISSING", "coupon.discount").await;
    let of_no_kind = CouponSpec {
        discount: Some(Discount { kind: None }),
        ..a_coupon("c", "k")
    };
    check(of_no_kind, "MISSING", "coupon.discount.kind").await;
    let of_no_scope = CouponSpec {
        scope: Some(Scope { of: None }),
        ..a_coupon("c", "k")
    };
    check(of_no_scope, "MISSING", "coupon.scope.of").await;
    let too_many_rules = CouponSpec {
        rules: rules(vec![rule::Kind::NewUser(true); 17]),
        ..a_coupon("c", "k")
    };
    check(too_many_rules, "BATCH_SIZE_OUT_OF_RANGE", "coupon.rules.rules").await;
    check(a_coupon("c", ""), "EMPTY_ID", "coupon.campaign_id").await;
}

#[tokio::test]
async fn a_coupon_names_only_known_merchants_and_in_a_merchants_campaign_only_that_merchant() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    let of_m0 = CampaignSpec {
        merchant_id: Some("m0".to_owned()),
        ..a_campaign("of m0")
    };
    client.create(of_m0, CampaignState::Draft).await.unwrap();
    client.create(a_campaign("of all"), CampaignState::Draft).await.unwrap();
    let covers = |campaign: &str, merchants: &[&str]| CouponSpec {
        scope: covering(a_set(&[], &[], merchants)),
        ..a_coupon("c", campaign)
    };
    let judges = |campaign: &str, merchants: &[&str]| CouponSpec {
        rules: rules([rule::Kind::Bought(a_set(&[], &[], merchants))]),
        ..a_coupon("c", campaign)
    };
    for unknown in [covers("of all", &["m1", "m9"]), judges("of all", &["m9"])] {
        let status = client.create_coupon(unknown).await.unwrap_err();
        assert_status(&status, Code::NotFound, "MERCHANT_NOT_FOUND");
        assert!(status.message().contains("m9"), "{status:?}");
    }
    for foreign in [covers("of m0", &["m0", "m1"]), judges("of m0", &["m0", "m1"])] {
        let status = client.create_coupon(foreign).await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "FOREIGN_MERCHANT");
    }
    client.create_coupon(covers("of m0", &["m0"])).await.unwrap();
    let change = |merchants: &[&str]| CouponSpec {
        scope: covering(a_set(&[], &[], merchants)),
        ..coupon_change("c")
    };
    let status = client.update_coupon(change(&["m1"])).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "FOREIGN_MERCHANT");
    assert_eq!(
        client.get_coupon("c").await.unwrap().scope,
        covering(a_set(&[], &[], &["m0"]))
    );
}

#[tokio::test]
async fn limits_cannot_be_lowered_below_what_is_reserved_and_spent() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Active).await.unwrap();
    client.create_coupon(a_coupon("c", "k")).await.unwrap();
    execute(
        &mut database.connect().await,
        "UPDATE campaign_states SET reserved_minor = 30, spent_minor = 70;
         UPDATE coupon_counters SET reserved = 2, redeemed = 3;
         INSERT INTO user_coupon_counters (user_id, coupon_id, reserved, redeemed)
         SELECT users.id, coupons.id, 1, 1 FROM users, coupons WHERE users.external_id = 'u000';
         INSERT INTO user_coupon_counters (user_id, coupon_id, reserved, redeemed)
         SELECT users.id, coupons.id, 1, 2 FROM users, coupons WHERE users.external_id = 'u001'",
    )
    .await;
    let refused = |status: &Status, numbers: &[&str]| {
        assert_status(status, Code::FailedPrecondition, "LIMIT_BELOW_USE");
        for number in numbers {
            assert!(status.message().contains(number), "{status:?}");
        }
    };
    let budget = |limit: i64| CampaignSpec {
        budget_limit_minor: Some(limit),
        ..campaign_change("k")
    };
    refused(&client.update(budget(99)).await.unwrap_err(), &["99", "100"]);
    let changed = client.update(budget(100)).await.unwrap().budget.unwrap();
    assert_eq!(
        (changed.limit_minor, changed.reserved_minor, changed.spent_minor),
        (Some(100), 30, 70)
    );
    let total = |cap: i64| CouponSpec {
        total_cap: Some(cap),
        ..coupon_change("c")
    };
    refused(&client.update_coupon(total(4)).await.unwrap_err(), &["4", "5"]);
    let usage = client.update_coupon(total(5)).await.unwrap().usage.unwrap();
    assert_eq!((usage.total_cap, usage.reserved, usage.redeemed), (Some(5), 2, 3));
    let per_user = |cap: i32| CouponSpec {
        per_user_cap: Some(cap),
        ..coupon_change("c")
    };
    refused(&client.update_coupon(per_user(2)).await.unwrap_err(), &["2", "3"]);
    assert_eq!(client.update_coupon(per_user(3)).await.unwrap().per_user_cap, Some(3));
}

#[tokio::test]
async fn pages_of_coupons_hold_every_coupon_once_with_the_first_ten_items() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    for id in ["a", "b"] {
        client.create(a_campaign(id), CampaignState::Draft).await.unwrap();
    }
    // In byte order capitals come first.
    let ids = ["Z", "a", "b", "c", "d", "é"];
    let items: Vec<String> = (0..12).map(item).collect();
    for (number, id) in ids.iter().enumerate() {
        let named: Vec<&str> = items.iter().take(number * 2).map(String::as_str).collect();
        let spec = CouponSpec {
            scope: covering(a_set(&named, &["books"], &[])),
            ..a_coupon(id, "a")
        };
        client.create_coupon(spec).await.unwrap();
    }
    client.create_coupon(a_coupon("of b", "b")).await.unwrap();
    let more: Vec<&str> = items.iter().map(String::as_str).collect();
    let change = CouponSpec {
        scope: covering(a_set(&more, &[], &[])),
        ..coupon_change("Z")
    };
    client.update_coupon(change).await.unwrap();
    let (coupons, pages) = all_pages(async |token| client.list_coupons("a", 4, token).await.unwrap()).await;
    let found: Vec<&str> = coupons.iter().map(|coupon| coupon.coupon_id.as_str()).collect();
    assert_eq!((found, pages), (ids.to_vec(), 2));
    let counts: Vec<i64> = coupons.iter().map(|coupon| coupon.scope_named_item_count).collect();
    assert_eq!(counts, [12, 2, 4, 6, 8, 10]);
    // The books are half of all items, and every other named item is one of them.
    let covered: Vec<i64> = coupons.iter().map(|coupon| coupon.scope_item_count).collect();
    let books = shop::ITEMS as i64 / 2;
    assert_eq!(covered, [12, books + 1, books + 2, books + 3, books + 4, books + 5]);
    let first: Vec<&str> = more[..10].to_vec();
    assert_eq!(coupons[0].scope, covering(a_set(&first, &[], &[])));
    assert_eq!(
        client.get_coupon("Z").await.unwrap().scope,
        covering(a_set(&more, &[], &[]))
    );
    assert_eq!(client.get_coupon(ids[5]).await.unwrap(), coupons[5]);
    let (_, of_campaigns) = client.list(None, 1, String::new()).await.unwrap();
    let (_, of_a) = client.list_coupons("a", 4, String::new()).await.unwrap();
    for token in [of_campaigns, of_a] {
        let status = client.list_coupons("b", 4, token).await.unwrap_err();
        assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
    }
    let status = client.list_coupons("no", 4, String::new()).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");
}

#[tokio::test]
async fn a_list_shows_the_first_ten_of_each_list_in_a_rule_and_how_many_there_are() {
    let (_database, _server, client) = serve_with_campaign().await;
    let names: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rules_of = |names: &[&str]| {
        rules([
            rule::Kind::NotBought(a_set(names, names, &[])),
            rule::Kind::Attribute(AttributeRule {
                name: "age".to_owned(),
                values: names.iter().map(ToString::to_string).collect(),
            }),
        ])
    };
    let spec = CouponSpec {
        rules: rules_of(&names),
        ..a_coupon("c", "k")
    };
    let created = client.create_coupon(spec).await.unwrap();
    assert_eq!((&created.rules, created.rule_value_count), (&rules_of(&names), 36));
    assert_eq!(client.get_coupon("c").await.unwrap(), created);
    let (listed, _) = client.list_coupons("k", 0, String::new()).await.unwrap();
    let shortened = Coupon {
        rules: rules_of(&names[..10]),
        ..created
    };
    assert_eq!(listed, [shortened]);
}

#[tokio::test]
async fn a_default_page_of_large_coupons_stays_below_the_limit_of_clients() {
    let (_database, _server, client) = serve_with_campaign().await;
    let categories: Vec<String> = (0..1_000).map(|number| format!("{number:0>120}")).collect();
    let categories: Vec<&str> = categories.iter().map(String::as_str).collect();
    for number in 0..40 {
        let spec = CouponSpec {
            scope: covering(a_set(&[], &categories, &[])),
            ..a_coupon(&format!("c{number:02}"), "k")
        };
        client.create_coupon(spec).await.unwrap();
    }
    let (coupons, pages) = all_pages(async |token| client.list_coupons("k", 0, token).await.unwrap()).await;
    assert_eq!((coupons.len(), pages), (40, 2));
    assert!(coupons.is_sorted_by(|a, b| a.coupon_id < b.coupon_id));
}
