//! Reads everything that was written since a moment, without gaps: the feed of fresh data.
//!
//! A moment is the set of transactions that PostgreSQL sees as committed. A row is therefore never missed because a
//! transaction that began earlier committed later, never held up by a long transaction, and never read twice. Only this
//! file needs `xid8`, `pg_snapshot` and exported snapshots. On an engine without them, a `changes.committed_at` from a
//! hybrid logical clock (CockroachDB's `crdb_internal_mvcc_timestamp`, YugabyteDB's commit time) would take the place of
//! the first two, and `AS OF SYSTEM TIME` that of an exported snapshot; a single reader needs no exported snapshot.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::{TryFutureExt, TryStreamExt};

use domain::consent::{Consents, Purpose};
use domain::error::InvalidField;
use domain::id::{ItemId, MerchantId, UserId};
use domain::returns::{ItemHistory, ItemLine};
use domain::time::Timestamp;
use recommender::snapshot::overlay::{FreshChange, LastOrders};

use crate::store::catalog::facts;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, Tx, within, without_timeouts};

/// A moment: the set of visible transactions, in the format of `pg_snapshot` (`xmin:xmax:in-progress`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark(pub(in crate::store) String);

impl Watermark {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Begins two read-only transactions that see the same moment, and returns the moment too.
///
/// # Errors
/// [`StoreError`] also when the pool has no two connections to give.
pub(in crate::store) async fn two_readers(pool: &Pool) -> Result<(Tx, Tx, Watermark), StoreError> {
    let mut first = pool.begin_snapshot().await?;
    let exported =
        sqlx::query!(r#"SELECT pg_export_snapshot() AS "snapshot!", pg_current_snapshot()::text AS "watermark!""#)
            .fetch_one(&mut *first)
            .await?;
    let mut second = pool.begin_snapshot().await?;
    // SET takes no parameters. The name comes from PostgreSQL and has only hexadecimal digits and dashes.
    let import = sqlx::AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{}'", exported.snapshot));
    sqlx::query(import).execute(&mut *second).await?;
    Ok((first, second, Watermark(exported.watermark)))
}

/// The changes that a reader has applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The moment up to which they are complete.
    pub watermark: Watermark,
    /// The number of the last erasure among them.
    pub erased_through: i64,
}

/// The changes that a reader has applied now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub known: Known,
    /// Whether the ids of some erased users are forgotten already, because no stored snapshot holds them any more. A reader whose
    /// snapshot was loaded before has to load it again.
    pub is_too_late: bool,
}

/// Hands the erasures after number `after` to `apply`. Returns the number of the last one, and whether ids are missing.
async fn erasures(
    connection: &mut Connection,
    after: i64,
    row_limit: Duration,
    apply: &mut impl FnMut(FreshChange),
) -> Result<(i64, bool), StoreError> {
    let mut rows = sqlx::query!("SELECT id, user_id FROM erasures WHERE id > $1 ORDER BY id", after).fetch(connection);
    let (mut through, mut is_too_late) = (after, false);
    while let Some(row) = within(row_limit, rows.try_next().err_into()).await? {
        through = row.id;
        match row.user_id {
            Some(user) => apply(FreshChange::Erased {
                user: UserId::stored(user).map_err(|error| StoreError::corrupt("erasures", error))?,
            }),
            None => is_too_late = true,
        }
    }
    Ok((through, is_too_late))
}

/// The longest wait for the answer to a statement that reads nothing, by which a connection that was lost unnoticed is found
/// out.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Hands the present state of everything that was committed since `known` to `apply`, and returns up to where this is
/// complete. Memory does not grow with the number of changes. The call may take long when there are many, but
/// gives up when no row arrives for `row_limit`.
///
/// A watermark from the future comes from another cluster, from which the database was restored: then the whole feed is
/// handed over.
///
/// # Errors
/// [`StoreError::Unavailable`] also after `row_limit`. `apply` may have been called for a part of the changes; calling it
/// again for all of them does no harm.
pub async fn since(
    pool: &Pool,
    known: &Known,
    row_limit: Duration,
    mut apply: impl FnMut(FreshChange),
) -> Result<Reached, StoreError> {
    let mut tx = within(ANSWER_LIMIT, pool.begin_snapshot()).await?;
    within(ANSWER_LIMIT, without_timeouts(&mut tx)).await?;
    // They come first: what is written under the id of an erased user after the erasure is that of somebody else.
    let (erased_through, is_too_late) = erasures(&mut tx, known.erased_through, ANSWER_LIMIT, &mut apply).await?;
    let watermark = &known.watermark;
    // The transaction sees one moment, so that changes, states and the new watermark fit together. The outer join returns a row
    // even when nothing has changed.
    let mut rows = sqlx::query_as!(
        Row,
        r#"WITH changed AS (
               SELECT changed.user_id, changed.item_id, bool_or(takes_back) AS takes_back
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
               GROUP BY changed.user_id, changed.item_id
           ), states AS (
               SELECT users.id AS user_key, takes_back, users.external_id AS user_id, items.external_id AS item_id,
                      ratings.value, lines.order_ids, lines.purchased_at, lines.quantities, said.marketing, said.profiling, said.training,
                      said.is_suppressed, items.title, merchants.external_id AS merchant_id, items.category, items.price_minor,
                      items.currency_code, items.listed
               FROM changed
               LEFT JOIN items ON items.id = changed.item_id
               LEFT JOIN merchants ON merchants.id = items.merchant_id
               LEFT JOIN users ON users.id = changed.user_id AND NOT is_pseudonym
               LEFT JOIN ratings ON ratings.user_id = changed.user_id AND ratings.item_id = changed.item_id
               LEFT JOIN LATERAL (
                   SELECT array_agg(order_id) AS order_ids, array_agg(purchases.purchased_at) AS purchased_at,
                          array_agg(quantity) AS quantities
                   FROM purchases
                   WHERE purchases.user_id = changed.user_id AND purchases.item_id = changed.item_id
               ) AS lines ON changed.user_id IS NOT NULL AND changed.item_id IS NOT NULL
               -- A row without an item.
               LEFT JOIN LATERAL (
                   SELECT bool_or(is_granted) FILTER (WHERE purpose = 'marketing') AS marketing,
                          bool_or(is_granted) FILTER (WHERE purpose = 'profiling') AS profiling,
                          bool_or(is_granted) FILTER (WHERE purpose = 'training') AS training,
                          EXISTS (SELECT FROM suppressions WHERE suppressions.user_id = changed.user_id)
                              AS is_suppressed
                   FROM consents WHERE consents.user_id = changed.user_id
               ) AS said ON changed.item_id IS NULL
               WHERE (items.id IS NOT NULL OR changed.item_id IS NULL)
                 -- Changes of erased users are left out.
                 AND (users.id IS NOT NULL OR changed.user_id IS NULL)
           )
           SELECT pg_current_snapshot()::text AS "watermark!", user_id AS "user_id?", item_id AS "item_id?",
                  user_key AS "user_key?", takes_back AS "takes_back?", value AS "value?", order_ids AS "order_ids?",
                  purchased_at AS "purchased_at?: Vec<Timestamp>", quantities AS "quantities?",
                  marketing AS "marketing?", profiling AS "profiling?", training AS "training?",
                  is_suppressed AS "is_suppressed?", title AS "title?", merchant_id AS "merchant_id?",
                  category AS "category?", price_minor AS "price_minor?", currency_code AS "currency_code?",
                  listed AS "listed?"
           FROM (VALUES (1)) AS always LEFT JOIN states ON true"#,
        watermark.0,
    )
    .fetch(&mut *tx);

    let mut reached = None;
    let mut taken_back = HashSet::new();
    while let Some(mut row) = within(row_limit, rows.try_next().err_into()).await? {
        reached = Some(std::mem::take(&mut row.watermark));
        if row.takes_back == Some(true) {
            taken_back.extend(row.user_key);
        }
        if let Some(change) = row.change()? {
            apply(change);
        }
    }
    drop(rows);
    if !taken_back.is_empty() {
        last_orders(&mut tx, taken_back, row_limit, apply).await?;
    }
    let watermark = reached.map(Watermark);
    let watermark = watermark.ok_or_else(|| StoreError::corrupt("changes", "the feed has returned no watermark"))?;
    Ok(Reached {
        known: Known {
            watermark,
            erased_through,
        },
        is_too_late,
    })
}

/// Returns the moment that `connection`'s transaction sees.
pub(in crate::store) async fn current(connection: &mut Connection) -> Result<Watermark, StoreError> {
    let watermark = sqlx::query_scalar!(r#"SELECT pg_current_snapshot()::text AS "watermark!""#)
        .fetch_one(connection)
        .await?;
    Ok(Watermark(watermark))
}

/// Returns the external ids of the items that were changed, or whose ratings, purchases or stock were, since `watermark`, and the moment up to which
/// this is complete.
pub async fn items_since(pool: &Pool, watermark: &Watermark) -> Result<(Vec<String>, Watermark), StoreError> {
    let mut tx = pool.begin_snapshot().await?;
    let reached = current(&mut tx).await?;
    let items = sqlx::query_scalar!(
        "WITH changed AS (
             SELECT DISTINCT changed.item_id
             FROM changes CROSS JOIN LATERAL (
                 SELECT changes.user_id, changes.item_id WHERE changes.user_ids IS NULL
                 UNION ALL SELECT * FROM UNNEST(changes.user_ids, changes.item_ids)
             ) AS changed
             WHERE xid >= CASE
                       WHEN pg_snapshot_xmax($1::text::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) THEN '0'
                       ELSE pg_snapshot_xmin($1::text::pg_snapshot)
                   END
               AND (NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
                    OR pg_snapshot_xmax($1::text::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()))
               AND changed.item_id IS NOT NULL
         )
         SELECT external_id FROM items WHERE id IN (SELECT item_id FROM changed)",
        watermark.0
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok((items, reached))
}

/// Hands the times of the last orders of each of `users` to `apply`.
async fn last_orders(
    connection: &mut Connection,
    users: HashSet<i64>,
    row_limit: Duration,
    mut apply: impl FnMut(FreshChange),
) -> Result<(), StoreError> {
    let users: Vec<i64> = users.into_iter().collect();
    let mut rows = sqlx::query_as!(
        UserLine,
        r#"SELECT users.external_id AS "user_id!", item_id AS "item_id?", merchants.external_id AS "merchant_id?",
                  order_id AS "order_id?", purchased_at AS "purchased_at?", quantity AS "quantity?"
           FROM users
           LEFT JOIN purchases ON user_id = users.id
           LEFT JOIN items ON items.id = item_id
           LEFT JOIN merchants ON merchants.id = merchant_id
           WHERE users.id = ANY($1) AND NOT is_pseudonym ORDER BY users.id, item_id"#,
        &users
    )
    .fetch(connection);
    let mut lines: Vec<UserLine> = Vec::new();
    loop {
        let row = within(row_limit, rows.try_next().err_into()).await?;
        if let Some(first) = lines.first()
            && row.as_ref().is_none_or(|row| row.user_id != first.user_id)
        {
            let user = UserId::stored(&first.user_id).map_err(|error| StoreError::corrupt("users", error))?;
            let last_orders = last_orders_of(&lines)?;
            apply(FreshChange::LastOrders { user, last_orders });
            lines.clear();
        }
        match row {
            Some(row) => lines.push(row),
            None => return Ok(()),
        }
    }
}

/// An order line of a user, or the user alone if they have none.
struct UserLine {
    user_id: String,
    item_id: Option<i64>,
    merchant_id: Option<String>,
    order_id: Option<String>,
    purchased_at: Option<Timestamp>,
    quantity: Option<i32>,
}

/// Returns the times of the last orders of a user of which something is left.
///
/// `lines`: all rows of the user, ascending by item.
fn last_orders_of(lines: &[UserLine]) -> Result<LastOrders, StoreError> {
    let items = lines.chunk_by(|a, b| a.item_id == b.item_id).filter_map(|lines| {
        let merchant = lines.first()?.merchant_id.as_deref();
        let lines = lines.iter().filter_map(|line| {
            Some(ItemLine {
                order: line.order_id.as_deref()?,
                at: line.purchased_at?,
                quantity: line.quantity?.into(),
                total_minor: 0,
            })
        });
        Some((merchant, order_times(&ItemHistory::new(lines)).pop()?))
    });
    let (mut last, mut by_merchant) = (None, BTreeMap::new());
    for (merchant, at) in items {
        last = last.max(Some(at));
        if let Some(merchant) = merchant {
            let of_merchant = by_merchant.entry(merchant).or_insert(at);
            *of_merchant = at.max(*of_merchant);
        }
    }
    let of_merchant = |(merchant, at)| Ok((MerchantId::stored(merchant)?, at));
    let by_merchant = by_merchant.into_iter().map(of_merchant).collect::<Result<_, _>>();
    Ok(LastOrders {
        at: last,
        by_merchant: by_merchant.map_err(|error: InvalidField| StoreError::corrupt("merchants", error))?,
    })
}

/// Returns the times of the orders of which something is left, in seconds since 1970, ascending.
fn order_times(history: &ItemHistory<'_>) -> Vec<i64> {
    history.standing().map(|order| order.at.timestamp()).collect()
}

/// Deletes the changes that every stored snapshot has seen. Returns their number.
///
/// In a database that was restored from another cluster, nothing is deleted as long as a snapshot from that cluster is
/// stored. Afterwards the changes from there are deleted too; their transactions have numbers from the future.
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
    user_key: Option<i64>,
    /// Whether a purchase was deleted, returned or replaced.
    takes_back: Option<bool>,
    user_id: Option<String>,
    item_id: Option<String>,
    value: Option<f32>,
    /// The order lines of the pair, of which each has an entry in all three columns.
    order_ids: Option<Vec<String>>,
    purchased_at: Option<Vec<Timestamp>>,
    quantities: Option<Vec<i32>>,
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
    fn purchases(&self) -> ItemHistory<'_> {
        let orders = self.order_ids.iter().flatten();
        let lines = orders
            .zip(self.purchased_at.iter().flatten())
            .zip(self.quantities.iter().flatten());
        ItemHistory::new(lines.map(|((order, &at), &quantity)| ItemLine {
            order,
            at,
            quantity: quantity.into(),
            total_minor: 0,
        }))
    }

    /// Converts the row; `None` when nothing has changed.
    fn change(self) -> Result<Option<FreshChange>, StoreError> {
        let orders = order_times(&self.purchases());
        let corrupt_user = |error| StoreError::corrupt("users", error);
        let user = self.user_id.map(UserId::stored).transpose().map_err(corrupt_user)?;
        let item = self.item_id.map(ItemId::stored).transpose();
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
                orders: orders.len().try_into().unwrap_or(u32::MAX),
                last_order_at: orders.iter().copied().max().unwrap_or(0),
                ordered_at: orders,
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
