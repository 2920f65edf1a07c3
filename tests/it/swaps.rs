//! One snapshot takes another's place under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, Basis, Item, ListSimilarItemsRequest, ListSimilarItemsResponse, PredictRatingsRequest,
    PredictRatingsResponse, RecommendRequest, RecommendResponse, RollbackSnapshotRequest,
};
use sqlx::Connection;
use tonic::Status;

use crate::hold::execute;
use crate::postgres::TestDatabase;
use crate::program::Server;
use crate::shop::{self, Caller, for_user, item, soon, user};

/// Set to try more swaps by hand: `LIKEMIND_SWAPS=1000 cargo test --test it -- --nocapture swaps::swaps`.
const SWAPS: &str = "LIKEMIND_SWAPS";

/// Two snapshots that answer differently, the second one active.
async fn two_snapshots() -> TestDatabase {
    let database = shop::open().await;
    let mut connection = shop::connect(&database).await;
    for number in 0..shop::USERS {
        shop::write_rating(&mut connection, &user(number), &item(number * 7 % shop::ITEMS), 5.0).await;
    }
    connection.close().await.unwrap();
    shop::train(database.url());
    database
}

/// Requests and what they are answered.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Recommend(RecommendResponse),
    Predict(PredictRatingsResponse),
    Similar(ListSimilarItemsResponse),
}

impl Answer {
    fn snapshot_version(&self) -> i64 {
        match self {
            Self::Recommend(answer) => answer.snapshot_version,
            Self::Predict(answer) => answer.snapshot_version,
            Self::Similar(answer) => answer.snapshot_version,
        }
    }
}

const QUESTIONS: usize = 60;

/// One of [`QUESTIONS`] requests, of all three kinds.
async fn ask(caller: &Caller, question: usize) -> Result<Answer, Status> {
    let mut client = caller.recommendations.clone();
    let user_id = user(question);
    Ok(match question % 3 {
        0 => {
            let request = RecommendRequest {
                basis: Basis::Blended.into(),
                limit: 20,
                explain: true,
                ..for_user(&user_id)
            };
            Answer::Recommend(client.recommend(request).await?.into_inner())
        }
        1 => {
            let request = PredictRatingsRequest {
                user_id,
                item_ids: (0..10).map(item).collect(),
                ..PredictRatingsRequest::default()
            };
            Answer::Predict(client.predict_ratings(request).await?.into_inner())
        }
        _ => {
            let request = ListSimilarItemsRequest {
                item_id: item(question % shop::ITEMS),
                ..ListSimilarItemsRequest::default()
            };
            Answer::Similar(client.list_similar_items(request).await?.into_inner())
        }
    })
}

async fn ask_all(caller: &Caller) -> Vec<Answer> {
    let mut answers = Vec::new();
    for question in 0..QUESTIONS {
        answers.push(ask(caller, question).await.unwrap());
    }
    answers
}

/// What a version answers when nothing else is going on.
async fn expected(caller: &Caller) -> Arc<BTreeMap<i64, Vec<Answer>>> {
    let mut expected = BTreeMap::new();
    for version in [1, 2] {
        caller.switch_to(version).await;
        let answers = ask_all(caller).await;
        assert!(answers.iter().all(|answer| answer.snapshot_version() == version));
        expected.insert(version, answers);
    }
    let differ = |question: &usize| expected[&1][*question] != expected[&2][*question];
    let different = (0..QUESTIONS).filter(differ).count();
    assert_eq!(different, QUESTIONS);
    Arc::new(expected)
}

#[tokio::test]
async fn swaps_fail_no_request() {
    swap_under_load("1").await;
}

#[tokio::test]
async fn swaps_from_the_database_fail_no_request() {
    swap_under_load("0").await;
}

async fn swap_under_load(keep_previous: &str) {
    let swaps = std::env::var(SWAPS).map_or(20, |swaps| swaps.parse().unwrap());
    let database = two_snapshots().await;
    let server = Server::with(&database, &[("live.keep_previous", keep_previous)]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;
    let memory_before = server.program.memory();

    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for first in 0..4 {
        let (stop, asked, expected) = (stop.clone(), asked.clone(), expected.clone());
        // A connection each.
        let caller = Caller::of(&server).await;
        tasks.push(tokio::spawn(async move {
            let mut seen = BTreeMap::<i64, u64>::new();
            let mut question = first;
            while !stop.load(Ordering::Relaxed) {
                let answer = ask(&caller, question).await.unwrap();
                let version = answer.snapshot_version();
                assert_eq!(
                    answer, expected[&version][question],
                    "not what version {version} answers alone"
                );
                *seen.entry(version).or_default() += 1;
                asked.fetch_add(1, Ordering::Relaxed);
                question = (question + 1) % QUESTIONS;
            }
            seen
        }));
    }
    for swap in 0..swaps {
        match swap % 4 {
            0 | 2 => caller.switch_to(1).await,
            1 => caller.switch_to(2).await,
            _ => {
                let request = RollbackSnapshotRequest::default();
                let active = caller
                    .models
                    .clone()
                    .rollback_snapshot(request)
                    .await
                    .unwrap()
                    .into_inner();
                assert_eq!(active.snapshot.unwrap().version, 2);
                caller.serves(2).await;
            }
        }
        // Each version is asked.
        let now = asked.load(Ordering::Relaxed);
        soon("answers between two swaps", || async {
            asked.load(Ordering::Relaxed) > now + 8
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        let seen = task.await.unwrap();
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
    }
    println!(
        "keep_previous={keep_previous}: {swaps} swaps, {} requests, none failed; memory {memory_before} before, {} after",
        asked.load(Ordering::Relaxed),
        server.program.memory()
    );
    let (exit, log) = server.drain().await;
    assert!(exit.success(), "{log}");
    // On a machine with much else to do the database takes its time, which is no failure of swapping.
    let is_slowness = |line: &&str| line.contains("the database has not answered for");
    let complaints = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert_eq!(complaints.filter(|line| !is_slowness(line)).count(), 0, "{log}");
}

/// So that a version can be served from memory alone.
async fn delete_bytes(database: &TestDatabase, version: i64) {
    let mut connection = shop::connect(database).await;
    let deleted = sqlx::query("DELETE FROM snapshot_chunks WHERE version = $1")
        .bind(version)
        .execute(&mut connection)
        .await
        .unwrap();
    assert!(deleted.rows_affected() > 0);
}

#[tokio::test]
async fn a_rollback_is_served_from_memory() {
    let database = two_snapshots().await;
    let server = Server::with(&database, &[("live.keep_previous", "1")]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;
    assert_eq!(caller.status().await.previous_version, Some(1));

    delete_bytes(&database, 1).await;
    delete_bytes(&database, 2).await;
    let active = caller
        .models
        .clone()
        .rollback_snapshot(RollbackSnapshotRequest::default())
        .await;
    assert_eq!(active.unwrap().into_inner().snapshot.unwrap().version, 1);
    caller.serves(1).await;
    assert_eq!(ask_all(&caller).await, expected[&1]);
    assert_eq!(caller.status().await.previous_version, Some(2));
    // What has been written in the meantime shows in the one that was kept, too.
    let renamed = Item {
        item_id: item(3),
        title: Some("Renamed".to_owned()),
        ..Item::default()
    };
    caller.put(renamed).await;
    caller.switch_to(2).await;
    let answer = caller.ranked("stranger").await;
    assert!(answer.items.iter().any(|found| found.title == "Renamed"));
}

#[tokio::test]
async fn without_a_kept_one_a_rollback_is_loaded_again() {
    let database = two_snapshots().await;
    let server = Server::with(&database, &[("live.keep_previous", "0")]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;
    for version in [1, 2, 1, 2] {
        caller.switch_to(version).await;
        assert_eq!(ask_all(&caller).await, expected[&version]);
        assert_eq!(caller.status().await.previous_version, None);
    }
    // What cannot be loaded is said, and leaves everything as it was.
    delete_bytes(&database, 1).await;
    caller
        .models
        .clone()
        .rollback_snapshot(RollbackSnapshotRequest::default())
        .await
        .unwrap();
    soon("the damage is reported", || async {
        caller.status().await.load_error.contains("snapshot 1")
    })
    .await;
    assert_eq!(ask_all(&caller).await, expected[&2]);
    caller
        .models
        .clone()
        .rollback_snapshot(RollbackSnapshotRequest::default())
        .await
        .unwrap();
    soon("the damage is past", || async {
        caller.status().await.load_error.is_empty()
    })
    .await;
    assert_eq!(ask_all(&caller).await, expected[&2]);
}

#[tokio::test]
async fn a_load_that_gets_nowhere_begins_anew() {
    let database = two_snapshots().await;
    let mut server = Server::with(&database, &[("live.keep_previous", "0")]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;

    let mut lock = shop::connect(&database).await;
    execute(&mut lock, "BEGIN; LOCK TABLE snapshot_chunks IN ACCESS EXCLUSIVE MODE").await;
    let request = ActivateSnapshotRequest {
        version: 1,
        reason: String::new(),
    };
    caller.models.clone().activate_snapshot(request).await.unwrap();
    server.program.wait_for_log("begun anew");
    assert_eq!(ask_all(&caller).await, expected[&2]);
    execute(&mut lock, "COMMIT").await;
    caller.serves(1).await;
    assert_eq!(ask_all(&caller).await, expected[&1]);
}
