//! Recommend with diversity, a popularity penalty, caps and calibration, through a real server.

use std::collections::BTreeMap;

use likemind::grpc::proto::v1::{AdjustmentKind, Basis, RecommendRequest, RecommendResponse, RecommendedItem};

use super::recommendation::{facts, for_user, number_of, shop, user};
use crate::support::program::Server;

const USERS: usize = 24;

fn largest_share<'a>(items: &[RecommendedItem], name: impl Fn(usize) -> Option<String> + 'a) -> usize {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in items.iter().filter_map(|item| name(number_of(&item.item_id))) {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

#[tokio::test]
async fn caps_hold_for_every_user_and_change_nothing_else() {
    let server = Server::start(shop().await);
    let mut client = server.recommendations().await;
    for by in 0..USERS {
        let request = RecommendRequest {
            limit: 6,
            ..for_user(&user(by))
        };
        let plain = client.recommend(for_user(&user(by))).await.unwrap().into_inner();
        let capped = RecommendRequest {
            max_per_merchant: 1,
            max_per_category: 2,
            ..request
        };
        let capped = client.recommend(capped).await.unwrap().into_inner();
        assert!(
            largest_share(&capped.items, |item| facts(item).merchant_id) <= 1,
            "{capped:?}"
        );
        assert!(
            largest_share(&capped.items, |item| facts(item).category) <= 2,
            "{capped:?}"
        );
        // The items keep their scores and their order.
        let scores = |answer: &RecommendResponse| -> Vec<(String, f64)> {
            let items = answer.items.iter();
            items.map(|item| (item.item_id.clone(), item.score)).collect()
        };
        let plain = scores(&plain);
        let positions: Vec<usize> = scores(&capped)
            .iter()
            .map(|entry| plain.iter().position(|other| other == entry).unwrap())
            .collect();
        assert!(positions.is_sorted(), "{positions:?}");
        assert_eq!(positions.first(), plain.first().map(|_| &0));
    }
}

#[tokio::test]
async fn explanations_name_each_adjustment_and_sum_to_the_adjusted_score() {
    let server = Server::start(shop().await);
    let mut client = server.recommendations().await;
    for by in 0..USERS {
        for basis in [Basis::ItemBased, Basis::UserBased, Basis::Blended] {
            let request = RecommendRequest {
                basis: basis.into(),
                explain: true,
                diversity: 0.3,
                popularity_penalty: 0.5,
                calibrate: 0.2,
                ..for_user(&user(by))
            };
            let answer = client.recommend(request).await.unwrap().into_inner();
            assert!(!answer.items.is_empty());
            for item in &answer.items {
                let explanation = item.explanation.clone().unwrap();
                let kinds: Vec<AdjustmentKind> = explanation.adjustments.iter().map(|term| term.kind()).collect();
                use AdjustmentKind::{Calibration, Diversity, PopularityPenalty};
                assert_eq!(kinds, [PopularityPenalty, Diversity, Calibration]);
                let sum = explanation.items.iter().map(|item| item.contribution).sum::<f64>()
                    + explanation.other_items_contribution
                    + explanation.similar_users.map_or(0.0, |similar| similar.contribution)
                    + explanation.popular_lately.map_or(0.0, |term| term.contribution)
                    + explanation.own_habit.map_or(0.0, |term| term.contribution)
                    + explanation
                        .adjustments
                        .iter()
                        .map(|term| term.contribution)
                        .sum::<f64>();
                assert!((sum - item.score).abs() < 1e-9, "{sum}, not {}: {item:?}", item.score);
            }
        }
    }
}

#[tokio::test]
async fn a_cached_answer_is_not_given_to_a_request_with_other_adjustments() {
    let server = Server::start(shop().await);
    let mut client = server.recommendations().await;
    let mut orders = std::collections::BTreeSet::new();
    for _ in 0..2 {
        for diversity in [0.0, 0.5, 1.0] {
            let request = RecommendRequest {
                diversity,
                ..for_user(&user(0))
            };
            let answer = client.recommend(request).await.unwrap().into_inner();
            let first = answer.items[0].score;
            assert_eq!(first == 0.0, diversity == 1.0, "{diversity}: {answer:?}");
            orders.insert(answer.items.iter().map(|item| item.item_id.clone()).collect::<Vec<_>>());
        }
    }
    // Asked again, each request gets its own answer again.
    assert_eq!(orders.len(), 3, "{orders:?}");
}

#[tokio::test]
async fn popular_items_are_capped_too() {
    let server = Server::start(shop().await);
    let mut client = server.recommendations().await;
    let request = RecommendRequest {
        max_per_category: 1,
        ..for_user("nobody")
    };
    let answer = client.recommend(request).await.unwrap().into_inner();
    assert_eq!(largest_share(&answer.items, |item| facts(item).category), 1);
    // Items 3, 7, 11 and 15 have no category.
    let bare = answer.items.iter().filter(|item| number_of(&item.item_id) % 4 == 3);
    assert_eq!(bare.count(), 4);
}
