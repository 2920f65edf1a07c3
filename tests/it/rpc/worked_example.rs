//! The worked example of docs/formulas.md, answered by a running server.

use likemind::grpc::proto::v1::{
    Basis, Estimator, ListSimilarItemsRequest, ListSimilarUsersRequest, PredictRatingsRequest, Prediction,
    RecommendRequest, prediction, recommend_request,
};
use tonic::Code;

use crate::support::answers::assert_status;
use crate::support::caller::{Scores, scores_of};
use crate::support::databases;
use crate::support::program::{Server, succeed};

/// Returns the values of i0 to i4 by item id.
fn by_item(values: &[f64]) -> Scores {
    values
        .iter()
        .enumerate()
        .map(|(item, value)| (format!("i{item}"), *value))
        .collect()
}

#[track_caller]
fn assert_all_close(found: Scores, expected: &Scores, what: &str) {
    let ids = |scores: &Scores| scores.keys().cloned().collect::<Vec<String>>();
    assert_eq!(ids(&found), ids(expected), "{what}");
    for (item, value) in found {
        assert_close(value, expected[&item], &format!("{what} {item}"));
    }
}

#[track_caller]
fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-6, "{what}: {found}, not {expected}");
}

/// The rows of the matrix of ratings.
const ROWS: [[f64; 5]; 3] = [
    [4.0, 0.0, 0.0, 1.0, 1.0],
    [0.0, 2.0, 3.0, 1.0, 0.0],
    [2.0, 0.0, 0.0, 2.0, 2.0],
];

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    dot / (length(a) * length(b))
}

/// Predicts the ratings of all items by the weighted sum.
async fn predict(server: &Server, user: &str, basis: Basis) -> Scores {
    let request = PredictRatingsRequest {
        user_id: user.to_owned(),
        item_ids: (0..5).map(|item| format!("i{item}")).collect(),
        estimator: Estimator::WeightedSum.into(),
        basis: basis.into(),
        ..PredictRatingsRequest::default()
    };
    let answer = server.recommendations().await.predict_ratings(request).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!(answer.snapshot_version, 1);
    let value = |prediction: Prediction| match prediction.result {
        Some(prediction::Result::Rating(rating)) => (prediction.item_id, rating.value),
        other => panic!("{other:?}"),
    };
    answer.predictions.into_iter().map(value).collect()
}

#[tokio::test]
async fn training_on_the_example_reports_insufficient_evaluation() {
    let database = databases::example().await;
    let output = succeed(&database, &["train"]);
    assert!(output.contains("INSUFFICIENT_EVALUATION"), "{output}");
}

/// The values of u0 are published; those of the others were computed by hand in the same way.
#[tokio::test]
async fn predicted_ratings_are_the_published_weighted_sums() {
    let database = databases::example().await;
    let server = Server::start(&database);
    let user_based = [
        ("u0", [1.85674873, 0.14325127, 0.21487691, 1.92837436, 1.85674873]),
        ("u1", [2.5797959, 0.0, 0.0, 1.71010205, 1.71010205]),
        ("u2", [3.36422183, 0.31788908, 0.47683362, 1.0, 0.84105546]),
    ];
    let item_based = [
        ("u0", [1.0, 0.28989795, 0.28989795, 1.55877287, 2.40115636]),
        ("u1", [0.47722558, 2.4202041, 1.71010205, 0.82988621, 0.53294788]),
        ("u2", [2.0, 0.5797959, 0.5797959, 1.33609103, 2.0]),
    ];
    for (basis, users) in [(Basis::UserBased, user_based), (Basis::ItemBased, item_based)] {
        for (user, expected) in users {
            let found = predict(&server, user, basis).await;
            assert_all_close(found, &by_item(&expected), &format!("{basis:?} {user}"));
        }
    }
}

#[tokio::test]
async fn user_based_scores_are_sums_of_ratings_weighted_by_the_published_similarities() {
    for (pair, expected) in [((0, 1), 0.06299408), ((0, 2), 0.81649658), ((1, 2), 0.15430335)] {
        assert_close(cosine(&ROWS[pair.0], &ROWS[pair.1]), expected, "user similarity");
    }
    let database = databases::example().await;
    let server = Server::start(&database);
    for (user, row) in ROWS.iter().enumerate() {
        let request = RecommendRequest {
            subject: Some(recommend_request::Subject::UserId(format!("u{user}"))),
            basis: Basis::UserBased.into(),
            ..RecommendRequest::default()
        };
        let answer = server.recommendations().await.recommend(request).await;
        let answer = answer.unwrap().into_inner();
        let expected: Scores = (0..5)
            .map(|item| {
                let others = (0..3).filter(|&other| other != user);
                let score = others.map(|other| cosine(row, &ROWS[other]) * ROWS[other][item]).sum();
                (format!("i{item}"), score)
            })
            .filter(|(_, score)| *score > 0.0)
            .collect();
        assert!(answer.items.is_sorted_by(|a, b| a.score >= b.score), "{answer:?}");
        assert_all_close(scores_of(answer), &expected, &format!("u{user}"));
    }
}

/// The similarities are products over lengths: 8/√(20·5), 8/√(20·6), 6/√(4·9), 2/√(4·6), 3/√(9·6), 5/√(6·5).
#[tokio::test]
async fn similar_items_are_ranked_by_cosine() {
    let database = databases::example().await;
    let server = Server::start(&database);
    let expected: [&[(&str, f64)]; 5] = [
        &[("i4", 0.8), ("i3", 0.73029674)],
        &[("i2", 1.0), ("i3", 0.40824829)],
        &[("i1", 1.0), ("i3", 0.40824829)],
        &[
            ("i4", 0.91287093),
            ("i0", 0.73029674),
            ("i1", 0.40824829),
            ("i2", 0.40824829),
        ],
        &[("i3", 0.91287093), ("i0", 0.8)],
    ];
    for (item, expected) in expected.iter().enumerate() {
        let request = ListSimilarItemsRequest {
            item_id: format!("i{item}"),
            ..ListSimilarItemsRequest::default()
        };
        let answer = server.recommendations().await.list_similar_items(request).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.items.len(), expected.len(), "i{item}");
        for (found, (id, similarity)) in answer.items.iter().zip(*expected) {
            assert_eq!(found.item_id, *id, "i{item}");
            assert_close(found.score, *similarity, &format!("i{item} {id}"));
        }
    }
}

#[tokio::test]
async fn similar_users_are_ranked_by_cosine() {
    let database = databases::example().await;
    let server = Server::start(&database);
    let list = async |user: &str, limit: i32| {
        let request = ListSimilarUsersRequest {
            user_id: user.to_owned(),
            limit,
        };
        server.recommendations().await.list_similar_users(request).await
    };
    let answer = list("u0", 0).await.unwrap().into_inner();
    let found: Vec<(u32, &str)> = answer
        .users
        .iter()
        .map(|user| (user.rank, user.user_id.as_str()))
        .collect();
    assert_eq!(found, [(1, "u2"), (2, "u1")]);
    for (user, similarity) in answer.users.iter().zip([0.81649658, 0.06299408]) {
        assert!((user.score - similarity).abs() < 1e-6, "{user:?}");
    }
    assert_eq!(answer.snapshot_version, 1);
    assert_eq!(list("u0", 1).await.unwrap().into_inner().users.len(), 1);
    assert_status(
        &list("unheard-of", 1).await.unwrap_err(),
        Code::NotFound,
        "USER_NOT_FOUND",
    );
}
