//! The refresh loop, which reads what was written since the last look.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::refusals;
use crate::store::snapshots;
use crate::store::snapshots::changes;
use recommender::snapshot::overlay::{FreshChange, Overlay};
use recommender::snapshot::view::View;

use super::load::{LoadError, catch_up};
use super::options::LiveOptions;
use super::{Loaded, ROW_LIMIT, Shared, StepError, supervised, within};

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the database has not answered for {} s", SLOW.as_secs())]
    Slow,
}

/// A look that takes longer than this is reported as an outage before it ends.
const SLOW: Duration = Duration::from_secs(3);

/// Looks once an interval and whenever a caller asks. Callers that ask during a look share the next one.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    shutdown: CancellationToken,
) {
    let mut interval = tokio::time::interval(Duration::from_millis(shared.options.refresh_interval_ms));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_available = true;
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
            request = requests.recv() => waiting.extend(request),
        }
        while let Ok(request) = requests.try_recv() {
            waiting.push(request);
        }
        let mut look = pin!(supervised(refresh(&shared)));
        let result = tokio::select! {
            result = &mut look => result,
            () = tokio::time::sleep(SLOW) => {
                report(&shared, &Err(RefreshError::Slow), &mut is_available);
                look.await
            }
        };
        for done in waiting {
            // The caller may have gone away.
            let _ = done.send(());
        }
        report(&shared, &result, &mut is_available);
    }
}

/// Publishes a new overlay if anything has changed.
async fn refresh(shared: &Shared) -> Result<(), RefreshError> {
    let mut loaded = shared.loaded.lock().await;
    let (Some(loaded), Some(view)) = (loaded.as_mut(), shared.view.load_full()) else {
        // There is nothing to refresh. The query also shows whether the database is available, for the status.
        let last = async { Ok(snapshots::redaction::last(&shared.pool).await?) };
        let last = within::<_, RefreshError>(ROW_LIMIT, last).await?;
        shared.masked_through.send_replace(last);
        return Ok(());
    };
    let mut overlay = Overlay::clone(&view.overlay);
    let max_entries = shared.options.max_overlay_entries;
    let mut is_changed = false;
    let dropped_before = overlay.dropped();
    let mut has_previous_erased = false;
    let previous = loaded.previous.as_ref().map(|previous| previous.snapshot.clone());
    let reached = changes::since(&shared.pool, &loaded.known, ROW_LIMIT, |change| {
        is_changed = true;
        if let (FreshChange::Erased { user }, Some(previous)) = (&change, &previous) {
            has_previous_erased |= previous.holds(user.as_str());
        }
        overlay.apply(&view.snapshot, change, max_entries);
    })
    .await?;
    if reached.is_too_late {
        return start_overlay_again(shared, loaded, &view).await;
    }
    loaded.known = reached.known;
    if has_previous_erased {
        drop_previous(shared, loaded);
    }
    if is_changed {
        report_dropped(&shared.options, dropped_before, overlay.dropped());
        publish_overlay(shared, &view, overlay, view.epoch);
    }
    shared.masked_through.send_replace(loaded.known.erased_through);
    Ok(())
}

/// Reads everything again that is newer than the snapshot, after the ids of erased users were forgotten while this server was cut
/// off: whatever it holds beside the snapshot may be of one of them. Where the snapshot itself may hold one, because its stored
/// bytes were replaced, nothing is told to be masked until the reload loop has loaded the new bytes.
async fn start_overlay_again(shared: &Shared, loaded: &mut Loaded, view: &View) -> Result<(), RefreshError> {
    let mut overlay = Overlay::new(shared.privacy);
    let (pool, max_entries) = (&shared.pool, shared.options.max_overlay_entries);
    let snapshot = &loaded.snapshot;
    let known = match catch_up(pool, snapshot, &mut overlay, &snapshot.known, max_entries).await {
        Ok(known) => known,
        Err(LoadError::Replaced { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    tracing::info!(
        "read everything again that is newer than the snapshot, as users were erased while the database was away"
    );
    loaded.known = known;
    drop_previous(shared, loaded);
    // The stamps of remembered answers begin again.
    publish_overlay(shared, view, overlay, shared.epochs.fetch_add(1, Ordering::Relaxed));
    shared.masked_through.send_replace(loaded.known.erased_through);
    Ok(())
}

/// Forgets the snapshot that was served before. It is read anew, without erased users, when it is activated again.
fn drop_previous(shared: &Shared, loaded: &mut Loaded) {
    loaded.previous = None;
    shared.previous.store(None);
    shared.update_status(|status| status.previous_version = None);
}

fn publish_overlay(shared: &Shared, view: &View, overlay: Overlay, epoch: u64) {
    shared.view.store(Some(Arc::new(View {
        version: view.version,
        redaction: view.redaction,
        snapshot: view.snapshot.clone(),
        overlay: Arc::new(overlay),
        epoch,
        privacy: view.privacy,
    })));
}

/// Counts the entries that an overlay has dropped, and warns of the first.
///
/// `before` and `now`: the numbers of dropped entries.
pub(super) fn report_dropped(options: &LiveOptions, before: u64, now: u64) {
    if before == 0 && now > 0 {
        tracing::warn!(
            max_overlay_entries = options.max_overlay_entries,
            "the overlay is full: newer ratings show only after the next training; raise live.max_overlay_entries"
        );
    }
    metrics::counter!("likemind_fresh_dropped_total").increment(now - before);
}

/// Updates the status, and logs when the database goes away and comes back.
fn report(shared: &Shared, result: &Result<(), RefreshError>, was_available: &mut bool) {
    let view = shared.view.load();
    let (entries, dropped) = view
        .as_ref()
        .map_or((0, 0), |view| (view.overlay.len(), view.overlay.dropped()));
    let now = Utc::now();
    // The database may answer the reads of a refresh while it refuses writes.
    let database_available = result.is_ok() && !refusals::is_recent();
    shared.update_status(|status| {
        status.database_available = database_available;
        status.fresh_entries = entries;
        status.fresh_entries_dropped = dropped;
        if result.is_ok() {
            status.refreshed_at = Some(now);
        }
    });
    shared.is_database_available.send_if_modified(|is_available| {
        let has_changed = *is_available != database_available;
        *is_available = database_available;
        has_changed
    });
    if let Err(error) = result
        && *was_available
    {
        tracing::warn!(error = %super::chain(error), "fresh data cannot be read; serving the data read so far");
    } else if result.is_ok() && !*was_available {
        tracing::info!("fresh data is read again");
    }
    *was_available = result.is_ok();
}
