//! What a long import remembers from batch to batch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::catalog::ids::{Keys, ensure_items, ensure_users};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// The keys of the users and items that an import has met, so that its batches look up only what is new to it, and whether
/// it meets ratings that were stored before.
///
/// A row of `users` or `items` has its key for as long as it is there. If it has been deleted since, the database says
/// so, and all keys are looked up once more.
#[derive(Debug, Default)]
pub struct KeyCache {
    users: Known,
    items: Known,
    has_met_stored: AtomicBool,
}

impl KeyCache {
    /// Whether some row of the batch that ended last was stored before: it is likely of the next one too.
    pub(in crate::store) fn has_met_stored(&self) -> bool {
        self.has_met_stored.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn set_met_stored(&self, has_met_stored: bool) {
        self.has_met_stored.store(has_met_stored, Ordering::Relaxed);
    }

    /// The key of each of `ids`. Users who are not there are created, bare, and committed: in the transaction of a batch,
    /// all others that name them would have to wait for its end.
    pub(in crate::store) async fn users<'a>(
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
    pub(in crate::store) async fn items<'a>(
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
    pub(in crate::store) async fn retrying<T, W>(&self, work: impl Fn() -> W) -> Result<T, StoreError>
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
