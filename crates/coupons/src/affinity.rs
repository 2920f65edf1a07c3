//! How much users like what a coupon covers.
//!
//! The affinity of a user to a set of items is the item-based ranking score summed over the set:
//! Σ_i Σ_{j ∈ N(i) ∩ history} sim(i, j)·R(j), which is Σ_{j ∈ history} R(j)·w_j with the weight w_j = Σ_i sim(i, j) over
//! those i of the set that have j in their own list. Weights and users are gone through in a fixed order, so that one
//! user's affinity has the same bits whether it is computed alone or with all others.

use rayon::prelude::*;

use domain::coupon::Scope;
use recommender::snapshot::Snapshot;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::catalog::{Catalog, Facts};
use recommender::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use similarity::lists::InvertedLists;
use similarity::sparse::CsrMatrix;

use super::offer_catalog::Offer;

/// Users of one task.
const USERS_PER_TASK: usize = 1_024;

/// Whether `offer` covers an item with these facts: of a merchant's campaign never anything but that merchant's items.
pub fn covers(offer: &Offer, item_id: &str, facts: Option<&Facts<'_>>) -> bool {
    let merchant = facts.and_then(|facts| facts.merchant);
    let is_own = offer.merchant().is_none_or(|own| merchant == Some(own));
    is_own
        && match &offer.coupon.scope {
            Scope::All => true,
            Scope::Listed(set) => set.contains(item_id, facts.and_then(|facts| facts.category), merchant),
        }
}

/// The items of `snapshot` that `offer` covers, by the facts that the snapshot has of them: one bit for each of n items.
pub fn covered(snapshot: &Snapshot, offer: &Offer) -> Bits {
    let items = (0..snapshot.items().len() as u32).map(ItemIndex);
    items.map(|item| is_covered(snapshot, offer, item)).collect()
}

/// The items that any of `offers` covers, ascending, each once.
pub fn covered_by_any<'a>(
    items: &Dictionary<ItemIndex>,
    catalog: &Catalog,
    offers: impl IntoIterator<Item = &'a Offer>,
) -> Vec<ItemIndex> {
    let mut covered = Bits::zeros(items.len());
    let mut cover = |offer: &Offer, item: ItemIndex| {
        if covers(offer, items.id(item), Some(&catalog.facts(item))) {
            covered.set(item.at(), true);
        }
    };
    for offer in offers {
        match &offer.coupon.scope {
            // Thousands of coupons that name a few items each: not all items are asked each time.
            Scope::Listed(set) if set.categories.is_empty() && set.merchants.is_empty() => {
                let named = set.items.iter().filter_map(|item| items.find(item.as_str()));
                named.for_each(|item| cover(offer, item));
            }
            Scope::All | Scope::Listed(_) => {
                (0..items.len() as u32).for_each(|item| cover(offer, ItemIndex(item)));
            }
        }
    }
    let all = (0..items.len() as u32).map(ItemIndex);
    all.filter(|item| covered.get(item.at())).collect()
}

/// w_j of `item`: what a rating of it says about the items that `is_covered` names.
pub fn weight(snapshot: &Snapshot, is_covered: impl Fn(ItemIndex) -> bool, item: ItemIndex) -> f64 {
    let (reverse_neighbors, similarities) = snapshot.reverse_item_neighbors().row(item);
    let reverse_neighbors =
        (0..reverse_neighbors.len()).map(|at| snapshot.popularity().item(reverse_neighbors.get(at)));
    weight_of(reverse_neighbors.zip(similarities), is_covered)
}

/// w_j of every item j by lists of any model, in parallel. `reverse_neighbors`: of n items; `covered`: one bit for each of them.
pub fn list_weights(reverse_neighbors: &InvertedLists, covered: &Bits) -> Vec<f64> {
    let items = (0..reverse_neighbors.n_rows() as u32).into_par_iter();
    let weight = |item| {
        let (reverse_neighbors, similarities) = reverse_neighbors.row(item as usize);
        let reverse_neighbors = reverse_neighbors.iter().map(|&follower| ItemIndex(follower));
        weight_of(reverse_neighbors.zip(similarities), |item| covered.get(item.at()))
    };
    items.map(weight).collect()
}

/// w_j of every item j when every pair of items counts, not only those that the lists keep: Σ_i cosine(i, j) over the
/// covered i ≠ j. `ratings`: effective, [users, n]; `covered`: one bit for each of n. Time O(entries): no pair is formed,
/// for Σ_i R_i·R_j / (|R_i|·|R_j|) = R_j·(Σ_i R_i / |R_i|) / |R_j|.
pub fn all_pairs_weights(ratings: &CsrMatrix, covered: &Bits) -> Vec<f64> {
    let mut squares = vec![0.0; ratings.n_columns()];
    for (&item, &rating) in ratings.columns().iter().zip(ratings.values()) {
        squares[item as usize] += f64::from(rating) * f64::from(rating);
    }
    let mut weights = vec![0.0; ratings.n_columns()];
    for user in 0..ratings.n_rows() {
        let (items, values) = ratings.row(user);
        let row = || {
            items
                .iter()
                .zip(values)
                .map(|(&item, &rating)| (item as usize, f64::from(rating)))
        };
        let of_covered = row().filter(|&(item, _)| covered.get(item));
        let direction = sum(of_covered.map(|(item, rating)| rating / squares[item].sqrt()));
        if direction > 0.0 {
            row().for_each(|(item, rating)| weights[item] += rating * direction);
        }
    }
    for (item, weight) in weights.iter_mut().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let own = f64::from(u8::from(covered.get(item)));
        *weight = (*weight / squares[item].sqrt() - own).max(0.0);
    }
    weights
}

/// Σ_j R\[j\]·w_j over a history.
pub fn weigh(history: impl Iterator<Item = (u32, f32)>, weights: &[f64]) -> f64 {
    sum(history.map(|(item, rating)| f64::from(rating) * weights[item as usize]))
}

/// `reverse_neighbors`: items that have one in their list, and their similarities to it.
fn weight_of<'a>(
    reverse_neighbors: impl Iterator<Item = (ItemIndex, &'a f32)>,
    is_covered: impl Fn(ItemIndex) -> bool,
) -> f64 {
    let of_covered = reverse_neighbors.filter(|&(follower, _)| is_covered(follower));
    sum(of_covered.map(|(_, &similarity)| f64::from(similarity)))
}

/// The affinity of `user`, as the snapshot knows them, to the items that `is_covered` names; 0 or more.
///
/// Source: ARCHITECTURE.md, "Affinity".
pub fn affinity_of(snapshot: &Snapshot, is_covered: impl Fn(ItemIndex) -> bool, user: UserIndex) -> f64 {
    let terms = terms(snapshot, user, |item| weight(snapshot, &is_covered, item));
    sum(terms.map(|term| term.contribution))
}

/// Whether `offer` covers an item of `snapshot`, by the facts that the snapshot has of it.
pub fn is_covered(snapshot: &Snapshot, offer: &Offer, item: ItemIndex) -> bool {
    covers(offer, snapshot.items().id(item), Some(&snapshot.catalog().facts(item)))
}

/// w_j of all n items, in parallel.
pub fn weights(snapshot: &Snapshot, covered: &Bits) -> Vec<f64> {
    let items = (0..snapshot.items().len() as u32).into_par_iter();
    items
        .map(|item| weight(snapshot, |item| covered.get(item.at()), ItemIndex(item)))
        .collect()
}

/// As [`affinity_of`], with the [`weights`] of what is covered.
pub fn weighted_affinity(snapshot: &Snapshot, weights: &[f64], user: UserIndex) -> f64 {
    let history = snapshot.ratings().row(user.at()).iter();
    weigh(history.map(|(item, rating)| (item.0, rating)), weights)
}

/// The affinities of all m users, in parallel.
pub fn affinities(snapshot: &Snapshot, covered: &Bits) -> Vec<f64> {
    let weights = weights(snapshot, covered);
    (0..snapshot.users().len() as u32)
        .into_par_iter()
        .with_min_len(USERS_PER_TASK)
        .map(|user| weighted_affinity(snapshot, &weights, UserIndex(user)))
        .collect()
}

/// The part of an affinity that one item of the history brings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffinityTerm {
    pub item: ItemIndex,
    /// The user's effective rating of it.
    pub rating: f64,
    /// Above 0.
    pub contribution: f64,
}

/// What the affinity of `user` is made of; sums to it. Largest contribution first, ties by item.
pub fn explain(snapshot: &Snapshot, covered: &Bits, user: UserIndex) -> Vec<AffinityTerm> {
    let mut all: Vec<AffinityTerm> = terms(snapshot, user, |item| {
        weight(snapshot, |item| covered.get(item.at()), item)
    })
    .filter(|term| term.contribution > 0.0)
    .collect();
    all.sort_unstable_by(|a, b| b.contribution.total_cmp(&a.contribution).then(a.item.cmp(&b.item)));
    all
}

/// From +0 on: the sum of nothing would be −0, which ranks below +0.
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.fold(0.0, |sum, term| sum + term)
}

/// The most popular item first.
fn terms(
    snapshot: &Snapshot,
    user: UserIndex,
    weight: impl Fn(ItemIndex) -> f64,
) -> impl Iterator<Item = AffinityTerm> {
    snapshot.ratings().row(user.at()).iter().map(move |(item, rating)| {
        let rating = f64::from(rating);
        AffinityTerm {
            item,
            rating,
            contribution: rating * weight(item),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{campaign, coupon, listed};
    use super::*;
    use domain::coupon::{Coupon, ItemSet};
    use domain::id::{Category, MerchantId};
    use recommender::snapshot::fixture::{self, EXAMPLE};

    fn offer(items: &[&str]) -> Offer {
        of_scope(None, listed(items))
    }

    fn of_scope(merchant: Option<&str>, scope: Scope) -> Offer {
        let mut campaign = campaign("k");
        campaign.merchant = merchant.map(|id| MerchantId::new(id).unwrap());
        Offer {
            coupon: Coupon { scope, ..coupon("c") },
            campaign: Arc::new(campaign),
        }
    }

    /// Σ_i Σ_j by the definition.
    fn plain(snapshot: &Snapshot, items: &[u32], user: usize) -> f64 {
        let mut sum = 0.0;
        for &item in items {
            let (neighbors, similarities) = snapshot.item_neighbors().row(item as usize);
            for (&neighbor, &similarity) in neighbors.iter().zip(similarities) {
                let rating = snapshot.ratings().get(user, ItemIndex(neighbor)).unwrap_or(0.0);
                sum += f64::from(similarity) * f64::from(rating);
            }
        }
        sum
    }

    #[test]
    fn it_is_the_ranking_score_summed_over_the_items() {
        let snapshot = fixture::snapshot(&EXAMPLE);
        let check = |ids: &[&str], items: &[u32]| {
            let covered = covered(&snapshot, &offer(ids));
            let all = affinities(&snapshot, &covered);
            for (user, &affinity) in all.iter().enumerate() {
                let index = UserIndex(user as u32);
                assert!(affinity.is_sign_positive(), "−0 ranks below +0");
                assert!(
                    (affinity - plain(&snapshot, items, user)).abs() < 1e-12,
                    "{ids:?} {user}"
                );
                let alone = affinity_of(&snapshot, |item| is_covered(&snapshot, &offer(ids), item), index);
                assert_eq!(alone.to_bits(), affinity.to_bits());
                let terms = explain(&snapshot, &covered, index);
                let sum: f64 = terms.iter().map(|term| term.contribution).sum();
                assert!((sum - affinity).abs() < 1e-12);
                assert!(terms.is_sorted_by(|a, b| a.contribution >= b.contribution));
            }
        };
        check(&[], &[]);
        check(&["i3"], &[3]);
        check(&["i0", "i2", "i4", "unknown"], &[0, 2, 4]);
        check(&["i0", "i1", "i2", "i3", "i4"], &[0, 1, 2, 3, 4]);
    }

    #[test]
    fn all_pairs_are_those_of_lists_that_keep_everything() {
        let snapshot = fixture::snapshot(&EXAMPLE);
        for bits in 0_u8..32 {
            let covered: Bits = (0..5).map(|item| bits >> item & 1 == 1).collect();
            let kept = weights(&snapshot, &covered);
            let all = all_pairs_weights(&fixture::matrix(snapshot.ratings()), &covered);
            assert!(
                kept.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-6),
                "{kept:?} {all:?}"
            );
        }
    }

    #[test]
    fn items_covered_by_any_are_those_that_one_covers() {
        let facts = [("mugs", "acme"), ("mugs", "zeta"), ("art", "acme"), ("art", "zeta")];
        let facts = facts.map(|(category, merchant)| fixture::item_facts("", category, merchant));
        let mut parts = fixture::snapshot_parts(&[&[1.0, 1.0, 1.0, 1.0]]);
        parts.catalog = fixture::catalog(&facts);
        let snapshot = Snapshot::new(parts).unwrap();
        let check = |scopes: Vec<(Option<&str>, Scope)>, expected: &[u32]| {
            let offers: Vec<Offer> = scopes
                .into_iter()
                .map(|(merchant, scope)| of_scope(merchant, scope))
                .collect();
            let found = covered_by_any(snapshot.items(), snapshot.catalog(), &offers);
            assert_eq!(found, expected.iter().copied().map(ItemIndex).collect::<Vec<_>>());
            let items = (0..4).map(ItemIndex);
            let by_each = items.filter(|&item| offers.iter().any(|offer| is_covered(&snapshot, offer, item)));
            assert_eq!(found, by_each.collect::<Vec<_>>());
        };
        let mugs = || {
            Scope::Listed(ItemSet {
                categories: vec![Category::new("mugs").unwrap()],
                ..ItemSet::default()
            })
        };
        check(vec![], &[]);
        check(
            vec![(None, listed(&["i3", "unknown"])), (None, listed(&["i1", "i3"]))],
            &[1, 3],
        );
        check(vec![(Some("acme"), listed(&["i1", "i2"]))], &[2]);
        check(vec![(None, mugs()), (None, listed(&["i2"]))], &[0, 1, 2]);
        check(vec![(Some("zeta"), mugs())], &[1]);
        check(vec![(Some("zeta"), Scope::All)], &[1, 3]);
    }
}
