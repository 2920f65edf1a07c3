//! External ids to keys, creating bare users, items and merchants that are seen for the first time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::StoreError;
use super::pool::{Connection, Pool};

/// The keys of a set of external ids, and which of them are new.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_external_id: HashMap<String, i64>,
    pub(super) created: Vec<i64>,
}

impl Keys {
    /// `external_id` must be one of the set.
    pub(super) fn key(&self, external_id: &str) -> i64 {
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

/// Distinct ids in ascending order: the order in which every transaction takes its locks.
fn distinct<'a>(external_ids: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ids: Vec<&str> = external_ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

macro_rules! ensure {
    ($name:ident, $select:literal, $insert:literal) => {
        pub(super) async fn $name<'a>(
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
            // Those that another transaction has created in between.
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

/// What a long import remembers from batch to batch: the keys of the users and items that it has met, so that its batches
/// look up only what is new to it, and whether there was anything before it.
///
/// A row of `users` or `items` has its key for as long as it is there. If it has been deleted since, the database says
/// so, and all keys are looked up once more.
#[derive(Debug, Default)]
pub struct ImportMemory {
    users: Known,
    items: Known,
    has_met_stored: AtomicBool,
}

impl ImportMemory {
    /// Whether some row of the batch that ended last was stored before: it is likely of the next one too.
    pub(super) fn has_met_stored(&self) -> bool {
        self.has_met_stored.load(Ordering::Relaxed)
    }

    pub(super) fn set_met_stored(&self, has_met_stored: bool) {
        self.has_met_stored.store(has_met_stored, Ordering::Relaxed);
    }

    /// The key of each of `ids`. Users who are not there are created, bare, and committed: in the transaction of a batch,
    /// all others that name them would have to wait for its end.
    pub(super) async fn users<'a>(
        &self,
        pool: &Pool,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<i64>, StoreError> {
        let (mut keys, unknown) = self.users.look_up(ids);
        if !unknown.is_empty() {
            let found = ensure_users(&mut *pool.acquire().await?, unknown.iter().map(|(_, id)| *id)).await?;
            self.users.learn(&mut keys, &unknown, &found);
        }
        Ok(keys)
    }

    /// The same for items.
    pub(super) async fn items<'a>(
        &self,
        pool: &Pool,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<i64>, StoreError> {
        let (mut keys, unknown) = self.items.look_up(ids);
        if !unknown.is_empty() {
            let found = ensure_items(&mut *pool.acquire().await?, unknown.iter().map(|(_, id)| *id)).await?;
            self.items.learn(&mut keys, &unknown, &found);
        }
        Ok(keys)
    }

    /// Does `work`, once more with all keys forgotten where a row has been deleted whose key was known.
    pub(super) async fn retrying<T, W>(&self, work: impl Fn() -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, StoreError>>,
    {
        match work().await {
            Err(error) if error.is_dangling_reference() => {
                self.users.forget();
                self.items.forget();
                work().await
            }
            result => result,
        }
    }
}

/// External ids and their keys.
#[derive(Debug, Default)]
struct Known(Mutex<HashMap<Box<str>, i64>>);

impl Known {
    /// So that memory is bounded, to some 60 MB of ids of a dozen bytes. To forget costs no more than to ask again.
    const MAX_KEYS: usize = 1 << 20;

    /// The key of each of `ids`, 0 where it is not known; and the positions and ids of those that are not.
    fn look_up<'a>(&self, ids: impl Iterator<Item = &'a str>) -> (Vec<i64>, Vec<(usize, &'a str)>) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unknown = Vec::new();
        let mut last = ("", 0);
        let keys = ids.enumerate().map(|(position, id)| {
            // Files have the lines of a user one after the other.
            if last.0 != id {
                last = (id, known.get(id).copied().unwrap_or(0));
            }
            if last.1 == 0 {
                unknown.push((position, id));
            }
            last.1
        });
        let keys = keys.collect();
        (keys, unknown)
    }

    /// Sets what [`look_up`](Self::look_up) has left open.
    fn learn(&self, keys: &mut [i64], unknown: &[(usize, &str)], found: &Keys) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + found.by_external_id.len() > Self::MAX_KEYS {
            known.clear();
        }
        for &(position, id) in unknown {
            keys[position] = found.key(id);
        }
        known.extend(found.by_external_id.iter().map(|(id, key)| (id.as_str().into(), *key)));
    }

    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
