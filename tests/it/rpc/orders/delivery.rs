//! Versions of an order that arrive in any order, at once, or while a server is killed.

use std::time::Duration;

use futures_util::future::join_all;
use likemind::grpc::proto::v1::{IngestPurchasesRequest, Order, OrderOutcome, RecordPurchasesRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{Client, cancellation, delete, line, lines_of, order, record_all, select, single_lines};
use crate::support::postgres::{TestDatabase, execute, number, sessions_waiting_for_a_lock};
use crate::support::program::Server;
use crate::support::waiting::eventually;

/// Makes versions of few orders, many of which have the same `updated_at`, and an order of delivery in batches.
fn deliveries() -> impl Strategy<Value = (Vec<Order>, Vec<usize>)> {
    let lines = vec((1..4_i32, 0..3_u8, prop_oneof![1..3_i32, Just(-1)]), 0..4);
    let version = (0..2_u8, 1..4_i64, 0..2_u8, lines).prop_map(|(id, second, user, lines)| {
        let mut lines: Vec<_> = lines
            .into_iter()
            .map(|(number, item, quantity)| line(number, &format!("i{item}"), quantity, 100))
            .collect();
        lines.sort_by_key(|line| line.line_number);
        lines.dedup_by_key(|line| line.line_number);
        match lines.is_empty() {
            true => cancellation(&format!("o{id}"), second),
            false => order(&format!("o{id}"), second, &format!("u{user}"), &lines),
        }
    });
    vec(version, 1..9).prop_flat_map(|versions| {
        // Each version arrives once at least, and some come again.
        let places: Vec<usize> = (0..versions.len()).chain(0..versions.len() / 2).collect();
        (Just(versions), Just(places).prop_shuffle())
    })
}

/// Renames the orders, so that every delivery meets a shop without them.
fn renamed(version: &Order, delivery: usize) -> Order {
    Order {
        order_id: format!("{}-{delivery}", version.order_id),
        ..version.clone()
    }
}

#[tokio::test]
async fn versions_end_in_the_same_state_in_whatever_order_they_arrive() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let mut runner = TestRunner::deterministic();
    for case in 0..40 {
        let (versions, places) = deliveries().new_tree(&mut runner).unwrap().current();
        let in_batches_of = async |size: usize, delivery: usize, places: &[usize]| {
            for batch in places.chunks(size) {
                record_all(
                    &client,
                    batch.iter().map(|&place| renamed(&versions[place], delivery)).collect(),
                )
                .await;
            }
            let mut state = Vec::new();
            for id in ["o0", "o1"] {
                let mut lines = lines_of(&client, &format!("{id}-{delivery}")).await;
                lines.iter_mut().for_each(|line| line.order_id = id.to_owned());
                state.push(lines);
            }
            state
        };
        let all: Vec<usize> = (0..versions.len()).collect();
        let expected = in_batches_of(versions.len(), 4 * case, &all).await;
        for (delivery, size) in [1, 3, places.len()].into_iter().enumerate() {
            let found = in_batches_of(size, 4 * case + 1 + delivery, &places).await;
            assert_eq!(found, expected, "{versions:?}, delivered as {places:?} by {size}");
        }
        // The latest version is among the kept ones.
        for (id, lines) in ["o0", "o1"].iter().zip(&expected) {
            let of_order: Vec<&Order> = versions.iter().filter(|version| version.order_id == *id).collect();
            let latest = of_order
                .iter()
                .filter_map(|version| version.updated_at.map(|at| at.seconds))
                .max();
            let is_kept = |version: &&&Order| {
                version.updated_at.map(|at| at.seconds) == latest && single_lines(version) == *lines
            };
            assert!(
                of_order.is_empty() || of_order.iter().any(|version| is_kept(&version)),
                "{versions:?}"
            );
        }
    }
}

#[tokio::test]
async fn writers_of_one_order_take_turns() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    // The users and items are there, so that nobody waits for whoever creates them.
    record_all(
        &client,
        vec![order("before", 1, "ann", &[line(1, "A", 1, 100), line(2, "B", 1, 100)])],
    )
    .await;
    let mut holder = database.connect().await;
    execute(&mut holder, "INSERT INTO orders (order_id) VALUES ('o')").await;
    execute(&mut holder, "BEGIN; SELECT FROM orders WHERE order_id = 'o' FOR UPDATE").await;
    let write = tokio::spawn({
        let client = client.clone();
        async move { record_all(&client, vec![order("o", 1, "ann", &[line(1, "A", 1, 100)])]).await }
    });
    let single = tokio::spawn({
        let mut client = client.clone();
        let lines = single_lines(&order("o", 0, "ann", &[line(2, "B", 1, 100)]));
        async move {
            client
                .record_purchases(RecordPurchasesRequest { lines })
                .await
                .map(drop)
        }
    });
    let look = async || sessions_waiting_for_a_lock(&mut database.connect().await).await;
    eventually("both writers wait for the order", look, |&waiting| waiting == 2).await;
    // An order that nobody holds is written meanwhile.
    record_all(&client, vec![order("p", 1, "ann", &[line(1, "A", 1, 100)])]).await;
    execute(&mut holder, "COMMIT").await;
    assert_eq!(write.await.unwrap()[0].outcome(), OrderOutcome::Stored);
    single.await.unwrap().unwrap();
    // Whichever came first, the line that was recorded by itself did not stay.
    let numbers: Vec<i32> = lines_of(&client, "o")
        .await
        .iter()
        .map(|line| line.line_number)
        .collect();
    assert_eq!(numbers, [1]);
}

/// Writes versions `1..=ROUNDS` of the same orders in a shuffled order, as a whole, beside lines of them one by one.
async fn race(client: Client, writer: i64) {
    const ORDERS: i64 = 6;
    for round in 0..ROUNDS {
        let second = 1 + (round * 7 + writer * 5) % ROUNDS;
        let orders = (0..ORDERS).map(|id| {
            let id = (id + round + writer) % ORDERS;
            versions_of(id, second)
        });
        let orders: Vec<Order> = orders.collect();
        let lines = orders.iter().flat_map(single_lines).collect();
        let recorded = async {
            let results = record_all(&client, orders.clone()).await;
            assert!(results.iter().all(|result| result.error.is_none()), "{results:?}");
        };
        let single = async {
            client
                .clone()
                .record_purchases(RecordPurchasesRequest { lines })
                .await
                .unwrap();
        };
        let deleted = async {
            let selections: Vec<_> = orders
                .iter()
                .rev()
                .map(|order| select(&order.order_id, &[99]))
                .collect();
            delete(&client, &selections).await;
        };
        tokio::join!(recorded, single, deleted);
    }
}

const ROUNDS: i64 = 12;

fn versions_of(id: i64, second: i64) -> Order {
    let lines = [
        line(1, &format!("i{second}"), 1, 100),
        line(2, &format!("i{id}"), 2, 100),
    ];
    order(&format!("o{id}"), second, &format!("u{}", (id + second) % 5), &lines)
}

#[tokio::test]
async fn parallel_writers_of_the_same_orders_end_with_the_newest_versions() {
    let database = TestDatabase::create().await;
    let servers = [Server::start(&database), Server::start(&database)];
    let mut clients = Vec::new();
    for server in &servers {
        clients.push(server.purchases().await);
    }
    join_all((0..8).map(|writer| tokio::spawn(race(clients[writer as usize % 2].clone(), writer))))
        .await
        .into_iter()
        .for_each(|writer| writer.unwrap());
    for id in 0..6 {
        assert_eq!(
            lines_of(&clients[0], &format!("o{id}")).await,
            single_lines(&versions_of(id, ROUNDS))
        );
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(number(&mut database.connect().await, deadlocks).await, 0);
    for server in &servers {
        let log = server.program.log();
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[tokio::test]
async fn a_killed_server_leaves_every_order_whole() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let of_second = |second: i64| -> Vec<Order> {
        let lines: Vec<_> = (1..=20)
            .map(|number| line(number, &format!("i{number}"), second as i32, 100))
            .collect();
        (0..50)
            .map(|id| order(&format!("o{id}"), second, "ann", &lines))
            .collect()
    };
    record_all(&client, of_second(1)).await;
    let writing = tokio::spawn({
        let client = client.clone();
        async move {
            for second in 2..1_000 {
                let request = likemind::grpc::proto::v1::RecordOrdersRequest {
                    orders: of_second(second),
                };
                if client.clone().record_orders(request).await.is_err() {
                    return second;
                }
            }
            panic!("the server was not killed")
        }
    });
    // The kill comes in the middle of some batch.
    let look = async || {
        number(
            &mut database.connect().await,
            "SELECT max(quantity)::bigint FROM purchases",
        )
        .await
    };
    eventually("some batches are written", look, |&second| second >= 4).await;
    tokio::time::sleep(Duration::from_millis(7)).await;
    server.program.kill();
    let failed = writing.await.unwrap();

    let server = Server::start(&database);
    let client = server.purchases().await;
    let query = "SELECT count(DISTINCT quantity) FROM purchases";
    eventually(
        "the open transaction is gone",
        async || number(&mut database.connect().await, query).await,
        |&n| n == 1,
    )
    .await;
    assert_eq!(
        number(&mut database.connect().await, "SELECT count(*) FROM purchases").await,
        1_000
    );
    // The batch that failed can be sent again.
    let again = record_all(&client, of_second(failed)).await;
    let outcomes = [OrderOutcome::Stored, OrderOutcome::Identical];
    assert!(again.iter().all(|result| outcomes.contains(&result.outcome())));
    assert_eq!(lines_of(&client, "o7").await, single_lines(&of_second(failed)[7]));
    let lines = single_lines(&of_second(failed)[7]);
    let stream = tokio_stream::once(IngestPurchasesRequest { lines });
    let summary = client
        .clone()
        .ingest_purchases(stream)
        .await
        .unwrap()
        .into_inner()
        .summary
        .unwrap();
    assert_eq!(summary.rejected, 20);
}
