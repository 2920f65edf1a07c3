//! Breaks a score or a predicted rating down into its terms.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use similarity::lists::NeighborLists;

use super::shopper::Shopper;

/// The term of one item of the user's history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ItemContribution {
    pub item: ItemIndex,
    /// The similarity of this item to the explained one, in (0, 1].
    pub similarity: f64,
    /// The user's effective rating of it.
    pub rating: f64,
    pub contribution: f64,
}

/// The term of all similar users together: it tells how many there are, never who.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimilarUsers {
    /// The number of neighbors who have rated the item.
    pub users: u32,
    pub contribution: f64,
}

/// The term of how lately everybody orders the item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PopularLately {
    /// The trend factor; above 1 for an item that is ordered more lately than all items are.
    pub factor: f64,
    /// The amount that the factor adds to the terms of items and similar users; below 0 for a factor below 1.
    pub contribution: f64,
}

/// The term of the user's own orders of the item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OwnHabit {
    pub orders: u32,
    pub contribution: f64,
}

/// Returns the neighbors of `item` in the shopper's history, largest absolute contribution first, ties by index.
///
/// `lists`: the neighbors of every item. `contribution`: computes it from a neighbor, its similarity and its rating.
pub(crate) fn item_contributions(
    lists: &NeighborLists,
    shopper: &Shopper,
    item: ItemIndex,
    contribution: impl Fn(ItemIndex, f64, f64) -> f64,
) -> Vec<ItemContribution> {
    let (neighbors, similarities) = lists.row(item.at());
    let mut items: Vec<ItemContribution> = neighbors
        .iter()
        .zip(similarities)
        .filter_map(|(&neighbor, &similarity)| {
            let item = ItemIndex(neighbor);
            let (similarity, rating) = (f64::from(similarity), f64::from(shopper.rating(item)?));
            Some(ItemContribution {
                item,
                similarity,
                rating,
                contribution: contribution(item, similarity, rating),
            })
        })
        .collect();
    items.sort_unstable_by(|a, b| {
        let by_size = b.contribution.abs().total_cmp(&a.contribution.abs());
        by_size.then(a.item.cmp(&b.item))
    });
    items
}

/// Sums up the shopper's neighbors who have rated `item`; `None` if there are none.
///
/// `contribution`: computes it from a neighbor, their similarity and their rating.
pub(crate) fn similar_users(
    snapshot: &Snapshot,
    shopper: &Shopper,
    item: ItemIndex,
    contribution: impl Fn(UserIndex, f64, f64) -> f64,
) -> Option<SimilarUsers> {
    let mut similar = SimilarUsers {
        users: 0,
        contribution: 0.0,
    };
    for (user, similarity) in shopper.neighbors() {
        if let Some(rating) = snapshot.ratings().get(user.at(), item) {
            similar.users += 1;
            similar.contribution += contribution(user, f64::from(similarity), f64::from(rating));
        }
    }
    (similar.users > 0).then_some(similar)
}
