//! Maps external ids to keys, and creates users, items and merchants that are seen for the first time, bare.

use std::collections::HashMap;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

/// The keys of a set of external ids, and the keys that were created for it.
#[derive(Debug, Default)]
pub(in crate::store) struct Keys {
    pub(in crate::store) by_external_id: HashMap<String, i64>,
    pub(in crate::store) created: Vec<i64>,
}

impl Keys {
    /// Returns the key of `external_id`, which must be in the set.
    pub(in crate::store) fn key(&self, external_id: &str) -> i64 {
        self.by_external_id[external_id]
    }

    fn extend(&mut self, rows: Vec<Row>) {
        self.by_external_id
            .extend(rows.into_iter().map(|row| (row.external_id, row.id)));
    }

    fn missing<'a>(&self, external_ids: &[&'a str]) -> Vec<String> {
        let absent = |id: &&&'a str| !self.by_external_id.contains_key(**id);
        external_ids.iter().filter(absent).map(|id| (*id).to_owned()).collect()
    }
}

struct Row {
    id: i64,
    external_id: String,
}

/// Returns the distinct ids in ascending order: this is the order in which every transaction takes its locks.
fn distinct<'a>(external_ids: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ids: Vec<&str> = external_ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

macro_rules! ensure {
    ($name:ident, $select:literal, $insert:literal) => {
        pub(in crate::store) async fn $name<'a>(
            connection: &mut Connection,
            external_ids: impl Iterator<Item = &'a str>,
        ) -> Result<Keys, StoreError> {
            let wanted = distinct(external_ids);
            let mut keys = Keys::default();
            let all: Vec<String> = wanted.iter().map(|id| (*id).to_owned()).collect();
            keys.extend(
                sqlx::query_as!(Row, $select, &all)
                    .fetch_all(&mut *connection)
                    .await?,
            );
            let missing = keys.missing(&wanted);
            if missing.is_empty() {
                return Ok(keys);
            }
            let created = sqlx::query_as!(Row, $insert, &missing)
                .fetch_all(&mut *connection)
                .await?;
            keys.created = created.iter().map(|row| row.id).collect();
            keys.extend(created);
            // Another transaction has created these in the meantime.
            let missing = keys.missing(&wanted);
            if !missing.is_empty() {
                keys.extend(
                    sqlx::query_as!(Row, $select, &missing)
                        .fetch_all(&mut *connection)
                        .await?,
                );
            }
            Ok(keys)
        }
    };
}

/// Finds the users that exist, by external id.
pub(in crate::store) async fn find_users<'a>(
    connection: &mut Connection,
    external_ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, i64>, StoreError> {
    let wanted: Vec<String> = distinct(external_ids).into_iter().map(str::to_owned).collect();
    let found = sqlx::query_as!(
        Row,
        "SELECT id, external_id FROM users WHERE external_id = ANY($1::text[])",
        &wanted
    )
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(|row| (row.external_id, row.id)).collect())
}

ensure!(
    ensure_users,
    "SELECT id, external_id FROM users WHERE external_id = ANY($1::text[])",
    "INSERT INTO users (external_id) SELECT * FROM UNNEST($1::text[]) ON CONFLICT DO NOTHING RETURNING id, external_id"
);
ensure!(
    ensure_merchants,
    "SELECT id, external_id FROM merchants WHERE external_id = ANY($1::text[])",
    "INSERT INTO merchants (external_id) SELECT * FROM UNNEST($1::text[]) ON CONFLICT DO NOTHING
     RETURNING id, external_id"
);
ensure!(
    ensure_items,
    "SELECT id, external_id FROM items WHERE external_id = ANY($1::text[])",
    "WITH created AS (
         INSERT INTO items (external_id) SELECT * FROM UNNEST($1::text[]) ON CONFLICT DO NOTHING
         RETURNING id, external_id
     ), logged AS (
         INSERT INTO changes (item_id) SELECT id FROM created
     )
     SELECT id, external_id FROM created"
);
