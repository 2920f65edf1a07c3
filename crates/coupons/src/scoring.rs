//! By what the targets of a coupon are ranked.

use recommender::snapshot::Snapshot;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::snapshot::propensity::{Propensity, PropensityModel};

use super::affinity::{self, AffinityTerm};
use super::offer_catalog::Offer;
use super::propensity::{self, PropensityExplanation};

/// Most items of a history that an explanation names.
const MAX_EXPLAINED: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The item-based ranking score, summed over what the coupon covers. No probability.
    Affinity,
    /// A calibrated probability of redeeming.
    Propensity,
}

/// There is no propensity in this snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the propensity is not fitted: {reason}")]
pub struct NotFitted {
    pub reason: String,
}

/// Ranks for one offer, from one snapshot alone.
#[derive(Debug)]
pub enum Scorer {
    /// `covered`: the items that the offer covers.
    Affinity {
        covered: Bits,
    },
    Propensity {
        model: PropensityModel,
        covered: Bits,
    },
}

/// Of everybody.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// One a user of the snapshot, finite, 0 or more.
    pub of_users: Vec<f64>,
    /// Of somebody of whom nothing is known, or may be used.
    pub of_strangers: f64,
}

/// The terms of an affinity; they sum to it.
#[derive(Debug, Clone, PartialEq)]
pub struct AffinityExplanation {
    /// Largest contribution first, ties by item.
    pub items: Vec<AffinityTerm>,
    /// What all others contribute together, and how many they are.
    pub other_items_contribution: f64,
    pub other_items: u32,
}

/// How a score came about.
#[derive(Debug, Clone, PartialEq)]
pub enum Explanation {
    Affinity(AffinityExplanation),
    Propensity(PropensityExplanation),
}

impl Scorer {
    /// # Errors
    /// [`NotFitted`] when asked for a propensity that the snapshot does not hold.
    pub fn new(by: By, snapshot: &Snapshot, offer: &Offer) -> Result<Self, NotFitted> {
        let covered = affinity::covered(snapshot, offer);
        match (by, snapshot.propensity()) {
            (By::Affinity, _) => Ok(Self::Affinity { covered }),
            (By::Propensity, Propensity::NotFitted { reason }) => Err(NotFitted { reason: reason.clone() }),
            (By::Propensity, Propensity::Fitted(model)) => Ok(Self::Propensity {
                model: model.clone(),
                covered,
            }),
        }
    }

    pub fn scores(&self, snapshot: &Snapshot) -> Scores {
        match self {
            Self::Affinity { covered } => Scores {
                of_users: affinity::affinities(snapshot, covered),
                of_strangers: 0.0,
            },
            Self::Propensity { model, covered } => Scores {
                of_users: propensity::scores(snapshot, model, covered),
                of_strangers: propensity::score_without_history(model),
            },
        }
    }

    /// `None` when the score rests on nothing. `is_shown`: whether an item of the history may be named.
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
    /// `terms`: largest contribution first.
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
    fn a_propensity_is_what_its_explanation_says() {
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
        let scorer = Scorer::new(By::Propensity, &snapshot, &offer()).unwrap();
        let scores = scorer.scores(&snapshot);
        let affinities = Scorer::new(By::Affinity, &snapshot, &offer())
            .unwrap()
            .scores(&snapshot);
        for user in (0..3).map(UserIndex) {
            let Some(Explanation::Propensity(explanation)) = scorer.explain(&snapshot, user, |_| true) else {
                panic!("no explanation");
            };
            let contributions: f64 = explanation.features.iter().map(|feature| feature.contribution).sum();
            let score = sigmoid(explanation.base_log_odds + contributions);
            assert!((score - scores.of_users[user.at()]).abs() < 1e-12);
            assert!((sigmoid(explanation.base_log_odds) - scores.of_strangers).abs() < 1e-12);
            let affinity = explanation
                .features
                .iter()
                .find(|feature| feature.feature == Feature::Affinity);
            assert_eq!(affinity.unwrap().value, affinities.of_users[user.at()]);
            assert!(score > scores.of_strangers, "all have an affinity");
        }
    }

    #[test]
    fn without_a_model_the_reason_is_told() {
        let snapshot = Snapshot::new(snapshot_parts(&EXAMPLE)).unwrap();
        let error = Scorer::new(By::Propensity, &snapshot, &offer()).unwrap_err();
        let Propensity::NotFitted { reason } = snapshot.propensity() else {
            panic!("fitted");
        };
        assert_eq!(&error.reason, reason);
        assert!(error.to_string().contains(reason.as_str()));
    }
}
