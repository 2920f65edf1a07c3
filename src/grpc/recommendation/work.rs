//! Estimates how long an answer will take, in multiply-adds. An estimate costs far less than the answer.

use crate::grpc::cpu_pool::MAX_INLINE_WORK;
use recommender::ranking::adjust::Adjustments;
use recommender::ranking::filter::ItemFilter;
use recommender::ranking::rank;
use recommender::snapshot::view::View;

use super::convert::{PredictRequest, RankRequest, SimilarRequest};

/// Searching for one neighbor of an item or a user among those who have rated.
const SEARCH: usize = 40;
/// Reading one neighbor of an item or a user when ratings of many items are predicted at once.
const READ: usize = 10;
/// Looking up one name.
const NAME: usize = 200;
/// Checking one item against a filter.
const CHECK: usize = 10;
/// Considering one candidate for one place of an adjusted list.
const CHOICE: usize = 4;

pub fn of_predictions(view: &View, predict: &PredictRequest) -> usize {
    let explanation = if predict.options.explain { searches(view) } else { 0 };
    predict.items.len() * (NAME + n_neighbors(view) * READ + explanation)
}

pub fn of_ranking(view: &View, rank: &RankRequest) -> usize {
    let names = (rank.n_session_items() + names_of(&rank.options.filter)) * NAME;
    if names > MAX_INLINE_WORK {
        // The names alone are too much, and estimating the rest would require looking them up here.
        return names;
    }
    let scores = rank::estimated_work(view, &rank.recipient(view), &rank.options);
    let explanations = if rank.options.explain { rank.options.limit } else { 0 };
    // Every item of an adjusted list is chosen among all candidates.
    let choices = match rank.options.adjustments {
        Some(_) => rank.options.limit * Adjustments::pool(rank.options.limit) * CHOICE,
        None => 0,
    };
    names + scores + explanations * searches(view) + checks(view, &rank.options.filter) * CHECK + choices
}

/// The histories of all users are scanned.
pub fn of_audience(view: &View) -> usize {
    view.snapshot.ratings().nnz() + view.overlay.len() * SEARCH
}

pub fn of_similar(similar: &SimilarRequest) -> usize {
    names_of(&similar.filter) * NAME
}

/// One explanation: a search for each neighbor of the item and of the user.
fn searches(view: &View) -> usize {
    n_neighbors(view) * SEARCH
}

/// The most neighbors that an item and a user have together.
fn n_neighbors(view: &View) -> usize {
    2 * view.snapshot.parameters().options.neighbors
}

/// The number of items that are checked against the filter. When too few of the scored items pass, all items are checked
/// by popularity until enough of them do.
fn checks(view: &View, filter: &ItemFilter) -> usize {
    match filter.candidates.len() {
        0 if *filter == ItemFilter::default() => 0,
        0 => view.snapshot.items().len(),
        candidates => candidates,
    }
}

fn names_of(filter: &ItemFilter) -> usize {
    filter.categories.len() + filter.merchants.len() + filter.candidates.len() + filter.excluded.len()
}
