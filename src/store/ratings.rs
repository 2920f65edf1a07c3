//! Explicit ratings.

use std::collections::{BTreeMap, HashSet};

use crate::domain::id::{ItemId, UserId};
use crate::domain::rating::Rating;
use crate::domain::time::Timestamp;

use super::error::StoreError;
use super::ids;
use super::outcome::WriteOutcome;
use super::pool::{Connection, Pool};

/// Stores `ratings` in one transaction; for one user and item the latest `rated_at` wins, and of two at one instant
/// the one that came later. Returns what became of each.
///
/// # Errors
/// Nothing is stored when the database cannot do it.
pub async fn upsert(pool: &Pool, ratings: &[Rating]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = upsert_in(&mut tx, ratings).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

async fn upsert_in(connection: &mut Connection, ratings: &[Rating]) -> Result<Vec<WriteOutcome>, StoreError> {
    let users = ids::ensure_users(connection, ratings.iter().map(|rating| rating.user.as_str())).await?;
    let items = ids::ensure_items(connection, ratings.iter().map(|rating| rating.item.as_str())).await?;

    // In the order of the primary key, so that concurrent batches take their locks in one order.
    let mut latest: BTreeMap<(i64, i64), usize> = BTreeMap::new();
    for (position, rating) in ratings.iter().enumerate() {
        let winner = latest
            .entry((users.key(rating.user.as_str()), items.key(rating.item.as_str())))
            .or_insert(position);
        if ratings[*winner].rated_at <= rating.rated_at {
            *winner = position;
        }
    }

    let (user_ids, item_ids): (Vec<i64>, Vec<i64>) = latest.keys().copied().unzip();
    let values: Vec<f32> = latest.values().map(|&position| ratings[position].value).collect();
    let rated_at: Vec<Timestamp> = latest.values().map(|&position| ratings[position].rated_at).collect();
    let stored: HashSet<(i64, i64)> = sqlx::query!(
        r#"WITH stored AS (
               INSERT INTO ratings (user_id, item_id, value, rated_at)
               SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::real[], $4::timestamptz[])
               ON CONFLICT (user_id, item_id) DO UPDATE SET value = excluded.value, rated_at = excluded.rated_at
               -- Nor does a rating come back that was deleted at the moment it was given: the write may be sent again.
               WHERE (ratings.rated_at < excluded.rated_at
                      OR (ratings.rated_at = excluded.rated_at AND ratings.value IS NOT NULL))
                 AND (ratings.value, ratings.rated_at) IS DISTINCT FROM (excluded.value, excluded.rated_at)
               RETURNING user_id, item_id
           ), logged AS (
               INSERT INTO changes (user_id, item_id) SELECT user_id, item_id FROM stored
           )
           SELECT user_id AS "user_id!", item_id AS "item_id!" FROM stored"#,
        &user_ids,
        &item_ids,
        &values,
        &rated_at,
    )
    .fetch_all(&mut *connection)
    .await?
    .into_iter()
    .map(|row| (row.user_id, row.item_id))
    .collect();

    let mut outcomes = vec![WriteOutcome::Merged; ratings.len()];
    for (pair, position) in latest {
        if stored.contains(&pair) {
            outcomes[position] = WriteOutcome::Stored;
        }
    }
    Ok(outcomes)
}

/// Deletes the rating unless it is later than `deleted_at`. An older one that arrives afterwards stays without effect,
/// also when there was none to delete, provided that the user and the item are known.
///
/// Returns whether there was one to delete.
pub async fn delete(pool: &Pool, user: &UserId, item: &ItemId, deleted_at: Timestamp) -> Result<bool, StoreError> {
    pool.write(|mut tx| async move {
        let had_value = sqlx::query_scalar!(
            r#"SELECT value IS NOT NULL AS "had_value!" FROM ratings
               WHERE user_id = (SELECT id FROM users WHERE external_id = $1)
                 AND item_id = (SELECT id FROM items WHERE external_id = $2)
               FOR UPDATE"#,
            user.as_str(),
            item.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let deleted = sqlx::query!(
            "WITH deleted AS (
                 INSERT INTO ratings (user_id, item_id, value, rated_at)
                 SELECT users.id, items.id, NULL, $3::timestamptz FROM users, items
                 WHERE users.external_id = $1 AND items.external_id = $2
                 ON CONFLICT (user_id, item_id) DO UPDATE SET value = NULL, rated_at = excluded.rated_at
                 WHERE ratings.rated_at <= excluded.rated_at
                 RETURNING user_id, item_id
             )
             INSERT INTO changes (user_id, item_id) SELECT user_id, item_id FROM deleted",
            user.as_str(),
            item.as_str(),
            deleted_at,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(had_value == Some(true) && deleted.rows_affected() > 0)
    })
    .await
}

/// Up to `limit` ratings of `user` whose item ids follow `after`, ascending by item id.
pub async fn list_by_user(pool: &Pool, user: &UserId, after: &str, limit: i64) -> Result<Vec<Rating>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT users.external_id AS user_id, items.external_id AS item_id, value AS "value!", rated_at
           FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id
           WHERE users.external_id = $1 AND items.external_id > $2 AND value IS NOT NULL
           ORDER BY items.external_id LIMIT $3"#,
        user.as_str(),
        after,
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(Rating::try_from)
    .collect()
}

/// Up to `limit` ratings of `item` whose user ids follow `after`, ascending by user id.
pub async fn list_by_item(pool: &Pool, item: &ItemId, after: &str, limit: i64) -> Result<Vec<Rating>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT users.external_id AS user_id, items.external_id AS item_id, value AS "value!", rated_at
           FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id
           WHERE items.external_id = $1 AND users.external_id > $2 AND value IS NOT NULL
           ORDER BY users.external_id LIMIT $3"#,
        item.as_str(),
        after,
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(Rating::try_from)
    .collect()
}

struct Row {
    user_id: String,
    item_id: String,
    value: f32,
    rated_at: Timestamp,
}

impl TryFrom<Row> for Rating {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            user: UserId::new(row.user_id).map_err(|error| StoreError::corrupt("users", error))?,
            item: ItemId::new(row.item_id).map_err(|error| StoreError::corrupt("items", error))?,
            value: row.value,
            rated_at: row.rated_at,
        })
    }
}
