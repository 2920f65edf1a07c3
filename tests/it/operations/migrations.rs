//! `likemind migrate`.

use std::process::Stdio;

use crate::support::postgres::TestDatabase;
use crate::support::program::command;

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
