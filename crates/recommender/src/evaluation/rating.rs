//! Gets predicted ratings from a model and measures their errors.

use rayon::prelude::*;

use crate::prediction::{self, Baseline, Estimator, PredictOptions};
use crate::ranking::Basis;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::overlay::ItemRef;
use crate::snapshot::parameters::TrainingParameters;
use crate::snapshot::view::View;
use crate::training::error::TrainingError;
use crate::training::input::TrainingInput;
use crate::training::matrix::effective_ratings;

use super::held_out::{HeldOutPart, HeldOutParts};
use super::metrics::{mae, rmse};
use super::report::{ParametersOf, RatingMetrics, RatingPredictor};

/// A user of the snapshot and their held-out ratings.
pub(super) struct RatedCase {
    user: UserIndex,
    /// Ratings of items that were neither rated nor bought before.
    ratings: Vec<(ItemIndex, f64)>,
}

/// Returns the effective ratings of the held-out events, by these parameters, of the users whom the model knows.
pub(super) fn rated_cases(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    part: &HeldOutPart,
    parameters: &TrainingParameters,
    view: &View,
) -> Result<Vec<RatedCase>, TrainingError> {
    let keep = |user, item, at| part.holds(&held_out.split, user, item, at);
    let held_out = effective_ratings(input, parameters, keep)?.ratings;
    let rated = part.cases.iter().filter_map(|case| {
        let user = view.snapshot.users().find(input.users.id(case.user))?;
        let (items, ratings) = held_out.row(case.user.at());
        let rated = items.iter().zip(ratings);
        let rated = rated.map(|(&item, &rating)| (ItemIndex(item), f64::from(rating)));
        let ratings = rated
            .filter(|(item, _)| case.history.binary_search(item).is_err())
            .collect();
        Some(RatedCase { user, ratings })
    });
    Ok(rated.collect())
}

/// Returns the errors of `predictor` with the baseline estimator; `None` without ratings.
pub(super) fn measure(
    view: &View,
    cases: &[RatedCase],
    parameters: ParametersOf,
    predictor: RatingPredictor,
) -> Option<RatingMetrics> {
    let predict = |model: &prediction::Predictor, item: ItemIndex| {
        let basis = match predictor {
            RatingPredictor::Mean => return model.baseline(item),
            RatingPredictor::ItemBased => Basis::ItemBased,
            RatingPredictor::UserBased => Basis::UserBased,
            RatingPredictor::Blended => Basis::Blended,
        };
        let options = PredictOptions {
            estimator: Estimator::Baseline,
            basis,
            ..PredictOptions::default()
        };
        model.predict(&ItemRef::Known(item), &options).value
    };
    let errors = ask(view, cases, Baseline::of(&view.snapshot), |model, item, rating| {
        Some(predict(model, item) - rating)
    });
    (!errors.is_empty()).then(|| RatingMetrics {
        parameters,
        predictor,
        ratings: errors.len() as u64,
        rmse: rmse(&errors),
        mae: mae(&errors),
    })
}

/// A held-out rating, and the prediction of each side of a blend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BlendSample {
    /// The item-based prediction.
    pub items: f64,
    /// The user-based prediction.
    pub users: f64,
    pub rating: f64,
}

/// Returns the held-out ratings for which both sides of the blend have a prediction. `shrinkage`: λ of BASELINE.
pub(super) fn blend_samples(
    view: &View,
    cases: &[RatedCase],
    estimator: Estimator,
    shrinkage: f64,
) -> Vec<BlendSample> {
    let baseline = Baseline {
        shrinkage,
        ..Baseline::of(&view.snapshot)
    };
    ask(view, cases, baseline, |model, item, rating| {
        let (items, users) = model.sides(item, estimator)?;
        Some(BlendSample { items, users, rating })
    })
}

/// Returns the squared errors of blended predictions by BASELINE.
pub(super) fn squared_errors(view: &View, cases: &[RatedCase], baseline: Baseline) -> Vec<f64> {
    let options = PredictOptions {
        estimator: Estimator::Baseline,
        basis: Basis::Blended,
        ..PredictOptions::default()
    };
    ask(view, cases, baseline, |model, item, rating| {
        let error = model.predict(&ItemRef::Known(item), &options).value - rating;
        Some(error * error)
    })
}

/// Returns the results of `answer` for all held-out ratings, in order.
fn ask<A: Send>(
    view: &View,
    cases: &[RatedCase],
    baseline: Baseline,
    answer: impl Fn(&prediction::Predictor, ItemIndex, f64) -> Option<A> + Sync,
) -> Vec<A> {
    let answers = cases.par_iter().flat_map_iter(|case| {
        let model = prediction::Predictor::for_index(view, case.user).with_baseline(baseline);
        let answers = case.ratings.iter();
        let answers = answers.filter_map(|&(item, rating)| answer(&model, item, rating));
        answers.collect::<Vec<A>>()
    });
    answers.collect()
}
