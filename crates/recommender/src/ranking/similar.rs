//! Finds items liked by the same users, and users who like the same items.

use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::view::View;
use domain::consent::Purpose;

use super::filter::{CompiledFilter, ItemFilter};

/// An item that is similar to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimilarItem {
    pub item: ItemIndex,
    /// The cosine similarity, in (0, 1], shrunk as training has fitted where it rests on few co-raters.
    pub similarity: f64,
    /// The number of users who have an effective rating of both items; `None` if the snapshot does not say.
    pub co_raters: Option<u32>,
}

/// Returns the `limit` nearest neighbors of `item` that pass, best first.
///
/// A snapshot keeps a fixed number of neighbors for each item, so that there may be fewer than `limit`.
pub fn similar_items(view: &View, item: ItemIndex, limit: usize, filter: &ItemFilter) -> Vec<SimilarItem> {
    let filter = CompiledFilter::new(filter, view);
    let lists = view.snapshot.ranking_item_neighbors();
    let (neighbors, similarities) = lists.row(item.at());
    let first = lists.offsets()[item.at()] as usize;
    let co_raters = view.snapshot.significant_item_neighbors().ok();
    let co_raters = co_raters.map(|significant| &significant.neighbors.co_raters[first..]);
    let similar = |(at, (&neighbor, &similarity)): (usize, (&u32, &f32))| SimilarItem {
        item: ItemIndex(neighbor),
        similarity: f64::from(similarity),
        co_raters: co_raters.map(|co_raters| co_raters[at]),
    };
    neighbors
        .iter()
        .zip(similarities)
        .enumerate()
        .map(similar)
        .filter(|similar| filter.passes(similar.item))
        .take(limit)
        .collect()
}

/// Returns the `limit` nearest neighbors of `user`, best first, with their cosine similarity, in (0, 1]. A user who objects to
/// profiling, or was erased, has no neighbors, and is nobody's neighbor.
pub fn similar_users(view: &View, user: UserIndex, limit: usize) -> Vec<(UserIndex, f64)> {
    let is_profiled = |user: UserIndex| !view.is_erased(user) && view.user_allows(user, Purpose::Profiling);
    if !is_profiled(user) {
        return Vec::new();
    }
    let (neighbors, similarities) = view.snapshot.user_neighbors().row(user.at());
    neighbors
        .iter()
        .zip(similarities)
        .map(|(&neighbor, &similarity)| (UserIndex(neighbor), f64::from(similarity)))
        .filter(|&(neighbor, _)| is_profiled(neighbor))
        .take(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{changed, facts_change, near};
    use super::*;
    use crate::snapshot::fixture::{EXAMPLE, item_id, snapshot_parts, user_id, view};
    use crate::snapshot::overlay::FreshChange;
    use crate::snapshot::parts::Optional;
    use crate::snapshot::significance::SignificantNeighbors;
    use domain::consent::Consents;
    use domain::item::ItemFacts;
    use similarity::lists::NeighborLists;
    use similarity::significance::SignificantLists;

    #[test]
    fn nearest_neighbors_that_pass_come_best_first() {
        let view = view(snapshot_parts(&EXAMPLE));
        let check = |view: &View, limit, filter: &ItemFilter, expected: &[(u32, f64)]| {
            let found = similar_items(view, ItemIndex(3), limit, filter);
            let items: Vec<u32> = found.iter().map(|similar| similar.item.0).collect();
            assert_eq!(items, expected.iter().map(|&(item, _)| item).collect::<Vec<_>>());
            for (similar, (_, expected)) in found.iter().zip(expected) {
                near(similar.similarity, *expected, 1e-6);
                assert_eq!(similar.co_raters, None);
            }
        };
        let all = [(4, 0.91287093), (0, 0.73029674), (1, 0.40824829), (2, 0.40824829)];
        let any = ItemFilter::default();
        check(&view, 9, &any, &all);
        check(&view, 2, &any, &all[..2]);
        check(&view, 0, &any, &[]);
        let few = ItemFilter {
            candidates: vec![item_id("i2"), item_id("i4")],
            ..ItemFilter::default()
        };
        check(&view, 9, &few, &[all[0], all[3]]);
        let delisted = ItemFacts {
            listed: false,
            ..ItemFacts::default()
        };
        let view = changed(view, [facts_change("i4", delisted)]);
        check(&view, 2, &any, &all[1..3]);
    }

    #[test]
    fn items_are_similar_by_the_lists_that_rank_with_their_co_raters() {
        let mut parts = snapshot_parts(&EXAMPLE);
        let lists = NeighborLists::new(5, vec![0, 0, 0, 0, 2, 2], vec![1, 0], vec![0.5, 0.25]).unwrap();
        parts.significant_item_neighbors = Optional::Present(SignificantNeighbors {
            shrinkage: 5.0,
            neighbors: SignificantLists {
                lists,
                co_raters: vec![7, 3],
            },
        });
        let found = similar_items(&view(parts), ItemIndex(3), 9, &ItemFilter::default());
        let expected = [(1, 0.5, Some(7)), (0, 0.25, Some(3))];
        let found: Vec<_> = found
            .iter()
            .map(|similar| (similar.item.0, similar.similarity, similar.co_raters))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_user_who_objects_to_profiling_has_no_neighbors_and_is_nobodys() {
        let trained = view(snapshot_parts(&EXAMPLE));
        let users = |view: &View, user: u32| -> Vec<u32> {
            let similar = similar_users(view, UserIndex(user), 9);
            similar.into_iter().map(|(user, _)| user.0).collect()
        };
        assert_eq!([users(&trained, 0), users(&trained, 1)], [vec![2, 1], vec![2, 0]]);
        let consents = Consents::default().with(Purpose::Profiling, Some(false));
        let user = user_id("u2");
        let view = changed(trained, [FreshChange::Consents { user, consents }]);
        assert_eq!(
            [users(&view, 0), users(&view, 1), users(&view, 2)],
            [vec![1], vec![0], vec![]]
        );
    }
}
