//! The scores that rank the targets of a coupon: affinity or propensity.

use recommender::snapshot::Snapshot;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::snapshot::propensity::{Propensity, PropensityModel};

use super::affinity::{self, AffinityTerm};
use super::offer_catalog::Offer;
use super::propensity::{self, PropensityExplanation};
use super::visibility::{Reader, is_feature_named, is_item_named};

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

    /// Explains the score of `user` for `offer` as `reader` may see it; `None` for an affinity without terms.
    pub fn explain(&self, snapshot: &Snapshot, user: UserIndex, offer: &Offer, reader: Reader) -> Option<Explanation> {
        match self {
            Self::Affinity { covered } => {
                let terms = affinity::explain(snapshot, covered, user);
                let catalog = snapshot.catalog();
                let is_shown = |item| is_item_named(reader, offer, catalog.facts(item).merchant);
                (!terms.is_empty()).then(|| Explanation::Affinity(AffinityExplanation::new(terms, is_shown)))
            }
            Self::Propensity { model, covered } => {
                let explanation = propensity::explain(snapshot, model, covered, user);
                let named = explanation.naming(|feature| is_feature_named(reader, feature));
                Some(Explanation::Propensity(named))
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
            // The `sum` of none would be -0.
            other_items_contribution: others.iter().fold(0.0, |sum, term| sum + term.contribution),
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
    use domain::id::MerchantId;
    use recommender::snapshot::fixture::{EXAMPLE, catalog, item_facts, snapshot_parts};
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
            let Some(Explanation::Propensity(explanation)) =
                scorer.explain(&snapshot, user, &offer(), Reader::Operator)
            else {
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
    fn an_explanation_for_a_merchant_names_only_what_concerns_it() {
        let mut parts = snapshot_parts(&EXAMPLE);
        let merchants = ["acme", "zenith", "acme", "acme", "zenith"];
        parts.catalog = catalog(&merchants.map(|merchant| item_facts("t", "mugs", merchant)));
        let terms = Feature::ALL.map(|feature| PropensityTerm {
            feature,
            mean: 0.1,
            scale: 1.5,
            weight: 0.5,
        });
        parts.propensity = Propensity::Fitted(PropensityModel {
            intercept: -2.0,
            campaign_variance: 0.4,
            terms: terms.to_vec(),
            evidence: PropensityEvidence {
                campaigns: 3,
                recipients: 100,
                redeemers: 50,
                redemptions: 60,
            },
        });
        parts.activity.redemptions = vec![3, 2, 1];
        parts.activity.orders = vec![4, 5, 6];
        let snapshot = Snapshot::new(parts).unwrap();
        let mut own = campaign("k");
        own.merchant = Some(MerchantId::new("acme").unwrap());
        let offer = Offer {
            coupon: coupon("c"),
            campaign: Arc::new(own),
        };
        for (user, reader) in (0..3).flat_map(|user| Reader::ALL.map(|reader| (UserIndex(user), reader))) {
            let explain = |by| {
                Scorer::new(by, &snapshot, &offer)
                    .unwrap()
                    .explain(&snapshot, user, &offer, reader)
            };
            let score = |by| Scorer::new(by, &snapshot, &offer).unwrap().scores(&snapshot).users[user.at()];
            let Some(Explanation::Affinity(affinity)) = explain(RankBy::Affinity) else {
                panic!("no affinity");
            };
            let named = affinity
                .items
                .iter()
                .map(|term| snapshot.catalog().facts(term.item).merchant);
            assert!(reader != Reader::Merchant || named.clone().all(|merchant| merchant == Some("acme")));
            assert!(reader == Reader::Merchant || affinity.other_items == 0);
            let sum =
                affinity.items.iter().map(|term| term.contribution).sum::<f64>() + affinity.other_items_contribution;
            assert!((sum - score(RankBy::Affinity)).abs() < 1e-12);

            let Some(Explanation::Propensity(propensity)) = explain(RankBy::Propensity) else {
                panic!("no propensity");
            };
            let mut named: Vec<_> = propensity.features.iter().map(|term| term.feature.as_str()).collect();
            named.sort_unstable();
            let mut expected: Vec<_> = match reader {
                Reader::Merchant => vec![Feature::Affinity.as_str(), Feature::OwnPurchases.as_str()],
                Reader::Operator | Reader::Other => Feature::ALL.iter().map(|feature| feature.as_str()).collect(),
            };
            expected.sort_unstable();
            assert_eq!(named, expected, "{reader:?}");
            let contributions: f64 = propensity.features.iter().map(|term| term.contribution).sum();
            let log_odds = propensity.base_log_odds + contributions + propensity.other_features_contribution;
            assert!((sigmoid(log_odds) - score(RankBy::Propensity)).abs() < 1e-12);
            assert_eq!(
                reader == Reader::Merchant,
                propensity.other_features_contribution != 0.0
            );
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
