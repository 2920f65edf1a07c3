//! Answers that are remembered, as bytes, to be given again while everything that they rest on is the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use metrics::{Counter, counter};
use prost::bytes::Bytes;

use crate::domain::id::UserId;
use crate::model::view::{Stamp, View};

/// Parts with a lock of their own, so that threads seldom wait for one another, and little is freed at a time.
const SHARDS: usize = 64;
/// Longest request that is remembered: longer ones hardly come twice.
const MAX_REQUEST_BYTES: usize = 1_024;
/// What an entry takes beside its texts, about.
const ENTRY_BYTES: usize = 256;

/// A bounded number of bytes of answers, by request. What has not been asked for lately is forgotten first.
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
    young: Generation,
    young_bytes: usize,
    old: Generation,
}

/// By request.
type Generation = HashMap<Box<[u8]>, Entry>;

struct Entry {
    user: Option<UserId>,
    stamp: Stamp,
    answer: Bytes,
}

impl Answers {
    /// `max_bytes`: 0 remembers nothing.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            max_shard_bytes: max_bytes / SHARDS,
            hits: counter!("likemind_answer_cache_total", "result" => "hit"),
            misses: counter!("likemind_answer_cache_total", "result" => "miss"),
        }
    }

    /// What was answered to `request`, if that would be computed from `view` too.
    pub fn get(&self, view: &View, request: &[u8]) -> Option<Bytes> {
        if self.max_shard_bytes == 0 {
            return None;
        }
        let found = self.with_shard(request, |shard| {
            shard.rejuvenate(request, self.max_shard_bytes / 2);
            let entry = shard.young.get(request)?;
            (entry.stamp == view.stamp(entry.user.as_ref())).then(|| entry.answer.clone())
        });
        match found {
            Some(_) => self.hits.increment(1),
            None => self.misses.increment(1),
        }
        found
    }

    /// Remembers the answer to `request`, which is about `user` and was computed from `view`.
    pub fn put(&self, view: &View, request: &[u8], user: Option<&UserId>, answer: Bytes) {
        let entry = Entry {
            user: user.cloned(),
            stamp: view.stamp(user),
            answer,
        };
        let max_generation_bytes = self.max_shard_bytes / 2;
        if request.len() > MAX_REQUEST_BYTES || entry.bytes(request) > max_generation_bytes {
            return;
        }
        let forgotten = self.with_shard(request, |shard| {
            shard.insert(request.into(), entry, max_generation_bytes)
        });
        // Without the lock.
        drop(forgotten);
    }

    fn with_shard<T>(&self, request: &[u8], work: impl FnOnce(&mut Shard) -> T) -> T {
        let shard = &self.shards[self.hasher.hash_one(request) as usize % SHARDS];
        // A panic in the middle leaves a shard that may have forgotten something, and no wrong answer.
        work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    /// Moves what is asked for to the young generation.
    fn rejuvenate(&mut self, request: &[u8], max_generation_bytes: usize) {
        if self.young.contains_key(request) {
            return;
        }
        if let Some((request, entry)) = self.old.remove_entry(request) {
            self.insert(request, entry, max_generation_bytes);
        }
    }

    /// Returns what is forgotten for it.
    fn insert(&mut self, request: Box<[u8]>, entry: Entry, max_generation_bytes: usize) -> Generation {
        let mut forgotten = Generation::new();
        let bytes = entry.bytes(&request);
        if self.young_bytes + bytes > max_generation_bytes {
            forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        let before = self.young.get(&request).map(|before| before.bytes(&request));
        self.young_bytes -= before.unwrap_or(0);
        self.young.insert(request, entry);
        forgotten
    }
}

impl Entry {
    fn bytes(&self, request: &[u8]) -> usize {
        ENTRY_BYTES + request.len() + self.answer.len()
    }
}

#[cfg(test)]
mod tests;
