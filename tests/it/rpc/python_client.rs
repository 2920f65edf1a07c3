//! A client in another language, without generated code: tests/foreign/recommend.py.

use std::io::Write;
use std::process::{Command, Stdio};

use likemind::grpc::proto::v1::{Rating, RecommendRequest, UpsertRatingsRequest, recommend_request::Subject};
use serde_json::Value;

use crate::support::postgres::TestDatabase;
use crate::support::program::{Server, output, succeed};
use crate::support::times::at;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/recommend.py");

fn python_has_grpc() -> bool {
    let mut python = Command::new("python3");
    python
        .args(["-c", "import grpc, grpc_reflection"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// Whether the libraries are installed. Without them the test is skipped, unless `LIKEMIND_REQUIRE_PYTHON` is set.
fn may_run() -> bool {
    const MISSING: &str = "python3 with grpcio and grpcio-reflection is not installed";
    let has_grpc = python_has_grpc();
    if !has_grpc {
        assert!(std::env::var_os("LIKEMIND_REQUIRE_PYTHON").is_none(), "{MISSING}");
        // Written to the stream itself, because the output of a test that passes is not shown.
        let _ = writeln!(std::io::stderr(), "skipped: {MISSING}");
    }
    has_grpc
}

/// Starts a server with a few ratings and a snapshot.
async fn serve() -> (TestDatabase, Server) {
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
    (database, server)
}

/// Runs the script for user a, and returns what it prints.
async fn run_script(server: &Server) -> Value {
    let address = server.address.trim_start_matches("http://").to_owned();
    let mut python = Command::new("python3");
    python.args([SCRIPT, &address, "a"]);
    let output = tokio::task::spawn_blocking(move || output(&mut python)).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_python_client_without_generated_code_learns_services_and_messages_by_reflection() {
    if !may_run() {
        return;
    }
    let (_database, server) = serve().await;
    let found = run_script(&server).await;

    let listed = found["services"].as_array().unwrap();
    for name in ["Catalog", "Model", "Purchase", "Rating", "Recommendation"] {
        assert!(
            listed.contains(&format!("likemind.v1.{name}Service").into()),
            "{listed:?}"
        );
    }
    assert!(listed.contains(&"grpc.health.v1.Health".into()), "{listed:?}");

    let request = RecommendRequest {
        subject: Some(Subject::UserId("a".to_owned())),
        limit: 3,
        ..RecommendRequest::default()
    };
    let expected = server.recommendations().await.recommend(request).await.unwrap();
    let recommended = &found["recommended"];
    assert_eq!(recommended["snapshot_version"], "1");
    assert_eq!(recommended["personalization"], "PERSONALIZATION_PERSONALIZED");
    let items = recommended["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    for (found, expected) in items.iter().zip(expected.into_inner().items) {
        assert_eq!(
            (&found["item_id"], &found["rank"]),
            (&expected.item_id.into(), &expected.rank.into())
        );
        assert!((found["score"].as_f64().unwrap() - expected.score).abs() < 1e-12);
        assert!(found["explanation"]["items"].is_array(), "{found}");
    }
    assert_eq!(found["refused"]["code"], "INVALID_ARGUMENT");
}
