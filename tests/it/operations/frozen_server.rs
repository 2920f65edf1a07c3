//! A server that stops in the middle of a transaction, or is cut off then, keeps others waiting only for a moment.

use std::time::Instant;

use likemind::grpc::proto::v1::Reservation;
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::caller::Caller;
use crate::support::coupons::{CouponClient, Offer, assert_balanced};
use crate::support::network::Network;
use crate::support::postgres::{TestDatabase, execute, number, sessions_waiting_for_a_lock};
use crate::support::program::Server;
use crate::support::shop::{self, user};
use crate::support::waiting::eventually;

/// The reservations that were ever made.
const RESERVED: &str = "SELECT count(*) FROM coupon_ledger WHERE entry = 'reserve'";

/// Two servers of one shop. The first is about to reserve a coupon for the third user and holds that user, the coupon and the
/// campaign, as every reservation does just before its commit.
struct Held {
    _database: TestDatabase,
    connection: PgConnection,
    doomed: Server,
    _other: Server,
    running: CouponClient,
    reservation: JoinHandle<Result<Reservation, Status>>,
}

impl Held {
    /// `url`: where the first server finds the database. `lose` stops the first server, or cuts it off from the database.
    async fn by_one_of_two(database: TestDatabase, url: &str, lose: impl FnOnce(&Server)) -> Self {
        let mut connection = database.connect().await;
        Offer::of("c").create(&mut connection).await;
        let (doomed, other) = (Server::at(url, &[]), Server::start(&database));
        let (lost, running) = (CouponClient::of(&doomed).await, CouponClient::of(&other).await);
        // Both have their connections and definitions.
        lost.reserve("a", &user(1), "c", 2_000).await.unwrap();
        running.reserve("b", &user(2), "c", 2_000).await.unwrap();

        let mut holder = database.connect().await;
        execute(&mut holder, "BEGIN; SELECT FROM campaign_states FOR UPDATE").await;
        let reservation = tokio::spawn(async move { lost.reserve("c", &user(3), "c", 2_000).await });
        let look = async || sessions_waiting_for_a_lock(&mut connection).await;
        eventually("the reservation waits for the campaign", look, |&waiting| waiting == 1).await;
        lose(&doomed);
        execute(&mut holder, "COMMIT").await;
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                        AND state = 'idle in transaction' AND application_name = 'likemind'";
        let look = async || number(&mut connection, idle).await;
        eventually("the lost server holds the campaign", look, |&sessions| sessions == 1).await;
        Self {
            connection,
            doomed,
            _other: other,
            running,
            reservation,
            _database: database,
        }
    }

    async fn assert_that_the_other_goes_on(&mut self) {
        let started = Instant::now();
        self.running.reserve("d", &user(4), "c", 2_000).await.unwrap();
        println!("the other server reserved after {:?}", started.elapsed());
        self.running.reserve("e", &user(3), "c", 2_000).await.unwrap();
        assert_balanced(&mut self.connection).await;
    }
}
#[tokio::test]
async fn a_frozen_server_stops_the_redemptions_of_another_only_for_a_moment() {
    let database = shop::open().await;
    let url = database.url().to_owned();
    let mut held = Held::by_one_of_two(database, &url, |doomed| doomed.program.signal(libc::SIGSTOP)).await;
    held.assert_that_the_other_goes_on().await;

    // Nothing of the frozen transaction is stored, and its server goes on.
    held.doomed.program.signal(libc::SIGCONT);
    let status = held.reservation.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let thawed = CouponClient::of(&held.doomed).await;
    thawed.reserve("c", &user(3), "c", 2_000).await.unwrap();
    assert_eq!(number(&mut held.connection, RESERVED).await, 5);
    assert_balanced(&mut held.connection).await;
}

/// A thread of its own carries the connections while the test waits for the server to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_without_network_stops_the_redemptions_of_another_only_for_a_moment() {
    let database = shop::open().await;
    let network = Network::to(&database).await;
    let mut held = Held::by_one_of_two(database, network.url(), |_| network.break_down()).await;
    held.assert_that_the_other_goes_on().await;

    // The server without network gives its request up in time, and goes on when the network is back.
    let status = held.reservation.await.unwrap().unwrap_err();
    assert!(
        [Code::Unavailable, Code::DeadlineExceeded].contains(&status.code()),
        "{status:?}"
    );
    network.mend();
    let client = CouponClient::of(&held.doomed).await;
    let look = async || {
        client
            .reserve("c", &user(3), "c", 2_000)
            .await
            .map_err(|status| status.code())
    };
    eventually("the server reserves again", look, Result::is_ok)
        .await
        .unwrap();
    assert_eq!(number(&mut held.connection, RESERVED).await, 5);
    assert_balanced(&mut held.connection).await;
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
