//! The table of docs/privacy.md has a row for every column that can refer to a user.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::postgres::TestDatabase;

const PAGE: &str = include_str!("../../../docs/privacy.md");
const HEADING: &str = "## Every column that can refer to a user";
const RULES: [&str; 4] = ["deleted", "pseudonymized", "kept", "no user"];

/// How the search for erased ids treats a column.
const SEARCHES: [&str; 3] = ["id", "note", "no"];

/// The row of a column in the page.
struct Documented {
    rule: String,
    search: String,
}

/// Returns the row of every column that the page names, as `table.column`.
fn documented() -> BTreeMap<String, Documented> {
    let section = PAGE.split(HEADING).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut documented = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [columns, rule, search, why] = cells[..] else {
            panic!("{line} has not four cells");
        };
        assert!(SEARCHES.contains(&search), "{search} is no search: {line}");
        assert!(RULES.contains(&rule), "{rule} is no rule: {line}");
        assert!(!why.is_empty(), "{line} does not say why");
        // Every second piece stands between two backticks.
        for column in columns.split('`').skip(1).step_by(2) {
            let (rule, search) = (rule.to_owned(), search.to_owned());
            let before = documented.insert(column.to_owned(), Documented { rule, search });
            assert!(before.is_none(), "{column} has two rows");
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
            rule.is_some_and(|documented| documented.rule != "no user"),
            "{reference} refers to users"
        );
    }
}

#[tokio::test]
async fn the_search_for_erased_ids_treats_every_column_as_its_row_says() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let searched: Vec<(String, bool)> = sqlx::query_as("SELECT place, is_note FROM searched_columns()")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut searched: BTreeMap<String, &str> = searched
        .into_iter()
        .map(|(place, is_note)| (place, if is_note { "note" } else { "id" }))
        .collect();
    // These are looked up by functions of their own, and by decoding the parts of snapshots.
    for place in ["users.external_id", "request_log.response", "snapshot_chunks.bytes"] {
        assert_eq!(searched.insert(place.to_owned(), "id"), None, "{place}");
    }
    let documented: BTreeMap<String, Documented> = documented();
    let documented: BTreeMap<String, &str> = documented
        .iter()
        .filter(|(_, documented)| documented.search != "no")
        .map(|(place, documented)| (place.clone(), documented.search.as_str()))
        .collect();
    assert_eq!(searched, documented);
    let named: Vec<String> = sqlx::query_scalar("SELECT UNNEST(columns_without_users() || columns_of_notes())")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let columns = columns(&database).await;
    let unknown: Vec<&String> = named.iter().filter(|place| !columns.contains_key(*place)).collect();
    assert_eq!(unknown, Vec::<&String>::new());
}
