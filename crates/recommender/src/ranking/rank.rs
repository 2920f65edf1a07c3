//! Ranked items: the similarity-weighted sum, served from transposed lists.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::view::{History, View};
use domain::id::UserId;

use super::Basis;
use super::explain::{ItemContribution, SimilarUsers, item_contributions, similar_users};
use super::filter::{CompiledFilter, ItemFilter};
pub use super::kernel::sums::Scratch;
use super::kernel::sums::{Factors, n_terms};
use super::kernel::top::Scored;
use super::popular::most_popular;
use super::shopper::Shopper;

#[cfg(test)]
mod tests;

/// Whom to recommend to.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject<'a> {
    /// As they are now, and as far as they have not objected.
    User(&'a UserId),
    /// As the snapshot knows them, whatever has changed since.
    UserIndex(UserIndex),
    /// An anonymous visitor: what they have looked at or put into the cart. These items are never recommended.
    Session(History),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct RankOptions {
    pub limit: usize,
    pub basis: Basis,
    pub filter: ItemFilter,
    /// Leaves out what the user has bought.
    pub exclude_purchased: bool,
    /// Leaves out all that the user has rated or bought.
    pub exclude_history: bool,
    pub explain: bool,
}

/// Why these items are in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personalization {
    /// Scored by similarity.
    Personalized,
    /// The most popular: nothing is known, or may be used, that could tell more.
    Popularity,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Recommendations {
    pub personalization: Personalization,
    /// Best first.
    pub items: Vec<Recommended>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Recommended {
    pub item: ItemIndex,
    /// Personalized: the ranking score, above 0; by popularity: the number of raters.
    pub score: f64,
    /// Present when asked for and personalized.
    pub explanation: Option<ScoreExplanation>,
}

/// The terms of a ranking score; they sum to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreExplanation {
    /// Largest contribution first.
    pub items: Vec<ItemContribution>,
    /// `None` when no similar user has rated the item, or they were not asked.
    pub similar_users: Option<SimilarUsers>,
}

/// The best `limit` items for `subject` that pass the filter and the exclusions.
///
/// Item-based: Σ sim(i, j)·R[u, j] over the j of the history that stand in i's own list; user-based:
/// Σ sim(u, v)·R[v, i] over u's neighbors v; blended: each divided by its maximum over the user's candidates, then
/// weighted as fitted. Where only one side has candidates it stands alone, with weight 1. Candidates have a score
/// above 0; without any the answer is the most popular items. Ties by item id.
///
/// Who has objected to profiling gets the most popular items too. The exclusions hold for them all the same: they rank
/// nothing, and nobody wants to be shown again what they have just bought.
///
/// Source: ARCHITECTURE.md, "Ranking".
pub fn recommend(view: &View, subject: &Subject, options: &RankOptions, scratch: &mut Scratch) -> Recommendations {
    let shopper = shopper(view, subject);
    let filter = CompiledFilter::new(&options.filter, view);
    let exclude_history = options.exclude_history || matches!(subject, Subject::Session(_));
    let passes = |item: ItemIndex| {
        filter.passes(item)
            && !(exclude_history && shopper.has_rated(item))
            && !(options.exclude_purchased && shopper.has_purchased(item))
    };

    scratch.add_all(&view.snapshot, &shopper, options.basis);
    scratch.find_runs();
    let popularity = view.snapshot.popularity();
    let factors = scratch.factors(options.basis, view.snapshot.weights().ranking, popularity, passes);
    let ranked = scratch.top(options.limit, factors, popularity, passes);
    scratch.clear();

    if ranked.is_empty() {
        return Recommendations {
            personalization: Personalization::Popularity,
            items: most_popular(&view.snapshot, options.limit, filter.candidates(), passes)
                .into_iter()
                .map(|item| Recommended {
                    item,
                    score: f64::from(view.snapshot.popularity().raters(item)),
                    explanation: None,
                })
                .collect(),
        };
    }
    Recommendations {
        personalization: Personalization::Personalized,
        items: ranked
            .into_iter()
            .map(|Scored { score, item }| Recommended {
                item,
                score,
                explanation: options
                    .explain
                    .then(|| explain(&view.snapshot, &shopper, item, factors)),
            })
            .collect(),
    }
}

/// One of the ways in which [`rank_each`] ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking<'a> {
    pub limit: usize,
    pub basis: Basis,
    /// Of the item-based side of a blend, in [0, 1], whatever the snapshot says.
    pub weight: f64,
    /// Left out; ascending.
    pub excluded: &'a [ItemIndex],
}

/// The best listed items for a user as the snapshot knows them, by each of `rankings`: as [`recommend`] ranks, but the sums,
/// which cost most, are added up once for all. A list is empty where nothing has a score.
pub fn rank_each(view: &View, user: UserIndex, rankings: &[Ranking], scratch: &mut Scratch) -> Vec<Vec<ItemIndex>> {
    let listed = &view.snapshot.catalog().listed;
    scratch.add_all(&view.snapshot, &Shopper::of_index(view, user), Basis::Blended);
    scratch.find_runs();
    let rank = |ranking: &Ranking| {
        let passes = |item: ItemIndex| listed.get(item.at()) && ranking.excluded.binary_search(&item).is_err();
        let popularity = view.snapshot.popularity();
        let factors = scratch.factors(ranking.basis, ranking.weight, popularity, passes);
        let ranked = scratch.top(ranking.limit, factors, popularity, passes);
        ranked.into_iter().map(|scored| scored.item).collect()
    };
    let lists = rankings.iter().map(rank).collect();
    scratch.clear();
    lists
}

/// The multiply-adds that [`recommend`] will do before it ranks; far cheaper than doing them.
pub fn estimated_work(view: &View, subject: &Subject, basis: Basis) -> usize {
    n_terms(&view.snapshot, &shopper(view, subject), basis)
}

fn shopper<'a>(view: &'a View, subject: &Subject) -> Shopper<'a> {
    match subject {
        Subject::User(user) => Shopper::of_user(view, user),
        Subject::UserIndex(user) => Shopper::of_index(view, *user),
        Subject::Session(history) => Shopper::of_session(view, history),
    }
}

fn explain(snapshot: &Snapshot, shopper: &Shopper, item: ItemIndex, factors: Factors) -> ScoreExplanation {
    let items = |_, similarity: f64, rating: f64| factors.items * similarity * rating;
    let users = |_, similarity: f64, rating: f64| factors.users * similarity * rating;
    ScoreExplanation {
        items: match factors.items > 0.0 {
            true => item_contributions(snapshot, shopper, item, items),
            false => Vec::new(),
        },
        similar_users: match factors.users > 0.0 {
            true => similar_users(snapshot, shopper, item, users),
            false => None,
        },
    }
}
