//! How long an answer will take, in multiply-adds: far cheaper to say than to do.

use crate::model::view::View;
use crate::recommend::filter::ItemFilter;
use crate::recommend::rank;

use super::convert::{PredictRequest, RankRequest, SimilarRequest};

/// As long as one prediction: a search for each neighbor of the item and of the user.
const PREDICTION: usize = 4_000;
/// As long as one explanation, which searches as often.
const EXPLANATION: usize = 4_000;
/// As long as looking up one name.
const NAME: usize = 200;
/// As long as checking one item against a filter.
const CHECK: usize = 10;

pub fn of_predictions(predict: &PredictRequest) -> usize {
    let explanation = if predict.options.explain { EXPLANATION } else { 0 };
    predict.items.len() * (PREDICTION + explanation)
}

pub fn of_ranking(view: &View, rank: &RankRequest) -> usize {
    let scores = rank::estimated_work(view, &rank.subject(view), rank.options.basis);
    let explanations = if rank.options.explain { rank.options.limit } else { 0 };
    // Without scores the items are gone through by popularity until enough of them pass.
    let checks = match scores {
        0 if rank.options.filter != ItemFilter::default() => view.snapshot.items().len(),
        _ => 0,
    };
    scores + explanations * EXPLANATION + names_of(&rank.options.filter) * NAME + checks * CHECK
}

pub fn of_similar(similar: &SimilarRequest) -> usize {
    names_of(&similar.filter) * NAME
}

fn names_of(filter: &ItemFilter) -> usize {
    filter.categories.len() + filter.merchants.len() + filter.candidates.len() + filter.excluded.len()
}
