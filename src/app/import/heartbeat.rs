//! Tells the database at intervals that an import is running, and how far it is.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::store::imports::{self, LineCounts};
use crate::store::postgres::pool::Pool;

/// Well below the time after which an import counts as abandoned.
const INTERVAL: Duration = Duration::from_secs(5);

/// Reports until it is dropped.
pub(super) struct Heartbeat {
    counts: watch::Sender<LineCounts>,
    _task: AbortOnDropHandle<()>,
}

impl Heartbeat {
    /// `interrupt` is cancelled when the import no longer counts as running, because somebody has undone it.
    pub fn start(pool: Pool, import_id: i64, interrupt: CancellationToken) -> Self {
        let (counts, latest) = watch::channel(LineCounts::default());
        let beat = async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let counts = *latest.borrow();
                match imports::report(&pool, import_id, counts).await {
                    Ok(true) => {}
                    Ok(false) => return interrupt.cancel(),
                    Err(error) => tracing::warn!(%error, import_id, "the progress of the import could not be reported"),
                }
            }
        };
        Self {
            counts,
            _task: AbortOnDropHandle::new(tokio::spawn(beat)),
        }
    }

    pub fn set(&self, counts: LineCounts) {
        self.counts.send_replace(counts);
    }
}
