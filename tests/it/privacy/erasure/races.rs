//! Writes that race with an erasure leave nothing stored of before it.

use domain::id::{ItemId, UserId};
use domain::rating::Rating;
use likemind::store::catalog::key_cache::KeyCache;
use likemind::store::privacy::erasure_key::ErasureKey;
use likemind::store::privacy::erasures::{self, Request};
use likemind::store::ratings;
use std::sync::Arc;

use super::ERASED;
use crate::support::coupons::assert_balanced;
use crate::support::erasures::{KEY, eraser, traces};
use crate::support::postgres::{execute, number, sessions_waiting_for_a_lock};
use crate::support::shop::{self, item};
use crate::support::waiting::eventually;

fn key() -> ErasureKey {
    ErasureKey::new(KEY).unwrap()
}

fn request(users: &[UserId]) -> Request<'_> {
    Request {
        users,
        request_id: None,
        reason: "",
        actor: "test",
    }
}

fn old_rating(item_number: usize) -> Rating {
    Rating {
        user: UserId::new(ERASED).unwrap(),
        item: ItemId::new(item(item_number)).unwrap(),
        value: 4.0,
        rated_at: chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
    }
}

#[tokio::test]
async fn an_import_that_has_cached_the_user_stores_nothing_after_the_erasure() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let pool = database.pool().await.with_erasure_key(Some(Arc::new(key())));
    let keys = KeyCache::default();
    let users = [UserId::new(ERASED).unwrap()];
    assert_eq!(ratings::load(&pool, &keys, &[old_rating(1)]).await.unwrap().stored, 1);

    erasures::receive(&pool, &key(), &request(&users)).await.unwrap();
    // Between the two transactions the import still writes, to the row that is about to go.
    assert_eq!(ratings::load(&pool, &keys, &[old_rating(2)]).await.unwrap().stored, 1);
    eraser(&pool).step(true).await.unwrap();
    let ratings_of_erased = "SELECT count(*) FROM ratings JOIN users ON users.id = user_id WHERE is_pseudonym";
    assert_eq!(number(&mut connection, ratings_of_erased).await, 0);

    // Both ways of storing: by COPY, and looking first.
    let counts = ratings::load(&pool, &keys, &[old_rating(3)]).await.unwrap();
    assert_eq!((counts.stored, counts.dropped), (0, 1));
    let counts = ratings::load(&pool, &keys, &[old_rating(3), old_rating(4)])
        .await
        .unwrap();
    assert_eq!((counts.stored, counts.dropped), (0, 2));
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());
    assert_eq!(number(&mut connection, ratings_of_erased).await, 0);
}

#[tokio::test]
async fn a_transaction_in_flight_is_waited_for_and_one_that_looked_up_the_user_before_fails() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let pool = database.pool().await;
    let number_of = format!("INSERT INTO users (external_id) VALUES ('{ERASED}') RETURNING id");
    let old_number = number(&mut connection, &number_of).await;

    // The first one has written and not committed.
    let mut writer = database.connect().await;
    let purchase = |order: &str| {
        format!(
            "INSERT INTO purchases (order_id, user_id, item_id, line_number, quantity, line_total_minor, currency_code, purchased_at)
             VALUES ('{order}', {old_number}, 1, 1, 1, 100, 'GBP', '2024-01-01')"
        )
    };
    execute(&mut writer, &format!("BEGIN; {}", purchase("in flight"))).await;
    let receiving = tokio::spawn({
        let pool = pool.clone();
        async move {
            let users = [UserId::new(ERASED).unwrap()];
            erasures::receive(&pool, &key(), &request(&users)).await
        }
    });
    let mut watch = database.connect().await;
    let waiting = async || sessions_waiting_for_a_lock(&mut watch).await;
    eventually("the erasure waits for the writer", waiting, |sessions| *sessions > 0).await;
    execute(&mut writer, "COMMIT").await;
    receiving.await.unwrap().unwrap();
    eraser(&pool).step(true).await.unwrap();
    let kept = "SELECT count(*) FROM purchases JOIN users ON users.id = user_id WHERE is_pseudonym";
    assert_eq!(number(&mut connection, kept).await, 1);

    // The second one knows the number from before, and writes only now.
    for late in [
        purchase("late"),
        format!("INSERT INTO ratings (user_id, item_id, value, rated_at) VALUES ({old_number}, 1, 4, '2024-01-01')"),
        format!(
            "INSERT INTO consents (user_id, purpose, is_granted, decided_at) VALUES ({old_number}, 'training', true, now())"
        ),
        format!("INSERT INTO user_attributes (user_id, name, value) VALUES ({old_number}, 'city', 'Bern')"),
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(late))
            .execute(&mut writer)
            .await
            .unwrap_err();
        let refused = refused.into_database_error().unwrap();
        assert!(refused.is_foreign_key_violation(), "{refused}");
    }
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn a_writer_that_adds_the_user_while_they_are_erased_drops_what_is_old() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let pool = database.pool().await.with_erasure_key(Some(Arc::new(key())));
    // Holds the erasure at its end.
    execute(
        &mut connection,
        "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
         CREATE TRIGGER hold AFTER INSERT ON erasures FOR EACH ROW EXECUTE FUNCTION wait_for_test();
         SELECT pg_advisory_lock(1)",
    )
    .await;
    let receiving = tokio::spawn({
        let pool = pool.clone();
        async move {
            let users = [UserId::new(ERASED).unwrap()];
            erasures::receive(&pool, &key(), &request(&users)).await
        }
    });
    let mut watch = database.connect().await;
    let mut waiting = async |least: i64| {
        let sessions = async || sessions_waiting_for_a_lock(&mut watch).await;
        eventually("sessions wait", sessions, |sessions| *sessions >= least).await;
    };
    waiting(1).await;
    // Nobody sees the erasure yet, and the user is not stored.
    let writing = tokio::spawn({
        let pool = pool.clone();
        async move { ratings::upsert(&pool, &[old_rating(1)]).await }
    });
    waiting(2).await;
    execute(&mut connection, "SELECT pg_advisory_unlock(1)").await;
    receiving.await.unwrap().unwrap();
    let outcomes = writing.await.unwrap().unwrap();
    assert_eq!(outcomes, [likemind::store::outcome::WriteOutcome::Dropped]);
    eraser(&pool).step(true).await.unwrap();
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());
}
