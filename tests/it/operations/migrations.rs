//! `likemind migrate`.

use std::process::Stdio;

use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::{command, run};

#[tokio::test]
async fn one_of_several_migrations_at_once_applies_and_the_others_have_nothing_to_do() {
    let database = TestDatabase::without_schema().await;
    let all: Vec<_> = (0..4)
        .map(|_| command(&database, &["migrate"]).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let mut printed: Vec<String> = all
        .into_iter()
        .map(|one| {
            let output = one.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    printed.sort();
    assert!(printed[0].starts_with("Applied "), "{printed:?}");
    assert_eq!(printed[1..], ["The schema is up to date.\n"; 3]);
}

/// Asserts that each of the commands fails with an error that holds `part`, and says nothing of the database library.
fn assert_refused(database: &TestDatabase, commands: &[&[&str]], part: &str) {
    for args in commands {
        let (code, _, error) = run(database, args);
        assert_eq!(code, 1, "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
        for foreign in ["error returned from database", "at line", "resolved migrations"] {
            assert!(!error.contains(foreign), "{args:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_program_is_named() {
    let database = TestDatabase::create().await;
    let from_the_future = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                           VALUES (9999, 'from the future', true, '', 1)";
    execute(&mut database.connect().await, from_the_future).await;
    assert_refused(
        &database,
        &[&["migrate"], &["snapshots", "list"], &["train"]],
        "error: the database schema is newer than this program",
    );
}

#[tokio::test]
async fn a_database_that_cannot_store_all_texts_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = TestDatabase::of_encoding(encoding).await;
        let part = format!("the database has the encoding {encoding}, and texts need UTF8");
        assert_refused(&database, &[&["migrate"], &["snapshots", "list"]], &part);
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let database = TestDatabase::without_schema().await;
    execute(&mut database.connect().await, "CREATE TABLE users (id int)").await;
    assert_refused(
        &database,
        &[&["migrate"]],
        "migration 1: relation \"users\" already exists (SQLSTATE 42P07); the database holds tables of another program",
    );
}
