//! StreamAudience: everybody who is likely to want an item or the items of a category.

use std::collections::BTreeSet;

use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    AudienceHeader, AudienceRow, ListItemAudienceRequest, StreamAudienceRequest, StreamAudienceResponse,
    stream_audience_request::Of, stream_audience_response::Message,
};
use sqlx::PgConnection;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use crate::support::answers::{assert_invalid, assert_status, distinguishable};
use crate::support::api_keys::{KeyedChannel, WithKey, create_key, id_of};
use crate::support::caller::Caller;
use crate::support::postgres::execute;
use crate::support::program::{Server, succeed};
use crate::support::shop::{self, ITEMS, USERS, item, rating, user};

type Client = RecommendationServiceClient<KeyedChannel>;

async fn client(server: &Server, key: Option<&str>) -> Client {
    RecommendationServiceClient::with_interceptor(server.channel().await, WithKey::new(key))
}

fn of_item(id: &str) -> StreamAudienceRequest {
    StreamAudienceRequest {
        of: Some(Of::ItemId(id.to_owned())),
        ..StreamAudienceRequest::default()
    }
}

fn of_category(name: &str) -> StreamAudienceRequest {
    StreamAudienceRequest {
        of: Some(Of::Category(name.to_owned())),
        ..StreamAudienceRequest::default()
    }
}

async fn header(stream: &mut Streaming<StreamAudienceResponse>) -> AudienceHeader {
    match stream.message().await.unwrap().unwrap().message {
        Some(Message::Header(header)) => header,
        other => panic!("not a header: {other:?}"),
    }
}

async fn rest(mut stream: Streaming<StreamAudienceResponse>) -> Result<Vec<AudienceRow>, Status> {
    let mut rows = Vec::new();
    while let Some(message) = stream.message().await? {
        match message.message {
            Some(Message::Row(row)) => rows.push(row),
            other => panic!("not a row: {other:?}"),
        }
    }
    Ok(rows)
}

/// Streams an audience, and checks that its counts add up.
async fn list(client: &Client, request: StreamAudienceRequest) -> Result<(AudienceHeader, Vec<AudienceRow>), Status> {
    let mut stream = client.clone().stream_audience(request).await?.into_inner();
    let header = header(&mut stream).await;
    let left_out = header.without_consent_count
        + header.without_affinity_count
        + header.bought_count
        + header.below_min_score_count;
    assert_eq!(header.audience_count + left_out, header.considered_count, "{header:?}");
    Ok((header, rest(stream).await?))
}

fn users_of(rows: &[AudienceRow]) -> Vec<&str> {
    rows.iter().map(|row| row.user_id.as_str()).collect()
}

/// Returns the action, subject, note and number of rows of each audit row about an audience.
async fn audited(connection: &mut PgConnection) -> Vec<(String, String, String, i64)> {
    sqlx::query_as("SELECT action, subject, note, row_count FROM audit WHERE action LIKE 'AUDIENCE%' ORDER BY id")
        .fetch_all(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_audience_of_an_item_is_that_of_list_item_audience_without_a_limit() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = client(&server, None).await;
    let request = StreamAudienceRequest {
        note: "a banner".to_owned(),
        ..of_item("i05")
    };
    let (header, rows) = list(&client, request).await.unwrap();
    assert_eq!(
        (header.snapshot_version, header.item_count, header.considered_count),
        (1, 1, USERS as i64)
    );
    let request = ListItemAudienceRequest {
        item_id: item(5),
        limit: 1_000,
        exclude_purchased: false,
    };
    let listed = client
        .clone()
        .list_item_audience(request)
        .await
        .unwrap()
        .into_inner()
        .users;
    assert!(listed.len() > 100, "{}", listed.len());
    assert_eq!(header.audience_count as usize, listed.len());
    assert_eq!(
        users_of(&rows),
        listed.iter().map(|member| member.user_id.as_str()).collect::<Vec<_>>()
    );
    for ((row, member), rank) in rows.iter().zip(&listed).zip(1..) {
        assert_eq!(row.rank, rank);
        assert!((row.score - member.score).abs() < 1e-9);
    }
    let row = |action: &str, rows: usize| (action.to_owned(), "i05".to_owned(), "a banner".to_owned(), rows as i64);
    assert_eq!(
        audited(&mut database.connect().await).await,
        [
            row("AUDIENCE_OPENED", listed.len()),
            row("AUDIENCE_LISTED", listed.len())
        ]
    );
}

#[tokio::test]
async fn the_audience_of_a_category_sums_the_scores_of_its_items_and_pages_resume_exactly() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = client(&server, None).await;
    let caller = Caller::of(&server).await;
    let (header, all) = list(&client, of_category("books")).await.unwrap();
    assert_eq!(header.item_count as usize, ITEMS / 2);
    let mut scores = vec![0.0; USERS];
    for number in (0..ITEMS).step_by(2) {
        for (neighbor, similarity) in caller.similar(&item(number)).await {
            let neighbor: usize = neighbor[1..].parse().unwrap();
            for (user, score) in scores.iter_mut().enumerate() {
                *score += similarity * rating(user, neighbor).map_or(0.0, f64::from);
            }
        }
    }
    assert!(all.is_sorted_by(|a, b| (-a.score, &a.user_id) < (-b.score, &b.user_id)));
    for row in &all {
        let number: usize = row.user_id[1..].parse().unwrap();
        assert!(
            (row.score - scores[number]).abs() < 1e-3,
            "{row:?} is not {}",
            scores[number]
        );
    }
    let resume = |row: usize, limit: i64| StreamAudienceRequest {
        page_token: all[row].page_token.clone(),
        limit,
        ..of_category("books")
    };
    for row in [0, 63, 64, all.len() - 1] {
        assert_eq!(list(&client, resume(row, 0)).await.unwrap().1, all[row + 1..]);
    }
    assert_eq!(list(&client, resume(9, 5)).await.unwrap().1, all[10..15]);
    let least = all[20].score;
    let narrowed = StreamAudienceRequest {
        min_score: Some(least),
        ..of_category("books")
    };
    let (header, rows) = list(&client, narrowed).await.unwrap();
    assert_eq!(users_of(&rows), users_of(&all[..21]));
    assert_eq!(header.below_min_score_count as usize, all.len() - 21);
    let foreign = StreamAudienceRequest {
        page_token: all[0].page_token.clone(),
        ..of_category("games")
    };
    assert_invalid(
        &list(&client, foreign).await.unwrap_err(),
        "INVALID_PAGE_TOKEN",
        &["page_token"],
    );
}

#[tokio::test]
async fn users_without_consent_and_buyers_are_left_out() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "INSERT INTO suppressions (user_id) VALUES (1);
         INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         VALUES (2, 'marketing', false, now()), (3, 'profiling', false, now()), (4, 'marketing', true, now());
         INSERT INTO changes (user_id) VALUES (1), (2), (3), (4)",
    )
    .await;
    let server = Server::start(&database);
    let client = client(&server, None).await;
    let (header, rows) = list(&client, of_item("i05")).await.unwrap();
    assert_eq!(header.without_consent_count, 3);
    let listed: BTreeSet<&str> = users_of(&rows).into_iter().collect();
    for gone in ["u000", "u001", "u002"] {
        assert!(!listed.contains(gone), "{gone}");
    }
    let caller = Caller::of(&server).await;
    caller.buy("an order", 1, &rows[0].user_id, "i05", 1).await;
    let request = StreamAudienceRequest {
        exclude_purchased: true,
        ..of_item("i05")
    };
    let (header, without_buyer) = list(&client, request).await.unwrap();
    assert_eq!(
        (header.bought_count, users_of(&without_buyer)),
        (1, users_of(&rows[1..]))
    );
    assert_eq!(list(&client, of_item("i05")).await.unwrap().1.len(), rows.len());
}

#[tokio::test]
async fn a_user_who_withdraws_consent_during_a_stream_is_left_out_of_what_remains() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    // Everybody has the history of u000, so that all are in the audience of the same items, in the order of their ids.
    execute(
        &mut connection,
        "INSERT INTO users (external_id) SELECT 'x' || lpad(n::text, 6, '0') FROM generate_series(1, 5000) AS n;
         INSERT INTO ratings (user_id, item_id, value, rated_at)
         SELECT users.id, item_id, value, rated_at FROM ratings, users
         WHERE user_id = 1 AND users.external_id LIKE 'x%'",
    )
    .await;
    shop::train(database.url());
    let server = Server::start(&database);
    let endpoint = Endpoint::from_shared(server.address.clone()).unwrap();
    let channel = endpoint
        .initial_stream_window_size(1_024)
        .initial_connection_window_size(1_024);
    let mut client = RecommendationServiceClient::new(channel.connect().await.unwrap());
    let mut stream = client.stream_audience(of_category("books")).await.unwrap().into_inner();
    let opened = header(&mut stream).await;
    assert!(opened.audience_count > 5_000, "{opened:?}");
    // The audience is in the audit before the first row is taken.
    let audit = audited(&mut connection).await;
    assert_eq!(
        (audit.len(), audit[0].0.as_str(), audit[0].3),
        (1, "AUDIENCE_OPENED", opened.audience_count)
    );
    execute(
        &mut connection,
        "INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         SELECT id, 'marketing', false, now() FROM users WHERE external_id = 'x005000';
         INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         SELECT id, 'profiling', false, now() FROM users WHERE external_id = 'x004999';
         INSERT INTO suppressions (user_id) SELECT id FROM users WHERE external_id = 'x004998'",
    )
    .await;
    let rows = rest(stream).await.unwrap();
    assert_eq!(rows.len() as i64, opened.audience_count - 3);
    let listed: BTreeSet<&str> = users_of(&rows).into_iter().collect();
    for gone in ["x004998", "x004999", "x005000"] {
        assert!(!listed.contains(gone), "{gone}");
    }
    let audit = audited(&mut connection).await;
    assert_eq!(
        (audit[1].0.as_str(), audit[1].3),
        ("AUDIENCE_LISTED", rows.len() as i64)
    );
}

#[tokio::test]
async fn a_merchants_key_gets_audiences_of_its_own_items_alone() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    // The category "mixed" has an item of each merchant.
    execute(
        &mut connection,
        "UPDATE items SET category = 'mixed' WHERE external_id IN ('i02', 'i03')",
    )
    .await;
    succeed(&database, &["train", "--set-config=gate.min_users=1000000"]);
    let own = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
    let all = create_key(&database, &["--role", "marketer"]);
    let service = create_key(&database, &["--role", "service"]);
    let server = Server::start(&database);
    let own_client = client(&server, Some(&own)).await;
    let all_client = client(&server, Some(&all)).await;
    let (of_item_2, rows) = list(&own_client, of_item("i02")).await.unwrap();
    assert_eq!(of_item_2.item_count, 1);
    let unknown = distinguishable(
        &list(&own_client, of_item("unheard-of")).await.unwrap_err(),
        "unheard-of",
    );
    let foreign = distinguishable(&list(&own_client, of_item("i03")).await.unwrap_err(), "i03");
    assert_eq!((foreign.clone(), foreign.0), (unknown, Code::NotFound));
    // Only the merchant's own items of a category count.
    let (of_mixed, mixed) = list(&own_client, of_category("mixed")).await.unwrap();
    assert_eq!((of_mixed.item_count, users_of(&mixed)), (1, users_of(&rows)));
    assert_eq!(list(&all_client, of_category("mixed")).await.unwrap().0.item_count, 2);
    let unknown = distinguishable(&list(&own_client, of_category("no")).await.unwrap_err(), "no");
    let foreign = list(&own_client, of_category("games")).await.unwrap_err();
    assert_status(&foreign, Code::NotFound, "CATEGORY_NOT_FOUND");
    assert_eq!(distinguishable(&foreign, "games").0, unknown.0);
    let refused = list(&client(&server, Some(&service)).await, of_item("i02"))
        .await
        .unwrap_err();
    assert_status(&refused, Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    let actors: Vec<String> = sqlx::query_scalar("SELECT DISTINCT actor FROM audit WHERE action = 'AUDIENCE_OPENED'")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let actors: BTreeSet<String> = actors.into_iter().collect();
    assert_eq!(
        actors,
        BTreeSet::from([format!("key:{}", id_of(&own)), format!("key:{}", id_of(&all))])
    );
}

#[tokio::test]
async fn bad_fields_of_an_audience_are_refused_by_name() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = client(&server, None).await;
    let user_of = user(0);
    for (field, reason, request) in [
        ("of", "MISSING", StreamAudienceRequest::default()),
        ("item_id", "EMPTY_ID", of_item("")),
        ("category", "EMPTY_ID", of_category("")),
        (
            "limit",
            "LIMIT_OUT_OF_RANGE",
            StreamAudienceRequest {
                limit: -1,
                ..of_item("i05")
            },
        ),
        (
            "min_score",
            "OUT_OF_RANGE",
            StreamAudienceRequest {
                min_score: Some(f64::NAN),
                ..of_item("i05")
            },
        ),
        (
            "note",
            "TEXT_TOO_LONG",
            StreamAudienceRequest {
                note: "x".repeat(1_025),
                ..of_item("i05")
            },
        ),
        (
            "page_token",
            "INVALID_PAGE_TOKEN",
            StreamAudienceRequest {
                page_token: user_of,
                ..of_item("i05")
            },
        ),
    ] {
        assert_invalid(&list(&client, request).await.unwrap_err(), reason, &[field]);
    }
}
