//! The reload loop, which loads a new active version beside the old one and then puts it in its place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::{RwLock, oneshot};
use tokio_util::sync::CancellationToken;

use crate::store::snapshots::changes::Known;
use crate::store::snapshots::{self, Hints, SnapshotState, VersionedBytes};
use recommender::evaluation::gate::SnapshotCounts;
use recommender::snapshot::overlay::Overlay;
use recommender::snapshot::view::View;

use super::background_thread::{self, Priority};
use super::load::{LoadError, catch_up, load};
use super::refresh::report_dropped;
use super::{InactiveSnapshot, Loaded, LoadedSnapshot, ROW_LIMIT, Shared, memory, supervised, within};

/// The pause after a version could not be loaded.
const RETRY_DAMAGED: Duration = Duration::from_secs(30);
/// The pause after a version could not be loaded because the database failed, or because its bytes were replaced.
const RETRY_UNREADABLE: Duration = Duration::from_secs(5);
/// The longest time to load a snapshot.
const LOAD_LIMIT: Duration = Duration::from_secs(600);
/// The longest wait until the memory of earlier snapshots is freed.
const FREE_LIMIT: Duration = Duration::from_secs(1);
/// The longest wait until the database accepts a listener.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);

/// How often a version is loaded whose bytes are replaced meanwhile, before a pause.
const REPLACED_ATTEMPTS: u32 = 3;

/// How many of the newest versions are looked at while none is active.
const MAX_INACTIVE: i64 = 20;
/// How many of the newest versions are looked at when the active one cannot be served.
const MAX_FALLBACKS: i64 = 100;

pub(super) struct Reload {
    shared: Arc<Shared>,
    failure: Option<Failure>,
    /// Every task that frees a snapshot holds a read lock.
    freeing: Arc<RwLock<()>>,
}

/// The reason why the active version is not served.
struct Failure {
    version: i64,
    message: String,
    at: Instant,
    retry_after: Duration,
}

impl Reload {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            failure: None,
            freeing: Arc::default(),
        }
    }

    /// Looks at once, then once an interval and whenever the database sends a hint. `tried` is notified after the first look.
    pub(super) async fn run(mut self, tried: oneshot::Sender<()>, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.run_once() => {}
        }
        // The receiver may have stopped waiting.
        let _ = tried.send(());
        let interval = Duration::from_millis(self.shared.options.refresh_interval_ms);
        let mut hints: Option<Hints> = None;
        loop {
            if hints.is_none() {
                let listen = Hints::listen(&self.shared.pool);
                hints = tokio::time::timeout(LISTEN_LIMIT, listen)
                    .await
                    .ok()
                    .and_then(Result::ok);
            }
            let hint = async {
                match &mut hints {
                    Some(hints) => hints.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
                hint = hint => if hint.is_err() { hints = None },
            }
            self.run_once().await;
        }
    }

    /// Loads the active version unless it is served already. A failure leaves the served one in place.
    pub(super) async fn run_once(&mut self) {
        let active = async { Ok(snapshots::active_bytes(&self.shared.pool).await?) };
        // The refresh loop reports errors of the database; it asks as often.
        let active = match within::<_, LoadError>(ROW_LIMIT, supervised(active)).await {
            Ok(Some(active)) => active,
            Ok(None) => return self.note_inactive().await,
            Err(_) => return,
        };
        let version = active.version;
        let served = self.shared.view.load();
        let served = served.as_ref().map(|view| (view.version, view.redaction));
        if served == Some((version, active.redaction)) {
            self.recovered();
            return;
        }
        let is_paused = |failure: &Failure| failure.version == version && failure.at.elapsed() < failure.retry_after;
        if self.failure.as_ref().is_some_and(is_paused) {
            return;
        }
        self.shared.update_status(|status| status.loading = Some(version));
        let mut result = supervised(self.switch_to(version)).await;
        for _ in 1..REPLACED_ATTEMPTS {
            if !matches!(result, Err(LoadError::Replaced { .. })) {
                break;
            }
            result = supervised(self.switch_to(version)).await;
        }
        self.shared.update_status(|status| status.loading = None);
        match result {
            Ok(()) => self.recovered(),
            Err(error) => {
                self.failed(version, &error);
                if !error.is_transient() && self.shared.view.load().is_none() {
                    self.fall_back(version).await;
                }
            }
        }
    }

    /// Serves the newest intact snapshot that the gate let pass, in the place of `active`, which cannot be served.
    async fn fall_back(&self, active: i64) {
        let newest = async { Ok(snapshots::list(&self.shared.pool, i64::MAX, MAX_FALLBACKS).await?) };
        let Ok(newest) = within::<_, LoadError>(ROW_LIMIT, supervised(newest)).await else {
            return;
        };
        let is_complete = |state| matches!(state, SnapshotState::Retired | SnapshotState::Candidate);
        for record in newest.iter().filter(|record| is_complete(record.state)) {
            let version = record.version;
            match supervised(self.switch_to(version)).await {
                Ok(()) => {
                    tracing::error!(
                        version,
                        active,
                        "serving snapshot {version}, because the active snapshot {active} cannot be served"
                    );
                    self.shared.update_status(|status| {
                        let reason = self.failure.as_ref().map_or("", |failure| &failure.message);
                        status.load_error = Some(format!("{reason}; snapshot {version} is served in its place"));
                        status.is_fallback = true;
                    });
                    return;
                }
                Err(error) if error.is_transient() => return,
                Err(error) => {
                    let error = error.for_log();
                    tracing::error!(version, error, "snapshot {version} cannot be served either: {error}");
                }
            }
        }
    }

    /// Notes which version could be activated, for whoever asks while none is.
    async fn note_inactive(&self) {
        let newest = async { Ok(snapshots::list(&self.shared.pool, i64::MAX, MAX_INACTIVE).await?) };
        let Ok(newest) = within::<_, LoadError>(ROW_LIMIT, supervised(newest)).await else {
            return;
        };
        let mut records = newest.iter();
        let found = records.find(|record| record.state != SnapshotState::Failed);
        let found = found.or(newest.first()).map(|record| InactiveSnapshot {
            version: record.version,
            state: record.state,
            is_empty: record.counts.is_some_and(SnapshotCounts::is_empty),
        });
        if self.shared.status.load().inactive != found {
            self.shared.update_status(|status| status.inactive = found);
        }
    }

    fn recovered(&mut self) {
        if self.failure.take().is_some() {
            self.shared.update_status(|status| {
                status.load_error = None;
                status.is_fallback = false;
            });
        }
    }

    /// Records that `version` could not be loaded, and logs it unless the last failure was the same.
    fn failed(&mut self, version: i64, error: &LoadError) {
        let message = error.for_callers(version);
        let is_known = |failure: &Failure| failure.version == version && failure.message == message;
        if !self.failure.as_ref().is_some_and(is_known) {
            let serving = self.shared.status.load().snapshot_version;
            let error = error.for_log();
            tracing::error!(
                version,
                serving,
                error,
                "the active snapshot {version} cannot be served: {error}"
            );
        }
        metrics::counter!("likemind_snapshot_load_failures_total").increment(1);
        self.shared.update_status(|status| {
            status.load_error = Some(match (status.is_fallback, status.snapshot_version) {
                (true, Some(served)) => format!("{message}; snapshot {served} is served in its place"),
                _ => message.clone(),
            });
        });
        self.failure = Some(Failure {
            version,
            message,
            at: Instant::now(),
            retry_after: if error.is_transient() {
                RETRY_UNREADABLE
            } else {
                RETRY_DAMAGED
            },
        });
    }

    async fn switch_to(&self, version: i64) -> Result<(), LoadError> {
        let started = Instant::now();
        let new = match self.kept(version).await? {
            Some(kept) => kept,
            None => {
                // A third snapshot must not be loaded while one is being freed. The wait is short, as a request may hold it.
                let _ = tokio::time::timeout(FREE_LIMIT, self.freeing.write()).await;
                let is_first = self.shared.view.load().is_none();
                within(LOAD_LIMIT, load(&self.shared.pool, version, is_first)).await?
            }
        };
        let max_entries = self.shared.options.max_overlay_entries;
        let mut overlay = Overlay::new(self.shared.privacy);
        let known = catch_up(&self.shared.pool, &new, &mut overlay, &new.known, max_entries).await?;

        // The refresh loop waits from here on, but not for long: little has changed since the first time.
        let mut loaded = self.shared.loaded.lock().await;
        let known = catch_up(&self.shared.pool, &new, &mut overlay, &known, max_entries).await?;
        report_dropped(&self.shared.options, 0, overlay.dropped());
        self.publish(new, overlay, known, &mut loaded);
        drop(loaded);
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::info!(version, took_ms, "serving snapshot {version}");
        Ok(())
    }

    /// Puts a snapshot and its overlay in the place of what is served, and frees what is no longer kept.
    fn publish(&self, new: LoadedSnapshot, overlay: Overlay, known: Known, loaded: &mut Option<Loaded>) {
        let VersionedBytes { version, redaction } = new.bytes;
        let (fresh_entries, fresh_entries_dropped) = (overlay.len(), overlay.dropped());
        let (previous, dropped) = self.keep(loaded.take(), version, &known);
        // This comes before the view, so that `Live::snapshot` finds the old version at every moment.
        self.shared.previous.store(previous.clone().map(Arc::new));
        let old_view = self.shared.view.swap(Some(Arc::new(View {
            version,
            redaction,
            snapshot: new.snapshot.clone(),
            overlay: Arc::new(overlay),
            epoch: self.shared.epochs.fetch_add(1, Ordering::Relaxed),
            privacy: self.shared.privacy,
        })));
        let (created_at, loaded_at) = (new.created_at, Utc::now());
        let previous_version = previous.as_ref().map(|previous| previous.bytes.version);
        *loaded = Some(Loaded {
            snapshot: new,
            known,
            previous,
        });
        old_view.into_iter().for_each(|view| self.free(view));
        dropped.into_iter().for_each(|dropped| self.free(dropped.snapshot));

        self.shared.update_status(|status| {
            status.snapshot_version = Some(version);
            status.is_fallback = false;
            status.snapshot_created_at = Some(created_at);
            status.loaded_at = Some(loaded_at);
            status.refreshed_at = Some(loaded_at);
            status.previous_version = previous_version;
            status.fresh_entries = fresh_entries;
            status.fresh_entries_dropped = fresh_entries_dropped;
            status.database_available = true;
            status.load_error = None;
            status.inactive = None;
        });
        self.shared.version.send_replace(Some(version));
    }

    /// Returns the snapshot that is kept from before if it is `version` with its present bytes. Frees any other one, so that there
    /// are never three when the next one is loaded.
    async fn kept(&self, version: i64) -> Result<Option<LoadedSnapshot>, LoadError> {
        let mut loaded = self.shared.loaded.lock().await;
        let Some(loaded) = loaded.as_mut() else { return Ok(None) };
        if let Some(previous) = &loaded.previous
            && previous.bytes.version == version
            && snapshots::has_bytes(&self.shared.pool, previous.bytes).await?
        {
            return Ok(Some(previous.clone()));
        }
        if let Some(dropped) = loaded.previous.take() {
            self.shared.previous.store(None);
            self.shared.update_status(|status| status.previous_version = None);
            self.free(dropped.snapshot);
        }
        Ok(None)
    }

    /// Divides what was served until now into the snapshot to keep and the one to free. Other bytes of the new version are not
    /// kept, nor is a snapshot that may hold users who were erased since. `known`: the changes that the new one has.
    fn keep(
        &self,
        old: Option<Loaded>,
        version: i64,
        known: &Known,
    ) -> (Option<LoadedSnapshot>, Option<LoadedSnapshot>) {
        let Some(old) = old else { return (None, None) };
        let hides = self
            .shared
            .view
            .load()
            .as_ref()
            .is_some_and(|view| view.overlay.hides_stored());
        let has_missed_erasures = known.erased_through > old.known.erased_through;
        let is_kept = self.shared.options.keep_previous > 0 && old.snapshot.bytes.version != version;
        if !is_kept || hides || has_missed_erasures {
            return (None, Some(old.snapshot));
        }
        (
            Some(old.snapshot),
            old.previous.filter(|previous| previous.bytes.version != version),
        )
    }

    /// Frees a snapshot or a view after the last request has released it, so that no request spends time on this.
    fn free<T: Send + Sync + 'static>(&self, old: Arc<T>) {
        // This never fails: only the calling loop takes the write lock.
        let freeing = self.freeing.clone().try_read_owned();
        tokio::spawn(async move {
            while Arc::strong_count(&old) > 1 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // If no thread can be started, the value is freed here.
            let _ = background_thread::spawn(Priority::Idle, move || {
                drop(old);
                memory::give_back();
                drop(freeing);
            });
        });
    }
}
