//! The age at which records are deleted.

use likemind::grpc::proto::v1::{ListPurchasesRequest, list_purchases_request};
use sqlx::PgConnection;

use crate::support::caller::Caller;
use crate::support::coupons::{CouponClient, Offer, assert_balanced};
use crate::support::metrics::{scrape, server_with_metrics, value};
use crate::support::postgres::{TestDatabase, execute, number};
use crate::support::program::{Server, run, succeed};
use crate::support::shop::{self, item, user};
use crate::support::waiting::{eventually, soon};

const OFTEN: (&str, &str) = ("privacy.retention_interval_ms", "200");

async fn count(connection: &mut PgConnection, rows: &str) -> i64 {
    number(connection, &format!("SELECT count(*) FROM {rows}")).await
}

/// Buys an item for user 0 of the shop, so many days ago.
async fn bought(connection: &mut PgConnection, order: &str, item_number: usize, quantity: i32, days_ago: i32) {
    let insert = format!(
        "INSERT INTO orders (order_id) VALUES ('{order}') ON CONFLICT DO NOTHING;
         INSERT INTO purchases (order_id, user_id, item_id, line_number, quantity, line_total_minor, currency_code, purchased_at)
         SELECT '{order}', users.id, items.id, 1, {quantity}, 100 * {quantity}, 'GBP', now() - interval '{days_ago} days'
         FROM users, items WHERE users.external_id = 'u000' AND items.external_id = '{}'",
        item(item_number)
    );
    execute(connection, &insert).await;
}

async fn orders_of_user(caller: &Caller) -> Vec<String> {
    let request = ListPurchasesRequest {
        of: Some(list_purchases_request::Of::UserId(user(0))),
        ..ListPurchasesRequest::default()
    };
    let answer = caller.purchases.clone().list_purchases(request).await.unwrap();
    let lines = answer.into_inner().lines;
    lines.into_iter().map(|line| line.order_id).collect()
}

#[tokio::test]
async fn nothing_is_deleted_by_default() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    bought(&mut connection, "ancient", 1, 1, 20_000).await;
    let server = Server::with(&database, &[OFTEN]);
    let caller = Caller::of(&server).await;
    // The deleted answers to requests show that the server has had time.
    bought(&mut connection, "recent", 1, 1, 1).await;
    assert_eq!(orders_of_user(&caller).await, ["ancient", "recent"]);
    assert_eq!(count(&mut connection, "leases WHERE name = 'retention'").await, 0);
}

#[tokio::test]
async fn purchases_that_are_too_old_leave_the_database_and_what_servers_answer_from() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let unrated = |least: usize| {
        (least..shop::ITEMS)
            .find(|&number| shop::rating(0, number).is_none())
            .unwrap()
    };
    let first = unrated(0);
    let (second, third) = (unrated(first + 1), unrated(unrated(first + 1) + 1));
    bought(&mut connection, "old", first, 1, 40).await;
    bought(&mut connection, "recent", second, 1, 20).await;
    // Old, but returned lately: both stay until the return is old too.
    bought(&mut connection, "returned", third, 2, 40).await;
    bought(&mut connection, "return", third, -1, 10).await;
    succeed(&database, &["train", "--set-config=gate.min_users=1000000"]);

    let without = Server::start(&database);
    let before = Caller::of(&without).await;
    let scores_before = before.scores(&user(0)).await;
    let (server, metrics) = server_with_metrics(&database, &[OFTEN, ("privacy.retention_days.purchases", "30")]);
    let caller = Caller::of(&server).await;
    let look = async || orders_of_user(&caller).await;
    let left = eventually("the old order is gone", look, |left| left.len() == 3).await;
    assert_eq!(left, ["recent", "return", "returned"]);
    // Both servers answer without it, without a training.
    for caller in [&caller, &before] {
        let look = async || caller.scores(&user(0)).await;
        soon("the old order no longer counts", look, |scores| {
            *scores != scores_before
        })
        .await;
    }
    // A snapshot trained on what is left has nothing to add.
    let scores = caller.scores(&user(0)).await;
    assert_eq!(before.scores(&user(0)).await.len(), scores.len());

    let deleted = async || {
        value(
            &scrape(metrics).await,
            "likemind_retention_deleted_total{kind=\"purchases\"}",
        )
    };
    eventually("the metric counts it", deleted, |deleted| *deleted == Some(1.0)).await;
    let audited: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT actor, subject, row_count FROM audit WHERE action = 'RETENTION_ENFORCED'")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(audited, [("retention".to_owned(), "purchases".to_owned(), 1)]);
    let (_, log) = server.drain().await;
    assert!(
        log.contains("deleted 1 records of purchases older than 30 days"),
        "{log}"
    );
}

#[tokio::test]
async fn an_old_return_goes_together_with_what_it_took_back() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    bought(&mut connection, "bought", 1, 2, 50).await;
    bought(&mut connection, "returned", 1, -1, 40).await;
    bought(&mut connection, "again", 1, 1, 5).await;
    let server = Server::with(&database, &[OFTEN, ("privacy.retention_days.purchases", "30")]);
    let caller = Caller::of(&server).await;
    let look = async || orders_of_user(&caller).await;
    eventually("both are gone", look, |left| *left == ["again"]).await;
    // In one transaction: nobody has seen the return take back the later order.
    let batches = "audit WHERE action = 'RETENTION_ENFORCED' AND row_count = 2";
    assert_eq!(count(&mut connection, batches).await, 1);
}

#[tokio::test]
async fn exposures_requests_and_audit_go_past_their_triggers_by_age_alone() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    Offer::of("c").create(&mut connection).await;
    let idle = Server::start(&database);
    let coupons = CouponClient::of(&idle).await;
    let reservation = coupons.reserve("r1", &user(0), "c", 5_000).await.unwrap();
    coupons.confirm("r2", &reservation.reservation_id, None).await.unwrap();
    coupons.reserve("r3", &user(1), "c", 5_000).await.unwrap();
    // 1,200 users have more than two batches of exposures.
    execute(
        &mut connection,
        "INSERT INTO users (external_id) SELECT 'many ' || n FROM generate_series(1, 1000) AS n;
         INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version, exposed_at)
         SELECT coupons.id, users.id, campaign_id, false, 1,
                now() - CASE WHEN users.id % 3 = 0 THEN interval '5 days' ELSE interval '40 days' END
         FROM coupons, users ON CONFLICT DO NOTHING;
         INSERT INTO audit (at, actor, action, subject, row_count)
         SELECT now() - make_interval(days => n), 'a test', 'A_TEST', 'x', n FROM generate_series(1, 60) AS n;
         UPDATE request_log SET at = now() - interval '10 days' WHERE request_id = 'r1'",
    )
    .await;
    let recent = count(
        &mut connection,
        "exposures WHERE exposed_at > now() - interval '30 days'",
    )
    .await;
    assert!(recent > 300);
    let settings = [
        OFTEN,
        ("privacy.retention_days.exposures", "30"),
        ("privacy.retention_days.audit", "50"),
        ("privacy.retention_days.request_log", "7"),
    ];
    // Two servers, one of which does it at a time.
    let (first, second) = (Server::with(&database, &settings), Server::with(&database, &settings));
    for (rows, left) in [
        ("exposures", recent),
        ("audit WHERE action = 'A_TEST'", 49),
        ("request_log WHERE request_id = 'r1'", 0),
    ] {
        let look = async || count(&mut database.connect().await, rows).await;
        eventually(&format!("{rows} are deleted"), look, |&found| found == left).await;
    }
    assert_eq!(count(&mut connection, "request_log").await, 2);
    assert_balanced(&mut connection).await;
    let sum = "SELECT sum(row_count)::bigint FROM audit WHERE action = 'RETENTION_ENFORCED'";
    let exposures = number(&mut connection, &format!("{sum} AND subject LIKE 'exposures%'")).await;
    assert_eq!(exposures, count(&mut connection, "users").await - recent);
    assert_eq!(
        number(&mut connection, &format!("{sum} AND subject LIKE 'audit%'")).await,
        11
    );
    assert_eq!(count(&mut connection, "privileged_changes").await, 0);
    for server in [first, second] {
        let (_, log) = server.drain().await;
        assert!(!log.contains("ERROR"), "{log}");
    }
    // The triggers are as strict as before.
    for statement in [
        "DELETE FROM exposures",
        "DELETE FROM audit",
        "UPDATE exposures SET is_held_out = true",
    ] {
        let refused = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
        assert!(refused.to_string().contains("never changed"), "{refused}");
    }
}

#[tokio::test]
async fn a_limit_out_of_range_is_refused_by_its_key() {
    let database = TestDatabase::create().await;
    let check = |setting: &str, key: &str| {
        let (code, _, errors) = run(&database, &["migrate", &format!("--set-config={setting}")]);
        assert!(code == 2 && errors.contains(key), "{setting}: {errors}");
    };
    check(
        "privacy.retention_days.purchases=0",
        "privacy.retention_days.purchases: must lie between 1 and 36500",
    );
    check(
        "privacy.retention_days.request_log=31",
        "privacy.retention_days.request_log: must lie between 1 and 30",
    );
    // The cap on exposures counts those of the last 7 days.
    check(
        "privacy.retention_days.exposures=6",
        "privacy.retention_days.exposures: must be coupons.exposure_window_days (7)",
    );
    check("privacy.retention_days.audit=-1", "retention_days");
    check("privacy.retention_days.orders=3", "orders");
    check("privacy.retention_interval_ms=0", "privacy.retention_interval_ms");
    let printed = succeed(&database, &["config", "--set-config=privacy.retention_days.audit=400"]);
    assert!(
        printed.contains("retention_days.audit = 400") && printed.contains("# retention_days.purchases is not set"),
        "{printed}"
    );
}
