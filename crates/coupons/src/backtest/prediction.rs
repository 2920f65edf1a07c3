//! Predicts one past campaign from the data before its start, and ranks its recipients by each ranker.

use rayon::prelude::*;

use domain::time::Timestamp;
use recommender::snapshot::dictionary::UserIndex;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::{CampaignCalibration, Feature, PropensityModel, sigmoid};
use recommender::training::error::TrainingError;
use recommender::training::fit::neighbors;
use recommender::training::input::TrainingInput;
use recommender::training::matrix::effective_ratings;
use similarity::cosine::RowSelection;
use similarity::lists::InvertedLists;
use similarity::sparse::CsrMatrix;

use super::{BacktestOptions, RecipientRanker, redeemers};
use crate::affinity;
use crate::propensity::features::{CoveredItemFeatures, PastCampaign, value};
use crate::propensity::fit::share_offset;
use crate::propensity::metrics::{lift_at_10_percent, ranks, redeemers_interval, roc_auc};

/// The data of all users before an instant.
pub(super) struct PriorData<'a> {
    parameters: &'a TrainingParameters,
    ratings: CsrMatrix,
    by_item: CsrMatrix,
    pub reverse_neighbors: InvertedLists,
}

impl<'a> PriorData<'a> {
    pub fn new(
        before: Timestamp,
        input: &TrainingInput,
        parameters: &'a TrainingParameters,
    ) -> Result<Self, TrainingError> {
        let ratings = effective_ratings(input, parameters, |_, _, at| at < before)?.ratings;
        let by_item = ratings.transpose();
        Ok(Self {
            reverse_neighbors: neighbors(&by_item, &ratings, RowSelection::All, parameters)?.transpose(),
            parameters,
            by_item,
            ratings,
        })
    }

    /// Returns the user-based affinity of each recipient, Σ_{v ∈ N(u)} sim(u, v) · Σ_{i covered} R[v, i].
    fn user_based(&self, campaign: &PastCampaign<'_>) -> Result<Vec<f64>, TrainingError> {
        let users = (0..self.ratings.n_rows()).into_par_iter();
        let covered_sums: Vec<f64> = users
            .map(|user| {
                let (items, ratings) = self.ratings.row(user);
                let covered = items
                    .iter()
                    .zip(ratings)
                    .filter(|&(&item, _)| campaign.covered.get(item as usize));
                covered.fold(0.0, |sum, (_, &rating)| sum + f64::from(rating))
            })
            .collect();
        let recipients: Vec<u32> = campaign.history.recipients.iter().map(|user| user.0).collect();
        let selection = RowSelection::Rows(&recipients);
        let lists = neighbors(&self.ratings, &self.by_item, selection, self.parameters)?;
        let affinity = |position| {
            let (neighbors, similarities) = lists.row(position);
            let terms = neighbors.iter().zip(similarities);
            terms.fold(0.0, |sum, (&neighbor, &similarity)| {
                sum + f64::from(similarity) * covered_sums[neighbor as usize]
            })
        };
        Ok((0..recipients.len()).map(affinity).collect())
    }
}

/// A campaign after its prediction.
pub(super) struct PredictedCampaign {
    pub labels: Vec<bool>,
    /// The probability of redeeming of each recipient.
    pub probabilities: Vec<f64>,
    /// One per compared ranker.
    pub rankings: Vec<RankingQuality>,
    pub calibration: CampaignCalibration,
}

/// How well scores separate redeemers from other recipients.
#[derive(Debug, Clone, Copy)]
pub(super) struct RankingQuality {
    pub roc_auc: f64,
    pub lift_at_10_percent: f64,
}

impl RankingQuality {
    fn new(scores: &[f64], labels: &[bool]) -> Self {
        // The defaults are never taken: chosen campaigns have both labels.
        Self {
            roc_auc: roc_auc(scores, labels).unwrap_or(0.5),
            lift_at_10_percent: lift_at_10_percent(scores, labels).unwrap_or(1.0),
        }
    }
}

/// Predicts a campaign with a model of the data before its start, and measures every compared ranker on it.
///
/// # Errors
/// None for prior data of the campaign's input.
pub(super) fn predict(
    campaign: &PastCampaign<'_>,
    prior: &PriorData,
    model: &PropensityModel,
    known_until: Timestamp,
    options: &BacktestOptions,
) -> Result<PredictedCampaign, TrainingError> {
    let covered = campaign.covered_item_features(&affinity::list_weights(&prior.reverse_neighbors, &campaign.covered));
    let labels = campaign.labels_before(known_until);
    let share = campaign.observed_share(known_until);
    let offset = share_offset(share);
    // These are given the campaign, but without the campaign's own effect.
    let log_odds: Vec<f64> = covered
        .iter()
        .enumerate()
        .map(|(row, &covered)| model.predictor(|feature| value(feature, &campaign.activity, row, covered)) + offset)
        .collect();

    let rankings = options
        .rankers
        .iter()
        .map(|&ranker| {
            let scores = scores(ranker, campaign, &covered, &log_odds, prior, options.seed)?;
            Ok(RankingQuality::new(&scores, &labels))
        })
        .collect::<Result<_, TrainingError>>()?;
    let own = RankingQuality::new(&log_odds, &labels);

    let probabilities: Vec<f64> = log_odds.iter().map(|x| sigmoid(x * model.shrinkage())).collect();
    let (predicted_low, predicted_high) = redeemers_interval(&log_odds, model.campaign_variance);
    let calibration = CampaignCalibration {
        campaign_id: campaign.history.id.as_str().to_owned(),
        recipients: campaign.recipients() as u64,
        predicted: probabilities.iter().sum(),
        predicted_low,
        predicted_high,
        observed: redeemers(campaign, known_until) as u64,
        roc_auc: own.roc_auc,
        lift_at_10_percent: own.lift_at_10_percent,
        observed_share: share,
        evidence: model.evidence,
    };
    Ok(PredictedCampaign {
        labels,
        probabilities,
        rankings,
        calibration,
    })
}

/// Returns the score of each recipient by `ranker`; a higher score ranks first.
fn scores(
    ranker: RecipientRanker,
    campaign: &PastCampaign<'_>,
    covered: &[CoveredItemFeatures],
    log_odds: &[f64],
    prior: &PriorData,
    seed: u64,
) -> Result<Vec<f64>, TrainingError> {
    let by = |feature| feature_values(campaign, covered, feature);
    Ok(match ranker {
        RecipientRanker::Random => (campaign.history.recipients.iter())
            .map(|user| random(seed, campaign, *user))
            .collect(),
        RecipientRanker::Spend => by(Feature::Spend),
        RecipientRanker::Orders => by(Feature::Orders),
        RecipientRanker::Recency => by(Feature::DaysSinceOrder).into_iter().map(|days| -days).collect(),
        RecipientRanker::OwnPurchases => by(Feature::OwnPurchases),
        RecipientRanker::Affinity => by(Feature::Affinity),
        RecipientRanker::AffinityAllPairs => {
            let weights = affinity::all_pairs_weights(&prior.ratings, &campaign.covered);
            let all_pairs = campaign.covered_item_features(&weights);
            all_pairs.iter().map(|features| features.affinity).collect()
        }
        RecipientRanker::AffinityUserBased => prior.user_based(campaign)?,
        RecipientRanker::Redemptions => by(Feature::Redemptions),
        RecipientRanker::DiscountedLines => by(Feature::DiscountedLines),
        RecipientRanker::RankMean => {
            let features = [Feature::Redemptions, Feature::DiscountedLines, Feature::Affinity];
            let [a, b, c] = features.map(|feature| ranks(&by(feature)));
            a.iter().zip(b).zip(c).map(|((a, b), c)| a + b + c).collect()
        }
        RecipientRanker::Propensity => log_odds.to_vec(),
    })
}

/// Returns the value of `feature` for each recipient.
fn feature_values(campaign: &PastCampaign<'_>, covered: &[CoveredItemFeatures], feature: Feature) -> Vec<f64> {
    let rows = covered.iter().enumerate();
    rows.map(|(row, &covered)| value(feature, &campaign.activity, row, covered))
        .collect()
}

/// Returns a number in [0, 1) that depends on the seed, the campaign and the user alone.
fn random(seed: u64, campaign: &PastCampaign<'_>, user: UserIndex) -> f64 {
    let id = campaign.history.id.as_str().bytes();
    let state = id.fold(seed, |state, byte| mix(state ^ u64::from(byte)));
    (mix(state ^ u64::from(user.0)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Returns the output of SplitMix64 for a state.
///
/// Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators".
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
