//! The worked example of ARCHITECTURE.md, from a file to the answers of a running server.

use likemind::grpc::proto::v1::{
    Basis, Estimator, ListSimilarItemsRequest, PredictRatingsRequest, RecommendRequest, prediction, recommend_request,
};

use crate::postgres::{TestDatabase, scratch};
use crate::program::{Server, succeed};
use crate::shop::{Scores, scores_of};

pub const RATINGS: &str = "\
user_id,item_id,value
u0,i0,4
u0,i3,1
u0,i4,1
u1,i1,2
u1,i2,3
u1,i3,1
u2,i0,2
u2,i3,2
u2,i4,2
";

async fn trained() -> TestDatabase {
    let database = TestDatabase::create().await;
    let folder = scratch();
    let file = folder.path().join("ratings.csv");
    std::fs::write(&file, RATINGS).unwrap();
    succeed(&database, &["import", "ratings", file.to_str().unwrap()]);
    let output = succeed(&database, &["train"]);
    assert!(output.contains("INSUFFICIENT_EVALUATION"), "{output}");
    database
}

/// Values of i0 to i4 by item id.
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

#[tokio::test]
async fn the_example_gives_the_published_values() {
    let database = trained().await;
    let server = Server::start(&database);
    let mut client = server.recommendations().await;

    let items: Vec<String> = (0..5).map(|item| format!("i{item}")).collect();
    let mut predict = async |user: &str, basis: Basis| -> Scores {
        let request = PredictRatingsRequest {
            user_id: user.to_owned(),
            item_ids: items.clone(),
            estimator: Estimator::WeightedSum.into(),
            basis: basis.into(),
            explain: false,
        };
        let answer = client.predict_ratings(request).await.unwrap().into_inner();
        assert_eq!(answer.snapshot_version, 1);
        let value = |prediction: likemind::grpc::proto::v1::Prediction| match prediction.result {
            Some(prediction::Result::Rating(rating)) => (prediction.item_id, rating.value),
            other => panic!("{other:?}"),
        };
        answer.predictions.into_iter().map(value).collect()
    };

    // Of u0 as published; of the others by hand, the same way.
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
            assert_all_close(
                predict(user, basis).await,
                &by_item(&expected),
                &format!("{basis:?} {user}"),
            );
        }
    }

    // The user similarities, read off the ranking: what users 1 and 2 bring user 0 is their similarity times the rating.
    let similarity = |a: &[f64], b: &[f64]| {
        let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        dot / (length(a) * length(b))
    };
    let rows = [
        [4.0, 0.0, 0.0, 1.0, 1.0],
        [0.0, 2.0, 3.0, 1.0, 0.0],
        [2.0, 0.0, 0.0, 2.0, 2.0],
    ];
    for (pair, expected) in [((0, 1), 0.06299408), ((0, 2), 0.81649658), ((1, 2), 0.15430335)] {
        assert_close(similarity(&rows[pair.0], &rows[pair.1]), expected, "user similarity");
    }
    for user in 0..3 {
        let request = RecommendRequest {
            subject: Some(recommend_request::Subject::UserId(format!("u{user}"))),
            basis: Basis::UserBased.into(),
            ..RecommendRequest::default()
        };
        let answer = client.recommend(request).await.unwrap().into_inner();
        let expected: Scores = (0..5)
            .map(|item| {
                let others = (0..3).filter(|&other| other != user);
                let score = others
                    .map(|other| similarity(&rows[user], &rows[other]) * rows[other][item])
                    .sum();
                (format!("i{item}"), score)
            })
            .filter(|(_, score)| *score > 0.0)
            .collect();
        assert!(answer.items.is_sorted_by(|a, b| a.score >= b.score), "{answer:?}");
        assert_all_close(scores_of(answer), &expected, &format!("u{user}"));
    }

    // Products over lengths: 8/√(20·5), 8/√(20·6), 6/√(4·9), 2/√(4·6), 3/√(9·6), 5/√(6·5).
    let item_similarities: [&[(&str, f64)]; 5] = [
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
    for (item, expected) in item_similarities.iter().enumerate() {
        let request = ListSimilarItemsRequest {
            item_id: format!("i{item}"),
            ..ListSimilarItemsRequest::default()
        };
        let answer = client.list_similar_items(request).await.unwrap().into_inner();
        assert_eq!(answer.items.len(), expected.len(), "i{item}");
        for (found, (id, similarity)) in answer.items.iter().zip(*expected) {
            assert_eq!(found.item_id, *id, "i{item}");
            assert_close(found.score, *similarity, &format!("i{item} {id}"));
        }
    }
}
