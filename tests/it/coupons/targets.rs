//! StreamCouponTargets, `likemind targets` and ListItemAudience.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    CheckEligibilityRequest, ListItemAudienceRequest, ListItemAudienceResponse, ListSimilarItemsRequest, ReasonCode,
    StreamCouponTargetsRequest, StreamCouponTargetsResponse, Target, TargetBy, TargetsHeader, Verdict,
    stream_coupon_targets_response::Message, target,
};
use sqlx::PgConnection;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::support::answers::{assert_invalid, assert_status};
use crate::support::api_keys::{WithKey, create_key, id_of};
use crate::support::caller::Caller;
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::{Server, run, succeed};
use crate::support::shop;
use crate::support::shop::{ITEMS, USERS, item, rating, user};
use crate::support::waiting::eventually;

/// The items that the coupon covers, unless a test says otherwise.
const COVERED: [usize; 3] = [1, 2, 6];

/// Opens the shop with the active campaign k, for everybody, and its coupon c.
async fn open() -> TestDatabase {
    let database = shop::open().await;
    let items: Vec<String> = COVERED.iter().map(|&number| format!("'{}'", item(number))).collect();
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        &format!(
            "INSERT INTO campaigns (id, external_id, currency_code, audience, holdout_salt)
             VALUES (1, 'k', 'GBP', 'all', '\\x00112233445566778899aabbccddeeff');
             INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at)
             VALUES (1, 'active', now() - interval '1 day', now() + interval '1 day');
             INSERT INTO coupons (id, external_id, campaign_id, discount, amount_minor, reservation_ttl_seconds)
             VALUES (1, 'c', 1, 'amount', 100, 900);
             INSERT INTO coupon_items SELECT 1, id FROM items WHERE external_id IN ({});
             INSERT INTO coupon_counters (coupon_id) VALUES (1);
             UPDATE coupon_book SET revision = revision + 1",
            items.join(", ")
        ),
    )
    .await;
    database
}

fn asked() -> StreamCouponTargetsRequest {
    StreamCouponTargetsRequest {
        coupon_id: "c".to_owned(),
        ..StreamCouponTargetsRequest::default()
    }
}

async fn client(server: &Server) -> CouponServiceClient<Channel> {
    CouponServiceClient::new(server.channel().await)
}

async fn rest(mut stream: Streaming<StreamCouponTargetsResponse>) -> Result<Vec<Target>, Status> {
    let mut targets = Vec::new();
    while let Some(message) = stream.message().await? {
        match message.message {
            Some(Message::Target(target)) => targets.push(target),
            other => panic!("not a row: {other:?}"),
        }
    }
    Ok(targets)
}

async fn header(stream: &mut Streaming<StreamCouponTargetsResponse>) -> TargetsHeader {
    match stream.message().await.unwrap().unwrap().message {
        Some(Message::Header(header)) => header,
        other => panic!("not a header: {other:?}"),
    }
}

async fn list(server: &Server, request: StreamCouponTargetsRequest) -> Result<(TargetsHeader, Vec<Target>), Status> {
    let mut stream = client(server).await.stream_coupon_targets(request).await?.into_inner();
    let header = header(&mut stream).await;
    Ok((header, rest(stream).await?))
}

fn users_of(targets: &[Target]) -> Vec<&str> {
    targets.iter().map(|target| target.user_id.as_str()).collect()
}

fn excluded(header: &TargetsHeader) -> BTreeMap<ReasonCode, i64> {
    let counts = header.excluded.iter();
    counts.map(|count| (count.code(), count.users)).collect()
}

/// Returns the number of users by the first of their reasons, and by any, and checks that the first add up.
fn excluded_by_first_reason(header: &TargetsHeader) -> BTreeMap<ReasonCode, (i64, i64)> {
    let counts = header.excluded.iter();
    let by_reason = counts.map(|count| (count.code(), (count.users_by_first_reason, count.users)));
    let by_reason: BTreeMap<ReasonCode, (i64, i64)> = by_reason.collect();
    let left_out: i64 = by_reason.values().map(|(first, _)| first).sum();
    assert_eq!(header.eligible_count + left_out, header.audience_count, "{header:?}");
    by_reason
}

/// Returns the affinity of every user, from the similarities that the server tells and the ratings of the shop.
async fn affinities(server: &Server, key: Option<&str>, covered: &[usize]) -> Vec<f64> {
    let mut client = RecommendationServiceClient::with_interceptor(server.channel().await, WithKey::new(key));
    let mut scores = vec![0.0; USERS];
    for &number in covered {
        let request = ListSimilarItemsRequest {
            item_id: item(number),
            limit: 1_000,
            filter: None,
        };
        let answer = client.list_similar_items(request).await.unwrap().into_inner();
        for similar in answer.items {
            let neighbor = similar.item_id[1..].parse().unwrap();
            for (user, score) in scores.iter_mut().enumerate() {
                *score += similar.score * rating(user, neighbor).map_or(0.0, f64::from);
            }
        }
    }
    scores
}

#[tokio::test]
async fn all_users_are_ranked_by_affinity_with_explanations_that_sum_to_the_score() {
    let database = open().await;
    execute(
        &mut database.connect().await,
        "INSERT INTO users (external_id) VALUES ('a new one'), ('zz')",
    )
    .await;
    let server = Server::start(&database);
    let expected = affinities(&server, None, &COVERED).await;
    let request = StreamCouponTargetsRequest {
        explain: true,
        ..asked()
    };
    let (header, targets) = list(&server, request).await.unwrap();
    assert_eq!(
        (header.snapshot_version, header.coupon_id.as_str(), header.by()),
        (1, "c", TargetBy::Affinity)
    );
    assert_eq!(
        (header.audience_count, header.eligible_count),
        (USERS as i64 + 2, USERS as i64 + 2)
    );
    assert_eq!(excluded(&header), BTreeMap::new());
    assert_eq!(targets.len(), USERS + 2);
    assert!(targets.is_sorted_by(|a, b| (-a.score, &a.user_id) < (-b.score, &b.user_id)));
    assert_ne!(targets[0].score, targets[1].score);
    for (target, rank) in targets.iter().zip(1..) {
        assert_eq!(target.rank, rank);
        let number = target
            .user_id
            .strip_prefix('u')
            .and_then(|number| number.parse::<usize>().ok());
        let score = number.map_or(0.0, |number| expected[number]);
        assert!((target.score - score).abs() < 1e-4, "{target:?} is not {score}");
        let Some(target::Explanation::Affinity(explanation)) = &target.explanation else {
            assert!(target.explanation.is_none() && target.score == 0.0);
            continue;
        };
        let shown: f64 = explanation.items.iter().map(|item| item.contribution).sum();
        assert!((shown + explanation.other_items_contribution - target.score).abs() < 1e-9);
        assert!(explanation.items.len() == 10 || explanation.other_items == 0);
        assert!(explanation.items.is_sorted_by(|a, b| a.contribution >= b.contribution));
        for item in &explanation.items {
            let position = item.item_id[1..].parse().unwrap();
            assert_eq!(rating(number.unwrap(), position).map(f64::from), Some(item.rating));
            assert_eq!(item.title, format!("Item {position}"));
        }
    }
}

#[tokio::test]
async fn a_page_token_resumes_exactly_while_the_server_holds_its_snapshot() {
    let database = open().await;
    let server = Server::start(&database);
    let (_, all) = list(&server, asked()).await.unwrap();
    let resume = |row: usize, limit: i64| StreamCouponTargetsRequest {
        page_token: all[row].page_token.clone(),
        limit,
        ..asked()
    };
    for row in [0, 63, 64, 150, USERS - 1] {
        assert_eq!(list(&server, resume(row, 0)).await.unwrap().1, all[row + 1..]);
    }
    let (header, page) = list(&server, resume(9, 5)).await.unwrap();
    assert_eq!(page, all[10..15]);
    assert_eq!(header.eligible_count, USERS as i64);
    // A token is valid only for its own request.
    for other in [
        StreamCouponTargetsRequest {
            min_score: Some(0.5),
            ..resume(9, 5)
        },
        StreamCouponTargetsRequest {
            page_token: "x".to_owned(),
            ..asked()
        },
    ] {
        assert_invalid(
            &list(&server, other).await.unwrap_err(),
            "INVALID_PAGE_TOKEN",
            &["page_token"],
        );
    }

    let mut connection = database.connect().await;
    for number in 0..USERS {
        shop::write_rating(&mut connection, &user(number), &item(number * 7 % ITEMS), 5.0).await;
    }
    shop::train(database.url());
    let caller = Caller::of(&server).await;
    caller.wait_until_serves(2).await;
    assert_ne!(users_of(&list(&server, asked()).await.unwrap().1), users_of(&all));
    let (header, page) = list(&server, resume(9, 0)).await.unwrap();
    assert_eq!((header.snapshot_version, &page[..]), (1, &all[10..]));
    let other = Server::start(&database);
    Caller::of(&other).await.wait_until_serves(2).await;
    let gone = list(&other, resume(9, 0)).await.unwrap_err();
    assert_status(&gone, Code::Aborted, "PAGE_SNAPSHOT_GONE");
    shop::train(database.url());
    caller.wait_until_serves(3).await;
    let gone = list(&server, resume(9, 0)).await.unwrap_err();
    assert_status(&gone, Code::Aborted, "PAGE_SNAPSHOT_GONE");
}

#[tokio::test]
async fn limit_and_minimum_score_shorten_the_list_and_bad_fields_are_refused() {
    let database = open().await;
    let server = Server::start(&database);
    let (_, all) = list(&server, asked()).await.unwrap();
    for limit in [1, 63, 65, USERS as i64, 1_000] {
        let (header, rows) = list(&server, StreamCouponTargetsRequest { limit, ..asked() })
            .await
            .unwrap();
        assert_eq!(rows, all[..all.len().min(limit as usize)]);
        assert_eq!(header.eligible_count, USERS as i64);
    }
    let least = all[70].score;
    let request = StreamCouponTargetsRequest {
        min_score: Some(least),
        ..asked()
    };
    let (header, rows) = list(&server, request).await.unwrap();
    let expected: Vec<&str> = users_of(&all)
        .into_iter()
        .zip(&all)
        .filter(|(_, row)| row.score >= least)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(users_of(&rows), expected);
    assert_eq!(header.eligible_count, USERS as i64);
    for (field, request) in [
        ("limit", StreamCouponTargetsRequest { limit: -1, ..asked() }),
        (
            "min_score",
            StreamCouponTargetsRequest {
                min_score: Some(f64::NAN),
                ..asked()
            },
        ),
        ("by", StreamCouponTargetsRequest { by: 9, ..asked() }),
        (
            "coupon_id",
            StreamCouponTargetsRequest {
                coupon_id: String::new(),
                ..asked()
            },
        ),
    ] {
        let status = list(&server, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        assert!(status.message().contains(field), "{status:?}");
    }
    let unknown = StreamCouponTargetsRequest {
        coupon_id: "none".to_owned(),
        ..asked()
    };
    assert_status(
        &list(&server, unknown).await.unwrap_err(),
        Code::NotFound,
        "COUPON_NOT_FOUND",
    );
    let by = TargetBy::Propensity.into();
    let status = list(&server, StreamCouponTargetsRequest { by, ..asked() })
        .await
        .unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "PROPENSITY_NOT_FITTED");
}

#[tokio::test]
async fn the_header_counts_the_excluded_users_by_reason() {
    let database = open().await;
    // u000 to u009 are assigned. Each of them has one or two reasons to be excluded, except u008 and u009.
    execute(
        &mut database.connect().await,
        "UPDATE campaigns SET audience = 'assigned';
         INSERT INTO assignments (campaign_id, user_id) SELECT 1, id FROM users WHERE external_id < 'u010';
         INSERT INTO user_coupon_counters (user_id, coupon_id, reserved, redeemed) VALUES (1, 1, 0, 1), (2, 1, 1, 0);
         INSERT INTO suppressions (user_id) VALUES (1), (3), (100);
         INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         VALUES (4, 'marketing', false, now()), (5, 'profiling', false, now()), (6, 'marketing', true, now());
         INSERT INTO changes (user_id) VALUES (1), (3), (4), (5), (6), (100);
         INSERT INTO campaigns (id, external_id, currency_code, audience, holdout_salt, is_exclusive)
         SELECT n, 'k' || n, 'GBP', 'all', '\\x00112233445566778899aabbccddeeff', n = 2 FROM generate_series(2, 3) AS n;
         INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at)
         SELECT n, 'active', now(), now() + interval '1 day' FROM generate_series(2, 3) AS n;
         INSERT INTO coupons (id, external_id, campaign_id, discount, amount_minor, reservation_ttl_seconds)
         SELECT n, 'c' || n, n, 'amount', 100, 900 FROM generate_series(2, 3) AS n;
         INSERT INTO coupon_counters (coupon_id) VALUES (2), (3);
         INSERT INTO reservations (external_id, user_id, coupon_id, campaign_id, amount_minor, state, by_assignment,
             reserved_at, expires_at)
         SELECT 'r' || n, n, CASE n WHEN 9 THEN 3 ELSE 2 END, CASE n WHEN 9 THEN 3 ELSE 2 END, 1, 'reserved', false,
                now() - interval '1 hour', now() + CASE n WHEN 10 THEN -1 ELSE 1 END * interval '1 minute'
         FROM unnest(ARRAY[7, 9, 10]) AS n;
         INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version, exposed_at)
         SELECT coupon, who, coupon, false, 1, now() - make_interval(days => days)
         FROM (VALUES (2, 8, 1), (3, 8, 1), (2, 9, 1), (3, 9, 8), (1, 10, 1), (2, 10, 1), (3, 10, 1)) AS e (coupon, who, days);
         UPDATE coupon_book SET revision = revision + 1",
    )
    .await;
    let server = Server::with(&database, &[("coupons.max_exposures", "2")]);
    let (header, targets) = list(&server, asked()).await.unwrap();
    let counts = BTreeMap::from([
        (ReasonCode::AlreadyRedeemed, 1),
        (ReasonCode::UserCapReached, 1),
        (ReasonCode::Suppressed, 2),
        (ReasonCode::NoMarketingConsent, 1),
        (ReasonCode::ExclusiveConflict, 1),
        (ReasonCode::FrequencyCapped, 1),
    ]);
    assert_eq!(excluded(&header), counts);
    assert_eq!((header.audience_count, header.eligible_count), (10, 4));
    // u000 is suppressed too, which counts among all reasons alone.
    let counts = BTreeMap::from([
        (ReasonCode::AlreadyRedeemed, (1, 1)),
        (ReasonCode::UserCapReached, (1, 1)),
        (ReasonCode::Suppressed, (1, 2)),
        (ReasonCode::NoMarketingConsent, (1, 1)),
        (ReasonCode::ExclusiveConflict, (1, 1)),
        (ReasonCode::FrequencyCapped, (1, 1)),
    ]);
    assert_eq!(excluded_by_first_reason(&header), counts);
    let listed: BTreeSet<&str> = users_of(&targets).into_iter().collect();
    assert_eq!(listed, BTreeSet::from(["u004", "u005", "u008", "u009"]));
    // A user who objects to profiling is a target, but scored as if nothing were known.
    let objector = targets.iter().find(|target| target.user_id == "u004").unwrap();
    assert_eq!((objector.score, &objector.explanation), (0.0, &None));
}

/// Returns, for each exposed user, whether they are held out.
async fn exposed(connection: &mut PgConnection) -> BTreeMap<String, bool> {
    let rows: Vec<(String, bool)> =
        sqlx::query_as("SELECT external_id, is_held_out FROM exposures JOIN users ON users.id = user_id")
            .fetch_all(connection)
            .await
            .unwrap();
    rows.into_iter().collect()
}

#[tokio::test]
async fn held_out_users_are_logged_and_not_listed() {
    let database = open().await;
    let mut connection = database.connect().await;
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    let (_, all) = list(
        &server,
        StreamCouponTargetsRequest {
            preview: true,
            ..asked()
        },
    )
    .await
    .unwrap();
    assert_eq!(
        exposed(&mut connection).await,
        BTreeMap::new(),
        "a preview leaves no trace"
    );
    let hold_out = "UPDATE campaigns SET holdout_basis_points = 3000; UPDATE coupon_book SET revision = revision + 1";
    execute(&mut connection, hold_out).await;
    let preview = StreamCouponTargetsRequest {
        preview: true,
        ..asked()
    };
    let look = async || list(&server, preview.clone()).await.unwrap();
    let (header, offered) = eventually("the holdout is in force", look, |(_, rows)| rows.len() < USERS).await;
    let offered: BTreeSet<&str> = users_of(&offered).into_iter().collect();
    let held_out = USERS - offered.len();
    assert!((30..=90).contains(&held_out), "{held_out}");
    assert_eq!(
        excluded(&header),
        BTreeMap::from([(ReasonCode::HeldOut, held_out as i64)])
    );

    assert!(!header.logged);
    let (header, rows) = list(&server, StreamCouponTargetsRequest { limit: 20, ..asked() })
        .await
        .unwrap();
    assert!(header.logged);
    let last = users_of(&all).iter().position(|id| *id == rows[19].user_id).unwrap();
    let expected: BTreeMap<String, bool> = users_of(&all)[..=last]
        .iter()
        .map(|id| ((*id).to_owned(), !offered.contains(id)))
        .collect();
    assert!(expected.values().any(|&is_held_out| is_held_out));
    assert_eq!(exposed(&mut connection).await, expected);

    let (_, rows) = list(&server, asked()).await.unwrap();
    assert_eq!(users_of(&rows).into_iter().collect::<BTreeSet<_>>(), offered);
    let everybody: BTreeMap<String, bool> = users_of(&all)
        .iter()
        .map(|id| ((*id).to_owned(), !offered.contains(id)))
        .collect();
    assert_eq!(exposed(&mut connection).await, everybody);

    let audit: Vec<(String, String, String, i64, Option<i64>)> = sqlx::query_as(
        "SELECT actor, subject, note, row_count, snapshot_version FROM audit WHERE action = 'TARGETS_LISTED' ORDER BY id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let row = |note: &str, rows: i64| ("anonymous".to_owned(), "c".to_owned(), note.to_owned(), rows, Some(1));
    assert_eq!(audit[0], row("preview", USERS as i64));
    assert_eq!(audit[audit.len() - 2..], [row("", 20), row("", offered.len() as i64)]);
}

#[tokio::test]
async fn only_servers_of_the_database_make_page_tokens() {
    let database = open().await;
    let (server, other) = (Server::start(&database), Server::start(&database));
    let (_, all) = list(&server, asked()).await.unwrap();
    let page = |token: &str| StreamCouponTargetsRequest {
        page_token: token.to_owned(),
        preview: true,
        ..asked()
    };
    let token = &all[9].page_token;
    let (_, rows) = list(&other, page(token)).await.unwrap();
    assert_eq!((rows[0].rank, users_of(&rows)), (11, users_of(&all[10..])));

    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
    let json = &bytes[32..];
    let refuse = async |bytes: Vec<u8>| {
        let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let status = list(&server, page(&token)).await.unwrap_err();
        assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
    };
    // Without the code, and with the code of another cursor.
    refuse(json.to_vec()).await;
    let json = String::from_utf8(json.to_vec()).unwrap();
    for rank in ["9223372036854775808", "18446744073709551615", "11"] {
        let forged = json.replace("\"rank\":10", &format!("\"rank\":{rank}"));
        assert_ne!(forged, json);
        refuse([&bytes[..32], forged.as_bytes()].concat()).await;
    }
}

/// Opens a stream of which the client takes no more rows than the test reads.
async fn open_slow_stream(
    server: &Server,
    key: Option<&str>,
    request: StreamCouponTargetsRequest,
) -> Streaming<StreamCouponTargetsResponse> {
    let endpoint = Endpoint::from_shared(server.address.clone()).unwrap();
    let channel = endpoint
        .initial_stream_window_size(1_024)
        .initial_connection_window_size(1_024)
        .connect()
        .await
        .unwrap();
    CouponServiceClient::with_interceptor(channel, WithKey::new(key))
        .stream_coupon_targets(request)
        .await
        .unwrap()
        .into_inner()
}

/// Adds users without a history, who all come last.
async fn add_users(connection: &mut PgConnection, count: usize) {
    let users = format!(
        "INSERT INTO users (external_id) SELECT 'x' || lpad(n::text, 6, '0') FROM generate_series(1, {count}) AS n"
    );
    execute(connection, &users).await;
}

#[tokio::test]
async fn a_user_who_withdraws_consent_during_a_stream_is_left_out() {
    let database = open().await;
    let mut connection = database.connect().await;
    add_users(&mut connection, 5_000).await;
    let server = Server::start(&database);
    let mut stream = open_slow_stream(&server, None, asked()).await;
    assert_eq!(header(&mut stream).await.eligible_count, USERS as i64 + 5_000);
    // Most rows are not sent yet. Consent is checked again when they are, also for rows that wait in a batch.
    execute(
        &mut connection,
        "INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         SELECT id, 'marketing', false, now() FROM users WHERE external_id IN ('x001000', 'x004999');
         INSERT INTO suppressions (user_id) SELECT id FROM users WHERE external_id = 'x005000'",
    )
    .await;
    let rows = rest(stream).await.unwrap();
    let listed: BTreeSet<&str> = users_of(&rows).into_iter().collect();
    assert_eq!(listed.len(), USERS + 4_997);
    for gone in ["x001000", "x004999", "x005000"] {
        assert!(!listed.contains(gone), "{gone}");
    }
    assert!(rows.iter().zip(1..).all(|(row, rank)| row.rank == rank));
    let logged = exposed(&mut connection).await;
    assert_eq!(logged.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed);
}

#[tokio::test]
async fn pausing_a_campaign_ends_its_streams() {
    let database = open().await;
    let mut connection = database.connect().await;
    add_users(&mut connection, 5_000).await;
    let server = Server::start(&database);
    let mut stream = open_slow_stream(&server, None, asked()).await;
    header(&mut stream).await;
    execute(&mut connection, "UPDATE campaign_states SET state = 'paused'").await;
    let status = rest(stream).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "CAMPAIGN_PAUSED");
    // A new list is empty, and its header says why.
    let (header, rows) = list(&server, asked()).await.unwrap();
    assert_eq!((header.eligible_count, rows.len()), (0, 0));
    assert_eq!(
        excluded(&header),
        BTreeMap::from([(ReasonCode::CampaignPaused, USERS as i64 + 5_000)])
    );
}

/// Waits until a list is in the audit log, and returns how many rows were sent.
async fn audited_rows(connection: &mut PgConnection) -> i64 {
    let rows = "SELECT row_count FROM audit WHERE action = 'TARGETS_LISTED'";
    let look = async || -> Option<i64> { sqlx::query_scalar(rows).fetch_optional(&mut *connection).await.unwrap() };
    eventually("the list is in the audit log", look, Option::is_some)
        .await
        .unwrap()
}

#[tokio::test]
async fn revoking_a_key_ends_its_streams() {
    let database = open().await;
    let mut connection = database.connect().await;
    add_users(&mut connection, 5_000).await;
    let key = create_key(&database, &["--role", "marketer"]);
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    let mut stream = open_slow_stream(&server, Some(&key), asked()).await;
    header(&mut stream).await;
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    // The list ends although the client takes no rows; those that were sent until then are in the audit log.
    let rows = audited_rows(&mut connection).await;
    assert!(rows < 5_000, "{rows}");
    assert_status(
        &rest(stream).await.unwrap_err(),
        Code::Unauthenticated,
        "API_KEY_REVOKED",
    );
}

#[tokio::test]
async fn an_abandoned_stream_is_audited() {
    let database = open().await;
    let mut connection = database.connect().await;
    add_users(&mut connection, 5_000).await;
    let server = Server::start(&database);
    let mut stream = open_slow_stream(&server, None, asked()).await;
    header(&mut stream).await;
    drop(stream);
    let rows = audited_rows(&mut connection).await;
    assert!(rows < 5_000, "{rows}");
}

#[tokio::test]
async fn a_merchants_key_lists_only_its_own_coupons_and_explains_only_by_its_own_items() {
    let database = open().await;
    let [own, all] = [
        vec!["--role", "marketer", "--merchant", "m0"],
        vec!["--role", "marketer"],
    ]
    .map(|args| create_key(&database, &args));
    let mut connection = database.connect().await;
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    let channel = server.channel().await;
    let ask = async |key: &str, coupon: &str| {
        let request = StreamCouponTargetsRequest {
            coupon_id: coupon.to_owned(),
            explain: true,
            ..StreamCouponTargetsRequest::default()
        };
        let mut client = CouponServiceClient::with_interceptor(channel.clone(), WithKey::new(Some(key)));
        let mut stream = client.stream_coupon_targets(request).await?.into_inner();
        let header = header(&mut stream).await;
        Ok::<_, Status>((header, rest(stream).await?))
    };
    // A coupon of the platform is not found, just like an unknown one.
    let unknown = ask(&own, "unheard-of").await.unwrap_err();
    assert_status(&unknown, Code::NotFound, "COUPON_NOT_FOUND");
    let foreign = ask(&own, "c").await.unwrap_err();
    assert_eq!(
        foreign.message().replace("coupon c", "coupon unheard-of"),
        unknown.message()
    );
    assert_status(&foreign, Code::NotFound, "COUPON_NOT_FOUND");

    let own_campaign = "UPDATE campaigns SET merchant_id = 1, holdout_basis_points = 5000;
        UPDATE coupon_book SET revision = revision + 1";
    execute(&mut connection, own_campaign).await;
    let look = async || ask(&own, "c").await;
    let (header, mine) = eventually("the campaign belongs to the merchant", look, Result::is_ok)
        .await
        .unwrap();
    let (_, theirs) = ask(&all, "c").await.unwrap();
    // Only i02 and i06 of the covered items belong to the merchant.
    let expected = affinities(&server, Some(&all), &[2, 6]).await;
    assert_eq!(users_of(&mine), users_of(&theirs));
    for (target, full) in mine.iter().zip(&theirs) {
        let number: usize = target.user_id[1..].parse().unwrap();
        assert!((target.score - expected[number]).abs() < 1e-4);
        let (Some(target::Explanation::Affinity(part)), Some(target::Explanation::Affinity(full))) =
            (&target.explanation, &full.explanation)
        else {
            assert_eq!(target.score, 0.0);
            continue;
        };
        assert!(
            part.items
                .iter()
                .all(|item| item.item_id[1..].parse::<usize>().unwrap() % 2 == 0),
            "{part:?}"
        );
        let sum =
            |items: &[likemind::grpc::proto::v1::HistoryItem]| items.iter().map(|item| item.contribution).sum::<f64>();
        assert!((sum(&part.items) + part.other_items_contribution - target.score).abs() < 1e-9);
        assert_eq!(
            part.items.len() + part.other_items as usize,
            full.items.len() + full.other_items as usize
        );
    }
    // A marketer sees how many users are held out, and of no single user that they are.
    let held_out: Vec<String> = (0..USERS)
        .map(user)
        .filter(|id| !users_of(&mine).contains(&id.as_str()))
        .collect();
    let count = held_out.len() as i64;
    assert!(count > 50);
    assert_eq!(
        excluded_by_first_reason(&header),
        BTreeMap::from([(ReasonCode::HeldOut, (count, count))])
    );
    let mut marketer = CouponServiceClient::with_interceptor(server.channel().await, WithKey::new(Some(&own)));
    for user_id in held_out {
        let request = CheckEligibilityRequest {
            user_id,
            coupon_ids: vec!["c".to_owned()],
            cart: None,
        };
        let answer = marketer.check_eligibility(request).await.unwrap().into_inner();
        let codes: Vec<ReasonCode> = answer.coupons[0].reasons.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes, [ReasonCode::NotAssigned]);
    }
}

#[tokio::test]
async fn the_targets_command_lists_the_same_rows_as_the_rpc() {
    let database = open().await;
    let server = Server::start(&database);
    let (_, expected) = list(
        &server,
        StreamCouponTargetsRequest {
            limit: 25,
            preview: true,
            ..asked()
        },
    )
    .await
    .unwrap();
    let (code, printed, said) = run(
        &database,
        &[
            "targets",
            "c",
            "--limit",
            "25",
            "--format",
            "jsonl",
            "--explain",
            "--preview",
        ],
    );
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("200 users, of whom 200 are eligible"), "{said}");
    let rows: Vec<serde_json::Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 25);
    for (row, target) in rows.iter().zip(&expected) {
        assert_eq!(
            (row["rank"].as_i64(), row["user_id"].as_str()),
            (Some(target.rank), Some(target.user_id.as_str()))
        );
        assert_eq!(row["score"].as_f64(), Some(target.score));
        assert!(row["explanation"]["items"][0]["contribution"].as_f64().unwrap() > 0.0);
    }
    assert!(said.contains("a preview, nobody is logged as offered"), "{said}");
    let mut connection = database.connect().await;
    let (code, printed, _) = run(&database, &["targets", "c", "--limit", "3"]);
    let lines: Vec<String> = expected[..3]
        .iter()
        .map(|row| format!("{},{},{}", row.rank, row.user_id, row.score))
        .collect();
    assert_eq!(
        (code, printed.clone()),
        (0, format!("rank,user_id,score\n{}\n", lines.join("\n")))
    );
    assert!(
        exposed(&mut connection).await.is_empty(),
        "without --log the list is a preview"
    );
    let (code, logged, said) = run(&database, &["targets", "c", "--limit", "3", "--log"]);
    assert_eq!((code, logged), (0, printed));
    assert!(said.contains("the listed users are logged as offered"), "{said}");
    let listed = expected[..3].iter().map(|row| (row.user_id.clone(), false));
    assert_eq!(exposed(&mut connection).await, listed.collect());
    let notes: Vec<String> = sqlx::query_scalar("SELECT note FROM audit WHERE action = 'TARGETS_LISTED' ORDER BY id")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(notes, ["preview", "preview", "preview", ""]);

    let check = |args: &[&str], expected: i32, part: &str| {
        let (code, printed, said) = run(&database, args);
        assert_eq!(code, expected, "{args:?}: {said}");
        assert!(said.contains(part) && printed.is_empty(), "{args:?}: {said}");
    };
    check(&["targets", "c", "--by", "propensity"], 3, "not fitted");
    check(&["targets", "unheard-of"], 1, "there is no coupon unheard-of");
    check(&["targets", "c", "--limit", "0"], 2, "--limit");
    check(&["targets", "c", "--min-score", "nan"], 2, "--min-score");
    check(&["targets", "c", "--log", "--preview"], 2, "--preview");
}

#[tokio::test]
async fn the_targets_command_counts_each_excluded_user_once_and_by_every_reason() {
    let database = open().await;
    execute(
        &mut database.connect().await,
        "INSERT INTO suppressions (user_id) VALUES (1), (3), (100);
         INSERT INTO consents (user_id, purpose, is_granted, decided_at)
         VALUES (1, 'marketing', false, now()), (4, 'marketing', false, now());
         INSERT INTO changes (user_id) VALUES (1), (3), (4), (100)",
    )
    .await;
    let (code, _, said) = run(&database, &["targets", "c", "--limit", "1"]);
    let table = said.lines().skip_while(|line| !line.starts_with("coupon c")).skip(1);
    let rows: Vec<Vec<&str>> = table.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("200 users, of whom 196 are eligible"), "{said}");
    assert_eq!(
        rows,
        [
            vec!["excluded", "by", "first", "reason", "by", "any", "reason"],
            vec!["NO_MARKETING_CONSENT", "2", "2"],
            vec!["SUPPRESSED", "2", "3"],
            vec!["all", "reasons", "4"],
        ]
    );
    let (_, _, said) = run(&database, &["targets", "c", "--limit", "1", "--counts", "json"]);
    let json = said.lines().find(|line| line.starts_with('{')).unwrap();
    let counts: serde_json::Value = serde_json::from_str(json).unwrap();
    let expected = serde_json::json!({
        "coupon_id": "c",
        "by": "affinity",
        "snapshot_version": 1,
        "audience_count": 200,
        "eligible_count": 196,
        "logged": false,
        "excluded": [
            { "reason": "NO_MARKETING_CONSENT", "users_by_first_reason": 2, "users": 2 },
            { "reason": "SUPPRESSED", "users_by_first_reason": 2, "users": 3 },
        ],
    });
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn the_audience_of_an_item_is_ranked_by_its_recommendation_scores() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    let caller = Caller::of(&server).await;
    caller.rate(&user(3), &item(7), 5.0).await;
    caller.rate("newcomer", &item(4), 5.0).await;
    let ask = async |limit: i32| -> ListItemAudienceResponse {
        let request = ListItemAudienceRequest {
            item_id: item(5),
            limit,
            exclude_purchased: false,
        };
        let answer = caller.recommendations.clone().list_item_audience(request).await;
        answer.unwrap().into_inner()
    };
    let audience = ask(1_000).await;
    assert_eq!((audience.snapshot_version, audience.users.len()), (1, USERS + 1));
    let mut expected = Vec::new();
    for id in (0..USERS).map(user).chain(["newcomer".to_owned()]) {
        let score = caller.scores(&id).await[&item(5)];
        expected.push((id, score));
    }
    expected.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let found: Vec<(String, f64)> = audience
        .users
        .iter()
        .map(|member| (member.user_id.clone(), member.score))
        .collect();
    assert_eq!(found, expected);
    assert!(audience.users.iter().zip(1..).all(|(member, rank)| member.rank == rank));
    assert_eq!(ask(7).await.users, audience.users[..7]);
    assert_eq!(ask(0).await.users, audience.users[..10]);
    let status = caller
        .recommendations
        .clone()
        .list_item_audience(ListItemAudienceRequest {
            item_id: "none".to_owned(),
            ..ListItemAudienceRequest::default()
        })
        .await
        .unwrap_err();
    assert_status(&status, Code::NotFound, "ITEM_NOT_FOUND");
}

/// Eight coupons of all kinds, and users with all kinds of histories.
const WORLD: &str = r#"
    SELECT setseed(.42);
    INSERT INTO campaigns (id, external_id, merchant_id, currency_code, audience, is_exclusive, holdout_basis_points,
        holdout_salt)
    SELECT n, 'k' || n, CASE WHEN n % 5 = 0 THEN 1 END, 'GBP', CASE WHEN n % 3 = 0 THEN 'assigned' ELSE 'all' END,
           n % 4 = 3, CASE WHEN n % 2 = 0 THEN 2000 ELSE 0 END, decode(md5(n::text), 'hex')
    FROM generate_series(10, 17) AS n;
    INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at, limit_minor)
    SELECT n, (ARRAY['active', 'scheduled'])[1 + n % 2], now() - interval '1 day', now() + interval '1 day', 1000
    FROM generate_series(10, 17) AS n;
    INSERT INTO coupons (id, external_id, campaign_id, discount, amount_minor, min_cart_minor, covers_all, categories,
        per_user_cap, reservation_ttl_seconds, rules)
    SELECT n, 'c' || n, n, 'amount', 100, CASE WHEN n % 2 = 0 THEN 500 ELSE 0 END, n % 3 = 1, '{books}',
           1, 900, (ARRAY[
               '[]', '[{"attribute": {"name": "age", "values": ["65+", "45-54"]}}]', '[{"min_affinity": {"min_score": 9}}]',
               '[{"category_affinity": {"category": "books", "min_share": 0.5}}, "new_user"]',
               '[{"bought": {"categories": ["games"]}}]', '[{"not_bought": {"items": ["i03"]}}]', '[]',
               '[{"lapsed_user": {"days": 30}}]']::jsonb[])[n - 9]
    FROM generate_series(10, 17) AS n;
    INSERT INTO coupon_counters (coupon_id, total_cap) SELECT id, 1000 FROM coupons WHERE id >= 10;
    INSERT INTO users (external_id) SELECT 'x' || n FROM generate_series(1, 30) AS n;
    INSERT INTO assignments (campaign_id, user_id)
    SELECT campaigns.id, users.id FROM campaigns, users WHERE audience = 'assigned' AND random() < .6;
    INSERT INTO user_coupon_counters (user_id, coupon_id, reserved, redeemed)
    SELECT users.id, coupons.id, (random() < .5)::int, (random() < .5)::int FROM users, coupons
    WHERE coupons.id >= 10 AND random() < .15;
    INSERT INTO user_attributes (user_id, name, value)
    SELECT id, 'age', (ARRAY['65+', '45-54', '19-24'])[1 + floor(random() * 3)] FROM users WHERE random() < .7;
    INSERT INTO suppressions (user_id) SELECT id FROM users WHERE random() < .05;
    INSERT INTO consents (user_id, purpose, is_granted, decided_at)
    SELECT id, purpose, random() < .5, now() FROM users, unnest(ARRAY['marketing', 'profiling']) AS purpose
    WHERE random() < .3;
    INSERT INTO changes (user_id) SELECT user_id FROM suppressions UNION SELECT user_id FROM consents;
    INSERT INTO reservations (external_id, user_id, coupon_id, campaign_id, amount_minor, state, by_assignment,
        reserved_at, expires_at)
    SELECT 'r' || users.id || '-' || n, users.id, n, n, 1, 'reserved', false, now() - interval '1 hour',
           now() + CASE WHEN random() < .5 THEN 1 ELSE -1 END * interval '10 minutes'
    FROM users, generate_series(10, 17) AS n WHERE random() < .04;
    INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version, exposed_at)
    SELECT n, users.id, n, false, 1, now() - random() * interval '14 days'
    FROM users, generate_series(10, 17) AS n WHERE random() < .2;
    UPDATE coupon_book SET revision = revision + 1"#;

#[tokio::test]
async fn targets_are_exactly_the_users_who_are_eligible_or_lack_only_a_cart() {
    let database = open().await;
    execute(&mut database.connect().await, WORLD).await;
    let settings = [("coupons.max_exposures", "2"), ("live.refresh_interval_ms", "100")];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    for number in 0..40 {
        caller
            .buy(&format!("o{number}"), 1, &user(number * 3), &item(number % 9), 1)
            .await;
    }
    let coupons: Vec<String> = (10..18).map(|number| format!("c{number}")).collect();
    let mut eligible: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let users: Vec<String> = (0..USERS)
        .map(user)
        .chain((1..=30).map(|number| format!("x{number}")))
        .collect();
    let mut client = client(&server).await;
    for user_id in &users {
        let request = CheckEligibilityRequest {
            user_id: user_id.clone(),
            coupon_ids: coupons.clone(),
            cart: None,
        };
        let answer = client.check_eligibility(request).await.unwrap().into_inner();
        for (coupon, found) in coupons.iter().zip(&answer.coupons) {
            assert_eq!(&found.coupon_id, coupon);
            if matches!(found.verdict(), Verdict::Eligible | Verdict::Indeterminate) {
                eligible.entry(coupon).or_default().insert(user_id.clone());
            }
        }
    }
    let mut telling = 0;
    for coupon in &coupons {
        let request = StreamCouponTargetsRequest {
            coupon_id: coupon.clone(),
            preview: true,
            ..asked()
        };
        let (header, targets) = list(&server, request).await.unwrap();
        let listed: BTreeSet<String> = targets.into_iter().map(|target| target.user_id).collect();
        let expected = eligible.remove(coupon.as_str()).unwrap_or_default();
        assert_eq!(listed, expected, "{coupon}");
        assert_eq!(header.eligible_count as usize, expected.len());
        telling += usize::from(!expected.is_empty() && expected.len() < users.len());
    }
    // The comparison says little about a coupon for nobody or for everybody.
    assert!(telling > coupons.len() / 2, "{telling}");
}
