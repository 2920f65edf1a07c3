//! Backtests the propensity: predicts past campaigns, each from the data before its start.

mod prediction;
#[cfg(test)]
mod tests;

use domain::time::Timestamp;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::{Propensity, PropensityQuality};
use recommender::training::error::TrainingError;
use recommender::training::input::{CampaignHistory, TrainingInput};

use self::prediction::{PredictedCampaign, PriorData, predict};
use super::affinity;
use super::propensity::features::PastCampaign;
use super::propensity::fit::{FitOptions, fit, past_campaigns};
use super::propensity::metrics::{brier, log_loss, reliability};

/// A way of ranking the recipients of a campaign, to compare the propensity with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientRanker {
    Random,
    Spend,
    Orders,
    /// Ranks the latest order first.
    Recency,
    OwnPurchases,
    /// Ranks by the item-based ranking score summed over the covered items, as targets are ranked.
    Affinity,
    /// Ranks by the affinity over all pairs of items, not only those that the lists keep.
    AffinityAllPairs,
    AffinityUserBased,
    Redemptions,
    DiscountedLines,
    /// Ranks by the mean of the ranks by redemptions, discounted lines and affinity.
    RankMean,
    Propensity,
}

impl RecipientRanker {
    pub const ALL: [Self; 12] = [
        Self::Random,
        Self::Spend,
        Self::Orders,
        Self::Recency,
        Self::OwnPurchases,
        Self::Affinity,
        Self::AffinityAllPairs,
        Self::AffinityUserBased,
        Self::Redemptions,
        Self::DiscountedLines,
        Self::RankMean,
        Self::Propensity,
    ];
}

/// Options of [`backtest`].
#[derive(Debug, Clone, PartialEq)]
pub struct BacktestOptions {
    /// Only campaigns that start at this instant or later are predicted.
    pub from: Option<Timestamp>,
    /// Only campaigns that start before this instant are predicted.
    pub until: Option<Timestamp>,
    /// The least redeemers of a predicted campaign; at least 1.
    pub min_redeemers: usize,
    /// Only this many campaigns, the latest, are predicted.
    pub max_campaigns: usize,
    /// The rankers to compare. The all-pairs and user-based affinities cost most.
    pub rankers: &'static [RecipientRanker],
    pub seed: u64,
    pub fit: FitOptions,
}

impl BacktestOptions {
    /// Returns options for all campaigns with at least three redeemers, and all rankers.
    pub fn new(fit: FitOptions, seed: u64) -> Self {
        Self {
            from: None,
            until: None,
            min_redeemers: 3,
            max_campaigns: usize::MAX,
            rankers: &RecipientRanker::ALL,
            seed,
            fit,
        }
    }
}

/// The result of [`backtest`].
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Backtest {
    /// The end of the labels; `None` without data.
    pub known_until: Option<Timestamp>,
    /// The compared rankers, all over the same campaigns; empty if no campaign was predicted.
    pub rankers: Vec<RankerQuality>,
    /// The campaigns of the range that were not predicted, by start, then id.
    pub left_out: Vec<LeftOut>,
    /// `None` if no campaign was predicted.
    pub propensity: Option<PropensityQuality>,
}

/// The quality of a ranker, mean over the predicted campaigns.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RankerQuality {
    pub ranker: RecipientRanker,
    pub roc_auc: f64,
    pub lift_at_10_percent: f64,
}

/// A campaign that is not predicted.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LeftOut {
    pub campaign_id: String,
    pub starts_at: Timestamp,
    pub recipients: usize,
    pub redeemers: usize,
    pub because: LeftOutReason,
}

/// The reason why a campaign is not predicted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutReason {
    NoRecipients,
    /// The history of the recipients before the start is missing or too short.
    NoHistory,
    TooFewRedeemers,
    /// All recipients redeemed, so there is nobody to distinguish them from.
    AllRedeemed,
    /// Enough later campaigns are predicted.
    TooLongAgo,
    PropensityRefused {
        reason: String,
    },
}

/// Predicts every campaign of the range that can be predicted, with a model of the data before its start.
///
/// Computes the item lists once for each distinct start, and the user lists of the recipients if they are compared. The
/// result is the same for any number of threads.
///
/// # Errors
/// [`TrainingError::Rating`] for a rating that is not finite and above 0.
pub fn backtest(
    input: &TrainingInput,
    parameters: &TrainingParameters,
    options: &BacktestOptions,
) -> Result<Backtest, TrainingError> {
    let Some(known_until) = input.known_until() else {
        return Ok(Backtest {
            known_until: None,
            rankers: Vec::new(),
            left_out: Vec::new(),
            propensity: None,
        });
    };
    let past = past_campaigns(input, parameters, known_until, &options.fit)?;
    let (chosen, mut left_out) = choose(input, &past, known_until, options);
    let mut predicted: Vec<PredictedCampaign> = Vec::new();
    for same_start in chosen.chunk_by(|a, b| a.history.window.starts_at == b.history.window.starts_at) {
        let start = same_start[0].history.window.starts_at;
        let prior = PriorData::new(start, input, parameters)?;
        let weights = |covered: &_| affinity::list_weights(&prior.reverse_neighbors, covered);
        match fit(&past, &weights, start, &options.fit) {
            Propensity::Fitted(model) => {
                for campaign in same_start {
                    predicted.push(predict(campaign, &prior, &model, known_until, options)?);
                }
            }
            Propensity::NotFitted { reason } => left_out.extend(same_start.iter().map(|campaign| {
                let because = LeftOutReason::PropensityRefused { reason: reason.clone() };
                leave_out(campaign.history, redeemers(campaign, known_until), because)
            })),
        }
    }
    left_out.sort_by(|a, b| (a.starts_at, &a.campaign_id).cmp(&(b.starts_at, &b.campaign_id)));
    Ok(Backtest {
        known_until: Some(known_until),
        rankers: rankers(options.rankers, &predicted),
        left_out,
        propensity: quality(predicted),
    })
}

/// Returns the campaigns to predict, and the others of the range with the reason why they are left out.
fn choose<'a, 'b>(
    input: &TrainingInput,
    past: &'a [PastCampaign<'b>],
    known_until: Timestamp,
    options: &BacktestOptions,
) -> (Vec<&'a PastCampaign<'b>>, Vec<LeftOut>) {
    let in_range = |campaign: &CampaignHistory| {
        let start = campaign.window.starts_at;
        options.from.is_none_or(|from| from <= start) && options.until.is_none_or(|until| start < until)
    };
    let mut left_out = Vec::new();
    for campaign in input.campaigns.iter().filter(|campaign| in_range(campaign)) {
        if past.iter().any(|known| known.history.id == campaign.id) {
            continue;
        }
        let because = match campaign.recipients.is_empty() {
            true => LeftOutReason::NoRecipients,
            false => LeftOutReason::NoHistory,
        };
        left_out.push(leave_out(campaign, 0, because));
    }
    let mut chosen = Vec::new();
    for campaign in past.iter().filter(|campaign| in_range(campaign.history)) {
        let redeemers = redeemers(campaign, known_until);
        if redeemers < options.min_redeemers.max(1) {
            left_out.push(leave_out(campaign.history, redeemers, LeftOutReason::TooFewRedeemers));
        } else if redeemers == campaign.recipients() {
            left_out.push(leave_out(campaign.history, redeemers, LeftOutReason::AllRedeemed));
        } else {
            chosen.push(campaign);
        }
    }
    let n_too_many = chosen.len().saturating_sub(options.max_campaigns);
    let long_ago = chosen.drain(..n_too_many);
    left_out.extend(long_ago.map(|campaign| {
        let redeemers = redeemers(campaign, known_until);
        leave_out(campaign.history, redeemers, LeftOutReason::TooLongAgo)
    }));
    (chosen, left_out)
}

/// Returns the number of recipients who redeemed before `known_until`.
fn redeemers(campaign: &PastCampaign<'_>, known_until: Timestamp) -> usize {
    let labels = campaign.labels_before(known_until);
    labels.into_iter().filter(|&label| label).count()
}

fn leave_out(campaign: &CampaignHistory, redeemers: usize, because: LeftOutReason) -> LeftOut {
    LeftOut {
        campaign_id: campaign.id.as_str().to_owned(),
        starts_at: campaign.window.starts_at,
        recipients: campaign.recipients.len(),
        redeemers,
        because,
    }
}

fn rankers(compared: &[RecipientRanker], predicted: &[PredictedCampaign]) -> Vec<RankerQuality> {
    if predicted.is_empty() {
        return Vec::new();
    }
    let quality = |(at, &ranker): (usize, &RecipientRanker)| RankerQuality {
        ranker,
        roc_auc: mean(predicted, |campaign| campaign.rankings[at].roc_auc),
        lift_at_10_percent: mean(predicted, |campaign| campaign.rankings[at].lift_at_10_percent),
    };
    compared.iter().enumerate().map(quality).collect()
}

/// Returns the mean of a figure over the campaigns, of which there is at least one.
fn mean(predicted: &[PredictedCampaign], figure: impl Fn(&PredictedCampaign) -> f64) -> f64 {
    predicted.iter().map(figure).sum::<f64>() / predicted.len() as f64
}

fn quality(predicted: Vec<PredictedCampaign>) -> Option<PropensityQuality> {
    if predicted.is_empty() {
        return None;
    }
    let probabilities: Vec<f64> = predicted
        .iter()
        .flat_map(|campaign| campaign.probabilities.iter().copied())
        .collect();
    let labels: Vec<bool> = predicted
        .iter()
        .flat_map(|campaign| campaign.labels.iter().copied())
        .collect();
    let rate = labels.iter().filter(|&&label| label).count() as f64 / labels.len() as f64;
    Some(PropensityQuality {
        roc_auc: mean(&predicted, |campaign| campaign.calibration.roc_auc),
        lift_at_10_percent: mean(&predicted, |campaign| campaign.calibration.lift_at_10_percent),
        brier: brier(&probabilities, &labels),
        brier_of_rate: rate * (1.0 - rate),
        log_loss: log_loss(&probabilities, &labels),
        reliability: reliability(&probabilities, &labels),
        campaigns: predicted.into_iter().map(|campaign| campaign.calibration).collect(),
    })
}
