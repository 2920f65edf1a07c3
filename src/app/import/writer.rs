//! Stores batches over several connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::postgres::analyze;
use crate::store::postgres::pool::Pool;

use super::kinds::{RecordKind, Written};
use super::order_lines::AlreadyHashed;
use super::{ImportOptions, StopCause};

/// Stores batches over several connections at once. Each connection has a share of the owners, so that lines that concern
/// the same row are stored in the order of the file. While one batch is stored, the next one can be handed over.
pub(super) struct Writer<K: RecordKind> {
    pool: Pool,
    patience: Patience,
    connections: Vec<mpsc::Sender<Part<K::Value>>>,
    /// The tasks that store parts, which end with the writer.
    _tasks: JoinSet<()>,
    /// Hashes of shared ids that exist. Others are created before the batch, because transactions that created the same id
    /// would wait for each other.
    known: HashSet<u64, AlreadyHashed>,
    /// How many batches have been handed over.
    batches: u64,
}

/// The part of a batch that is stored over one connection.
struct Part<V> {
    values: Vec<V>,
    done: oneshot::Sender<Result<Option<Written>, StoreError>>,
}

/// A batch that has been handed over.
pub(super) struct Pending {
    parts: Vec<PendingPart>,
}

struct PendingPart {
    /// The positions of its values in the batch.
    positions: Vec<usize>,
    done: oneshot::Receiver<Result<Option<Written>, StoreError>>,
}

impl Pending {
    /// Waits until the batch is stored. Returns `None` when interrupted while the database was not available.
    pub async fn written(self) -> Result<Option<Written>, StopCause> {
        let mut all = Written::default();
        for PendingPart { positions, done } in self.parts {
            let Some(written) = done.await.map_err(|_| StopCause::Panicked)?? else {
                return Ok(None);
            };
            all.stored += written.stored;
            all.older += written.older;
            all.overwritten += written.overwritten;
            all.dropped += written.dropped;
            let refused = written.refused.into_iter();
            all.refused
                .extend(refused.map(|(position, error)| (positions[position], error)));
        }
        all.refused.sort_unstable_by_key(|(position, _)| *position);
        Ok(Some(all))
    }
}

impl<K: RecordKind> Writer<K> {
    /// Bounds the memory of `known`. An id that is dropped from it is only looked up again.
    const MAX_KNOWN: usize = 1 << 20;

    pub fn new(pool: &Pool, options: &ImportOptions, interrupt: &CancellationToken) -> Self {
        let patience = Patience::new(options, interrupt);
        let keys = Arc::new(KeyCache::default());
        let mut tasks = JoinSet::new();
        let connect = |_| {
            let (sender, parts) = mpsc::channel(1);
            tasks.spawn(store_parts::<K>(pool.clone(), patience.clone(), keys.clone(), parts));
            sender
        };
        Self {
            connections: (0..options.connections.max(1)).map(connect).collect(),
            _tasks: tasks,
            pool: pool.clone(),
            patience,
            known: HashSet::default(),
            batches: 0,
        }
    }

    /// Hands `values` over as soon as every connection has begun with the batch before. Returns `None` when interrupted while
    /// the database was not available.
    pub async fn store(&mut self, values: Vec<K::Value>) -> Result<Option<Pending>, StoreError> {
        // The tables may have doubled since the last time.
        if self.batches.is_power_of_two()
            && let Err(error) = analyze::analyze(&self.pool).await
        {
            tracing::warn!(%error, "the statistics of the tables could not be updated, so the import may be slow");
        }
        self.batches += 1;
        if self.create_shared(&values).await?.is_none() {
            return Ok(None);
        }
        let mut parts: Vec<(Vec<K::Value>, Vec<usize>)> = Vec::new();
        parts.resize_with(self.connections.len(), Default::default);
        for (position, value) in values.into_iter().enumerate() {
            let part = xxh3_64(K::owner(&value).as_bytes()) % parts.len() as u64;
            let (values, positions) = &mut parts[part as usize];
            values.push(value);
            positions.push(position);
        }
        let mut pending = Vec::new();
        for (connection, (values, positions)) in self.connections.iter().zip(parts) {
            if values.is_empty() {
                continue;
            }
            let (sender, done) = oneshot::channel();
            // A task that has ended drops the part, which `Pending::written` then reports.
            let _ = connection.send(Part { values, done: sender }).await;
            pending.push(PendingPart { positions, done });
        }
        Ok(Some(Pending { parts: pending }))
    }

    /// Creates the records that several owners of `values` may refer to.
    async fn create_shared(&mut self, values: &[K::Value]) -> Result<Option<()>, StoreError> {
        if self.known.len() > Self::MAX_KNOWN {
            self.known.clear();
        }
        let mut is_new = |value: &&K::Value| match K::shared(value) {
            Some(id) => self.known.insert(xxh3_64(id.as_bytes())),
            None => false,
        };
        let unknown: Vec<&K::Value> = values.iter().filter(&mut is_new).collect();
        if unknown.is_empty() {
            return Ok(Some(()));
        }
        self.patience.wait(|| K::create_shared(&self.pool, &unknown)).await
    }
}

/// Stores parts one after the other, each in a transaction of its own. Stops at the first that cannot be stored, because
/// later lines of the file must not be stored without it.
async fn store_parts<K: RecordKind>(
    pool: Pool,
    patience: Patience,
    keys: Arc<KeyCache>,
    mut parts: mpsc::Receiver<Part<K::Value>>,
) {
    while let Some(Part { values, done }) = parts.recv().await {
        let written = patience.wait(|| K::write(&pool, &keys, &values)).await;
        let is_stored = matches!(written, Ok(Some(_)));
        // Nobody waits for this part after another part could not be stored.
        let _ = done.send(written);
        if !is_stored {
            return;
        }
    }
}

/// Waits for a database that is not available.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    longest: Duration,
    interrupt: CancellationToken,
}

impl Patience {
    pub fn new(options: &ImportOptions, interrupt: &CancellationToken) -> Self {
        Self {
            longest: options.patience,
            interrupt: interrupt.clone(),
        }
    }

    /// Does `work`, and repeats it while the database is not available. Returns `None` when interrupted while waiting.
    pub async fn wait<T, W>(&self, work: impl Fn() -> W) -> Result<Option<T>, StoreError>
    where
        W: Future<Output = Result<T, StoreError>>,
    {
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);
        let deadline = Instant::now() + self.longest;
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match work().await {
                Ok(done) => return Ok(Some(done)),
                Err(error) => error,
            };
            if error.retry_after().is_none() || Instant::now() + pause > deadline {
                return Err(error);
            }
            tracing::warn!(%error, "a batch could not be stored and is tried again in {} ms", pause.as_millis());
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
                () = self.interrupt.cancelled() => return Ok(None),
            }
        }
    }
}
