//! A snapshot whose stored bytes are not what was written is never served, and what was served goes on.

use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use likemind::grpc::proto::v1::recommend_request::Subject;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, GetServingStatusRequest, GetServingStatusResponse, RecommendRequest, RecommendResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::hold::connect;
use crate::postgres::TestDatabase;
use crate::program::{Server, eventually, succeed};
use crate::sample;

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
    eventually("the load error", async || {
        Some(status(channel).await).filter(|status| !status.load_error.is_empty())
    })
    .await
}

async fn recommend(channel: &Channel) -> Result<RecommendResponse, Status> {
    let request = RecommendRequest {
        subject: Some(Subject::UserId("u0".to_owned())),
        ..RecommendRequest::default()
    };
    let mut client = RecommendationServiceClient::new(channel.clone());
    Ok(client.recommend(request).await?.into_inner())
}

/// Of the recommendation service.
async fn health(channel: &Channel) -> ServingStatus {
    let request = HealthCheckRequest {
        service: "likemind.v1.RecommendationService".to_owned(),
    };
    let answer = HealthClient::new(channel.clone()).check(request).await.unwrap();
    answer.into_inner().status()
}

async fn activate(channel: &Channel, version: i64) {
    let request = ActivateSnapshotRequest {
        version,
        reason: String::new(),
    };
    let mut client = ModelServiceClient::new(channel.clone());
    client.activate_snapshot(request).await.unwrap();
}

pub async fn parts(database: &TestDatabase) -> Vec<String> {
    let parts = sqlx::query_scalar("SELECT DISTINCT part FROM snapshot_chunks ORDER BY part");
    let parts: Vec<String> = parts.fetch_all(&mut connect(database).await).await.unwrap();
    assert!(parts.len() > 5, "{parts:?}");
    parts
}

/// A candidate like version 1, but for what `damage` does to its chunks ($1: its version, $2: the part).
pub async fn damaged(database: &TestDatabase, damage: &'static str, part: &str) -> i64 {
    let mut connection = connect(database).await;
    let version: i64 = sqlx::query_scalar(
        "INSERT INTO snapshots (state, fencing_token, parameters, evaluation, user_count, item_count, rating_count,
                                size_bytes, checksum, input_watermark)
         SELECT 'candidate', fencing_token, parameters, evaluation, user_count, item_count, rating_count, size_bytes,
                checksum, input_watermark
         FROM snapshots WHERE version = 1 RETURNING version",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    let copy = "INSERT INTO snapshot_chunks SELECT $1, part, chunk, bytes FROM snapshot_chunks WHERE version = 1";
    sqlx::query(copy).bind(version).execute(&mut connection).await.unwrap();
    let damaged = sqlx::query(damage)
        .bind(version)
        .bind(part)
        .execute(&mut connection)
        .await
        .unwrap();
    assert_ne!(damaged.rows_affected(), 0, "{damage}");
    version
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
pub const LOSE: &str = "DELETE FROM snapshot_chunks WHERE version = $1 AND part = $2";

/// Of a snapshot whose parts are long: a later chunk is missing, the last one is cut, two have changed places.
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
async fn a_running_server_goes_on_with_the_old_snapshot() {
    let database = sample::example().await;
    let server = server(&database);
    let channel = server.channel().await;
    let parts = parts(&database).await;
    let everywhere = parts.iter().flat_map(|part| [(part, FLIP_MIDDLE), (part, LOSE)]);
    let all_ways = [FLIP_FIRST, FLIP_LAST, CUT, LENGTHEN].map(|damage| (&parts[0], damage));
    let mut expected_log_lines = 0;
    for (part, damage) in everywhere.chain(all_ways) {
        let version = damaged(&database, damage, part).await;
        activate(&channel, version).await;
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

        // What is active is served again, so that there is nothing to report.
        activate(&channel, 1).await;
        eventually("the end of the load error", async || {
            status(&channel).await.load_error.is_empty().then_some(())
        })
        .await;
    }
    let log_lines = || server.program.log().matches("cannot be served: ").count();
    eventually("the last log line", async || {
        (log_lines() >= expected_log_lines).then_some(())
    })
    .await;
    assert_eq!(log_lines(), expected_log_lines, "{}", server.program.log());

    // A good version is served although the one before it was not.
    let version = damaged(&database, FLIP_MIDDLE, &parts[0]).await;
    activate(&channel, version).await;
    wait_for_load_error(&channel).await;
    succeed(&database, &["train"]);
    let found = eventually("the good version", async || {
        Some(status(&channel).await).filter(|status| status.snapshot_version == Some(version + 1))
    })
    .await;
    assert_eq!(found.load_error, "");
    assert_eq!(recommend(&channel).await.unwrap().snapshot_version, version + 1);
}

#[tokio::test]
async fn a_server_that_starts_with_a_damaged_snapshot_waits_for_a_good_one() {
    let database = sample::example().await;
    for part in parts(&database).await {
        let version = damaged(&database, FLIP_MIDDLE, &part).await;
        succeed(&database, &["snapshots", "activate", &version.to_string()]);
        let server = server(&database);
        let channel = server.channel().await;
        let found = wait_for_load_error(&channel).await;
        assert_eq!(found.snapshot_version, None);
        assert!(found.load_error.contains(&part), "{found:?}");
        assert_eq!(health(&channel).await, ServingStatus::NotServing);
        let refused = recommend(&channel).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");

        activate(&channel, 1).await;
        eventually("health", async || {
            (health(&channel).await == ServingStatus::Serving).then_some(())
        })
        .await;
        assert_eq!(recommend(&channel).await.unwrap().snapshot_version, 1);
        assert_eq!(status(&channel).await.load_error, "");
    }
}

#[tokio::test]
async fn a_snapshot_of_another_release_is_called_that_until_there_is_a_new_one() {
    let database = sample::example().await;
    let part = &parts(&database).await[0];
    let version = damaged(&database, OLD_FORMAT, part).await;
    succeed(&database, &["snapshots", "activate", &version.to_string()]);
    let server = server(&database);
    let channel = server.channel().await;
    let found = wait_for_load_error(&channel).await;
    let expected = format!(
        "snapshot {version} is of another release: part {part} has format version 1, but this program reads 3; \
         `likemind train` makes one that it can serve"
    );
    assert_eq!(found.load_error, expected);

    succeed(&database, &["train"]);
    eventually("the new snapshot", async || {
        Some(status(&channel).await).filter(|status| status.snapshot_version == Some(version + 1))
    })
    .await;
}

#[tokio::test]
async fn every_chunk_of_a_long_part_counts() {
    let database = sample::trained_online_retail().await;
    let part: String = sqlx::query_scalar(
        "SELECT part FROM snapshot_chunks WHERE version = 1 GROUP BY part HAVING count(*) > 1 ORDER BY part LIMIT 1",
    )
    .fetch_one(&mut connect(&database).await)
    .await
    .expect("every part fits into one chunk");
    let server = server(&database);
    let channel = server.channel().await;
    for damage in [LOSE_LAST_CHUNK, LOSE_SECOND_CHUNK, CUT_LAST_CHUNK, EXCHANGE_CHUNKS] {
        let version = damaged(&database, damage, &part).await;
        activate(&channel, version).await;
        let found = eventually("the load error", async || {
            let names_it =
                |status: &GetServingStatusResponse| status.load_error.contains(&format!("snapshot {version} "));
            Some(status(&channel).await).filter(names_it)
        })
        .await;
        assert!(found.load_error.contains(&part), "{damage}: {found:?}");
        assert_eq!(recommend(&channel).await.unwrap().snapshot_version, 1, "{damage}");
    }
}

/// Each part is as it was written, but not all of them for this version.
#[tokio::test]
async fn parts_of_two_snapshots_are_no_snapshot() {
    let database = sample::example().await;
    succeed(&database, &["train", "--set-config=training.neighbors=1"]);
    let server = server(&database);
    let channel = server.channel().await;
    let other: String = sqlx::query_scalar(
        "SELECT a.part FROM snapshot_chunks a JOIN snapshot_chunks b USING (part, chunk)
         WHERE a.version = 1 AND b.version = 2 AND a.bytes <> b.bytes AND a.part LIKE '%neighbors%' LIMIT 1",
    )
    .fetch_one(&mut connect(&database).await)
    .await
    .unwrap();
    let exchange = "UPDATE snapshot_chunks SET bytes = other.bytes FROM snapshot_chunks other
         WHERE snapshot_chunks.version = $1 AND snapshot_chunks.part = $2
           AND other.version = 2 AND other.part = snapshot_chunks.part AND other.chunk = snapshot_chunks.chunk";
    let version = damaged(&database, exchange, &other).await;
    activate(&channel, version).await;
    let found = wait_for_load_error(&channel).await;
    assert!(found.load_error.contains("every part is intact"), "{found:?}");
    assert_eq!(recommend(&channel).await.unwrap().snapshot_version, 2);
}
