//! Ranks items by popularity, for recipients of whom nothing more is known.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::ItemIndex;

/// Returns the `limit` items with the most raters among those that pass, ties by id; items without raters come last.
///
/// `candidates`: the only items that can pass; `None` if they are not known.
pub fn most_popular(
    snapshot: &Snapshot,
    limit: usize,
    candidates: Option<&[ItemIndex]>,
    passes: impl Fn(ItemIndex) -> bool,
) -> Vec<ItemIndex> {
    let take = |items: &[ItemIndex]| items.iter().copied().filter(|&item| passes(item)).take(limit).collect();
    match candidates {
        None => take(snapshot.popularity().items()),
        Some(candidates) => {
            let mut by_popularity = candidates.to_vec();
            by_popularity.sort_unstable_by_key(|&item| snapshot.popularity().rank(item));
            take(&by_popularity)
        }
    }
}
