//! The loop of whatever is read once an interval beside ratings and snapshots.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;

use super::{ROW_LIMIT, Shared, StepError, chain, supervised, within};

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Calls `look` once an interval, until `shutdown`. A failure is logged as `failure` once, until a look succeeds.
pub(super) async fn run(
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    failure: &'static str,
    look: impl AsyncFn(&Shared) -> Result<(), StoreError>,
) {
    let mut interval = tokio::time::interval(Duration::from_millis(shared.options.refresh_interval_ms));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_reported = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        let step = async { Ok(look(&shared).await?) };
        let result = within::<(), LookError>(ROW_LIMIT, supervised(step)).await;
        match &result {
            Ok(()) => is_reported = false,
            Err(LookError::Store(error)) if error.is_reported_elsewhere() => {}
            Err(error) if !is_reported => {
                tracing::error!(error = %chain(error), "{failure}");
                is_reported = true;
            }
            Err(_) => {}
        }
    }
}
