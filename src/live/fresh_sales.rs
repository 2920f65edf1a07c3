//! Reads what was sold of items that have changed since the snapshot was trained.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Days};
use imbl::HashMap;

use crate::store::error::StoreError;
use crate::store::sales::{self, FreshLine};
use crate::store::snapshots::changes::{self, Watermark};
use demand::history::{iso_week, monday_of};
use demand::returns::{RecordedLine, match_returns};

use super::Shared;

/// Items whose sales are read by one query.
const BATCH: usize = 5_000;

/// The sales of items that have changed, from the week on that the snapshot did not know whole.
#[derive(Debug, Clone, Default)]
pub struct FreshSales {
    /// The snapshot that they are newer than.
    version: i64,
    /// Everything that was committed up to here is in them; `None` before the first look.
    watermark: Option<Watermark>,
    /// Week, as `iso_week` counts it, and net units of each order line.
    items: HashMap<String, Arc<Vec<(i64, f32)>>>,
    last_week: Option<i64>,
}

impl FreshSales {
    /// Returns all lines of `item` from the first week on that the snapshot did not know whole; `None` for an item that has
    /// not changed.
    pub fn lines(&self, item: &str) -> Option<&[(i64, f32)]> {
        self.items.get(item).map(|lines| lines.as_slice())
    }

    /// Returns the last week in which any of the items was sold.
    pub fn last_week(&self) -> Option<i64> {
        self.last_week
    }
}

/// Reads the sales of items that have changed since the last look, or since the snapshot was trained.
pub(super) async fn refresh(shared: &Shared) -> Result<(), StoreError> {
    let begun = shared.loaded.lock().await.as_ref().map(|loaded| {
        let snapshot = &loaded.snapshot;
        (
            snapshot.bytes.version,
            snapshot.known.watermark.clone(),
            snapshot.snapshot.clone(),
        )
    });
    let Some((version, input_watermark, snapshot)) = begun else {
        return Ok(());
    };
    let Ok(model) = snapshot.demand() else {
        return Ok(());
    };
    let known = shared.fresh_sales.load_full();
    let mut fresh = match known.version == version {
        true => FreshSales::clone(&known),
        false => FreshSales {
            version,
            ..FreshSales::default()
        },
    };
    let since = fresh.watermark.take().unwrap_or(input_watermark);
    let (changed, watermark) = changes::items_since(&shared.pool, &since).await?;
    let from_week = model.first_week + model.origin as i64;
    let from = DateTime::UNIX_EPOCH + Days::new(monday_of(from_week).max(0) as u64);
    let by_default = shared.privacy.training_without_record;
    for batch in changed.chunks(BATCH) {
        let lines = sales::lines_since(&shared.pool, batch, from, by_default).await?;
        let mut found = net_lines(&lines);
        for item in batch {
            let lines = found.remove(item.as_str()).unwrap_or_default();
            let last = lines.iter().map(|line| line.0).max();
            fresh.last_week = fresh.last_week.max(last);
            // Bounded by the items of the catalog, and each by what was sold in a week or two.
            fresh.items.insert(item.clone(), Arc::new(lines));
        }
    }
    fresh.watermark = Some(watermark);
    shared.fresh_sales.store(Arc::new(fresh));
    Ok(())
}

/// Takes what came back off the lines that it belongs to, and returns what is left of each line by item.
fn net_lines(lines: &[FreshLine]) -> BTreeMap<&str, Vec<(i64, f32)>> {
    let mut by_item: BTreeMap<&str, Vec<RecordedLine>> = BTreeMap::new();
    for line in lines {
        by_item.entry(&line.item).or_default().push(line.recorded);
    }
    by_item
        .into_iter()
        .map(|(item, mut lines)| {
            let week_of = |line: &RecordedLine| iso_week(line.at.div_euclid(86_400));
            let first = lines.iter().map(week_of).min().unwrap_or(0);
            let (mut sales, returns) = match_returns(&mut lines, |line| u16::try_from(week_of(line) - first).ok());
            for returned in returns {
                sales[returned.sale].quantity -= returned.quantity;
            }
            let left = sales.into_iter().filter(|sale| sale.quantity > 0.0);
            (
                item,
                left.map(|sale| (first + i64::from(sale.week), sale.quantity)).collect(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returned_units_are_not_sold() {
        let line = |item: &str, day: i64, quantity: i32| FreshLine {
            item: item.to_owned(),
            recorded: RecordedLine {
                user: 1,
                item: 0,
                order: 1,
                at: day * 86_400,
                quantity,
            },
        };
        let lines = [
            line("a", 4, 5),
            line("a", 11, 3),
            line("a", 12, -2),
            line("b", 5, 1),
            line("b", 6, -1),
        ];
        let found = net_lines(&lines);
        assert_eq!(found["a"], [(1, 5.0), (2, 1.0)]);
        assert!(found["b"].is_empty());
    }
}
