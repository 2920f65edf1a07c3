//! The scores that rank the targets of a coupon: affinity or propensity.

use recommender::snapshot::Snapshot;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::snapshot::propensity::{Propensity, PropensityModel};

use super::affinity::{self, AffinityTerm};
use super::offer_catalog::Offer;
use super::propensity::{self, PropensityExplanation};

/// The most items of a history that an explanation names.
const MAX_EXPLAINED: usize = 10;

/// The score that ranks targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RankBy {
    /// The item-based ranking score, summed over the covered items. It is no probability.
    Affinity,
    /// The calibrated probability of redeeming the coupon.
    Propensity,
}

/// The error that the snapshot holds no propensity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the propensity is not fitted: {reason}")]
pub struct NotFitted {
    pub reason: String,
}

/// Computes the scores for one offer, from one snapshot alone.
#[derive(Debug)]
pub enum Scorer {
    Affinity {
        /// The items that the offer covers, one bit for each of n.
        covered: Bits,
    },
    Propensity {
        model: PropensityModel,
        covered: Bits,
    },
}

/// The scores of all users.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// One per user of the snapshot, finite, 0 or more.
    pub users: Vec<f64>,
    /// The score of a user whose history is unknown or may not be used.
    pub without_history: f64,
}

/// The terms of an affinity, which sum to it.
#[derive(Debug, Clone, PartialEq)]
pub struct AffinityExplanation {
    /// The items that may be named, the largest contribution first, ties by item.
    pub items: Vec<AffinityTerm>,
    /// The contribution of all other items together.
    pub other_items_contribution: f64,
    /// The number of the other items.
    pub other_items: u32,
}

/// The explanation of a score.
#[derive(Debug, Clone, PartialEq)]
pub enum Explanation {
    Affinity(AffinityExplanation),
    Propensity(PropensityExplanation),
}

impl Scorer {
    /// Makes a scorer for `offer`.
    ///
    /// # Errors
    /// [`NotFitted`] for [`RankBy::Propensity`] if the snapshot holds no propensity.
    pub fn new(by: RankBy, snapshot: &Snapshot, offer: &Offer) -> Result<Self, NotFitted> {
        let covered = affinity::covered(snapshot, offer);
        match (by, snapshot.propensity()) {
            (RankBy::Affinity, _) => Ok(Self::Affinity { covered }),
            (RankBy::Propensity, Propensity::NotFitted { reason }) => Err(NotFitted { reason: reason.clone() }),
            (RankBy::Propensity, Propensity::Fitted(model)) => Ok(Self::Propensity {
                model: model.clone(),
                covered,
            }),
        }
    }

    /// Computes the scores of all users of `snapshot`, in parallel.
    pub fn scores(&self, snapshot: &Snapshot) -> Scores {
        match self {
            Self::Affinity { covered } => Scores {
                users: affinity::affinities(snapshot, covered),
                without_history: 0.0,
            },
            Self::Propensity { model, covered } => Scores {
                users: propensity::scores(snapshot, model, covered),
                without_history: propensity::score_without_history(model),
            },
        }
    }

    /// Explains the score of `user`; `None` for an affinity without terms. `is_shown`: whether an item of the history may be
    /// named.
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        user: UserIndex,
        is_shown: impl Fn(ItemIndex) -> bool,
    ) -> Option<Explanation> {
        match self {
            Self::Affinity { covered } => {
                let terms = affinity::explain(snapshot, covered, user);
                (!terms.is_empty()).then(|| Explanation::Affinity(AffinityExplanation::new(terms, is_shown)))
            }
            Self::Propensity { model, covered } => {
                let explanation = propensity::explain(snapshot, model, covered, user);
                Some(Explanation::Propensity(explanation))
            }
        }
    }
}

impl AffinityExplanation {
    /// Makes an explanation of `terms`, the largest contribution first.
    fn new(terms: Vec<AffinityTerm>, is_shown: impl Fn(ItemIndex) -> bool) -> Self {
        let (mut items, mut others): (Vec<_>, Vec<_>) = terms.into_iter().partition(|term| is_shown(term.item));
        others.extend(items.drain(MAX_EXPLAINED.min(items.len())..));
        Self {
            items,
            other_items_contribution: others.iter().map(|term| term.contribution).sum(),
            other_items: others.len() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{campaign, coupon, listed};
    use domain::coupon::Coupon;
    use recommender::snapshot::fixture::{EXAMPLE, snapshot_parts};
    use recommender::snapshot::propensity::{Feature, PropensityEvidence, PropensityTerm, sigmoid};

    fn offer() -> Offer {
        Offer {
            coupon: Coupon {
                scope: listed(&["i0", "i3"]),
                ..coupon("c")
            },
            campaign: Arc::new(campaign("k")),
        }
    }

    #[test]
    fn a_propensity_equals_the_sum_of_its_explanation() {
        let term = |feature, weight| PropensityTerm {
            feature,
            mean: 0.5,
            scale: 1.5,
            weight,
        };
        let mut parts = snapshot_parts(&EXAMPLE);
        parts.propensity = Propensity::Fitted(PropensityModel {
            intercept: -2.0,
            campaign_variance: 0.4,
            terms: vec![term(Feature::Affinity, 0.7), term(Feature::DaysSinceOrder, -0.3)],
            evidence: PropensityEvidence {
                campaigns: 3,
                recipients: 100,
                redeemers: 50,
                redemptions: 60,
            },
        });
        let snapshot = Snapshot::new(parts).unwrap();
        let scorer = Scorer::new(RankBy::Propensity, &snapshot, &offer()).unwrap();
        let scores = scorer.scores(&snapshot);
        let affinities = Scorer::new(RankBy::Affinity, &snapshot, &offer())
            .unwrap()
            .scores(&snapshot);
        for user in (0..3).map(UserIndex) {
            let Some(Explanation::Propensity(explanation)) = scorer.explain(&snapshot, user, |_| true) else {
                panic!("no explanation");
            };
            let contributions: f64 = explanation.features.iter().map(|feature| feature.contribution).sum();
            let score = sigmoid(explanation.base_log_odds + contributions);
            assert!((score - scores.users[user.at()]).abs() < 1e-12);
            assert!((sigmoid(explanation.base_log_odds) - scores.without_history).abs() < 1e-12);
            let affinity = explanation
                .features
                .iter()
                .find(|feature| feature.feature == Feature::Affinity);
            assert_eq!(affinity.unwrap().value, affinities.users[user.at()]);
            assert!(score > scores.without_history, "all have an affinity");
        }
    }

    #[test]
    fn a_missing_model_is_an_error_with_its_reason() {
        let snapshot = Snapshot::new(snapshot_parts(&EXAMPLE)).unwrap();
        let error = Scorer::new(RankBy::Propensity, &snapshot, &offer()).unwrap_err();
        let Propensity::NotFitted { reason } = snapshot.propensity() else {
            panic!("fitted");
        };
        assert_eq!(&error.reason, reason);
        assert!(error.to_string().contains(reason.as_str()));
    }
}
