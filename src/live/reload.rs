//! The reload loop: a new active version is loaded beside the old one, then takes its place.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::model::overlay::Overlay;
use crate::model::view::View;
use crate::store::snapshots::{self, Hints};

use super::load::{LoadError, catch_up, load};
use super::{Loaded, LoadedSnapshot, Shared};

/// How long a version that could not be loaded is left alone.
const RETRY_DAMAGED: Duration = Duration::from_secs(30);

pub(super) struct Reload {
    shared: Arc<Shared>,
    /// The version that failed last, and when.
    failed: Option<(i64, std::time::Instant)>,
}

impl Reload {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, failed: None }
    }

    /// Looks once an interval, and at once when the database hints.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let interval = Duration::from_millis(self.shared.options.refresh_interval_ms);
        let mut hints: Option<Hints> = None;
        loop {
            if hints.is_none() {
                hints = Hints::listen(&self.shared.pool).await.ok();
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

    /// Loads the active version unless it is served already. A failure leaves everything as it was.
    pub(super) async fn run_once(&mut self) {
        let active = match snapshots::active_version(&self.shared.pool).await {
            Ok(active) => active,
            // Reported by the refresh loop, which asks as often.
            Err(_) => return,
        };
        let Some(version) = active else { return };
        if self.shared.status.load().snapshot_version == Some(version) {
            return;
        }
        if self.failed.is_some_and(|(failed, at)| failed == version && at.elapsed() < RETRY_DAMAGED) {
            return;
        }
        match self.switch_to(version).await {
            Ok(()) => self.failed = None,
            Err(LoadError::Store(error)) => {
                tracing::warn!(version, error = %super::chain(&error), "the active snapshot cannot be read now");
            }
            Err(error) => {
                let is_news = self.failed.is_none_or(|(failed, _)| failed != version);
                if is_news {
                    let serving = self.shared.status.load().snapshot_version;
                    tracing::error!(version, serving, error = %error, "the active snapshot cannot be served");
                    metrics::counter!("likemind_snapshot_load_failures_total").increment(1);
                }
                self.failed = Some((version, std::time::Instant::now()));
                let message = error.to_string();
                self.shared.update_status(|status| status.load_error = Some(message.clone()));
            }
        }
    }

    async fn switch_to(&self, version: i64) -> Result<(), LoadError> {
        let started = std::time::Instant::now();
        let kept = {
            let loaded = self.shared.loaded.lock().await;
            loaded.as_ref().and_then(|loaded| loaded.previous.clone()).filter(|kept| kept.version == version)
        };
        let new = match kept {
            Some(kept) => kept,
            None => load(&self.shared.pool, version).await?,
        };
        let max_entries = self.shared.options.max_overlay_entries;
        let mut overlay = Overlay::default();
        let watermark =
            catch_up(&self.shared.pool, &new.snapshot, &mut overlay, &new.input_watermark, max_entries).await?;

        // The refresh loop waits from here on; what came in the meantime is little.
        let mut loaded = self.shared.loaded.lock().await;
        let watermark = catch_up(&self.shared.pool, &new.snapshot, &mut overlay, &watermark, max_entries).await?;
        self.shared.view.store(Some(Arc::new(View {
            version,
            snapshot: new.snapshot.clone(),
            overlay: Arc::new(overlay),
        })));
        let old = loaded.take();
        let (previous, dropped) = self.keep(old, version);
        let (created_at, loaded_at) = (new.created_at, Utc::now());
        let previous_version = previous.as_ref().map(|previous| previous.version);
        *loaded = Some(Loaded {
            snapshot: new,
            watermark,
            previous,
        });
        drop(loaded);
        dropped.into_iter().for_each(free);

        self.shared.update_status(|status| {
            status.snapshot_version = Some(version);
            status.snapshot_created_at = Some(created_at);
            status.loaded_at = Some(loaded_at);
            status.refreshed_at = Some(loaded_at);
            status.previous_version = previous_version;
            status.database_available = true;
            status.load_error = None;
        });
        self.shared.version.send_replace(Some(version));
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::info!(version, took_ms, "serving snapshot {version}");
        Ok(())
    }

    /// What to keep of what was served until now, and what to free.
    fn keep(&self, old: Option<Loaded>, version: i64) -> (Option<LoadedSnapshot>, Option<LoadedSnapshot>) {
        let Some(old) = old else { return (None, None) };
        if self.shared.options.keep_previous == 0 {
            return (None, Some(old.snapshot));
        }
        (Some(old.snapshot), old.previous.filter(|previous| previous.version != version))
    }
}

/// Frees a snapshot once the last request has let go of it, so that no request pays for it.
fn free(old: LoadedSnapshot) {
    tokio::spawn(async move {
        while Arc::strong_count(&old.snapshot) > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let freed = tokio::task::spawn_blocking(move || drop(old)).await;
        if freed.is_err() {
            tracing::error!("freeing a snapshot ended with a panic");
        }
    });
}
