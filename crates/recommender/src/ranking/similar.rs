//! Finds items liked by the same users, and users who like the same items.

use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::view::View;
use domain::consent::Purpose;

use super::filter::{CompiledFilter, ItemFilter};

/// Returns the `limit` nearest neighbors of `item` that pass, best first, with their cosine similarity, in (0, 1].
///
/// A snapshot keeps a fixed number of neighbors for each item, so that there may be fewer than `limit`.
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

/// Returns the `limit` nearest neighbors of `user`, best first, with their cosine similarity, in (0, 1]. A user who objects to
/// profiling has no neighbors, and is nobody's neighbor.
pub fn similar_users(view: &View, user: UserIndex, limit: usize) -> Vec<(UserIndex, f64)> {
    let is_profiled = |user: UserIndex| view.user_allows(user, Purpose::Profiling);
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
    use domain::consent::Consents;
    use domain::item::ItemFacts;

    #[test]
    fn nearest_neighbors_that_pass_come_best_first() {
        let view = view(snapshot_parts(&EXAMPLE));
        let check = |view: &View, limit, filter: &ItemFilter, expected: &[(u32, f64)]| {
            let found = similar_items(view, ItemIndex(3), limit, filter);
            let items: Vec<u32> = found.iter().map(|(item, _)| item.0).collect();
            assert_eq!(items, expected.iter().map(|&(item, _)| item).collect::<Vec<_>>());
            for ((_, similarity), (_, expected)) in found.iter().zip(expected) {
                near(*similarity, *expected, 1e-6);
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
