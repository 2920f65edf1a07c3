use super::*;
use crate::testing::past::{USERS, day, past};
use recommender::snapshot::dictionary::UserIndex;
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
fn redeemers_are_found_by_their_history() {
    let found = run(&past(8), &options());
    // Fewer than 50 redemptions are known when the first campaigns start.
    assert!(!ids(&found).contains(&"c00") && ids(&found).contains(&"c07"));
    assert!(
        matches!(&found.left_out[0].because, LeftOutReason::PropensityRefused { reason } if reason.starts_with('0'))
    );
    let of = |ranker| *found.rankers.iter().find(|row| row.ranker == ranker).unwrap();
    assert!(of(RecipientRanker::Propensity).roc_auc > 0.75, "{:?}", found.rankers);
    assert!(of(RecipientRanker::DiscountedLines).roc_auc > 0.7);
    assert!((of(RecipientRanker::Random).roc_auc - 0.5).abs() < 0.15);
    let quality = found.propensity.unwrap();
    assert_eq!(quality.roc_auc, of(RecipientRanker::Propensity).roc_auc);
    assert!(quality.brier < quality.brier_of_rate);
    let recipients: u64 = quality.reliability.iter().map(|bin| bin.recipients).sum();
    assert_eq!(recipients, u64::from(USERS) * quality.campaigns.len() as u64);
    for campaign in &quality.campaigns {
        assert!(campaign.predicted_low < campaign.predicted && campaign.predicted < campaign.predicted_high);
        assert_eq!(campaign.observed_share, 1.0);
    }
}

#[test]
fn later_data_does_not_change_a_prediction() {
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
fn every_campaign_left_out_has_its_reason() {
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
    assert_eq!(because("c03"), Some(LeftOutReason::NoRecipients));
    assert_eq!(because("c04"), Some(LeftOutReason::TooFewRedeemers));
    assert_eq!(because("c05"), Some(LeftOutReason::AllRedeemed));
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
        .filter(|left| left.because == LeftOutReason::TooLongAgo)
        .count();
    assert_eq!(long_ago, 6);
    let empty = run(&past(0), &options());
    assert_eq!((empty.propensity, empty.rankers.len()), (None, 0));
}

#[test]
fn fewer_redemptions_are_predicted_when_labels_end_early() {
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
fn the_number_of_threads_changes_nothing() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&past(5), &options()))
    };
    assert_eq!(on(1), on(3));
}
