//! From batches to the store.

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

use super::subject::{Subject, Written};
use super::{ImportOptions, StopCause};

/// Stores batches over several connections at once, each of which has a part of the owners, so that what concerns the
/// same row is stored in the order of the file. While one batch is stored the next one can be handed over.
pub(super) struct Writer<S: Subject> {
    pool: Pool,
    patience: Patience,
    connections: Vec<mpsc::Sender<Part<S::Value>>>,
    /// Ends with the writer.
    _tasks: JoinSet<()>,
    /// Hashes of shared ids that are there. Those that are not are created before the batch: inside of its transactions
    /// one would wait for the other until it ends.
    known: HashSet<u64>,
    /// How many have been handed over.
    batches: u64,
}

/// What of a batch is stored over one connection.
struct Part<V> {
    values: Vec<V>,
    done: oneshot::Sender<Result<Option<Written>, StoreError>>,
}

/// A batch that has been handed over.
pub(super) struct Pending {
    parts: Vec<PendingPart>,
}

struct PendingPart {
    /// Of its values in the batch.
    positions: Vec<usize>,
    done: oneshot::Receiver<Result<Option<Written>, StoreError>>,
}

impl Pending {
    /// What became of the batch; `None` when interrupted while the database was away.
    pub async fn written(self) -> Result<Option<Written>, StopCause> {
        let mut all = Written::default();
        for PendingPart { positions, done } in self.parts {
            let Some(written) = done.await.map_err(|_| StopCause::Panicked)?? else {
                return Ok(None);
            };
            all.stored += written.stored;
            let refused = written.refused.into_iter();
            all.refused
                .extend(refused.map(|(position, error)| (positions[position], error)));
        }
        all.refused.sort_unstable_by_key(|(position, _)| *position);
        Ok(Some(all))
    }
}

impl<S: Subject> Writer<S> {
    /// So that memory is bounded; to forget costs no more than to ask again.
    const MAX_KNOWN: usize = 1 << 20;

    pub fn new(pool: &Pool, options: &ImportOptions, interrupt: &CancellationToken) -> Self {
        let patience = Patience {
            longest: options.patience,
            interrupt: interrupt.clone(),
        };
        let keys = Arc::new(KeyCache::default());
        let mut tasks = JoinSet::new();
        let connect = |_| {
            let (sender, parts) = mpsc::channel(1);
            tasks.spawn(store_parts::<S>(pool.clone(), patience.clone(), keys.clone(), parts));
            sender
        };
        Self {
            connections: (0..options.connections.max(1)).map(connect).collect(),
            _tasks: tasks,
            pool: pool.clone(),
            patience,
            known: HashSet::new(),
            batches: 0,
        }
    }

    /// Hands `values` over, as soon as every connection has begun with what was handed over before; `None` when
    /// interrupted while the database was away.
    pub async fn store(&mut self, values: Vec<S::Value>) -> Result<Option<Pending>, StoreError> {
        // As often as the tables can have doubled.
        if self.batches.is_power_of_two()
            && let Err(error) = analyze::analyze(&self.pool).await
        {
            tracing::warn!(%error, "the statistics of the tables could not be renewed; the import may be slow");
        }
        self.batches += 1;
        if self.create_shared(&values).await?.is_none() {
            return Ok(None);
        }
        let mut parts: Vec<(Vec<S::Value>, Vec<usize>)> = Vec::new();
        parts.resize_with(self.connections.len(), Default::default);
        for (position, value) in values.into_iter().enumerate() {
            let part = xxh3_64(S::owner(&value).as_bytes()) % parts.len() as u64;
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
            // One that has ended drops the part, which whoever waits for it learns.
            let _ = connection.send(Part { values, done: sender }).await;
            pending.push(PendingPart { positions, done });
        }
        Ok(Some(Pending { parts: pending }))
    }

    async fn create_shared(&mut self, values: &[S::Value]) -> Result<Option<()>, StoreError> {
        if self.known.len() > Self::MAX_KNOWN {
            self.known.clear();
        }
        let mut is_new = |value: &&S::Value| match S::shared(value) {
            Some(id) => self.known.insert(xxh3_64(id.as_bytes())),
            None => false,
        };
        let unknown: Vec<&S::Value> = values.iter().filter(&mut is_new).collect();
        if unknown.is_empty() {
            return Ok(Some(()));
        }
        self.patience.wait(|| S::create_shared(&self.pool, &unknown)).await
    }
}

/// Stores part after part, each in a transaction of its own, until one cannot be stored: what comes after it in the file
/// must not be there without it.
async fn store_parts<S: Subject>(
    pool: Pool,
    patience: Patience,
    keys: Arc<KeyCache>,
    mut parts: mpsc::Receiver<Part<S::Value>>,
) {
    while let Some(Part { values, done }) = parts.recv().await {
        let written = patience.wait(|| S::write(&pool, &keys, &values)).await;
        let is_stored = matches!(written, Ok(Some(_)));
        // Nobody waits for it any more once another part could not be stored.
        let _ = done.send(written);
        if !is_stored {
            return;
        }
    }
}

/// With a database that is away.
#[derive(Debug, Clone)]
struct Patience {
    longest: Duration,
    interrupt: CancellationToken,
}

impl Patience {
    /// Does `work`, again and again while the database is away. `None` when interrupted while waiting.
    async fn wait<T, W>(&self, work: impl Fn() -> W) -> Result<Option<T>, StoreError>
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
            tracing::warn!(%error, "a batch could not be stored; trying again in {} ms", pause.as_millis());
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
                () = self.interrupt.cancelled() => return Ok(None),
            }
        }
    }
}
