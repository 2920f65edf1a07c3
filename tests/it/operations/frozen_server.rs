//! A server that stops in the middle of a transaction keeps others waiting only for a moment.

use std::time::Instant;

use crate::support::caller::Caller;
use crate::support::coupons::{CouponClient, Offer, assert_balanced};
use crate::support::postgres::{execute, number, sessions_waiting_for_a_lock};
use crate::support::program::Server;
use crate::support::shop::{self, user};
use crate::support::waiting::eventually;

/// The frozen server holds its user, the coupon and the campaign, as every reservation does just before its commit.
#[tokio::test]
async fn a_frozen_server_stops_the_redemptions_of_another_only_for_a_moment() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    Offer::of("c").create(&mut connection).await;
    let (doomed, other) = (Server::start(&database), Server::start(&database));
    let (frozen, running) = (CouponClient::of(&doomed).await, CouponClient::of(&other).await);
    // Both have their connections and definitions.
    frozen.reserve("a", &user(1), "c", 2_000).await.unwrap();
    running.reserve("b", &user(2), "c", 2_000).await.unwrap();

    let mut holder = database.connect().await;
    execute(&mut holder, "BEGIN; SELECT FROM campaign_states FOR UPDATE").await;
    let never_answered = tokio::spawn(async move { frozen.reserve("c", &user(3), "c", 2_000).await });
    let look = async || sessions_waiting_for_a_lock(&mut connection).await;
    eventually("the reservation waits for the campaign", look, |&waiting| waiting == 1).await;
    doomed.program.signal(libc::SIGSTOP);
    execute(&mut holder, "COMMIT").await;
    let idle =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
                AND application_name = 'likemind'";
    let look = async || number(&mut connection, idle).await;
    eventually("the frozen server holds the campaign", look, |&sessions| sessions == 1).await;

    let started = Instant::now();
    running.reserve("d", &user(4), "c", 2_000).await.unwrap();
    println!("the other server reserved {:?} after the freeze", started.elapsed());
    running.reserve("e", &user(3), "c", 2_000).await.unwrap();
    assert_balanced(&mut connection).await;

    // Nothing of the frozen transaction is stored, and its server goes on.
    doomed.program.signal(libc::SIGCONT);
    let thawed = CouponClient::of(&doomed).await;
    let status = never_answered.await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    thawed.reserve("c", &user(3), "c", 2_000).await.unwrap();
    let reserved = "SELECT count(*) FROM coupon_ledger WHERE entry = 'reserve'";
    assert_eq!(number(&mut connection, reserved).await, 5);
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn the_sessions_of_a_server_have_its_limits() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let settings = [
        ("database.idle_in_transaction_timeout_ms", "1234"),
        ("database.tcp_user_timeout_ms", "2345"),
        ("database.tcp_keepalive_ms", "3456"),
    ];
    // The trigger notes the settings of the session that inserts. Over a Unix socket they have no effect; they are set.
    execute(
        &mut connection,
        "CREATE TABLE seen (name text, value text);
         CREATE FUNCTION note_settings() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen SELECT name, reset_val FROM pg_settings
             WHERE name = 'idle_in_transaction_session_timeout' OR name LIKE 'tcp_%';
             RETURN NULL; END $$;
         CREATE TRIGGER note_settings AFTER INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION note_settings()",
    )
    .await;
    let server = Server::with(&database, &settings);
    Caller::of(&server).await.rate("new", &shop::item(1), 2.0).await;
    let seen: Vec<(String, String)> = sqlx::query_as("SELECT DISTINCT name, value FROM seen ORDER BY name")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let expected = [
        ("idle_in_transaction_session_timeout", "1234"),
        ("tcp_keepalives_count", "3"),
        ("tcp_keepalives_idle", "4"),
        ("tcp_keepalives_interval", "4"),
        ("tcp_user_timeout", "2345"),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert_eq!(seen, expected.map(owned));
}
