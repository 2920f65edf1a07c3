//! Swapping snapshots under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use likemind::grpc::proto::v1::{
    Basis, Item, ListSimilarItemsRequest, ListSimilarItemsResponse, PredictRatingsRequest, PredictRatingsResponse,
    RecommendRequest, RecommendResponse, RollbackSnapshotRequest,
};
use sqlx::Connection;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::answers::assert_status;
use crate::support::caller::{Caller, for_user};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::shop;
use crate::support::shop::{item, user};
use crate::support::snapshot_damage::activate_unseen;
use crate::support::waiting::soon;

/// Set to try more swaps by hand: `LIKEMIND_SWAPS=1000 cargo test --test it -- --nocapture snapshot_swaps::swaps`.
const SWAPS: &str = "LIKEMIND_SWAPS";

/// Opens the shop with two snapshots that answer differently. The second is active.
async fn two_snapshots() -> TestDatabase {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    for number in 0..shop::USERS {
        shop::write_rating(&mut connection, &user(number), &item(number * 7 % shop::ITEMS), 5.0).await;
    }
    connection.close().await.unwrap();
    shop::train(database.url());
    database
}

/// The answer to one of the [`QUESTIONS`].
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

/// The number of requests that are sent in turn.
const QUESTIONS: usize = 60;

/// Sends one of [`QUESTIONS`] requests, which are of three kinds.
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

/// Returns what each version answers while nothing else happens.
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
async fn swaps_between_kept_snapshots_fail_no_request() {
    swap_under_load("1").await;
}

#[tokio::test]
async fn swaps_that_load_from_the_database_fail_no_request() {
    swap_under_load("0").await;
}

/// Clients that ask all questions in turn and compare each answer with that of its version alone.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<BTreeMap<i64, u64>>>,
}

impl Load {
    async fn start(server: &Server, expected: &Arc<BTreeMap<i64, Vec<Answer>>>) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for first in 0..4 {
            let (stop, answered, expected) = (stop.clone(), answered.clone(), expected.clone());
            // Each client has a connection of its own.
            let caller = Caller::of(server).await;
            tasks.push(tokio::spawn(async move {
                let mut seen = BTreeMap::<i64, u64>::new();
                let mut question = first;
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(&caller, question).await.unwrap();
                    let version = answer.snapshot_version();
                    let alone = &expected[&version][question];
                    assert_eq!(answer, *alone, "not what version {version} answers alone");
                    *seen.entry(version).or_default() += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                    question = (question + 1) % QUESTIONS;
                }
                seen
            }));
        }
        Self { stop, answered, tasks }
    }

    /// Waits until more answers have come, so that each version is asked.
    async fn wait_for_answers(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let look = async || self.answered.load(Ordering::Relaxed);
        soon("answers between two swaps", look, |&answered| answered > before + 8).await;
    }

    /// Stops the clients, asserts that each has seen both versions, and returns the number of answers.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let seen = task.await.unwrap();
            assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
        }
        self.answered.load(Ordering::Relaxed)
    }
}

async fn roll_back(caller: &Caller) -> i64 {
    let request = RollbackSnapshotRequest::default();
    let answer = caller.models.clone().rollback_snapshot(request).await.unwrap();
    answer.into_inner().snapshot.unwrap().version
}

async fn swap_under_load(keep_previous: &str) {
    let swaps = std::env::var(SWAPS).map_or(20, |swaps| swaps.parse().unwrap());
    let database = two_snapshots().await;
    let server = Server::with(&database, &[("live.keep_previous", keep_previous)]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;
    let memory_before = server.program.memory();

    let load = Load::start(&server, &expected).await;
    for swap in 0..swaps {
        match swap % 4 {
            0 | 2 => caller.switch_to(1).await,
            1 => caller.switch_to(2).await,
            _ => {
                assert_eq!(roll_back(&caller).await, 2);
                caller.wait_until_serves(2).await;
            }
        }
        load.wait_for_answers().await;
    }
    let answered = load.stop().await;
    println!(
        "keep_previous={keep_previous}: {swaps} swaps, {answered} requests, none failed; \
         memory {memory_before} before, {} after",
        server.program.memory()
    );
    let (exit, log) = server.drain().await;
    assert!(exit.success(), "{log}");
    // On a busy machine the database may be slow, which is no failure of a swap.
    let is_slowness = |line: &&str| line.contains("the database has not answered for");
    let complaints = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert_eq!(complaints.filter(|line| !is_slowness(line)).count(), 0, "{log}");
}

/// Deletes the stored bytes of a version, so that it can be served from memory only.
async fn delete_bytes(database: &TestDatabase, version: i64) {
    let mut connection = database.connect().await;
    let deleted = sqlx::query("DELETE FROM snapshot_chunks WHERE version = $1")
        .bind(version)
        .execute(&mut connection)
        .await
        .unwrap();
    assert!(deleted.rows_affected() > 0);
}

#[tokio::test]
async fn a_switch_to_the_kept_snapshot_reads_no_stored_bytes() {
    let database = two_snapshots().await;
    let server = Server::with(&database, &[("live.keep_previous", "1")]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;
    assert_eq!(caller.status().await.previous_version, Some(1));

    delete_bytes(&database, 1).await;
    delete_bytes(&database, 2).await;
    activate_unseen(&database, 1).await;
    caller.wait_until_serves(1).await;
    assert_eq!(ask_all(&caller).await, expected[&1]);
    assert_eq!(caller.status().await.previous_version, Some(2));
    // A change that was written meanwhile shows in the kept snapshot, too.
    let renamed = Item {
        item_id: item(3),
        title: Some("Renamed".to_owned()),
        ..Item::default()
    };
    caller.put(renamed).await;
    activate_unseen(&database, 2).await;
    caller.wait_until_serves(2).await;
    let answer = caller.ranked("stranger").await;
    assert!(answer.items.iter().any(|found| found.title == "Renamed"));
}

#[tokio::test]
async fn without_a_kept_snapshot_a_rollback_loads_it_again_or_reports_why_it_cannot() {
    let database = two_snapshots().await;
    let server = Server::with(&database, &[("live.keep_previous", "0")]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;
    for version in [1, 2, 1, 2] {
        caller.switch_to(version).await;
        assert_eq!(ask_all(&caller).await, expected[&version]);
        assert_eq!(caller.status().await.previous_version, None);
    }
    // A snapshot that cannot be loaded is refused. One that is lost later is reported, and the served one stays.
    delete_bytes(&database, 1).await;
    let refused = caller
        .models
        .clone()
        .rollback_snapshot(RollbackSnapshotRequest::default())
        .await;
    assert_status(&refused.unwrap_err(), Code::FailedPrecondition, "SNAPSHOT_UNUSABLE");
    activate_unseen(&database, 1).await;
    let look = async || caller.status().await.load_error;
    soon("the load error names snapshot 1", look, |error| {
        error.contains("snapshot 1")
    })
    .await;
    assert_eq!(ask_all(&caller).await, expected[&2]);
    assert_eq!(roll_back(&caller).await, 2);
    soon("there is no load error", look, String::is_empty).await;
    assert_eq!(ask_all(&caller).await, expected[&2]);
}

#[tokio::test]
async fn a_load_that_makes_no_progress_begins_anew() {
    let database = two_snapshots().await;
    let mut server = Server::with(&database, &[("live.keep_previous", "0")]);
    let caller = Caller::of(&server).await;
    let expected = expected(&caller).await;

    let mut lock = database.connect().await;
    execute(&mut lock, "BEGIN; LOCK TABLE snapshot_chunks IN ACCESS EXCLUSIVE MODE").await;
    activate_unseen(&database, 1).await;
    server.program.wait_for_log("loading it anew");
    assert_eq!(ask_all(&caller).await, expected[&2]);
    execute(&mut lock, "COMMIT").await;
    caller.wait_until_serves(1).await;
    assert_eq!(ask_all(&caller).await, expected[&1]);
}
