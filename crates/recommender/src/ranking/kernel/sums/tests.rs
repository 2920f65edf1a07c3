use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ranking::testing::{Change, any_changes, any_parts, changed, interaction};
use crate::snapshot::SnapshotParts;
use crate::snapshot::fixture::{snapshot_parts, user_id, view};
use crate::snapshot::view::View;

/// Generates parts of four users and 600 items, so that sums fill several groups of runs and most of them stay 0.
fn sparse_parts() -> impl Strategy<Value = SnapshotParts> {
    let ratings = prop::collection::btree_map(0_usize..600, 1_u8..=5, 0..12);
    prop::collection::vec(ratings, 4).prop_map(|users| {
        let row = |ratings: BTreeMap<usize, u8>| {
            let mut row = vec![0.0; 600];
            for (item, rating) in ratings {
                row[item] = f32::from(rating);
            }
            row
        };
        let rows: Vec<Vec<f32>> = users.into_iter().map(row).collect();
        snapshot_parts(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
    })
}

const BASES: [Basis; 3] = [Basis::ItemBased, Basis::UserBased, Basis::Blended];

/// The plain reference of [`Scratch::add_up`]: both sums of every item by index, from the lists as they are stored, with
/// the same order of additions.
fn plain_sums(snapshot: &Snapshot, shopper: &Shopper, basis: Basis) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0); snapshot.items().len()];
    for (at, (by_items, by_users)) in sums.iter_mut().enumerate() {
        if basis.has_items() {
            let (neighbors, similarities) = snapshot.ranking_item_neighbors().row(at);
            for (rated, rating) in shopper.ratings() {
                if let Some(position) = neighbors.iter().position(|&neighbor| neighbor == rated.0) {
                    *by_items += f64::from(rating) * f64::from(similarities[position]);
                }
            }
        }
        if basis.has_users() {
            for (user, similarity) in shopper.neighbors() {
                if let Some(rating) = snapshot.ratings().get(user.at(), ItemIndex(at as u32)) {
                    *by_users += f64::from(similarity) * f64::from(rating);
                }
            }
        }
    }
    sums
}

/// The plain reference of [`Sums::maxima`].
fn plain_maxima(sums: &[(f64, f64)]) -> (f64, f64) {
    sums.iter().fold((0.0, 0.0), |(items, users), sums| {
        (sums.0.max(items), sums.1.max(users))
    })
}

/// The plain reference of [`Sums::top`]: a full sort.
fn plain_top(sums: &[(f64, f64)], limit: usize, factors: Factors, passes: impl Fn(ItemIndex) -> bool) -> Vec<Scored> {
    let mut scored: Vec<Scored> = (0..)
        .zip(sums)
        .map(|(item, sums)| Scored {
            score: factors.sides(sums.0, sums.1),
            item: ItemIndex(item),
        })
        .filter(|scored| scored.score > 0.0 && passes(scored.item))
        .collect();
    scored.sort();
    scored.truncate(limit);
    scored
}

fn by_index(sums: &Sums) -> Vec<(f64, f64)> {
    let sum = |item| {
        let rank = sums.popularity.rank(ItemIndex(item)) as usize;
        (sums.scratch.items[rank], sums.scratch.users[rank])
    };
    (0..sums.popularity.len() as u32).map(sum).collect()
}

fn check(
    view: &View,
    shopper: &Shopper,
    scratch: &mut Scratch,
    limit: usize,
    hidden: u32,
) -> Result<(), TestCaseError> {
    let passes = |item: ItemIndex| item.0 % 8 != hidden;
    for basis in BASES {
        let expected = plain_sums(&view.snapshot, shopper, basis);
        let sums = scratch.add_up(&view.snapshot, shopper, basis, None);
        prop_assert_eq!(by_index(&sums), expected.clone());
        prop_assert_eq!((sums.largest.items, sums.largest.users), plain_maxima(&expected));
        let factors = sums.factors(
            basis,
            &Blend {
                item_weight: view.snapshot.weights().ranking,
                trend: None,
                habit_weight: 0.0,
            },
        );
        prop_assert_eq!(
            sums.top(limit, factors, passes),
            plain_top(&expected, limit, factors, passes)
        );
        drop(sums);
        prop_assert!(scratch.is_clear());
    }
    Ok(())
}

proptest! {
    #[test]
    fn sums_maxima_and_the_best_agree_with_the_plain_reference(
        parts in prop_oneof![3 => any_parts(), 1 => sparse_parts()],
        changes in any_changes(),
        limit in 0_usize..9,
        hidden in 0_u32..9,
    ) {
        let change = |&(item, rating, orders): &Change| interaction("u0", &format!("i{item}"), rating, orders);
        let view = changed(view(parts), changes.iter().map(change));
        // All shoppers share one scratch: a sum that one leaves behind shows in the next.
        let mut scratch = Scratch::default();
        for user in 0..view.snapshot.users().len() as u32 {
            check(&view, &Shopper::of_index(&view, UserIndex(user)), &mut scratch, limit, hidden)?;
        }
        check(&view, &Shopper::of_user(&view, &user_id("u0")), &mut scratch, limit, hidden)?;
    }
}
