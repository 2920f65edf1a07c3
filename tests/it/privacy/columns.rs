//! The table of docs/privacy.md has a row for every column that can refer to a user.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::postgres::TestDatabase;

const PAGE: &str = include_str!("../../../docs/privacy.md");
const HEADING: &str = "## Every column that can refer to a user";
const RULES: [&str; 4] = ["deleted", "pseudonymized", "kept", "no user"];

/// Returns the rule of every column that the page names, as `table.column`.
fn documented() -> BTreeMap<String, String> {
    let section = PAGE.split(HEADING).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut documented = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [columns, rule, why] = cells[..] else {
            panic!("{line} has not three cells");
        };
        assert!(RULES.contains(&rule), "{rule} is no rule: {line}");
        assert!(!why.is_empty(), "{line} does not say why");
        // Every second piece stands between two backticks.
        for column in columns.split('`').skip(1).step_by(2) {
            let before = documented.insert(column.to_owned(), rule.to_owned());
            assert_eq!(before, None, "{column} has two rows");
        }
    }
    documented
}

/// A column of the schema, and whether it can hold the id or the number of a user.
async fn columns(database: &TestDatabase) -> BTreeMap<String, bool> {
    // Texts, JSON, bytes and arrays of them can hold anything.
    let columns: Vec<(String, bool)> = sqlx::query_as(
        "SELECT table_name || '.' || column_name,
                column_name LIKE '%user%' OR udt_name IN ('text', 'varchar', 'json', 'jsonb', 'bytea')
                    OR data_type = 'ARRAY'
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    columns.into_iter().collect()
}

/// Returns the columns that refer to `users` by a foreign key, whatever they are called.
async fn references(database: &TestDatabase) -> BTreeSet<String> {
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT conrelid::regclass || '.' || attname FROM pg_constraint
         JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
         WHERE contype = 'f' AND confrelid = 'users'::regclass",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    columns.into_iter().collect()
}

#[tokio::test]
async fn every_column_that_can_refer_to_a_user_has_its_rule() {
    let database = TestDatabase::create().await;
    let (documented, columns) = (documented(), columns(&database).await);
    let missing: Vec<&String> = columns
        .iter()
        .filter(|(name, can_refer)| **can_refer && !documented.contains_key(*name))
        .map(|(name, _)| name)
        .collect();
    assert!(
        missing.is_empty(),
        "docs/privacy.md, {HEADING:?}, has no row for {missing:#?}"
    );
    let unknown: Vec<&String> = documented.keys().filter(|name| !columns.contains_key(*name)).collect();
    assert!(
        unknown.is_empty(),
        "docs/privacy.md has rows for columns that do not exist: {unknown:?}"
    );
    for reference in references(&database).await {
        let rule = documented.get(&reference);
        assert!(
            rule.is_some_and(|rule| rule != "no user"),
            "{reference} refers to users: {rule:?}"
        );
    }
}
