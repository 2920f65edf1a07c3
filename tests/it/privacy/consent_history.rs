//! The history of a user's decisions, and the feed of everybody's decisions for other systems.

use likemind::grpc::proto::v1::privacy_service_client::PrivacyServiceClient;
use likemind::grpc::proto::v1::stream_consent_changes_request::Start;
use likemind::grpc::proto::v1::{
    ConsentDecision, ListConsentsRequest, Purpose, SetConsentRequest, StreamConsentChangesRequest,
    StreamConsentChangesResponse,
};
use sqlx::PgConnection;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::answers::{all_pages, assert_status};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::times::at;

struct Client(PrivacyServiceClient<Channel>);

impl Client {
    async fn of(server: &Server) -> Self {
        Self(PrivacyServiceClient::new(server.channel().await))
    }

    /// Records that `user` decided about marketing so many seconds after 2025-01-01.
    async fn decide(&self, user: &str, granted: bool, seconds: i64) {
        let request = SetConsentRequest {
            user_id: user.to_owned(),
            decisions: vec![ConsentDecision {
                purpose: Purpose::Marketing.into(),
                granted,
            }],
            decided_at: at(seconds),
            source: format!("form {seconds}"),
        };
        self.0.clone().set_consent(request).await.unwrap();
    }

    async fn read(&self, start: Option<Start>, limit: i64) -> Result<Vec<StreamConsentChangesResponse>, Status> {
        let request = StreamConsentChangesRequest { start, limit };
        let mut stream = self.0.clone().stream_consent_changes(request).await?.into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Returns the users and sources that follow `position`, and where they end.
    async fn follow(&self, position: Option<&str>) -> (Vec<String>, String) {
        let start = position.map(|position| Start::Position(position.to_owned()));
        let messages = self.read(start, 0).await.unwrap();
        let end = messages.last().unwrap();
        assert!(end.change.is_none(), "{end:?}");
        (sources(&messages), end.position.clone())
    }
}

/// Returns the user and the source of each decision.
fn sources(messages: &[StreamConsentChangesResponse]) -> Vec<String> {
    let changes = messages.iter().filter_map(|message| message.change.as_ref());
    let source = |event: &likemind::grpc::proto::v1::ConsentEvent| event.source.clone();
    changes
        .map(|change| format!("{} {}", change.user_id, source(change.event.as_ref().unwrap())))
        .collect()
}

/// Records a decision in the transaction that is open on `connection`.
async fn record(connection: &mut PgConnection, user: &str, source: &str) {
    execute(
        connection,
        &format!(
            "INSERT INTO users (external_id) VALUES ('{user}') ON CONFLICT DO NOTHING;
             INSERT INTO consent_events (user_id, purpose, is_granted, decided_at, source)
             SELECT id, 'training', false, now(), '{source}' FROM users WHERE external_id = '{user}'"
        ),
    )
    .await;
}

#[tokio::test]
async fn the_history_has_every_decision_of_one_user_the_latest_recorded_first() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    let list = async |user: &str, page_size: i32, page_token: String| {
        let request = ListConsentsRequest {
            user_id: user.to_owned(),
            page_size,
            page_token,
        };
        let answer = client.0.clone().list_consents(request).await?;
        let answer = answer.into_inner();
        Ok::<_, Status>((answer.events, answer.next_page_token))
    };
    let unknown = list("ada", 0, String::new()).await.unwrap_err();
    assert_status(&unknown, Code::NotFound, "USER_NOT_FOUND");

    // The second was decided before the first, and is not in force.
    for (user, granted, seconds) in [
        ("ada", true, 20),
        ("bob", true, 21),
        ("ada", false, 10),
        ("ada", false, 30),
    ] {
        client.decide(user, granted, seconds).await;
    }
    let (all, _) = list("ada", 0, String::new()).await.unwrap();
    let found: Vec<_> = all.iter().map(|event| (event.source.as_str(), event.granted)).collect();
    assert_eq!(found, [("form 30", false), ("form 10", false), ("form 20", true)]);
    for event in &all {
        assert_eq!(event.purpose(), Purpose::Marketing);
        assert!(event.recorded_at.unwrap().seconds > event.decided_at.unwrap().seconds);
    }
    let page = async |token| list("ada", 1, token).await.unwrap();
    let (paged, pages) = all_pages(page).await;
    assert_eq!((paged, pages), (all, 3));
}

#[tokio::test]
async fn the_feed_continues_at_every_position_and_ends_at_the_present() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    let (none, beginning) = client.follow(None).await;
    assert!(none.is_empty());
    for number in 0..5 {
        client.decide(&format!("u{number}"), true, number).await;
    }
    let all: Vec<String> = (0..5).map(|number| format!("u{number} form {number}")).collect();
    let (followed, end) = client.follow(Some(&beginning)).await;
    assert_eq!(followed, all);
    assert_eq!(client.follow(Some(&end)).await.0, Vec::<String>::new());

    // Each message continues behind itself, also where a limit has ended the stream, and on another server.
    let other = Server::start(&database);
    let limited = Client::of(&other).await.read(None, 2).await.unwrap();
    assert_eq!(sources(&limited), all[..2]);
    assert!(limited.iter().all(|message| message.change.is_some()));
    for (message, expected) in limited.iter().zip([&all[1..], &all[2..]]) {
        assert_eq!(client.follow(Some(&message.position)).await.0, expected);
    }

    client.decide("late", false, 9).await;
    assert_eq!(client.follow(Some(&end)).await.0, ["late form 9"]);
    // A position in the middle of what was read before leads to what came since too.
    let (rest, position) = client.follow(Some(&limited[1].position)).await;
    let (later, _) = client.follow(Some(&position)).await;
    assert_eq!(
        [rest, later].concat(),
        [&all[2..], &["late form 9".to_owned()]].concat()
    );
}

#[tokio::test]
async fn the_feed_begins_at_a_time() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    client.decide("old", true, 1).await;
    client.decide("new", true, 2).await;
    execute(
        &mut connection,
        "ALTER TABLE consent_events DISABLE TRIGGER ALL;
         UPDATE consent_events SET recorded_at = '2020-01-01' WHERE source = 'form 1'",
    )
    .await;
    let read = async |seconds| {
        let since = at(seconds).map(Start::Since);
        sources(&client.read(since, 0).await.unwrap())
    };
    const YEAR: i64 = 365 * 86_400;
    assert_eq!(read(-10 * YEAR).await, ["old form 1", "new form 2"]);
    assert_eq!(read(0).await, ["new form 2"]);
    assert_eq!(read(70 * YEAR).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_feed_misses_no_decision_of_a_transaction_that_commits_late() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    let (mut early, mut late) = (database.connect().await, database.connect().await);
    execute(&mut early, "BEGIN").await;
    execute(&mut late, "BEGIN").await;
    record(&mut late, "late", "began first").await;
    record(&mut early, "early", "committed first").await;
    execute(&mut early, "COMMIT").await;
    let (first, position) = client.follow(None).await;
    assert_eq!(first, ["early committed first"]);
    execute(&mut late, "COMMIT").await;
    let (second, position) = client.follow(Some(&position)).await;
    assert_eq!(second, ["late began first"]);
    assert_eq!(client.follow(Some(&position)).await.0, Vec::<String>::new());
}

#[tokio::test]
async fn a_position_of_a_restored_database_leads_to_everything_again() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    client.decide("ada", true, 1).await;
    let mut connection = database.connect().await;
    // As after a restore into a new PostgreSQL, whose transactions have lower numbers.
    execute(
        &mut connection,
        "ALTER TABLE consent_events DISABLE TRIGGER ALL; UPDATE consent_events SET xid = '500000000'",
    )
    .await;
    let (restored, position) = client.follow(None).await;
    assert_eq!(restored, ["ada form 1"]);
    assert_eq!(client.follow(Some(&position)).await.0, Vec::<String>::new());
    client.decide("bob", true, 2).await;
    assert_eq!(client.follow(Some(&position)).await.0, ["bob form 2"]);
}
