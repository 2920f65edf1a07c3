//! Past campaigns to a propensity.

use chrono::Duration;

use domain::time::Timestamp;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::{Feature, Propensity, PropensityEvidence, PropensityModel, PropensityTerm};
use recommender::training::error::TrainingError;
use recommender::training::input::{CampaignHistory, TrainingInput};

use super::features::{Case, Closeness, value};
use super::logistic::{self, Group, LogisticOptions};

/// How a propensity is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct FitOptions {
    /// Fewest redemptions of past campaigns.
    pub min_redemptions: u32,
    pub features: Vec<Feature>,
    pub logistic: LogisticOptions,
    /// Before a campaign's start the purchases of its recipients must reach back so far, or features say nothing.
    pub min_history: Duration,
    /// A campaign must have come so far, or its labels say nothing.
    pub min_share: f64,
    /// The latest campaigns count, and of those no more than have so many recipients together.
    pub max_campaigns: usize,
    pub max_recipients: usize,
}

impl FitOptions {
    /// The features by which a propensity is fitted, and why no others: see [`super`].
    pub const FEATURES: [Feature; 3] = [Feature::Redemptions, Feature::DiscountedLines, Feature::Affinity];

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

/// The campaigns whose recipients can be told from one another: the earliest purchase of any of them is old enough when it
/// starts. By start, then id.
///
/// # Errors
/// A rating that is none.
pub fn cases<'a>(
    input: &'a TrainingInput,
    parameters: &TrainingParameters,
    until: Timestamp,
    options: &FitOptions,
) -> Result<Vec<Case<'a>>, TrainingError> {
    let mut first_order: Vec<Option<Timestamp>> = vec![None; input.users.len()];
    for event in &input.orders {
        let first = &mut first_order[event.user.at()];
        *first = Some(first.map_or(event.ordered_at, |known| known.min(event.ordered_at)));
    }
    let is_known = |campaign: &&CampaignHistory| {
        let of_recipients = campaign.recipients.iter().filter_map(|user| first_order[user.at()]);
        let start = campaign.window.starts_at;
        start < until
            && of_recipients
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
    latest.map(|campaign| Case::new(input, parameters, campaign)).collect()
}

/// Fits on what was known before `until`: of the `cases` those that had started and come far enough by then.
///
/// `weights`: what a rating of each item says about the covered ones, by a model of nothing from `until` on. A user has the label 1 if they had redeemed a coupon of the
/// campaign before `until`; where only a share s of the window had passed by then, 1 − (1 − s)² of the redeemers are
/// expected to be known: redemptions come early.
pub fn fit(
    cases: &[Case<'_>],
    weights: &dyn Fn(&Bits) -> Vec<f64>,
    until: Timestamp,
    options: &FitOptions,
) -> Propensity {
    let is_past =
        |case: &&Case| case.campaign.window.starts_at < until && case.observed_share(until) >= options.min_share;
    let past: Vec<&Case> = cases.iter().filter(is_past).collect();
    let redemptions: usize = past.iter().map(|case| case.redemptions_before(until)).sum();
    if redemptions < options.min_redemptions as usize {
        let (needed, campaigns) = (options.min_redemptions, past.len());
        return Propensity::NotFitted {
            reason: format!(
                "{redemptions} redemptions of {campaigns} past campaigns are known, at least {needed} are needed \
                 (coupons.min_redemptions)"
            ),
        };
    }

    let mut groups: Vec<Group> = past
        .iter()
        .map(|case| Group {
            offset: share_offset(case.observed_share(until)),
            features: values(case, &case.closeness(&weights(&case.covered)), &options.features),
            labels: case.labels_before(until),
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

/// How much lower the log-odds of having redeemed are when a share of the window has passed.
pub fn share_offset(share: f64) -> f64 {
    let rest = 1.0 - share;
    (1.0 - rest * rest).max(0.02).ln()
}

/// ln(1 + feature), [recipients, features].
fn values(case: &Case<'_>, closeness: &[Closeness], features: &[Feature]) -> Vec<f64> {
    let rows = closeness.iter().enumerate();
    let of_row = |(row, &closeness)| {
        let features = features.iter();
        features.map(move |&feature| value(feature, &case.activity, row, closeness).ln_1p())
    };
    rows.flat_map(of_row).collect()
}

/// Centers and scales the columns over all rows; returns terms without weights. A column that is constant keeps its scale.
fn standardize(groups: &mut [Group], features: &[Feature]) -> Vec<PropensityTerm> {
    let n = features.len();
    let column = |groups: &[Group], at: usize| -> Vec<f64> {
        let values = groups
            .iter()
            .flat_map(|group| group.features.iter().skip(at).step_by(n));
        values.copied().collect()
    };
    let terms: Vec<PropensityTerm> = (features.iter().enumerate())
        .map(|(at, &feature)| {
            let values = column(groups, at);
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
        for row in group.features.chunks_exact_mut(n) {
            for (value, term) in row.iter_mut().zip(&terms) {
                *value = (*value - term.mean) / term.scale;
            }
        }
    }
    terms
}

#[cfg(test)]
mod tests;
