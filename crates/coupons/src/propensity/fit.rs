//! Fits a propensity on past campaigns.

use chrono::Duration;
use ndarray::Array2;

use domain::time::Timestamp;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::{Feature, Propensity, PropensityEvidence, PropensityModel, PropensityTerm};
use recommender::training::error::TrainingError;
use recommender::training::input::{CampaignHistory, TrainingInput};

use super::features::{CoveredItemFeatures, PastCampaign, value};
use super::logistic::{self, Group, LogisticOptions};

/// Options of [`fit`] and [`past_campaigns`].
#[derive(Debug, Clone, PartialEq)]
pub struct FitOptions {
    /// The least redemptions of past campaigns.
    pub min_redemptions: u32,
    pub features: Vec<Feature>,
    pub logistic: LogisticOptions,
    /// The purchases of a campaign's recipients must reach back this long before its start, or features say nothing.
    pub min_history: Duration,
    /// The share of a campaign's window that must have passed, 0 to 1, or its labels say nothing.
    pub min_share: f64,
    /// The most campaigns that count; the latest do.
    pub max_campaigns: usize,
    /// The most recipients of all campaigns that count, together.
    pub max_recipients: usize,
}

impl FitOptions {
    /// The features that a propensity uses. The [module](super) says why it uses no others.
    pub const FEATURES: [Feature; 3] = [Feature::Redemptions, Feature::DiscountedLines, Feature::Affinity];

    /// Returns the options of the service.
    pub fn new(min_redemptions: u32) -> Self {
        Self {
            min_redemptions,
            features: Self::FEATURES.to_vec(),
            logistic: LogisticOptions {
                ridge: 30.0,
                group_variance: 0.5,
            },
            min_history: Duration::days(14),
            min_share: 0.1,
            max_campaigns: 64,
            max_recipients: 1_000_000,
        }
    }
}

/// Returns the campaigns that started before `until` and whose recipients can be told apart, by start, then id.
///
/// They can be told apart if the earliest purchase of any of them is old enough at the start.
///
/// # Errors
/// [`TrainingError::Rating`] for a rating that is not finite and above 0.
pub fn past_campaigns<'a>(
    input: &'a TrainingInput,
    parameters: &TrainingParameters,
    until: Timestamp,
    options: &FitOptions,
) -> Result<Vec<PastCampaign<'a>>, TrainingError> {
    let mut first_order: Vec<Option<Timestamp>> = vec![None; input.users.len()];
    for event in &input.orders {
        let first = &mut first_order[event.user.at()];
        *first = Some(first.map_or(event.ordered_at, |known| known.min(event.ordered_at)));
    }
    let is_known = |campaign: &&CampaignHistory| {
        let first_orders = campaign.recipients.iter().filter_map(|user| first_order[user.at()]);
        let start = campaign.window.starts_at;
        start < until
            && first_orders
                .min()
                .is_some_and(|first| first + options.min_history <= start)
    };
    let mut campaigns: Vec<&CampaignHistory> = input.campaigns.iter().filter(is_known).collect();
    campaigns.sort_unstable_by(|a, b| (a.window.starts_at, &a.id).cmp(&(b.window.starts_at, &b.id)));
    let mut recipients = 0;
    let latest = campaigns
        .iter()
        .rev()
        .take(options.max_campaigns)
        .take_while(|campaign| {
            recipients += campaign.recipients.len();
            recipients <= options.max_recipients
        });
    let skipped = campaigns.len() - latest.count();
    let latest = campaigns.into_iter().skip(skipped);
    latest
        .map(|campaign| PastCampaign::new(input, parameters, campaign))
        .collect()
}

/// Fits a propensity on the data before `until`, from those of the `campaigns` that had come far enough by then.
///
/// `weights`: returns, for the covered items, the weight of a rating of each item in the affinity, from a model of the data
/// before `until`.
///
/// A recipient has the label 1 if they redeemed a coupon of the campaign before `until`. If only a share s of the window had
/// passed by then, 1 − (1 − s)² of the redeemers are expected to be known, as redemptions come early.
///
/// Returns [`Propensity::NotFitted`] with a reason if there are too few redemptions or the fit is not valid.
pub fn fit(
    campaigns: &[PastCampaign<'_>],
    weights: &dyn Fn(&Bits) -> Vec<f64>,
    until: Timestamp,
    options: &FitOptions,
) -> Propensity {
    let is_past = |campaign: &&PastCampaign| {
        campaign.history.window.starts_at < until && campaign.observed_share(until) >= options.min_share
    };
    let past: Vec<&PastCampaign> = campaigns.iter().filter(is_past).collect();
    let redemptions: usize = past.iter().map(|campaign| campaign.redemptions_before(until)).sum();
    if redemptions < options.min_redemptions as usize {
        let (needed, campaigns) = (options.min_redemptions, past.len());
        return Propensity::NotFitted {
            reason: format!(
                "{redemptions} redemptions of {campaigns} past campaigns can be used, at least {needed} are needed \
                 (coupons.min_redemptions); a campaign can be used if recipients had purchased long enough before it"
            ),
        };
    }

    let mut groups: Vec<Group> = past
        .iter()
        .map(|campaign| {
            let covered = campaign.covered_item_features(&weights(&campaign.covered));
            Group {
                offset: share_offset(campaign.observed_share(until)),
                features: log_values(campaign, &covered, &options.features),
                labels: campaign.labels_before(until),
            }
        })
        .collect();
    let evidence = PropensityEvidence {
        campaigns: groups.len() as u64,
        recipients: groups.iter().map(|group| group.labels.len() as u64).sum(),
        redeemers: groups.iter().map(|group| group.ones() as u64).sum(),
        redemptions: redemptions as u64,
    };
    let mut terms = standardize(&mut groups, &options.features);
    let fitted = logistic::fit(&groups, terms.len(), &options.logistic);
    terms
        .iter_mut()
        .zip(&fitted.weights)
        .for_each(|(term, &weight)| term.weight = weight);
    let model = PropensityModel {
        intercept: fitted.intercept,
        campaign_variance: options.logistic.group_variance,
        terms,
        evidence,
    };
    match model.check() {
        Ok(()) => Propensity::Fitted(model),
        Err(error) => Propensity::NotFitted {
            reason: format!("the fit did not converge: {} {}", error.field, error.message),
        },
    }
}

/// Returns the offset, at most 0, of the log-odds of having redeemed when a share of the window has passed.
pub fn share_offset(share: f64) -> f64 {
    let rest = 1.0 - share;
    (1.0 - rest * rest).max(0.02).ln()
}

/// Returns ln(1 + feature), [recipients, features].
fn log_values(campaign: &PastCampaign<'_>, covered: &[CoveredItemFeatures], features: &[Feature]) -> Array2<f64> {
    Array2::from_shape_fn((covered.len(), features.len()), |(row, column)| {
        value(features[column], &campaign.activity, row, covered[row]).ln_1p()
    })
}

/// Centers and scales the columns over the rows of all groups, and returns the terms, still without weights.
///
/// A constant column is centered only.
fn standardize(groups: &mut [Group], features: &[Feature]) -> Vec<PropensityTerm> {
    let terms: Vec<PropensityTerm> = (features.iter().enumerate())
        .map(|(column, &feature)| {
            let values = groups.iter().flat_map(|group| group.features.column(column));
            let values: Vec<f64> = values.copied().collect();
            let count = values.len().max(1) as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            let deviation = variance.sqrt();
            PropensityTerm {
                feature,
                mean,
                scale: if deviation > 1e-9 { deviation } else { 1.0 },
                weight: 0.0,
            }
        })
        .collect();
    for group in groups {
        for (mut column, term) in group.features.columns_mut().into_iter().zip(&terms) {
            column.mapv_inplace(|value| (value - term.mean) / term.scale);
        }
    }
    terms
}

#[cfg(test)]
mod tests;
