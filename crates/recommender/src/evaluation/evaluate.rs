//! How good a model with some parameters is: fitted on what came first, asked about what came later.

use std::sync::Arc;

use crate::snapshot::Snapshot;
use crate::snapshot::overlay::Overlay;
use crate::snapshot::parameters::{BlendWeights, TrainingParameters};
use crate::snapshot::view::View;
use crate::training::fit::{ModelOptions, fit};
use crate::training::input::TrainingInput;
use crate::training::matrix::effective_ratings;
use domain::consent::PrivacyOptions;

use super::error::EvaluationError;
use super::holdout::{Holdout, Period};
use super::ranking::Listing;
use super::rating::rated_cases;
use super::report::{ItemScope, ParametersOf, Predictor, Ranker, RankingMetrics, RatingMetrics};
use super::weights::fit_weights;
use super::{ranking, rating};

/// What was found about one set of parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Fitted on the validation part.
    pub weights: BlendWeights,
    /// Users with a new item to find, of whom the gate wants enough.
    pub users: u64,
    /// Every ranker in both scopes; none in a scope without users.
    pub ranking: Vec<RankingMetrics>,
    /// Every predictor; none without held-out ratings of new items.
    pub rating: Vec<RatingMetrics>,
}

impl Evaluated {
    /// The same figures, of other parameters that are equal.
    pub fn relabeled(mut self, of: ParametersOf) -> Self {
        self.ranking.iter_mut().for_each(|metrics| metrics.parameters = of);
        self.rating.iter_mut().for_each(|metrics| metrics.parameters = of);
        self
    }

    /// `None` when nobody could be asked.
    pub fn ranking(&self, ranker: Ranker, items: ItemScope) -> Option<&RankingMetrics> {
        let mut ranking = self.ranking.iter();
        ranking.find(|metrics| metrics.ranker == ranker && metrics.items == items)
    }
}

/// Fits the weights on the validation part with a model of what came before it, then the figures on the test part with
/// a model of what came before that. No model ever sees what it is asked about.
///
/// `holdout`: of this `input`; the same one for all parameters that are to be compared. Runs on the rayon pool it is
/// called in; the result is the same for any number of threads.
///
/// # Errors
/// None for a `holdout` of this `input`.
///
/// Source: ARCHITECTURE.md, "Evaluation".
pub fn evaluate(
    input: &TrainingInput,
    holdout: &Holdout,
    parameters: &TrainingParameters,
    of: ParametersOf,
) -> Result<Evaluated, EvaluationError> {
    let weights = weights_on_validation(input, holdout, parameters)?;
    let view = model_before(&holdout.test, input, holdout, parameters, weights)?;
    let rated = rated_cases(input, holdout, &holdout.test, parameters, &view)?;

    let rankers = [
        Ranker::Popularity,
        Ranker::ItemBased,
        Ranker::UserBased,
        Ranker::Blended,
    ];
    let listing = |items, ranker| Listing {
        ranker,
        items,
        weight: weights.ranking,
    };
    let scopes = [ItemScope::All, ItemScope::New].into_iter();
    let listings: Vec<Listing> = scopes
        .flat_map(|items| rankers.map(|ranker| listing(items, ranker)))
        .collect();
    let lists = ranking::ranked_lists(&view, &input.users, &holdout.test.cases, &listings);
    let ranking = listings.into_iter().zip(&lists);
    let ranking = ranking.filter_map(|(listing, lists)| ranking::measure(&view, lists, of, listing));

    let predictors = [
        Predictor::Mean,
        Predictor::ItemBased,
        Predictor::UserBased,
        Predictor::Blended,
    ];
    let rating = predictors.into_iter();
    let rating = rating.filter_map(|predictor| rating::measure(&view, &rated, of, predictor));
    Ok(Evaluated {
        weights,
        users: holdout.users() as u64,
        ranking: ranking.collect(),
        rating: rating.collect(),
    })
}

fn weights_on_validation(
    input: &TrainingInput,
    holdout: &Holdout,
    parameters: &TrainingParameters,
) -> Result<BlendWeights, EvaluationError> {
    let weights = BlendWeights::default();
    if holdout.validation.cases.is_empty() {
        return Ok(weights);
    }
    let view = model_before(&holdout.validation, input, holdout, parameters, weights)?;
    let rated = rated_cases(input, holdout, &holdout.validation, parameters, &view)?;
    Ok(fit_weights(&view, &input.users, &holdout.validation.cases, &rated))
}

/// A model of everything before the period, with the neighbors of those who are asked about it.
pub(super) fn model_before(
    period: &Period,
    input: &TrainingInput,
    holdout: &Holdout,
    parameters: &TrainingParameters,
    weights: BlendWeights,
) -> Result<View, EvaluationError> {
    let effective = effective_ratings(input, parameters, |user, at| holdout.split.part(user, at) < period.part)?;
    let options = ModelOptions {
        parameters,
        weights,
        listed_users: Some(&period.asked),
    };
    let parts = fit(input, effective, &options, &|_| {})?;
    Ok(View {
        version: 0,
        snapshot: Arc::new(Snapshot::new(parts)?),
        overlay: Arc::new(Overlay::default()),
        epoch: 0,
        privacy: PrivacyOptions::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::options::EvaluationOptions;
    use super::super::split::Cut;
    use super::super::testing::tastes;
    use super::*;
    use crate::snapshot::dictionary::ItemIndex;
    use crate::snapshot::parameters::{ImplicitFeedback, TrainingOptions};
    use crate::training::testing::{at, input, order, rating};

    fn evaluated(input: &TrainingInput, parameters: &TrainingParameters, cut: &Cut) -> Evaluated {
        let holdout = Holdout::new(input, parameters, cut, &EvaluationOptions::default()).unwrap();
        evaluate(input, &holdout, parameters, ParametersOf::Candidate).unwrap()
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    #[test]
    fn ranking_figures_by_hand() {
        // Raters before the cut: i0 and i4 3, i1 2, i2 1, i3 none; i4 is not listed any more.
        let before = [
            order(0, 0, 0),
            order(0, 1, 1),
            order(0, 4, 1),
            order(1, 0, 0),
            order(1, 1, 1),
            order(1, 4, 1),
            order(2, 0, 0),
            order(2, 2, 1),
            order(2, 4, 1),
        ];
        let after = [order(0, 0, 10), order(0, 2, 10), order(2, 1, 11)];
        let mut input = input(3, 5, &[], &[&before[..], &after[..]].concat());
        input.catalog.listed.set(4, false);
        let found = evaluated(&input, &TrainingParameters::default(), &Cut::At { at: at(10) });
        let check = |ranker, items, ndcg, recall, coverage, gini, popularity| {
            let row = found.ranking(ranker, items).unwrap();
            assert_eq!((row.users, row.parameters), (2, ParametersOf::Candidate));
            near(row.ndcg_at_10, ndcg);
            near(row.recall_at_20, recall);
            near(row.coverage_at_20, coverage);
            near(row.gini, gini);
            near(row.mean_popularity, popularity);
        };
        // [i0, i1, i2, i3] to both: user 0 looks for i0 and i2, user 2 for i1.
        let second = 1.0 / 3f64.log2();
        let ndcg = (1.5 / (1.0 + second) + second) / 2.0;
        check(Ranker::Popularity, ItemScope::All, ndcg, 1.0, 1.0, 0.0, 1.5);
        // [i2, i3] and [i1, i3].
        check(Ranker::Popularity, ItemScope::New, 1.0, 1.0, 0.75, 0.5, 0.75);
        // [i2] and [i1].
        for ranker in [Ranker::ItemBased, Ranker::UserBased, Ranker::Blended] {
            check(ranker, ItemScope::New, 1.0, 1.0, 0.5, 2.0 / 3.0, 1.5);
        }
        assert_eq!(found.users, 2);
        assert_eq!(found.ranking.len(), 8);
        assert_eq!(found.weights, BlendWeights::default());
    }

    #[test]
    fn rating_figures_are_those_of_the_model_of_what_came_before() {
        let before = [
            rating(0, 0, 4.0, 0),
            rating(0, 1, 2.0, 1),
            rating(1, 0, 5.0, 0),
            rating(1, 1, 3.5, 1),
            rating(1, 2, 1.0, 1),
            rating(2, 2, 4.0, 0),
        ];
        // User 3 had nothing before, and user 0 has already rated the item that they order then.
        let after = [
            rating(0, 2, 3.0, 10),
            rating(2, 0, 1.5, 10),
            rating(2, 3, 5.0, 11),
            rating(3, 3, 1.0, 10),
        ];
        let orders = [order(0, 0, 12)];
        let cut = Cut::At { at: at(10) };
        let all = input(4, 4, &[&before[..], &after[..]].concat(), &orders);
        let parameters = TrainingParameters::default();
        let found = evaluated(&all, &parameters, &cut);

        let earlier = input(4, 4, &before, &[]);
        let effective = effective_ratings(&earlier, &parameters, |_, _| true).unwrap();
        let options = ModelOptions {
            parameters: &parameters,
            weights: BlendWeights::default(),
            listed_users: None,
        };
        let biases = fit(&earlier, effective, &options, &|_| {}).unwrap().biases;
        let error = |user: usize, item: usize, rating: f64| {
            let expected = biases.global_mean + f64::from(biases.users[user]) + f64::from(biases.items[item]);
            expected - rating
        };
        let errors = [error(0, 2, 3.0), error(2, 0, 1.5), error(2, 3, 5.0)];
        let predictors: Vec<Predictor> = found.rating.iter().map(|row| row.predictor).collect();
        use Predictor::{Blended, ItemBased, Mean, UserBased};
        assert_eq!(predictors, [Mean, ItemBased, UserBased, Blended]);
        assert!(found.rating.iter().all(|row| row.ratings == 3));
        near(
            found.rating[0].mae,
            errors.iter().map(|error| error.abs()).sum::<f64>() / 3.0,
        );
        near(
            found.rating[0].rmse,
            (errors.iter().map(|error| error * error).sum::<f64>() / 3.0).sqrt(),
        );
        assert_ne!(found.rating[1].rmse, found.rating[0].rmse);
        assert_ne!(found.rating[2].rmse, found.rating[1].rmse);
    }

    #[test]
    fn lists_by_taste_beat_popularity() {
        for cut in [Cut::PerUser, Cut::At { at: at(90) }] {
            let found = evaluated(&tastes(), &TrainingParameters::default(), &cut);
            assert_eq!(found.users, 120);
            let ndcg = |ranker| found.ranking(ranker, ItemScope::New).unwrap().ndcg_at_10;
            for ranker in [Ranker::ItemBased, Ranker::UserBased, Ranker::Blended] {
                assert!(
                    ndcg(ranker) > 0.5 && ndcg(ranker) > 3.0 * ndcg(Ranker::Popularity),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_asked_teaches_nothing() {
        let input = tastes();
        let cut = Cut::At { at: at(90) };
        let found = evaluated(&input, &TrainingParameters::default(), &cut);
        let mut elsewhere = input.clone();
        for event in elsewhere.orders.iter_mut().filter(|event| event.ordered_at >= at(90)) {
            event.item = ItemIndex((event.item.0 + 12) % 48);
        }
        let other = evaluated(&elsewhere, &TrainingParameters::default(), &cut);
        assert_eq!(other.weights, found.weights);
        for (other, found) in other.ranking.iter().zip(&found.ranking) {
            // The same lists, to look for something else in.
            assert_eq!((other.gini, other.mean_popularity), (found.gini, found.mean_popularity));
        }
        let ndcg = |evaluated: &Evaluated| evaluated.ranking(Ranker::Blended, ItemScope::New).unwrap().ndcg_at_10;
        assert!(ndcg(&other) < ndcg(&found));
    }

    #[test]
    fn a_model_that_knows_nobody_shows_what_is_popular() {
        let parameters = TrainingParameters {
            options: TrainingOptions {
                implicit: ImplicitFeedback::Off,
                ..TrainingOptions::default()
            },
            ..TrainingParameters::default()
        };
        let found = evaluated(&tastes(), &parameters, &Cut::PerUser);
        assert_eq!((found.users, found.ranking.len(), found.rating.len()), (120, 8, 0));
        let figures = |ranker| {
            let row = found.ranking(ranker, ItemScope::New).unwrap();
            (row.ndcg_at_10, row.recall_at_20, row.gini)
        };
        assert_eq!(figures(Ranker::Blended), figures(Ranker::Popularity));
    }

    #[test]
    fn nobody_to_ask_is_no_error() {
        let nothing = Evaluated {
            weights: BlendWeights::default(),
            users: 0,
            ranking: Vec::new(),
            rating: Vec::new(),
        };
        for orders in [&[order(0, 0, 1), order(1, 1, 2)][..], &[]] {
            let input = input(2, 2, &[], orders);
            let found = evaluated(&input, &TrainingParameters::default(), &Cut::PerUser);
            assert_eq!(found, nothing);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let input = tastes();
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| evaluated(&input, &TrainingParameters::default(), &Cut::PerUser))
        };
        let one = with_threads(1);
        for threads in [2, 5] {
            assert_eq!(with_threads(threads), one);
        }
    }
}
