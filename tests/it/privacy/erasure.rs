//! Erasing users from the database, from the call until nothing is found of them.

mod feeds;
mod kills;
mod pseudonyms;
mod races;
mod undo;
mod verification;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use likemind::grpc::proto::v1::{
    ConsentDecision, ListErasuresRequest, Order, OrderLine, Purpose, RecordOrdersRequest, SetConsentRequest,
    UpsertRatingsRequest, UpsertUserAttributesRequest, UserAttribute,
};
use likemind::store::privacy::erasures;
use sqlx::PgConnection;
use tonic::Code;

use crate::support::answers::{assert_invalid, assert_status};
use crate::support::caller::{Caller, a_rating, pounds};
use crate::support::coupons::{CouponClient, Offer, assert_balanced};
use crate::support::erasures::{ErasureClient, KEY, KeyFile, traces};
use crate::support::postgres::{TestDatabase, execute, number, scratch};
use crate::support::program::{Server, run, succeed};
use crate::support::shop::{self, item};
use crate::support::times::at;

/// The id of the user who is erased. Nothing else contains it.
const ERASED: &str = "customer/7f3a91@shop.example";

/// Gives the user something of everything that Likemind keeps on users, through the interfaces that write it.
async fn live_a_life(server: &Server, database: &TestDatabase, connection: &mut PgConnection) {
    let caller = Caller::of(server).await;
    for number in 0..8 {
        caller.rate(ERASED, &item(number), 4.0).await;
    }
    caller.buy("order-1", 1, ERASED, &item(3), 2).await;
    let orders = RecordOrdersRequest {
        orders: vec![order("order-2", 100), order("order-3", 200)],
    };
    caller.purchases.clone().record_orders(orders).await.unwrap();
    for (purpose, granted) in [(Purpose::Marketing, true), (Purpose::Profiling, true)] {
        decide(&caller, purpose, granted).await;
    }
    let request = UpsertUserAttributesRequest {
        attributes: vec![attribute("city", "Bern"), attribute("size", "M")],
    };
    caller.catalog.clone().upsert_user_attributes(request).await.unwrap();
    let coupons = CouponClient::of(server).await;
    let used = coupons.reserve("reserve-1", ERASED, "used", 5_000).await.unwrap();
    let used = coupons.confirm("confirm-1", &used.reservation_id, None).await.unwrap();
    coupons
        .roll_back("roll-back-1", &used.redemption_id, Some(300), false)
        .await
        .unwrap();
    coupons.reserve("reserve-2", ERASED, "open", 5_000).await.unwrap();
    decide(&caller, Purpose::Marketing, false).await;
    let exposed = format!(
        "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
         SELECT coupons.id, users.id, campaign_id, false, 1 FROM coupons, users WHERE users.external_id = '{ERASED}';
         INSERT INTO suppressions (user_id, reason) SELECT id, 'by letter' FROM users WHERE external_id = '{ERASED}';
         INSERT INTO assignments (campaign_id, user_id) SELECT campaigns.id, users.id FROM campaigns, users
         WHERE users.external_id = '{ERASED}'"
    );
    execute(connection, &exposed).await;
    import_over(database);
}

async fn decide(caller: &Caller, purpose: Purpose, granted: bool) {
    let request = SetConsentRequest {
        user_id: ERASED.to_owned(),
        decisions: vec![ConsentDecision {
            purpose: purpose.into(),
            granted,
        }],
        decided_at: None,
        source: "settings page".to_owned(),
    };
    caller.privacy.clone().set_consent(request).await.unwrap();
}

/// Imports files that overwrite a rating and an attribute of the user, so that copies are kept for undoing.
fn import_over(database: &TestDatabase) {
    let folder = scratch();
    for (kind, text) in [
        (
            "ratings",
            format!(
                "user_id,item_id,value,rated_at\n{ERASED},{},2,2100-01-01T00:00:00Z\n",
                item(1)
            ),
        ),
        ("attributes", format!("user_id,name,value\n{ERASED},city,Basel\n")),
    ] {
        let path = folder.path().join(format!("{kind}.csv"));
        let text = text.replace("2100-01-01T00:00:00Z", &chrono::Utc::now().to_rfc3339());
        std::fs::write(&path, text).unwrap();
        succeed(database, &["import", kind, path.to_str().unwrap()]);
    }
}

fn order(id: &str, seconds: i64) -> Order {
    order_of(ERASED, id, seconds)
}

fn order_of(user: &str, id: &str, seconds: i64) -> Order {
    let line = |line_number| OrderLine {
        line_number,
        item_id: item(line_number as usize),
        quantity: 1,
        line_total: Some(pounds(1_000)),
        ..OrderLine::default()
    };
    Order {
        order_id: id.to_owned(),
        updated_at: at(seconds),
        user_id: user.to_owned(),
        purchased_at: at(seconds),
        lines: vec![line(1), line(2)],
    }
}

fn attribute(name: &str, value: &str) -> UserAttribute {
    attribute_of(ERASED, name, value)
}

fn attribute_of(user: &str, name: &str, value: &str) -> UserAttribute {
    UserAttribute {
        user_id: user.to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// Keeps sending an old feed about the user through `server`, until `stop`.
async fn keep_writing(server: Server, stop: Arc<AtomicBool>) -> Server {
    let caller = Caller::of(&server).await;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let rating = |number| {
            let mut rating = a_rating(ERASED, &item(number), 3.0);
            rating.rated_at = at(number as i64);
            rating
        };
        let request = UpsertRatingsRequest {
            ratings: (0..10).map(rating).collect(),
        };
        caller.ratings.clone().upsert_ratings(request).await.unwrap();
        let request = RecordOrdersRequest {
            orders: vec![order(&format!("order-{}", 100 + round % 50), 300)],
        };
        caller.purchases.clone().record_orders(request).await.unwrap();
    }
    server
}

#[tokio::test]
async fn nothing_is_found_of_an_erased_user_while_two_servers_serve_and_a_writer_keeps_writing() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    for id in ["used", "open"] {
        Offer::of(id).create(&mut connection).await;
    }
    let key = KeyFile::of(KEY);
    let servers = [(); 2].map(|()| Server::with(&database, &[key.setting()]));
    live_a_life(&servers[0], &database, &mut connection).await;
    shop::train(database.url());
    let places = traces(&mut connection, ERASED).await;
    for place in ["users.external_id", "request_log.response", "snapshot_chunks.bytes"] {
        assert!(
            places.iter().any(|found| found == place),
            "{place} is not in {places:?}"
        );
    }
    let [asked, written] = servers;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(keep_writing(written, stop.clone()));
    let rows = "SELECT count(*) FROM ratings JOIN users ON users.id = user_id WHERE external_id LIKE 'customer/%'";
    assert!(number(&mut connection, rows).await > 0);

    let client = ErasureClient::of(&asked).await;
    let begun = client.erase(ERASED, "letter 17").await.unwrap();
    assert!(begun.was_known);
    let ended = client.verified(begun.erasure_id).await;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();

    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());
    assert_eq!(client.get(begun.erasure_id).await, ended);
    let times = [
        ended.received_at,
        ended.masked_at,
        ended.rows_deleted_at,
        ended.snapshots_clean_at,
        ended.verified_at,
    ];
    let times: Vec<_> = times
        .map(|time| time.map(|time| (time.seconds, time.nanos)).unwrap())
        .to_vec();
    assert!(times.is_sorted(), "{times:?}");
    assert!(ended.row_count > 20, "{ended:?}");
    assert_balanced(&mut connection).await;
    // Asking again gets the same answer.
    assert_eq!(client.erase(ERASED, "letter 17").await.unwrap(), ended);
    for server in [&asked, &written] {
        let caller = Caller::of(server).await;
        let of_stranger = caller.ranked("nobody has ever had this id").await;
        assert_eq!(caller.ranked(ERASED).await, of_stranger);
    }
    check_what_is_kept(&mut connection).await;
}

/// Money keeps its sums, and the proof of consent stays, all under one pseudonym; everything else is gone.
async fn check_what_is_kept(connection: &mut PgConnection) {
    let check = async |connection: &mut PgConnection, query: &str, expected: i64| {
        assert_eq!(number(connection, query).await, expected, "{query}");
    };
    let of_pseudonym = "JOIN users ON users.id = user_id WHERE is_pseudonym";
    for (what, expected) in [
        ("count(DISTINCT user_id) FROM purchases", 1),
        ("count(*) FROM consent_events", 3),
        ("count(*) FROM redemptions", 1),
        ("sum(amount_minor)::bigint FROM redemptions", 1_000),
        ("sum(rolled_back_minor)::bigint FROM redemptions", 300),
        ("sum(spent_minor)::bigint FROM coupon_ledger", 700),
        ("sum(reserved_minor)::bigint FROM coupon_ledger", 0),
        ("count(*) FROM ratings", 0),
        ("count(*) FROM user_attributes", 0),
        ("count(*) FROM exposures", 0),
        ("count(*) FROM assignments", 0),
        ("count(*) FROM suppressions", 0),
    ] {
        check(connection, &format!("SELECT {what} {of_pseudonym}"), expected).await;
    }
    let orders =
        "SELECT sum(line_total_minor)::bigint FROM purchases WHERE order_id IN ('order-1', 'order-2', 'order-3')";
    check(connection, orders, 4_200).await;
    check(
        connection,
        "SELECT count(*) FROM reservations WHERE state = 'released' AND cart_id IS NULL",
        1,
    )
    .await;
    check(
        connection,
        "SELECT count(*) FROM import_copies WHERE user_id IS NOT NULL",
        0,
    )
    .await;
    check(
        connection,
        "SELECT count(*) FROM import_overwritten_ratings WHERE cardinality(user_ids) > 0",
        0,
    )
    .await;
    for (action, expected) in [("ERASURE_REQUESTED", 1), ("USERS_ERASED", 1), ("ERASURES_VERIFIED", 1)] {
        check(
            connection,
            &format!("SELECT count(*) FROM audit WHERE action = '{action}'"),
            expected,
        )
        .await;
    }
}

#[tokio::test]
async fn nobody_is_erased_without_the_key_or_under_another_one() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let (client, caller) = (ErasureClient::of(&server).await, Caller::of(&server).await);
    let refused = client.erase("u001", "r1").await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "ERASURE_KEY_MISSING");
    for part in ["privacy.erasure_key_file", "openssl rand -hex 32"] {
        assert!(refused.message().contains(part), "{refused:?}");
    }
    caller.rate("somebody new", &item(1), 3.0).await;

    let (right, wrong) = (KeyFile::of(KEY), KeyFile::of("another key of thirty-two characters"));
    succeed(&database, &["erase", "u001", &right.argument()]);
    let (code, _, error) = run(&database, &["erase", "u002", &wrong.argument()]);
    assert_eq!(code, 1);
    assert!(
        error.contains("not the one under which users were erased before"),
        "{error}"
    );
    // Without the key nobody new can be told from an erased user; those who are known are written as before.
    caller.rate("u003", &item(1), 3.0).await;
    let request = UpsertRatingsRequest {
        ratings: vec![a_rating("somebody else", &item(1), 3.0)],
    };
    let refused = caller.ratings.clone().upsert_ratings(request).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "ERASURE_KEY_MISSING");
    for (text, part) in [("short", "at least 32 characters"), ("", "is empty")] {
        let (code, _, error) = run(&database, &["erase", "u002", &KeyFile::of(text).argument()]);
        assert_eq!(code, 1);
        assert!(
            error.contains("privacy.erasure_key_file") && error.contains(part),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_bad_request_for_an_erasure_names_the_field() {
    let database = shop::open().await;
    let key = KeyFile::of(KEY);
    let server = Server::with(&database, &[key.setting()]);
    let client = ErasureClient::of(&server).await;
    let check = async |user: &str, request_id: &str, reason: &str, fields: &[&str]| {
        let refused = client.erase(user, request_id).await.unwrap_err();
        assert_invalid(&refused, reason, fields);
    };
    check("", "r", "EMPTY_ID", &["user_id"]).await;
    check("u001", "erase-u001", "NAMES_THE_USER", &["request_id"]).await;
    let first = client.erase("u001", "r").await.unwrap();
    assert_eq!(client.erase("u001", "r").await.unwrap().erasure_id, first.erasure_id);
    let refused = client.erase("u002", "r").await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "REQUEST_ID_REUSED");
    let unknown = client.erase("nobody", "r2").await.unwrap();
    assert!(!unknown.was_known);
    client.verified(unknown.erasure_id).await;
    let list = |only_open, page_size, page_token| ListErasuresRequest {
        only_open,
        page_size,
        page_token,
    };
    let page = client
        .0
        .clone()
        .list_erasures(list(false, 1, String::new()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.erasures[0].erasure_id, unknown.erasure_id);
    let rest = client
        .0
        .clone()
        .list_erasures(list(false, 0, page.next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(rest.erasures[0].erasure_id, first.erasure_id);
    assert_eq!((rest.erasures.len(), rest.next_page_token.as_str()), (1, ""));
}

#[tokio::test]
async fn ten_thousand_users_of_a_file_are_erased_together() {
    const ERASED: usize = 10_000;
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let users = format!(
        "INSERT INTO users (external_id) SELECT 'batch-' || n FROM generate_series(1, {ERASED}) AS n;
         INSERT INTO ratings (user_id, item_id, value, rated_at)
         SELECT users.id, items.id, 3, now() FROM users, items
         WHERE users.external_id LIKE 'batch-%' AND items.id <= 10;
         INSERT INTO purchases (order_id, user_id, item_id, line_number, quantity, line_total_minor, currency_code, purchased_at)
         SELECT 'o' || users.id, users.id, items.id, 1, 1, 100, 'GBP', now() FROM users, items
         WHERE users.external_id LIKE 'batch-%' AND items.id <= 3;
         INSERT INTO orders (order_id) SELECT DISTINCT order_id FROM purchases ON CONFLICT DO NOTHING"
    );
    execute(&mut connection, &users).await;
    shop::train(database.url());
    let key = KeyFile::of(KEY);
    let folder = scratch();
    let file = folder.path().join("users.txt");
    let lines: Vec<String> = (1..=ERASED).map(|number| format!("batch-{number}")).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let started = Instant::now();
    let printed = succeed(&database, &["erase", "--file", file.to_str().unwrap(), &key.argument()]);
    println!("{ERASED} erasures in {:.1} s", started.elapsed().as_secs_f64());
    assert!(printed.contains(&format!("{ERASED} verified")), "{printed}");
    for (query, expected) in [
        ("SELECT count(*) FROM users WHERE external_id LIKE 'batch-%'", 0),
        (
            "SELECT count(*) FROM erasures WHERE verified_at IS NOT NULL AND user_id IS NULL",
            ERASED as i64,
        ),
        (
            "SELECT sum(line_total_minor)::bigint FROM purchases",
            300 * ERASED as i64,
        ),
        (
            "SELECT count(*) FROM snapshot_chunks WHERE position('batch-'::bytea IN bytes) > 0",
            0,
        ),
    ] {
        assert_eq!(number(&mut connection, query).await, expected, "{query}");
    }
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn only_the_function_of_erasures_passes_the_append_only_triggers_and_it_is_audited() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    for statement in [
        "DELETE FROM coupon_ledger",
        "UPDATE exposures SET user_id = 1",
        "DELETE FROM consent_events",
        "UPDATE audit SET note = ''",
        "TRUNCATE coupon_ledger",
    ] {
        let refused = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
        assert!(
            refused.to_string().contains("are never changed"),
            "{statement}: {refused}"
        );
    }
    execute(
        &mut connection,
        "BEGIN;
         INSERT INTO privileged_changes (actor, action, subject, row_count) VALUES ('somebody', 'TRIED', 'x', 0);
         DELETE FROM coupon_ledger;
         COMMIT",
    )
    .await;
    assert_eq!(
        number(&mut connection, "SELECT count(*) FROM audit WHERE action = 'TRIED'").await,
        1
    );
    let refused = sqlx::query("DELETE FROM coupon_ledger").execute(&mut connection).await;
    assert!(refused.is_err(), "the permission ends with its transaction");
}

#[tokio::test]
async fn the_proof_of_consent_is_dropped_after_its_days() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let decided =
        "INSERT INTO consent_events (user_id, purpose, is_granted, decided_at) VALUES (1, 'marketing', true, now()),
                   (2, 'marketing', true, now())";
    execute(&mut connection, decided).await;
    let key = KeyFile::of(KEY);
    succeed(&database, &["erase", "u000", &key.argument()]);
    let pool = database.pool().await;
    let proofs = "SELECT count(*) FROM consent_events";
    assert_eq!(erasures::drop_consent_proof(&pool, 30, "test").await.unwrap(), 0);
    assert_eq!(number(&mut connection, proofs).await, 2);
    execute(
        &mut connection,
        "UPDATE erasures SET rows_deleted_at = rows_deleted_at - interval '31 days'",
    )
    .await;
    assert_eq!(erasures::drop_consent_proof(&pool, 30, "test").await.unwrap(), 1);
    // Only that of the erased user.
    assert_eq!(number(&mut connection, proofs).await, 1);
}
