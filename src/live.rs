//! The loaded snapshot and what has changed since it was trained.
//!
//! Two loops feed one cell. The *reload* loop notices a new active version, loads and verifies it beside the old one
//! and swaps. The *refresh* loop reads what has been written since and publishes a new overlay. A request takes the
//! cell's content once and never waits for either.

mod background_thread;
mod gauges;
mod load;
mod memory;
mod offer_catalog;
pub mod options;
mod refresh;
mod reload;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::changes::Watermark;
use coupons::offer_catalog::OfferCatalog;
use domain::consent::PrivacyOptions;
use domain::error::chain;
use domain::time::Timestamp;
use recommender::snapshot::Snapshot;
use recommender::snapshot::view::View;

use self::options::LiveOptions;

/// Longest wait of [`Live::start`].
const FIRST_LOAD_WAIT: Duration = Duration::from_secs(2);
/// Longest wait of [`Live::refresh`].
const REFRESH_WAIT: Duration = Duration::from_secs(2);
/// Of the loops' own, whatever requests do: the hints, the reload loop, the refresh loop, the loop of the offer catalog, and one to
/// replace another.
const CONNECTIONS: u32 = 5;
/// Longest wait of a loop for the next row. Longer than any of its queries takes to begin answering, so that only a
/// connection on which nothing comes any more is given up. A whole query may take longer: catching up with much does.
const ROW_LIMIT: Duration = Duration::from_secs(60);

/// The live state of one server process; cheap to share.
#[derive(Debug, Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    options: LiveOptions,
    privacy: PrivacyOptions,
    view: ArcSwapOption<View>,
    /// How many snapshots have been put into `view`.
    epochs: AtomicU64,
    /// What the loops keep beside it.
    previous: ArcSwapOption<LoadedSnapshot>,
    offer_catalog: ArcSwap<OfferCatalog>,
    /// Of `offer_catalog`; the lock lets one read it anew at a time.
    offer_catalog_revision: tokio::sync::Mutex<Option<i64>>,
    status: ArcSwap<ServingStatus>,
    /// Serializes the two loops; never touched by a request.
    loaded: tokio::sync::Mutex<Option<Loaded>>,
    refresh_requests: mpsc::UnboundedSender<oneshot::Sender<()>>,
    version: watch::Sender<Option<i64>>,
}

/// What the loops know of the snapshot that is served.
#[derive(Debug)]
struct Loaded {
    snapshot: LoadedSnapshot,
    /// Up to where the overlay is complete.
    watermark: Watermark,
    previous: Option<LoadedSnapshot>,
}

#[derive(Debug, Clone)]
struct LoadedSnapshot {
    version: i64,
    created_at: Timestamp,
    input_watermark: Watermark,
    snapshot: Arc<Snapshot>,
}

/// What this process is serving.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServingStatus {
    pub snapshot_version: Option<i64>,
    pub snapshot_created_at: Option<Timestamp>,
    pub loaded_at: Option<Timestamp>,
    pub previous_version: Option<i64>,
    pub fresh_entries: usize,
    pub fresh_entries_dropped: u64,
    /// When the database was last read for fresh data.
    pub refreshed_at: Option<Timestamp>,
    pub database_available: bool,
    /// The version that is being loaded.
    pub loading: Option<i64>,
    /// Of the last version that could not be loaded.
    pub load_error: Option<String>,
}

impl Live {
    /// Starts the loops, on connections of their own beside those of `pool`; they end with `shutdown`. Returns after the
    /// first attempt to load the active snapshot, so that a server which can answer answers from its first request on,
    /// unless that takes long or `shutdown` comes first: the reload loop goes on with it.
    pub async fn start(pool: Pool, options: LiveOptions, privacy: PrivacyOptions, shutdown: CancellationToken) -> Self {
        let (live, requests) = Self::new(pool.dedicated(CONNECTIONS), options, privacy);
        let (tried, first_try) = oneshot::channel();
        let reload = reload::Reload::new(live.shared.clone());
        tokio::spawn(reload.run(tried, shutdown.clone()));
        tokio::spawn(refresh::run(live.shared.clone(), requests, shutdown.clone()));
        tokio::spawn(offer_catalog::run(live.shared.clone(), shutdown.clone()));
        tokio::spawn(gauges::run(live.shared.clone(), pool, shutdown.clone()));
        tokio::select! {
            _ = tokio::time::timeout(FIRST_LOAD_WAIT, first_try) => {}
            () = shutdown.cancelled() => {}
        }
        live
    }

    /// The active snapshot, what is newer, and all campaigns and coupons, read once: for a command, which ends. Where no
    /// snapshot can be loaded there is no view, and [`Self::status`] says why.
    ///
    /// # Errors
    /// What the database says.
    pub async fn read(pool: Pool, options: LiveOptions, privacy: PrivacyOptions) -> Result<Self, StoreError> {
        let (live, _) = Self::new(pool, options, privacy);
        live.refresh_offer_catalog().await?;
        reload::Reload::new(live.shared.clone()).run_once().await;
        Ok(live)
    }

    fn new(
        pool: Pool,
        options: LiveOptions,
        privacy: PrivacyOptions,
    ) -> (Self, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        let (refresh_requests, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            pool,
            options,
            privacy,
            view: ArcSwapOption::empty(),
            epochs: AtomicU64::new(0),
            previous: ArcSwapOption::empty(),
            offer_catalog: ArcSwap::default(),
            offer_catalog_revision: tokio::sync::Mutex::default(),
            status: ArcSwap::default(),
            loaded: tokio::sync::Mutex::new(None),
            refresh_requests,
            version: watch::channel(None).0,
        });
        (Self { shared }, requests)
    }

    /// What requests see now; `None` while no snapshot is loaded.
    pub fn view(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// The snapshot of `version`, if it is the one that is served, or the one that is kept from before.
    pub fn snapshot(&self, version: i64) -> Option<Arc<Snapshot>> {
        let served = self.view().filter(|view| view.version == version);
        let kept = || self.shared.previous.load_full().filter(|kept| kept.version == version);
        served
            .map(|view| view.snapshot.clone())
            .or_else(|| kept().map(|kept| kept.snapshot.clone()))
    }

    /// All campaigns and coupons, as of at most a refresh interval ago.
    pub fn offer_catalog(&self) -> Arc<OfferCatalog> {
        self.shared.offer_catalog.load_full()
    }

    /// Reads the offer catalog anew if it has changed: who has changed it, or misses something in it, does not wait for the loop.
    ///
    /// # Errors
    /// What the database says; the offer catalog stays as it was.
    pub async fn refresh_offer_catalog(&self) -> Result<(), StoreError> {
        offer_catalog::refresh(&self.shared).await
    }

    /// The same after a write, which is answered whatever becomes of this: the loop makes up for it.
    pub async fn publish_offer_catalog(&self) {
        let _ = tokio::time::timeout(REFRESH_WAIT, self.refresh_offer_catalog()).await;
    }

    pub fn status(&self) -> Arc<ServingStatus> {
        self.shared.status.load_full()
    }

    /// The version that is served, as it changes.
    pub fn version(&self) -> watch::Receiver<Option<i64>> {
        self.shared.version.subscribe()
    }

    /// Waits until everything that is committed now shows in [`Self::view`], or until reading it has failed, which the
    /// loop reports. Many waiting callers share one read. When it takes long the wait ends and what is committed shows
    /// later: a write that is stored is answered, whatever has become of the database since.
    pub async fn refresh(&self) {
        self.refresh_within(REFRESH_WAIT).await;
    }

    async fn refresh_within(&self, wait: Duration) {
        let (done, refreshed) = oneshot::channel();
        if self.shared.refresh_requests.send(done).is_ok() {
            // A dropped sender means that the loop has ended: the process is shutting down.
            let _ = tokio::time::timeout(wait, refreshed).await;
        }
    }
}

impl Shared {
    fn update_status(&self, change: impl Fn(&mut ServingStatus)) {
        self.status.rcu(|status| {
            let mut status = ServingStatus::clone(status);
            change(&mut status);
            status
        });
    }
}

/// Why a step of a loop was given up. The loop goes on.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("nothing has come from the database for {} s", limit.as_secs())]
    TimedOut { limit: Duration },
    #[error("a step ended with a panic")]
    Panicked,
}

/// Does `step`, which may be given up at any point: a loop that ends would let the process answer with old data for
/// ever.
async fn supervised<T, E: From<StepError>>(step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    // What the loops share is swapped as a whole, so a panic leaves nothing half done.
    match AssertUnwindSafe(step).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(StepError::Panicked.into()),
    }
}

/// Does `step` within `limit`: a loop that hangs is no better than one that has ended.
async fn within<T, E: From<StepError>>(limit: Duration, step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result,
        Err(_) => Err(StepError::TimedOut { limit }.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::store::postgres::options::DatabaseOptions;

    #[tokio::test]
    async fn a_write_is_answered_though_reading_it_back_hangs() {
        let pool = Pool::lazy("postgres://127.0.0.1:1/none", &DatabaseOptions::default()).unwrap();
        let (live, mut requests) = Live::new(pool, LiveOptions::default(), PrivacyOptions::default());
        let started = Instant::now();
        live.refresh_within(Duration::from_millis(20)).await;
        assert!(started.elapsed() >= Duration::from_millis(20));

        requests.recv().await.unwrap();
        let (answered, ()) = tokio::join!(
            async { requests.recv().await.unwrap().send(()).is_ok() },
            live.refresh_within(Duration::from_secs(60)),
        );
        assert!(answered);
        drop(requests);
        live.refresh_within(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn a_loop_outlives_its_steps() {
        let limit = Duration::from_millis(20);
        let hangs = within::<(), StepError>(limit, std::future::pending()).await;
        assert!(matches!(hangs, Err(StepError::TimedOut { .. })));
        let panics = supervised::<(), StepError>(async { panic!("as asked") }).await;
        assert!(matches!(panics, Err(StepError::Panicked)));
        let works = supervised::<_, StepError>(within(limit, async { Ok(7) })).await;
        assert!(matches!(works, Ok(7)));
    }
}
