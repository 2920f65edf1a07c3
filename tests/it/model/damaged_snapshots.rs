//! A snapshot whose stored bytes are not those that were written is neither activated nor served, and the served one stays.

use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use likemind::grpc::proto::v1::recommend_request::Subject;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, GetServingStatusRequest, GetServingStatusResponse, RecommendRequest, RecommendResponse,
    RollbackSnapshotRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::answers::assert_status;
use crate::support::databases;
use crate::support::postgres::{TestDatabase, number};
use crate::support::program::{Server, run, succeed};
use crate::support::snapshot_damage::{LOSE, activate_unseen, damaged_copy, parts};
use crate::support::waiting::eventually;

fn server(database: &TestDatabase) -> Server {
    Server::with(database, &[("live.refresh_interval_ms", "20")])
}

async fn status(channel: &Channel) -> GetServingStatusResponse {
    let mut client = ModelServiceClient::new(channel.clone());
    client
        .get_serving_status(GetServingStatusRequest {})
        .await
        .unwrap()
        .into_inner()
}

async fn wait_for_load_error(channel: &Channel) -> GetServingStatusResponse {
    let look = async || status(channel).await;
    eventually("a load error is reported", look, |status| !status.load_error.is_empty()).await
}

async fn wait_until_served(channel: &Channel, version: i64) -> GetServingStatusResponse {
    let look = async || status(channel).await;
    let is_served = |status: &GetServingStatusResponse| status.snapshot_version == Some(version);
    eventually(&format!("version {version} is served"), look, is_served).await
}

async fn recommend(channel: &Channel) -> Result<RecommendResponse, Status> {
    let request = RecommendRequest {
        subject: Some(Subject::UserId("u0".to_owned())),
        ..RecommendRequest::default()
    };
    let mut client = RecommendationServiceClient::new(channel.clone());
    Ok(client.recommend(request).await?.into_inner())
}

/// Returns the health of the recommendation service.
async fn health(channel: &Channel) -> ServingStatus {
    let request = HealthCheckRequest {
        service: "likemind.v1.RecommendationService".to_owned(),
    };
    let answer = HealthClient::new(channel.clone()).check(request).await.unwrap();
    answer.into_inner().status()
}

async fn activate(channel: &Channel, version: i64) -> Result<(), Status> {
    let request = ActivateSnapshotRequest {
        version,
        reason: String::new(),
    };
    let mut client = ModelServiceClient::new(channel.clone());
    client.activate_snapshot(request).await.map(drop)
}

async fn active_version(database: &TestDatabase) -> i64 {
    let active = "SELECT version FROM snapshots WHERE state = 'active'";
    number(&mut database.connect().await, active).await
}

const FLIP_FIRST: &str =
    "UPDATE snapshot_chunks SET bytes = set_byte(bytes, 0, get_byte(bytes, 0) # 1) WHERE version = $1 AND part = $2";
/// Bytes 8 to 11 are the format version.
const OLD_FORMAT: &str =
    "UPDATE snapshot_chunks SET bytes = set_byte(bytes, 8, 1) WHERE version = $1 AND part = $2 AND chunk = 0";
const FLIP_MIDDLE: &str = "UPDATE snapshot_chunks
     SET bytes = set_byte(bytes, length(bytes) / 2, get_byte(bytes, length(bytes) / 2) # 128)
     WHERE version = $1 AND part = $2";
const FLIP_LAST: &str = "UPDATE snapshot_chunks
     SET bytes = set_byte(bytes, length(bytes) - 1, get_byte(bytes, length(bytes) - 1) # 16)
     WHERE version = $1 AND part = $2";
const CUT: &str = "UPDATE snapshot_chunks SET bytes = substring(bytes FROM 1 FOR length(bytes) - 1)
     WHERE version = $1 AND part = $2";
const LENGTHEN: &str = r"UPDATE snapshot_chunks SET bytes = bytes || '\x00' WHERE version = $1 AND part = $2";

// The following damage the later chunks of a long part.
const LOSE_LAST_CHUNK: &str = "DELETE FROM snapshot_chunks
     WHERE version = $1 AND part = $2
       AND chunk = (SELECT max(chunk) FROM snapshot_chunks WHERE version = $1 AND part = $2)";
const LOSE_SECOND_CHUNK: &str =
    "DELETE FROM snapshot_chunks WHERE version = $1 AND part = $2 AND chunk = (SELECT min(chunk) + 1
     FROM snapshot_chunks WHERE version = $1 AND part = $2)";
const CUT_LAST_CHUNK: &str = "UPDATE snapshot_chunks SET bytes = substring(bytes FROM 1 FOR length(bytes) - 1)
     WHERE version = $1 AND part = $2
       AND chunk = (SELECT max(chunk) FROM snapshot_chunks WHERE version = $1 AND part = $2)";
const EXCHANGE_CHUNKS: &str = "UPDATE snapshot_chunks SET bytes = other.bytes FROM snapshot_chunks other
     WHERE snapshot_chunks.version = $1 AND snapshot_chunks.part = $2
       AND other.version = $1 AND other.part = $2 AND other.chunk + snapshot_chunks.chunk = 2 * (
           SELECT min(chunk) FROM snapshot_chunks WHERE version = $1 AND part = $2) + 1";

#[tokio::test]
async fn a_running_server_refuses_a_damaged_snapshot_and_keeps_serving_the_old_one() {
    let database = databases::example().await;
    let server = server(&database);
    let channel = server.channel().await;
    let parts = parts(&database).await;
    let everywhere = parts.iter().flat_map(|part| [(part, FLIP_MIDDLE), (part, LOSE)]);
    let all_kinds = [FLIP_FIRST, FLIP_LAST, CUT, LENGTHEN].map(|damage| (&parts[0], damage));
    let mut expected_log_lines = 0;
    for (part, damage) in everywhere.chain(all_kinds) {
        let version = damaged_copy(&database, damage, part).await;
        let refused = activate(&channel, version).await.unwrap_err();
        assert_status(&refused, Code::FailedPrecondition, "SNAPSHOT_UNUSABLE");
        assert!(refused.message().contains(&format!("snapshot {version} ")) && refused.message().contains(part));
        assert_eq!(active_version(&database).await, 1, "{refused:?}");

        activate_unseen(&database, version).await;
        let found = wait_for_load_error(&channel).await;
        let names = [format!("snapshot {version} "), part.clone()];
        assert!(
            names.iter().all(|name| found.load_error.contains(name)),
            "{part}: {damage}: {found:?}"
        );
        assert_eq!(found.snapshot_version, Some(1));
        assert_eq!(health(&channel).await, ServingStatus::Serving);
        assert_eq!(recommend(&channel).await.unwrap().snapshot_version, 1);
        expected_log_lines += 1;

        // The active snapshot is the served one again, so that there is nothing to report.
        activate(&channel, 1).await.unwrap();
        let look = async || status(&channel).await.load_error;
        eventually("there is no load error", look, String::is_empty).await;
    }
    let look = async || server.program.log().matches("cannot be served: ").count();
    let lines = eventually("every damage is logged", look, |&lines| lines >= expected_log_lines).await;
    assert_eq!(lines, expected_log_lines, "{}", server.program.log());
}

#[tokio::test]
async fn a_good_snapshot_is_served_after_a_damaged_one() {
    let database = databases::example().await;
    let server = server(&database);
    let channel = server.channel().await;
    let parts = parts(&database).await;
    let version = damaged_copy(&database, FLIP_MIDDLE, &parts[0]).await;
    activate_unseen(&database, version).await;
    wait_for_load_error(&channel).await;
    succeed(&database, &["train"]);
    let found = wait_until_served(&channel, version + 1).await;
    assert_eq!(found.load_error, "");
    assert_eq!(recommend(&channel).await.unwrap().snapshot_version, version + 1);
}

#[tokio::test]
async fn a_server_that_starts_with_a_damaged_snapshot_serves_the_newest_intact_one() {
    let database = databases::example().await;
    for part in parts(&database).await {
        // Two damaged versions: the one before the active one is not intact either.
        let before = damaged_copy(&database, LOSE, &part).await;
        activate_unseen(&database, before).await;
        let version = damaged_copy(&database, FLIP_MIDDLE, &part).await;
        activate_unseen(&database, version).await;
        let server = server(&database);
        let channel = server.channel().await;
        let found = wait_for_load_error(&channel).await;
        let found = match found.snapshot_version {
            Some(_) => found,
            None => wait_until_served(&channel, 1).await,
        };
        assert_eq!(found.snapshot_version, Some(1));
        let look = async || status(&channel).await.load_error;
        let is_named = |error: &String| {
            error.starts_with(&format!("snapshot {version} "))
                && error.contains(&part)
                && error.ends_with("; snapshot 1 is served in its place")
        };
        eventually("the status names both versions", look, is_named).await;
        assert_eq!(health(&channel).await, ServingStatus::Serving);
        assert_eq!(recommend(&channel).await.unwrap().snapshot_version, 1);
        let log = server.program.log();
        let line = format!("serving snapshot 1, because the active snapshot {version} cannot be served");
        assert!(
            log.lines().any(|log| log.contains("ERROR") && log.contains(&line)),
            "{log}"
        );

        activate(&channel, 1).await.unwrap();
        let look = async || status(&channel).await.load_error;
        eventually("there is no load error", look, String::is_empty).await;
    }
}

#[tokio::test]
async fn a_server_whose_snapshots_are_all_damaged_waits_for_a_good_one() {
    let database = databases::example().await;
    let part = &parts(&database).await[0];
    let version = damaged_copy(&database, FLIP_MIDDLE, part).await;
    activate_unseen(&database, version).await;
    let mut connection = database.connect().await;
    sqlx::query(LOSE)
        .bind(1_i64)
        .bind(part)
        .execute(&mut connection)
        .await
        .unwrap();
    let server = server(&database);
    let channel = server.channel().await;
    let found = wait_for_load_error(&channel).await;
    assert_eq!(found.snapshot_version, None);
    assert!(
        found.load_error.contains(part) && !found.load_error.contains("in its place"),
        "{found:?}"
    );
    assert_eq!(health(&channel).await, ServingStatus::NotServing);
    let refused = recommend(&channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    // Going back is no way out either, and says so.
    let refused = ModelServiceClient::new(channel.clone())
        .rollback_snapshot(RollbackSnapshotRequest::default())
        .await
        .unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "SNAPSHOT_UNUSABLE");

    succeed(&database, &["train"]);
    let found = wait_until_served(&channel, version + 1).await;
    assert_eq!(found.load_error, "");
    assert_eq!(health(&channel).await, ServingStatus::Serving);
}

#[tokio::test]
async fn a_snapshot_of_another_release_is_reported_as_such_until_there_is_a_new_one() {
    let database = databases::example().await;
    let part = &parts(&database).await[0];
    let version = damaged_copy(&database, OLD_FORMAT, part).await;
    let (code, _, said) = run(&database, &["snapshots", "activate", &version.to_string()]);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("is of another release"), "{said}");
    activate_unseen(&database, version).await;
    let server = server(&database);
    let channel = server.channel().await;
    let found = wait_until_served(&channel, 1).await;
    let expected = format!(
        "snapshot {version} is of another release: part {part} has format version 1, but this program reads 3; \
         `likemind train` makes one that it can serve; snapshot 1 is served in its place"
    );
    let look = async || status(&channel).await.load_error;
    eventually("both versions are named", look, |error| *error == expected).await;
    assert_eq!(found.snapshot_version, Some(1));

    succeed(&database, &["train"]);
    wait_until_served(&channel, version + 1).await;
}

#[tokio::test]
async fn damage_to_any_chunk_of_a_long_part_is_found() {
    let database = databases::trained_online_retail().await;
    let part: String = sqlx::query_scalar(
        "SELECT part FROM snapshot_chunks WHERE version = 1 GROUP BY part HAVING count(*) > 1 ORDER BY part LIMIT 1",
    )
    .fetch_one(&mut database.connect().await)
    .await
    .expect("every part fits into one chunk");
    let server = server(&database);
    let channel = server.channel().await;
    for damage in [LOSE_LAST_CHUNK, LOSE_SECOND_CHUNK, CUT_LAST_CHUNK, EXCHANGE_CHUNKS] {
        let version = damaged_copy(&database, damage, &part).await;
        let refused = activate(&channel, version).await.unwrap_err();
        assert_status(&refused, Code::FailedPrecondition, "SNAPSHOT_UNUSABLE");
        activate_unseen(&database, version).await;
        let look = async || status(&channel).await;
        let names_version =
            |status: &GetServingStatusResponse| status.load_error.contains(&format!("snapshot {version} "));
        let found = eventually("a load error names the version", look, names_version).await;
        assert!(found.load_error.contains(&part), "{damage}: {found:?}");
        assert_eq!(recommend(&channel).await.unwrap().snapshot_version, 1, "{damage}");
    }
}

/// Each part is intact, but one belongs to another version.
#[tokio::test]
async fn a_snapshot_with_a_part_of_another_version_is_not_served() {
    let database = databases::example().await;
    succeed(&database, &["train", "--set-config=training.neighbors=1"]);
    let server = server(&database);
    let channel = server.channel().await;
    let other: String = sqlx::query_scalar(
        "SELECT a.part FROM snapshot_chunks a JOIN snapshot_chunks b USING (part, chunk)
         WHERE a.version = 1 AND b.version = 2 AND a.bytes <> b.bytes AND a.part LIKE '%neighbors%' LIMIT 1",
    )
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    let exchange = "UPDATE snapshot_chunks SET bytes = other.bytes FROM snapshot_chunks other
         WHERE snapshot_chunks.version = $1 AND snapshot_chunks.part = $2
           AND other.version = 2 AND other.part = snapshot_chunks.part AND other.chunk = snapshot_chunks.chunk";
    let version = damaged_copy(&database, exchange, &other).await;
    let refused = activate(&channel, version).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "SNAPSHOT_UNUSABLE");
    activate_unseen(&database, version).await;
    let found = wait_for_load_error(&channel).await;
    assert!(found.load_error.contains("every part is intact"), "{found:?}");
    assert_eq!(recommend(&channel).await.unwrap().snapshot_version, 2);
}
