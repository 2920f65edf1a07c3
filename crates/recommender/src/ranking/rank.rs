//! Ranks items by the similarity-weighted sum, which is added up from the reverse lists of neighbors.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::parameters::DefaultRanker;
use crate::snapshot::settings::ScoreSettings;
use crate::snapshot::view::{History, View};
use domain::id::UserId;

use super::Basis;
use super::adjust::{Adjusted, AdjustmentTerms, Adjustments, adjust};
use super::explain::{ItemContribution, OwnHabit, PopularLately, SimilarUsers, item_contributions, similar_users};
use super::filter::{CompiledFilter, ItemFilter};
pub use super::kernel::sums::{Blend, Scratch};
use super::kernel::sums::{Factors, n_terms};
use super::kernel::top::Scored;
use super::popular::PopularityScore;
use super::shopper::{Exclusion, Shopper};

#[cfg(test)]
mod tests;

/// The user or visitor to whom items are recommended.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipient<'a> {
    /// A user with their present history, as far as they allow its use.
    User(&'a UserId),
    /// A user as the snapshot knows them, whatever has changed since.
    UserIndex(UserIndex),
    /// An anonymous visitor with the items that they have viewed or put into the cart. These are never recommended.
    Session(History),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct RankOptions {
    pub limit: usize,
    /// `None` for the ranker that training has chosen, which may be popularity.
    pub basis: Option<Basis>,
    pub filter: ItemFilter,
    /// Leaves out the items that the user has bought.
    pub exclude_purchased: bool,
    /// Leaves out the items that the user has rated or bought.
    pub exclude_history: bool,
    pub explain: bool,
    /// `None` to rank by the score alone.
    pub adjustments: Option<Adjustments>,
}

/// Tells how the items of an answer were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personalization {
    /// By similarity to the recipient's history, or to that of similar users.
    Personalized,
    /// By popularity, because nothing more is known or may be used, or because training has chosen popularity and the request
    /// names no basis.
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
    /// The ranking score, above 0, of a personalized item; else the number of users who have rated the item, times its trend
    /// factor where training has chosen that. Adjustments change it, in its units, and may make it 0 or less.
    pub score: f64,
    /// Present when it was requested and the item is personalized.
    pub explanation: Option<ScoreExplanation>,
}

/// The terms of a ranking score; they sum to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreExplanation {
    /// Largest contribution first.
    pub items: Vec<ItemContribution>,
    /// `None` when the basis has no users, or no similar user has rated the item.
    pub similar_users: Option<SimilarUsers>,
    /// `None` where the score has no trend factor.
    pub popular_lately: Option<PopularLately>,
    /// `None` unless own habits count and the user has ordered the item.
    pub own_habit: Option<OwnHabit>,
    /// All 0 where no adjustments were requested.
    pub adjustments: AdjustmentTerms,
}

/// Returns the best `limit` items for `recipient` that pass the filter and the exclusions.
///
/// The item-based score of item i is Σ sim(i, j)·R[u, j] over the j of the history that stand in i's own list. The
/// user-based score is Σ sim(u, v)·R[v, i] over u's neighbors v. The blended score divides each by its maximum over all
/// items of the snapshot and weighs them as fitted; where only one side has a sum above 0 it counts alone, with weight 1. The
/// blend is multiplied with the item's trend factor. Where the user's history is allowed, own habits are added, each of the two
/// divided by its maximum. The maxima are taken before filtering, so that leaving items out never changes the order of the
/// others.
///
/// There are two fits of the weights: one for requests that leave out the history, or a part of it, and one for the others.
/// Without a basis in the options, the ranker of the fit ranks: the blend, or popularity.
///
/// A candidate has a score above 0. If there is none, the answer is the most popular items. Ties are broken by item id.
///
/// A user who objects to profiling also gets the most popular items. The exclusions hold for them all the same: they rank
/// nothing, and nobody wants to be shown again what they have just bought.
///
/// Adjustments choose anew among the best items, personal or popular: see [`Adjustments`].
///
/// Source: docs/formulas.md, "Ranking".
pub fn recommend(view: &View, recipient: &Recipient, options: &RankOptions, scratch: &mut Scratch) -> Recommendations {
    let snapshot = &*view.snapshot;
    let shopper = recipient.shopper(view);
    let filter = CompiledFilter::new(&options.filter, view);
    let exclusion = recipient.exclusion(options);
    let passes = |item: ItemIndex| filter.passes(item) && !shopper.is_excluded(item, exclusion);
    if let Some(adjustments) = &options.adjustments {
        let candidates = Candidates {
            shopper: &shopper,
            exclusion,
            filter: &filter,
            passes,
        };
        return recommend_adjusted(view, &candidates, options, adjustments, scratch);
    }

    if let Some(basis) = basis(snapshot, exclusion, options.basis) {
        let terms = Terms::of(view, exclusion, basis);
        let sums = scratch.add_up(snapshot, &shopper, basis, terms.repeat_rates);
        let factors = sums.factors(basis, &terms.blend);
        let ranked = sums.top(options.limit, factors, passes);
        drop(sums);
        if !ranked.is_empty() {
            let explain = |item| {
                let explain = || explain(snapshot, &shopper, item, factors, terms.repeat_rates);
                options.explain.then(explain)
            };
            return Recommendations::personalized(ranked, explain);
        }
    }
    let score = PopularityScore::of(view);
    let popular = score.best(options.limit, filter.candidates(), passes);
    Recommendations::popular(&score, popular)
}

/// The recipient, and the items that may be recommended to them.
struct Candidates<'a, P> {
    shopper: &'a Shopper<'a>,
    exclusion: Exclusion,
    filter: &'a CompiledFilter<'a>,
    passes: P,
}

/// Ranks as [`recommend`] does, with `adjustments`.
fn recommend_adjusted<P: Fn(ItemIndex) -> bool>(
    view: &View,
    candidates: &Candidates<'_, P>,
    options: &RankOptions,
    adjustments: &Adjustments,
    scratch: &mut Scratch,
) -> Recommendations {
    let snapshot = &*view.snapshot;
    let Candidates {
        shopper,
        exclusion,
        filter,
        passes,
    } = candidates;
    let history = || shopper.ratings().map(|(item, _)| item);
    if let Some(basis) = basis(snapshot, *exclusion, options.basis) {
        let terms = Terms::of(view, *exclusion, basis);
        let sums = scratch.add_up(snapshot, shopper, basis, terms.repeat_rates);
        let factors = sums.factors(basis, &terms.blend);
        let ranked = |limit| sums.top(limit, factors, passes);
        let adjusted = adjust(view, ranked, history(), options.limit, adjustments);
        if !adjusted.is_empty() {
            let recommended = |adjusted: Adjusted| Recommended {
                item: adjusted.item,
                score: adjusted.score,
                explanation: options.explain.then(|| ScoreExplanation {
                    adjustments: adjusted.terms,
                    ..explain(snapshot, shopper, adjusted.item, factors, terms.repeat_rates)
                }),
            };
            return Recommendations {
                personalization: Personalization::Personalized,
                items: adjusted.into_iter().map(recommended).collect(),
            };
        }
    }
    let score = PopularityScore::of(view);
    let popular = |limit| {
        let items = score.best(limit, filter.candidates(), passes).into_iter();
        let scored = |item| Scored {
            score: score.score(item),
            item,
        };
        items.map(scored).collect()
    };
    let adjusted = adjust(view, popular, history(), options.limit, adjustments);
    let recommended = |Adjusted { item, score, .. }| Recommended {
        item,
        score,
        explanation: None,
    };
    Recommendations {
        personalization: Personalization::Popularity,
        items: adjusted.into_iter().map(recommended).collect(),
    }
}

/// Returns the settings that were fitted for such requests.
fn settings(snapshot: &Snapshot, exclusion: Exclusion) -> &ScoreSettings {
    match exclusion {
        Exclusion::Nothing => &snapshot.settings().all_items,
        Exclusion::Purchases | Exclusion::History => &snapshot.settings().new_items,
    }
}

/// Returns the basis to rank on; `None` to rank by popularity. `requested`: `None` for the ranker of the fit.
fn basis(snapshot: &Snapshot, exclusion: Exclusion, requested: Option<Basis>) -> Option<Basis> {
    requested.or(match settings(snapshot, exclusion).ranker {
        DefaultRanker::Blended => Some(Basis::Blended),
        DefaultRanker::Popularity => None,
    })
}

/// The terms of the scores of one request.
struct Terms<'a> {
    blend: Blend<'a>,
    /// rep_i by rank, where own habits count.
    repeat_rates: Option<&'a [f64]>,
}

impl<'a> Terms<'a> {
    /// A basis of one side has no further terms.
    fn of(view: &'a View, exclusion: Exclusion, basis: Basis) -> Self {
        let settings = settings(&view.snapshot, exclusion);
        let terms = view.order_terms().filter(|_| basis == Basis::Blended);
        let (trend, repeat_rates) = match exclusion {
            Exclusion::Nothing => (
                terms.and_then(|terms| terms.all_items.as_ref()),
                terms.and_then(|terms| terms.repeat_rates.as_ref()),
            ),
            Exclusion::Purchases | Exclusion::History => (terms.and_then(|terms| terms.new_items.as_ref()), None),
        };
        Self {
            blend: Blend {
                item_weight: settings.item_weight,
                trend: trend.map(|factors| factors.by_rank()),
                habit_weight: repeat_rates.map_or(0.0, |_| settings.habit_weight),
            },
            repeat_rates: repeat_rates.map(|rates| &rates[..]),
        }
    }
}

impl Recommendations {
    fn personalized(ranked: Vec<Scored>, explain: impl Fn(ItemIndex) -> Option<ScoreExplanation>) -> Self {
        let recommended = |Scored { score, item }| Recommended {
            item,
            score,
            explanation: explain(item),
        };
        Self {
            personalization: Personalization::Personalized,
            items: ranked.into_iter().map(recommended).collect(),
        }
    }

    fn popular(score: &PopularityScore, popular: Vec<ItemIndex>) -> Self {
        let recommended = |item| Recommended {
            item,
            score: score.score(item),
            explanation: None,
        };
        Self {
            personalization: Personalization::Popularity,
            items: popular.into_iter().map(recommended).collect(),
        }
    }
}

impl Recipient<'_> {
    fn shopper<'a>(&self, view: &'a View) -> Shopper<'a> {
        match self {
            Self::User(user) => Shopper::of_user(view, user),
            Self::UserIndex(user) => Shopper::of_index(view, *user),
            Self::Session(history) => Shopper::of_session(view, history),
        }
    }

    fn exclusion(&self, options: &RankOptions) -> Exclusion {
        match self {
            Self::Session(_) => Exclusion::History,
            _ if options.exclude_history => Exclusion::History,
            _ if options.exclude_purchased => Exclusion::Purchases,
            _ => Exclusion::Nothing,
        }
    }
}

/// One list that [`rank_each`] makes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking<'a> {
    pub limit: usize,
    pub basis: Basis,
    /// The weights and factors of a blend; they replace those of the snapshot.
    pub blend: Blend<'a>,
    /// Items to leave out; ascending.
    pub excluded: &'a [ItemIndex],
}

/// Returns, for each of `rankings`, the best listed items for a user as the snapshot knows them.
///
/// Ranks as [`recommend`] does, but adds up the sums, which cost most, only once. A list is empty where no item has a score.
///
/// `repeat_rates`: rep_i by rank; `None` if no ranking has own habits.
pub fn rank_each(
    view: &View,
    user: UserIndex,
    rankings: &[Ranking],
    repeat_rates: Option<&[f64]>,
    scratch: &mut Scratch,
) -> Vec<Vec<ItemIndex>> {
    let listed = &view.snapshot.catalog().listed;
    let shopper = Shopper::of_index(view, user);
    let sums = scratch.add_up(&view.snapshot, &shopper, Basis::Blended, repeat_rates);
    let rank = |ranking: &Ranking| {
        let passes = |item: ItemIndex| listed.get(item.at()) && ranking.excluded.binary_search(&item).is_err();
        let factors = sums.factors(ranking.basis, &ranking.blend);
        let ranked = sums.top(ranking.limit, factors, passes);
        ranked.into_iter().map(|scored| scored.item).collect()
    };
    rankings.iter().map(rank).collect()
}

/// Counts the multiply-adds that [`recommend`] does before it ranks; counting is far cheaper than doing them.
pub fn estimated_work(view: &View, recipient: &Recipient, options: &RankOptions) -> usize {
    let basis = basis(&view.snapshot, recipient.exclusion(options), options.basis);
    basis.map_or(0, |basis| n_terms(&view.snapshot, &recipient.shopper(view), basis))
}

/// `repeat_rates`: rep_i by rank, where own habits count.
fn explain(
    snapshot: &Snapshot,
    shopper: &Shopper,
    item: ItemIndex,
    factors: Factors,
    repeat_rates: Option<&[f64]>,
) -> ScoreExplanation {
    let by_items = |_, similarity: f64, rating: f64| factors.items * similarity * rating;
    let by_users = |_, similarity: f64, rating: f64| factors.users * similarity * rating;
    let items = match factors.items > 0.0 {
        true => item_contributions(snapshot.ranking_item_neighbors(), shopper, item, by_items),
        false => Vec::new(),
    };
    let similar_users = match factors.users > 0.0 {
        true => similar_users(snapshot, shopper, item, by_users),
        false => None,
    };
    let of_items: f64 = items.iter().map(|term| term.contribution).sum();
    let blend = of_items + similar_users.map_or(0.0, |users| users.contribution);
    let rank = snapshot.popularity().rank(item);
    let orders = shopper.orders().find(|&(ordered, _)| ordered == rank);
    let own_habit = repeat_rates.zip(orders).map(|(repeat_rates, (_, orders))| OwnHabit {
        orders,
        contribution: factors.habits * f64::from(orders).sqrt() * repeat_rates[rank as usize],
    });
    ScoreExplanation {
        items,
        similar_users,
        popular_lately: factors.trend.map(|trend| PopularLately {
            factor: trend.value(rank),
            contribution: blend * (trend.value(rank) - 1.0),
        }),
        own_habit,
        adjustments: AdjustmentTerms::default(),
    }
}
