//! The items among which an adjusted ranking chooses, and what has been chosen so far.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::snapshot::Snapshot;
use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::ItemIndex;
use crate::snapshot::view::View;

use super::Adjustments;
use super::penalty::Penalized;

/// Marks an item without a category or merchant.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub item: ItemIndex,
    /// The ranking score.
    pub score: f64,
    /// The score after the popularity penalty.
    pub penalized: f64,
    /// The largest cosine of the item and one that was taken; 0 where nothing is diversified.
    pub similarity: f64,
    /// The position of the category in [`Candidates::categories`]; `None` without one, and where no category is needed.
    pub category: Option<usize>,
    category_cap: u32,
    merchant_cap: u32,
    is_taken: bool,
}

/// Candidates, best first, each of which can be taken once.
pub(super) struct Candidates<'a> {
    snapshot: &'a Snapshot,
    candidates: Vec<Candidate>,
    /// The candidates' items and positions, ascending by item; empty where nothing is diversified.
    positions: Vec<(ItemIndex, u32)>,
    /// The candidates' items and their ranks, which tell most neighbors at once that they are none; in the same way.
    items: Bits,
    ranks: Bits,
    categories: Vec<&'a str>,
    /// How many items of each category and of each merchant may still be taken; empty without a cap.
    categories_left: Vec<u32>,
    merchants_left: Vec<u32>,
}

impl<'a> Candidates<'a> {
    /// `pool`: best first.
    pub fn new(view: &'a View, pool: Vec<Penalized>, adjustments: &Adjustments) -> Self {
        let (category_cap, merchant_cap) = (adjustments.max_per_category, adjustments.max_per_merchant);
        let needs_category = adjustments.calibration > 0.0 || category_cap.is_some();
        let (mut categories, mut merchants) = (Names::default(), Names::default());
        let candidate = |Penalized { scored, penalized }| {
            let facts = (needs_category || merchant_cap.is_some()).then(|| view.facts(scored.item));
            let category = facts.filter(|_| needs_category).and_then(|facts| facts.category);
            let merchant = facts.and_then(|facts| facts.merchant);
            let category = category.map(|category| categories.position(category));
            Candidate {
                item: scored.item,
                score: scored.score,
                penalized,
                similarity: 0.0,
                category: category.map(|category| category as usize),
                category_cap: category.filter(|_| category_cap.is_some()).unwrap_or(NONE),
                merchant_cap: merchant
                    .filter(|_| merchant_cap.is_some())
                    .map_or(NONE, |merchant| merchants.position(merchant)),
                is_taken: false,
            }
        };
        let candidates: Vec<Candidate> = pool.into_iter().map(candidate).collect();
        let mut positions = Vec::new();
        let (mut items, mut ranks) = (Bits::default(), Bits::default());
        if adjustments.diversity > 0.0 {
            let n_items = view.snapshot.items().len();
            (items, ranks) = (Bits::zeros(n_items), Bits::zeros(n_items));
            for (position, candidate) in (0..).zip(&candidates) {
                positions.push((candidate.item, position));
                items.set(candidate.item.at(), true);
                ranks.set(view.snapshot.popularity().rank(candidate.item) as usize, true);
            }
            positions.sort_unstable();
        }
        let left = |cap: Option<std::num::NonZeroU32>, n: usize| cap.map_or(Vec::new(), |cap| vec![cap.get(); n]);
        Self {
            snapshot: &view.snapshot,
            positions,
            items,
            ranks,
            categories_left: left(category_cap, categories.names.len()),
            merchants_left: left(merchant_cap, merchants.names.len()),
            categories: categories.names,
            candidates,
        }
    }

    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    pub fn get(&self, at: usize) -> &Candidate {
        &self.candidates[at]
    }

    /// Returns the largest penalized score; 0 without candidates.
    pub fn largest(&self) -> f64 {
        self.candidates.first().map_or(0.0, |first| first.penalized)
    }

    /// Returns the categories of all candidates, each once; none where no category is needed.
    pub fn categories(&self) -> &[&'a str] {
        &self.categories
    }

    /// Returns the position of the candidate with the largest value among those that are not taken and exceed no cap; ties
    /// by penalized score, then item. `None` if there is none.
    pub fn best(&self, value: impl Fn(usize) -> f64) -> Option<usize> {
        let may_follow = |left: &[u32], cap: u32| cap == NONE || left[cap as usize] > 0;
        let mut best: Option<(usize, f64)> = None;
        for (at, candidate) in self.candidates.iter().enumerate() {
            if candidate.is_taken
                || !may_follow(&self.categories_left, candidate.category_cap)
                || !may_follow(&self.merchants_left, candidate.merchant_cap)
            {
                continue;
            }
            let value = value(at);
            // Candidates stand by penalized score and item, so the first of equals stays.
            if best.is_none_or(|(_, largest)| value.total_cmp(&largest) == Ordering::Greater) {
                best = Some((at, value));
            }
        }
        best.map(|(at, _)| at)
    }

    /// Takes the candidate at a position, and notes how similar the others are to it.
    pub fn take(&mut self, at: usize) -> Candidate {
        self.candidates[at].is_taken = true;
        let taken = self.candidates[at];
        if taken.category_cap != NONE {
            self.categories_left[taken.category_cap as usize] -= 1;
        }
        if taken.merchant_cap != NONE {
            self.merchants_left[taken.merchant_cap as usize] -= 1;
        }
        if !self.positions.is_empty() {
            self.note_similar(taken.item);
        }
        taken
    }

    /// Raises the similarity of the candidates that are in the list of `item` or have it in theirs.
    fn note_similar(&mut self, item: ItemIndex) {
        let (neighbors, similarities) = self.snapshot.item_neighbors().row(item.at());
        for (&neighbor, &similarity) in neighbors.iter().zip(similarities) {
            if self.items.get(neighbor as usize) {
                self.note(ItemIndex(neighbor), similarity);
            }
        }
        let (ranks, similarities) = self.snapshot.reverse_item_neighbors().row(item);
        for (at, &similarity) in similarities.iter().enumerate() {
            let rank = ranks.get(at);
            if self.ranks.get(rank as usize) {
                self.note(self.snapshot.popularity().item(rank), similarity);
            }
        }
    }

    fn note(&mut self, item: ItemIndex, similarity: f32) {
        if let Ok(found) = self.positions.binary_search_by_key(&item, |&(item, _)| item) {
            let candidate = &mut self.candidates[self.positions[found].1 as usize];
            candidate.similarity = candidate.similarity.max(f64::from(similarity));
        }
    }
}

/// Distinct names in the order in which they came.
#[derive(Default)]
struct Names<'a> {
    names: Vec<&'a str>,
    positions: HashMap<&'a str, u32>,
}

impl<'a> Names<'a> {
    fn position(&mut self, name: &'a str) -> u32 {
        *self.positions.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() as u32 - 1
        })
    }
}
