//! Fits the weights of the blends on the validation part, which the model has not seen and no figure is measured on.
//!
//! This is not in `training`, because fitting a weight needs recommendations, and `training` does not use `ranking`.

use crate::prediction::Estimator;
use crate::ranking::rankers::{BLENDED, Ranker};
use crate::snapshot::dictionary::{Dictionary, UserIndex};
use crate::snapshot::parameters::BlendWeights;
use crate::snapshot::view::View;

use super::held_out::EvaluationCase;
use super::ranking::{Listing, mean_ndcg, ranked_lists};
use super::rating::{BlendSample, RatedCase, blend_samples};
use super::report::{ItemScope, RankerChoice, RankerFigure};

/// The least users or ratings to fit a weight on. With fewer, it stays at its default.
const MIN_SAMPLES: usize = 50;

/// Returns the best weights: those of ratings by least squares, that of the ranking by NDCG@10 on new items over a grid of
/// tenths, where the nearest to one half wins ties.
///
/// `users`: the dictionary of the users of `cases`.
pub(super) fn fit_weights(
    view: &View,
    users: &Dictionary<UserIndex>,
    cases: &[EvaluationCase],
    rated: &[RatedCase],
) -> BlendWeights {
    let default = BlendWeights::default();
    let by_least_squares = |estimator, default| {
        let samples = blend_samples(view, rated, estimator);
        match samples.len() < MIN_SAMPLES {
            true => default,
            false => least_squares(&samples).unwrap_or(default),
        }
    };
    BlendWeights {
        weighted_sum: by_least_squares(Estimator::WeightedSum, default.weighted_sum),
        weighted_mean: by_least_squares(Estimator::WeightedMean, default.weighted_mean),
        baseline: by_least_squares(Estimator::Baseline, default.baseline),
        ranking: best_ranking_weight(view, users, cases),
    }
}

/// Returns the w in [0, 1] that minimizes `Σ (r − (w·i + (1 − w)·u))²`: `Σ (r − u)(i − u) / Σ (i − u)²`, moved to the nearer
/// limit. Returns `None` if the sides never differ.
fn least_squares(samples: &[BlendSample]) -> Option<f64> {
    let (mut products, mut squares) = (0.0, 0.0);
    for &BlendSample { items, users, rating } in samples {
        products += (rating - users) * (items - users);
        squares += (items - users) * (items - users);
    }
    (squares > 0.0).then(|| (products / squares).clamp(0.0, 1.0))
}

fn best_ranking_weight(view: &View, users: &Dictionary<UserIndex>, cases: &[EvaluationCase]) -> f64 {
    if has_too_few_users(cases) {
        return BlendWeights::default().ranking;
    }
    let listings: Vec<Listing> = grid().map(blended).collect();
    let lists = ranked_lists(view, users, cases, &listings);
    let figures: Vec<(f64, f64)> = listings
        .iter()
        .zip(&lists)
        .map(|(listing, lists)| (listing.weight, mean_ndcg(lists)))
        .collect();
    first_of_the_best(&figures)
}

/// Chooses the ranker with the highest NDCG@10 on new items; the first wins ties.
///
/// Chooses the first ranker if there are too few users to tell, and [`BLENDED`] if there are no rankers.
///
/// `weight`: the weight of the item-based side of a blend, 0 to 1.
pub(super) fn choose_ranker(
    view: &View,
    users: &Dictionary<UserIndex>,
    cases: &[EvaluationCase],
    contenders: &[Ranker],
    weight: f64,
) -> (Ranker, RankerChoice) {
    let first = contenders.first().copied().unwrap_or(BLENDED);
    let choice = |ranker: Ranker, figures| {
        let choice = RankerChoice {
            ranker: ranker.name.to_owned(),
            users: n_asked(cases) as u64,
            figures,
        };
        (ranker, choice)
    };
    if contenders.len() < 2 || has_too_few_users(cases) {
        return choice(first, Vec::new());
    }
    let listing = |&ranker: &Ranker| Listing {
        ranker,
        items: ItemScope::New,
        weight,
    };
    let listings: Vec<Listing> = contenders.iter().map(listing).collect();
    let lists = ranked_lists(view, users, cases, &listings);
    let figures: Vec<(Ranker, f64)> = contenders
        .iter()
        .copied()
        .zip(lists.iter().map(|lists| mean_ndcg(lists)))
        .collect();
    let better = |best: (Ranker, f64), next: (Ranker, f64)| if next.1 > best.1 { next } else { best };
    let best = figures.iter().copied().reduce(better).map_or(first, |best| best.0);
    let figure = |(ranker, ndcg_at_10): (Ranker, f64)| RankerFigure {
        ranker: ranker.name.to_owned(),
        ndcg_at_10,
    };
    choice(best, figures.into_iter().map(figure).collect())
}

/// Returns the number of users with a relevant new item.
fn n_asked(cases: &[EvaluationCase]) -> usize {
    let asked = cases.iter().filter(|case| !case.relevant(ItemScope::New).is_empty());
    asked.count()
}

fn has_too_few_users(cases: &[EvaluationCase]) -> bool {
    n_asked(cases) < MIN_SAMPLES
}

fn blended(weight: f64) -> Listing {
    Listing {
        ranker: BLENDED,
        items: ItemScope::New,
        weight,
    }
}

/// Returns the first weight with the best figure. `figures`: weights with their figures, at least one.
fn first_of_the_best(figures: &[(f64, f64)]) -> f64 {
    let better = |best: (f64, f64), next: (f64, f64)| if next.1 > best.1 { next } else { best };
    figures.iter().copied().fold(figures[0], better).0
}

/// Returns the tenths from 0 to 1, the nearest to one half first, the lower of two first.
fn grid() -> impl Iterator<Item = f64> {
    let mut tenths: Vec<u8> = (0..=10).collect();
    tenths.sort_by_key(|&tenth| tenth.abs_diff(5));
    tenths.into_iter().map(|tenth| f64::from(tenth) / 10.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::evaluate::model_before;
    use super::super::held_out::HeldOutParts;
    use super::super::metrics::{mean, ndcg as ndcg_of};
    use super::super::options::EvaluationOptions;
    use super::super::split::Cut;
    use super::super::testing::tastes;
    use super::*;
    use crate::ranking::rank::{RankOptions, Recipient, Scratch, recommend};
    use crate::ranking::rankers::POPULARITY;
    use crate::snapshot::dictionary::ItemIndex;
    use crate::snapshot::parameters::TrainingParameters;
    use crate::snapshot::{Snapshot, SnapshotParts};

    #[test]
    fn the_least_squares_weight_is_found_and_kept_within_0_and_1() {
        let check = |samples: &[(f64, f64, f64)], expected: Option<f64>| {
            let samples: Vec<BlendSample> = samples
                .iter()
                .map(|&(items, users, rating)| BlendSample { items, users, rating })
                .collect();
            match (least_squares(&samples), expected) {
                (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-12, "{found}, not {expected}"),
                (found, expected) => assert_eq!(found, expected),
            }
        };
        // The ratings are exactly 0.3·i + 0.7·u.
        check(&[(4.0, 2.0, 2.6), (1.0, 5.0, 3.8), (3.0, 3.0, 3.0)], Some(0.3));
        // Σ (r − u)(i − u) / Σ (i − u)² = (1·2 + 1·1) / (4 + 1).
        check(&[(4.0, 2.0, 3.0), (2.0, 1.0, 2.0)], Some(0.6));
        check(&[(4.0, 2.0, 5.0)], Some(1.0));
        check(&[(4.0, 2.0, 1.0)], Some(0.0));
        check(&[(3.0, 3.0, 5.0)], None);
    }

    #[test]
    fn the_grid_begins_in_the_middle() {
        let expected = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.0, 1.0];
        assert_eq!(grid().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ties_go_to_the_first_weight() {
        let check = |figures: &[(f64, f64)], expected| assert_eq!(first_of_the_best(figures), expected);
        check(&[(0.5, 0.1), (0.4, 0.1), (0.6, 0.05)], 0.5);
        check(&[(0.5, 0.1), (0.4, 0.2), (0.6, 0.2)], 0.4);
        check(&[(0.5, 0.0), (0.4, 0.0)], 0.5);
    }

    #[test]
    fn the_ranking_weight_and_the_ranker_are_the_best() {
        let input = tastes();
        let parameters = TrainingParameters::default();
        let held_out = HeldOutParts::new(&input, &parameters, &Cut::Latest, &EvaluationOptions::default()).unwrap();
        let weights = BlendWeights::default();
        let view = model_before(&held_out.validation, &input, &held_out, &parameters, weights).unwrap();
        let cases = &held_out.validation.cases;
        // The reference ranks one user at a time, as a server does.
        let ndcg = |ranking| {
            let parts = SnapshotParts {
                weights: BlendWeights { ranking, ..weights },
                ..view.snapshot.parts().clone()
            };
            let view = View {
                snapshot: Arc::new(Snapshot::new(parts).unwrap()),
                ..view.clone()
            };
            let asked: Vec<&EvaluationCase> = cases.iter().filter(|case| !case.relevant_new.is_empty()).collect();
            mean(asked.iter().map(|case| {
                let user = view.snapshot.users().find(input.users.id(case.user)).unwrap();
                let options = RankOptions {
                    limit: 10,
                    exclude_history: true,
                    ..RankOptions::default()
                };
                let found = recommend(&view, &Recipient::UserIndex(user), &options, &mut Scratch::default());
                let items: Vec<ItemIndex> = found.items.iter().map(|item| item.item).collect();
                ndcg_of(&items, &case.relevant_new, 10)
            }))
        };
        let found = best_ranking_weight(&view, &input.users, cases);
        let figures: Vec<(f64, f64)> = grid().map(|weight| (weight, ndcg(weight))).collect();
        let best = figures.iter().map(|figure| figure.1).fold(0.0, f64::max);
        let first = figures.iter().find(|figure| figure.1 == best).unwrap();
        assert_eq!(found, first.0, "{figures:?}");
        assert!(figures.iter().any(|figure| figure.1 < best), "{figures:?}");

        let chosen = |cases, contenders: &[Ranker]| choose_ranker(&view, &input.users, cases, contenders, found).0;
        assert_eq!(chosen(cases, &[POPULARITY, BLENDED]), BLENDED);
        assert_eq!(chosen(cases, &[BLENDED, POPULARITY]), BLENDED);
        assert_eq!(chosen(cases, &[POPULARITY]), POPULARITY);
        assert_eq!(chosen(cases, &[]), BLENDED);

        let few = &cases[..MIN_SAMPLES - 1];
        assert_eq!(chosen(few, &[POPULARITY, BLENDED]), POPULARITY);
        assert_eq!(best_ranking_weight(&view, &input.users, few), 0.5);
        assert_eq!(fit_weights(&view, &input.users, &[], &[]), BlendWeights::default());
    }
}
