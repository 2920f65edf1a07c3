//! What an operator relies on: drain, deadlines, limits, logs, metrics, refusals at the start.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, GetItemRequest, GetServingStatusRequest, IngestRatingsRequest, PredictRatingsRequest,
    UpsertRatingsRequest, UpsertRatingsResponse,
};
use sqlx::{Connection, PgConnection, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::damage;
use crate::hold::execute;
use crate::postgres::TestDatabase;
use crate::program::{Program, Server, command, eventually, run};
use crate::shop::{self, Caller, a_rating, item, soon, user};

/// Holds a rating, so that a request that writes it has to wait.
struct Held {
    connection: PgConnection,
    /// Sees who waits. On the connection with the lock the activity stands still, for it is within a transaction.
    observer: PgConnection,
    user: usize,
    item: usize,
}

impl Held {
    async fn rating(database: &TestDatabase) -> Self {
        let mut connection = shop::connect(database).await;
        let (user, item) = (0, shop::item_where(0, true));
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
        let held = sqlx::query(
            "SELECT FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id
             WHERE users.external_id = $1 AND items.external_id = $2 FOR UPDATE OF ratings",
        )
        .bind(self::user(user))
        .bind(self::item(item))
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(held.len(), 1);
        Self {
            connection,
            observer: shop::connect(database).await,
            user,
            item,
        }
    }

    fn request(&self) -> Request<UpsertRatingsRequest> {
        Request::new(UpsertRatingsRequest {
            ratings: vec![a_rating(&user(self.user), &item(self.item), 2.0)],
        })
    }

    /// Sends a request that waits; returns when it does.
    async fn wait(&mut self, caller: &Caller) -> JoinHandle<Result<Response<UpsertRatingsResponse>, Status>> {
        let (mut client, request) = (caller.ratings.clone(), self.request());
        let mut call = tokio::spawn(async move { client.upsert_ratings(request).await });
        tokio::select! {
            () = self.until_waiting() => {}
            answered = &mut call => panic!("does not wait: {answered:?}"),
        }
        call
    }

    async fn until_waiting(&mut self) {
        let observer = &mut self.observer;
        eventually("waiting for the lock", async || {
            (waiting(observer).await > 0).then_some(())
        })
        .await;
    }

    async fn release(self) {
        self.connection.close().await.unwrap();
    }
}

/// Sessions of servers that wait for a lock.
async fn waiting(connection: &mut PgConnection) -> i64 {
    let row = sqlx::query(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'likemind' AND wait_event_type = 'Lock'",
    )
    .fetch_one(connection)
    .await
    .unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_has_begun() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let mut held = Held::rating(&database).await;
    let unary = held.wait(&caller).await;
    let (messages, receiver) = tokio::sync::mpsc::channel(1);
    let message = |item: &str| IngestRatingsRequest {
        ratings: vec![a_rating("streamer", item, 3.0)],
    };
    messages.send(message("i01")).await.unwrap();
    let mut client = caller.ratings.clone();
    let stream = tokio::spawn(async move {
        client
            .ingest_ratings(tokio_stream::wrappers::ReceiverStream::new(receiver))
            .await
    });
    let service = HealthCheckRequest {
        service: "likemind.v1.RatingService".to_owned(),
    };
    let watched = HealthClient::new(server.channel().await)
        .watch(service)
        .await
        .unwrap()
        .into_inner();
    // The stream is under way when its first rating shows.
    soon("the stream's first rating", || async {
        let item = stored_rating(&database, "streamer", "i01").await;
        item == Some(3.0)
    })
    .await;

    let mut server = server;
    server.program.signal(libc::SIGTERM);
    server.program.wait_for_log("draining");
    let address = server.address.clone();
    eventually("new connections are refused", || async {
        Endpoint::from_shared(address.clone())
            .unwrap()
            .connect()
            .await
            .is_err()
            .then_some(())
    })
    .await;
    let refused = caller
        .models
        .clone()
        .get_serving_status(GetServingStatusRequest {})
        .await
        .unwrap_err();
    // The client's library finds the connection closed.
    assert!(
        [Code::Unavailable, Code::Cancelled].contains(&refused.code()),
        "{refused:?}"
    );
    // Whoever watches is told, and then let go.
    let told: Vec<ServingStatus> = watched.map(|answer| answer.unwrap().status()).collect().await;
    assert_eq!(told, [ServingStatus::Serving, ServingStatus::NotServing]);

    held.release().await;
    messages.send(message("i02")).await.unwrap();
    drop(messages);
    assert_eq!(unary.await.unwrap().unwrap().into_inner().results.len(), 1);
    assert_eq!(stream.await.unwrap().unwrap().into_inner().summary.unwrap().stored, 2);
    let (exit, log) = server.program.wait();
    assert_eq!(exit.code(), Some(0), "{log}");
    assert!(!log.contains("cut off"), "{log}");
    assert_eq!(stored_rating(&database, "streamer", "i02").await, Some(3.0));
    assert_eq!(
        stored_rating(&database, &user(0), &item(shop::item_where(0, true))).await,
        Some(2.0)
    );
}

async fn stored_rating(database: &TestDatabase, user: &str, item: &str) -> Option<f32> {
    let mut connection = shop::connect(database).await;
    let value = sqlx::query_scalar(
        "SELECT value FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id
         WHERE users.external_id = $1 AND items.external_id = $2",
    )
    .bind(user)
    .bind(item)
    .fetch_optional(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    value
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_is_cut_off() {
    let database = shop::open().await;
    let settings = [
        ("server.drain_timeout_ms", "300"),
        ("server.request_timeout_ms", "600000"),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    let mut held = Held::rating(&database).await;
    let unary = held.wait(&caller).await;
    // A client that neither sends nor ends.
    let mut client = caller.ratings.clone();
    let stream = tokio::spawn(async move { client.ingest_ratings(tokio_stream::pending()).await });

    // The requests would take longer than a test waits for the end of a program.
    let (exit, log) = server.drain().await;
    assert_eq!(exit.code(), Some(0), "{log}");
    assert!(log.contains("cut off"), "{log}");
    assert!(unary.await.unwrap().is_err());
    assert!(stream.await.unwrap().is_err());
}

#[tokio::test]
async fn deadlines_are_kept_while_postgresql_is_slow() {
    let database = shop::open().await;
    let held = Held::rating(&database).await;
    let (user, item) = (user(held.user), item(held.item));
    let write = async |settings: &[(&str, &str)], deadline: Option<Duration>| {
        let server = Server::with(&database, settings);
        let mut request = held.request();
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        server.ratings().await.upsert_ratings(request).await.unwrap_err()
    };
    let own = [("server.request_timeout_ms", "500")];
    let refused = write(&own, None).await;
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    // A client's longer deadline does not lengthen it.
    let refused = write(&own, Some(Duration::from_secs(3_600))).await;
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    // PostgreSQL's comes first by default.
    let refused = write(&[("database.statement_timeout_ms", "500")], None).await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "DATABASE_SLOW");
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());

    // What was given up is not done later.
    held.release().await;
    let mut connection = shop::connect(&database).await;
    let busy = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
    eventually("the end of what was given up", async || {
        let busy = sqlx::query_scalar::<_, i64>(busy).fetch_one(&mut connection).await;
        (busy.unwrap() == 0).then_some(())
    })
    .await;
    let rating = shop::rating(0, shop::item_where(0, true));
    assert_eq!(stored_rating(&database, &user, &item).await, rating);
}

#[tokio::test]
async fn a_deadline_holds_also_when_the_client_is_cut_off() {
    let database = shop::open().await;
    let settings = [
        ("server.request_timeout_ms", "600000"),
        ("telemetry.log_filter", "debug,h2=off,hyper=off"),
    ];
    let mut server = Server::with(&database, &settings);
    let mut held = Held::rating(&database).await;
    let mut request = held.request();
    request.set_timeout(Duration::from_secs(2));
    request
        .metadata_mut()
        .insert("x-request-id", "cut-off".parse().unwrap());

    // A client that sends its request and does nothing from then on: not even its own deadline makes it give up.
    let (address, (waiting, wait)) = (server.address.clone(), std::sync::mpsc::channel());
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let call = runtime.spawn(async move {
            let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            Caller::over(channel).ratings.upsert_ratings(request).await
        });
        runtime.block_on(async {
            while wait.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let stopped = wait.recv();
        (runtime, call, stopped)
    });
    held.until_waiting().await;
    waiting.send(()).unwrap();
    let line = server.program.wait_for_log("DEADLINE_EXCEEDED");
    assert!(line.contains("cut-off"), "{line}");
    drop(waiting);
    let (runtime, call, _) = client.join().unwrap();
    runtime.shutdown_background();
    drop(call);
}

#[tokio::test]
async fn what_is_too_much_is_turned_away() {
    let database = shop::open().await;
    let settings = [
        ("server.max_concurrent_requests", "1"),
        ("live.refresh_interval_ms", "100"),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    let mut held = Held::rating(&database).await;
    let first = held.wait(&caller).await;

    let calls: Vec<_> = (0..8)
        .map(|_| {
            let mut catalog = caller.catalog.clone();
            tokio::spawn(async move { catalog.get_item(GetItemRequest { item_id: item(1) }).await })
        })
        .collect();
    for call in calls {
        let refused = call.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        let delay = refused.get_details_retry_info().unwrap().retry_delay;
        assert!(delay.is_some_and(|delay| !delay.is_zero()), "{delay:?}");
    }
    // What does not wait for PostgreSQL is not turned away because of what does.
    assert_eq!(server.health("").await, Some(ServingStatus::Serving));
    assert_eq!(caller.status().await.snapshot_version, Some(1));
    assert!(!caller.scores(&user(1)).await.is_empty());

    held.release().await;
    first.await.unwrap().unwrap();
    let free = async || {
        caller
            .catalog
            .clone()
            .get_item(GetItemRequest { item_id: item(1) })
            .await
            .is_ok()
    };
    assert!(free().await);

    // A client that goes away gives its place back.
    let mut held = Held::rating(&database).await;
    let abandoned = held.wait(&caller).await;
    abandoned.abort();
    soon("the place is free", &free).await;
    held.release().await;
}

#[tokio::test]
async fn messages_and_batches_have_limits() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("server.max_message_bytes", "20000")]);
    let caller = Caller::of(&server).await;
    let upsert = async |count: usize, id: &str| {
        let ratings = (0..count)
            .map(|number| a_rating(&format!("{id}{number}"), "i01", 3.0))
            .collect();
        caller
            .ratings
            .clone()
            .upsert_ratings(UpsertRatingsRequest { ratings })
            .await
    };
    let too_large = upsert(900, &"x".repeat(100)).await.unwrap_err();
    assert_eq!(too_large.code(), Code::InvalidArgument, "{too_large:?}");
    assert_eq!(too_large.get_details_error_info().unwrap().reason, "REQUEST_TOO_LARGE");
    for part in ["server.max_message_bytes", "20000"] {
        assert!(too_large.message().contains(part), "{too_large:?}");
    }
    for count in [0, 1_001] {
        let refused = upsert(count, "x").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let violations = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "ratings");
        assert_eq!(
            refused.get_details_error_info().unwrap().reason,
            "BATCH_SIZE_OUT_OF_RANGE"
        );
    }
    assert_eq!(stored_rating(&database, "x0", "i01").await, None);
    assert_eq!(upsert(500, "x").await.unwrap().into_inner().results.len(), 500);
    assert_eq!(stored_rating(&database, "x499", "i01").await, Some(3.0));
}

#[tokio::test]
async fn a_request_is_found_in_the_log_by_its_id() {
    let database = shop::open().await;
    let settings = [
        ("telemetry.log_format", "json"),
        ("telemetry.log_filter", "info,likemind=debug"),
    ];
    let mut server = Server::with(&database, &settings);
    let mut client = server.catalog().await;
    let mut get = async |id: Option<&str>| {
        let mut request = Request::new(GetItemRequest { item_id: item(1) });
        if let Some(id) = id {
            request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        }
        let answer = client.get_item(request).await.unwrap();
        answer
            .metadata()
            .get("x-request-id")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(get(Some("order-service/42")).await, "order-service/42");
    let made = [get(None).await, get(None).await, get(Some(&"x".repeat(129))).await];
    assert!(
        !made[0].is_empty() && made[0] != made[1] && made[1] != made[2] && made[2].len() < 129,
        "{made:?}"
    );

    let mut client = server.catalog().await;
    let mut unknown = Request::new(GetItemRequest {
        item_id: "nonesuch".to_owned(),
    });
    unknown
        .metadata_mut()
        .insert("x-request-id", "failing".parse().unwrap());
    let missing = client.get_item(unknown).await.unwrap_err();
    assert_eq!(missing.metadata().get("x-request-id").unwrap(), "failing");

    for (id, code) in [("order-service/42", "OK"), ("failing", "NOT_FOUND"), (&made[0], "OK")] {
        let line = server.program.wait_for_log(&format!("\"{id}\""));
        assert!(line.contains("CatalogService/GetItem") && line.contains(code), "{line}");
    }
    let (_, log) = server.drain().await;
    for line in log.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(parsed[key].is_string(), "{key}: {line}");
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub async fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[tokio::test]
async fn an_answer_is_given_again_while_it_would_be_the_same() {
    let database = shop::open().await;
    let address = free_port();
    let listen = address.to_string();
    let settings = [
        ("telemetry.metrics", "true"),
        ("telemetry.metrics_listen", listen.as_str()),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    let check = async |method: &str, hits: u32, misses: u32, what: &str| {
        let text = metrics(address).await;
        for (result, expected) in [("hit", hits), ("miss", misses)] {
            let line = format!(
                r#"likemind_answer_cache_total{{method="likemind.v1.RecommendationService/{method}",result="{result}"}} {expected}"#
            );
            assert!(text.lines().any(|found| found == line), "{what}: no {line} in\n{text}");
        }
    };
    let recommended = async |hits: u32, misses: u32, what: &str| check("Recommend", hits, misses, what).await;
    let first = caller.ranked("stranger").await;
    recommended(0, 1, "the first").await;
    assert_eq!(caller.ranked("stranger").await, first);
    recommended(1, 1, "the same again").await;
    caller.rate("somebody", &item(1), 4.0).await;
    assert_eq!(caller.ranked("stranger").await, first);
    recommended(2, 1, "after a rating of somebody else").await;
    caller.rate("stranger", &item(1), 4.0).await;
    assert_ne!(caller.ranked("stranger").await, first);
    recommended(2, 2, "after a rating of theirs").await;
    caller.ranked("somebody").await;
    recommended(2, 3, "of somebody else").await;

    let predicted = async |hits: u32, misses: u32, what: &str| check("PredictRatings", hits, misses, what).await;
    let predict = async |items: &[&str]| {
        let request = PredictRatingsRequest {
            user_id: user(1),
            item_ids: items.iter().map(ToString::to_string).collect(),
            ..PredictRatingsRequest::default()
        };
        let answer = caller.recommendations.clone().predict_ratings(request).await;
        answer.unwrap().into_inner()
    };
    let known = [&*item(1), &*item(2)];
    let first = predict(&known).await;
    predicted(0, 1, "the first prediction").await;
    assert_eq!(predict(&known).await, first);
    predicted(1, 1, "the same prediction").await;
    caller.rate(&user(1), &item(3), 1.0).await;
    assert_ne!(predict(&known).await, first);
    predicted(1, 2, "a prediction after a rating of theirs").await;
    // What is not there may come, from whomever.
    let with_a_new_one = [&*item(1), "new-item"];
    let without_it = predict(&with_a_new_one).await;
    caller.rate("somebody", "new-item", 4.0).await;
    assert_ne!(predict(&with_a_new_one).await, without_it);
    predicted(1, 4, "items that were not there").await;
}

#[tokio::test]
async fn metrics_tell_how_a_server_is_doing() {
    let database = shop::open().await;
    let a_day_older = "UPDATE snapshots SET created_at = created_at - interval '1 day'";
    execute(&mut shop::connect(&database).await, a_day_older).await;
    let address = free_port();
    let listen = address.to_string();
    let settings = [
        ("telemetry.metrics", "true"),
        ("telemetry.metrics_listen", listen.as_str()),
        ("server.max_concurrent_requests", "1"),
        ("live.refresh_interval_ms", "100"),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    caller.rate("stranger", &item(1), 4.0).await;
    caller.scores("stranger").await;
    let missing = GetItemRequest {
        item_id: "nonesuch".to_owned(),
    };
    caller.catalog.clone().get_item(missing).await.unwrap_err();

    let value = |text: &str, name: &str| -> Option<f64> {
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let rpc = |suffix: &str, method: &str, code: &str, rest: &str| {
        format!(r#"likemind_rpc_seconds_{suffix}{{method="likemind.v1.{method}",code="{code}"{rest}}}"#)
    };
    soon("the gauges are set", || async {
        value(&metrics(address).await, "likemind_fresh_entries") == Some(1.0)
    })
    .await;
    let text = metrics(address).await;
    let check = |name: &str, expected: std::ops::RangeInclusive<f64>| {
        let found = value(&text, name).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        assert!(expected.contains(&found), "{name}: {found}");
    };
    for (method, code) in [
        ("RatingService/UpsertRatings", "OK"),
        ("RecommendationService/Recommend", "OK"),
        ("CatalogService/GetItem", "NOT_FOUND"),
    ] {
        check(&rpc("count", method, code, ""), 1.0..=1.0);
        check(&rpc("bucket", method, code, r#",le="+Inf""#), 1.0..=1.0);
        check(&rpc("bucket", method, code, r#",le="0.00005""#), 0.0..=1.0);
    }
    check("likemind_snapshot_version", 1.0..=1.0);
    check("likemind_snapshot_age_seconds", 86_400.0..=2.0 * 86_400.0);
    check("likemind_fresh_lag_seconds", 0.0..=60.0);
    check("likemind_fresh_dropped_total", 0.0..=0.0);
    check(r#"likemind_pool_connections{state="busy"}"#, 0.0..=16.0);
    check(r#"likemind_pool_connections{state="idle"}"#, 1.0..=16.0);
    assert!(value(&text, SHED).is_none_or(|shed| shed == 0.0), "{text}");
    assert!(
        value(&text, LOAD_FAILURES).is_none_or(|failures| failures == 0.0),
        "{text}"
    );

    // Requests that were given up are not under way any more.
    let mut held = Held::rating(&database).await;
    let abandoned = held.wait(&caller).await;
    check_in_flight(address, 1.0).await;
    soon("a busy connection", || async {
        value(&metrics(address).await, r#"likemind_pool_connections{state="busy"}"#) >= Some(1.0)
    })
    .await;
    for count in 1..=2 {
        let request = GetItemRequest { item_id: item(1) };
        let refused = caller.catalog.clone().get_item(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let text = metrics(address).await;
        assert_eq!(value(&text, SHED), Some(f64::from(count)), "{text}");
        let refused = rpc("count", "CatalogService/GetItem", "RESOURCE_EXHAUSTED", "");
        assert_eq!(value(&text, &refused), Some(f64::from(count)), "{text}");
    }
    abandoned.abort();
    check_in_flight(address, 0.0).await;
    let text = metrics(address).await;
    let cancelled = value(&text, &rpc("count", "RatingService/UpsertRatings", "CANCELLED", ""));
    assert_eq!(cancelled, Some(1.0), "{text}");
    held.release().await;

    let part = &damage::parts(&database).await[0];
    let damaged = damage::damaged(&database, damage::LOSE, part).await;
    let activate = ActivateSnapshotRequest {
        version: damaged,
        reason: String::new(),
    };
    caller.models.clone().activate_snapshot(activate).await.unwrap();
    soon("the failure is counted", || async {
        value(&metrics(address).await, LOAD_FAILURES) == Some(1.0)
    })
    .await;
    caller.switch_to(1).await;
    shop::train(database.url());
    soon("the gauge of the next version", || async {
        value(&metrics(address).await, "likemind_snapshot_version") == Some(3.0)
    })
    .await;
    let text = metrics(address).await;
    assert_eq!(value(&text, LOAD_FAILURES), Some(1.0), "{text}");
    let age = value(&text, "likemind_snapshot_age_seconds").unwrap();
    assert!(age < 86_400.0, "{age}");
}

const SHED: &str = "likemind_rpc_shed_total";
const LOAD_FAILURES: &str = "likemind_snapshot_load_failures_total";

async fn check_in_flight(address: SocketAddr, expected: f64) {
    soon(&format!("{expected} requests under way"), || async {
        let text = metrics(address).await;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix("likemind_rpc_in_flight "));
        found.and_then(|found| found.parse().ok()) == Some(expected)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let taken = server.address.trim_start_matches("http://").to_owned();
    let check = |args: &[&str], expected: i32, parts: &[&str]| {
        let (code, _, errors) = run(&database, args);
        assert_eq!(code, expected, "{args:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{args:?}: no {part} in {errors}");
        }
    };
    check(&["serve", "--listen", &taken], 1, &["server.listen", &taken, "in use"]);
    let free = "--listen=127.0.0.1:0";
    let metrics = format!("--set-config=telemetry.metrics_listen={taken}");
    let metrics = ["serve", free, "--set-config=telemetry.metrics=true", &metrics];
    check(&metrics, 1, &["telemetry.metrics_listen", &taken, "in use"]);
    let words = ["server.allow_unauthenticated", "server.allow_plaintext"];
    for args in [
        ["serve", "--listen=0.0.0.0:0"],
        ["serve", "--set-config=server.listen=0.0.0.0:0"],
    ] {
        check(&args, 2, &["server.listen", "tls.certificate_file", words[0], words[1]]);
    }

    for word in words {
        let open = Server::with(&database, &[(word, "true")]);
        assert!(!open.program.log().contains(word), "a warning without a reason");
        let mut program = Program::start(&mut command(
            &database,
            &["serve", "--listen=0.0.0.0:0", &format!("--set-config={word}=true")],
        ));
        let warning = program.wait_for_log(word);
        assert!(warning.contains("WARN"), "{warning}");
        program.wait_for_log("serving on 0.0.0.0:");
    }
}
