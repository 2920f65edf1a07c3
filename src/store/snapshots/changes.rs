//! What has been written since a moment, without gaps: the feed of fresh data.
//!
//! A moment is PostgreSQL's own picture of which transactions are visible, so that a row is neither missed because a
//! transaction that began earlier committed later, nor held up by a long one, nor read twice. This is the one file
//! that needs `xid8`, `pg_snapshot` and exported snapshots. Where an engine has neither, a `changes.committed_at` from
//! a hybrid logical clock (CockroachDB's `crdb_internal_mvcc_timestamp`, YugabyteDB's commit time) takes their place,
//! and `AS OF SYSTEM TIME` that of an exported snapshot; a single reader needs none.

use std::time::Duration;

use futures_util::{TryFutureExt, TryStreamExt};

use domain::consent::{Consents, Purpose};
use domain::id::{ItemId, UserId};
use domain::time::Timestamp;
use recommender::snapshot::overlay::FreshChange;

use crate::store::catalog::facts;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Pool, Tx, within};

/// A moment: which transactions are visible, as `pg_snapshot` writes it (`xmin:xmax:in-progress`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark(pub(in crate::store) String);

impl Watermark {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Two read-only transactions that see the same picture of the database, and the moment they see.
///
/// # Errors
/// The pool must have two connections to give.
pub(in crate::store) async fn two_readers(pool: &Pool) -> Result<(Tx, Tx, Watermark), StoreError> {
    let mut first = pool.begin_picture().await?;
    let exported =
        sqlx::query!(r#"SELECT pg_export_snapshot() AS "snapshot!", pg_current_snapshot()::text AS "watermark!""#)
            .fetch_one(&mut *first)
            .await?;
    let mut second = pool.begin_picture().await?;
    // SET takes no parameters; the name comes from PostgreSQL: hexadecimal digits and dashes.
    let import = sqlx::AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{}'", exported.snapshot));
    sqlx::query(import).execute(&mut *second).await?;
    Ok((first, second, Watermark(exported.watermark)))
}

/// Hands to `apply` the present state of everything that has been committed since `watermark`, and returns the moment
/// up to which that is complete. Memory does not grow with the number of changes. It takes as long as there is much to
/// hand over, but gives up when for `patience` nothing comes.
///
/// # Errors
/// [`StoreError::Unavailable`] also when nothing has come. `apply` may have been called for a part of the changes;
/// calling it again for all of them does no harm.
///
/// A watermark from the future is one of another cluster, from where the database was restored: everything in the feed is
/// handed over.
pub async fn since(
    pool: &Pool,
    watermark: &Watermark,
    patience: Duration,
    mut apply: impl FnMut(FreshChange),
) -> Result<Watermark, StoreError> {
    let mut tx = within(patience, pool.begin_unlimited()).await?;
    // One statement sees one picture of the database: changes, states and the new moment fit together. The outer join
    // gives a row also when nothing has changed.
    let mut rows = sqlx::query_as!(
        Row,
        r#"WITH changed AS (
               SELECT DISTINCT changed.user_id, changed.item_id
               FROM changes CROSS JOIN LATERAL (
                   SELECT changes.user_id, changes.item_id WHERE changes.user_ids IS NULL
                   UNION ALL SELECT * FROM UNNEST(changes.user_ids, changes.item_ids)
               ) AS changed
               WHERE xid >= CASE
                         -- Of another cluster, whose transactions had other numbers.
                         WHEN pg_snapshot_xmax($1::text::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) THEN '0'
                         ELSE pg_snapshot_xmin($1::text::pg_snapshot)
                     END
                 AND (NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
                      OR pg_snapshot_xmax($1::text::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()))
           ), states AS (
               SELECT users.external_id AS user_id, items.external_id AS item_id, ratings.value,
                      bought.orders, bought.last_order_at, said.marketing, said.profiling, said.training,
                      said.is_suppressed, items.title, merchants.external_id AS merchant_id, items.category, items.price_minor,
                      items.currency_code, items.listed
               FROM changed
               LEFT JOIN items ON items.id = changed.item_id
               LEFT JOIN merchants ON merchants.id = items.merchant_id
               LEFT JOIN users ON users.id = changed.user_id
               LEFT JOIN ratings ON ratings.user_id = changed.user_id AND ratings.item_id = changed.item_id
               LEFT JOIN LATERAL (
                   SELECT count(*) AS orders, max(ordered_at) AS last_order_at FROM (
                       SELECT max(purchased_at) AS ordered_at FROM purchases
                       WHERE purchases.user_id = changed.user_id AND purchases.item_id = changed.item_id
                       GROUP BY order_id HAVING sum(quantity) > 0
                   ) AS orders
               ) AS bought ON changed.user_id IS NOT NULL AND changed.item_id IS NOT NULL
               -- A row without an item.
               LEFT JOIN LATERAL (
                   SELECT bool_or(is_granted) FILTER (WHERE purpose = 'marketing') AS marketing,
                          bool_or(is_granted) FILTER (WHERE purpose = 'profiling') AS profiling,
                          bool_or(is_granted) FILTER (WHERE purpose = 'training') AS training,
                          EXISTS (SELECT FROM suppressions WHERE suppressions.user_id = changed.user_id)
                              AS is_suppressed
                   FROM consents WHERE consents.user_id = changed.user_id
               ) AS said ON changed.item_id IS NULL
               WHERE items.id IS NOT NULL OR changed.item_id IS NULL
           )
           SELECT pg_current_snapshot()::text AS "watermark!", user_id AS "user_id?", item_id AS "item_id?",
                  value AS "value?", orders AS "orders?", last_order_at AS "last_order_at?",
                  marketing AS "marketing?", profiling AS "profiling?", training AS "training?",
                  is_suppressed AS "is_suppressed?", title AS "title?", merchant_id AS "merchant_id?",
                  category AS "category?", price_minor AS "price_minor?", currency_code AS "currency_code?",
                  listed AS "listed?"
           FROM (VALUES (1)) AS always LEFT JOIN states ON true"#,
        watermark.0,
    )
    .fetch(&mut *tx);

    let mut reached = None;
    while let Some(mut row) = within(patience, rows.try_next().err_into()).await? {
        reached = Some(std::mem::take(&mut row.watermark));
        if let Some(change) = row.change()? {
            apply(change);
        }
    }
    reached
        .map(Watermark)
        .ok_or_else(|| StoreError::corrupt("changes", "no watermark was returned"))
}

/// Deletes the changes that every stored snapshot has seen. Returns how many.
///
/// In a database that was restored from another cluster nothing is deleted as long as there is a snapshot from there;
/// afterwards, what came from there goes too, whose transactions have numbers from the future.
pub async fn prune(pool: &Pool) -> Result<u64, StoreError> {
    let pruned = sqlx::query!(
        "WITH seen AS (
             SELECT pg_snapshot_xmin(input_watermark::pg_snapshot) AS xmin,
                    pg_snapshot_xmax(input_watermark::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) AS foreign_
             FROM snapshots WHERE state <> 'failed'
         )
         DELETE FROM changes
         WHERE NOT EXISTS (SELECT FROM seen WHERE foreign_) AND EXISTS (SELECT FROM seen)
           AND (xid < (SELECT xmin FROM seen ORDER BY xmin LIMIT 1) OR xid >= pg_snapshot_xmax(pg_current_snapshot()))"
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(pruned.rows_affected())
}

struct Row {
    watermark: String,
    user_id: Option<String>,
    item_id: Option<String>,
    value: Option<f32>,
    orders: Option<i64>,
    last_order_at: Option<Timestamp>,
    marketing: Option<bool>,
    profiling: Option<bool>,
    training: Option<bool>,
    is_suppressed: Option<bool>,
    title: Option<String>,
    merchant_id: Option<String>,
    category: Option<String>,
    price_minor: Option<i64>,
    currency_code: Option<String>,
    listed: Option<bool>,
}

impl Row {
    fn change(self) -> Result<Option<FreshChange>, StoreError> {
        let corrupt_user = |error| StoreError::corrupt("users", error);
        let user = self.user_id.map(UserId::new).transpose().map_err(corrupt_user)?;
        let item = self.item_id.map(ItemId::new).transpose();
        let item = item.map_err(|error| StoreError::corrupt("items", error))?;
        Ok(Some(match (user, item) {
            (None, None) => return Ok(None),
            (Some(user), None) => FreshChange::Consents {
                user,
                consents: Consents::default()
                    .with(Purpose::Marketing, self.marketing)
                    .with(Purpose::Profiling, self.profiling)
                    .with(Purpose::Training, self.training)
                    .suppressed(self.is_suppressed == Some(true)),
            },
            (Some(user), Some(item)) => FreshChange::Interaction {
                user,
                item,
                rating: self.value,
                orders: u32::try_from(self.orders.unwrap_or(0)).unwrap_or(u32::MAX),
                last_order_at: self.last_order_at.map_or(0, |at| at.timestamp()),
            },
            (None, Some(item)) => FreshChange::Item {
                item,
                facts: facts(
                    self.title,
                    self.merchant_id,
                    self.category,
                    self.price_minor,
                    self.currency_code,
                    self.listed.unwrap_or(true),
                )?,
            },
        }))
    }
}
