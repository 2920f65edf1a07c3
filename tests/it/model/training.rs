//! Training on real purchases: the quality of the models, the gate, and the same bytes every time.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::support::databases;
use crate::support::databases::FEWER_USERS;
use crate::support::postgres::{TestDatabase, execute, number, scratch};
use crate::support::program::{command, output, run, succeed};
use crate::support::waiting::eventually;

#[tokio::test]
async fn neighbor_rankers_find_new_items_better_than_popularity() {
    let database = databases::online_retail().await;
    let output = succeed(&database, &["evaluate", "--split-at", "2011-08-15", "--json"]);
    let figures: Value = serde_json::from_str(&output).unwrap();
    let row = |ranker: &str, items: &str| {
        let mut rows = figures["ranking"].as_array().unwrap().iter();
        let found = rows.find(|row| row["ranker"] == ranker && row["items"] == items);
        found.unwrap_or_else(|| panic!("no {ranker}, {items} in {figures:#}"))
    };
    let figure = |ranker: &str, items: &str, name: &str| row(ranker, items)[name].as_f64().unwrap();

    for items in ["all", "new"] {
        for ranker in ["popularity", "item_based", "user_based", "blended"] {
            for name in ["ndcg_at_10", "recall_at_20", "coverage_at_20"] {
                let value = figure(ranker, items, name);
                assert!(value > 0.0 && value < 1.0, "{ranker}, {items}: {name} {value}");
            }
            let users = row(ranker, items)["users"].as_u64().unwrap();
            assert_eq!(users, row("popularity", items)["users"].as_u64().unwrap());
            assert!(users > 500, "{users}");
        }
    }
    let popularity = figure("popularity", "new", "ndcg_at_10");
    for ranker in ["item_based", "user_based", "blended"] {
        let ndcg = figure(ranker, "new", "ndcg_at_10");
        assert!(ndcg >= 1.8 * popularity, "{ranker}: {ndcg}, popularity: {popularity}");
        // Popularity shows everybody the same few items.
        let coverage = figure(ranker, "new", "coverage_at_20");
        assert!(
            coverage > 5.0 * figure("popularity", "new", "coverage_at_20"),
            "{ranker}: {coverage}"
        );
    }
    let stored = number(&mut database.connect().await, "SELECT count(*) FROM snapshots").await;
    assert_eq!(stored, 0, "evaluating stores no snapshot");
}

#[tokio::test]
async fn a_split_date_outside_the_data_is_refused() {
    let database = databases::example().await;
    let (code, output, error) = run(&database, &["evaluate", "--split-at", "2001-01-01"]);
    assert_eq!((code, output.as_str()), (1, ""), "{error}");
    assert!(error.contains("2001-01-01"), "{error}");
}

/// Runs `train` and returns its exit code and outcome.
fn train(database: &TestDatabase, args: &[&str]) -> (i32, Value) {
    let (code, output, error) = run(database, &[&["train", "--json", FEWER_USERS], args].concat());
    let outcome = serde_json::from_str(&output);
    (code, outcome.unwrap_or_else(|_| panic!("{code}: {output}\n{error}")))
}

fn assert_states(database: &TestDatabase, expected: &[(i64, &str)]) {
    let list: Value = serde_json::from_str(&succeed(database, &["snapshots", "list", "--json"])).unwrap();
    let state = |row: &Value| {
        (
            row["version"].as_i64().unwrap(),
            row["state"].as_str().unwrap().to_owned(),
        )
    };
    let found: Vec<(i64, String)> = list.as_array().unwrap().iter().map(state).collect();
    let found: Vec<(i64, &str)> = found
        .iter()
        .map(|(version, state)| (*version, state.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_gate_activates_an_equal_model_and_rejects_a_shrunk_one_unless_forced() {
    let database = databases::trained_online_retail().await;
    let (code, again) = train(&database, &[]);
    assert_eq!(
        (code, &again["evaluation"]["verdict"]),
        (0, &json!("passed")),
        "{again:#}"
    );
    assert_states(&database, &[(2, "active"), (1, "retired")]);

    let halve = "DELETE FROM purchases WHERE user_id % 2 = 0; DELETE FROM users WHERE id % 2 = 0;";
    execute(&mut database.connect().await, halve).await;
    let (code, cut) = train(&database, &[]);
    assert_eq!((code, &cut["state"]), (3, &json!("rejected")), "{cut:#}");
    assert_states(&database, &[(3, "rejected"), (2, "active"), (1, "retired")]);
    let users = |outcome: &Value| outcome["counts"]["users"].as_u64().unwrap();
    let reason = format!("the model has {} users", users(&cut));
    let expected = format!("fewer than the active snapshot's {}", users(&again));
    // The reasons are stored, not only printed.
    let shown: Value = serde_json::from_str(&succeed(&database, &["snapshots", "show", "3", "--json"])).unwrap();
    let reasons: Vec<&str> = shown["evaluation"]["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| reason.as_str().unwrap())
        .collect();
    let is_named = reasons
        .iter()
        .any(|found| found.starts_with(&reason) && found.contains(&expected));
    assert!(is_named, "{reasons:?}");
    assert_eq!(shown["evaluation"]["verdict"], "rejected");
    assert!(!shown["evaluation"]["ranking"].as_array().unwrap().is_empty());

    let (code, forced) = train(&database, &["--force", "half of the shops are closed"]);
    assert_eq!((code, &forced["state"]), (0, &json!("active")), "{forced:#}");
    assert_eq!(forced["note"], "forced: half of the shops are closed");
    assert_eq!(forced["evaluation"]["verdict"], "rejected");
    assert_states(
        &database,
        &[(4, "active"), (3, "rejected"), (2, "retired"), (1, "retired")],
    );
}

#[tokio::test]
async fn a_model_with_too_few_users_to_evaluate_is_activated_and_marked() {
    let database = databases::example().await;
    let (code, outcome) = train(&database, &[]);
    assert_eq!((code, &outcome["state"]), (0, &json!("active")), "{outcome:#}");
    assert_eq!(outcome["evaluation"]["verdict"], "insufficient_evaluation");
    assert!(
        outcome["evaluation"]["reasons"][0]
            .as_str()
            .unwrap()
            .contains("gate.min_users = 100"),
        "{outcome:#}"
    );
    let text = succeed(&database, &["train"]);
    assert!(text.contains("snapshot 3: INSUFFICIENT_EVALUATION, active"), "{text}");
}

#[tokio::test]
async fn an_empty_model_is_rejected() {
    let database = TestDatabase::create().await;
    let (code, outcome) = train(&database, &[]);
    assert_eq!((code, &outcome["state"]), (3, &json!("rejected")), "{outcome:#}");
    let reason = outcome["evaluation"]["reasons"][0].as_str().unwrap();
    let expected =
        "the model has 0 users, 0 items and 0 ratings, and each must be 1 or more: import ratings, or purchases";
    assert!(reason.starts_with(expected), "{reason}");
    assert_states(&database, &[(1, "rejected")]);
}

/// Returns the checksum of the newest snapshot, and the digest of each of its chunks.
async fn digests(database: &TestDatabase) -> (Vec<u8>, Vec<(String, i32, String)>) {
    let mut connection = database.connect().await;
    let checksum = sqlx::query_scalar("SELECT checksum FROM snapshots ORDER BY version DESC LIMIT 1");
    let checksum = checksum.fetch_one(&mut connection).await.unwrap();
    let chunks = "SELECT part, chunk, encode(sha256(bytes), 'hex') FROM snapshot_chunks
         WHERE version = (SELECT max(version) FROM snapshots) ORDER BY part, chunk";
    (
        checksum,
        sqlx::query_as(chunks).fetch_all(&mut connection).await.unwrap(),
    )
}

#[tokio::test]
async fn the_same_data_give_the_same_bytes_whatever_the_threads_keys_and_order() {
    let one_thread = digests(&databases::trained_online_retail().await).await;
    assert!(one_thread.1.len() > 10, "{one_thread:?}");

    // This database has the same purchases under other keys and in another order.
    let database = databases::online_retail().await;
    let shuffle = "SET session_replication_role = replica;
        UPDATE users SET id = -id; UPDATE items SET id = -id;
        CREATE TABLE shuffled AS SELECT * FROM purchases ORDER BY md5(order_id || item_id);
        UPDATE shuffled SET user_id = -user_id, item_id = -item_id;
        TRUNCATE purchases;
        INSERT INTO purchases SELECT * FROM shuffled;";
    execute(&mut database.connect().await, shuffle).await;
    let trained = output(command(&database, &["train", FEWER_USERS]).env("RAYON_NUM_THREADS", "8"));
    assert!(trained.status.success(), "{trained:?}");
    assert_eq!(digests(&database).await, one_thread);
}

/// A run prunes after it has published. Changes newer than the oldest snapshot that stays are still needed.
#[tokio::test]
async fn each_run_prunes_old_snapshots_and_the_changes_that_they_needed() {
    let database = databases::example().await;
    let mut connection = database.connect().await;
    let folder = scratch();
    let file = folder.path().join("one.csv");
    let mut round = 1;
    let train_once_more = async || {
        round += 1;
        std::fs::write(&file, format!("user_id,item_id,value\nu{round},round{round},3\n")).unwrap();
        succeed(&database, &["import", "ratings", file.to_str().unwrap()]);
        succeed(&database, &["train", "--set-config=trainer.keep_snapshots=3"]);

        let version = i64::try_from(round).unwrap();
        let kept = [(version, "active"), (version - 1, "retired"), (version - 2, "retired")];
        assert_states(&database, &kept[..round.min(3)]);
        let chunks = sqlx::query_scalar("SELECT DISTINCT version FROM snapshot_chunks ORDER BY version DESC");
        let chunks: Vec<i64> = chunks.fetch_all(&mut connection).await.unwrap();
        assert_eq!(
            chunks,
            kept[..round.min(3)].iter().map(|kept| kept.0).collect::<Vec<_>>()
        );

        let changed = "SELECT count(DISTINCT external_id) FROM changes JOIN items ON items.id = item_id
                       WHERE external_id = ANY($1)";
        let mut changes_of = async |rounds: RangeInclusive<usize>| -> i64 {
            let items: Vec<String> = rounds.map(|round| format!("round{round}")).collect();
            let changed = sqlx::query_scalar(changed).bind(items);
            changed.fetch_one(&mut connection).await.unwrap()
        };
        // Round 1 is that of the example. The oldest snapshot that stays has read all earlier changes.
        let needed = 2.max(round - 1)..=round;
        let count = needed.clone().count();
        assert_eq!(usize::try_from(changes_of(needed).await), Ok(count), "round {round}");
        (round, changes_of(2..=2).await)
    };
    // Transactions of other tests may keep the change for a few rounds.
    let is_pruned = |&(round, changes): &(usize, i64)| round > 4 && changes == 0;
    eventually("the first change is pruned", train_once_more, is_pruned).await;
}
