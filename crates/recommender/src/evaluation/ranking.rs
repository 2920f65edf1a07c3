//! Gets ranked lists from a model and measures them.

use rayon::prelude::*;

use crate::ranking::Basis;
use crate::ranking::popular::PopularityScore;
use crate::ranking::rank::{Blend, Ranking, Scratch, rank_each};
use crate::ranking::rankers::{Ranker, Scoring, rank_by_weights};
use crate::snapshot::by_rank::ByRank;
use crate::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use crate::snapshot::view::View;

use super::bias::shown::{RankerLists, ShownList, ShownLists};
use super::choice::interval;
use super::held_out::EvaluationCase;
use super::metrics::{coverage, gini, mean, ndcg, recall};
use super::report::{ItemScope, ParametersOf, RankingMetrics};

/// The length of a list.
const LIMIT: usize = 20;
const NDCG_AT: usize = 10;
const RECALL_AT: usize = 20;

/// The least users that a scratch serves, because it is as long as the catalog.
const MIN_USERS_PER_SCRATCH: usize = 64;

/// A kind of list, made for every user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Listing<'a> {
    pub ranker: Ranker,
    pub items: ItemScope,
    pub terms: Terms<'a>,
}

/// The terms of the rankers that have any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Terms<'a> {
    /// Those of the blend.
    pub blend: Blend<'a>,
    /// The scores of trending popularity, by rank.
    pub trending: Option<&'a ByRank>,
}

impl Default for Terms<'_> {
    /// Weighs both sides of a blend equally, without any further term.
    fn default() -> Self {
        let blend = Blend {
            item_weight: 0.5,
            trend: None,
            habit_weight: 0.0,
        };
        Self { blend, trending: None }
    }
}

impl<'a> Terms<'a> {
    /// Returns the terms that `view` has for lists of `items`.
    pub fn of(view: &'a View, items: ItemScope) -> Self {
        let settings = view.snapshot.settings();
        let terms = view.order_terms();
        let (settings, trend) = match items {
            ItemScope::New => (&settings.new_items, terms.and_then(|terms| terms.new_items.as_ref())),
            ItemScope::All => (&settings.all_items, terms.and_then(|terms| terms.all_items.as_ref())),
        };
        let habits = terms.filter(|terms| items == ItemScope::All && terms.repeat_rates.is_some());
        Self {
            blend: Blend {
                item_weight: settings.item_weight,
                trend: trend.map(|factors| factors.by_rank()),
                habit_weight: habits.map_or(0.0, |_| settings.habit_weight),
            },
            trending: terms
                .and_then(|terms| terms.popularity.as_ref())
                .map(|factors| factors.by_rank()),
        }
    }
}

/// Returns the metrics of `lists`, all of one `listing`; `None` without lists.
pub(super) fn measure(
    view: &View,
    lists: &[RankedList],
    parameters: ParametersOf,
    listing: &Listing,
    seed: u64,
) -> Option<RankingMetrics> {
    if lists.is_empty() {
        return None;
    }
    let listed = &view.snapshot.catalog().listed;
    let mut exposures = vec![0; view.snapshot.items().len()];
    for item in lists.iter().flat_map(|list| &list.items) {
        exposures[item.at()] += 1;
    }
    let shown: u64 = exposures.iter().sum();
    let raters =
        |(item, &exposure): (u32, &u64)| exposure * u64::from(view.snapshot.popularity().raters(ItemIndex(item)));
    let popularity: u64 = (0..).zip(&exposures).map(raters).sum();
    let listed = exposures.iter().enumerate().filter(|&(item, _)| listed.get(item));
    let listed_exposures: Vec<u64> = listed.map(|(_, &exposure)| exposure).collect();
    Some(RankingMetrics {
        parameters,
        ranker: listing.ranker.name.to_owned(),
        items: listing.items,
        users: lists.len() as u64,
        ndcg_at_10: mean_ndcg(lists),
        ndcg_interval: Some(interval(&ndcg_of_users(lists), seed)),
        recall_at_20: mean(lists.iter().map(|list| recall(&list.items, list.relevant, RECALL_AT))),
        coverage_at_20: coverage(&listed_exposures),
        gini: gini(&listed_exposures),
        mean_popularity: popularity as f64 / shown.max(1) as f64,
    })
}

/// A list shown to a user, and the relevant items.
pub(super) struct RankedList<'a> {
    items: Vec<ItemIndex>,
    /// Not empty.
    relevant: &'a [ItemIndex],
    /// Whether the list was made for the user, and not of the most popular items.
    is_personal: bool,
}

/// Returns the lists of new items, by ranker, and how many users each item has.
///
/// `lists`: one for each of `listings`.
pub(super) fn shown_lists(view: &View, listings: &[Listing], lists: &[Vec<RankedList>]) -> ShownLists {
    let popularity = view.snapshot.popularity();
    let list = |list: &RankedList| ShownList {
        items: list.items.clone(),
        is_personal: list.is_personal,
    };
    let new = listings
        .iter()
        .zip(lists)
        .filter(|(listing, _)| listing.items == ItemScope::New);
    ShownLists {
        item_users: (0..popularity.len() as u32)
            .map(|item| popularity.raters(ItemIndex(item)))
            .collect(),
        rankers: new
            .map(|(listing, lists)| RankerLists {
                ranker: listing.ranker.name.to_owned(),
                lists: lists.iter().map(list).collect(),
            })
            .collect(),
    }
}

/// Returns, for each listing, one list for each user with relevant items, in the order of `cases`.
///
/// `users`: the dictionary of the users of `cases`. `repeat_rates`: rep_i by rank; `None` if no listing has own habits.
pub(super) fn ranked_lists<'a>(
    view: &View,
    users: &Dictionary<UserIndex>,
    cases: &'a [EvaluationCase],
    listings: &[Listing],
    repeat_rates: Option<&[f64]>,
) -> Vec<Vec<RankedList<'a>>> {
    let lists_by_user: Vec<Vec<Option<RankedList>>> = cases
        .par_iter()
        .with_min_len(MIN_USERS_PER_SCRATCH)
        .map_init(Scratch::default, |scratch, case| {
            let user = view.snapshot.users().find(users.id(case.user));
            lists_of(view, user, case, listings, repeat_rates, scratch)
        })
        .collect();
    let mut lists: Vec<Vec<RankedList>> = listings.iter().map(|_| Vec::new()).collect();
    for user_lists in lists_by_user {
        for (lists, list) in lists.iter_mut().zip(user_lists) {
            lists.extend(list);
        }
    }
    lists
}

/// Returns one list for each listing; `None` for a listing without relevant items.
///
/// `user`: the index in the snapshot; a user whom it does not know gets popular items.
fn lists_of<'a>(
    view: &View,
    user: Option<UserIndex>,
    case: &'a EvaluationCase,
    listings: &[Listing],
    repeat_rates: Option<&[f64]>,
    scratch: &mut Scratch,
) -> Vec<Option<RankedList<'a>>> {
    let excluded = |scope| -> &[ItemIndex] {
        match scope {
            ItemScope::All => &[],
            ItemScope::New => &case.history,
        }
    };
    let asked = |listing: &&Listing| !case.relevant(listing.items).is_empty();
    let rankings = listings.iter().filter(asked).filter_map(|listing| {
        Some(Ranking {
            limit: LIMIT,
            basis: basis(listing.ranker)?,
            blend: listing.terms.blend,
            excluded: excluded(listing.items),
        })
    });
    let rankings: Vec<Ranking> = rankings.collect();
    let mut ranked = match user {
        Some(user) if !rankings.is_empty() => rank_each(view, user, &rankings, repeat_rates, scratch),
        _ => Vec::new(),
    }
    .into_iter();
    let list = |listing: &Listing| {
        asked(&listing).then(|| {
            let excluded = excluded(listing.items);
            let items = match (listing.ranker.scoring, user) {
                (Scoring::Similarity(_), Some(_)) => ranked.next().unwrap_or_default(),
                (Scoring::ItemWeights, Some(user)) => weighted(view, user, excluded),
                (Scoring::Popularity | Scoring::Trending, _) | (_, None) => Vec::new(),
            };
            RankedList {
                is_personal: !items.is_empty(),
                items: match items.is_empty() {
                    true => popular(view, listing, excluded),
                    false => items,
                },
                relevant: case.relevant(listing.items),
            }
        })
    };
    listings.iter().map(list).collect()
}

/// Returns the basis of a ranker by similarity; `None` for the others.
fn basis(ranker: Ranker) -> Option<Basis> {
    match ranker.scoring {
        Scoring::Similarity(basis) => Some(basis),
        Scoring::Popularity | Scoring::Trending | Scoring::ItemWeights => None,
    }
}

/// Returns the mean NDCG@10 of `lists`, which are not empty.
pub(super) fn mean_ndcg(lists: &[RankedList]) -> f64 {
    mean(lists.iter().map(|list| ndcg(&list.items, list.relevant, NDCG_AT)))
}

/// Returns NDCG@10 of every one of `lists`.
pub(super) fn ndcg_of_users(lists: &[RankedList]) -> Vec<f64> {
    lists
        .iter()
        .map(|list| ndcg(&list.items, list.relevant, NDCG_AT))
        .collect()
}

/// Returns the most popular listed items that are not `excluded`, which ascend: those of all time for that ranker, and for all
/// others as a server falls back.
fn popular(view: &View, listing: &Listing, excluded: &[ItemIndex]) -> Vec<ItemIndex> {
    let popularity = view.snapshot.popularity();
    let score = match (listing.ranker.scoring, listing.terms.trending) {
        (Scoring::Popularity, _) | (_, None) => PopularityScore::Raters(popularity),
        (_, Some(scores)) => PopularityScore::Trending(scores, popularity),
    };
    score.best(LIMIT, None, |item| is_shown(view, item, excluded))
}

/// Returns the best listed items for `user` by learned weights; none if the snapshot has no weights. `excluded`: ascending.
fn weighted(view: &View, user: UserIndex, excluded: &[ItemIndex]) -> Vec<ItemIndex> {
    let history = view.snapshot.ratings().row(user.at()).iter();
    let ranked = rank_by_weights(&view.snapshot, history, LIMIT, |item| is_shown(view, item, excluded));
    ranked.map_or_else(
        |_| Vec::new(),
        |ranked| ranked.into_iter().map(|(item, _)| item).collect(),
    )
}

fn is_shown(view: &View, item: ItemIndex, excluded: &[ItemIndex]) -> bool {
    view.snapshot.catalog().listed.get(item.at()) && excluded.binary_search(&item).is_err()
}
