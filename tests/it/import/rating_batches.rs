//! Batches of ratings, as an import stores them.

use chrono::DateTime;
use domain::id::{ItemId, UserId};
use domain::rating::Rating;
use futures_util::future::join_all;
use likemind::store::catalog::key_cache::KeyCache;
use likemind::store::ratings;

use super::content::fresh_database;

fn rating(user: &str, item: &str, value: f32, second: i64) -> Rating {
    Rating {
        user: UserId::new(user).unwrap(),
        item: ItemId::new(item).unwrap(),
        value,
        rated_at: DateTime::from_timestamp_secs(second).unwrap(),
    }
}

#[tokio::test]
async fn a_rating_cannot_refer_to_a_missing_user_or_item_even_if_its_key_is_cached() {
    let database = fresh_database().await;
    let known = KeyCache::default();
    let batch = [rating("ann", "tea", 4.0, 1), rating("bob", "tea", 3.0, 1)];
    assert_eq!(ratings::load(&database.pool, &known, &batch).await.unwrap().stored, 2);
    for statement in [
        "INSERT INTO ratings VALUES (4711, (SELECT id FROM items), 3, now())",
        "INSERT INTO ratings VALUES ((SELECT max(id) FROM users), 4711, 3, now())",
        "DELETE FROM users WHERE external_id = 'ann'",
        "DELETE FROM items",
    ] {
        let error = sqlx::query(statement).execute(&database.sql).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_foreign_key_violation(), "{error}");
    }

    // The key that is cached for ann belongs to a user who is gone.
    sqlx::raw_sql(
        "DELETE FROM ratings WHERE user_id = (SELECT id FROM users WHERE external_id = 'ann');
                   DELETE FROM users WHERE external_id = 'ann'",
    )
    .execute(&database.sql)
    .await
    .unwrap();
    let batch = [rating("ann", "tea", 5.0, 2), rating("bob", "tea", 3.0, 1)];
    assert_eq!(ratings::load(&database.pool, &known, &batch).await.unwrap().stored, 1);
    assert_eq!(
        database.rows("rating").await,
        ["rating|ann|tea|5|2.000000", "rating|bob|tea|3|1.000000"]
    );
}

/// A batch of new pairs is stored by another statement than a batch that meets stored pairs.
#[tokio::test]
async fn batches_with_and_without_new_ratings_keep_the_latest_of_each_pair() {
    let database = fresh_database().await;
    let known = KeyCache::default();
    let load = async |batch: &[Rating]| ratings::load(&database.pool, &known, batch).await.unwrap().stored;
    // The later of two ratings in one batch counts.
    let new = [
        rating("ann", "tea", 4.0, 1),
        rating("ann", "tea", 3.0, 2),
        rating("bob", "tea", 3.0, 1),
    ];
    assert_eq!(load(&new).await, 2);
    let (bob, tea) = (UserId::new("bob").unwrap(), ItemId::new("tea").unwrap());
    let deleted_at = DateTime::from_timestamp_secs(5).unwrap();
    assert!(ratings::delete(&database.pool, &bob, &tea, deleted_at).await.unwrap());
    // The first is newer than the stored rating, the second older than its deletion, the third new.
    let mixed = [
        rating("ann", "tea", 5.0, 3),
        rating("bob", "tea", 2.0, 4),
        rating("cid", "tea", 2.0, 1),
    ];
    assert_eq!(load(&mixed).await, 2);
    assert_eq!(load(&mixed).await, 0);
    assert_eq!(load(&[rating("dan", "tea", 1.0, 1)]).await, 1);
    assert_eq!(
        load(&[rating("eve", "tea", 1.0, 1), rating("eve", "milk", 2.0, 1)]).await,
        2
    );
    assert_eq!(load(&[]).await, 0);
    assert_eq!(
        database.rows("rating").await,
        [
            "rating|ann|tea|5|3.000000",
            // This one is deleted.
            "rating|bob|tea|5.000000",
            "rating|cid|tea|2|1.000000",
            "rating|dan|tea|1|1.000000",
            "rating|eve|milk|2|1.000000",
            "rating|eve|tea|1|1.000000",
        ]
    );
    // The feed has one row for each batch, with the ratings that were stored, and none for a batch without effect.
    let pairs = "SELECT COALESCE(sum(cardinality(user_ids)), 0)::bigint FROM changes WHERE user_ids IS NOT NULL";
    assert_eq!(database.number(pairs).await, 2 + 2 + 1 + 2);
    assert_eq!(
        database
            .number("SELECT count(*) FROM changes WHERE user_ids IS NOT NULL")
            .await,
        4
    );
}

/// At first every writer finds the pairs missing; then all but one of them find that they exist.
#[tokio::test]
async fn parallel_writers_of_the_same_new_ratings_keep_the_latest() {
    const N_WRITERS: i64 = 8;
    let database = fresh_database().await;
    let known = KeyCache::default();
    let writes = (1..=N_WRITERS).map(|second| {
        let batch: Vec<Rating> = (0..300)
            .map(|n| {
                rating(
                    &format!("u{}", n % 20),
                    &format!("i{n:03}"),
                    (second % 5 + 1) as f32,
                    second,
                )
            })
            .collect();
        let (pool, known) = (&database.pool, &known);
        async move {
            match second % 2 {
                0 => ratings::load(pool, known, &batch).await.unwrap().stored,
                _ => ratings::upsert(pool, &batch).await.unwrap().len(),
            }
        }
    });
    join_all(writes).await;
    let latest = "SELECT count(*) FROM ratings WHERE rated_at = to_timestamp(8) AND value = 4";
    assert_eq!(database.number(latest).await, 300);
    // Every change is in the feed, with one row for each batch.
    let pairs = "SELECT count(DISTINCT (pair.user_id, pair.item_id)) FROM changes, UNNEST(user_ids, item_ids) AS pair (user_id, item_id)";
    assert_eq!(database.number(pairs).await, 300);
    let batches = "SELECT count(*) FROM changes WHERE user_ids IS NOT NULL";
    assert!(database.number(batches).await <= N_WRITERS);
}
