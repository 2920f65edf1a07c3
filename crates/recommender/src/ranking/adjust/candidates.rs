//! The items among which an adjusted ranking chooses, and what has been chosen so far.

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
    /// The largest cosine of the item and one that was taken, as far as it is known; 0 where nothing is diversified.
    /// [`Candidates::best`] completes it where it matters.
    pub similarity: f64,
    /// The position of the category in [`Candidates::categories`]; `None` without one, and where no category is needed.
    pub category: Option<usize>,
    category_cap: u32,
    merchant_cap: u32,
    is_taken: bool,
    /// Where its similar candidates stand in [`Candidates::similar`]; `None` before they were looked up.
    similar: Option<(usize, usize)>,
}

/// Candidates, best first, each of which can be taken once.
pub(super) struct Candidates<'a> {
    snapshot: &'a Snapshot,
    candidates: Vec<Candidate>,
    /// The candidates' items and positions, ascending by item; empty where nothing is diversified.
    positions: Vec<(ItemIndex, u32)>,
    /// The candidates' items, which tell most neighbors at once that they are none; in the same way.
    items: Bits,
    /// The items that were taken; in the same way.
    taken: Bits,
    /// The candidates in the list of one candidate after the other, with their cosines; the largest of each list first.
    similar: Vec<(ItemIndex, f32)>,
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
                similar: None,
            }
        };
        let candidates: Vec<Candidate> = pool.into_iter().map(candidate).collect();
        let mut positions = Vec::new();
        let (mut items, mut taken) = (Bits::default(), Bits::default());
        if adjustments.diversity > 0.0 {
            let n_items = view.snapshot.items().len();
            (items, taken) = (Bits::zeros(n_items), Bits::zeros(n_items));
            for (position, candidate) in (0..).zip(&candidates) {
                positions.push((candidate.item, position));
                items.set(candidate.item.at(), true);
            }
            positions.sort_unstable();
        }
        let left = |cap: Option<std::num::NonZeroU32>, n: usize| cap.map_or(Vec::new(), |cap| vec![cap.get(); n]);
        Self {
            snapshot: &view.snapshot,
            positions,
            items,
            taken,
            similar: Vec::new(),
            categories_left: left(category_cap, categories.names.len()),
            merchants_left: left(merchant_cap, merchants.names.len()),
            categories: categories.names,
            candidates,
        }
    }

    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Returns the largest penalized score; 0 without candidates.
    pub fn largest(&self) -> f64 {
        self.candidates.first().map_or(0.0, |first| first.penalized)
    }

    /// Returns the categories of all candidates, each once; none where no category is needed.
    pub fn categories(&self) -> &[&'a str] {
        &self.categories
    }

    /// Returns the candidate with the largest value among those that are not taken and exceed no cap, and its position; ties by
    /// penalized score, then item. `None` if there is none.
    ///
    /// `value` never rises with the similarity, and no value exceeds the `bound` for its penalized score, which falls with it:
    /// only candidates that may still be the best are compared with what was taken.
    pub fn best(
        &mut self,
        value: impl Fn(&Candidate) -> f64,
        bound: impl Fn(f64) -> f64,
    ) -> Option<(usize, Candidate)> {
        let mut best: Option<(usize, f64)> = None;
        for at in 0..self.candidates.len() {
            let candidate = &self.candidates[at];
            if best.is_some_and(|(_, largest)| bound(candidate.penalized) <= largest) {
                break;
            }
            // Candidates stand by penalized score and item, so the first of equals stays.
            let exceeds = |candidate: &Candidate| best.is_none_or(|(_, largest)| value(candidate) > largest);
            if self.may_follow(candidate) && exceeds(candidate) {
                self.complete_similarity(at);
                let candidate = &self.candidates[at];
                if exceeds(candidate) {
                    best = Some((at, value(candidate)));
                }
            }
        }
        best.map(|(at, _)| (at, self.candidates[at]))
    }

    fn may_follow(&self, candidate: &Candidate) -> bool {
        let is_left = |left: &[u32], cap: u32| cap == NONE || left[cap as usize] > 0;
        !candidate.is_taken
            && is_left(&self.categories_left, candidate.category_cap)
            && is_left(&self.merchants_left, candidate.merchant_cap)
    }

    /// Compares a candidate with those of its own list that were taken. Those that have it in theirs told when they were taken.
    fn complete_similarity(&mut self, at: usize) {
        if self.positions.is_empty() {
            return;
        }
        let (start, end) = match self.candidates[at].similar {
            Some(range) => range,
            None => self.look_up_similar(at),
        };
        let mut similar = self.similar[start..end].iter();
        if let Some(&(_, cosine)) = similar.find(|(item, _)| self.taken.get(item.at())) {
            self.candidates[at].raise_similarity(cosine);
        }
    }

    /// Finds the candidates in the list of a candidate.
    fn look_up_similar(&mut self, at: usize) -> (usize, usize) {
        let (neighbors, cosines) = self.snapshot.item_neighbors().row(self.candidates[at].item.at());
        let start = self.similar.len();
        for (&neighbor, &cosine) in neighbors.iter().zip(cosines) {
            if self.items.get(neighbor as usize) {
                self.similar.push((ItemIndex(neighbor), cosine));
            }
        }
        let range = (start, self.similar.len());
        self.candidates[at].similar = Some(range);
        range
    }

    /// Takes the candidate at a position that [`best`](Self::best) has returned, and tells the others how similar they are to
    /// it.
    pub fn take(&mut self, at: usize) {
        self.candidates[at].is_taken = true;
        let taken = self.candidates[at];
        if taken.category_cap != NONE {
            self.categories_left[taken.category_cap as usize] -= 1;
        }
        if taken.merchant_cap != NONE {
            self.merchants_left[taken.merchant_cap as usize] -= 1;
        }
        let Some((start, end)) = taken.similar else {
            return;
        };
        self.taken.set(taken.item.at(), true);
        for &(item, cosine) in &self.similar[start..end] {
            if let Ok(found) = self.positions.binary_search_by_key(&item, |&(item, _)| item) {
                self.candidates[self.positions[found].1 as usize].raise_similarity(cosine);
            }
        }
    }
}

impl Candidate {
    fn raise_similarity(&mut self, cosine: f32) {
        self.similarity = self.similarity.max(f64::from(cosine));
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
