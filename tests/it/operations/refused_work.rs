//! A PostgreSQL that answers and refuses work for now: it is read-only, as after a failover, or out of disk space.

use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::stream_coupon_targets_response::Message;
use likemind::grpc::proto::v1::{RecordPurchasesRequest, StreamCouponTargetsRequest, UpsertRatingsRequest};
use sqlx::PgConnection;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::support::answers::assert_status;
use crate::support::caller::{Caller, a_rating};
use crate::support::coupons::{CouponClient, Offer};
use crate::support::postgres::{TestDatabase, execute, number};
use crate::support::program::Server;
use crate::support::shop::{self, user};
use crate::support::waiting::{eventually, soon};

const RATINGS: &str = "likemind.v1.RatingService";

/// Counts the sessions of servers that began before the mark of [`mark_sessions`].
const MARKED_SESSIONS: &str = "SELECT count(*) FROM marked_sessions JOIN pg_stat_activity USING (pid, backend_start)";

async fn mark_sessions(connection: &mut PgConnection) {
    let mark = "CREATE TABLE marked_sessions AS SELECT pid, backend_start FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'likemind' AND query NOT LIKE 'LISTEN%'";
    execute(connection, mark).await;
    assert_ne!(number(connection, MARKED_SESSIONS).await, 0);
}

/// Makes every insertion into `table` fail as it does on a full disk.
async fn fill_disk(connection: &mut PgConnection, table: &str) {
    let statements = format!(
        "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'could not extend file \"base/5/16384\": No space left' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER disk_full BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION disk_full()"
    );
    execute(connection, &statements).await;
}

async fn rate(server: &Server) -> Result<(), Status> {
    let request = UpsertRatingsRequest {
        ratings: vec![a_rating(&user(1), &shop::item(1), 2.0)],
    };
    server.ratings().await.upsert_ratings(request).await.map(drop)
}

fn assert_unavailable(status: &Status) {
    assert_status(status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
}

/// Asserts that the server reports the outage, and closes the connections that were open before it.
async fn assert_reported(server: &Server, connection: &mut PgConnection) {
    Caller::of(server).await.wait_until_database_is(false).await;
    soon(
        "the services that need the database are not serving",
        async || server.health(RATINGS).await,
        |status| *status == Some(ServingStatus::NotServing),
    )
    .await;
    // A connection is closed when it is used next.
    let look = async || {
        let _ = rate(server).await;
        number(connection, MARKED_SESSIONS).await
    };
    soon("the connections are replaced", look, |&sessions| sessions == 0).await;
}

async fn open() -> (TestDatabase, PgConnection, Server) {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    Offer::of("c").create(&mut connection).await;
    let settings = [("live.refresh_interval_ms", "100"), ("database.max_connections", "3")];
    let server = Server::with(&database, &settings);
    rate(&server).await.unwrap();
    (database, connection, server)
}

#[tokio::test]
async fn a_full_disk_is_an_outage_that_passes() {
    let (_database, mut connection, server) = open().await;
    mark_sessions(&mut connection).await;
    fill_disk(&mut connection, "ratings").await;
    assert_unavailable(&rate(&server).await.unwrap_err());
    assert_reported(&server, &mut connection).await;
    assert!(
        !server.program.log().contains("a request failed in the database"),
        "{}",
        server.program.log()
    );

    execute(&mut connection, "DROP TRIGGER disk_full ON ratings").await;
    rate(&server).await.unwrap();
    let caller = Caller::of(&server).await;
    let look = async || caller.status().await;
    eventually("the database is available again", look, |status| {
        status.database_available
    })
    .await;
}

#[tokio::test]
async fn a_read_only_database_is_an_outage_and_its_connections_are_replaced() {
    let (database, mut connection, server) = open().await;
    let name = database
        .url()
        .rsplit('/')
        .next()
        .unwrap()
        .split('?')
        .next()
        .unwrap()
        .to_owned();
    // The connections of before go on to write: their sessions began earlier. A failover ends them.
    let read_only = format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'likemind'"
    );
    execute(&mut connection, &read_only).await;
    let look = async || rate(&server).await.unwrap_err();
    let is_read_only = |_: &Status| server.program.log().contains("read-only transaction");
    let status = soon("the read-only server refuses a rating", look, is_read_only).await;
    assert_unavailable(&status);
    let purchase = server
        .purchases()
        .await
        .record_purchases(RecordPurchasesRequest::default())
        .await;
    assert_ne!(purchase.unwrap_err().code(), Code::Internal);
    let refused = CouponClient::of(&server).await.reserve("r", &user(1), "c", 2_000).await;
    assert_unavailable(&refused.unwrap_err());
    Caller::of(&server).await.wait_until_database_is(false).await;

    // The primary is back: what was connected to the read-only one must not be used again, although nobody ends it.
    execute(
        &mut connection,
        &format!("ALTER DATABASE {name} RESET default_transaction_read_only"),
    )
    .await;
    let look = async || rate(&server).await;
    soon("ratings are stored again", look, Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn no_target_leaves_without_its_audit_row() {
    let (_database, mut connection, server) = open().await;
    let list = async || -> Result<usize, Status> {
        let mut client = CouponServiceClient::new(server.channel().await);
        let request = StreamCouponTargetsRequest {
            coupon_id: "c".to_owned(),
            preview: true,
            ..StreamCouponTargetsRequest::default()
        };
        let mut stream = client.stream_coupon_targets(request).await?.into_inner();
        let mut rows = 0;
        while let Some(message) = stream.message().await? {
            rows += usize::from(matches!(message.message, Some(Message::Target(_))));
        }
        Ok(rows)
    };
    assert_eq!(list().await.unwrap(), shop::USERS);
    let audited = "SELECT count(*) FROM audit WHERE action IN ('TARGETS_OPENED', 'TARGETS_LISTED') AND row_count = 200";
    assert_eq!(number(&mut connection, audited).await, 2);

    fill_disk(&mut connection, "audit").await;
    assert_unavailable(&list().await.unwrap_err());
    assert_eq!(number(&mut connection, audited).await, 2);
    // Only the end cannot be written: the rows that left are in the audit, and the client learns that something failed.
    execute(
        &mut connection,
        "DROP TRIGGER disk_full ON audit;
         CREATE TRIGGER disk_full BEFORE INSERT ON audit
         FOR EACH ROW WHEN (NEW.action = 'TARGETS_LISTED') EXECUTE FUNCTION disk_full()",
    )
    .await;
    assert_unavailable(&list().await.unwrap_err());
    assert_eq!(number(&mut connection, audited).await, 3);
}
