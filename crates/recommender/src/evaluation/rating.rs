//! Asks a model for ratings and measures its errors.

use rayon::prelude::*;

use crate::prediction::{self, Estimator, PredictOptions};
use crate::ranking::Basis;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::overlay::ItemRef;
use crate::snapshot::parameters::TrainingParameters;
use crate::snapshot::view::View;
use crate::training::error::TrainingError;
use crate::training::input::TrainingInput;
use crate::training::matrix::effective_ratings;

use super::holdout::{Holdout, Period};
use super::metrics::{mae, rmse};
use super::report::{ParametersOf, Predictor, RatingMetrics};

/// The held-out ratings of a user of the snapshot.
pub(super) struct RatedCase {
    user: UserIndex,
    /// Of items that were neither rated nor bought before.
    ratings: Vec<(ItemIndex, f64)>,
}

/// The effective ratings that the events of the period make with these parameters, of the users that the model knows.
pub(super) fn rated_cases(
    input: &TrainingInput,
    holdout: &Holdout,
    period: &Period,
    parameters: &TrainingParameters,
    view: &View,
) -> Result<Vec<RatedCase>, TrainingError> {
    let keep = |user, at| period.holds(&holdout.split, user, at);
    let held_out = effective_ratings(input, parameters, keep)?.ratings;
    let rated = period.cases.iter().filter_map(|case| {
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

/// The errors of `predictor`, by the baseline estimator; `None` without ratings.
pub(super) fn measure(
    view: &View,
    cases: &[RatedCase],
    parameters: ParametersOf,
    predictor: Predictor,
) -> Option<RatingMetrics> {
    let predict = |model: &prediction::Predictor, item: ItemIndex| {
        let basis = match predictor {
            Predictor::Mean => return model.baseline(item),
            Predictor::ItemBased => Basis::ItemBased,
            Predictor::UserBased => Basis::UserBased,
            Predictor::Blended => Basis::Blended,
        };
        let options = PredictOptions {
            estimator: Estimator::Baseline,
            basis,
            explain: false,
        };
        model.predict(&ItemRef::Known(item), &options).value
    };
    let errors = ask(view, cases, |model, item, rating| Some(predict(model, item) - rating));
    (!errors.is_empty()).then(|| RatingMetrics {
        parameters,
        predictor,
        ratings: errors.len() as u64,
        rmse: rmse(&errors),
        mae: mae(&errors),
    })
}

/// A held-out rating, and what each side of a blend would predict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BlendSample {
    pub items: f64,
    pub users: f64,
    pub rating: f64,
}

/// Where both sides have something to say.
pub(super) fn blend_samples(view: &View, cases: &[RatedCase], estimator: Estimator) -> Vec<BlendSample> {
    ask(view, cases, |model, item, rating| {
        let (items, users) = model.sides(item, estimator)?;
        Some(BlendSample { items, users, rating })
    })
}

/// What `answer` makes of every held-out rating, in order.
fn ask<A: Send>(
    view: &View,
    cases: &[RatedCase],
    answer: impl Fn(&prediction::Predictor, ItemIndex, f64) -> Option<A> + Sync,
) -> Vec<A> {
    let answers = cases.par_iter().flat_map_iter(|case| {
        let model = prediction::Predictor::for_index(view, case.user);
        let answers = case.ratings.iter();
        let answers = answers.filter_map(|&(item, rating)| answer(&model, item, rating));
        answers.collect::<Vec<A>>()
    });
    answers.collect()
}
