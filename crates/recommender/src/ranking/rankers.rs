//! The rankers that are evaluated, by name, and from which training chooses.
//!
//! # Adding a ranker
//!
//! Add an entry to [`RANKERS`]. One that sums learned weights over the user's history needs nothing else: it is
//! [`Scoring::ItemWeights`], and its weights are the part `item_weights` of the snapshot. Another kind of score is another
//! variant of [`Scoring`]. `BASIS_*` on the wire is not a list of rankers: it says whose similarity an answer rests on,
//! and stays as it is.
//!
//! # Scores that are not above 0
//!
//! A sum of similarities is above 0 for every item that anything speaks for, so items with a score of 0 are no candidates
//! there. A sum of signed weights may be below 0: the history then speaks against the item. [`rank_by_weights`] therefore
//! ranks all items: those above 0, then those of which nothing is known (exactly 0), then those below 0. Equal scores
//! stand in order of popularity, so that a user without history gets the most popular items, as from the other rankers.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::ItemIndex;
use crate::snapshot::parameters::DefaultRanker;
use crate::snapshot::parts::Absence;

use super::Basis;

/// One entry of [`RANKERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranker {
    /// Names the ranker in stored evaluations and in answers; it never changes.
    pub name: &'static str,
    pub scoring: Scoring,
    pub role: Role,
}

/// The score by which a ranker orders items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// The number of users who rated an item, whoever is asked for.
    Popularity,
    /// That number times the trend factor of the item.
    Trending,
    /// The similarity-weighted sum of [`rank`](super::rank).
    Similarity(Basis),
    /// The sum over the user's history of the item's learned weight times the rating: [`rank_by_weights`].
    ItemWeights,
}

/// The use that is made of a ranker's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Competes as well, and is chosen only where it does better than all [`Role::Competing`] rankers.
    Fallback,
    /// Evaluated for people to read only.
    Reported,
    /// Training chooses the ranker that does best on the validation part; the gate judges that one.
    Competing,
}

pub const POPULARITY: Ranker = Ranker {
    name: "popularity",
    scoring: Scoring::Popularity,
    role: Role::Fallback,
};
pub const TRENDING: Ranker = Ranker {
    name: "trending",
    scoring: Scoring::Trending,
    role: Role::Fallback,
};
pub const ITEM_BASED: Ranker = Ranker {
    name: "item_based",
    scoring: Scoring::Similarity(Basis::ItemBased),
    role: Role::Reported,
};
pub const USER_BASED: Ranker = Ranker {
    name: "user_based",
    scoring: Scoring::Similarity(Basis::UserBased),
    role: Role::Reported,
};
pub const BLENDED: Ranker = Ranker {
    name: "blended",
    scoring: Scoring::Similarity(Basis::Blended),
    role: Role::Competing,
};

/// All rankers, in the order in which their figures are reported. Of equals that compete the first is chosen.
pub const RANKERS: &[Ranker] = &[POPULARITY, TRENDING, ITEM_BASED, USER_BASED, BLENDED];

impl Ranker {
    /// Returns the entries of this role, in order.
    pub fn with_role(role: Role) -> impl Iterator<Item = Self> {
        RANKERS.iter().copied().filter(move |ranker| ranker.role == role)
    }

    /// Returns the entries whose parts `snapshot` holds, in order.
    pub fn available(snapshot: &Snapshot) -> impl Iterator<Item = Self> {
        let is_available = |ranker: &Self| ranker.check_available(snapshot).is_ok();
        RANKERS.iter().copied().filter(is_available)
    }

    /// Returns the ranker of requests without a basis. `trend_exponent`: that of popularity.
    pub fn of_default(default: DefaultRanker, trend_exponent: f64) -> Self {
        match default {
            DefaultRanker::Blended => BLENDED,
            DefaultRanker::Popularity if trend_exponent > 0.0 => TRENDING,
            DefaultRanker::Popularity => POPULARITY,
        }
    }

    /// # Errors
    /// The reason why `snapshot` does not hold a part that the ranker needs.
    pub fn check_available(&self, snapshot: &Snapshot) -> Result<(), Absence> {
        match self.scoring {
            Scoring::Popularity | Scoring::Similarity(_) => Ok(()),
            Scoring::Trending => match snapshot.order_terms().and_then(|terms| terms.popularity.as_ref()) {
                Some(_) => Ok(()),
                None => Err(Absence::NotWritten),
            },
            Scoring::ItemWeights => snapshot.reverse_item_weights().map(|_| ()),
        }
    }
}

/// Ranks all items that pass by Σ w(i, j)·R[u, j] over the items j of a history, where w(i, j) is the learned weight of j
/// in the list of i; best first, equals by popularity and then id.
///
/// `history`: items and their ratings. Returns at most `limit` items and their scores, which are finite and of any sign.
///
/// # Errors
/// The reason why the snapshot has no item weights.
pub fn rank_by_weights(
    snapshot: &Snapshot,
    history: impl Iterator<Item = (ItemIndex, f32)>,
    limit: usize,
    passes: impl Fn(ItemIndex) -> bool,
) -> Result<Vec<(ItemIndex, f64)>, Absence> {
    let reverse_weights = snapshot.reverse_item_weights()?;
    let popularity = snapshot.popularity();
    let mut sums = vec![0.0; popularity.len()];
    for (item, rating) in history {
        let (ranks, weights) = reverse_weights.row(item);
        for (at, &weight) in weights.iter().enumerate() {
            sums[ranks.get(at) as usize] += f64::from(weight) * f64::from(rating);
        }
    }
    // The sums stand by rank, and the sort keeps equals in their order, which is that of popularity.
    let by_popularity = popularity.items().iter().copied().zip(sums);
    let mut ranked: Vec<(ItemIndex, f64)> = by_popularity.filter(|&(item, _)| passes(item)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(limit);
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::SnapshotParts;
    use crate::snapshot::fixture::{EXAMPLE, any_parts, snapshot_parts};
    use crate::snapshot::parts::Optional;
    use similarity::lists::WeightLists;

    #[test]
    fn every_ranker_has_a_name_of_its_own_and_one_competes() {
        let names: std::collections::BTreeSet<_> = RANKERS.iter().map(|ranker| ranker.name).collect();
        assert_eq!(names.len(), RANKERS.len());
        assert_ne!(Ranker::with_role(Role::Competing).count(), 0);
    }

    #[test]
    fn popularity_trends_where_that_was_chosen() {
        assert_eq!(Ranker::of_default(DefaultRanker::Blended, 0.5), BLENDED);
        assert_eq!(Ranker::of_default(DefaultRanker::Popularity, 0.5), TRENDING);
        assert_eq!(Ranker::of_default(DefaultRanker::Popularity, 0.0), POPULARITY);
    }

    /// Item 0 has weights for 1 and 3, item 2 for 3.
    fn weighted() -> Snapshot {
        let lists = WeightLists::new(5, vec![0, 2, 2, 3, 3, 3], vec![1, 3, 3], vec![-0.5, 1.5, -2.0]).unwrap();
        Snapshot::new(SnapshotParts {
            item_weights: Optional::Present(lists),
            ..snapshot_parts(&EXAMPLE)
        })
        .unwrap()
    }

    #[test]
    fn items_that_history_speaks_against_stand_behind_those_nothing_is_known_of() {
        let snapshot = weighted();
        let check = |history: &[(u32, f32)], expected: &[(u32, f64)]| {
            let history = history.iter().map(|&(item, rating)| (ItemIndex(item), rating));
            let ranked = rank_by_weights(&snapshot, history, 9, |_| true).unwrap();
            let ranked: Vec<(u32, f64)> = ranked.into_iter().map(|(item, score)| (item.0, score)).collect();
            assert_eq!(ranked, expected);
        };
        // Item 3 has 3 raters, items 0 and 4 have 2, items 1 and 2 have 1.
        check(&[], &[(3, 0.0), (0, 0.0), (4, 0.0), (1, 0.0), (2, 0.0)]);
        check(&[(3, 2.0)], &[(0, 3.0), (3, 0.0), (4, 0.0), (1, 0.0), (2, -4.0)]);
        check(
            &[(1, 3.0), (3, 1.0)],
            &[(3, 0.0), (0, 0.0), (4, 0.0), (1, 0.0), (2, -2.0)],
        );
    }

    #[test]
    fn a_ranker_without_its_part_says_why() {
        let ranker = Ranker {
            name: "learned",
            scoring: Scoring::ItemWeights,
            role: Role::Competing,
        };
        assert_eq!(ranker.check_available(&weighted()), Ok(()));
        let without = Snapshot::new(snapshot_parts(&EXAMPLE)).unwrap();
        assert_eq!(ranker.check_available(&without), Err(Absence::NotWritten));
        let ranked = rank_by_weights(&without, std::iter::empty(), 9, |_| true);
        assert_eq!(ranked, Err(Absence::NotWritten));
        assert!(Ranker::available(&without).eq([POPULARITY, ITEM_BASED, USER_BASED, BLENDED]));
    }

    /// Scores by the definition, over the lists as they are stored.
    fn plain_scores(lists: &WeightLists, history: &[(ItemIndex, f32)]) -> Vec<f64> {
        let score = |item: usize| {
            let (targets, weights) = lists.row(item);
            let weight = |item: ItemIndex| {
                targets
                    .iter()
                    .position(|&target| target == item.0)
                    .map(|at| weights[at])
            };
            let terms = history
                .iter()
                .filter_map(|&(item, rating)| Some((weight(item)?, rating)));
            terms.fold(0.0, |sum, (weight, rating)| sum + f64::from(weight) * f64::from(rating))
        };
        (0..lists.n_rows()).map(score).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            parts in any_parts().prop_filter("weights", |parts| parts.item_weights.get().is_ok()),
            ratings in prop::collection::vec(0_u8..6, 7),
            limit in 0_usize..9,
            excluded in 0_u32..7,
        ) {
            let snapshot = Snapshot::new(parts.clone()).unwrap();
            let history: Vec<(ItemIndex, f32)> = (0..parts.items.len() as u32).zip(&ratings)
                .filter(|&(_, &rating)| rating > 0)
                .map(|(item, &rating)| (ItemIndex(item), f32::from(rating)))
                .collect();
            let scores = plain_scores(parts.item_weights.get().unwrap(), &history);
            let mut expected: Vec<u32> = (0..parts.items.len() as u32).filter(|&item| item != excluded).collect();
            let rank = |item: u32| snapshot.popularity().rank(ItemIndex(item));
            expected.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(rank(a).cmp(&rank(b))));
            expected.truncate(limit);
            let ranked = rank_by_weights(&snapshot, history.iter().copied(), limit, |item| item.0 != excluded).unwrap();
            let items: Vec<u32> = ranked.iter().map(|(item, _)| item.0).collect();
            prop_assert_eq!(items, expected);
            for (item, score) in ranked {
                prop_assert_eq!(score, scores[item.at()]);
            }
        }
    }
}
