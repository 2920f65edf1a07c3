//! Keeps the loaded snapshot and everything that has changed since it was trained.
//!
//! Two loops update one view. The *reload* loop notices a new active version, loads and verifies it beside the old one,
//! and swaps them. The *refresh* loop reads what was written since then and publishes a new overlay. A request takes the
//! view once and never waits for either loop.

mod background_thread;
pub mod fresh_sales;
mod gauges;
pub mod inventory;
mod load;
mod looks;
mod masking;
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
use crate::store::snapshots::changes::Known;
use crate::store::snapshots::{SnapshotState, StoredPart, VersionedBytes};
use coupons::offer_catalog::OfferCatalog;
use domain::consent::PrivacyOptions;
use domain::error::chain;
use domain::time::Timestamp;
use recommender::snapshot::Snapshot;
use recommender::snapshot::codec::DecodedPart;
use recommender::snapshot::view::View;

use self::background_thread::Priority;
use self::fresh_sales::FreshSales;
use self::inventory::Inventory;
use self::load::LoadError;
use self::options::LiveOptions;

/// The longest wait of [`Live::start`].
const FIRST_LOAD_WAIT: Duration = Duration::from_secs(2);
/// The longest wait of [`Live::refresh`].
const REFRESH_WAIT: Duration = Duration::from_secs(2);
/// The connections of the loops, which requests cannot use up: one each for the hints, the reload loop, the refresh loop,
/// those of the offer catalog, of fresh sales and of the inventory, and one to replace another or to tell of the server.
const CONNECTIONS: u32 = 7;
/// The longest wait of a loop for the next row. Every query of the loops begins to answer sooner, so that only a connection
/// that no longer answers is given up. A whole query may take longer, for example to catch up with many changes.
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
    /// Counts the snapshots that were put into `view`.
    epochs: AtomicU64,
    /// The snapshot that was served before, if it is kept.
    previous: ArcSwapOption<LoadedSnapshot>,
    offer_catalog: ArcSwap<OfferCatalog>,
    /// The revision of `offer_catalog`. Under its lock one task at a time reads the offer catalog.
    offer_catalog_revision: tokio::sync::Mutex<Option<i64>>,
    fresh_sales: ArcSwap<FreshSales>,
    inventory: ArcSwap<Inventory>,
    /// Under this lock one task at a time reads the inventory.
    reading_inventory: tokio::sync::Mutex<()>,
    status: ArcSwap<ServingStatus>,
    /// Serializes the two loops. Requests never lock it.
    loaded: tokio::sync::Mutex<Option<Loaded>>,
    refresh_requests: mpsc::UnboundedSender<oneshot::Sender<()>>,
    version: watch::Sender<Option<i64>>,
    /// The id under which the database knows this server.
    server_id: tokio::sync::Mutex<Option<String>>,
    /// The last erasure that every answer from here on takes into account.
    masked_through: watch::Sender<i64>,
    /// Whether the last look at the database has succeeded; true before the first.
    is_database_available: watch::Sender<bool>,
}

/// The served snapshot, as the loops know it.
#[derive(Debug)]
struct Loaded {
    snapshot: LoadedSnapshot,
    /// The changes that the overlay holds.
    known: Known,
    previous: Option<LoadedSnapshot>,
}

#[derive(Debug, Clone)]
struct LoadedSnapshot {
    bytes: VersionedBytes,
    created_at: Timestamp,
    /// The changes that it was trained on.
    known: Known,
    snapshot: Arc<Snapshot>,
}

/// The status of this process: what it serves and how fresh that is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServingStatus {
    pub snapshot_version: Option<i64>,
    /// Another version is served because the active one cannot be loaded.
    pub is_fallback: bool,
    pub snapshot_created_at: Option<Timestamp>,
    pub loaded_at: Option<Timestamp>,
    pub previous_version: Option<i64>,
    pub fresh_entries: usize,
    pub fresh_entries_dropped: u64,
    /// The last time when fresh data was read from the database.
    pub refreshed_at: Option<Timestamp>,
    pub database_available: bool,
    /// The version that is being loaded.
    pub loading: Option<i64>,
    /// The reason why the active version could not be loaded, and which one is served in its place.
    pub load_error: Option<String>,
    /// While no version is active: the newest one that did not fail, or else the newest one.
    pub inactive: Option<InactiveSnapshot>,
}

/// A snapshot that is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InactiveSnapshot {
    pub version: i64,
    pub state: SnapshotState,
    /// There was nothing to train it on.
    pub is_empty: bool,
}

impl ServingStatus {
    /// Says why nothing is served, and what to do.
    pub fn without_snapshot(&self) -> String {
        self.load_error
            .clone()
            .unwrap_or_else(|| self.without_active_snapshot())
    }

    /// Says why no snapshot is active, and what to do.
    pub fn without_active_snapshot(&self) -> String {
        let Some(InactiveSnapshot {
            version,
            state,
            is_empty,
        }) = self.inactive
        else {
            return "no snapshot is active yet; run `likemind train`".to_owned();
        };
        match state {
            SnapshotState::Rejected => {
                let remedy = match is_empty {
                    true => "import ratings or purchases and run `likemind train` again, or ",
                    false => "",
                };
                format!(
                    "no snapshot is active: the gate rejected snapshot {version}, and `likemind snapshots show {version}` says \
                     why; {remedy}activate it with `likemind snapshots activate {version} --reason REASON`, or train with \
                     `likemind train --force REASON`"
                )
            }
            SnapshotState::Building => {
                format!(
                    "no snapshot is active yet: snapshot {version} is being trained; try again when it is activated"
                )
            }
            SnapshotState::Failed => format!(
                "no snapshot is active: training snapshot {version} failed, and `likemind snapshots show {version}` says \
                 why; then run `likemind train` again"
            ),
            SnapshotState::Candidate | SnapshotState::Active | SnapshotState::Retired => format!(
                "no snapshot is active, although snapshot {version} is complete; activate it with \
                 `likemind snapshots activate {version}`"
            ),
        }
    }
}

impl Live {
    /// Starts the loops, on connections of their own beside those of `pool`. They end with `shutdown`. Returns after the
    /// first attempt to load the active snapshot, so that the server can answer from its first request on. Does not wait
    /// longer than 2 s, nor beyond `shutdown`: the reload loop then goes on loading.
    pub async fn start(pool: Pool, options: LiveOptions, privacy: PrivacyOptions, shutdown: CancellationToken) -> Self {
        let (live, requests) = Self::new(pool.dedicated(CONNECTIONS), options, privacy);
        let (tried, first_try) = oneshot::channel();
        let reload = reload::Reload::new(live.shared.clone());
        tokio::spawn(reload.run(tried, shutdown.clone()));
        tokio::spawn(refresh::run(live.shared.clone(), requests, shutdown.clone()));
        tokio::spawn(looks::run(
            live.shared.clone(),
            shutdown.clone(),
            "campaigns and coupons cannot be read; serving those read so far",
            async |shared| offer_catalog::refresh(shared).await,
        ));
        tokio::spawn(looks::run(
            live.shared.clone(),
            shutdown.clone(),
            "new sales cannot be read; forecasts rest on those read so far",
            async |shared| fresh_sales::refresh(shared).await,
        ));
        tokio::spawn(looks::run(
            live.shared.clone(),
            shutdown.clone(),
            "stock and policies cannot be read; lists rest on those read so far",
            async |shared| inventory::refresh(shared).await,
        ));
        tokio::spawn(masking::run(live.shared.clone(), shutdown.clone()));
        tokio::spawn(gauges::run(live.shared.clone(), pool, shutdown.clone()));
        tokio::select! {
            _ = tokio::time::timeout(FIRST_LOAD_WAIT, first_try) => {}
            () = shutdown.cancelled() => {}
        }
        live
    }

    /// Reads the active snapshot, the newer data, and all campaigns and coupons once, for a command. If no snapshot can be
    /// loaded there is no view, and [`Self::status`] says why.
    ///
    /// # Errors
    /// [`StoreError`] when campaigns and coupons cannot be read.
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
            fresh_sales: ArcSwap::default(),
            inventory: ArcSwap::default(),
            reading_inventory: tokio::sync::Mutex::default(),
            status: ArcSwap::default(),
            loaded: tokio::sync::Mutex::new(None),
            refresh_requests,
            version: watch::channel(None).0,
            server_id: tokio::sync::Mutex::default(),
            masked_through: watch::channel(0).0,
            is_database_available: watch::channel(true).0,
        });
        (Self { shared }, requests)
    }

    /// Returns the snapshot and overlay that requests see now; `None` while no snapshot is loaded.
    pub fn view(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    /// Returns the snapshot of these bytes if it is served, or kept from before.
    pub fn snapshot(&self, bytes: VersionedBytes) -> Option<Arc<Snapshot>> {
        let of_view = |view: &Arc<View>| (view.version, view.redaction) == (bytes.version, bytes.redaction);
        let served = self.view().filter(of_view);
        let kept = || self.shared.previous.load_full().filter(|kept| kept.bytes == bytes);
        served
            .map(|view| view.snapshot.clone())
            .or_else(|| kept().map(|kept| kept.snapshot.clone()))
    }

    /// Returns all campaigns and coupons, as of at most a refresh interval ago.
    pub fn offer_catalog(&self) -> Arc<OfferCatalog> {
        self.shared.offer_catalog.load_full()
    }

    /// Returns what was sold since the snapshot was trained, as of at most a refresh interval ago.
    pub fn fresh_sales(&self) -> Arc<FreshSales> {
        self.shared.fresh_sales.load_full()
    }

    /// Reads what was sold since the last look.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read; the sales stay as they were.
    pub async fn refresh_fresh_sales(&self) -> Result<(), StoreError> {
        fresh_sales::refresh(&self.shared).await
    }

    /// Returns stock and policies, as of at most a refresh interval ago.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.shared.inventory.load_full()
    }

    /// Reads what has changed of stock and policies since the last look.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read; the inventory stays as it was.
    pub async fn refresh_inventory(&self) -> Result<(), StoreError> {
        inventory::refresh(&self.shared).await
    }

    /// Does the same around a write. Ignores errors, as the loop reads again.
    pub async fn publish_inventory(&self) {
        let _ = tokio::time::timeout(REFRESH_WAIT, self.refresh_inventory()).await;
    }

    /// Reads the offer catalog again if it has changed. A caller that has changed it, or misses something in it, need not wait
    /// for the loop.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read; the offer catalog stays as it was.
    pub async fn refresh_offer_catalog(&self) -> Result<(), StoreError> {
        offer_catalog::refresh(&self.shared).await
    }

    /// Does the same after a write. Ignores errors, as the write is stored already and the loop will read it.
    pub async fn publish_offer_catalog(&self) {
        let _ = tokio::time::timeout(REFRESH_WAIT, self.refresh_offer_catalog()).await;
    }

    /// Returns the status of this process.
    pub fn status(&self) -> Arc<ServingStatus> {
        self.shared.status.load_full()
    }

    /// Watches the version that is served.
    pub fn version(&self) -> watch::Receiver<Option<i64>> {
        self.shared.version.subscribe()
    }

    /// Watches whether the database is available.
    pub fn database_available(&self) -> watch::Receiver<bool> {
        self.shared.is_database_available.subscribe()
    }

    /// Tells other processes that this one answers no longer. Called after the shutdown.
    pub async fn leave(&self) {
        masking::leave(&self.shared).await;
    }

    /// Waits until [`Self::view`] shows everything that is committed now, or until reading it has failed, which the loop
    /// reports. Callers that wait at the same time share one read. Waits for at most 2 s, so that a stored write is
    /// answered even if the database is away since then; the view shows it later.
    pub async fn refresh(&self) {
        self.refresh_within(REFRESH_WAIT).await;
    }

    async fn refresh_within(&self, wait: Duration) {
        let (done, refreshed) = oneshot::channel();
        if self.shared.refresh_requests.send(done).is_ok() {
            // The sender is dropped when the loop has ended, as the process is shutting down.
            let _ = tokio::time::timeout(wait, refreshed).await;
        }
    }
}

/// The reason why a stored snapshot cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Its bytes are not those that were written, or another release wrote them.
    #[error("{message}")]
    Unusable {
        message: String,
        /// Whether another release may still read them.
        is_of_another_release: bool,
    },
    /// It could not be read this time: whether it can be served is not known.
    #[error("{message}")]
    Unread { message: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VerifyError {
    fn of(error: LoadError, version: i64) -> Self {
        let message = error.for_callers(version);
        match error {
            LoadError::Store(error) => error.into(),
            LoadError::Damaged { .. } | LoadError::Inconsistent { .. } => Self::Unusable {
                message,
                is_of_another_release: false,
            },
            LoadError::OtherFormat { .. } => Self::Unusable {
                message,
                is_of_another_release: true,
            },
            LoadError::Gone { .. }
            | LoadError::Replaced { .. }
            | LoadError::Panicked { .. }
            | LoadError::NoThread { .. }
            | LoadError::Step(_) => Self::Unread { message },
        }
    }
}

/// Reads and decodes one part of a stored snapshot, on little of the CPU time that calls ask for.
///
/// # Errors
/// [`VerifyError`].
pub async fn decode_part(pool: &Pool, bytes: VersionedBytes, part: StoredPart) -> Result<DecodedPart, VerifyError> {
    match load::decode_part(pool, bytes, part, Priority::Tenth).await {
        Ok(part) => Ok(part),
        Err(error) => Err(VerifyError::of(error, bytes.version)),
    }
}

/// Checks that a server could load the stored snapshot `version`: every byte is read. Needs the memory of its largest part.
///
/// # Errors
/// [`VerifyError`].
pub async fn verify(pool: &Pool, version: i64) -> Result<(), VerifyError> {
    let verified = load::verify(pool, version).await;
    verified.map_err(|error| VerifyError::of(error, version))
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

/// The reason why a step of a loop was given up. The loop goes on.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the database has sent nothing for {} s", limit.as_secs())]
    TimedOut { limit: Duration },
    #[error("a step ended with a panic")]
    Panicked,
}

/// Does `step` and turns a panic in it into an error: if the loop ended, the process would answer with old data for ever.
async fn supervised<T, E: From<StepError>>(step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    // All shared values are swapped as a whole, so a panic leaves none half changed.
    match AssertUnwindSafe(step).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(StepError::Panicked.into()),
    }
}

/// Gives `step` up after `limit`: a loop that hangs is no better than one that has ended.
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
