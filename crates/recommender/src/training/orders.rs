//! Sums up orders by user and item, and by item.

use crate::snapshot::SnapshotParts;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::orders::{ItemOrders, Orders, decayed};
use crate::snapshot::parameters::ImplicitFeedback;
use crate::snapshot::parts::{Absence, Optional};
use domain::time::Timestamp;

use super::input::TrainingInput;

/// Sums are kept in this many binary places, so that they do not depend on the order of events.
const PLACES: f64 = (1_u64 << 32) as f64;

/// Returns the orders among the events that `keep` admits of which something is left after the returns among them, of the users
/// and items of a fitted model.
///
/// Ages count from the newest of these orders. There is nothing where purchases do not count as ratings, or none is kept.
///
/// `parts`: fitted on the same events.
pub fn orders(
    input: &TrainingInput,
    parts: &SnapshotParts,
    half_life_days: f64,
    keep: impl Fn(UserIndex, ItemIndex, Timestamp) -> bool,
) -> Optional<Orders> {
    let settled = input.settle(&keep);
    let kept = || {
        let orders = input.orders.iter().enumerate();
        let kept =
            orders.filter(|&(order, event)| settled.stands(order) && keep(event.user, event.item, event.ordered_at));
        kept.map(|(_, event)| event)
    };
    let newest_at = kept().map(|event| event.ordered_at.timestamp()).max();
    let (Some(newest_at), true) = (newest_at, parts.parameters.options.implicit != ImplicitFeedback::Off) else {
        return Optional::Missing(Absence::NotWritten);
    };
    let n = parts.items.len();
    let n_bought = parts.purchased.count_ones();
    let (mut counts, mut recent) = (vec![0_u32; n_bought], vec![0_u64; n_bought]);
    let (mut item_counts, mut item_recent) = (vec![0_u32; n], vec![0_u64; n]);
    let (offsets, entries) = bought_entries(parts);
    let rows: Vec<Option<UserIndex>> = input.users.texts().iter().map(|id| parts.users.find(id)).collect();
    for event in kept() {
        let weight = (decayed(event.ordered_at.timestamp(), newest_at, half_life_days) * PLACES).round() as u64;
        item_counts[event.item.at()] += 1;
        item_recent[event.item.at()] += weight;
        let Some(user) = rows[event.user.at()] else { continue };
        if let Some(position) = parts.ratings.row(user.at()).position(event.item) {
            let entry = entries[parts.ratings.row_range(user.at()).start + position] as usize;
            counts[entry] += 1;
            recent[entry] += weight;
        }
    }
    let float = |sums: Vec<u64>| sums.into_iter().map(|sum| (sum as f64 / PLACES) as f32).collect();
    let (buyers, repeat_buyers) = buyers(parts, &counts);
    Optional::Present(Orders {
        newest_at,
        half_life_days,
        offsets,
        counts,
        recent: float(recent),
        items: ItemOrders {
            orders: item_counts,
            recent: float(item_recent),
            buyers,
            repeat_buyers,
        },
    })
}

/// Returns where each user's purchased entries begin among all of them, and for each entry of the ratings how many purchased
/// ones come before it.
fn bought_entries(parts: &SnapshotParts) -> (Vec<u64>, Vec<u32>) {
    let mut entries = Vec::with_capacity(parts.ratings.nnz());
    let mut before = 0_u32;
    for at in 0..parts.ratings.nnz() {
        entries.push(before);
        before += u32::from(parts.purchased.get(at));
    }
    let starts = parts.ratings.offsets().iter();
    let offsets = starts.map(|&start| u64::from(entries.get(start as usize).copied().unwrap_or(before)));
    (offsets.collect(), entries)
}

/// Returns how many users have ordered each item, and how many at least twice. `counts`: by purchased entry.
fn buyers(parts: &SnapshotParts, counts: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let n = parts.items.len();
    let (mut buyers, mut repeat_buyers) = (vec![0; n], vec![0; n]);
    let ranks = parts.ratings.ranks();
    let bought = (0..parts.ratings.nnz()).filter(|&at| parts.purchased.get(at));
    for (at, &count) in bought.zip(counts) {
        let item = parts.ratings.popularity().item(ranks.get(at)).at();
        buyers[item] += u32::from(count >= 1);
        repeat_buyers[item] += u32::from(count >= 2);
    }
    (buyers, repeat_buyers)
}

#[cfg(test)]
mod tests {
    use super::super::fit::{ModelOptions, fit};
    use super::super::matrix::effective_ratings;
    use super::super::testing::{at, input, order, rating};
    use super::*;
    use crate::snapshot::Snapshot;
    use crate::snapshot::parameters::TrainingParameters;

    const DAY: u32 = 24;

    fn fitted(input: &TrainingInput, until: u32) -> (SnapshotParts, Optional<Orders>) {
        let parameters = TrainingParameters::default();
        let keep = |_, _, time| time < at(until);
        let effective = effective_ratings(input, &parameters, keep).unwrap();
        let parts = fit(input, effective, &ModelOptions::plain(&parameters), &|_| {}).unwrap();
        let orders = orders(input, &parts, 7.0, keep);
        (parts, orders)
    }

    #[test]
    fn orders_are_counted_and_fade() {
        // User 1 has nothing, so that users of the input and of the model differ.
        let events = [
            order(2, 1, 0),
            order(0, 0, 7 * DAY),
            order(0, 0, 14 * DAY),
            order(0, 1, 14 * DAY),
            order(2, 1, 99 * DAY),
        ];
        let input = input(3, 3, &[rating(0, 2, 4.0, 1), rating(2, 0, 3.0, 1)], &events);
        let (parts, found) = fitted(&input, 20 * DAY);
        let found = found.get().unwrap().clone();
        assert_eq!(found.newest_at, at(14 * DAY).timestamp());
        // Items 0 and 1 have two raters each, item 2 has one: user 0 has bought 0 and 1, user 2 item 1.
        assert_eq!(
            (&found.offsets[..], &found.counts[..]),
            (&[0, 2, 3][..], &[2, 1, 1][..])
        );
        assert_eq!(found.recent, [1.5, 1.0, 0.25]);
        let items = &found.items;
        assert_eq!(
            (&items.orders[..], &items.recent[..]),
            (&[2, 2, 0][..], &[1.5, 1.25, 0.0][..])
        );
        assert_eq!(
            (&items.buyers[..], &items.repeat_buyers[..]),
            (&[1, 2, 0][..], &[1, 0, 0][..])
        );
        let snapshot = Snapshot::new(SnapshotParts {
            orders: Optional::Present(found),
            ..parts
        });
        assert_eq!(snapshot.unwrap().order_counts(UserIndex(0)), [2, 1]);
    }

    #[test]
    fn the_order_of_events_changes_no_byte() {
        let events: Vec<_> = (0..200_u32)
            .map(|event| order(event % 5, event % 7, event * 13 % 997))
            .collect();
        let backwards: Vec<_> = events.iter().rev().copied().collect();
        let fitted = |events: &[_]| fitted(&input(5, 7, &[], events), 1_000).1;
        assert_eq!(fitted(&events), fitted(&backwards));
    }

    #[test]
    fn there_is_nothing_without_orders() {
        let without = fitted(&input(2, 2, &[rating(0, 0, 3.0, 1)], &[order(0, 0, 99)]), 50).1;
        assert_eq!(without.get(), Err(Absence::NotWritten));
    }
}
