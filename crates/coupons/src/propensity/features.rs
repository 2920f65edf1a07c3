//! The features of a campaign's recipients, from the data before its start.

use rayon::prelude::*;

use domain::time::Timestamp;
use recommender::snapshot::activity::Activity;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::dictionary::UserIndex;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::Feature;
use recommender::training::activity::activity_before;
use recommender::training::error::TrainingError;
use recommender::training::input::{CampaignHistory, TrainingInput};
use recommender::training::matrix::effective_ratings;
use similarity::sparse::CsrMatrix;

use super::super::affinity;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// The features of a user that depend on the covered items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoveredItemFeatures {
    pub affinity: f64,
    /// The number of covered items that the user has bought.
    pub own_purchases: u32,
}

/// Returns the value of `feature` for `user`, a position in `activity`; finite, 0 or more.
pub fn value(feature: Feature, activity: &Activity, user: usize, covered: CoveredItemFeatures) -> f64 {
    match feature {
        Feature::Redemptions => f64::from(activity.redemptions[user]),
        Feature::DiscountedLines => f64::from(activity.discounted_lines[user]),
        Feature::Affinity => covered.affinity,
        Feature::OwnPurchases => f64::from(covered.own_purchases),
        Feature::Orders => f64::from(activity.orders[user]),
        Feature::DaysSinceOrder if activity.orders[user] == 0 => Feature::NEVER_DAYS,
        Feature::DaysSinceOrder => {
            let seconds = activity.as_of.saturating_sub(activity.last_order_at[user]);
            (seconds as f64 / SECONDS_PER_DAY).max(0.0)
        }
        Feature::Spend => (activity.spend_minor[user] as f64).max(0.0),
    }
}

/// Counts the covered items among the bought items of a history.
///
/// `items`: the items of the history. `is_purchased`: whether the item at a position among them was bought.
pub fn own_purchases(items: impl Iterator<Item = u32>, is_purchased: impl Fn(usize) -> bool, covered: &Bits) -> u32 {
    let bought = items.enumerate().filter(|&(at, _)| is_purchased(at));
    bought.filter(|&(_, item)| covered.get(item as usize)).count() as u32
}

/// A past campaign: its k recipients as they were just before its start, and their redemptions. n is the number of items.
#[derive(Debug)]
pub struct PastCampaign<'a> {
    pub history: &'a CampaignHistory,
    /// The covered items, n bits.
    pub covered: Bits,
    /// The activity of the recipients, k entries.
    pub activity: Activity,
    /// The effective ratings, [k, n].
    pub ratings: CsrMatrix,
    /// Per recipient, the number of covered items bought before the start.
    pub own_purchases: Vec<u32>,
    /// Per recipient, the time of their first redemption of a coupon of the campaign.
    pub first_redemption: Vec<Option<Timestamp>>,
    /// The times of all redemptions by recipients, ascending.
    redeemed_at: Vec<Timestamp>,
}

impl<'a> PastCampaign<'a> {
    /// Collects the features strictly from before the campaign's start, and the redemptions from then on.
    ///
    /// # Errors
    /// [`TrainingError::Rating`] for a rating that is not finite and above 0.
    pub fn new(
        input: &TrainingInput,
        parameters: &TrainingParameters,
        history: &'a CampaignHistory,
    ) -> Result<Self, TrainingError> {
        let start = history.window.starts_at;
        let mut rows = vec![None; input.users.len()];
        for (&user, row) in history.recipients.iter().zip(0..) {
            rows[user.at()] = Some(UserIndex(row));
        }
        let is_known = |user: UserIndex, _, at| rows[user.at()].is_some() && at < start;
        let effective = effective_ratings(input, parameters, is_known)?;

        let mut covered = Bits::zeros(input.items.len());
        history.items.iter().for_each(|item| covered.set(item.at(), true));
        let (mut offsets, mut items, mut values) = (vec![0], Vec::new(), Vec::new());
        let mut own = Vec::with_capacity(history.recipients.len());
        for user in &history.recipients {
            let (row_items, row_values) = effective.ratings.row(user.at());
            let first = effective.ratings.row_range(user.at()).start;
            own.push(own_purchases(
                row_items.iter().copied(),
                |at| effective.purchased.get(first + at),
                &covered,
            ));
            items.extend(row_items);
            values.extend(row_values);
            offsets.push(items.len() as u64);
        }

        let mut first_redemption: Vec<Option<Timestamp>> = vec![None; history.recipients.len()];
        let mut redeemed_at = Vec::new();
        for event in history.redemptions.iter().filter(|event| event.redeemed_at >= start) {
            if let Some(row) = rows[event.user.at()] {
                let first = &mut first_redemption[row.at()];
                *first = Some(first.map_or(event.redeemed_at, |known| known.min(event.redeemed_at)));
                redeemed_at.push(event.redeemed_at);
            }
        }
        redeemed_at.sort_unstable();
        Ok(Self {
            history,
            activity: activity_before(input, &rows, history.recipients.len(), start),
            ratings: CsrMatrix::new(input.items.len(), offsets, items, values)?,
            covered,
            own_purchases: own,
            first_redemption,
            redeemed_at,
        })
    }

    /// Returns k, the number of recipients.
    pub fn recipients(&self) -> usize {
        self.own_purchases.len()
    }

    /// Returns the number of redemptions by recipients before `until`.
    pub fn redemptions_before(&self, until: Timestamp) -> usize {
        self.redeemed_at.partition_point(|&at| at < until)
    }

    /// Returns whether each recipient redeemed before `until`.
    pub fn labels_before(&self, until: Timestamp) -> Vec<bool> {
        let first = self.first_redemption.iter();
        first.map(|first| first.is_some_and(|at| at < until)).collect()
    }

    /// Returns the share of the campaign's window that lies before `until`, in [0, 1].
    pub fn observed_share(&self, until: Timestamp) -> f64 {
        let window = self.history.window;
        let seconds = |from: Timestamp, to: Timestamp| (to - from).as_seconds_f64();
        (seconds(window.starts_at, until) / seconds(window.starts_at, window.ends_at)).clamp(0.0, 1.0)
    }

    /// Returns the features of each recipient that depend on the covered items.
    ///
    /// `weights`: per item, n of them, the weight w_j of a rating of it in the affinity to the covered items.
    pub fn covered_item_features(&self, weights: &[f64]) -> Vec<CoveredItemFeatures> {
        let recipients = (0..self.recipients()).into_par_iter();
        recipients
            .map(|row| {
                let (items, ratings) = self.ratings.row(row);
                CoveredItemFeatures {
                    affinity: affinity::weigh(items.iter().copied().zip(ratings.iter().copied()), weights),
                    own_purchases: self.own_purchases[row],
                }
            })
            .collect()
    }
}
