//! ModelService.

use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, GateVerdict, GetServingStatusRequest, GetServingStatusResponse, GetSnapshotRequest,
    ListSnapshotsRequest, Rating, RollbackSnapshotRequest, Snapshot, SnapshotCounts, SnapshotState,
    UpsertRatingsRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::answers::{all_pages, assert_status};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::{Server, succeed};
use crate::support::times::{at, seconds_now};
use crate::support::waiting::eventually;

type Client = ModelServiceClient<Channel>;

/// Creates a database with so many snapshots, of which the last is active.
async fn trained(snapshots: usize) -> TestDatabase {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let rating = |user: usize, item: usize| Rating {
        user_id: format!("u{user}"),
        item_id: format!("i{item}"),
        value: 1.0 + ((user * item) % 5) as f32,
        rated_at: at((user * 10 + item) as i64),
    };
    let ratings = (0..4)
        .flat_map(|user| (0..5).map(move |item| rating(user, item)))
        .collect();
    let request = UpsertRatingsRequest { ratings };
    server.ratings().await.upsert_ratings(request).await.unwrap();
    for _ in 0..snapshots {
        succeed(&database, &["train"]);
    }
    database
}

async fn get(client: &Client, version: i64) -> Result<Snapshot, Status> {
    let answer = client.clone().get_snapshot(GetSnapshotRequest { version }).await?;
    Ok(answer.into_inner().snapshot.unwrap())
}

async fn activate(client: &Client, version: i64, reason: &str) -> Result<Snapshot, Status> {
    let request = ActivateSnapshotRequest {
        version,
        reason: reason.to_owned(),
    };
    Ok(client
        .clone()
        .activate_snapshot(request)
        .await?
        .into_inner()
        .snapshot
        .unwrap())
}

async fn roll_back(client: &Client, reason: &str) -> Result<Snapshot, Status> {
    let request = RollbackSnapshotRequest {
        reason: reason.to_owned(),
    };
    Ok(client
        .clone()
        .rollback_snapshot(request)
        .await?
        .into_inner()
        .snapshot
        .unwrap())
}

async fn status(client: &Client) -> GetServingStatusResponse {
    let answer = client.clone().get_serving_status(GetServingStatusRequest {}).await;
    answer.unwrap().into_inner()
}

async fn wait_until_served(client: &Client, version: i64) -> GetServingStatusResponse {
    let look = async || status(client).await;
    let is_served = |status: &GetServingStatusResponse| status.snapshot_version == Some(version);
    eventually(&format!("snapshot {version} is served"), look, is_served).await
}

async fn states(client: &Client) -> Vec<(i64, SnapshotState)> {
    let answer = client.clone().list_snapshots(ListSnapshotsRequest::default()).await;
    let snapshots = answer.unwrap().into_inner().snapshots;
    snapshots
        .iter()
        .map(|snapshot| (snapshot.version, snapshot.state()))
        .collect()
}

#[tokio::test]
async fn snapshots_are_listed_newest_first_with_their_parameters_and_metrics() {
    let database = trained(3).await;
    let server = Server::start(&database);
    let client = server.models().await;

    let list_page = async |page_size: i32, page_token: String| {
        let request = ListSnapshotsRequest { page_size, page_token };
        let answer = client.clone().list_snapshots(request).await.unwrap().into_inner();
        (answer.snapshots, answer.next_page_token)
    };
    for (page_size, expected_pages) in [(0, 1), (1, 3), (2, 2), (3, 1), (1_000, 1)] {
        let (snapshots, pages) = all_pages(|token| list_page(page_size, token)).await;
        let versions: Vec<i64> = snapshots.iter().map(|snapshot| snapshot.version).collect();
        assert_eq!((versions, pages), (vec![3, 2, 1], expected_pages), "by {page_size}");
        for snapshot in snapshots {
            assert_eq!(get(&client, snapshot.version).await.unwrap(), snapshot);
        }
    }
    let expected = [
        (3, SnapshotState::Active),
        (2, SnapshotState::Retired),
        (1, SnapshotState::Retired),
    ];
    assert_eq!(states(&client).await, expected);

    let snapshot = get(&client, 3).await.unwrap();
    let counts = SnapshotCounts {
        users: 4,
        items: 5,
        ratings: 20,
    };
    assert_eq!(snapshot.counts, Some(counts));
    let parameters = snapshot.parameters.unwrap();
    assert_eq!((parameters.neighbors, parameters.implicit.as_str()), (50, "fitted"));
    assert_eq!((parameters.rating_min, parameters.rating_max), (1.0, 5.0));
    let evaluation = snapshot.evaluation.unwrap();
    assert_eq!(evaluation.verdict(), GateVerdict::InsufficientEvaluation);
    let metrics = evaluation
        .ranking
        .iter()
        .flat_map(|row| [row.ndcg_at_10, row.recall_at_20, row.coverage_at_20, row.gini]);
    assert!(
        metrics.into_iter().all(|metric| (0.0..=1.0).contains(&metric)),
        "{:?}",
        evaluation.ranking
    );
    assert_eq!(
        snapshot.input_watermark.split(':').count(),
        3,
        "{}",
        snapshot.input_watermark
    );
    assert_eq!(snapshot.checksum.len(), 32);
    assert!(snapshot.checksum.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(snapshot.size_bytes > 0);
    let (created, activated) = (
        snapshot.created_at.unwrap().seconds,
        snapshot.activated_at.unwrap().seconds,
    );
    assert!(
        created <= activated && activated <= seconds_now(),
        "{created} {activated}"
    );
    assert_eq!(snapshot.note, "");

    let status = get(&client, 4).await.unwrap_err();
    assert_status(&status, Code::NotFound, "SNAPSHOT_NOT_FOUND");
    let status = get(&client, i64::MAX).await.unwrap_err();
    assert_status(&status, Code::NotFound, "SNAPSHOT_NOT_FOUND");
}

#[tokio::test]
async fn an_activated_or_rolled_back_snapshot_is_served_with_its_reason_as_note() {
    let database = trained(3).await;
    let server = Server::start(&database);
    let client = server.models().await;
    wait_until_served(&client, 3).await;

    let activated = activate(&client, 1, "an experiment").await.unwrap();
    assert_eq!((activated.version, activated.state()), (1, SnapshotState::Active));
    assert_eq!(activated.note, "an experiment");
    assert_eq!(get(&client, 1).await.unwrap(), activated);
    let served = wait_until_served(&client, 1).await;
    assert_eq!(served.previous_version, Some(3));
    assert_eq!(served.snapshot_created_at, activated.created_at);

    // Activating the active snapshot changes nothing.
    assert_eq!(activate(&client, 1, "").await.unwrap(), activated);

    let back = roll_back(&client, "it was worse").await.unwrap();
    assert_eq!(
        (back.version, back.state(), back.note.as_str()),
        (3, SnapshotState::Active, "it was worse")
    );
    wait_until_served(&client, 3).await;
    let retired = get(&client, 1).await.unwrap();
    assert_eq!(
        (retired.state(), retired.note.as_str()),
        (SnapshotState::Retired, "an experiment")
    );
    let expected = [
        (3, SnapshotState::Active),
        (2, SnapshotState::Retired),
        (1, SnapshotState::Retired),
    ];
    assert_eq!(states(&client).await, expected);
    assert_eq!(roll_back(&client, "").await.unwrap().version, 1);
    wait_until_served(&client, 1).await;
}

#[tokio::test]
async fn unknown_and_incomplete_snapshots_cannot_be_activated_and_a_rejected_one_needs_a_reason() {
    let database = trained(1).await;
    let server = Server::start(&database);
    let client = server.models().await;
    wait_until_served(&client, 1).await;

    let status = roll_back(&client, "").await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "NO_PREVIOUS_SNAPSHOT");
    let status = activate(&client, 2, "").await.unwrap_err();
    assert_status(&status, Code::NotFound, "SNAPSHOT_NOT_FOUND");

    succeed(&database, &["train"]);
    wait_until_served(&client, 2).await;
    let mut connection = database.connect().await;
    let mut set_state = async |state: &str| {
        let statement = format!("UPDATE snapshots SET state = '{state}' WHERE version = 1");
        execute(&mut connection, &statement).await;
    };
    for state in ["building", "failed"] {
        set_state(state).await;
        let status = activate(&client, 1, "all the same").await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "SNAPSHOT_NOT_ACTIVATABLE");
        let status = roll_back(&client, "").await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "NO_PREVIOUS_SNAPSHOT");
    }
    set_state("rejected").await;
    let status = activate(&client, 1, "").await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "REASON_REQUIRED");
    assert_eq!(get(&client, 2).await.unwrap().state(), SnapshotState::Active);
    let forced = activate(&client, 1, "all the same").await.unwrap();
    assert_eq!(
        (forced.state(), forced.note.as_str()),
        (SnapshotState::Active, "all the same")
    );
    wait_until_served(&client, 1).await;
    set_state("active").await;
}

#[tokio::test]
async fn the_serving_status_reports_snapshots_overlay_and_database() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.models().await;
    let look = async || status(&client).await;
    let empty = eventually("the database is read", look, |status| status.database_available).await;
    assert_eq!((empty.snapshot_version, empty.previous_version), (None, None));
    assert_eq!((empty.snapshot_created_at, empty.loaded_at), (None, None));
    assert_eq!(states(&client).await, []);

    let database = trained(1).await;
    let started = seconds_now();
    let server = Server::start(&database);
    let client = server.models().await;
    let served = status(&client).await;
    assert_eq!(
        (served.snapshot_version, served.previous_version),
        (Some(1), None),
        "a snapshot is served from the first request on"
    );
    assert_eq!(served.snapshot_created_at, get(&client, 1).await.unwrap().created_at);
    assert!((started..=seconds_now()).contains(&served.loaded_at.unwrap().seconds));
    assert!(served.refreshed_at.is_some() && served.database_available);
    assert_eq!(
        (
            served.fresh_entries,
            served.fresh_entries_dropped,
            served.load_error.as_str()
        ),
        (0, 0, "")
    );

    let rating = Rating {
        user_id: "new".to_owned(),
        item_id: "i0".to_owned(),
        value: 2.0,
        rated_at: None,
    };
    let request = UpsertRatingsRequest { ratings: vec![rating] };
    server.ratings().await.upsert_ratings(request).await.unwrap();
    assert_eq!(status(&client).await.fresh_entries, 1);
    succeed(&database, &["train"]);
    let served = wait_until_served(&client, 2).await;
    assert_eq!((served.fresh_entries, served.previous_version), (0, Some(1)));
}
