//! Trainers that are killed, paused or not alone. None of them harms what is served.

use std::process::Command;

use likemind::grpc::proto::v1::{GetServingStatusRequest, RecommendRequest, recommend_request::Subject};

use crate::support::databases;
use crate::support::databases::FEWER_USERS;
use crate::support::postgres::{TestDatabase, execute, number};
use crate::support::program::{Program, Server, command, run, succeed};
use crate::support::trainer_hold::{Hold, Point};
use crate::support::waiting::eventually;

/// Returns a trainer that loses its lease by a short pause. Other trainers keep theirs however slow the machine is.
fn trainer_with_a_short_lease(database: &TestDatabase) -> Command {
    command(database, &["train", "--set-config=trainer.lease_ms=2000"])
}

fn trainer(database: &TestDatabase) -> Command {
    command(database, &["train"])
}

fn server(database: &TestDatabase) -> Server {
    Server::with(database, &[("live.refresh_interval_ms", "50")])
}

/// Returns the version and state of all snapshots.
async fn states(database: &TestDatabase) -> Vec<(i64, String)> {
    let states = sqlx::query_as("SELECT version, state FROM snapshots ORDER BY version");
    states.fetch_all(&mut database.connect().await).await.unwrap()
}

async fn state_of(database: &TestDatabase, version: i64) -> Option<String> {
    let states = states(database).await;
    states.into_iter().find(|state| state.0 == version).map(|state| state.1)
}

async fn active_version(database: &TestDatabase) -> i64 {
    let states = states(database).await;
    let active: Vec<i64> = states
        .iter()
        .filter(|state| state.1 == "active")
        .map(|state| state.0)
        .collect();
    assert_eq!(active.len(), 1, "{states:?}");
    active[0]
}

/// Returns the version that the server answers from, which is also the one that its status reports.
async fn served_version(server: &Server, user: &str) -> i64 {
    let status = server
        .models()
        .await
        .get_serving_status(GetServingStatusRequest {})
        .await;
    let status = status.unwrap().into_inner();
    assert_eq!(status.load_error, "");
    let request = RecommendRequest {
        subject: Some(Subject::UserId(user.to_owned())),
        ..RecommendRequest::default()
    };
    let answer = server
        .recommendations()
        .await
        .recommend(request)
        .await
        .unwrap()
        .into_inner();
    assert!(!answer.items.is_empty());
    // The server may have switched between the two.
    assert!(status.snapshot_version <= Some(answer.snapshot_version));
    answer.snapshot_version
}

async fn wait_until_served(server: &Server, user: &str, version: i64) {
    let look = async || served_version(server, user).await;
    eventually(&format!("version {version} is served"), look, |&served| {
        served == version
    })
    .await;
}

async fn wait_until_lease_ended(database: &TestDatabase) {
    let mut connection = database.connect().await;
    let expired = "SELECT count(*) FROM leases WHERE name = 'training' AND expires_at <= clock_timestamp()";
    let look = async || number(&mut connection, expired).await;
    eventually("the lease has ended", look, |&expired| expired == 1).await;
}

/// Ends the lease as if its time had passed. Only the clock of the database counts.
async fn end_lease(database: &TestDatabase) {
    let end = "UPDATE leases SET expires_at = clock_timestamp() WHERE name = 'training'";
    sqlx::query(end).execute(&mut database.connect().await).await.unwrap();
}

/// Asserts, after the death of the trainer of version 2, that version 1 is served, and that the next run takes over, cleans up
/// and activates its version.
async fn assert_survived(database: &TestDatabase, server: &Server, user: &str) {
    assert_eq!(active_version(database).await, 1);
    assert_eq!(served_version(server, user).await, 1);

    end_lease(database).await;
    succeed(database, &["train", FEWER_USERS]);
    let version = active_version(database).await;
    assert!(version > 1);
    assert_eq!(state_of(database, 1).await.as_deref(), Some("retired"));
    let left = states(database).await;
    assert!(left.iter().all(|state| state.1 != "building"), "{left:?}");
    wait_until_served(server, user, version).await;
}

async fn assert_survives_a_kill_at(point: Point, left: Option<&str>) {
    let database = databases::example().await;
    let server = server(&database);
    let mut hold = Hold::at(&database, point).await;
    let trainer = Program::start(&mut trainer(&database));
    hold.reached().await;
    trainer.kill();
    assert_eq!(served_version(&server, "u0").await, 1);
    hold.release().await;
    assert_eq!(state_of(&database, 2).await.as_deref(), left);
    assert_survived(&database, &server, "u0").await;
}

#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_while_reading() {
    assert_survives_a_kill_at(Point::Reading, None).await;
}

#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_while_beginning() {
    assert_survives_a_kill_at(Point::Begin, None).await;
}

#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_while_writing() {
    assert_survives_a_kill_at(Point::Writing, Some("building")).await;
}

#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_before_completing() {
    assert_survives_a_kill_at(Point::BeforeFinish, Some("building")).await;
}

#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_while_completing() {
    assert_survives_a_kill_at(Point::Finish, Some("building")).await;
}

#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_before_activating() {
    // The version is complete, and an operator may activate it.
    assert_survives_a_kill_at(Point::BeforeActivate, Some("candidate")).await;
}

#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_while_activating() {
    assert_survives_a_kill_at(Point::Activate, Some("candidate")).await;
}

/// The data keep the trainer busy for long enough to be stopped while it computes.
#[tokio::test]
async fn served_snapshot_survives_a_trainer_killed_while_computing() {
    let database = databases::trained_online_retail().await;
    let server = server(&database);
    // A trainer that is not stopped in time is held here.
    let hold = Hold::at(&database, Point::Writing).await;
    for (phase, next) in [("evaluating", "effective ratings"), ("effective ratings", "writing")] {
        let trainer = paused_between(&database, phase, next).await;
        trainer.kill();
        let states = states(&database).await;
        assert_eq!(states.len(), 2, "{states:?}");
        assert_eq!(states[1].1, "building");
        assert_eq!(served_version(&server, "17841").await, 1);
        end_lease(&database).await;
    }
    hold.release().await;
    assert_survived(&database, &server, "17841").await;
}

/// Returns a trainer that stands still in `phase`. On a busy machine it may take several attempts to stop one in time.
async fn paused_between(database: &TestDatabase, phase: &str, next: &str) -> Program {
    for _ in 0..20 {
        let mut trainer = Program::start(command(database, &["train"]).env("RAYON_NUM_THREADS", "1"));
        trainer.wait_for_log(&format!("INFO {phase}"));
        trainer.signal(libc::SIGSTOP);
        if !trainer.log().contains(&format!("INFO {next}")) {
            return trainer;
        }
        trainer.kill();
        let end_its_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'advisory'";
        execute(&mut database.connect().await, end_its_sessions).await;
        end_lease(database).await;
    }
    panic!("no trainer could be stopped while {phase}");
}

#[tokio::test]
async fn an_interrupted_trainer_exits_at_once_and_frees_its_lease() {
    let database = databases::trained_online_retail().await;
    let mut trainer = Program::start(trainer(&database).env("RAYON_NUM_THREADS", "1"));
    trainer.wait_for_log("INFO evaluating");
    trainer.signal(libc::SIGTERM);
    let (status, log) = trainer.wait();
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(!log.contains("INFO effective ratings"), "{log}");
    assert_eq!(
        states(&database).await,
        [(1, "active".to_owned()), (2, "failed".to_owned())]
    );
    wait_until_lease_ended(&database).await;
}

#[tokio::test]
async fn a_killed_trainer_keeps_others_out_until_its_lease_ends() {
    let database = databases::example().await;
    let mut hold = Hold::at(&database, Point::Writing).await;
    let trainer = Program::start(&mut trainer(&database));
    hold.reached().await;
    let holder = format!("process {} on ", trainer.id());
    trainer.kill();
    let (code, _, error) = run(&database, &["train"]);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains(&holder), "{error}");
    hold.release().await;

    end_lease(&database).await;
    succeed(&database, &["train"]);
    assert_eq!(
        states(&database).await,
        [(1, "retired".to_owned()), (3, "active".to_owned())]
    );
}

#[tokio::test]
async fn a_second_trainer_exits_and_names_the_first() {
    let database = databases::example().await;
    let mut hold = Hold::at(&database, Point::Writing).await;
    let trainer = Program::start(&mut trainer(&database));
    hold.reached().await;
    let (code, output, error) = run(&database, &["train", "--json"]);
    assert_eq!((code, output.as_str()), (4, ""), "{error}");
    let expected = format!("another trainer is at work: process {} on ", trainer.id());
    assert!(error.contains(&expected), "{error}");

    hold.release().await;
    let (status, log) = trainer.wait();
    assert!(status.success(), "{log}");
    assert_eq!(
        states(&database).await,
        [(1, "retired".to_owned()), (2, "active".to_owned())]
    );
}

/// Pauses a trainer at `point` until its lease has ended and another trainer has published, and asserts that it publishes
/// nothing when it goes on.
async fn assert_cannot_publish_after_a_pause_at(point: Point) {
    let database = databases::example().await;
    let server = server(&database);
    let mut hold = Hold::at(&database, point).await;
    let sleeper = Program::start(&mut trainer_with_a_short_lease(&database));
    hold.reached().await;
    sleeper.signal(libc::SIGSTOP);
    hold.release().await;
    wait_until_lease_ended(&database).await;

    let (status, log) = Program::start(&mut trainer(&database)).wait();
    assert!(status.success(), "{log}");
    let version = active_version(&database).await;
    let before = states(&database).await;
    sleeper.signal(libc::SIGCONT);
    let (status, log) = sleeper.wait();
    assert_eq!(status.code(), Some(5), "{log}");
    assert!(log.contains("the training lease was lost"), "{log}");

    let after = states(&database).await;
    assert_eq!(active_version(&database).await, version);
    let publishable: Vec<&(i64, String)> = after
        .iter()
        .filter(|state| ["building", "candidate", "rejected"].contains(&state.1.as_str()))
        .collect();
    assert!(publishable.is_empty(), "{before:?} became {after:?}");
    wait_until_served(&server, "u0", version).await;
}

#[tokio::test]
async fn a_trainer_that_lost_its_lease_cannot_begin_a_version() {
    assert_cannot_publish_after_a_pause_at(Point::Reading).await;
}

#[tokio::test]
async fn a_trainer_that_lost_its_lease_cannot_write_a_version() {
    assert_cannot_publish_after_a_pause_at(Point::Writing).await;
}

#[tokio::test]
async fn a_trainer_that_lost_its_lease_cannot_complete_a_version() {
    assert_cannot_publish_after_a_pause_at(Point::BeforeFinish).await;
}

#[tokio::test]
async fn a_trainer_that_lost_its_lease_cannot_activate_a_version() {
    assert_cannot_publish_after_a_pause_at(Point::BeforeActivate).await;
}

// In the tests below PostgreSQL ends the open transaction by itself; otherwise the second trainer would wait for ever.

#[tokio::test]
async fn a_trainer_paused_while_beginning_does_not_keep_others_out() {
    assert_cannot_publish_after_a_pause_at(Point::Begin).await;
}

#[tokio::test]
async fn a_trainer_paused_while_completing_does_not_keep_others_out() {
    assert_cannot_publish_after_a_pause_at(Point::Finish).await;
}

#[tokio::test]
async fn a_trainer_paused_while_activating_does_not_keep_others_out() {
    assert_cannot_publish_after_a_pause_at(Point::Activate).await;
}

/// Nobody else takes the lease here, and it ends while the trainer waits for its lock.
#[tokio::test]
async fn a_lease_that_ends_while_the_trainer_waits_for_its_lock_is_lost() {
    let database = databases::example().await;
    let mut before_finish = Hold::at(&database, Point::BeforeFinish).await;
    let trainer = Program::start(&mut trainer_with_a_short_lease(&database));
    before_finish.reached().await;
    let mut lock = database.connect().await;
    execute(
        &mut lock,
        "BEGIN; SELECT FROM leases WHERE name = 'training' FOR UPDATE",
    )
    .await;
    before_finish.release().await;
    wait_until_lease_ended(&database).await;
    execute(&mut lock, "COMMIT").await;
    let (status, log) = trainer.wait();
    assert_eq!(status.code(), Some(5), "{log}");
    assert_eq!(state_of(&database, 2).await.as_deref(), Some("failed"));
    assert_eq!(active_version(&database).await, 1);
}
