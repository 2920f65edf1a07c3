//! Evaluates parameters: fits a model on the earlier data and measures its answers about the later data.

use std::sync::Arc;

use crate::ranking::rankers::{BLENDED, Ranker};
use crate::snapshot::Snapshot;
use crate::snapshot::overlay::Overlay;
use crate::snapshot::parameters::{BlendWeights, TrainingParameters};
use crate::snapshot::view::View;
use crate::training::fit::{ModelOptions, fit};
use crate::training::input::TrainingInput;
use crate::training::matrix::effective_ratings;
use domain::consent::PrivacyOptions;

use super::bias::shown::ShownLists;
use super::error::EvaluationError;
use super::held_out::{HeldOutPart, HeldOutParts};
use super::ranking::Listing;
use super::rating::rated_cases;
use super::report::{ItemScope, ParametersOf, RankerChoice, RankingMetrics, RatingMetrics, RatingPredictor};
use super::weights::{choose_ranker, fit_weights};
use super::{ranking, rating};

/// The evaluation of one set of parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The blend weights, fitted on the validation part.
    pub weights: BlendWeights,
    /// The ranker chosen on the validation part, where no other ranker that could be chosen does better.
    pub ranker: Ranker,
    /// The choice of that ranker, as it is stored.
    pub choice: RankerChoice,
    /// The number of users with a relevant new item in the test part. The gate needs enough of them.
    pub users: u64,
    /// The metrics of every ranker in both scopes; a scope without users has none.
    pub ranking: Vec<RankingMetrics>,
    /// The metrics of every predictor; empty without held-out ratings of new items.
    pub rating: Vec<RatingMetrics>,
    /// The lists that were measured, for the bias report.
    pub shown: ShownLists,
}

impl Evaluated {
    /// Returns the same figures under another label, for parameters that are equal.
    pub fn relabeled(mut self, of: ParametersOf) -> Self {
        self.ranking.iter_mut().for_each(|metrics| metrics.parameters = of);
        self.rating.iter_mut().for_each(|metrics| metrics.parameters = of);
        self
    }

    /// Returns the metrics of a ranker in a scope; `None` without users.
    pub fn ranking(&self, ranker: Ranker, items: ItemScope) -> Option<&RankingMetrics> {
        let mut ranking = self.ranking.iter();
        ranking.find(|metrics| metrics.ranker == ranker.name && metrics.items == items)
    }
}

/// Evaluates `parameters` on the held-out parts of `input`.
///
/// It fits the blend weights on the validation part, with a model of the data before it, and then measures the figures on the
/// test part, with a model of the data before that. No model sees the data that it is asked about.
///
/// `held_out`: made of this `input`; the same one for all parameters that are compared. Runs on the current rayon pool; the
/// result is the same for any number of threads.
///
/// # Errors
/// None if `held_out` was made of this `input`.
///
/// Source: docs/formulas.md, "Evaluation".
pub fn evaluate(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
    of: ParametersOf,
) -> Result<Evaluated, EvaluationError> {
    let (weights, (ranker, choice)) = choices_on_validation(input, held_out, parameters)?;
    let view = model_before(&held_out.test, input, held_out, parameters, weights)?;
    let rated = rated_cases(input, held_out, &held_out.test, parameters, &view)?;

    let listing = |items, ranker| Listing {
        ranker,
        items,
        weight: weights.ranking,
    };
    let scopes = [ItemScope::All, ItemScope::New].into_iter();
    let listings: Vec<Listing> = scopes
        .flat_map(|items| Ranker::available(&view.snapshot).map(move |ranker| listing(items, ranker)))
        .collect();
    let lists = ranking::ranked_lists(&view, &input.users, &held_out.test.cases, &listings);
    let shown = ranking::shown_lists(&view, &listings, &lists);
    let ranking = listings.into_iter().zip(&lists);
    let ranking = ranking.filter_map(|(listing, lists)| ranking::measure(&view, lists, of, listing));

    let predictors = [
        RatingPredictor::Mean,
        RatingPredictor::ItemBased,
        RatingPredictor::UserBased,
        RatingPredictor::Blended,
    ];
    let rating = predictors.into_iter();
    let rating = rating.filter_map(|predictor| rating::measure(&view, &rated, of, predictor));
    Ok(Evaluated {
        weights,
        ranker,
        choice,
        users: held_out.users() as u64,
        ranking: ranking.collect(),
        rating: rating.collect(),
        shown,
    })
}

/// Fits the weights and chooses the ranker with them.
fn choices_on_validation(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
) -> Result<(BlendWeights, (Ranker, RankerChoice)), EvaluationError> {
    let weights = BlendWeights::default();
    if held_out.validation.cases.is_empty() {
        let choice = RankerChoice {
            ranker: BLENDED.name.to_owned(),
            users: 0,
            figures: Vec::new(),
        };
        return Ok((weights, (BLENDED, choice)));
    }
    let view = model_before(&held_out.validation, input, held_out, parameters, weights)?;
    let rated = rated_cases(input, held_out, &held_out.validation, parameters, &view)?;
    let weights = fit_weights(&view, &input.users, &held_out.validation.cases, &rated);
    let contenders: Vec<Ranker> = Ranker::contenders(&view.snapshot).collect();
    let choice = choose_ranker(
        &view,
        &input.users,
        &held_out.validation.cases,
        &contenders,
        weights.ranking,
    );
    Ok((weights, choice))
}

/// Fits a model of all data before `part`, with the neighbors of the users whom it is asked about.
pub(super) fn model_before(
    part: &HeldOutPart,
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
    weights: BlendWeights,
) -> Result<View, EvaluationError> {
    let is_before = |user, item, at| held_out.split.part(user, item, at) < part.part;
    let effective = effective_ratings(input, parameters, is_before)?;
    let options = ModelOptions {
        parameters,
        weights,
        listed_users: Some(&part.asked),
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
    use crate::ranking::rankers::{ITEM_BASED, POPULARITY, USER_BASED};
    use crate::snapshot::dictionary::ItemIndex;
    use crate::snapshot::parameters::{ImplicitFeedback, TrainingOptions};
    use crate::training::testing::{at, input, order, rating};

    fn evaluated(input: &TrainingInput, parameters: &TrainingParameters, cut: &Cut) -> Evaluated {
        let held_out = HeldOutParts::new(input, parameters, cut, &EvaluationOptions::default()).unwrap();
        evaluate(input, &held_out, parameters, ParametersOf::Candidate).unwrap()
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    #[test]
    fn ranking_metrics_equal_those_worked_out_by_hand() {
        // Before the split i0 and i4 have 3 raters, i1 has 2, i2 has 1, i3 none. i4 is no longer listed.
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
        // Both users are shown [i0, i1, i2, i3]. i0 and i2 are relevant to user 0, i1 to user 2.
        let second = 1.0 / 3f64.log2();
        let ndcg = (1.5 / (1.0 + second) + second) / 2.0;
        check(POPULARITY, ItemScope::All, ndcg, 1.0, 1.0, 0.0, 1.5);
        // The users are shown [i2, i3] and [i1, i3].
        check(POPULARITY, ItemScope::New, 1.0, 1.0, 0.75, 0.5, 0.75);
        // The users are shown [i2] and [i1].
        for ranker in [ITEM_BASED, USER_BASED, BLENDED] {
            check(ranker, ItemScope::New, 1.0, 1.0, 0.5, 2.0 / 3.0, 1.5);
        }
        assert_eq!(found.users, 2);
        assert_eq!(found.ranking.len(), 8);
        assert_eq!(found.weights, BlendWeights::default());
    }

    #[test]
    fn rating_metrics_come_from_a_model_of_earlier_data() {
        let before = [
            rating(0, 0, 4.0, 0),
            rating(0, 1, 2.0, 1),
            rating(1, 0, 5.0, 0),
            rating(1, 1, 3.5, 1),
            rating(1, 2, 1.0, 1),
            rating(2, 2, 4.0, 0),
        ];
        // User 3 has no history, and user 0 has already rated the item that they order later.
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
        let effective = effective_ratings(&earlier, &parameters, |_, _, _| true).unwrap();
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
        let predictors: Vec<RatingPredictor> = found.rating.iter().map(|row| row.predictor).collect();
        use RatingPredictor::{Blended, ItemBased, Mean, UserBased};
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
        for cut in [Cut::Latest, Cut::At { at: at(90) }] {
            let found = evaluated(&tastes(), &TrainingParameters::default(), &cut);
            assert_eq!(found.users, 120);
            let ndcg = |ranker| found.ranking(ranker, ItemScope::New).unwrap().ndcg_at_10;
            for ranker in [ITEM_BASED, USER_BASED, BLENDED] {
                assert!(ndcg(ranker) > 0.5 && ndcg(ranker) > 3.0 * ndcg(POPULARITY), "{found:?}");
            }
        }
    }

    /// Orders of ten different items by every user, independent of one another; items of low numbers are ordered more often.
    fn without_tastes() -> TrainingInput {
        let mut orders = Vec::new();
        for user in 0..200_u32 {
            for hour in 0..10_u32 {
                let share = (mixed(u64::from(user * 10 + hour)) >> 40) as f64 / f64::from(1 << 24);
                orders.push(order(user, (share * share * 60.0) as u32, 10 * hour + user % 10));
            }
        }
        input(200, 60, &[], &orders)
    }

    /// Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators" (SplitMix64).
    fn mixed(number: u64) -> u64 {
        let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[test]
    fn the_chosen_ranker_is_never_below_popularity_on_the_validation_part() {
        let check = |input: &TrainingInput, expected: Ranker| {
            let found = evaluated(input, &TrainingParameters::default(), &Cut::Latest);
            assert_eq!((found.ranker, &*found.choice.ranker), (expected, expected.name));
            let figure = |name: &str| {
                let mut figures = found.choice.figures.iter();
                figures.find(|figure| figure.ranker == name).unwrap().ndcg_at_10
            };
            assert!(figure(expected.name) >= figure(POPULARITY.name), "{:?}", found.choice);
            assert!(figure(expected.name) >= figure(BLENDED.name), "{:?}", found.choice);
        };
        check(&tastes(), BLENDED);
        check(&without_tastes(), POPULARITY);
    }

    #[test]
    fn held_out_data_does_not_change_the_model() {
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
            // The lists are the same; only the relevant items differ.
            assert_eq!((other.gini, other.mean_popularity), (found.gini, found.mean_popularity));
        }
        let ndcg = |evaluated: &Evaluated| evaluated.ranking(BLENDED, ItemScope::New).unwrap().ndcg_at_10;
        assert!(ndcg(&other) < ndcg(&found));
    }

    #[test]
    fn a_model_without_users_shows_popular_items() {
        let parameters = TrainingParameters {
            options: TrainingOptions {
                implicit: ImplicitFeedback::Off,
                ..TrainingOptions::default()
            },
            ..TrainingParameters::default()
        };
        let found = evaluated(&tastes(), &parameters, &Cut::Latest);
        assert_eq!((found.users, found.ranking.len(), found.rating.len()), (120, 8, 0));
        let figures = |ranker| {
            let row = found.ranking(ranker, ItemScope::New).unwrap();
            (row.ndcg_at_10, row.recall_at_20, row.gini)
        };
        assert_eq!(figures(BLENDED), figures(POPULARITY));
    }

    #[test]
    fn no_users_to_evaluate_is_no_error() {
        let nothing = Evaluated {
            weights: BlendWeights::default(),
            ranker: BLENDED,
            choice: RankerChoice {
                ranker: BLENDED.name.to_owned(),
                users: 0,
                figures: Vec::new(),
            },
            users: 0,
            ranking: Vec::new(),
            rating: Vec::new(),
            shown: ShownLists::default(),
        };
        for orders in [&[order(0, 0, 1), order(1, 1, 2)][..], &[]] {
            let input = input(2, 2, &[], orders);
            let found = evaluated(&input, &TrainingParameters::default(), &Cut::Latest);
            assert!(found.shown.rankers.iter().all(|ranker| ranker.lists.is_empty()));
            let shown = ShownLists::default();
            assert_eq!(Evaluated { shown, ..found }, nothing);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let input = tastes();
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| evaluated(&input, &TrainingParameters::default(), &Cut::Latest))
        };
        let one = with_threads(1);
        for threads in [2, 5] {
            assert_eq!(with_threads(threads), one);
        }
    }
}
