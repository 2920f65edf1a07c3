//! The cache of answers: an answer is repeated from memory as long as computing it anew would give the same.

use std::net::SocketAddr;

use likemind::grpc::proto::v1::PredictRatingsRequest;

use crate::support::caller::Caller;
use crate::support::metrics::{scrape, server_with_metrics};
use crate::support::shop::{self, item, user};

/// Asserts how many answers of `method` came from the cache so far, and how many did not.
async fn assert_cache(address: SocketAddr, method: &str, hits: u32, misses: u32, what: &str) {
    let text = scrape(address).await;
    for (result, expected) in [("hit", hits), ("miss", misses)] {
        let line = format!(
            r#"likemind_answer_cache_total{{method="likemind.v1.RecommendationService/{method}",result="{result}"}} {expected}"#
        );
        assert!(text.lines().any(|found| found == line), "{what}: no {line} in\n{text}");
    }
}

#[tokio::test]
async fn a_recommendation_is_repeated_until_something_about_its_user_changes() {
    let database = shop::open().await;
    let (server, address) = server_with_metrics(&database, &[]);
    let caller = Caller::of(&server).await;
    let recommended =
        async |hits: u32, misses: u32, what: &str| assert_cache(address, "Recommend", hits, misses, what).await;
    let first = caller.ranked("stranger").await;
    recommended(0, 1, "the first").await;
    assert_eq!(caller.ranked("stranger").await, first);
    recommended(1, 1, "the same again").await;
    caller.rate("somebody", &item(1), 4.0).await;
    assert_eq!(caller.ranked("stranger").await, first);
    recommended(2, 1, "after a rating of somebody else").await;
    caller.rate("stranger", &item(1), 4.0).await;
    assert_ne!(caller.ranked("stranger").await, first);
    recommended(2, 2, "after a rating of theirs").await;
    caller.ranked("somebody").await;
    recommended(2, 3, "of somebody else").await;
}

#[tokio::test]
async fn predictions_are_repeated_until_something_about_their_user_or_items_changes() {
    let database = shop::open().await;
    let (server, address) = server_with_metrics(&database, &[]);
    let caller = Caller::of(&server).await;
    let predicted =
        async |hits: u32, misses: u32, what: &str| assert_cache(address, "PredictRatings", hits, misses, what).await;
    let predict = async |items: &[&str]| {
        let request = PredictRatingsRequest {
            user_id: user(1),
            item_ids: items.iter().map(ToString::to_string).collect(),
            ..PredictRatingsRequest::default()
        };
        let answer = caller.recommendations.clone().predict_ratings(request).await;
        answer.unwrap().into_inner()
    };
    let known = [&*item(1), &*item(2)];
    let first = predict(&known).await;
    predicted(0, 1, "the first prediction").await;
    assert_eq!(predict(&known).await, first);
    predicted(1, 1, "the same prediction").await;
    caller.rate(&user(1), &item(3), 1.0).await;
    assert_ne!(predict(&known).await, first);
    predicted(1, 2, "a prediction after a rating of theirs").await;
    // An item that does not exist yet may be created by anybody.
    let with_a_new_one = [&*item(1), "new-item"];
    let without_it = predict(&with_a_new_one).await;
    caller.rate("somebody", "new-item", 4.0).await;
    assert_ne!(predict(&with_a_new_one).await, without_it);
    predicted(1, 4, "items that were not there").await;
}
