//! The affinity of users to the items that a coupon covers.
//!
//! The affinity of a user to a set of items is the item-based ranking score summed over the set:
//! Σ_i Σ_{j ∈ N(i) ∩ history} sim(i, j)·R(j). This equals Σ_{j ∈ history} R(j)·w_j with the *weight*
//! w_j = Σ_i sim(i, j) over those i of the set that have j in their list N(i). Sums take items in a fixed order, so that a
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

/// The number of users that one task computes.
const USERS_PER_TASK: usize = 1_024;

/// Returns whether `offer` covers an item with these facts. A merchant's campaign covers only that merchant's items.
pub fn covers(offer: &Offer, item_id: &str, facts: Option<&Facts<'_>>) -> bool {
    let merchant = facts.and_then(|facts| facts.merchant);
    let is_own = offer.merchant().is_none_or(|own| merchant == Some(own));
    is_own
        && match &offer.coupon.scope {
            Scope::All => true,
            Scope::Listed(set) => set.contains(item_id, facts.and_then(|facts| facts.category), merchant),
        }
}

/// Returns the items of `snapshot` that `offer` covers, by the facts in the snapshot: one bit for each of n items.
pub fn covered(snapshot: &Snapshot, offer: &Offer) -> Bits {
    let items = (0..snapshot.items().len() as u32).map(ItemIndex);
    items.map(|item| is_covered(snapshot, offer, item)).collect()
}

/// Returns the items that any of `offers` covers, strictly ascending.
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
            // Thousands of coupons may name a few items each. Looking those up is faster than checking all items each time.
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

/// Returns the weight w_j of `item` for the items that `is_covered` selects.
pub fn weight(snapshot: &Snapshot, is_covered: impl Fn(ItemIndex) -> bool, item: ItemIndex) -> f64 {
    let (reverse_neighbors, similarities) = snapshot.reverse_item_neighbors().row(item);
    let reverse_neighbors =
        (0..reverse_neighbors.len()).map(|at| snapshot.popularity().item(reverse_neighbors.get(at)));
    weight_of(reverse_neighbors.zip(similarities), is_covered)
}

/// Returns the weight w_j of every item j by the lists of any model, computed in parallel.
///
/// `reverse_neighbors`: the inverted lists of n items. `covered`: one bit for each of n items.
pub fn list_weights(reverse_neighbors: &InvertedLists, covered: &Bits) -> Vec<f64> {
    let items = (0..reverse_neighbors.n_rows() as u32).into_par_iter();
    let weight = |item| {
        let (reverse_neighbors, similarities) = reverse_neighbors.row(item as usize);
        let reverse_neighbors = reverse_neighbors.iter().map(|&neighbor| ItemIndex(neighbor));
        weight_of(reverse_neighbors.zip(similarities), |item| covered.get(item.at()))
    };
    items.map(weight).collect()
}

/// Returns the weight w_j of every item j if every pair of items counts, not only those that the lists keep:
/// Σ_i cosine(i, j) over the covered i ≠ j.
///
/// `ratings`: effective, [users, n]. `covered`: one bit for each of n items. Takes time O(entries), because it forms no
/// pairs: Σ_i R_i·R_j / (|R_i|·|R_j|) = R_j·(Σ_i R_i / |R_i|) / |R_j|.
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
        let covered_entries = row().filter(|&(item, _)| covered.get(item));
        let direction = sum(covered_entries.map(|(item, rating)| rating / squares[item].sqrt()));
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

/// Returns Σ_j R\[j\]·w_j over a history of items j with their ratings.
pub fn weigh(history: impl Iterator<Item = (u32, f32)>, weights: &[f64]) -> f64 {
    sum(history.map(|(item, rating)| f64::from(rating) * weights[item as usize]))
}

/// Returns the weight of an item. `reverse_neighbors`: the items that have it in their list, and their similarities to it.
fn weight_of<'a>(
    reverse_neighbors: impl Iterator<Item = (ItemIndex, &'a f32)>,
    is_covered: impl Fn(ItemIndex) -> bool,
) -> f64 {
    let covered = reverse_neighbors.filter(|&(neighbor, _)| is_covered(neighbor));
    sum(covered.map(|(_, &similarity)| f64::from(similarity)))
}

/// Returns the affinity of `user`, 0 or more, to the items that `is_covered` selects, from the snapshot alone.
///
/// Source: docs/formulas.md, "Affinity".
pub fn affinity_of(snapshot: &Snapshot, is_covered: impl Fn(ItemIndex) -> bool, user: UserIndex) -> f64 {
    affinity_of_items(snapshot, is_covered, |_| true, user)
}

/// Returns the same, from those items of the history that `counts` selects.
pub fn affinity_of_items(
    snapshot: &Snapshot,
    is_covered: impl Fn(ItemIndex) -> bool,
    counts: impl Fn(ItemIndex) -> bool,
    user: UserIndex,
) -> f64 {
    let terms = terms(snapshot, user, |item| match counts(item) {
        true => weight(snapshot, &is_covered, item),
        false => 0.0,
    });
    sum(terms.map(|term| term.contribution))
}

/// Returns whether `offer` covers an item of `snapshot`, by the facts in the snapshot.
pub fn is_covered(snapshot: &Snapshot, offer: &Offer, item: ItemIndex) -> bool {
    covers(offer, snapshot.items().id(item), Some(&snapshot.catalog().facts(item)))
}

/// Returns the weights w_j of all n items, computed in parallel.
pub fn weights(snapshot: &Snapshot, covered: &Bits) -> Vec<f64> {
    let items = (0..snapshot.items().len() as u32).into_par_iter();
    items
        .map(|item| weight(snapshot, |item| covered.get(item.at()), ItemIndex(item)))
        .collect()
}

/// Returns the same as [`affinity_of`], from the [`weights`] of the covered items.
pub fn weighted_affinity(snapshot: &Snapshot, weights: &[f64], user: UserIndex) -> f64 {
    let history = snapshot.ratings().row(user.at()).iter();
    weigh(history.map(|(item, rating)| (item.0, rating)), weights)
}

/// Returns the affinities of all m users, computed in parallel.
pub fn affinities(snapshot: &Snapshot, covered: &Bits) -> Vec<f64> {
    let weights = weights(snapshot, covered);
    (0..snapshot.users().len() as u32)
        .into_par_iter()
        .with_min_len(USERS_PER_TASK)
        .map(|user| weighted_affinity(snapshot, &weights, UserIndex(user)))
        .collect()
}

/// The contribution of one item of the history to an affinity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffinityTerm {
    pub item: ItemIndex,
    /// The user's effective rating of the item.
    pub rating: f64,
    /// Above 0.
    pub contribution: f64,
}

/// Returns the terms of the affinity of `user`, which sum to it: the largest contribution first, ties by item.
pub fn explain(snapshot: &Snapshot, covered: &Bits, user: UserIndex) -> Vec<AffinityTerm> {
    let mut all: Vec<AffinityTerm> = terms(snapshot, user, |item| {
        weight(snapshot, |item| covered.get(item.at()), item)
    })
    .filter(|term| term.contribution > 0.0)
    .collect();
    all.sort_unstable_by(|a, b| b.contribution.total_cmp(&a.contribution).then(a.item.cmp(&b.item)));
    all
}

/// Returns the sum of `terms`, starting from +0. The sum of an empty iterator would be −0, which ranks below +0.
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.fold(0.0, |sum, term| sum + term)
}

/// Returns the terms of an affinity, the most popular item first.
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

    /// Returns Σ_i Σ_j by the definition.
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
    fn affinity_is_the_ranking_score_summed_over_the_items() {
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
    fn all_pairs_weights_are_those_of_lists_that_keep_everything() {
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
    fn items_covered_by_any_offer_are_the_union() {
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
