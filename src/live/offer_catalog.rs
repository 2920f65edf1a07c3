//! The loop that keeps the campaigns and coupons in memory up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::coupons::{offer_catalog, revision};
use crate::store::error::StoreError;

use super::{ROW_LIMIT, Shared, StepError, supervised, within};

#[derive(Debug, thiserror::Error)]
enum OfferCatalogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Looks once an interval.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(Duration::from_millis(shared.options.refresh_interval_ms));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_reported = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        let look = async { Ok(refresh(&shared).await?) };
        let result = within::<(), OfferCatalogError>(ROW_LIMIT, supervised(look)).await;
        match &result {
            Ok(()) => is_reported = false,
            // The refresh loop reports that the database is away.
            Err(OfferCatalogError::Store(error)) if error.retry_after().is_some() => {}
            Err(error) if !is_reported => {
                tracing::error!(error = %super::chain(error), "campaigns and coupons cannot be read; serving those read so far");
                is_reported = true;
            }
            Err(_) => {}
        }
    }
}

/// Reads the offer catalog if its revision has moved.
pub(super) async fn refresh(shared: &Shared) -> Result<(), StoreError> {
    let mut known = shared.offer_catalog_revision.lock().await;
    if *known == Some(revision::read(&shared.pool).await?) {
        return Ok(());
    }
    let (offer_catalog, revision) = offer_catalog::read(&shared.pool).await?;
    shared.offer_catalog.store(Arc::new(offer_catalog));
    *known = Some(revision);
    Ok(())
}
