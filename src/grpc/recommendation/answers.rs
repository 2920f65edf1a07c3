//! Caches encoded answers, each for as long as the same request would be answered in the same way.

use std::hash::RandomState;
use std::sync::Arc;

use metrics::{Counter, counter};
use prost::bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use domain::id::UserId;
use recommender::snapshot::view::{Stamp, StampedState, View};

/// The longest request whose answer is cached; it names some eighty items. Longer requests hardly ever come twice.
const MAX_REQUEST_BYTES: usize = 1_024;
/// The approximate memory that an entry takes beside its request and its answer.
const ENTRY_BYTES: usize = 256;
/// The approximate size of an entry, from which the cache estimates how many it will hold.
const TYPICAL_BYTES: usize = 2_048;

/// Caches the answers of one method by request, within a bound in bytes.
///
/// An answer is returned only while its stamp is that of the present view. An outdated answer stays until the new one
/// replaces it or it is evicted.
pub struct AnswerCache {
    /// `None` if nothing is cached.
    entries: Option<EntriesByRequest>,
    /// The state that the answers rest on.
    state: StampedState,
    hits: Counter,
    misses: Counter,
}

/// Entries by the bytes of their request.
type EntriesByRequest = Cache<Box<[u8]>, Arc<Entry>, EntryBytes, RandomState>;

struct Entry {
    user: Option<UserId>,
    stamp: Stamp,
    answer: Bytes,
}

/// Weighs entries by the memory that they take.
#[derive(Clone)]
struct EntryBytes;

impl AnswerCache {
    /// `method`: its full name, for the metrics; `state`: what its answers rest on; `max_bytes`: 0 caches nothing.
    pub fn new(method: &'static str, state: StampedState, max_bytes: usize) -> Self {
        let counter = |result| counter!("likemind_answer_cache_total", "method" => method, "result" => result);
        let entries = (max_bytes > 0).then(|| {
            Cache::with(
                max_bytes.div_ceil(TYPICAL_BYTES),
                max_bytes as u64,
                EntryBytes,
                RandomState::new(),
                DefaultLifecycle::default(),
            )
        });
        Self {
            entries,
            state,
            hits: counter("hit"),
            misses: counter("miss"),
        }
    }

    /// Returns the cached answer to `request` if `view` would give the same.
    pub fn get(&self, view: &View, request: &[u8]) -> Option<Bytes> {
        let entries = self.entries.as_ref()?;
        if request.len() > MAX_REQUEST_BYTES {
            return None;
        }
        let entry = entries.get(request);
        let valid = entry.filter(|entry| entry.stamp == view.stamp(entry.user.as_ref(), self.state));
        match valid {
            Some(_) => self.hits.increment(1),
            None => self.misses.increment(1),
        }
        valid.map(|entry| entry.answer.clone())
    }

    /// Caches the answer to `request`, which is about `user` and was computed from `view`. It replaces an earlier answer.
    pub fn put(&self, view: &View, request: &[u8], user: Option<&UserId>, answer: Bytes) {
        let Some(entries) = self.entries.as_ref().filter(|_| request.len() <= MAX_REQUEST_BYTES) else {
            return;
        };
        let entry = Entry {
            user: user.cloned(),
            stamp: view.stamp(user, self.state),
            answer,
        };
        entries.insert(request.into(), Arc::new(entry));
    }
}

impl Weighter<Box<[u8]>, Arc<Entry>> for EntryBytes {
    fn weight(&self, request: &Box<[u8]>, entry: &Arc<Entry>) -> u64 {
        (ENTRY_BYTES + request.len() + entry.answer.len()) as u64
    }
}

#[cfg(test)]
mod tests;
