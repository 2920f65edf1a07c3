//! Answers that are remembered, as bytes, to be given again while everything that they rest on is the same.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use metrics::{Counter, counter};
use prost::bytes::Bytes;

use domain::id::UserId;
use recommender::snapshot::view::{Stamp, View};

/// Parts with a lock of their own, so that threads seldom wait for one another, and little is freed at a time.
const SHARDS: usize = 64;
/// Longest request that is remembered, which names some eighty items: longer ones hardly come twice.
const MAX_REQUEST_BYTES: usize = 1_024;
/// What an entry takes beside its texts, about.
const ENTRY_BYTES: usize = 256;

/// A bounded number of bytes of answers of one method, by request. What has not been asked for lately is forgotten first.
pub struct Answers {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    max_shard_bytes: usize,
    hits: Counter,
    misses: Counter,
}

/// Two generations: what is asked for is in the young one, or moves there. When it holds half of what the shard may, it
/// takes the place of the old one, which is forgotten.
#[derive(Default)]
struct Shard {
    young: HashTable<Entry>,
    young_bytes: usize,
    old: HashTable<Entry>,
}

struct Entry {
    /// Of the request.
    hash: u64,
    request: Box<[u8]>,
    user: Option<UserId>,
    stamp: Stamp,
    answer: Bytes,
}

impl Answers {
    /// `method`: its full name, for the metrics; `max_bytes`: 0 remembers nothing.
    pub fn new(method: &'static str, max_bytes: usize) -> Self {
        let counter = |result| counter!("likemind_answer_cache_total", "method" => method, "result" => result);
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            max_shard_bytes: max_bytes / SHARDS,
            hits: counter("hit"),
            misses: counter("miss"),
        }
    }

    /// What was answered to `request`, if that would be computed from `view` too.
    pub fn get(&self, view: &View, request: &[u8]) -> Option<Bytes> {
        if self.max_shard_bytes == 0 || request.len() > MAX_REQUEST_BYTES {
            return None;
        }
        let hash = self.hasher.hash_one(request);
        let (found, forgotten) = {
            let mut shard = self.shard(hash);
            let forgotten = shard.rejuvenate(hash, request, self.max_shard_bytes / 2);
            let entry = shard.young.find(hash, |entry| *entry.request == *request);
            let valid = entry.filter(|entry| entry.stamp == view.stamp(entry.user.as_ref()));
            (valid.map(|entry| entry.answer.clone()), forgotten)
        };
        // Without the lock.
        drop(forgotten);
        match found {
            Some(_) => self.hits.increment(1),
            None => self.misses.increment(1),
        }
        found
    }

    /// Remembers the answer to `request`, which is about `user` and was computed from `view`.
    pub fn put(&self, view: &View, request: &[u8], user: Option<&UserId>, answer: Bytes) {
        let max_generation_bytes = self.max_shard_bytes / 2;
        if request.len() > MAX_REQUEST_BYTES || bytes(request, &answer) > max_generation_bytes {
            return;
        }
        let entry = Entry {
            hash: self.hasher.hash_one(request),
            request: request.into(),
            user: user.cloned(),
            stamp: view.stamp(user),
            answer,
        };
        let forgotten = self.shard(entry.hash).insert(entry, max_generation_bytes);
        // Without the lock.
        drop(forgotten);
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // By the upper half: a table finds its entries by the lowest bits and the highest seven.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        // A panic in the middle leaves a shard that may have forgotten something, and no wrong answer.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Moves the entry of `request` to the young generation. Returns what is forgotten for it.
    fn rejuvenate(&mut self, hash: u64, request: &[u8], max_generation_bytes: usize) -> HashTable<Entry> {
        let is_asked = |entry: &Entry| *entry.request == *request;
        if self.young.find(hash, is_asked).is_some() {
            return HashTable::new();
        }
        match self.old.find_entry(hash, is_asked) {
            Ok(old) => {
                let (entry, _) = old.remove();
                self.insert(entry, max_generation_bytes)
            }
            Err(_) => HashTable::new(),
        }
    }

    /// Returns what is forgotten for it.
    fn insert(&mut self, entry: Entry, max_generation_bytes: usize) -> HashTable<Entry> {
        let mut forgotten = HashTable::new();
        if self.young_bytes + entry.bytes() > max_generation_bytes {
            forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.young_bytes = 0;
        }
        self.young_bytes += entry.bytes();
        let same = |before: &Entry| before.request == entry.request;
        if let Ok(before) = self.young.find_entry(entry.hash, same) {
            self.young_bytes -= before.remove().0.bytes();
        }
        self.young.insert_unique(entry.hash, entry, |entry| entry.hash);
        forgotten
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        bytes(&self.request, &self.answer)
    }
}

/// What an entry takes.
fn bytes(request: &[u8], answer: &[u8]) -> usize {
    ENTRY_BYTES + request.len() + answer.len()
}

#[cfg(test)]
mod tests;
