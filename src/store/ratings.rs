//! Stores, deletes and lists explicit ratings.

use std::cmp::Reverse;
use std::collections::HashSet;

use domain::id::{ItemId, UserId};
use domain::rating::Rating;
use domain::time::Timestamp;

use crate::store::catalog::ids::{self, Keys, Told};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::outcome::{LoadCounts, WriteOutcome};
use crate::store::postgres::copy::{RatingRow, insert_ratings};
use crate::store::postgres::pool::{Connection, Pool, plan_for_lookups};
use crate::store::privacy::dropped::{AboutUser, Kept};

/// Stores `ratings` in one transaction. For one user and item the latest `rated_at` wins, and of two at the same instant
/// the one that arrived later. Returns the outcome of each.
///
/// # Errors
/// After an error nothing is stored.
pub async fn upsert(pool: &Pool, ratings: &[Rating]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let users = ids::ensure_users(
            &mut tx,
            pool.erasure_key(),
            ratings.iter().map(|rating| rating.told(pool)),
        )
        .await?;
        let kept = users.kept(pool, ratings);
        let outcomes = upsert_in(&mut tx, &users, &kept.entries).await?;
        tx.commit().await?;
        Ok(kept.outcomes(outcomes, WriteOutcome::Dropped))
    })
    .await
}

impl AboutUser for Rating {
    fn told<'a>(&'a self, _: &Pool) -> Told<'a> {
        (&self.user, Some(self.rated_at))
    }
}

async fn upsert_in(
    connection: &mut Connection,
    users: &Keys,
    ratings: &[Rating],
) -> Result<Vec<WriteOutcome>, StoreError> {
    let items = ids::ensure_items(connection, ratings.iter().map(|rating| rating.item.as_str())).await?;
    let pairs = ratings
        .iter()
        .map(|rating| (users.key(rating.user.as_str()), items.key(rating.item.as_str())));
    let latest = latest(ratings, pairs);
    let stored: HashSet<(i64, i64)> = store(connection, ratings, &latest, None)
        .await?
        .pairs
        .into_iter()
        .collect();
    let mut outcomes = vec![WriteOutcome::Merged; ratings.len()];
    for &(pair, position) in &latest {
        if stored.contains(&pair) {
            outcomes[position] = WriteOutcome::Stored;
        }
    }
    Ok(outcomes)
}

/// Does the same as [`upsert`] for a batch of an import, whose keys `known` may have.
pub async fn load(pool: &Pool, known: &KeyCache, ratings: &[Rating]) -> Result<LoadCounts, StoreError> {
    if ratings.is_empty() {
        return Ok(LoadCounts::default());
    }
    known
        .retrying(|| async move {
            let (mut users, dropped) = known
                .users(pool, ratings.iter().map(|rating| rating.told(pool)))
                .await?;
            let kept = &Kept::new(ratings, dropped);
            kept.retain(&mut users);
            let ratings = &kept.entries[..];
            let items = known
                .items(pool, ratings.iter().map(|rating| rating.item.as_str()))
                .await?;
            let latest = &latest(ratings, users.into_iter().zip(items));
            if !known.has_met_stored() {
                match add(pool, ratings, latest).await {
                    Err(StoreError::Conflict(_)) => known.set_met_stored(true),
                    result => {
                        return result.map(|()| LoadCounts {
                            stored: latest.len(),
                            older: 0,
                            overwritten: ratings.len() - latest.len(),
                            dropped: kept.dropped(),
                        });
                    }
                }
            }
            let stored = pool
                .write(|mut tx| async move {
                    plan_for_lookups(&mut tx).await?;
                    let stored = store(&mut tx, ratings, latest, pool.import_id()).await?;
                    tx.commit().await?;
                    Ok(stored)
                })
                .await?;
            known.set_met_stored(stored.inserted < latest.len());
            Ok(LoadCounts {
                stored: stored.pairs.len(),
                older: stored.older,
                overwritten: ratings.len() - latest.len(),
                dropped: kept.dropped(),
            })
        })
        .await
}

/// Stores the ratings in `latest`, none of whose pairs may be rated already. This takes half the time of [`store`], which
/// looks first.
///
/// # Errors
/// [`StoreError::Conflict`] when a pair is rated already; then nothing is stored.
async fn add(pool: &Pool, ratings: &[Rating], latest: &[Keyed]) -> Result<(), StoreError> {
    let rows = latest.iter().map(|&((user_id, item_id), position)| RatingRow {
        user_id,
        item_id,
        value: ratings[position].value,
        rated_at: ratings[position].rated_at,
    });
    let mut tx = pool.begin().await?;
    insert_ratings(&mut tx, rows, pool.import_id()).await?;
    let (user_ids, item_ids): (Vec<i64>, Vec<i64>) = latest.iter().map(|&(pair, _)| pair).unzip();
    sqlx::query!(
        "INSERT INTO changes (user_ids, item_ids) VALUES ($1, $2)",
        &user_ids,
        &item_ids
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// The pair of keys of a rating, and its position in the batch.
type Keyed = ((i64, i64), usize);

/// Returns the winning rating of every pair, in the order of the primary key, so that concurrent batches take their locks
/// in one order.
///
/// `pairs`: the keys of the user and the item of each rating.
fn latest(ratings: &[Rating], pairs: impl Iterator<Item = (i64, i64)>) -> Vec<Keyed> {
    let mut keyed: Vec<Keyed> = pairs.zip(0..).collect();
    keyed.sort_unstable_by_key(|&(pair, position)| (pair, Reverse(ratings[position].rated_at), Reverse(position)));
    keyed.dedup_by_key(|&mut (pair, _)| pair);
    keyed
}

/// The changes that [`store`] has made.
struct Stored {
    /// In any order.
    pairs: Vec<(i64, i64)>,
    /// The number of pairs that had not been rated before.
    inserted: usize,
    /// The number of ratings that are older than the stored ones.
    older: usize,
}

/// Stores the ratings in `latest`, as written by `import_id`. What the import overwrites is kept for undoing it.
///
/// Ratings without an effect are left out before they take a lock, and new ones are inserted without ON CONFLICT, which
/// would double the time of every row.
///
/// # Errors
/// [`StoreError::Conflict`] when another transaction has inserted one of the ratings since the beginning.
async fn store(
    connection: &mut Connection,
    ratings: &[Rating],
    latest: &[Keyed],
    import_id: Option<i64>,
) -> Result<Stored, StoreError> {
    let (user_ids, item_ids): (Vec<i64>, Vec<i64>) = latest.iter().map(|&(pair, _)| pair).unzip();
    let values: Vec<f32> = latest.iter().map(|&(_, position)| ratings[position].value).collect();
    let rated_at: Vec<Timestamp> = latest.iter().map(|&(_, position)| ratings[position].rated_at).collect();
    let changed = sqlx::query!(
        r#"WITH looked AS (
               SELECT new.*, old.rated_at IS NOT NULL AS is_known, old.value AS old_value, old.rated_at AS old_rated_at,
                      old.import_id AS old_import_id
               FROM UNNEST($1::bigint[], $2::bigint[], $3::real[], $4::timestamptz[])
                   AS new (user_id, item_id, value, rated_at)
               -- OFFSET 0: a look into the index for each, however large PostgreSQL thinks that the batch is.
               LEFT JOIN LATERAL (
                   SELECT * FROM ratings WHERE user_id = new.user_id AND item_id = new.item_id OFFSET 0
               ) AS old ON true
               -- Leaves identical ratings out, so that importing a file again materializes nothing.
               WHERE old.rated_at IS NULL OR old.rated_at <> new.rated_at OR old.value <> new.value
           ), effective AS (
               SELECT * FROM looked
               WHERE old_rated_at IS NULL
                  OR old_rated_at < rated_at
                  -- Nor does a rating come back that was deleted at the moment it was given: the write may be sent again.
                  OR (old_rated_at = rated_at AND old_value <> value)
           ), inserted AS (
               INSERT INTO ratings (user_id, item_id, value, rated_at, import_id)
               SELECT user_id, item_id, value, rated_at, $5 FROM effective WHERE NOT is_known
               RETURNING user_id, item_id
           ), kept AS (
               INSERT INTO import_overwritten_ratings (import_id, user_ids, item_ids, value_list, times, import_ids)
               SELECT $5, array_agg(user_id), array_agg(item_id), array_agg(old_value), array_agg(old_rated_at),
                      array_agg(old_import_id)
               FROM effective WHERE is_known AND $5::bigint IS NOT NULL AND old_import_id IS DISTINCT FROM $5
               HAVING count(*) > 0
           ), updated AS (
               UPDATE ratings SET value = new.value, rated_at = new.rated_at, import_id = $5 FROM effective AS new
               WHERE is_known AND ratings.user_id = new.user_id AND ratings.item_id = new.item_id
                 -- Once more, for what it is when its lock is taken.
                 AND (ratings.rated_at < new.rated_at
                      OR (ratings.rated_at = new.rated_at AND ratings.value <> new.value))
               RETURNING ratings.user_id, ratings.item_id
           ), stored AS (
               SELECT * FROM inserted UNION ALL SELECT * FROM updated
           ), changed AS (
               SELECT array_agg(user_id) AS user_ids, array_agg(item_id) AS item_ids,
                      (SELECT count(*) FROM inserted) AS inserted
               FROM stored HAVING count(*) > 0
           ), logged AS (
               INSERT INTO changes (user_ids, item_ids) SELECT user_ids, item_ids FROM changed
           )
           SELECT COALESCE(user_ids, '{}') AS "user_ids!", COALESCE(item_ids, '{}') AS "item_ids!",
                  COALESCE(inserted, 0) AS "inserted!", older AS "older!"
           FROM (SELECT count(*) FILTER (WHERE old_rated_at > rated_at) AS older FROM looked) AS counted
           LEFT JOIN changed ON true"#,
        &user_ids,
        &item_ids,
        &values,
        &rated_at,
        import_id,
    )
    .fetch_one(connection)
    .await
    .map_err(StoreError::of_insert)?;
    Ok(Stored {
        pairs: changed.user_ids.into_iter().zip(changed.item_ids).collect(),
        inserted: changed.inserted as usize,
        older: changed.older as usize,
    })
}

/// Deletes the rating unless it is later than `deleted_at`. An older rating that arrives afterwards has no effect, even if
/// there was none to delete, provided that the user and the item are known.
///
/// Returns whether there was a rating to delete.
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
                   AND (users.erased_at IS NULL OR users.erased_at < $3)
                 ON CONFLICT (user_id, item_id) DO UPDATE SET value = NULL, rated_at = excluded.rated_at, import_id = NULL
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

/// Returns up to `limit` ratings of `user` whose item ids follow `after`, ascending by item id.
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

/// Returns up to `limit` ratings of `item` whose user ids follow `after`, ascending by user id.
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
            user: UserId::stored(row.user_id).map_err(|error| StoreError::corrupt("users", error))?,
            item: ItemId::stored(row.item_id).map_err(|error| StoreError::corrupt("items", error))?,
            value: row.value,
            rated_at: row.rated_at,
        })
    }
}
