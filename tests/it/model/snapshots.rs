//! The commands of `likemind snapshots`.

use serde_json::{Value, json};

use crate::support::caller::Caller;
use crate::support::databases;
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::{Server, run, succeed};

/// [`databases::example`], trained until it has `versions`, of which the newest is active.
async fn trained(versions: usize) -> TestDatabase {
    let database = databases::example().await;
    for _ in 1..versions {
        succeed(&database, &["train", "--set-config=trainer.keep_snapshots=100"]);
    }
    database
}

fn snapshots(database: &TestDatabase, args: &[&str]) -> Value {
    let output = succeed(database, &[&["snapshots", "--json"], args].concat());
    serde_json::from_str(&output).unwrap()
}

/// Returns the version and state of all snapshots, newest first.
fn states(database: &TestDatabase) -> Vec<(i64, String)> {
    let list = snapshots(database, &["list", "--limit=100"]);
    let state = |row: &Value| {
        (
            row["version"].as_i64().unwrap(),
            row["state"].as_str().unwrap().to_owned(),
        )
    };
    list.as_array().unwrap().iter().map(state).collect()
}

fn assert_states(database: &TestDatabase, expected: &[(i64, &str)]) {
    let found = states(database);
    let found: Vec<(i64, &str)> = found
        .iter()
        .map(|(version, state)| (*version, state.as_str()))
        .collect();
    assert_eq!(found, expected);
}

fn assert_refused(database: &TestDatabase, args: &[&str], message: &str) {
    let before = states(database);
    let (code, output, error) = run(database, &[&["snapshots"], args].concat());
    assert_eq!((code, output.as_str()), (1, ""), "{args:?}: {error}");
    assert!(error.contains(message), "{args:?}: {error}");
    assert_eq!(states(database), before, "{args:?}");
}

async fn wait_until_served(server: &Server, version: i64) {
    Caller::of(server).await.wait_until_serves(version).await;
}

#[tokio::test]
async fn snapshots_are_listed_newest_first_and_shown_with_counts_and_evaluation() {
    let database = trained(3).await;
    assert_states(&database, &[(3, "active"), (2, "retired"), (1, "retired")]);
    let newest = snapshots(&database, &["list", "--limit=1"]);
    assert_eq!(newest.as_array().unwrap().len(), 1);
    assert_eq!(newest[0], snapshots(&database, &["show", "3"]));

    let shown = &newest[0];
    assert_eq!(shown["counts"], json!({ "users": 3, "items": 5, "ratings": 9 }));
    assert_eq!(shown["evaluation"]["verdict"], "insufficient_evaluation");
    assert_eq!(shown["parameters"]["options"]["neighbors"], 50);
    assert!(shown["size_bytes"].as_u64().unwrap() > 0);
    assert!(shown["activated_at"].is_string() && shown["created_at"].is_string());

    let text = succeed(&database, &["snapshots", "list"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    let text = succeed(&database, &["snapshots", "show", "3"]);
    assert!(
        text.contains("insufficient_evaluation") && text.contains("gate.min_users"),
        "{text}"
    );
    assert_refused(&database, &["show", "9"], "there is no snapshot 9");
}

#[tokio::test]
async fn a_rollback_activates_the_previously_active_snapshot_and_servers_follow() {
    let database = trained(3).await;
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    wait_until_served(&server, 3).await;

    let active = snapshots(&database, &["rollback", "--reason", "worse on Sundays"]);
    assert_eq!((&active["version"], &active["state"]), (&json!(2), &json!("active")));
    assert_eq!(active["note"], "worse on Sundays");
    assert_states(&database, &[(3, "retired"), (2, "active"), (1, "retired")]);
    wait_until_served(&server, 2).await;

    // The previous snapshot is the one that was active last, not the next lower version.
    succeed(&database, &["snapshots", "rollback"]);
    assert_states(&database, &[(3, "active"), (2, "retired"), (1, "retired")]);
    wait_until_served(&server, 3).await;

    snapshots(&database, &["activate", "1"]);
    assert_states(&database, &[(3, "retired"), (2, "retired"), (1, "active")]);
    wait_until_served(&server, 1).await;
    snapshots(&database, &["rollback"]);
    wait_until_served(&server, 3).await;
}

#[tokio::test]
async fn a_rollback_without_a_previous_snapshot_is_refused() {
    assert_refused(
        &trained(1).await,
        &["rollback"],
        "there is no earlier snapshot to go back to",
    );
}

#[tokio::test]
async fn prune_keeps_the_active_snapshot_and_the_previous_one() {
    let database = trained(6).await;
    let pruned = snapshots(&database, &["prune", "--keep=4"]);
    assert_eq!(pruned["versions"], json!([1, 2]));
    assert_states(
        &database,
        &[(6, "active"), (5, "retired"), (4, "retired"), (3, "retired")],
    );

    // Neither of the two that must stay is among the newest now.
    snapshots(&database, &["activate", "3"]);
    snapshots(&database, &["activate", "4"]);
    let pruned = snapshots(&database, &["prune", "--keep=0"]);
    assert_eq!(pruned["versions"], json!([5, 6]));
    assert_states(&database, &[(4, "active"), (3, "retired")]);
    snapshots(&database, &["rollback"]);
    snapshots(&database, &["prune", "--keep=0"]);
    assert_states(&database, &[(4, "retired"), (3, "active")]);
    let chunks = "SELECT DISTINCT version FROM snapshot_chunks ORDER BY version";
    let with_bytes: Vec<i64> = sqlx::query_scalar(chunks)
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(with_bytes, [3, 4]);

    let text = succeed(&database, &["snapshots", "prune"]);
    assert!(text.starts_with("Deleted 0 snapshots"), "{text}");
}

#[tokio::test]
async fn only_complete_snapshots_can_be_activated_and_a_rejected_one_needs_a_reason() {
    let database = trained(4).await;
    assert_refused(&database, &["activate", "9"], "there is no snapshot 9");
    for state in ["building", "failed"] {
        execute(
            &mut database.connect().await,
            &format!("UPDATE snapshots SET state = '{state}' WHERE version = 1"),
        )
        .await;
        assert_refused(
            &database,
            &["activate", "1"],
            &format!("snapshot 1 is {state} and cannot be activated"),
        );
        assert_refused(
            &database,
            &["activate", "1", "--reason", "all the same"],
            "cannot be activated",
        );
    }

    execute(
        &mut database.connect().await,
        "UPDATE snapshots SET state = 'rejected' WHERE version = 2",
    )
    .await;
    assert_refused(&database, &["activate", "2"], "give a reason");
    let active = snapshots(&database, &["activate", "2", "--reason", "the gate is wrong"]);
    assert_eq!(
        (&active["state"], &active["note"]),
        (&json!("active"), &json!("the gate is wrong"))
    );

    execute(
        &mut database.connect().await,
        "UPDATE snapshots SET state = 'candidate' WHERE version = 3",
    )
    .await;
    assert_eq!(snapshots(&database, &["activate", "3"])["state"], "active");
    // Activating the active snapshot changes nothing.
    let again = snapshots(&database, &["activate", "3"]);
    assert_eq!(again["state"], "active");
    assert_states(
        &database,
        &[(4, "retired"), (3, "active"), (2, "retired"), (1, "failed")],
    );
}
