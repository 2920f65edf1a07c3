//! How much users like what a coupon covers.
//!
//! The affinity of user u is Σ_j R[u,j] · w_j over their history j in ascending order, with w_j = Σ_i sim(i,j) over the
//! covered items i that have j in their own neighbour list, ascending: the item-based ranking score, summed over what the
//! coupon covers. All sums in f64 and in that order, so that one user and all of them come to the same bits.

use rayon::prelude::*;

use crate::domain::coupon::Scope;
use crate::domain::id::{Category, MerchantId};
use crate::model::bits::Bits;
use crate::model::catalogue::NONE;
use crate::model::dictionary::{ItemIndex, Texts, UserIndex};
use crate::model::snapshot::Snapshot;

use super::book::Offer;

/// Users that one thread scores at a time.
const CHUNK: usize = 4_096;

/// What a history's items add to the affinity to one offer, in one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Affinity {
    /// w, one an item of the snapshot, 0 or more.
    weights: Vec<f64>,
}

/// The terms of an affinity; they sum to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AffinityExplanation {
    /// Largest contribution first, ties by item.
    pub items: Vec<HistoryItem>,
    /// What all others contribute together, and how many they are.
    pub other_items_contribution: f64,
    pub other_items: u32,
}

/// An item of a history and what it adds to an affinity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryItem {
    pub item: ItemIndex,
    /// The user's effective rating of it.
    pub rating: f64,
    /// Above 0.
    pub contribution: f64,
}

impl Affinity {
    pub fn new(snapshot: &Snapshot, offer: &Offer) -> Self {
        let covered = covered(snapshot, offer);
        let items = (0..snapshot.items().len() as u32).into_par_iter();
        Self {
            weights: items.map(|item| weight(snapshot, &covered, ItemIndex(item))).collect(),
        }
    }

    /// Of every user of the snapshot, as it knows them.
    pub fn of_all(&self, snapshot: &Snapshot) -> Vec<f64> {
        let users = (0..snapshot.users().len() as u32).into_par_iter().with_min_len(CHUNK);
        let of = |user| weighted_history(snapshot, UserIndex(user), |item| self.weights[item.at()]);
        users.map(of).collect()
    }

    /// How the affinity of `user` came about, as the snapshot knows them: at most `limit` items, and of those only what
    /// `is_shown`.
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        user: UserIndex,
        limit: usize,
        is_shown: impl Fn(ItemIndex) -> bool,
    ) -> AffinityExplanation {
        let (items, ratings) = snapshot.ratings().row(user.at());
        let terms = items.iter().zip(ratings).map(|(&item, &rating)| HistoryItem {
            item: ItemIndex(item),
            rating: f64::from(rating),
            contribution: f64::from(rating) * self.weights[item as usize],
        });
        let (mut items, mut others): (Vec<_>, Vec<_>) = terms
            .filter(|term| term.contribution > 0.0)
            .partition(|term| is_shown(term.item));
        items.sort_unstable_by(|a, b| b.contribution.total_cmp(&a.contribution).then(a.item.cmp(&b.item)));
        others.extend(items.drain(limit.min(items.len())..));
        AffinityExplanation {
            items,
            other_items_contribution: others.iter().fold(0.0, |sum, term| sum + term.contribution),
            other_items: others.len() as u32,
        }
    }
}

/// The items that `offer` covers by the catalogue facts of the snapshot, listed or not: one bit an item.
pub fn covered(snapshot: &Snapshot, offer: &Offer) -> Bits {
    let catalogue = snapshot.catalogue();
    let mut covered = match &offer.coupon.scope {
        Scope::All => (0..catalogue.len()).map(|_| true).collect(),
        Scope::Listed(set) if set.categories.is_empty() && set.merchants.is_empty() => Bits::zeros(catalogue.len()),
        Scope::Listed(set) => {
            let categories = positions(&catalogue.categories, set.categories.iter().map(Category::as_str));
            let merchants = positions(&catalogue.merchants, set.merchants.iter().map(MerchantId::as_str));
            (0..catalogue.len())
                .map(|at| has(&categories, catalogue.category_of[at]) || has(&merchants, catalogue.merchant_of[at]))
                .collect()
        }
    };
    if let Scope::Listed(set) = &offer.coupon.scope {
        for item in set.items.iter().filter_map(|id| snapshot.items().find(id.as_str())) {
            covered.set(item.at(), true);
        }
    }
    if let Some(merchant) = offer.merchant() {
        let own = positions(&catalogue.merchants, [merchant].into_iter());
        for at in 0..covered.len() {
            if covered.get(at) && !has(&own, catalogue.merchant_of[at]) {
                covered.set(at, false);
            }
        }
    }
    covered
}

/// w_j of `item` j, 0 or more.
pub fn weight(snapshot: &Snapshot, covered: &Bits, item: ItemIndex) -> f64 {
    let (items, similarities) = snapshot.item_followers().row(item.at());
    let following = items.iter().zip(similarities);
    following
        .filter(|&(&item, _)| covered.get(item as usize))
        .fold(0.0, |sum, (_, &similarity)| sum + f64::from(similarity))
}

/// The affinity of `user` to the `covered` items, 0 or more.
pub fn affinity_of(snapshot: &Snapshot, covered: &Bits, user: UserIndex) -> f64 {
    weighted_history(snapshot, user, |item| weight(snapshot, covered, item))
}

/// Σ_j R[u,j] · w_j, with w_j from `weight`.
pub fn weighted_history(snapshot: &Snapshot, user: UserIndex, weight: impl Fn(ItemIndex) -> f64) -> f64 {
    let (items, ratings) = snapshot.ratings().row(user.at());
    items
        .iter()
        .zip(ratings)
        .fold(0.0, |sum, (&item, &rating)| sum + f64::from(rating) * weight(ItemIndex(item)))
}

/// The bits of `names` in the ascending `texts`.
fn positions<'n>(texts: &Texts, names: impl Iterator<Item = &'n str>) -> Bits {
    let mut bits = Bits::zeros(texts.len());
    for position in names.filter_map(|name| texts.find(name)) {
        bits.set(position, true);
    }
    bits
}

fn has(bits: &Bits, position: u32) -> bool {
    position != NONE && bits.get(position as usize)
}
