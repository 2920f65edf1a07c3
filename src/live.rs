//! The loaded snapshot and what has changed since it was trained.
//!
//! Two loops feed one cell. The *reload* loop notices a new active version, loads and verifies it beside the old one
//! and swaps. The *refresh* loop reads what has been written since and publishes a new overlay. A request takes the
//! cell's content once and never waits for either.

mod load;
pub mod options;
mod refresh;
mod reload;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::time::Timestamp;
use crate::model::snapshot::Snapshot;
use crate::model::view::View;
use crate::store::changes::Watermark;
use crate::store::pool::Pool;

use self::options::LiveOptions;

/// The live state of one server process; cheap to share.
#[derive(Debug, Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    options: LiveOptions,
    view: ArcSwapOption<View>,
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
    /// Of the last version that could not be loaded.
    pub load_error: Option<String>,
}

impl Live {
    /// Starts the loops; they end with `shutdown`. Returns after the first attempt to load the active snapshot, so
    /// that a server which can answer answers from its first request on.
    pub async fn start(pool: Pool, options: LiveOptions, shutdown: CancellationToken) -> Self {
        let (refresh_requests, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            pool,
            options,
            view: ArcSwapOption::empty(),
            status: ArcSwap::default(),
            loaded: tokio::sync::Mutex::new(None),
            refresh_requests,
            version: watch::channel(None).0,
        });
        let mut reload = reload::Reload::new(shared.clone());
        reload.run_once().await;
        tokio::spawn(reload.run(shutdown.clone()));
        tokio::spawn(refresh::run(shared.clone(), requests, shutdown));
        Self { shared }
    }

    /// What requests see now; `None` while no snapshot is loaded.
    pub fn view(&self) -> Option<Arc<View>> {
        self.shared.view.load_full()
    }

    pub fn status(&self) -> Arc<ServingStatus> {
        self.shared.status.load_full()
    }

    /// The version that is served, as it changes.
    pub fn version(&self) -> watch::Receiver<Option<i64>> {
        self.shared.version.subscribe()
    }

    /// Waits until everything that is committed now shows in [`Self::view`], or until reading it has failed, which the
    /// loop reports. Many waiting callers share one read.
    pub async fn refresh(&self) {
        let (done, wait) = oneshot::channel();
        if self.shared.refresh_requests.send(done).is_ok() {
            // A dropped sender means that the loop has ended: the process is shutting down.
            let _ = wait.await;
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

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
