//! Keeps the stock of items and the policies of replenishment in memory up to date.

use std::sync::Arc;

use imbl::HashMap;

use crate::store::error::StoreError;
use crate::store::inventory::{self, CountedStock};
use crate::store::snapshots::changes::{self, Watermark};
use demand::inventory::Policies;

use super::Shared;

/// Items whose stock is read by one query.
const BATCH: usize = 5_000;

/// The latest counts and all policies.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The snapshot that was served at the last look. With each new one everything is read anew, because the trainer may have
    /// deleted changes from before it.
    version: Option<i64>,
    /// Everything that was committed up to here is in the counts; `None` before the first look.
    watermark: Option<Watermark>,
    stock: HashMap<String, Arc<CountedStock>>,
    policies: Arc<Policies>,
    /// The revision of the policies; `None` before the first look.
    revision: Option<i64>,
}

impl Inventory {
    /// Returns the latest count of every item that has one, in no order.
    pub fn stock(&self) -> impl Iterator<Item = (&str, &CountedStock)> {
        self.stock
            .iter()
            .map(|(item, counted)| (item.as_str(), counted.as_ref()))
    }

    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Whether anything was read yet.
    pub fn is_loaded(&self) -> bool {
        self.watermark.is_some() && self.revision.is_some()
    }
}

/// Reads what has changed since the last look: all of it at the first.
pub(super) async fn refresh(shared: &Shared) -> Result<(), StoreError> {
    let _one_at_a_time = shared.reading_inventory.lock().await;
    let mut inventory = Inventory::clone(&shared.inventory.load());
    let version = shared.status.load().snapshot_version;
    if inventory.version != version {
        inventory.watermark = None;
        inventory.version = version;
    }
    match inventory.watermark.take() {
        None => {
            let (stock, watermark) = inventory::read_stock(&shared.pool).await?;
            inventory.stock = stock.into_iter().map(entry).collect();
            inventory.watermark = Some(watermark);
        }
        Some(watermark) => {
            let (changed, watermark) = changes::items_since(&shared.pool, &watermark).await?;
            for batch in changed.chunks(BATCH) {
                let stock = inventory::stock_of(&shared.pool, batch).await?;
                inventory.stock.extend(stock.into_iter().map(entry));
            }
            inventory.watermark = Some(watermark);
        }
    }
    if inventory.revision != Some(inventory::policy_revision(&shared.pool).await?) {
        let (policies, revision) = inventory::read_policies(&shared.pool).await?;
        inventory.policies = Arc::new(Policies::new(policies));
        inventory.revision = Some(revision);
    }
    shared.inventory.store(Arc::new(inventory));
    Ok(())
}

fn entry(counted: CountedStock) -> (String, Arc<CountedStock>) {
    (counted.position.item.to_string(), Arc::new(counted))
}
