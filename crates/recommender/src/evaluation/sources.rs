//! Finds sources: groups of users and items that hardly share anything, such as two shops in one database.

use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::training::input::TrainingInput;

use super::split::events;

/// An item belongs to the source of a more popular one if its users' most popular item is that one in at least this share of
/// its events. A few users of two sources, such as those of their operator, do not make them one.
const MIN_SHARED: f64 = 0.01;

/// The source of every user and every item. A source is named by the most popular of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources {
    /// Per user; `None` without events.
    pub of_users: Vec<Option<ItemIndex>>,
    /// Per item; an item without events is a source of its own.
    pub of_items: Vec<ItemIndex>,
}

impl Sources {
    /// Groups the users and items of `input` by its ratings and orders.
    ///
    /// Popularity is the number of events; equals are ordered by index. Every item is linked to one more popular item: the one
    /// that is the most popular item of its users in most of its events, if that is at least a hundredth of them. The links form
    /// trees, which are the sources. A user belongs to the source of their most popular item.
    pub fn of(input: &TrainingInput) -> Self {
        let mut counts = vec![0_u32; input.items.len()];
        for (_, item, _) in events(input) {
            counts[item.at()] += 1;
        }
        let mut by_popularity: Vec<ItemIndex> = (0..input.items.len() as u32).map(ItemIndex).collect();
        by_popularity.sort_by_key(|item| std::cmp::Reverse(counts[item.at()]));
        let mut ranks = vec![0_u32; input.items.len()];
        for (rank, item) in by_popularity.iter().enumerate() {
            ranks[item.at()] = rank as u32;
        }
        let mut tops: Vec<Option<u32>> = vec![None; input.users.len()];
        for (user, item, _) in events(input) {
            let rank = ranks[item.at()];
            let top = tops[user.at()].get_or_insert(rank);
            *top = rank.min(*top);
        }
        let links = links(input, &ranks, &tops);
        let mut roots: Vec<u32> = (0..ranks.len() as u32).collect();
        // A link leads to a lower rank, whose root is known by then.
        for (rank, link) in links.into_iter().enumerate() {
            if let Some(link) = link {
                roots[rank] = roots[link as usize];
            }
        }
        let source = |rank: u32| by_popularity[roots[rank as usize] as usize];
        Self {
            of_users: tops.into_iter().map(|top| top.map(source)).collect(),
            of_items: ranks.into_iter().map(source).collect(),
        }
    }
}

/// Returns for every rank of an item the lower rank that it is linked to.
///
/// `ranks`: per item, its place by popularity. `tops`: per user, the rank of their most popular item.
fn links(input: &TrainingInput, ranks: &[u32], tops: &[Option<u32>]) -> Vec<Option<u32>> {
    let top = |user: UserIndex| tops[user.at()].unwrap_or_default();
    let mut ends = vec![0_usize; ranks.len() + 1];
    for (_, item, _) in events(input) {
        ends[ranks[item.at()] as usize + 1] += 1;
    }
    for rank in 0..ranks.len() {
        ends[rank + 1] += ends[rank];
    }
    let starts = ends.clone();
    let mut tops_of_events = vec![0_u32; ends[ranks.len()]];
    for (user, item, _) in events(input) {
        let end = &mut ends[ranks[item.at()] as usize];
        tops_of_events[*end] = top(user);
        *end += 1;
    }
    let link = |rank: usize| {
        let tops = &mut tops_of_events[starts[rank]..starts[rank + 1]];
        tops.sort_unstable();
        let others = tops.chunk_by(|a, b| a == b).filter(|run| run[0] as usize != rank);
        // The most popular of equals wins.
        let most = others.rev().max_by_key(|run| run.len())?;
        (most.len() as f64 >= MIN_SHARED * tops.len() as f64).then_some(most[0])
    };
    (0..ranks.len()).map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::input::OrderEvent;
    use crate::training::testing::{input, order};

    /// Returns two shops of 1,000 users each. Half of the users of a shop have its first item and one other, the other half have
    /// two neighboring ones of the other nine.
    fn two_shops() -> Vec<OrderEvent> {
        let orders = (0..2_000).flat_map(|user| {
            let other = |nth| 1 + (user / 2 + nth) % 9;
            let first = if user % 2 == 0 { 0 } else { other(1) };
            [first, other(0)].map(|item| order(user, 10 * (user / 1_000) + item, user))
        });
        orders.collect()
    }

    fn check(orders: &[OrderEvent], n_users: usize, expected: &[(u32, u32)]) {
        let sources = Sources::of(&input(n_users, 21, &[], orders));
        for &(user, source) in expected {
            assert_eq!(sources.of_users[user as usize], Some(ItemIndex(source)), "user {user}");
        }
        for item in 0..20 {
            assert_eq!(
                sources.of_items[item],
                ItemIndex(10 * (item as u32 / 10)),
                "item {item}"
            );
        }
    }

    #[test]
    fn shops_without_common_users_are_sources() {
        check(
            &two_shops(),
            2_000,
            &[(0, 0), (5, 0), (999, 0), (1_000, 10), (1_999, 10)],
        );
    }

    #[test]
    fn a_few_common_users_do_not_make_two_shops_one() {
        let mut orders = two_shops();
        // These two have everything of both shops; of equally popular items theirs is that of the first shop.
        orders.extend((2_000..2_002).flat_map(|user| (0..20).map(move |item| order(user, item, user))));
        check(&orders, 2_002, &[(0, 0), (1_000, 10), (2_000, 0), (2_001, 0)]);
    }

    #[test]
    fn many_common_users_make_two_shops_one() {
        let mut orders = two_shops();
        orders.extend((2_000..2_040).flat_map(|user| (0..20).map(move |item| order(user, item, user))));
        let sources = Sources::of(&input(2_040, 20, &[], &orders));
        assert!(sources.of_users.iter().all(|source| *source == Some(ItemIndex(0))));
        assert!(sources.of_items.iter().all(|source| *source == ItemIndex(0)));
    }

    #[test]
    fn what_nobody_has_is_a_source_of_its_own() {
        let sources = Sources::of(&input(2, 3, &[], &[order(0, 1, 5)]));
        assert_eq!(sources.of_users, [Some(ItemIndex(1)), None]);
        assert_eq!(sources.of_items, [0, 1, 2].map(ItemIndex));
    }
}
