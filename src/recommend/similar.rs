//! Items that are liked by the same users.

use crate::model::dictionary::ItemIndex;
use crate::model::view::View;

use super::filter::{CompiledFilter, ItemFilter};

/// The `limit` nearest neighbors of `item` that pass, best first, with their cosine similarity, in (0, 1].
///
/// A snapshot keeps a fixed number of neighbors an item: no more than those are found, whatever the limit.
pub fn similar_items(view: &View, item: ItemIndex, limit: usize, filter: &ItemFilter) -> Vec<(ItemIndex, f64)> {
    let filter = CompiledFilter::new(filter, view);
    let (neighbors, similarities) = view.snapshot.item_neighbors().row(item.at());
    neighbors
        .iter()
        .zip(similarities)
        .map(|(&neighbor, &similarity)| (ItemIndex(neighbor), f64::from(similarity)))
        .filter(|&(neighbor, _)| filter.passes(neighbor))
        .take(limit)
        .collect()
}
