//! Every field of every request at and beyond its limits. The table follows the descriptors: a field that it does not
//! know fails the test.

pub mod cases;
pub mod coupons;
pub mod dynamic;
mod garbage;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use likemind::grpc::proto::v1::{
    Basis, CampaignState, CouponSpec, CreateCampaignRequest, CreateCouponRequest, Discount, EntryOutcome, EntryResult,
    IngestSummary, Item, ItemFilter, ListCampaignsRequest, ListCouponsRequest, ListItemsRequest, ListPurchasesRequest,
    ListRatingsRequest, ListSimilarItemsRequest, ListSnapshotsRequest, Money, PredictRatingsRequest, PriceRange,
    PurchaseLine, Rating, RecommendRequest, RecordPurchasesRequest, SessionItem, SessionItems, UpsertItemsRequest,
    UpsertRatingsRequest, discount, list_purchases_request, list_ratings_request, recommend_request::Subject,
};
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use self::cases::{Case, Tokens, cases, valid_requests};
use self::dynamic::{Caller, changed, method_name, methods, paths};
use crate::postgres::TestDatabase;
use crate::program::{Server, succeed};
use crate::rpc::{assert_invalid, assert_nothing_internal, assert_status, at};

/// A server with a snapshot of two users and two items, and more than one row in every list.
async fn serve() -> (TestDatabase, Server) {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let items = ["x", "y"].map(|id| Item {
        item_id: id.to_owned(),
        merchant_id: Some("acme".to_owned()),
        category: Some("mugs".to_owned()),
        ..Item::default()
    });
    let request = UpsertItemsRequest { items: items.to_vec() };
    server.catalog().await.upsert_items(request).await.unwrap();
    let mut ratings = Vec::new();
    let mut lines = Vec::new();
    for (user, item) in [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")] {
        ratings.push(Rating {
            user_id: user.to_owned(),
            item_id: item.to_owned(),
            value: 3.0,
            rated_at: at(0),
        });
        lines.push(PurchaseLine {
            coupon_discount_minor: 0,
            order_id: "a".to_owned(),
            line_number: 1,
            user_id: user.to_owned(),
            item_id: item.to_owned(),
            quantity: 1,
            line_total: Some(Money {
                amount_minor: 1,
                currency_code: "GBP".to_owned(),
            }),
            purchased_at: at(0),
        });
    }
    server
        .ratings()
        .await
        .upsert_ratings(UpsertRatingsRequest { ratings })
        .await
        .unwrap();
    let request = RecordPurchasesRequest { lines };
    server.purchases().await.record_purchases(request).await.unwrap();
    for _ in 0..2 {
        succeed(&database, &["train"]);
    }
    let mut campaigns = server.campaigns().await;
    for id in ["k", "l"] {
        let request = CreateCampaignRequest {
            campaign: Some(coupons::campaign_spec(id, true)),
            state: CampaignState::Active.into(),
        };
        campaigns.create_campaign(request).await.unwrap();
    }
    for (id, campaign) in [("c", "k"), ("d", "k"), ("e", "l"), ("f", "l")] {
        let coupon = CouponSpec {
            coupon_id: id.to_owned(),
            campaign_id: campaign.to_owned(),
            discount: Some(Discount {
                kind: Some(discount::Kind::AmountMinor(100)),
            }),
            ..CouponSpec::default()
        };
        let request = CreateCouponRequest { coupon: Some(coupon) };
        campaigns.create_coupon(request).await.unwrap();
    }
    (database, server)
}

/// The token of a second page of every list there is.
async fn tokens(server: &Server) -> Tokens {
    let mut ratings = server.ratings().await;
    let mut purchases = server.purchases().await;
    let mut ratings_of = async |of| {
        let request = ListRatingsRequest {
            of: Some(of),
            page_size: 1,
            ..ListRatingsRequest::default()
        };
        ratings
            .list_ratings(request)
            .await
            .unwrap()
            .into_inner()
            .next_page_token
    };
    let mut purchases_of = async |of| {
        let request = ListPurchasesRequest {
            of: Some(of),
            page_size: 1,
            ..ListPurchasesRequest::default()
        };
        purchases
            .list_purchases(request)
            .await
            .unwrap()
            .into_inner()
            .next_page_token
    };
    let items_of = async |merchant_id: Option<&str>, category: Option<&str>| {
        let request = ListItemsRequest {
            page_size: 1,
            merchant_id: merchant_id.map(str::to_owned),
            category: category.map(str::to_owned),
            ..ListItemsRequest::default()
        };
        server
            .catalog()
            .await
            .list_items(request)
            .await
            .unwrap()
            .into_inner()
            .next_page_token
    };
    let request = ListSnapshotsRequest {
        page_size: 1,
        ..ListSnapshotsRequest::default()
    };
    let snapshots = server
        .models()
        .await
        .list_snapshots(request)
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let mut campaigns = server.campaigns().await;
    let mut campaigns_of = async |merchant_id: Option<&str>| {
        let request = ListCampaignsRequest {
            merchant_id: merchant_id.map(str::to_owned),
            page_size: 1,
            ..ListCampaignsRequest::default()
        };
        campaigns
            .list_campaigns(request)
            .await
            .unwrap()
            .into_inner()
            .next_page_token
    };
    let campaigns = vec![campaigns_of(Some("acme")).await, campaigns_of(None).await];
    let coupons_of = async |campaign: &str| {
        let request = ListCouponsRequest {
            campaign_id: campaign.to_owned(),
            page_size: 1,
            ..ListCouponsRequest::default()
        };
        server
            .campaigns()
            .await
            .list_coupons(request)
            .await
            .unwrap()
            .into_inner()
            .next_page_token
    };
    let tokens = Tokens {
        campaigns,
        coupons: vec![coupons_of("k").await, coupons_of("l").await],
        ratings: vec![
            ratings_of(list_ratings_request::Of::UserId("a".to_owned())).await,
            ratings_of(list_ratings_request::Of::UserId("b".to_owned())).await,
            ratings_of(list_ratings_request::Of::ItemId("x".to_owned())).await,
        ],
        purchases: vec![
            purchases_of(list_purchases_request::Of::UserId("a".to_owned())).await,
            purchases_of(list_purchases_request::Of::UserId("b".to_owned())).await,
            purchases_of(list_purchases_request::Of::OrderId("a".to_owned())).await,
        ],
        items: vec![
            items_of(None, None).await,
            items_of(Some("acme"), None).await,
            items_of(None, Some("mugs")).await,
            items_of(Some("acme"), Some("mugs")).await,
        ],
        snapshots: vec![snapshots],
    };
    assert!(tokens.all().all(|token| !token.is_empty()), "{tokens:?}");
    tokens
}

/// What became of a request.
#[derive(Debug)]
enum Answer {
    /// All of it refused.
    Refused(Status),
    /// Of a batch or a stream: for the entries that were refused, the place, field and reason.
    Entries(Vec<(usize, String, String)>),
    Other,
}

impl Answer {
    fn of(answer: Result<DynamicMessage, Status>) -> Self {
        let answer = match answer {
            Err(status) => return Self::Refused(status),
            Ok(answer) => answer,
        };
        let rejected = |(place, error): (usize, Option<likemind::grpc::proto::v1::EntryError>)| {
            let error = error.unwrap();
            assert_nothing_internal(&error.message);
            assert!(!error.message.is_empty());
            (place, error.field, error.reason)
        };
        if let Some(results) = answer.get_field_by_name("results") {
            let results = results.as_list().unwrap().iter().enumerate();
            let results = results.map(|(place, result)| {
                (
                    place,
                    result.as_message().unwrap().transcode_to::<EntryResult>().unwrap(),
                )
            });
            let refused = results.filter(|(_, result)| result.outcome() == EntryOutcome::Rejected);
            return Self::Entries(refused.map(|(place, result)| rejected((place, result.error))).collect());
        }
        if let Some(summary) = answer.get_field_by_name("summary") {
            let summary = summary.as_message().unwrap().transcode_to::<IngestSummary>().unwrap();
            assert_eq!(summary.errors.len() as u64, summary.rejected);
            let errors = summary.errors.into_iter();
            return Self::Entries(
                errors
                    .map(|error| rejected((error.index as usize, error.error)))
                    .collect(),
            );
        }
        Self::Other
    }
}

/// As the server names `field`: of a list the first entry, and in a batch seen from the entry.
fn named(case: &Case, field: &str) -> String {
    match case.is_in_batch() {
        true => field.split_once("[].").unwrap().1.replace("[]", "[0]"),
        false => field.replace("[]", "[0]"),
    }
}

#[track_caller]
fn assert_accepted(answer: &Answer, what: &str) {
    let is_accepted = match answer {
        Answer::Refused(status) => {
            assert_nothing_internal(status.message());
            matches!(
                status.code(),
                Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists
            )
        }
        Answer::Entries(rejected) => rejected.is_empty(),
        Answer::Other => true,
    };
    assert!(is_accepted, "{what}: {answer:?}");
}

#[tokio::test]
async fn every_field_is_held_to_its_limits() {
    let (_database, server) = serve().await;
    let tokens = tokens(&server).await;
    let caller = Caller::new(server.channel().await);
    let methods = methods();
    let asked = join_all(methods.iter().map(|method| hold_to_limits(method, &tokens, &caller))).await;
    assert!(asked.iter().sum::<usize>() > 1_000, "only {asked:?} requests");
    assert_serves(&server).await;
}

/// Returns the number of requests.
async fn hold_to_limits(method: &MethodDescriptor, tokens: &Tokens, caller: &Caller) -> usize {
    let name = method_name(method);
    let cases = cases(&name, tokens);
    let known: Vec<&str> = cases.iter().map(|case| case.field.as_str()).collect();
    assert_eq!(known, paths(&method.input()), "the cases of {name}, and its fields");
    let valid = valid_requests(&name, &method.input());
    for request in &valid {
        assert_accepted(&Answer::of(caller.call(method, request).await), &name);
    }
    for case in &cases {
        for change in &case.good {
            let what = format!("{name}: {} {change}", case.field);
            let request = changed(&valid, &case.field, change);
            assert_accepted(&Answer::of(caller.call(method, &request).await), &what);
        }
        for bad in &case.bad {
            let what = format!("{name}: {} {}", case.field, bad.change);
            let request = changed(&valid, &case.field, &bad.change);
            let field = named(case, &bad.named);
            match Answer::of(caller.call(method, &request).await) {
                Answer::Refused(status) if !case.is_in_batch() => {
                    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
                    assert_invalid(&status, bad.reason, &[&field]);
                }
                Answer::Entries(rejected) if case.is_in_batch() => {
                    let first_of_two = vec![(0, field, bad.reason.to_owned())];
                    assert_eq!(rejected, first_of_two, "{what}");
                }
                answer => panic!("{what}: {answer:?}"),
            }
        }
    }
    cases.iter().map(|case| case.good.len() + case.bad.len()).sum()
}

/// That `server` still answers, and has not stumbled.
async fn assert_serves(server: &Server) {
    let request = RecommendRequest {
        subject: Some(Subject::UserId("a".to_owned())),
        ..RecommendRequest::default()
    };
    server.recommendations().await.recommend(request).await.unwrap();
    let request = UpsertRatingsRequest {
        ratings: vec![Rating {
            user_id: "after".to_owned(),
            item_id: "x".to_owned(),
            value: 1.0,
            rated_at: None,
        }],
    };
    server.ratings().await.upsert_ratings(request).await.unwrap();
    let log = server.program.log();
    assert!(!log.contains("ERROR") && !log.contains("panic"), "{log}");
}

#[tokio::test]
async fn every_bad_field_is_named_at_once() {
    let (_database, server) = serve().await;
    let (long, control) = ("x".repeat(129), "a\nb".to_owned());
    let filter = ItemFilter {
        categories: vec!["good".to_owned(), String::new()],
        merchant_ids: vec![long.clone(); 1_001],
        candidate_item_ids: vec![control.clone()],
        exclude_item_ids: vec![long.clone()],
        price: Some(PriceRange {
            currency_code: "pounds".to_owned(),
            min_minor: Some(-1),
            max_minor: Some(-2),
        }),
    };
    let in_filter = [
        "filter.categories[1]",
        "filter.merchant_ids",
        "filter.candidate_item_ids[0]",
        "filter.exclude_item_ids[0]",
        "filter.price.currency_code",
        "filter.price.min_minor",
        "filter.price.max_minor",
    ];
    let session_item = |id: &str, rating: Option<f32>| SessionItem {
        item_id: id.to_owned(),
        rating,
    };
    let request = RecommendRequest {
        subject: Some(Subject::Session(SessionItems {
            items: vec![
                session_item("x", None),
                session_item("", Some(f32::NAN)),
                session_item(&long, Some(5.0)),
            ],
        })),
        limit: -1,
        basis: 99,
        filter: Some(filter.clone()),
        ..RecommendRequest::default()
    };
    let status = server.recommendations().await.recommend(request).await.unwrap_err();
    let session = [
        "session.items[1].item_id",
        "session.items[1].rating",
        "session.items[2].item_id",
        "limit",
        "basis",
    ];
    assert_invalid(&status, "EMPTY_ID", &[&session[..], &in_filter].concat());

    let request = ListSimilarItemsRequest {
        item_id: control.clone(),
        limit: i32::MAX,
        filter: Some(filter),
    };
    let status = server
        .recommendations()
        .await
        .list_similar_items(request)
        .await
        .unwrap_err();
    assert_invalid(
        &status,
        "ID_HAS_CONTROL_CHARACTER",
        &[&["item_id", "limit"][..], &in_filter].concat(),
    );

    let request = PredictRatingsRequest {
        user_id: String::new(),
        item_ids: ["", "x", "y", "x", "y", &long].map(str::to_owned).to_vec(),
        estimator: -1,
        basis: Basis::Blended as i32 + 1,
        explain: true,
    };
    let status = server
        .recommendations()
        .await
        .predict_ratings(request)
        .await
        .unwrap_err();
    let fields = [
        "user_id",
        "item_ids[0]",
        "item_ids[3]",
        "item_ids[4]",
        "item_ids[5]",
        "estimator",
        "basis",
    ];
    assert_invalid(&status, "EMPTY_ID", &fields);

    let request = ListItemsRequest {
        page_size: 1_001,
        page_token: "x".to_owned(),
        merchant_id: Some(String::new()),
        category: Some(long.clone()),
    };
    let status = server.catalog().await.list_items(request).await.unwrap_err();
    // Whether the token fits cannot be told without the request that it belongs to.
    assert_invalid(&status, "EMPTY_ID", &["merchant_id", "category", "page_size"]);
    let request = ListRatingsRequest {
        of: Some(list_ratings_request::Of::UserId("a".to_owned())),
        page_size: -1,
        page_token: "x".to_owned(),
    };
    let status = server.ratings().await.list_ratings(request).await.unwrap_err();
    assert_invalid(&status, "PAGE_SIZE_OUT_OF_RANGE", &["page_size", "page_token"]);
    assert_serves(&server).await;
}

/// The details travel in a header, which clients do not take at any size.
#[tokio::test]
async fn very_many_bad_fields_fit_into_an_answer() {
    let (_database, server) = serve().await;
    let mut client = server.recommendations().await;
    let bad: Vec<String> = (0..10_000).map(|number| format!("{number}\n")).collect();
    let too_many = PredictRatingsRequest {
        user_id: "a".to_owned(),
        item_ids: bad[..1_000].to_vec(),
        ..PredictRatingsRequest::default()
    };
    let predicted = client.predict_ratings(too_many).await.unwrap_err();
    let request = RecommendRequest {
        subject: Some(Subject::UserId("a".to_owned())),
        filter: Some(ItemFilter {
            exclude_item_ids: bad.clone(),
            candidate_item_ids: bad,
            ..ItemFilter::default()
        }),
        ..RecommendRequest::default()
    };
    let recommended = client.recommend(request).await.unwrap_err();
    for (status, many) in [(predicted, "1000"), (recommended, "20000")] {
        assert_status(&status, Code::InvalidArgument, "ID_HAS_CONTROL_CHARACTER");
        assert!(status.message().contains(many), "{}", status.message());
        assert!(status.get_details_bad_request().unwrap().field_violations.len() > 10);
        assert!(status.details().len() < 6 * 1_024, "{} bytes", status.details().len());
    }
    assert_serves(&server).await;
}

/// A token that somebody has changed is refused, or is another place in the same list.
#[tokio::test]
async fn a_bent_page_token_is_no_way_in() {
    let (_database, server) = serve().await;
    let tokens = tokens(&server).await;
    let bend = |token: &str, cursor: serde_json::Value| {
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
        let mut token: serde_json::Value = serde_json::from_slice(&decoded).unwrap();
        let known = ["request", "cursor"];
        assert!(
            token
                .as_object()
                .unwrap()
                .keys()
                .all(|key| known.contains(&key.as_str())),
            "{token}"
        );
        token["cursor"] = cursor;
        BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
    };
    let purchase = |order: &str, number: i64| serde_json::json!({"order_id": order, "user_id": "\u{0}", "item_id": "x", "line_number": number});
    let cursors = [
        serde_json::json!("\u{0}"),
        serde_json::json!("a\u{0}b"),
        serde_json::json!("\u{1}\n"),
        serde_json::json!("'; DROP TABLE ratings; --"),
        serde_json::json!("x".repeat(1_000_000)),
        serde_json::json!(i64::MIN),
        serde_json::json!(u64::MAX),
        serde_json::json!(1e300),
        serde_json::json!(null),
        serde_json::json!([[[["x"]]]]),
        purchase("a", 1),
        purchase("\u{0}", 1),
        purchase("a", i64::MAX),
        purchase(&"x".repeat(1_000_000), -1),
    ];
    // All that says which rows there are is the same, but the method is not.
    let request = ListItemsRequest {
        page_token: tokens.ratings[0].clone(),
        merchant_id: Some("user_id".to_owned()),
        category: Some("a".to_owned()),
        ..ListItemsRequest::default()
    };
    let status = server.catalog().await.list_items(request).await.unwrap_err();
    assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);

    let (mut ratings, mut purchases) = (server.ratings().await, server.purchases().await);
    let (mut catalog, mut models) = (server.catalog().await, server.models().await);
    // The rows of every list with such tokens, for people.
    let mut list = async |tokens: [String; 4]| -> [Result<Vec<String>, Status>; 4] {
        fn texts<T: std::fmt::Debug>(rows: &[T]) -> Vec<String> {
            rows.iter().map(|row| format!("{row:?}")).collect()
        }
        let [of_ratings, of_purchases, of_items, of_snapshots] = tokens;
        let request = ListRatingsRequest {
            of: Some(list_ratings_request::Of::UserId("a".to_owned())),
            page_size: 0,
            page_token: of_ratings,
        };
        let listed_ratings = ratings.list_ratings(request).await;
        let request = ListPurchasesRequest {
            of: Some(list_purchases_request::Of::UserId("a".to_owned())),
            page_size: 0,
            page_token: of_purchases,
        };
        let listed_purchases = purchases.list_purchases(request).await;
        let request = ListItemsRequest {
            page_token: of_items,
            ..ListItemsRequest::default()
        };
        let listed_items = catalog.list_items(request).await;
        let request = ListSnapshotsRequest {
            page_token: of_snapshots,
            ..ListSnapshotsRequest::default()
        };
        let listed_snapshots = models.list_snapshots(request).await;
        [
            listed_ratings.map(|answer| texts(&answer.get_ref().ratings)),
            listed_purchases.map(|answer| texts(&answer.get_ref().lines)),
            listed_items.map(|answer| texts(&answer.get_ref().items)),
            listed_snapshots.map(|answer| texts(&answer.get_ref().snapshots)),
        ]
    };
    let straight = [&tokens.ratings, &tokens.purchases, &tokens.items, &tokens.snapshots].map(|tokens| &tokens[0]);
    let all = list(Default::default()).await.map(Result::unwrap);
    let second_pages = list(straight.map(Clone::clone)).await.map(Result::unwrap);
    for (all, second_page) in all.iter().zip(&second_pages) {
        assert_eq!(second_page, &all[1..]);
    }
    for cursor in cursors {
        let answers = list(straight.map(|token| bend(token, cursor.clone()))).await;
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert!(refused >= 2, "{cursor}: {answers:?}");
        for (answer, all) in answers.iter().zip(&all) {
            match answer {
                Ok(rows) => assert!(all.ends_with(rows), "{cursor}: {rows:?} of {all:?}"),
                Err(status) => assert_invalid(status, "INVALID_PAGE_TOKEN", &["page_token"]),
            }
        }
    }
    assert_serves(&server).await;
}

#[tokio::test]
async fn what_is_no_request_at_all_is_refused() {
    let (_database, server) = serve().await;
    let caller = Caller::new(server.channel().await);
    let largest = 4 * 1_024 * 1_024;
    for method in methods().into_iter().filter(|method| method.input().fields().len() > 0) {
        let name = method_name(&method);
        // A length that goes beyond the end; a group that nobody began; a field number of 0.
        for bytes in [&b"\x0a\x7f"[..], b"\x0c", b"\x02\x01", &[0xff; 64]] {
            let status = caller.call_raw(&method, bytes.to_vec()).await.unwrap_err();
            assert_status(&status, Code::InvalidArgument, "UNREADABLE_REQUEST");
        }
        // An unknown field of any size is no harm, until the message is too large.
        let unknown = |size: usize| {
            let mut bytes = vec![0xfa, 0x3f];
            prost::encoding::encode_varint(size as u64, &mut bytes);
            bytes.resize(bytes.len() + size, b'x');
            bytes
        };
        let status = caller.call_raw(&method, unknown(largest)).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "REQUEST_TOO_LARGE");
        for request in valid_requests(&name, &method.input()) {
            let bytes = [request.encode_to_vec(), unknown(1_000)].concat();
            let answer = caller.call_raw(&method, bytes).await;
            let answer = answer.map(|answer| DynamicMessage::decode(method.output(), answer.as_slice()).unwrap());
            assert_accepted(&Answer::of(answer), &format!("{name}: an unknown field"));
        }
    }
    for path in [
        "/likemind.v1.RatingService/Nothing",
        "/likemind.v1.Nothing/ListRatings",
        "/nothing",
        "/",
    ] {
        let status = caller.call_path(path, Vec::new()).await.unwrap_err();
        assert_status(&status, Code::Unimplemented, "UNKNOWN_RPC");
    }
    assert_serves(&server).await;
}
