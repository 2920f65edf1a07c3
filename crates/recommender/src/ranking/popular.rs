//! Ranks items by popularity, for recipients of whom nothing more is known.

use crate::snapshot::by_rank::{ByRank, RUN};
use crate::snapshot::dictionary::ItemIndex;
use crate::snapshot::popularity::Popularity;
use crate::snapshot::view::View;

use super::kernel::top::{Scored, Top};

/// The score of an item in a ranking by popularity.
#[derive(Debug, Clone, Copy)]
pub enum PopularityScore<'a> {
    /// The number of users who have rated it.
    Raters(&'a Popularity),
    /// That number times the trend factor of the item, by rank.
    Trending(&'a ByRank, &'a Popularity),
}

impl<'a> PopularityScore<'a> {
    /// Returns the score that training has chosen for `view`.
    pub fn of(view: &'a View) -> Self {
        let popularity = view.snapshot.popularity();
        let trending = view.order_terms().and_then(|terms| terms.popularity.as_ref());
        trending.map_or(Self::Raters(popularity), |factors| {
            Self::Trending(factors.by_rank(), popularity)
        })
    }

    /// Returns the score of `item`, at least 0.
    pub fn score(&self, item: ItemIndex) -> f64 {
        match self {
            Self::Raters(popularity) => f64::from(popularity.raters(item)),
            Self::Trending(scores, popularity) => scores.value(popularity.rank(item)),
        }
    }

    /// Returns the `limit` most popular items among those that pass, ties by id; items without raters come last.
    ///
    /// `candidates`: the only items that can pass; `None` if they are not known.
    pub fn best(
        &self,
        limit: usize,
        candidates: Option<&[ItemIndex]>,
        passes: impl Fn(ItemIndex) -> bool,
    ) -> Vec<ItemIndex> {
        let take = |items: &[ItemIndex]| items.iter().copied().filter(|&item| passes(item)).take(limit).collect();
        match (candidates, self) {
            (None, Self::Raters(popularity)) => take(popularity.items()),
            (None, Self::Trending(scores, popularity)) => trending(scores, popularity, limit, passes),
            (Some(candidates), _) => {
                let scored = candidates.iter().map(|&item| Scored {
                    score: self.score(item),
                    item,
                });
                let mut by_popularity: Vec<Scored> = scored.collect();
                by_popularity.sort_unstable();
                let items: Vec<ItemIndex> = by_popularity.into_iter().map(|scored| scored.item).collect();
                take(&items)
            }
        }
    }
}

/// Returns the best `limit` items by `scores`. Runs whose largest score is too small are skipped.
fn trending(
    scores: &ByRank,
    popularity: &Popularity,
    limit: usize,
    passes: impl Fn(ItemIndex) -> bool,
) -> Vec<ItemIndex> {
    let mut top = Top::new(limit, popularity.len());
    for (at, &largest) in scores.maxima().iter().enumerate() {
        if largest < top.least() {
            continue;
        }
        // The last run is filled up with ranks that no item has.
        for (&item, &score) in popularity.items().iter().skip(at * RUN).zip(scores.run(at)) {
            let scored = Scored { score, item };
            if top.admits(scored) && passes(item) {
                top.insert(scored);
            }
        }
    }
    top.into_ranked().into_iter().map(|scored| scored.item).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn trending_items_are_those_that_a_full_sort_puts_first(
            scores in prop::collection::vec(0_u8..9, 0..60),
            limit in 0_usize..70,
            hidden in 0_u32..5,
            candidates in prop::option::of(prop::collection::btree_set(0_u32..60, 0..9)),
        ) {
            let popularity = Popularity::new(&vec![1; scores.len()]);
            let by_rank = ByRank::new(scores.iter().map(|&score| f64::from(score)).collect());
            let passes = |item: ItemIndex| item.0 % 5 != hidden;
            let candidates = candidates.map(|candidates| {
                let known = candidates.into_iter().filter(|&item| (item as usize) < scores.len());
                known.map(ItemIndex).collect::<Vec<_>>()
            });
            let is_candidate = |item: &ItemIndex| candidates.as_ref().is_none_or(|candidates| candidates.contains(item));
            let all = (0..scores.len() as u32).map(ItemIndex);
            let mut expected: Vec<ItemIndex> = all.filter(|&item| passes(item)).filter(is_candidate).collect();
            expected.sort_by_key(|item| (std::cmp::Reverse(scores[item.at()]), *item));
            expected.truncate(limit);
            let found = PopularityScore::Trending(&by_rank, &popularity).best(limit, candidates.as_deref(), passes);
            prop_assert_eq!(found, expected);
        }
    }
}
