//! Keeps the campaigns and coupons in memory up to date.

use std::sync::Arc;

use crate::store::coupons::{offer_catalog, revision};
use crate::store::error::StoreError;

use super::Shared;

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
