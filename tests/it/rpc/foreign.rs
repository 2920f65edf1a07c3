//! A client in another language, without generated code: tests/foreign/recommend.py.

use std::io::Write;
use std::process::{Command, Stdio};

use likemind::grpc::proto::v1::{Rating, RecommendRequest, UpsertRatingsRequest, recommend_request::Subject};

use super::at;
use crate::postgres::TestDatabase;
use crate::program::{Server, output, succeed};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/recommend.py");

fn python_has_grpc() -> bool {
    let mut python = Command::new("python3");
    python
        .args(["-c", "import grpc, grpc_reflection"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_python_client_learns_everything_from_the_server() {
    if !python_has_grpc() {
        assert!(
            std::env::var_os("LIKEMIND_REQUIRE_PYTHON").is_none(),
            "python3 with grpcio and grpcio-reflection is not there"
        );
        // Past the capturing of what a test prints that passes.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: python3 with grpcio and grpcio-reflection is not there"
        );
        return;
    }
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let pairs = [("a", "x"), ("a", "y"), ("b", "y"), ("b", "z"), ("c", "x"), ("c", "z")];
    let ratings = pairs.map(|(user, item)| Rating {
        user_id: user.to_owned(),
        item_id: item.to_owned(),
        value: 3.0,
        rated_at: at(0),
    });
    let request = UpsertRatingsRequest {
        ratings: ratings.to_vec(),
    };
    server.ratings().await.upsert_ratings(request).await.unwrap();
    drop(server);
    succeed(&database, &["train"]);

    let server = Server::start(&database);
    let address = server.address.trim_start_matches("http://").to_owned();
    let mut python = Command::new("python3");
    python.args([SCRIPT, &address, "a"]);
    let output = tokio::task::spawn_blocking(move || output(&mut python)).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    let services = ["Catalog", "Model", "Purchase", "Rating", "Recommendation"];
    let services = services.map(|name| format!("likemind.v1.{name}Service"));
    let listed: Vec<&str> = found["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert!(
        services.iter().all(|service| listed.contains(&service.as_str())),
        "{listed:?}"
    );
    assert!(listed.contains(&"grpc.health.v1.Health"), "{listed:?}");

    let request = RecommendRequest {
        subject: Some(Subject::UserId("a".to_owned())),
        limit: 3,
        ..RecommendRequest::default()
    };
    let expected = server
        .recommendations()
        .await
        .recommend(request)
        .await
        .unwrap()
        .into_inner();
    let recommended = &found["recommended"];
    assert_eq!(recommended["snapshot_version"], "1");
    assert_eq!(recommended["personalization"], "PERSONALIZATION_PERSONALIZED");
    let items = recommended["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    for (found, expected) in items.iter().zip(expected.items) {
        assert_eq!(
            (&found["item_id"], &found["rank"]),
            (&expected.item_id.into(), &expected.rank.into())
        );
        assert!((found["score"].as_f64().unwrap() - expected.score).abs() < 1e-12);
        assert!(found["explanation"]["items"].is_array(), "{found}");
    }
    assert_eq!(found["refused"]["code"], "INVALID_ARGUMENT");
}
