//! Every field of every request at and beyond its limits. The table of cases follows the descriptors: a field without a case
//! fails the test.

pub mod cases;
pub mod coupons;
mod demand;
pub mod dynamic;
mod erasures;
mod garbage;
mod imports;
mod inventory;
mod many_fields;
mod page_tokens;

use std::borrow::Cow;

use futures_util::future::join_all;
use likemind::grpc::proto::v1::{
    CampaignState, Cart, CartLine, ConfirmRedemptionRequest, CouponSpec, CreateCampaignRequest, CreateCouponRequest,
    Discount, EntryOutcome, EntryResult, IngestSummary, Item, Money, PurchaseLine, Rating, RecommendRequest,
    RecordPurchasesRequest, ReserveCouponRequest, UpsertItemsRequest, UpsertRatingsRequest, discount,
    recommend_request::Subject,
};
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage, Value};
use tokio::sync::OnceCell;
use tonic::{Code, Status};

use self::cases::{Case, Tokens, cases, valid_requests};
use self::dynamic::{DynamicClient, changed, method_name, methods, paths};
use self::page_tokens::tokens;
use crate::support::answers::{assert_invalid, assert_nothing_internal, assert_status};
use crate::support::coupons::CouponClient;
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::{Server, succeed};
use crate::support::times::at;

/// Starts a server with a snapshot of two users and three items, and more than one row in every list.
async fn serve() -> (TestDatabase, Server) {
    static TEMPLATE: OnceCell<TestDatabase> = OnceCell::const_new();
    let make = async || {
        let database = TestDatabase::create().await;
        let server = Server::start(&database);
        write_items_ratings_and_purchases(&server).await;
        for _ in 0..2 {
            succeed(&database, &["train"]);
        }
        create_campaigns_and_coupons(&server).await;
        redeem_twice(&server).await;
        write_people(&database).await;
        write_positions_and_policies(&server).await;
        imports::import_twice(&database);
        // A database with connections cannot be copied.
        server.drain().await;
        database
    };
    let database = TEMPLATE.get_or_init(make).await.copy().await;
    // No answer depends on how busy the machine is.
    let server = Server::with(&database, &[("server.request_timeout_ms", "600000")]);
    (database, server)
}

async fn write_items_ratings_and_purchases(server: &Server) {
    let items = ["x", "y", "z"].map(|id| Item {
        item_id: id.to_owned(),
        merchant_id: Some("acme".to_owned()),
        category: Some(if id == "z" { "cups" } else { "mugs" }.to_owned()),
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
}

async fn write_positions_and_policies(server: &Server) {
    let client = DynamicClient::new(server.channel().await);
    for name in ["UpsertInventoryPositions", "UpsertReplenishmentPolicies"] {
        let (method, request) = cases::valid_call(&format!("InventoryService/{name}"));
        client.call(&method, &request).await.unwrap();
    }
}

async fn create_campaigns_and_coupons(server: &Server) {
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
}

/// Writes two attributes and two decisions of user a, two assignments to each campaign, two suppressions, and two erasures.
async fn write_people(database: &TestDatabase) {
    execute(
        &mut database.connect().await,
        "INSERT INTO users (external_id) VALUES ('suppressed 1'), ('suppressed 2');
         INSERT INTO user_attributes (user_id, name, value)
         SELECT id, name, 'Ely' FROM users, unnest(ARRAY['town', 'birthplace']) AS name WHERE external_id = 'a';
         INSERT INTO consent_events (user_id, purpose, is_granted, decided_at)
         SELECT id, 'training', is_granted, now() FROM users, UNNEST(ARRAY[true, false]) AS is_granted WHERE external_id = 'a';
         INSERT INTO assignments (campaign_id, user_id)
         SELECT campaigns.id, users.id FROM campaigns, users WHERE users.external_id IN ('a', 'b');
         INSERT INTO suppressions (user_id) SELECT id FROM users WHERE external_id LIKE 'suppressed%';
         INSERT INTO changes (user_id) SELECT user_id FROM suppressions;
         INSERT INTO users (external_id, is_pseudonym) VALUES ('erased-1', true), ('erased-2', true);
         INSERT INTO erasures (user_number, user_hash, requested_by, was_known, masked_at, rows_deleted_at, snapshots_clean_at,
                               verified_at)
         SELECT id, sha256(external_id::bytea), 'test', true, now(), now(), now(), now() FROM users WHERE is_pseudonym",
    )
    .await;
}

/// Redeems coupon c for user a two times, in order o.
async fn redeem_twice(server: &Server) {
    let mut client = CouponClient::of(server).await.rpc;
    for number in 1..=2 {
        let reserve = ReserveCouponRequest {
            request_id: format!("reserve {number}"),
            user_id: "a".to_owned(),
            coupon_id: "c".to_owned(),
            cart: Some(Cart {
                currency_code: "GBP".to_owned(),
                lines: vec![CartLine {
                    item_id: "x".to_owned(),
                    quantity: 1,
                    total_minor: 1_000,
                }],
                ..Cart::default()
            }),
        };
        let reserved = client.reserve_coupon(reserve).await.unwrap().into_inner();
        let confirm = ConfirmRedemptionRequest {
            request_id: format!("confirm {number}"),
            reservation_id: reserved.reservation.unwrap().reservation_id,
            amount_minor: None,
            order_id: Some("o".to_owned()),
        };
        client.confirm_redemption(confirm).await.unwrap();
    }
}

/// Asserts that `server` still answers, and has logged no error.
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

/// The answer to a request.
#[derive(Debug)]
enum Answer {
    /// The whole request is refused.
    Refused(Status),
    /// A batch or stream is answered: the place, field and reason of each entry that is refused.
    Entries(Vec<(usize, String, String)>),
    /// The request is answered otherwise.
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
        let summary = answer.get_field_by_name("summary");
        let is_ingest = |summary: &Cow<'_, Value>| summary.as_message().unwrap().descriptor().name() == "IngestSummary";
        if let Some(summary) = summary.filter(is_ingest) {
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

/// Returns the name that the server gives `field`: the first entry of a list, and within a batch the path from the entry.
fn named(case: &Case, field: &str) -> String {
    match case.is_in_batch() {
        true => field.split_once("[].").unwrap().1.replace("[]", "[0]"),
        false => field.replace("[]", "[0]"),
    }
}

/// Asserts that a request is not refused for its fields. It may still refer to something that does not exist.
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
async fn every_field_of_every_rpc_is_accepted_within_and_refused_beyond_its_limits() {
    let (_database, server) = serve().await;
    let tokens = tokens(&server).await;
    let caller = DynamicClient::new(server.channel().await);
    let methods = methods();
    let asked = join_all(methods.iter().map(|method| hold_to_limits(method, &tokens, &caller))).await;
    assert!(asked.iter().sum::<usize>() > 1_000, "only {asked:?} requests");
    assert_serves(&server).await;
}

/// Sends every case of `method`, and returns the number of requests.
async fn hold_to_limits(method: &MethodDescriptor, tokens: &Tokens, caller: &DynamicClient) -> usize {
    let name = method_name(method);
    let cases = cases(&name, tokens);
    let known: Vec<&str> = cases.iter().map(|case| case.field.as_str()).collect();
    assert_eq!(
        known,
        paths(&method.input()),
        "the cases of {name} differ from its fields"
    );
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

#[tokio::test]
async fn unreadable_messages_and_unknown_paths_are_refused() {
    let (_database, server) = serve().await;
    let caller = DynamicClient::new(server.channel().await);
    let largest = 4 * 1_024 * 1_024;
    for method in methods().into_iter().filter(|method| method.input().fields().len() > 0) {
        let name = method_name(&method);
        // A length beyond the end, the end of a group that never began, a field number of 0, and nonsense.
        for bytes in [&b"\x0a\x7f"[..], b"\x0c", b"\x02\x01", &[0xff; 64]] {
            let status = caller.call_raw(&method, bytes.to_vec()).await.unwrap_err();
            assert_status(&status, Code::InvalidArgument, "UNREADABLE_REQUEST");
        }
        // An unknown field of any size is accepted, unless the message is too large.
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
