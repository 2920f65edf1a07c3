//! How long an answer will take, in multiply-adds: far cheaper to say than to do.

use crate::grpc::heavy::HEAVY;
use recommender::ranking::filter::ItemFilter;
use recommender::ranking::rank;
use recommender::snapshot::view::View;

use super::convert::{PredictRequest, RankRequest, SimilarRequest};

/// As long as looking for one neighbor of an item or a user among those who have rated.
const SEARCH: usize = 40;
/// As long as meeting one neighbor of an item or a user, where many items are asked about at once.
const MEETING: usize = 10;
/// As long as looking up one name.
const NAME: usize = 200;
/// As long as checking one item against a filter.
const CHECK: usize = 10;

pub fn of_predictions(view: &View, predict: &PredictRequest) -> usize {
    let explanation = if predict.options.explain { searches(view) } else { 0 };
    predict.items.len() * (NAME + n_neighbors(view) * MEETING + explanation)
}

pub fn of_ranking(view: &View, rank: &RankRequest) -> usize {
    let names = (rank.n_session_items() + names_of(&rank.options.filter)) * NAME;
    if names > HEAVY {
        // Enough to know, and to say how much the rest takes they would have to be looked up here.
        return names;
    }
    let scores = rank::estimated_work(view, &rank.recipient(view), rank.options.basis);
    let explanations = if rank.options.explain { rank.options.limit } else { 0 };
    names + scores + explanations * searches(view) + checks(view, &rank.options.filter) * CHECK
}

/// Everybody's history is gone through.
pub fn of_audience(view: &View) -> usize {
    view.snapshot.ratings().nnz() + view.overlay.len() * SEARCH
}

pub fn of_similar(similar: &SimilarRequest) -> usize {
    names_of(&similar.filter) * NAME
}

/// As long as one explanation: a search for each neighbor of the item and of the user.
fn searches(view: &View) -> usize {
    n_neighbors(view) * SEARCH
}

/// Of an item and a user together, at most.
fn n_neighbors(view: &View) -> usize {
    2 * view.snapshot.parameters().options.neighbors
}

/// When nothing that was scored passes, the items are gone through by popularity until enough of them do.
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
