//! Maps external ids to keys, and creates users, items and merchants that are seen for the first time, bare.

use std::collections::HashMap;

use domain::id::UserId;
use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::privacy::dropped::{AboutUser, Kept};
use crate::store::privacy::erasure_key::ErasureKey;

/// The keys of a set of external ids, and the keys that were created for it.
#[derive(Debug, Default)]
pub(in crate::store) struct Keys {
    pub(in crate::store) by_external_id: HashMap<String, i64>,
    pub(in crate::store) created: Vec<i64>,
    /// When users of these external ids were erased. One who has not come back has no key.
    pub(in crate::store) erased: HashMap<String, Timestamp>,
}

/// A user about whom something is told, and when it happened; `None` when nobody knows.
pub(in crate::store) type Told<'a> = (&'a UserId, Option<Timestamp>);

impl Keys {
    /// Returns the key of `external_id`, which must be in the set.
    pub(in crate::store) fn key(&self, external_id: &str) -> i64 {
        self.by_external_id[external_id]
    }

    /// Returns whether what is told about a user is dropped, because they were erased since. What has no time is dropped as
    /// long as the user has not come back.
    pub(in crate::store) fn drops(&self, (user, at): Told<'_>) -> bool {
        let Some(&erased_at) = self.erased.get(user.as_str()) else {
            return false;
        };
        match at {
            Some(at) => at <= erased_at,
            None => !self.by_external_id.contains_key(user.as_str()),
        }
    }

    /// Returns the entries that are not dropped.
    pub(in crate::store) fn kept<'e, T: AboutUser + Clone>(&self, pool: &Pool, entries: &'e [T]) -> Kept<'e, T> {
        if self.erased.is_empty() {
            return Kept::new(entries, Vec::new());
        }
        let is_dropped = |&position: &usize| self.drops(entries[position].told(pool));
        Kept::new(entries, (0..entries.len()).filter(is_dropped).collect())
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
        "SELECT id, external_id FROM users WHERE external_id = ANY($1::text[]) AND NOT is_pseudonym",
        &wanted
    )
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(|row| (row.external_id, row.id)).collect())
}

struct UserRow {
    id: Option<i64>,
    external_id: String,
    erased_at: Option<Timestamp>,
}

impl Keys {
    /// Returns whether the user has a key, or was erased and has none.
    fn tells_of(&self, user: &str) -> bool {
        self.by_external_id.contains_key(user) || self.erased.contains_key(user)
    }

    fn extend_users(&mut self, rows: Vec<UserRow>) {
        for row in rows {
            if let Some(erased_at) = row.erased_at {
                self.erased.insert(row.external_id.clone(), erased_at);
            }
            if let Some(id) = row.id {
                self.by_external_id.insert(row.external_id, id);
            }
        }
    }
}

/// Finds the users about whom something is told, and creates those that are seen for the first time. An erased user comes
/// back with what is told of a later time than the erasure.
///
/// `key`: `None` for a process without `privacy.erasure_key_file`.
///
/// # Errors
/// [`StoreError::ErasureKey`] when a user is to be created, and others were erased under another key than `key`.
pub(in crate::store) async fn ensure_users<'a>(
    connection: &mut Connection,
    key: Option<&ErasureKey>,
    told: impl Iterator<Item = Told<'a>> + Clone,
) -> Result<Keys, StoreError> {
    let wanted = distinct(told.clone().map(|(user, _)| user.as_str()));
    let mut keys = Keys::default();
    let all: Vec<String> = wanted.iter().map(|id| (*id).to_owned()).collect();
    keys.extend_users(found_users(connection, &all).await?);
    let missing = keys.missing(&wanted);
    if missing.is_empty() {
        return Ok(keys);
    }
    let created = add_users(connection, key, &missing, told).await?;
    keys.created = created.iter().filter_map(|row| row.id).collect();
    keys.extend_users(created);
    // Another transaction has created these in the meantime.
    let missing: Vec<String> = missing.into_iter().filter(|id| !keys.tells_of(id)).collect();
    if !missing.is_empty() {
        keys.extend_users(found_users(connection, &missing).await?);
        if !missing.iter().all(|id| keys.tells_of(id)) {
            // They were erased since.
            return Err(StoreError::Conflict(sqlx::Error::RowNotFound.into()));
        }
    }
    Ok(keys)
}

async fn found_users(connection: &mut Connection, ids: &[String]) -> Result<Vec<UserRow>, StoreError> {
    let found = sqlx::query_as!(
        UserRow,
        r#"SELECT id AS "id?", external_id, erased_at FROM users
           WHERE external_id = ANY($1::text[]) AND NOT is_pseudonym"#,
        ids
    )
    .fetch_all(connection)
    .await?;
    Ok(found)
}

/// Creates the users `missing`, except those who were erased since what is told of them.
async fn add_users<'a>(
    connection: &mut Connection,
    key: Option<&ErasureKey>,
    missing: &[String],
    told: impl Iterator<Item = Told<'a>>,
) -> Result<Vec<UserRow>, StoreError> {
    let (mut hashes, mut latest) = (Vec::new(), Vec::new());
    if let Some(key) = key {
        let mut times: HashMap<&str, Option<Timestamp>> = HashMap::new();
        for (user, at) in told {
            let latest = times.entry(user.as_str()).or_default();
            *latest = at.max(*latest);
        }
        hashes = missing.iter().map(|id| key.hash(id).to_vec()).collect();
        latest = missing
            .iter()
            .map(|id| times.get(id.as_str()).copied().flatten())
            .collect();
    }
    let created = sqlx::query_as!(
        UserRow,
        r#"SELECT number AS "id?", name AS "external_id!", erased_at FROM add_users($1, $2, $3, $4)"#,
        missing,
        &hashes,
        &latest as &[Option<Timestamp>],
        key.map(|key| key.check_value().to_vec()),
    )
    .fetch_all(connection)
    .await?;
    Ok(created)
}

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
