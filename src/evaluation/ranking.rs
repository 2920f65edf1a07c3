//! Asks a model for ranked lists and measures them.

use rayon::prelude::*;

use crate::model::dictionary::{Dictionary, ItemIndex, UserIndex};
use crate::model::view::{History, View};
use crate::recommend::Basis;
use crate::recommend::popular::most_popular;
use crate::recommend::rank::{RankOptions, Scratch, Subject, recommend};

use super::holdout::Case;
use super::metrics::{coverage, gini, mean, ndcg, recall};
use super::report::{ItemScope, ParametersOf, Ranker, RankingMetrics};

/// Length of a list.
const LIMIT: usize = 20;
const NDCG_AT: usize = 10;
const RECALL_AT: usize = 20;

/// A scratch is as long as the catalogue: it should serve many users.
const MIN_USERS_PER_SCRATCH: usize = 64;

/// The figures of `ranker` over the users with something to find; `None` without any.
///
/// `users`: what the users of `cases` are indices of.
pub(super) fn measure(
    view: &View,
    users: &Dictionary<UserIndex>,
    cases: &[Case],
    (parameters, ranker, items): (ParametersOf, Ranker, ItemScope),
) -> Option<RankingMetrics> {
    let lists = ranked_lists(view, users, cases, ranker, items);
    if lists.is_empty() {
        return None;
    }
    let listed = &view.snapshot.catalogue().listed;
    let mut exposures = vec![0; view.snapshot.items().len()];
    for item in lists.iter().flat_map(|list| &list.items) {
        exposures[item.at()] += 1;
    }
    let shown: u64 = exposures.iter().sum();
    let raters = |(item, &exposure): (u32, &u64)| exposure * u64::from(view.snapshot.raters(ItemIndex(item)));
    let popularity: u64 = (0..).zip(&exposures).map(raters).sum();
    let of_listed = exposures.iter().enumerate().filter(|&(item, _)| listed.get(item));
    let of_listed: Vec<u64> = of_listed.map(|(_, &exposure)| exposure).collect();
    Some(RankingMetrics {
        parameters,
        ranker,
        items,
        users: lists.len() as u64,
        ndcg_at_10: mean_ndcg(&lists),
        recall_at_20: mean(lists.iter().map(|list| recall(&list.items, list.relevant, RECALL_AT))),
        coverage_at_20: coverage(&of_listed),
        gini: gini(&of_listed),
        mean_popularity: popularity as f64 / shown.max(1) as f64,
    })
}

/// What a user was shown, and what would have been right.
pub(super) struct RankedList<'a> {
    items: Vec<ItemIndex>,
    /// Not empty.
    relevant: &'a [ItemIndex],
}

/// One list for each user with something to find.
pub(super) fn ranked_lists<'a>(
    view: &View,
    users: &Dictionary<UserIndex>,
    cases: &'a [Case],
    ranker: Ranker,
    scope: ItemScope,
) -> Vec<RankedList<'a>> {
    let asked: Vec<&Case> = cases.iter().filter(|case| !case.relevant(scope).is_empty()).collect();
    asked
        .into_par_iter()
        .with_min_len(MIN_USERS_PER_SCRATCH)
        .map_init(Scratch::default, |scratch, case| {
            let user = view.snapshot.users().find(users.id(case.user));
            let excluded: &[ItemIndex] = match scope {
                ItemScope::All => &[],
                ItemScope::New => &case.history,
            };
            let items = match ranker {
                Ranker::Popularity => popular(view, excluded),
                Ranker::ItemBased => recommended(view, user, excluded, Basis::ItemBased, scratch),
                Ranker::UserBased => recommended(view, user, excluded, Basis::UserBased, scratch),
                Ranker::Blended => recommended(view, user, excluded, Basis::Blended, scratch),
            };
            RankedList {
                items,
                relevant: case.relevant(scope),
            }
        })
        .collect()
}

/// `lists` not empty.
pub(super) fn mean_ndcg(lists: &[RankedList]) -> f64 {
    mean(lists.iter().map(|list| ndcg(&list.items, list.relevant, NDCG_AT)))
}

/// `excluded`: ascending.
fn popular(view: &View, excluded: &[ItemIndex]) -> Vec<ItemIndex> {
    let snapshot = &view.snapshot;
    most_popular(snapshot, LIMIT, None, |item| {
        snapshot.catalogue().listed.get(item.at()) && excluded.binary_search(&item).is_err()
    })
}

/// To a user of whom the model knows nothing, what it would show a stranger.
///
/// `excluded`: all of the history or nothing, ascending; the model need not know all of it.
fn recommended(
    view: &View,
    user: Option<UserIndex>,
    excluded: &[ItemIndex],
    basis: Basis,
    scratch: &mut Scratch,
) -> Vec<ItemIndex> {
    let subject = user.map_or_else(|| Subject::Session(History::default()), Subject::UserIndex);
    let known = user.map_or(&[][..], |user| view.snapshot.ratings().row(user.at()).0);
    let unknown = excluded.iter().filter(|item| known.binary_search(&item.0).is_err());
    let options = RankOptions {
        // Those that the model does not leave out by itself are left out below.
        limit: LIMIT + unknown.count(),
        basis,
        exclude_history: !excluded.is_empty(),
        ..RankOptions::default()
    };
    let recommendations = recommend(view, &subject, &options, scratch);
    recommendations
        .items
        .iter()
        .map(|recommended| recommended.item)
        .filter(|item| excluded.binary_search(item).is_err())
        .take(LIMIT)
        .collect()
}
