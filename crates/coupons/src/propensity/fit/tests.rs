use super::super::super::affinity;
use super::super::super::testing::past::{USERS, day, past};
use super::*;
use domain::time::Timestamp;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::training::fit::neighbors;
use recommender::training::input::{OrderEvent, RatingEvent, RedemptionEvent};
use recommender::training::matrix::effective_ratings;
use similarity::cosine::RowSelection;

fn fit_before(input: &TrainingInput, until: Timestamp, options: &FitOptions) -> Propensity {
    let parameters = TrainingParameters::default();
    let ratings = effective_ratings(input, &parameters, |_, _, at| at < until)
        .unwrap()
        .ratings;
    let lists = neighbors(&ratings.transpose(), &ratings, RowSelection::All, &parameters).unwrap();
    let reverse_neighbors = lists.transpose();
    let campaigns = past_campaigns(input, &parameters, until, options).unwrap();
    fit(
        &campaigns,
        &|covered| affinity::list_weights(&reverse_neighbors, covered),
        until,
        options,
    )
}

fn all_features() -> FitOptions {
    FitOptions {
        features: Feature::ALL.to_vec(),
        ..FitOptions::new(40)
    }
}

fn fitted(propensity: Propensity) -> PropensityModel {
    match propensity {
        Propensity::Fitted(model) => model,
        Propensity::NotFitted { reason } => panic!("{reason}"),
    }
}

#[test]
fn a_taste_for_coupons_is_found() {
    let model = fitted(fit_before(&past(6), day(200), &FitOptions::new(50)));
    let weights: Vec<f64> = model.terms.iter().map(|term| term.weight).collect();
    assert!(weights[0] > 0.1 && weights[1] > 0.1, "{weights:?}");
    assert_eq!(
        (model.evidence.campaigns, model.evidence.recipients),
        (6, 6 * u64::from(USERS))
    );
    // Every redeemer redeems once.
    assert_eq!(model.evidence.redeemers, model.evidence.redemptions);
    let probability = |redemptions, lines| {
        model.probability(|feature| match feature {
            Feature::Redemptions => redemptions,
            Feature::DiscountedLines => lines,
            _ => 0.0,
        })
    };
    assert!(probability(3.0, 12.0) > 2.0 * probability(0.0, 0.0));
}

#[test]
fn data_from_the_end_on_does_not_change_the_fit() {
    let until = day(90);
    let input = past(6);
    let expected = fit_before(&input, until, &all_features());
    fitted(expected.clone());
    let mut later = input.clone();
    // An event at the end itself does not count.
    for at in [until, until + Duration::days(3)] {
        later.orders.push(OrderEvent {
            user: UserIndex(1),
            item: ItemIndex(0),
            ordered_at: at,
            quantity: 1,
            total_minor: 99_999,
            discounted_lines: 50,
        });
        later.ratings.push(RatingEvent {
            user: UserIndex(if at == until { 2 } else { 4 }),
            item: ItemIndex(3),
            value: 5.0,
            rated_at: at,
        });
        for campaign in &mut later.campaigns {
            campaign.redemptions.push(RedemptionEvent {
                user: UserIndex(7),
                redeemed_at: at,
            });
        }
    }
    later.campaigns.retain(|campaign| campaign.window.starts_at < until);
    assert_eq!(fit_before(&later, until, &all_features()), expected);

    // An event just before the end counts.
    later.campaigns[0].redemptions[0].user = UserIndex(7);
    assert_ne!(fit_before(&later, until, &all_features()), expected);
}

#[test]
fn features_come_from_before_the_campaigns_start() {
    let input = past(3);
    let parameters = TrainingParameters::default();
    let options = FitOptions::new(50);
    let features = |input: &TrainingInput| {
        let campaigns = past_campaigns(input, &parameters, day(100), &options).unwrap();
        let known = |campaign: &PastCampaign| {
            (
                campaign.activity.clone(),
                campaign.ratings.clone(),
                campaign.own_purchases.clone(),
            )
        };
        campaigns.iter().map(known).collect::<Vec<_>>()
    };
    let before = features(&input);
    let mut changed = input.clone();
    let second = input.campaigns[1].window.starts_at;
    changed.orders.retain(|order| order.ordered_at < second);
    changed.campaigns[1].redemptions.clear();
    let after = features(&changed);
    assert_eq!(before[..2], after[..2]);
    assert_ne!(before[2], after[2]);
    // An order at the start does not count: every user has one on day 40.
    assert_eq!(before[1].0.orders[0], 8);
}

#[test]
fn too_few_redemptions_are_refused_with_their_number() {
    let input = past(2);
    let redemptions: usize = input.campaigns.iter().map(|campaign| campaign.redemptions.len()).sum();
    let needed = redemptions as u32;
    fitted(fit_before(&input, day(100), &FitOptions::new(needed)));
    let reason = format!(
        "{redemptions} redemptions of 2 past campaigns can be used, at least {} are needed (coupons.min_redemptions); a campaign can be used if recipients had purchased long enough before it",
        needed + 1
    );
    let refused = fit_before(&input, day(100), &FitOptions::new(needed + 1));
    assert_eq!(refused, Propensity::NotFitted { reason });
    for input in [
        past(0),
        TrainingInput {
            orders: Vec::new(),
            ..past(2)
        },
    ] {
        let reason = "0 redemptions of 0 past campaigns can be used, at least 1 are needed (coupons.min_redemptions); a campaign can be used if recipients had purchased long enough before it";
        let reason = reason.to_owned();
        assert_eq!(
            fit_before(&input, day(100), &FitOptions::new(1)),
            Propensity::NotFitted { reason }
        );
    }
}

#[test]
fn only_informative_campaigns_count() {
    let parameters = TrainingParameters::default();
    let check = |input: &TrainingInput, until: Timestamp, options: &FitOptions, expected: &[&str]| {
        let found = past_campaigns(input, &parameters, until, options).unwrap();
        let ids: Vec<&str> = found.iter().map(|campaign| campaign.history.id.as_str()).collect();
        assert_eq!(ids, expected);
    };
    let options = FitOptions::new(50);
    check(&past(3), day(60), &options, &["c00", "c01"]);
    check(&past(3), day(61), &options, &["c00", "c01", "c02"]);
    let history = |days| FitOptions {
        min_history: Duration::days(days),
        ..options.clone()
    };
    check(&past(3), day(61), &history(20), &["c00", "c01", "c02"]);
    check(&past(3), day(61), &history(21), &["c01", "c02"]);
    let mut input = past(3);
    input.campaigns[1].recipients.clear();
    check(&input, day(61), &options, &["c00", "c02"]);
    check(
        &past(3),
        day(61),
        &FitOptions {
            max_campaigns: 2,
            ..options.clone()
        },
        &["c01", "c02"],
    );
    let max_recipients = 2 * USERS as usize - 1;
    check(
        &past(3),
        day(61),
        &FitOptions {
            max_recipients,
            ..options.clone()
        },
        &["c02"],
    );

    // One day of a campaign of ten days must have passed.
    let campaigns = |until| {
        fitted(fit_before(&past(6), until, &FitOptions::new(1)))
            .evidence
            .campaigns
    };
    assert_eq!((campaigns(day(61) - Duration::hours(1)), campaigns(day(61))), (2, 3));
}

#[test]
fn a_window_that_goes_on_is_expected_to_bring_more_redeemers() {
    assert!((share_offset(1.0)).abs() < 1e-12);
    assert!((share_offset(0.5) - 0.75f64.ln()).abs() < 1e-12);
    assert!((share_offset(0.0) - 0.02f64.ln()).abs() < 1e-12);
}

#[test]
fn labels_end_with_the_known_data() {
    let mut input = past(2);
    let last = input.orders.iter().map(|order| order.ordered_at).max().unwrap();
    assert_eq!(input.known_until(), Some(last + Duration::seconds(1)));
    let redeemed_at = last + Duration::days(1);
    input.campaigns[1].redemptions[0].redeemed_at = redeemed_at;
    assert_eq!(input.known_until(), Some(redeemed_at + Duration::seconds(1)));
    input.as_of = last;
    assert_eq!(input.known_until(), Some(last));
    let empty = TrainingInput {
        orders: Vec::new(),
        campaigns: Vec::new(),
        ..input
    };
    assert_eq!(empty.known_until(), None);
}
