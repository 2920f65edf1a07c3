//! What was known of a campaign's recipients before it started.

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

/// What a user has to do with the covered items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closeness {
    pub affinity: f64,
    /// Covered items that the user has bought.
    pub own_purchases: u32,
}

/// The feature of `user`, a position in `activity`; finite, 0 or more.
pub fn value(feature: Feature, activity: &Activity, user: usize, closeness: Closeness) -> f64 {
    match feature {
        Feature::Redemptions => f64::from(activity.redemptions[user]),
        Feature::DiscountedLines => f64::from(activity.discounted_lines[user]),
        Feature::Affinity => closeness.affinity,
        Feature::OwnPurchases => f64::from(closeness.own_purchases),
        Feature::Orders => f64::from(activity.orders[user]),
        Feature::DaysSinceOrder if activity.orders[user] == 0 => Feature::NEVER_DAYS,
        Feature::DaysSinceOrder => {
            let seconds = activity.as_of.saturating_sub(activity.last_order_at[user]);
            (seconds as f64 / SECONDS_PER_DAY).max(0.0)
        }
        Feature::Spend => (activity.spend_minor[user] as f64).max(0.0),
    }
}

/// Covered items among those that a history's row says were bought.
pub fn own_purchases(items: impl Iterator<Item = u32>, is_purchased: impl Fn(usize) -> bool, covered: &Bits) -> u32 {
    let bought = items.enumerate().filter(|&(at, _)| is_purchased(at));
    bought.filter(|&(_, item)| covered.get(item as usize)).count() as u32
}

/// A campaign as it was the moment before it started, and what its recipients then did. k recipients, n items.
#[derive(Debug)]
pub struct Case<'a> {
    pub campaign: &'a CampaignHistory,
    /// n bits.
    pub covered: Bits,
    /// Of the recipients: k entries.
    pub activity: Activity,
    /// Effective, [k, n].
    pub ratings: CsrMatrix,
    pub own_purchases: Vec<u32>,
    /// When each recipient redeemed a coupon of the campaign for the first time.
    pub first_redemption: Vec<Option<Timestamp>>,
    /// When recipients redeemed, ascending.
    redeemed_at: Vec<Timestamp>,
}

impl<'a> Case<'a> {
    /// Everything but the labels is strictly from before the campaign's start.
    ///
    /// # Errors
    /// A rating that is none.
    pub fn new(
        input: &TrainingInput,
        parameters: &TrainingParameters,
        campaign: &'a CampaignHistory,
    ) -> Result<Self, TrainingError> {
        let start = campaign.window.starts_at;
        let mut rows = vec![None; input.users.len()];
        for (&user, row) in campaign.recipients.iter().zip(0..) {
            rows[user.at()] = Some(UserIndex(row));
        }
        let is_known = |user: UserIndex, at| rows[user.at()].is_some() && at < start;
        let effective = effective_ratings(input, parameters, is_known)?;

        let mut covered = Bits::zeros(input.items.len());
        campaign.items.iter().for_each(|item| covered.set(item.at(), true));
        let (mut offsets, mut items, mut values) = (vec![0], Vec::new(), Vec::new());
        let mut own = Vec::with_capacity(campaign.recipients.len());
        for user in &campaign.recipients {
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

        let mut first_redemption: Vec<Option<Timestamp>> = vec![None; campaign.recipients.len()];
        let mut redeemed_at = Vec::new();
        for event in campaign.redemptions.iter().filter(|event| event.redeemed_at >= start) {
            if let Some(row) = rows[event.user.at()] {
                let first = &mut first_redemption[row.at()];
                *first = Some(first.map_or(event.redeemed_at, |known| known.min(event.redeemed_at)));
                redeemed_at.push(event.redeemed_at);
            }
        }
        redeemed_at.sort_unstable();
        Ok(Self {
            campaign,
            activity: activity_before(input, &rows, campaign.recipients.len(), start),
            ratings: CsrMatrix::new(input.items.len(), offsets, items, values)?,
            covered,
            own_purchases: own,
            first_redemption,
            redeemed_at,
        })
    }

    pub fn recipients(&self) -> usize {
        self.own_purchases.len()
    }

    /// Redemptions by recipients before `until`.
    pub fn redemptions_before(&self, until: Timestamp) -> usize {
        self.redeemed_at.partition_point(|&at| at < until)
    }

    /// Whether each recipient had redeemed before `until`.
    pub fn labels_before(&self, until: Timestamp) -> Vec<bool> {
        let first = self.first_redemption.iter();
        first.map(|first| first.is_some_and(|at| at < until)).collect()
    }

    /// Share of the window that lies before `until`; in [0, 1].
    pub fn observed_share(&self, until: Timestamp) -> f64 {
        let window = self.campaign.window;
        let seconds = |from: Timestamp, to: Timestamp| (to - from).as_seconds_f64();
        (seconds(window.starts_at, until) / seconds(window.starts_at, window.ends_at)).clamp(0.0, 1.0)
    }

    /// Of each recipient. `weights`: what a rating of each of n items says about the covered ones.
    pub fn closeness(&self, weights: &[f64]) -> Vec<Closeness> {
        let recipients = (0..self.recipients()).into_par_iter();
        recipients
            .map(|row| {
                let (items, ratings) = self.ratings.row(row);
                Closeness {
                    affinity: affinity::weigh(items.iter().copied().zip(ratings.iter().copied()), weights),
                    own_purchases: self.own_purchases[row],
                }
            })
            .collect()
    }
}
