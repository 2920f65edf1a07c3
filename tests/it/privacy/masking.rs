//! Erased users are hidden by every server at once, and leave every stored snapshot.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use domain::id::UserId;
use likemind::app::activation::activate;
use likemind::app::redaction::{self, find};
use likemind::grpc::proto::v1::{
    ListItemAudienceRequest, ListSimilarUsersRequest, Personalization, PredictRatingsRequest, Prediction,
    RecommendRequest, RecommendResponse, StreamAudienceRequest, StreamCouponTargetsRequest,
    coupon_service_client::CouponServiceClient, stream_audience_request::Of, stream_audience_response::Message,
    stream_coupon_targets_response::Message as Target,
};
use likemind::store::postgres::leases;
use likemind::store::postgres::pool::Pool;
use likemind::store::privacy::erasure_key::ErasureKey;
use likemind::store::privacy::erasures::{Request, receive};
use likemind::store::servers;
use likemind::store::snapshots::changes::Watermark;
use likemind::store::snapshots::redaction as stored;
use likemind::store::snapshots::{self, Activation, TransitionError};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::support::answers::assert_status;
use crate::support::caller::{Caller, for_user};
use crate::support::coupons::Offer;
use crate::support::erasures::{KEY, KeyFile};
use crate::support::postgres::{TestDatabase, execute, number};
use crate::support::program::{Program, Server, command};
use crate::support::shop::{self, item, user};
use crate::support::snapshot_damage;
use crate::support::trainer_hold::{Hold, Point};
use crate::support::waiting::{eventually, soon};

/// Records the erasures of users, as EraseUser does. Returns their numbers.
async fn erase(pool: &Pool, users: &[&str]) -> Vec<i64> {
    let key = ErasureKey::new(KEY).unwrap();
    let users: Vec<_> = users.iter().map(|user| UserId::new(*user).unwrap()).collect();
    let request = Request {
        users: &users,
        request_id: None,
        reason: "",
        actor: "test",
    };
    let received = receive(pool, &key, &request).await.unwrap();
    received.into_iter().map(|received| received.erasure_id).collect()
}

/// Leaves it to the test to take erasures from stage to stage.
const BY_HAND: (&str, &str) = ("erasure.interval_ms", "3600000");

fn serve(database: &TestDatabase) -> Server {
    static FILE: LazyLock<KeyFile> = LazyLock::new(|| KeyFile::of(KEY));
    Server::with(database, &[BY_HAND, FILE.setting()])
}

/// Sets the stages of erasures that others are responsible for.
async fn set_rows_deleted(connection: &mut PgConnection) {
    let deleted =
        "UPDATE erasures SET masked_at = COALESCE(masked_at, clock_timestamp()), rows_deleted_at = clock_timestamp()";
    execute(connection, deleted).await;
}

/// Ends all erasures: from here on nobody knows the ids any more.
async fn verify(connection: &mut PgConnection) {
    let verified = "UPDATE erasures SET verified_at = clock_timestamp(), user_id = NULL";
    execute(connection, verified).await;
}

/// Returns how many chunks hold the bytes of `text`.
async fn chunks_with(connection: &mut PgConnection, text: &str) -> i64 {
    let chunks = format!("SELECT count(*) FROM snapshot_chunks WHERE position('{text}'::bytea IN bytes) > 0");
    number(connection, &chunks).await
}

async fn column(connection: &mut PgConnection, query: &'static str) -> Vec<i64> {
    sqlx::query_scalar(query).fetch_all(connection).await.unwrap()
}

struct Asker {
    shop: Caller,
}

impl Asker {
    async fn of(server: &Server) -> Self {
        Self {
            shop: Caller::of(server).await,
        }
    }

    async fn recommended(&self, user: &str) -> RecommendResponse {
        self.shop.ranked(user).await
    }

    async fn predictions(&self, user: &str) -> Vec<Prediction> {
        let request = PredictRatingsRequest {
            user_id: user.to_owned(),
            item_ids: (0..shop::ITEMS).map(item).collect(),
            ..PredictRatingsRequest::default()
        };
        let answer = self.shop.recommendations.clone().predict_ratings(request).await;
        answer.unwrap().into_inner().predictions
    }

    async fn similar_users(&self, user: &str) -> Result<Vec<String>, Status> {
        let request = ListSimilarUsersRequest {
            user_id: user.to_owned(),
            limit: 1_000,
        };
        let answer = self.shop.recommendations.clone().list_similar_users(request).await?;
        Ok(answer
            .into_inner()
            .users
            .into_iter()
            .map(|similar| similar.user_id)
            .collect())
    }

    async fn audience(&self, item: &str) -> Vec<String> {
        let request = ListItemAudienceRequest {
            item_id: item.to_owned(),
            limit: 1_000,
            exclude_purchased: false,
        };
        let answer = self.shop.recommendations.clone().list_item_audience(request).await;
        answer
            .unwrap()
            .into_inner()
            .users
            .into_iter()
            .map(|member| member.user_id)
            .collect()
    }

    /// Returns the ids of a page of an audience, and the token of the last row.
    async fn page(&self, of: &str, limit: i64, page_token: String) -> Result<(Vec<String>, String), Status> {
        let request = StreamAudienceRequest {
            of: Some(Of::ItemId(of.to_owned())),
            limit,
            page_token,
            ..StreamAudienceRequest::default()
        };
        let mut stream = self
            .shop
            .recommendations
            .clone()
            .stream_audience(request)
            .await?
            .into_inner();
        let (mut users, mut token) = (Vec::new(), String::new());
        while let Some(message) = stream.message().await? {
            if let Some(Message::Row(row)) = message.message {
                users.push(row.user_id);
                token = row.page_token;
            }
        }
        Ok((users, token))
    }

    /// Returns a user whose list of similar users names `user`.
    async fn friend_of(&self, user: &str) -> String {
        for id in self.similar_users(user).await.unwrap() {
            if self.similar_users(&id).await.unwrap().contains(&user.to_owned()) {
                return id;
            }
        }
        panic!("nobody is similar to {user}");
    }

    /// Whether every kind of answer treats `user` like somebody unknown, and none of `others` is told of them.
    async fn is_unknown(&self, user: &str, others: &[String]) -> bool {
        let stranger = "nobody has ever had this id";
        let mut is_unknown = self.recommended(user).await == self.recommended(stranger).await
            && self.predictions(user).await == self.predictions(stranger).await
            && matches!(self.similar_users(user).await, Err(status) if status.code() == Code::NotFound);
        for other in others {
            is_unknown &= !self.similar_users(other).await.unwrap().contains(&user.to_owned());
        }
        for number in 0..4 {
            is_unknown &= !self.audience(&item(number)).await.contains(&user.to_owned());
            is_unknown &= !self
                .page(&item(number), 0, String::new())
                .await
                .unwrap()
                .0
                .contains(&user.to_owned());
        }
        is_unknown
    }
}

#[tokio::test]
async fn every_server_hides_an_erased_user_within_the_refresh_interval() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let servers = [serve(&database), serve(&database)];
    let askers = [Asker::of(&servers[0]).await, Asker::of(&servers[1]).await];
    let erased = user(0);
    let friend = askers[0].friend_of(&erased).await;
    for asker in &askers {
        // Also into the cache of answers.
        for _ in 0..2 {
            let before = asker.recommended(&erased).await;
            assert_eq!(before.personalization(), Personalization::Personalized);
        }
        assert!(asker.similar_users(&friend).await.unwrap().contains(&erased));
        assert!(asker.audience(&item(0)).await.contains(&erased));
    }
    let of_friend = askers[0].shop.scores(&friend).await;

    erase(&pool, &[&erased]).await;
    for asker in &askers {
        let look = async || asker.is_unknown(&erased, std::slice::from_ref(&friend)).await;
        soon("the erased user is unknown", look, |is_unknown| *is_unknown).await;
    }
    let masked = async || {
        servers::set_masked(&pool).await.unwrap();
        number(
            &mut database.connect().await,
            "SELECT count(*) FROM erasures WHERE masked_at IS NOT NULL",
        )
        .await
    };
    soon("both servers have told that they hide the user", masked, |masked| {
        *masked == 1
    })
    .await;
    assert_eq!(askers[0].shop.scores(&friend).await, of_friend);

    // The customer comes back and is somebody new.
    askers[0].shop.rate(&erased, &item(1), 5.0).await;
    for asker in &askers {
        let look = async || asker.recommended(&erased).await.personalization();
        soon("the new user is known", look, |kind| {
            *kind == Personalization::Personalized
        })
        .await;
        let rated = asker.similar_users(&erased).await.unwrap();
        assert!(rated.is_empty(), "{rated:?}");
    }
    let first_new = async |asker: &Asker| {
        let request = RecommendRequest {
            exclude_history: true,
            limit: 1_000,
            ..for_user(&erased)
        };
        asker.shop.recommend(request).await.items.len()
    };
    assert_eq!(
        first_new(&askers[1]).await,
        shop::ITEMS - 1,
        "only the new rating is left out"
    );
}

#[tokio::test]
async fn an_erasure_waits_for_servers_that_were_seen_lately_and_for_no_others() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    let (alive, silent) = (
        servers::join(&pool, 0).await.unwrap(),
        servers::join(&pool, 0).await.unwrap(),
    );
    execute(
        &mut connection,
        &format!("UPDATE servers SET seen_at = seen_at - interval '5 minutes' WHERE id = '{silent}'"),
    )
    .await;
    let erasures = erase(&pool, &[&user(0), &user(1)]).await;
    assert_eq!(servers::set_masked(&pool).await.unwrap(), 0);
    assert!(servers::tell(&pool, &alive, erasures[0]).await.unwrap());
    assert_eq!(servers::set_masked(&pool).await.unwrap(), 1);
    servers::leave(&pool, &alive).await.unwrap();
    assert!(!servers::tell(&pool, &alive, 0).await.unwrap());
    assert_eq!(servers::set_masked(&pool).await.unwrap(), 1);

    // A server that ends leaves nothing to wait for.
    let server = serve(&database);
    let told = async || number(&mut database.connect().await, "SELECT count(*) FROM servers").await;
    eventually("the server has told that it is there", told, |servers| *servers == 2).await;
    server.stop();
    assert_eq!(told().await, 1);
}

#[tokio::test]
async fn every_stored_snapshot_is_rewritten_once_and_servers_load_it() {
    let database = shop::open().await;
    shop::train(database.url());
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    // One of them is rejected, one retired, one active.
    shop::train(database.url());
    execute(
        &mut connection,
        "UPDATE snapshots SET state = 'rejected' WHERE version = 2",
    )
    .await;
    let server = serve(&database);
    let asker = Asker::of(&server).await;
    let (erased, other) = (user(0), user(7));
    let friend = asker.friend_of(&erased).await;
    let (token_of, of_other) = (item(2), asker.shop.scores(&other).await);
    let similar = asker.similar_users(&friend).await.unwrap();
    let (first_page, token) = asker.page(&token_of, 3, String::new()).await.unwrap();
    assert_eq!(first_page.len(), 3);
    assert!(chunks_with(&mut connection, &erased).await >= 3);

    let erasures = erase(&pool, &[&erased, &user(8), &user(9)]).await;
    let ids: HashMap<String, i64> = [user(0), user(8), user(9)].into_iter().zip(erasures).collect();
    assert_eq!(find(&pool, &ids, &mut HashSet::new()).await.unwrap().len(), 9);
    redaction::clean(&pool, "test").await.unwrap();
    assert_eq!(find(&pool, &ids, &mut HashSet::new()).await.unwrap(), []);
    for id in ids.keys() {
        assert_eq!(chunks_with(&mut connection, id).await, 0);
    }
    let redactions = "SELECT redaction FROM snapshots ORDER BY version";
    assert_eq!(column(&mut connection, redactions).await, [1, 1, 1]);
    let of_chunks = "SELECT DISTINCT redaction FROM snapshot_chunks";
    assert_eq!(column(&mut connection, of_chunks).await, [1]);
    // Nothing is left to do.
    redaction::clean(&pool, "test").await.unwrap();
    assert_eq!(column(&mut connection, redactions).await, [1, 1, 1]);

    // Not before the rows are deleted.
    assert_eq!(stored::set_clean(&pool).await.unwrap(), 0);
    set_rows_deleted(&mut connection).await;
    assert_eq!(stored::set_clean(&pool).await.unwrap(), 3);
    verify(&mut connection).await;

    // A token of the bytes from before does not continue in the new ones.
    let look = async || {
        asker
            .page(&token_of, 3, token.clone())
            .await
            .map_err(|status| status.code())
    };
    let _ = soon("the server serves the new bytes", look, Result::is_err).await;
    let refused = asker.page(&token_of, 3, token.clone()).await.unwrap_err();
    assert_status(&refused, Code::Aborted, "PAGE_SNAPSHOT_GONE");
    let (again, token) = asker.page(&token_of, 3, String::new()).await.unwrap();
    assert_eq!(again.len(), 3);
    assert_eq!(asker.page(&token_of, 3, token).await.unwrap().0.len(), 3);

    // A server that knows of no erasure finds nobody, and the others are answered as before.
    for server in [&server, &serve(&database)] {
        let asker = Asker::of(server).await;
        assert!(asker.is_unknown(&erased, &[other.clone(), friend.clone()]).await);
        assert_eq!(asker.shop.scores(&other).await, of_other);
        let expected: Vec<String> = similar.iter().filter(|id| !ids.contains_key(*id)).cloned().collect();
        assert_eq!(asker.similar_users(&friend).await.unwrap(), expected);
        for version in [1, 3] {
            asker.shop.switch_to(version).await;
            assert!(
                asker.is_unknown(&erased, std::slice::from_ref(&friend)).await,
                "version {version}"
            );
        }
    }
}

#[tokio::test]
async fn a_rewrite_that_is_killed_begins_anew_and_servers_load_nothing_of_it() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    erase(&pool, &[&user(0)]).await;
    for statement in [
        "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END'",
        "CREATE TRIGGER hold BEFORE INSERT ON snapshot_chunks FOR EACH ROW WHEN (NEW.part = 'activity')
             EXECUTE FUNCTION wait_for_test()",
        "SELECT pg_advisory_lock(1)",
    ] {
        execute(&mut connection, statement).await;
    }
    let killed = tokio::spawn({
        let pool = pool.clone();
        async move { redaction::clean(&pool, "killed").await }
    });
    let mut other = database.connect().await;
    let written = async || number(&mut other, "SELECT count(*) FROM snapshot_chunks WHERE redaction = 1").await;
    eventually("some chunks are written", written, |chunks| *chunks > 0).await;
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled());
    execute(
        &mut connection,
        "SELECT pg_advisory_unlock(1); DROP TRIGGER hold ON snapshot_chunks",
    )
    .await;

    let server = serve(&database);
    assert!(Asker::of(&server).await.is_unknown(&user(0), &[user(4)]).await);
    assert_eq!(column(&mut connection, "SELECT redaction FROM snapshots").await, [0]);
    // The lease of the killed one is still held.
    redaction::clean(&pool, "next").await.unwrap();
    assert_eq!(column(&mut connection, "SELECT redaction FROM snapshots").await, [0]);
    execute(
        &mut connection,
        "UPDATE leases SET expires_at = clock_timestamp() WHERE name = 'redaction'",
    )
    .await;
    redaction::clean(&pool, "next").await.unwrap();
    let redaction = column(&mut connection, "SELECT redaction FROM snapshots").await;
    assert!(redaction[0] > 0);
    assert_eq!(
        column(&mut connection, "SELECT DISTINCT redaction FROM snapshot_chunks").await,
        redaction
    );
    assert_eq!(chunks_with(&mut connection, &user(0)).await, 0);
    assert!(
        Asker::of(&serve(&database))
            .await
            .is_unknown(&user(0), &[user(4)])
            .await
    );
}

#[tokio::test]
async fn a_training_that_read_an_erased_user_publishes_without_them() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    let mut hold = Hold::at(&database, Point::BeforeFinish).await;
    let trainer = Program::start(&mut command(
        &database,
        &["train", "--set-config=gate.min_users=1000000"],
    ));
    hold.reached().await;
    erase(&pool, &[&user(0)]).await;
    redaction::clean(&pool, "test").await.unwrap();
    set_rows_deleted(&mut connection).await;
    assert_eq!(
        stored::set_clean(&pool).await.unwrap(),
        0,
        "the bytes of the trainer hold the user"
    );
    hold.release().await;
    assert!(trainer.wait().0.success());
    assert_eq!(chunks_with(&mut connection, &user(0)).await, 0);
    let states = "SELECT version FROM snapshots WHERE state = 'active' AND redaction = 1 AND trained_through = 0 AND erased_through = 1";
    assert_eq!(column(&mut connection, states).await, [2]);
    assert_eq!(stored::set_clean(&pool).await.unwrap(), 1);
    assert!(stored::is_retraining_due(&pool).await.unwrap());
    verify(&mut connection).await;
    assert!(
        Asker::of(&serve(&database))
            .await
            .is_unknown(&user(0), &[user(4)])
            .await
    );

    // The next training reads no data of the user, and no pseudonym either.
    shop::train(database.url());
    let trained = "SELECT trained_through FROM snapshots WHERE version = 3";
    assert_eq!(column(&mut connection, trained).await, [1]);
    assert!(!stored::is_retraining_due(&pool).await.unwrap());
    let pseudonym: String = sqlx::query_scalar("SELECT external_id FROM users WHERE is_pseudonym")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(chunks_with(&mut connection, &pseudonym).await, 0);
}

#[tokio::test]
async fn an_erasure_does_not_come_between_the_last_look_of_a_trainer_and_its_publication() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    let mut hold = Hold::at(&database, Point::Finish).await;
    let trainer = Program::start(&mut command(
        &database,
        &["train", "--set-config=gate.min_users=1000000"],
    ));
    hold.reached().await;
    let erasing = tokio::spawn({
        let pool = pool.clone();
        async move { erase(&pool, &[&user(0)]).await }
    });
    // It waits for the transaction of the trainer.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%erasures%'";
    let look = async || number(&mut connection, waiting).await;
    eventually("the erasure waits", look, |waiting| *waiting > 0).await;
    assert!(!erasing.is_finished());
    hold.release().await;
    erasing.await.unwrap();
    assert!(trainer.wait().0.success());
    redaction::clean(&pool, "test").await.unwrap();
    assert_eq!(chunks_with(&mut connection, &user(0)).await, 0);
}

#[tokio::test]
async fn data_that_were_read_before_an_ended_erasure_begin_no_snapshot() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    let record = snapshots::get(&pool, 1).await.unwrap().unwrap();
    let watermark: Watermark = record.input_watermark;
    let erasures = erase(&pool, &[&user(0)]).await;
    redaction::clean(&pool, "test").await.unwrap();
    set_rows_deleted(&mut connection).await;
    stored::set_clean(&pool).await.unwrap();
    verify(&mut connection).await;
    let lease = leases::acquire(&pool, leases::TRAINING, "test", Duration::from_secs(30))
        .await
        .unwrap()
        .unwrap();
    let begin = async |through| snapshots::begin(&pool, &lease, &record.parameters, &watermark, through).await;
    assert!(matches!(begin(0).await, Err(TransitionError::Behind { .. })));
    begin(erasures[0]).await.unwrap();
    assert_eq!(
        number(
            &mut connection,
            "SELECT count(*) FROM snapshots WHERE state = 'building'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn bytes_that_nobody_can_read_are_deleted_unless_they_are_served() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    let damaged = snapshot_damage::damaged_copy(&database, snapshot_damage::LOSE, "users").await;
    erase(&pool, &[&user(0)]).await;
    redaction::clean(&pool, "test").await.unwrap();
    let state = async |version: i64| -> String {
        let state = sqlx::query_scalar("SELECT state FROM snapshots WHERE version = $1").bind(version);
        state.fetch_one(&mut database.connect().await).await.unwrap()
    };
    assert_eq!(
        (state(1).await, state(damaged).await),
        ("active".to_owned(), "failed".to_owned())
    );
    let left = format!("SELECT count(*) FROM snapshot_chunks WHERE version = {damaged}");
    assert_eq!(number(&mut connection, &left).await, 0);

    execute(&mut connection, "DELETE FROM snapshot_chunks WHERE part = 'users'").await;
    erase(&pool, &[&user(1)]).await;
    let error = redaction::clean(&pool, "test").await.unwrap_err();
    assert_eq!(error.to_string(), "snapshot 1 may still hold erased users");
    assert_eq!(state(1).await, "active");
    set_rows_deleted(&mut connection).await;
    assert_eq!(
        stored::set_clean(&pool).await.unwrap(),
        1,
        "the first erasure, which was rewritten in time"
    );
}

/// Returns the targets of coupon c, best first, with their scores, and how many users were assessed.
async fn targets(server: &Server) -> (Vec<(String, f64)>, i64) {
    let request = StreamCouponTargetsRequest {
        coupon_id: "c".to_owned(),
        ..StreamCouponTargetsRequest::default()
    };
    let mut client = CouponServiceClient::new(server.channel().await);
    let mut stream = client.stream_coupon_targets(request).await.unwrap().into_inner();
    let (mut targets, mut audience) = (Vec::new(), 0);
    while let Some(message) = stream.message().await.unwrap() {
        match message.message.unwrap() {
            Target::Header(header) => audience = header.audience_count,
            Target::Target(target) => targets.push((target.user_id, target.score)),
        }
    }
    (targets, audience)
}

#[tokio::test]
async fn targets_name_neither_an_erased_user_nor_the_pseudonym() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    let offer = Offer {
        covers: Some(&[0, 4, 8]),
        ..Offer::of("c")
    };
    offer.create(&mut connection).await;
    let server = serve(&database);
    let (before, audience) = targets(&server).await;
    assert_eq!((before.len(), audience), (shop::USERS, shop::USERS as i64));
    assert!(before[0].1 > 0.0);
    let best = before[0].0.clone();

    // The list itself reads what is committed, so that nothing has to be waited for.
    erase(&pool, &[&best]).await;
    assert_eq!(targets(&server).await, (before[1..].to_vec(), audience - 1));
    // Back under the same id, without the history of the snapshot.
    execute(
        &mut connection,
        &format!("INSERT INTO users (external_id) VALUES ('{best}')"),
    )
    .await;
    let (back, n_users) = targets(&server).await;
    let score = back.iter().find(|target| target.0 == best).map(|target| target.1);
    assert_eq!((n_users, score), (audience, Some(0.0)));
    redaction::clean(&pool, "test").await.unwrap();
    let look = async || targets(&server).await;
    soon("the targets are those of the new bytes", look, |(found, _)| {
        *found == back
    })
    .await;
}

#[tokio::test]
async fn a_training_follows_an_erasure_where_that_is_configured() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    let settings = [("erasure.retrain", "always"), ("gate.min_users", "1000000"), BY_HAND];
    let server = Server::with(&database, &settings);
    erase(&pool, &[&user(0)]).await;
    redaction::clean(&pool, "test").await.unwrap();
    set_rows_deleted(&mut connection).await;
    assert_eq!(stored::set_clean(&pool).await.unwrap(), 1);
    let caller = Caller::of(&server).await;
    caller.wait_until_serves(2).await;
    let trained = column(
        &mut connection,
        "SELECT trained_through FROM snapshots ORDER BY version",
    )
    .await;
    assert_eq!(trained, [0, 1]);
    assert!(!stored::is_retraining_due(&pool).await.unwrap());
    assert!(server.stop().0.success());
}

#[tokio::test]
async fn a_training_for_an_erasure_whose_server_was_killed_is_done_by_another_one() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let mut connection = database.connect().await;
    erase(&pool, &[&user(0)]).await;
    redaction::clean(&pool, "test").await.unwrap();
    set_rows_deleted(&mut connection).await;
    assert_eq!(stored::set_clean(&pool).await.unwrap(), 1);
    // Nobody looks for erasures any more, and so nobody deletes what the trainer has left.
    verify(&mut connection).await;
    let settings = [("erasure.retrain", "always"), ("gate.min_users", "1000000"), BY_HAND];
    let mut hold = Hold::at(&database, Point::BeforeFinish).await;
    let server = Server::with(&database, &settings);
    hold.reached().await;
    assert!(!stored::is_retraining_due(&pool).await.unwrap(), "somebody is at it");
    server.program.kill();
    hold.release().await;
    execute(
        &mut connection,
        "UPDATE leases SET expires_at = clock_timestamp() WHERE name = 'training'",
    )
    .await;
    assert!(stored::is_retraining_due(&pool).await.unwrap());
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    let look = async || caller.status().await.snapshot_version;
    eventually("the other server has trained", look, |version| *version > Some(1)).await;
    assert!(!stored::is_retraining_due(&pool).await.unwrap());
}

#[tokio::test]
async fn rewrites_activations_and_pruning_do_not_disturb_each_other_nor_any_request() {
    let database = shop::open().await;
    shop::train(database.url());
    let pool = database.pool().await;
    let server = Server::with(&database, &[("live.refresh_interval_ms", "50"), BY_HAND]);
    let asker = Asker::of(&server).await;
    let stop = CancellationToken::new();
    let switching = tokio::spawn({
        let (pool, stop) = (pool.clone(), stop.clone());
        async move {
            let mut switches = 0;
            while !stop.is_cancelled() {
                let by = Activation::Operator { actor: "test" };
                activate(&pool, 1 + switches % 2, by, "").await.unwrap();
                snapshots::prune(&pool, 5).await.unwrap();
                switches += 1;
            }
            switches
        }
    });
    let asking = tokio::spawn({
        let (caller, stop) = (Caller::of(&server).await, stop.clone());
        async move {
            let mut answers = 0;
            while !stop.is_cancelled() {
                // Panics where a request fails.
                caller.ranked(&user(199)).await;
                answers += 1;
            }
            answers
        }
    });
    let erased: Vec<String> = (0..12).map(user).collect();
    for id in &erased {
        erase(&pool, &[id]).await;
        redaction::clean(&pool, "test").await.unwrap();
    }
    stop.cancel();
    assert!(switching.await.unwrap() > 2 && asking.await.unwrap() > 2);
    let mut connection = database.connect().await;
    assert_eq!(
        column(&mut connection, "SELECT redaction FROM snapshots ORDER BY version").await,
        [12, 12]
    );
    for version in [1, 2] {
        likemind::live::verify(&pool, version).await.unwrap();
    }
    for id in &erased {
        assert_eq!(chunks_with(&mut connection, id).await, 0);
        let look = async || asker.is_unknown(id, &[user(199)]).await;
        soon("the erased user is unknown", look, |is_unknown| *is_unknown).await;
    }
}
