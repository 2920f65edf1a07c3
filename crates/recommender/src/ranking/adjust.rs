//! Adjusts a ranking on request: more variety, less popular items, at most a few of one merchant or category, and categories
//! in the proportions of the history.
//!
//! A ranker orders items by their score alone. `adjust` takes the best of them and chooses anew, one item after the other.

pub mod calibration;
mod candidates;
mod penalty;

use std::num::NonZeroU32;

use crate::snapshot::dictionary::ItemIndex;
use crate::snapshot::view::View;

use self::calibration::{CategoryShares, Divergence};
use self::candidates::{Candidate, Candidates};
use super::kernel::top::Scored;

/// The adjustments that a request asks for. The default is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Adjustments {
    /// The weight of an item's dissimilarity to the items before it against its score, in [0, 1].
    pub diversity: f64,
    /// How much the score falls with the number of an item's users: γ, in [0, 1].
    pub popularity_penalty: f64,
    /// The weight of the proportions of categories against the scores: λ, in [0, 1].
    pub calibration: f64,
    /// The most items of one merchant; items without a merchant are not limited.
    pub max_per_merchant: Option<NonZeroU32>,
    /// The most items of one category; items without a category are not limited.
    pub max_per_category: Option<NonZeroU32>,
}

/// The changes that adjustments made to a ranking score, in its units; the adjusted score is the score plus all of them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AdjustmentTerms {
    pub popularity_penalty: f64,
    pub diversity: f64,
    pub calibration: f64,
}

/// An item of an adjusted ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Adjusted {
    pub item: ItemIndex,
    /// The adjusted score: the ranking score plus the terms, of any sign.
    pub score: f64,
    pub terms: AdjustmentTerms,
}

impl Adjustments {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the number of candidates among which `limit` items are chosen: 10 for each, at least 200. Lists of more than 200
    /// have fewer for each, but two at least.
    pub fn pool(limit: usize) -> usize {
        limit.saturating_mul(10).clamp(200, 2_000).max(limit.saturating_mul(2))
    }
}

impl AdjustmentTerms {
    pub fn sum(&self) -> f64 {
        self.popularity_penalty + self.diversity + self.calibration
    }
}

/// Chooses up to `limit` items, best first.
///
/// The score s of item i becomes s' = s·(n̄/n_i)^(γ/2) by the popularity penalty γ, where n_i is the number of users of i and
/// n̄ the median over the items that have any. M is the largest s'. Among the candidates, those with the largest s', the next
/// item is the one with the largest
///
/// - v = (1 − d)·s' − d·M·(largest cosine of i and an item chosen before), for a diversity of d;
/// - (1 − λ)·v + λ·M·(fall of the divergence of categories when i is added), for a calibration of λ.
///
/// Caps of merchants and categories leave out what would exceed them; more candidates are then taken until the list is full.
/// Cosines are those of the stored neighbor lists; of a pair that is in neither list, the cosine is below the least of both
/// lists and counts 0. Ties are broken by s', then by item id.
///
/// `ranked`: returns the best so many items by score, best first, the scores 0 or more. `history`: the items from which the
/// proportions of categories are taken.
///
/// Sources: Carbonell & Goldstein 1998, "The Use of MMR, Diversity-Based Reranking"; Steck 2018, "Calibrated Recommendations".
pub(crate) fn adjust(
    view: &View,
    ranked: impl Fn(usize) -> Vec<Scored>,
    history: impl Iterator<Item = ItemIndex>,
    limit: usize,
    adjustments: &Adjustments,
) -> Vec<Adjusted> {
    let shares = match adjustments.calibration > 0.0 {
        true => CategoryShares::new(history.filter_map(|item| view.facts(item).category)),
        false => CategoryShares::default(),
    };
    let mut wanted = Adjustments::pool(limit);
    loop {
        let pool = penalty::best(
            view.snapshot.popularity(),
            &ranked,
            wanted,
            adjustments.popularity_penalty,
        );
        let is_everything = pool.len() < wanted;
        let chosen = choose(Candidates::new(view, pool, adjustments), &shares, limit, adjustments);
        if chosen.len() == limit || is_everything {
            return chosen;
        }
        wanted = wanted.saturating_mul(4);
    }
}

/// Chooses among `candidates` greedily.
fn choose(
    mut candidates: Candidates,
    shares: &CategoryShares,
    limit: usize,
    adjustments: &Adjustments,
) -> Vec<Adjusted> {
    let (diversity, calibration) = (adjustments.diversity, adjustments.calibration);
    let largest = candidates.largest();
    let mut divergence = Divergence::new(shares, candidates.categories());
    let mut chosen = Vec::with_capacity(limit.min(candidates.len()));
    while chosen.len() < limit {
        let gains = divergence.gains();
        let calibrated = |varied: f64, gain: f64| match calibration > 0.0 {
            true => (1.0 - calibration) * varied + calibration * largest * gain,
            false => varied,
        };
        let terms = |candidate: &Candidate| {
            let varied = (1.0 - diversity) * candidate.penalized - diversity * largest * candidate.similarity;
            (varied, calibrated(varied, gains.of(candidate.category)))
        };
        let bound = |penalized: f64| calibrated((1.0 - diversity) * penalized, gains.largest());
        let Some((at, candidate)) = candidates.best(|candidate| terms(candidate).1, bound) else {
            break;
        };
        candidates.take(at);
        divergence.add(candidate.category);
        let (varied, calibrated) = terms(&candidate);
        chosen.push(Adjusted {
            item: candidate.item,
            score: calibrated,
            terms: AdjustmentTerms {
                popularity_penalty: candidate.penalized - candidate.score,
                diversity: varied - candidate.penalized,
                calibration: calibrated - varied,
            },
        });
    }
    chosen
}

#[cfg(test)]
mod tests;
