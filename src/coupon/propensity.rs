//! How likely a user is to redeem a coupon: a calibrated probability, from past campaigns.
//!
//! A logistic regression with one random intercept a campaign, on users as they were before each campaign started
//! ([`features`], [`fit`], [`logistic`]), measured by predicting past campaigns with what was known then ([`metrics`],
//! [`super::backtest`]).

pub mod features;
pub mod fit;
pub mod logistic;
pub mod metrics;

use rayon::prelude::*;

use crate::model::bits::Bits;
use crate::model::dictionary::UserIndex;
use crate::model::propensity::{Feature, PropensityModel, PropensityTerm};
use crate::model::snapshot::Snapshot;

use self::features::{Closeness, own_purchases, value};
use super::affinity;

/// The probability of redeeming of each of the m users, in (0, 1), in parallel.
///
/// `covered`: the items of the coupon, one bit for each of n.
pub fn scores(snapshot: &Snapshot, model: &PropensityModel, covered: &Bits) -> Vec<f64> {
    let affinities = affinity::affinities(snapshot, covered);
    let users = affinities.into_par_iter().enumerate();
    users
        .map(|(user, affinity)| {
            let closeness = closeness(snapshot, covered, user, affinity);
            model.probability(|feature| value(feature, snapshot.activity(), user, closeness))
        })
        .collect()
}

/// Of a user of whom nothing is known, or may be used.
pub fn score_without_history(model: &PropensityModel) -> f64 {
    model.probability(Feature::of_nobody)
}

/// How a probability came about; its log-odds are `base_log_odds` and all contributions.
#[derive(Debug, Clone, PartialEq)]
pub struct PropensityExplanation {
    /// Of a user without history.
    pub base_log_odds: f64,
    /// Largest absolute contribution first, then by name.
    pub features: Vec<FeatureContribution>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureContribution {
    pub feature: Feature,
    /// As it stands, neither transformed nor scaled.
    pub value: f64,
    /// To the log-odds, compared to a user without history.
    pub contribution: f64,
}

pub fn explain(snapshot: &Snapshot, model: &PropensityModel, covered: &Bits, user: UserIndex) -> PropensityExplanation {
    let affinity = affinity::affinity_of(snapshot, |item| covered.get(item.at()), user);
    let closeness = closeness(snapshot, covered, user.at(), affinity);
    let contribution = |term: &PropensityTerm| {
        let feature = term.feature;
        let value = value(feature, snapshot.activity(), user.at(), closeness);
        let difference = PropensityModel::term(term, value) - PropensityModel::term(term, feature.of_nobody());
        FeatureContribution {
            feature,
            value,
            contribution: difference * model.shrinkage(),
        }
    };
    let mut features: Vec<FeatureContribution> = model.terms.iter().map(contribution).collect();
    features.sort_by(|a, b| {
        let by_size = b.contribution.abs().total_cmp(&a.contribution.abs());
        by_size.then(a.feature.as_str().cmp(b.feature.as_str()))
    });
    PropensityExplanation {
        base_log_odds: model.predictor(Feature::of_nobody) * model.shrinkage(),
        features,
    }
}

fn closeness(snapshot: &Snapshot, covered: &Bits, user: usize, affinity: f64) -> Closeness {
    let (items, _) = snapshot.ratings().row(user);
    let first = snapshot.ratings().row_range(user).start;
    Closeness {
        affinity,
        own_purchases: own_purchases(items, |at| snapshot.is_purchased(first + at), covered),
    }
}
