//! How well past campaigns would have been predicted, each by what was known the moment before it started.

use rayon::prelude::*;

use domain::time::Timestamp;
use recommender::snapshot::dictionary::UserIndex;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::propensity::{
    CampaignCalibration, Feature, Propensity, PropensityModel, PropensityQuality, sigmoid,
};
use recommender::training::error::TrainingError;
use recommender::training::fit::neighbors;
use recommender::training::input::{CampaignHistory, TrainingInput};
use recommender::training::matrix::effective_ratings;
use similarity::cosine::RowSelection;
use similarity::lists::InvertedLists;
use similarity::sparse::CsrMatrix;

use super::affinity;
use super::propensity::features::{Case, Closeness, value};
use super::propensity::fit::{FitOptions, cases, fit, share_offset};
use super::propensity::metrics::{
    brier, lift_at_10_percent, log_loss, ranks, redeemers_interval, reliability, roc_auc,
};

/// By what the recipients of a campaign are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranker {
    Random,
    Spend,
    Orders,
    /// The latest order first.
    Recency,
    OwnPurchases,
    /// The item-based ranking score summed over the covered items, as targets are ranked by.
    Affinity,
    /// The same over all pairs of items, not only those that the lists keep.
    AffinityAllPairs,
    AffinityUserBased,
    Redemptions,
    DiscountedLines,
    /// Mean of the ranks by redemptions, discounted lines and affinity.
    RankMean,
    Propensity,
}

impl Ranker {
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

/// Which campaigns are predicted, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct BacktestOptions {
    /// Those that start from here on …
    pub from: Option<Timestamp>,
    /// … and before.
    pub until: Option<Timestamp>,
    /// At least 1.
    pub min_redeemers: usize,
    /// The latest so many of them.
    pub max_campaigns: usize,
    /// What the propensity is compared with; the all-pairs and user-based affinities cost most.
    pub rankers: &'static [Ranker],
    pub seed: u64,
    pub fit: FitOptions,
}

impl BacktestOptions {
    /// All campaigns with at least three redeemers, all rankers.
    pub fn new(fit: FitOptions, seed: u64) -> Self {
        Self {
            from: None,
            until: None,
            min_redeemers: 3,
            max_campaigns: usize::MAX,
            rankers: &Ranker::ALL,
            seed,
            fit,
        }
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Backtest {
    /// Labels end here; `None` without any data.
    pub known_until: Option<Timestamp>,
    /// Over the same campaigns; none without any.
    pub rankers: Vec<RankerQuality>,
    pub left_out: Vec<LeftOut>,
    pub propensity: Option<PropensityQuality>,
}

/// Means over the campaigns.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RankerQuality {
    pub ranker: Ranker,
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
    pub because: Because,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    NoRecipients,
    /// Or too short a one before it started.
    NoHistory,
    TooFewRedeemers,
    /// Nobody is left to be told from them.
    AllRedeemed,
    /// Earlier than the latest that are predicted.
    TooLongAgo,
    PropensityRefused {
        reason: String,
    },
}

/// Predicts every campaign of the range that can be, with a model of what was known before it started.
///
/// Time: the item lists once for each start of a campaign, the user lists of its recipients where they are compared. The same
/// for any number of threads.
///
/// # Errors
/// A rating that is none.
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
    let cases = cases(input, parameters, known_until, &options.fit)?;
    let (chosen, mut left_out) = choose(input, &cases, known_until, options);
    let mut predicted: Vec<Predicted> = Vec::new();
    for of_one_start in chosen.chunk_by(|a, b| a.campaign.window.starts_at == b.campaign.window.starts_at) {
        let start = of_one_start[0].campaign.window.starts_at;
        let world = World::before(start, input, parameters)?;
        let weights = |covered: &_| affinity::list_weights(&world.reverse_neighbors, covered);
        match fit(&cases, &weights, start, &options.fit) {
            Propensity::Fitted(model) => {
                for case in of_one_start {
                    predicted.push(predict(case, &world, &model, known_until, options)?);
                }
            }
            Propensity::NotFitted { reason } => left_out.extend(of_one_start.iter().map(|case| {
                let because = Because::PropensityRefused { reason: reason.clone() };
                left(case.campaign, redeemers(case, known_until), because)
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

/// The campaigns to predict, and why others of the range are not.
fn choose<'a, 'b>(
    input: &TrainingInput,
    cases: &'a [Case<'b>],
    known_until: Timestamp,
    options: &BacktestOptions,
) -> (Vec<&'a Case<'b>>, Vec<LeftOut>) {
    let in_range = |campaign: &CampaignHistory| {
        let start = campaign.window.starts_at;
        options.from.is_none_or(|from| from <= start) && options.until.is_none_or(|until| start < until)
    };
    let mut left_out = Vec::new();
    for campaign in input.campaigns.iter().filter(|campaign| in_range(campaign)) {
        if cases.iter().any(|case| case.campaign.id == campaign.id) {
            continue;
        }
        let because = match campaign.recipients.is_empty() {
            true => Because::NoRecipients,
            false => Because::NoHistory,
        };
        left_out.push(left(campaign, 0, because));
    }
    let mut chosen = Vec::new();
    for case in cases.iter().filter(|case| in_range(case.campaign)) {
        let redeemers = redeemers(case, known_until);
        if redeemers < options.min_redeemers.max(1) {
            left_out.push(left(case.campaign, redeemers, Because::TooFewRedeemers));
        } else if redeemers == case.recipients() {
            left_out.push(left(case.campaign, redeemers, Because::AllRedeemed));
        } else {
            chosen.push(case);
        }
    }
    let too_many = chosen.len().saturating_sub(options.max_campaigns);
    let long_ago = chosen.drain(..too_many);
    left_out.extend(long_ago.map(|case| left(case.campaign, redeemers(case, known_until), Because::TooLongAgo)));
    (chosen, left_out)
}

fn redeemers(case: &Case<'_>, known_until: Timestamp) -> usize {
    let labels = case.labels_before(known_until);
    labels.into_iter().filter(|&label| label).count()
}

fn left(campaign: &CampaignHistory, redeemers: usize, because: Because) -> LeftOut {
    LeftOut {
        campaign_id: campaign.id.as_str().to_owned(),
        starts_at: campaign.window.starts_at,
        recipients: campaign.recipients.len(),
        redeemers,
        because,
    }
}

/// What was known of all users before an instant.
struct World<'a> {
    parameters: &'a TrainingParameters,
    ratings: CsrMatrix,
    by_item: CsrMatrix,
    reverse_neighbors: InvertedLists,
}

impl<'a> World<'a> {
    fn before(
        start: Timestamp,
        input: &TrainingInput,
        parameters: &'a TrainingParameters,
    ) -> Result<Self, TrainingError> {
        let ratings = effective_ratings(input, parameters, |_, at| at < start)?.ratings;
        let by_item = ratings.transpose();
        Ok(Self {
            reverse_neighbors: neighbors(&by_item, &ratings, RowSelection::All, parameters)?.transpose(),
            parameters,
            by_item,
            ratings,
        })
    }

    /// Σ_{v ∈ N(u)} sim(u, v) · Σ_{i covered} R[v, i] of each recipient.
    fn user_based(&self, case: &Case<'_>) -> Result<Vec<f64>, TrainingError> {
        let users = (0..self.ratings.n_rows()).into_par_iter();
        let of_covered: Vec<f64> = users
            .map(|user| {
                let (items, ratings) = self.ratings.row(user);
                let covered = items
                    .iter()
                    .zip(ratings)
                    .filter(|&(&item, _)| case.covered.get(item as usize));
                covered.fold(0.0, |sum, (_, &rating)| sum + f64::from(rating))
            })
            .collect();
        let recipients: Vec<u32> = case.campaign.recipients.iter().map(|user| user.0).collect();
        let selection = RowSelection::Rows(&recipients);
        let lists = neighbors(&self.ratings, &self.by_item, selection, self.parameters)?;
        let of_recipient = |position| {
            let (neighbors, similarities) = lists.row(position);
            let terms = neighbors.iter().zip(similarities);
            terms.fold(0.0, |sum, (&neighbor, &similarity)| {
                sum + f64::from(similarity) * of_covered[neighbor as usize]
            })
        };
        Ok((0..recipients.len()).map(of_recipient).collect())
    }
}

/// One campaign, ranked and predicted.
struct Predicted {
    labels: Vec<bool>,
    probabilities: Vec<f64>,
    /// One a ranker that is compared.
    merits: Vec<Merit>,
    calibration: CampaignCalibration,
}

#[derive(Debug, Clone, Copy)]
struct Merit {
    roc_auc: f64,
    lift_at_10_percent: f64,
}

impl Merit {
    fn of(scores: &[f64], labels: &[bool]) -> Self {
        // Chosen campaigns have both labels.
        Self {
            roc_auc: roc_auc(scores, labels).unwrap_or(0.5),
            lift_at_10_percent: lift_at_10_percent(scores, labels).unwrap_or(1.0),
        }
    }
}

fn predict(
    case: &Case<'_>,
    world: &World,
    model: &PropensityModel,
    known_until: Timestamp,
    options: &BacktestOptions,
) -> Result<Predicted, TrainingError> {
    let closeness = case.closeness(&affinity::list_weights(&world.reverse_neighbors, &case.covered));
    let labels = case.labels_before(known_until);
    let share = case.observed_share(known_until);
    // Given the campaign, but for its own effect.
    let log_odds: Vec<f64> = closeness
        .iter()
        .enumerate()
        .map(|(row, &closeness)| {
            let value = |feature| value(feature, &case.activity, row, closeness);
            model.predictor(value) + share_offset(share)
        })
        .collect();

    let of = |feature| of_feature(case, &closeness, feature);
    let scores = |ranker| -> Result<Vec<f64>, TrainingError> {
        Ok(match ranker {
            Ranker::Random => (case.campaign.recipients.iter())
                .map(|user| random(options.seed, case, *user))
                .collect(),
            Ranker::Spend => of(Feature::Spend),
            Ranker::Orders => of(Feature::Orders),
            Ranker::Recency => of(Feature::DaysSinceOrder).into_iter().map(|days| -days).collect(),
            Ranker::OwnPurchases => of(Feature::OwnPurchases),
            Ranker::Affinity => of(Feature::Affinity),
            Ranker::AffinityAllPairs => {
                let all_pairs = case.closeness(&affinity::all_pairs_weights(&world.ratings, &case.covered));
                all_pairs.iter().map(|closeness| closeness.affinity).collect()
            }
            Ranker::AffinityUserBased => world.user_based(case)?,
            Ranker::Redemptions => of(Feature::Redemptions),
            Ranker::DiscountedLines => of(Feature::DiscountedLines),
            Ranker::RankMean => {
                let features = [Feature::Redemptions, Feature::DiscountedLines, Feature::Affinity];
                let [a, b, c] = features.map(|feature| ranks(&of(feature)));
                a.iter().zip(b).zip(c).map(|((a, b), c)| a + b + c).collect()
            }
            Ranker::Propensity => log_odds.clone(),
        })
    };
    let merit = |&ranker: &Ranker| Ok(Merit::of(&scores(ranker)?, &labels));
    let merits = options
        .rankers
        .iter()
        .map(merit)
        .collect::<Result<_, TrainingError>>()?;
    let own = Merit::of(&log_odds, &labels);

    let probabilities: Vec<f64> = log_odds.iter().map(|x| sigmoid(x * model.shrinkage())).collect();
    let (predicted_low, predicted_high) = redeemers_interval(&log_odds, model.campaign_variance);
    let calibration = CampaignCalibration {
        campaign_id: case.campaign.id.as_str().to_owned(),
        recipients: case.recipients() as u64,
        predicted: probabilities.iter().sum(),
        predicted_low,
        predicted_high,
        observed: redeemers(case, known_until) as u64,
        roc_auc: own.roc_auc,
        lift_at_10_percent: own.lift_at_10_percent,
        observed_share: share,
        evidence: model.evidence,
    };
    Ok(Predicted {
        labels,
        probabilities,
        merits,
        calibration,
    })
}

fn of_feature(case: &Case<'_>, closeness: &[Closeness], feature: Feature) -> Vec<f64> {
    let rows = closeness.iter().enumerate();
    rows.map(|(row, &closeness)| value(feature, &case.activity, row, closeness))
        .collect()
}

/// In [0, 1), of the seed, the campaign and the user alone.
fn random(seed: u64, case: &Case<'_>, user: UserIndex) -> f64 {
    let campaign = case.campaign.id.as_str().bytes();
    let state = campaign.fold(seed, |state, byte| mix(state ^ u64::from(byte)));
    (mix(state ^ u64::from(user.0)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators": SplitMix64.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn rankers(compared: &[Ranker], predicted: &[Predicted]) -> Vec<RankerQuality> {
    if predicted.is_empty() {
        return Vec::new();
    }
    let quality = |(at, &ranker): (usize, &Ranker)| RankerQuality {
        ranker,
        roc_auc: mean(predicted, |campaign| campaign.merits[at].roc_auc),
        lift_at_10_percent: mean(predicted, |campaign| campaign.merits[at].lift_at_10_percent),
    };
    compared.iter().enumerate().map(quality).collect()
}

/// Over campaigns, at least one.
fn mean(predicted: &[Predicted], of: impl Fn(&Predicted) -> f64) -> f64 {
    predicted.iter().map(of).sum::<f64>() / predicted.len() as f64
}

fn quality(predicted: Vec<Predicted>) -> Option<PropensityQuality> {
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

#[cfg(test)]
mod tests {
    use super::super::testing::past::{USERS, day, past};
    use super::*;
    use recommender::training::input::{OrderEvent, RedemptionEvent};

    fn options() -> BacktestOptions {
        BacktestOptions::new(FitOptions::new(50), 7)
    }

    fn run(input: &TrainingInput, options: &BacktestOptions) -> Backtest {
        backtest(input, &TrainingParameters::default(), options).unwrap()
    }

    fn ids(backtest: &Backtest) -> Vec<&str> {
        let campaigns = backtest.propensity.iter().flat_map(|quality| &quality.campaigns);
        campaigns.map(|campaign| campaign.campaign_id.as_str()).collect()
    }

    #[test]
    fn redeemers_are_found_by_what_they_did_before() {
        let found = run(&past(8), &options());
        // Of the first two campaigns' 50 redemptions not enough are known when they start.
        assert!(!ids(&found).contains(&"c00") && ids(&found).contains(&"c07"));
        assert!(matches!(&found.left_out[0].because, Because::PropensityRefused { reason } if reason.starts_with('0')));
        let of = |ranker| *found.rankers.iter().find(|row| row.ranker == ranker).unwrap();
        assert!(of(Ranker::Propensity).roc_auc > 0.75, "{:?}", found.rankers);
        assert!(of(Ranker::DiscountedLines).roc_auc > 0.7);
        assert!((of(Ranker::Random).roc_auc - 0.5).abs() < 0.15);
        let quality = found.propensity.unwrap();
        assert_eq!(quality.roc_auc, of(Ranker::Propensity).roc_auc);
        assert!(quality.brier < quality.brier_of_rate);
        let recipients: u64 = quality.reliability.iter().map(|bin| bin.recipients).sum();
        assert_eq!(recipients, u64::from(USERS) * quality.campaigns.len() as u64);
        for campaign in &quality.campaigns {
            assert!(campaign.predicted_low < campaign.predicted && campaign.predicted < campaign.predicted_high);
            assert_eq!(campaign.observed_share, 1.0);
        }
    }

    #[test]
    fn what_comes_after_a_start_does_not_change_its_prediction() {
        let input = past(8);
        let prediction = |input: &TrainingInput| {
            let quality = run(input, &options()).propensity.unwrap();
            let campaign = quality
                .campaigns
                .into_iter()
                .find(|campaign| campaign.campaign_id == "c04")
                .unwrap();
            (
                campaign.predicted.to_bits(),
                campaign.predicted_low.to_bits(),
                campaign.evidence,
            )
        };
        let expected = prediction(&input);
        let start = input.campaigns[4].window.starts_at;
        let mut later = input.clone();
        later.orders.push(OrderEvent {
            ordered_at: start,
            discounted_lines: 99,
            ..later.orders[0]
        });
        later.campaigns[3].redemptions.push(RedemptionEvent {
            user: UserIndex(2),
            redeemed_at: start,
        });
        assert_eq!(prediction(&later), expected);
        later.orders.push(OrderEvent {
            ordered_at: start - chrono::Duration::seconds(1),
            discounted_lines: 99,
            ..later.orders[0]
        });
        assert_ne!(prediction(&later), expected);
    }

    #[test]
    fn who_is_left_out_is_told_why() {
        let mut input = past(8);
        input.campaigns[3].recipients.clear();
        input.campaigns[4].redemptions.truncate(2);
        let recipients = &input.campaigns[5].recipients;
        let redeemed_at = input.campaigns[5].window.starts_at;
        input.campaigns[5].redemptions = recipients
            .iter()
            .map(|&user| RedemptionEvent { user, redeemed_at })
            .collect();
        let found = run(&input, &options());
        let because = |id: &str| {
            let left_out = found.left_out.iter().find(|campaign| campaign.campaign_id == id);
            left_out.map(|campaign| campaign.because.clone())
        };
        assert_eq!(because("c03"), Some(Because::NoRecipients));
        assert_eq!(because("c04"), Some(Because::TooFewRedeemers));
        assert_eq!(because("c05"), Some(Because::AllRedeemed));
        assert_eq!(ids(&found).len() + found.left_out.len(), 8);
        let all = past(8);
        let range = |from, until| BacktestOptions {
            from: Some(from),
            until: Some(until),
            ..options()
        };
        assert_eq!(ids(&run(&all, &range(day(100), day(140)))), ["c04", "c05"]);
        let latest = BacktestOptions {
            max_campaigns: 2,
            ..options()
        };
        assert_eq!(ids(&run(&all, &latest)), ["c06", "c07"]);
        let long_ago = run(&all, &latest)
            .left_out
            .iter()
            .filter(|left| left.because == Because::TooLongAgo)
            .count();
        assert_eq!(long_ago, 6);
        let empty = run(&past(0), &options());
        assert_eq!((empty.propensity, empty.rankers.len()), (None, 0));
    }

    #[test]
    fn labels_that_end_early_are_predicted_to_be_fewer() {
        let mut input = past(8);
        let whole = run(&input, &options()).propensity.unwrap().campaigns.pop().unwrap();
        let end = input.campaigns[7].window.starts_at + chrono::Duration::days(3);
        input.orders.retain(|order| order.ordered_at < end);
        input.campaigns[7].redemptions.retain(|event| event.redeemed_at < end);
        let part = run(&input, &options()).propensity.unwrap().campaigns.pop().unwrap();
        assert!(
            part.observed_share < 0.31 && part.predicted < whole.predicted,
            "{part:?}"
        );
    }

    #[test]
    fn the_same_for_any_number_of_threads() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&past(5), &options()))
        };
        assert_eq!(on(1), on(3));
    }
}
