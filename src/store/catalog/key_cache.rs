//! Caches keys from one batch of an import to the next.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use domain::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::catalog::ids::{Keys, Told, ensure_items, ensure_users};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// The keys of the users and items that an import has met, so that its batches look up only new ones, and whether the
/// import meets ratings that are stored already.
///
/// A row of `users` or `items` keeps its key for as long as it exists. If it was deleted since, the database reports it,
/// and all keys are looked up again.
#[derive(Debug, Default)]
pub struct KeyCache {
    users: Known,
    items: Known,
    /// When users whose keys are cached were erased before, of whom there are few.
    erased: Mutex<HashMap<Box<str>, Timestamp>>,
    has_met_stored: AtomicBool,
}

impl KeyCache {
    /// Returns whether the last batch had a row that was stored already: the next one is then likely to have some too.
    pub(in crate::store) fn has_met_stored(&self) -> bool {
        self.has_met_stored.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn set_met_stored(&self, has_met_stored: bool) {
        self.has_met_stored.store(has_met_stored, Ordering::Relaxed);
    }

    /// Returns the keys of the users about whom something is told, and the positions of what is dropped, ascending, because
    /// its user was erased since. Unknown users are created bare and committed at once: in the transaction of a batch, every
    /// other transaction that refers to them would have to wait for its end.
    pub(in crate::store) async fn users<'a>(
        &self,
        pool: &Pool,
        told: impl Iterator<Item = Told<'a>>,
    ) -> Result<(Vec<i64>, Vec<usize>), StoreError> {
        let told: Vec<Told<'a>> = told.collect();
        let (mut keys, unknown) = self.users.look_up(told.iter().map(|(user, _)| user.as_str()));
        let mut erased = Keys {
            erased: self.erased_of(&told),
            ..Keys::default()
        };
        if !unknown.is_empty() {
            let of_unknown = unknown.iter().map(|&(position, _)| told[position]);
            let found = ensure_users(&mut *pool.acquire().await?, pool.erasure_key(), of_unknown).await?;
            self.users.learn(&mut keys, &unknown, &found);
            if !found.erased.is_empty() {
                self.learn_erased(&found);
                erased.erased.extend(found.erased);
                erased.by_external_id.extend(found.by_external_id);
            }
        }
        if erased.erased.is_empty() {
            return Ok((keys, Vec::new()));
        }
        let is_dropped = |&position: &usize| {
            let told = told[position];
            keys[position] == 0 || (told.1.is_some() && erased.drops(told))
        };
        let dropped = (0..told.len()).filter(is_dropped).collect();
        Ok((keys, dropped))
    }

    /// Returns when users whose keys are cached were erased.
    fn erased_of(&self, told: &[Told<'_>]) -> HashMap<String, Timestamp> {
        let erased = self.erased.lock().unwrap_or_else(PoisonError::into_inner);
        if erased.is_empty() {
            return HashMap::new();
        }
        let when = |(user, _): &Told<'_>| Some((user.to_string(), *erased.get(user.as_str())?));
        told.iter().filter_map(when).collect()
    }

    fn learn_erased(&self, found: &Keys) {
        let is_back = |id: &&String| found.by_external_id.contains_key(*id);
        let mut erased = self.erased.lock().unwrap_or_else(PoisonError::into_inner);
        for id in found.erased.keys().filter(is_back) {
            erased.insert(id.as_str().into(), found.erased[id]);
        }
    }

    /// Does the same as [`users`](Self::users), for items.
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

    /// Does `work`. If a row whose key was cached is deleted, forgets all keys and does `work` once more.
    pub(in crate::store) async fn retrying<T, W>(&self, work: impl Fn() -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, StoreError>>,
    {
        match work().await {
            Err(error) if error.is_dangling_reference() => {
                self.users.forget();
                self.items.forget();
                self.erased.lock().unwrap_or_else(PoisonError::into_inner).clear();
                work().await
            }
            result => result,
        }
    }
}

/// External ids and their keys. Every line of a file looks two of them up, so that the hash has to be fast.
#[derive(Debug, Default)]
struct Known(Mutex<HashMap<Box<str>, i64, BuildHasherDefault<TextHasher>>>);

/// Hashes a text by XXH3.
#[derive(Debug, Clone, Default)]
struct TextHasher(u64);

impl Hasher for TextHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The end of a text, which tells nothing where every key is one text.
    fn write_u8(&mut self, _: u8) {}
}

impl Known {
    /// Bounds the memory, to some 15 MB for ids of a dozen bytes. Forgetting costs no more than looking up again.
    const MAX_KEYS: usize = 1 << 18;

    /// Returns the key of each of `ids`, 0 for unknown ones, and the positions and ids of the unknown ones.
    fn look_up<'a>(&self, ids: impl Iterator<Item = &'a str>) -> (Vec<i64>, Vec<(usize, &'a str)>) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unknown = Vec::new();
        let mut last = ("", 0);
        let keys = ids.enumerate().map(|(position, id)| {
            // The lines of a user often stand one after the other in a file.
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

    /// Fills in the keys that [`look_up`](Self::look_up) has left at 0, where there are any, and caches them.
    fn learn(&self, keys: &mut [i64], unknown: &[(usize, &str)], found: &Keys) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + found.by_external_id.len() > Self::MAX_KEYS {
            known.clear();
        }
        for &(position, id) in unknown {
            // A user who was erased and has not come back has none.
            keys[position] = found.by_external_id.get(id).copied().unwrap_or(0);
        }
        known.extend(found.by_external_id.iter().map(|(id, key)| (id.as_str().into(), *key)));
    }

    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
