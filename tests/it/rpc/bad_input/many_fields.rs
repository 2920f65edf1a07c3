//! Requests with many bad fields.

use likemind::grpc::proto::v1::{
    Basis, ItemFilter, ListItemsRequest, ListRatingsRequest, ListSimilarItemsRequest, PredictRatingsRequest,
    PriceRange, RecommendRequest, SessionItem, SessionItems, list_ratings_request, recommend_request::Subject,
};
use tonic::Code;
use tonic_types::StatusExt;

use super::{assert_serves, serve};
use crate::support::answers::{assert_invalid, assert_status};

fn too_long() -> String {
    "x".repeat(129)
}

/// Returns a filter whose every field is wrong; [`BAD_FILTER_FIELDS`] names them.
fn bad_filter() -> ItemFilter {
    ItemFilter {
        categories: vec!["good".to_owned(), String::new()],
        merchant_ids: vec![too_long(); 1_001],
        candidate_item_ids: vec!["a\nb".to_owned()],
        exclude_item_ids: vec![too_long()],
        price: Some(PriceRange {
            currency_code: "pounds".to_owned(),
            min_minor: Some(-1),
            max_minor: Some(-2),
        }),
    }
}

const BAD_FILTER_FIELDS: [&str; 7] = [
    "filter.categories[1]",
    "filter.merchant_ids",
    "filter.candidate_item_ids[0]",
    "filter.exclude_item_ids[0]",
    "filter.price.currency_code",
    "filter.price.min_minor",
    "filter.price.max_minor",
];

#[tokio::test]
async fn every_bad_field_of_recommend_and_list_similar_items_is_named_at_once() {
    let (_database, server) = serve().await;
    let session_item = |id: &str, rating: Option<f32>| SessionItem {
        item_id: id.to_owned(),
        rating,
    };
    let request = RecommendRequest {
        subject: Some(Subject::Session(SessionItems {
            items: vec![
                session_item("x", None),
                session_item("", Some(f32::NAN)),
                session_item(&too_long(), Some(5.0)),
            ],
        })),
        limit: -1,
        basis: 99,
        filter: Some(bad_filter()),
        ..RecommendRequest::default()
    };
    let status = server.recommendations().await.recommend(request).await.unwrap_err();
    let session = [
        "session.items[1].item_id",
        "session.items[1].rating",
        "session.items[2].item_id",
        "limit",
        "basis",
    ];
    assert_invalid(&status, "EMPTY_ID", &[&session[..], &BAD_FILTER_FIELDS].concat());

    let request = ListSimilarItemsRequest {
        item_id: "a\nb".to_owned(),
        limit: i32::MAX,
        filter: Some(bad_filter()),
    };
    let status = server
        .recommendations()
        .await
        .list_similar_items(request)
        .await
        .unwrap_err();
    assert_invalid(
        &status,
        "ID_HAS_CONTROL_CHARACTER",
        &[&["item_id", "limit"][..], &BAD_FILTER_FIELDS].concat(),
    );
    assert_serves(&server).await;
}

#[tokio::test]
async fn every_bad_field_of_predict_ratings_is_named_at_once() {
    let (_database, server) = serve().await;
    let request = PredictRatingsRequest {
        user_id: String::new(),
        item_ids: ["", "x", "y", "x", "y", &too_long()].map(str::to_owned).to_vec(),
        estimator: -1,
        basis: Basis::Blended as i32 + 1,
        explain: true,
        max_explanation_items: -1,
    };
    let status = server
        .recommendations()
        .await
        .predict_ratings(request)
        .await
        .unwrap_err();
    let fields = [
        "user_id",
        "item_ids[0]",
        "item_ids[3]",
        "item_ids[4]",
        "item_ids[5]",
        "estimator",
        "basis",
        "max_explanation_items",
    ];
    assert_invalid(&status, "EMPTY_ID", &fields);
    assert_serves(&server).await;
}

#[tokio::test]
async fn every_bad_field_of_a_list_request_is_named_at_once() {
    let (_database, server) = serve().await;
    let request = ListItemsRequest {
        page_size: 1_001,
        page_token: "x".to_owned(),
        merchant_id: Some(String::new()),
        category: Some(too_long()),
    };
    let status = server.catalog().await.list_items(request).await.unwrap_err();
    // The token is not named: whether it is valid depends on the other fields.
    assert_invalid(&status, "EMPTY_ID", &["merchant_id", "category", "page_size"]);
    let request = ListRatingsRequest {
        of: Some(list_ratings_request::Of::UserId("a".to_owned())),
        page_size: -1,
        page_token: "x".to_owned(),
    };
    let status = server.ratings().await.list_ratings(request).await.unwrap_err();
    assert_invalid(&status, "PAGE_SIZE_OUT_OF_RANGE", &["page_size", "page_token"]);
    assert_serves(&server).await;
}

/// The details are sent in a header, whose size clients limit.
#[tokio::test]
async fn details_of_thousands_of_bad_fields_are_shortened_to_fit_into_a_header() {
    let (_database, server) = serve().await;
    let mut client = server.recommendations().await;
    let bad: Vec<String> = (0..10_000).map(|number| format!("{number}\n")).collect();
    let too_many = PredictRatingsRequest {
        user_id: "a".to_owned(),
        item_ids: bad[..1_000].to_vec(),
        ..PredictRatingsRequest::default()
    };
    let predicted = client.predict_ratings(too_many).await.unwrap_err();
    let request = RecommendRequest {
        subject: Some(Subject::UserId("a".to_owned())),
        filter: Some(ItemFilter {
            exclude_item_ids: bad.clone(),
            candidate_item_ids: bad,
            ..ItemFilter::default()
        }),
        ..RecommendRequest::default()
    };
    let recommended = client.recommend(request).await.unwrap_err();
    for (status, many) in [(predicted, "1000"), (recommended, "20000")] {
        assert_status(&status, Code::InvalidArgument, "ID_HAS_CONTROL_CHARACTER");
        assert!(status.message().contains(many), "{}", status.message());
        assert!(status.get_details_bad_request().unwrap().field_violations.len() > 10);
        assert!(status.details().len() < 6 * 1_024, "{} bytes", status.details().len());
    }
    assert_serves(&server).await;
}
