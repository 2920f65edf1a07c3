//! From batches to the store.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::error::InvalidField;
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::pool::Pool;
use crate::store::statistics;

use super::ImportOptions;
use super::subject::Subject;

/// Stores batches, each over several connections at once: one for every part of the owners, so that what concerns the
/// same row is stored in the order of the file.
pub(super) struct Writer<'a, S> {
    pool: &'a Pool,
    options: &'a ImportOptions,
    interrupt: &'a CancellationToken,
    /// Hashes of shared ids that are there. Those that are not are created before the batch: inside of its transactions
    /// one would wait for the other until it ends.
    known: HashSet<u64>,
    /// How many have been stored.
    batches: u64,
    subject: PhantomData<fn(S)>,
}

/// What became of a batch; the rest was merged.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub stored: u64,
    /// By position in the batch, in any order.
    pub refused: Vec<(usize, InvalidField)>,
}

/// Of a batch what is stored over one connection, and where it stood.
struct Part<V> {
    values: Vec<V>,
    positions: Vec<usize>,
}

impl<V> Default for Part<V> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            positions: Vec::new(),
        }
    }
}

impl<'a, S: Subject> Writer<'a, S> {
    /// So that memory is bounded; to forget costs no more than to ask again.
    const MAX_KNOWN: usize = 1 << 20;

    pub fn new(pool: &'a Pool, options: &'a ImportOptions, interrupt: &'a CancellationToken) -> Self {
        Self {
            pool,
            options,
            interrupt,
            known: HashSet::new(),
            batches: 0,
            subject: PhantomData,
        }
    }

    /// Returns what became of `values`; `None` when interrupted while the database was away.
    pub async fn store(&mut self, values: Vec<S::Value>) -> Result<Option<Stored>, StoreError> {
        // As often as the tables can have doubled.
        if self.batches.is_power_of_two()
            && let Err(error) = statistics::analyze(self.pool).await
        {
            tracing::warn!(%error, "the statistics of the tables could not be renewed; the import may be slow");
        }
        self.batches += 1;
        if self.create_shared(&values).await?.is_none() {
            return Ok(None);
        }
        let mut parts: Vec<Part<S::Value>> = Vec::new();
        parts.resize_with(self.options.connections.max(1), Part::default);
        for (position, value) in values.into_iter().enumerate() {
            let part = xxh3_64(S::owner(&value).as_bytes()) % parts.len() as u64;
            let part = &mut parts[part as usize];
            part.values.push(value);
            part.positions.push(position);
        }
        let mut writes = Vec::new();
        for part in parts.iter().filter(|part| !part.values.is_empty()) {
            writes.push(self.write(part));
        }
        let mut all = Stored::default();
        for stored in try_join_all(writes).await? {
            let Some(stored) = stored else { return Ok(None) };
            all.stored += stored.stored;
            all.refused.extend(stored.refused);
        }
        Ok(Some(all))
    }

    async fn write(&self, part: &Part<S::Value>) -> Result<Option<Stored>, StoreError> {
        let Some(outcomes) = self.patiently(|| S::write(self.pool, &part.values)).await? else {
            return Ok(None);
        };
        let mut all = Stored::default();
        for (outcome, &position) in outcomes.into_iter().zip(&part.positions) {
            match outcome {
                LoadOutcome::Stored => all.stored += 1,
                LoadOutcome::Merged => {}
                LoadOutcome::Refused(error) => all.refused.push((position, error)),
            }
        }
        Ok(Some(all))
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
        self.patiently(|| S::create_shared(self.pool, &unknown)).await
    }

    /// Does `work`, again and again while the database is away. `None` when interrupted while waiting.
    async fn patiently<T, W>(&self, work: impl Fn() -> W) -> Result<Option<T>, StoreError>
    where
        W: Future<Output = Result<T, StoreError>>,
    {
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);
        let deadline = Instant::now() + self.options.patience;
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
