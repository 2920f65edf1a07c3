//! How much users like what a coupon covers: the item-based ranking score, summed over the coupon's items.
//!
//! The affinity of user u is Σ_j R[u, j]·w_j over their history, ascending by item, with
//! w_j = Σ_i sim(i, j) over the covered items i that have j in their own list, ascending by item. One kernel for one user
//! and for all of them, so that both give the same bits. An affinity is no probability.
//!
//! Source: design.md, "Prediction and ranking" and "Coupons".

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
        let weight = |item: usize| {
            let (followers, similarities) = snapshot.item_followers().row(item);
            let pairs = followers.iter().zip(similarities);
            let covered = pairs.filter(|&(&follower, _)| covered.get(follower as usize));
            sum(covered.map(|(_, &similarity)| f64::from(similarity)))
        };
        let n_items = snapshot.items().len();
        Self {
            weights: (0..n_items).into_par_iter().map(weight).collect(),
        }
    }

    /// `history`: items of the snapshot, ascending, and their effective ratings.
    pub fn of(&self, history: impl Iterator<Item = (ItemIndex, f32)>) -> f64 {
        sum(history.map(|(item, rating)| f64::from(rating) * self.weights[item.at()]))
    }

    /// Of every user of the snapshot, as it knows them.
    pub fn of_all(&self, snapshot: &Snapshot) -> Vec<f64> {
        let n_users = snapshot.users().len();
        let users = (0..n_users).into_par_iter().with_min_len(CHUNK);
        users
            .map(|user| self.of(history(snapshot, UserIndex(user as u32))))
            .collect()
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
        let terms = history(snapshot, user).map(|(item, rating)| HistoryItem {
            item,
            rating: f64::from(rating),
            contribution: f64::from(rating) * self.weights[item.at()],
        });
        let (mut items, mut others): (Vec<_>, Vec<_>) = terms
            .filter(|term| term.contribution > 0.0)
            .partition(|term| is_shown(term.item));
        let by_size = |a: &HistoryItem, b: &HistoryItem| b.contribution.total_cmp(&a.contribution).then(a.item.cmp(&b.item));
        items.sort_unstable_by(by_size);
        others.extend(items.drain(limit.min(items.len())..));
        AffinityExplanation {
            items,
            other_items_contribution: sum(others.iter().map(|term| term.contribution)),
            other_items: others.len() as u32,
        }
    }
}

fn history(snapshot: &Snapshot, user: UserIndex) -> impl Iterator<Item = (ItemIndex, f32)> {
    let (items, ratings) = snapshot.ratings().row(user.at());
    let pairs = items.iter().zip(ratings);
    pairs.map(|(&item, &rating)| (ItemIndex(item), rating))
}

/// From +0 on: the sum of nothing would be −0, which ranks below +0.
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.fold(0.0, |sum, term| sum + term)
}

/// A bit an item of the snapshot: whether the offer covers it, by the facts of the snapshot.
pub fn covered(snapshot: &Snapshot, offer: &Offer) -> Bits {
    let catalogue = snapshot.catalogue();
    let own = offer.merchant().map(|merchant| catalogue.merchants.find(merchant));
    // Nobody's item is one of a merchant that the snapshot does not know.
    let is_own = |item: usize| own.is_none_or(|own| own == Some(catalogue.merchant_of[item] as usize));
    let set = match &offer.coupon.scope {
        Scope::All => return (0..catalogue.len()).map(is_own).collect(),
        Scope::Listed(set) => set,
    };
    let mut covered = Bits::zeros(catalogue.len());
    for item in &set.items {
        if let Some(index) = snapshot.items().find(item.as_str()) {
            covered.set(index.at(), true);
        }
    }
    let categories = named(&catalogue.categories, set.categories.iter().map(Category::as_str));
    let merchants = named(&catalogue.merchants, set.merchants.iter().map(MerchantId::as_str));
    let has = |names: &Bits, position: u32| position != NONE && names.get(position as usize);
    for item in 0..catalogue.len() {
        let is_covered = covered.get(item)
            || has(&categories, catalogue.category_of[item])
            || has(&merchants, catalogue.merchant_of[item]);
        covered.set(item, is_covered && is_own(item));
    }
    covered
}

/// A bit one of `all`: whether it is among `names`.
fn named<'a>(all: &Texts, names: impl Iterator<Item = &'a str>) -> Bits {
    let mut named = Bits::zeros(all.len());
    for position in names.filter_map(|name| all.find(name)) {
        named.set(position, true);
    }
    named
}
