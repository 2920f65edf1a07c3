//! Stores, deletes and lists order lines.

pub mod deletion;
mod locks;
pub mod orders;

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::error::InvalidField;
use domain::id::{ItemId, OrderId, UserId};
use domain::money::{Currency, Money};
use domain::purchase::PurchaseLine;
use domain::time::{EventTime, Timestamp};

use crate::store::catalog::ids::{self, Told};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::privacy::dropped::{AboutUser, Kept};

/// The primary key of a line: order, user, item and line number.
type Key<'a> = (&'a str, i64, i64, i32);

/// Stores `lines` in one transaction, and replaces those that are stored already. Returns the outcome of each. Lines of an
/// order that was recorded as a whole are refused.
///
/// # Errors
/// After an error nothing is stored.
pub async fn record(pool: &Pool, lines: &[PurchaseLine]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let users = ids::ensure_users(&mut tx, pool.erasure_key(), lines.iter().map(|line| line.told(pool))).await?;
        let kept = users.kept(pool, lines);
        let lines = &kept.entries[..];
        let items = ids::ensure_items(&mut tx, lines.iter().map(|line| line.item.as_str())).await?;
        let pairs = lines
            .iter()
            .map(|line| (users.key(line.user.as_str()), items.key(line.item.as_str())));
        let outcomes = record_in(&mut tx, lines, last(lines, pairs)).await?;
        tx.commit().await?;
        Ok(kept.outcomes(outcomes, LoadOutcome::Dropped))
    })
    .await
}

impl AboutUser for PurchaseLine {
    fn told<'a>(&'a self, pool: &Pool) -> Told<'a> {
        (&self.user, pool.time_of(self.purchased_at))
    }
}

/// Does the same as [`record`] for a batch of an import, whose keys `known` may have.
pub async fn load(pool: &Pool, known: &KeyCache, lines: &[PurchaseLine]) -> Result<Vec<LoadOutcome>, StoreError> {
    known
        .retrying(|| async move {
            let (mut users, dropped) = known.users(pool, lines.iter().map(|line| line.told(pool))).await?;
            let kept = &Kept::new(lines, dropped);
            kept.retain(&mut users);
            let lines = &kept.entries[..];
            let items = known.items(pool, lines.iter().map(|line| line.item.as_str())).await?;
            let last = &last(lines, users.into_iter().zip(items));
            pool.write(|mut tx| async move {
                let outcomes = record_in(&mut tx, lines, last.clone()).await?;
                tx.commit().await?;
                Ok(kept.outcomes(outcomes, LoadOutcome::Dropped))
            })
            .await
        })
        .await
}

/// `last`: the position of the last line of every key.
async fn record_in(
    connection: &mut Connection,
    lines: &[PurchaseLine],
    mut last: BTreeMap<Key<'_>, usize>,
) -> Result<Vec<LoadOutcome>, StoreError> {
    let mut orders: Vec<String> = last.keys().map(|key| key.0.to_owned()).collect();
    orders.dedup();
    let whole = locks::lock_for_lines(connection, &orders).await?;
    last.retain(|key, _| !whole.contains(key.0));
    let stored = add_lines(connection, lines, &last).await?;
    let outcome = |line: &PurchaseLine| match whole.contains(line.order.as_str()) {
        true => LoadOutcome::Refused(recorded_whole(&line.order)),
        false => LoadOutcome::Merged,
    };
    let mut outcomes: Vec<LoadOutcome> = lines.iter().map(outcome).collect();
    for (&(order, user_id, item_id, line_number), &position) in &last {
        if stored.contains(&(order.to_owned(), user_id, item_id, line_number)) {
            outcomes[position] = LoadOutcome::Stored;
        }
    }
    Ok(outcomes)
}

fn recorded_whole(order: &OrderId) -> InvalidField {
    let message = format!(
        "must not name an order that was recorded as a whole, as {order} was; send its next version with RecordOrders"
    );
    InvalidField::new(OrderId::FIELD, "ORDER_RECORDED_WHOLE", message)
}

/// Returns the position of the last line of every key.
///
/// `pairs`: the keys of the user and the item of each line.
fn last(lines: &[PurchaseLine], pairs: impl Iterator<Item = (i64, i64)>) -> BTreeMap<Key<'_>, usize> {
    let keys = lines
        .iter()
        .zip(pairs)
        .map(|(line, (user_id, item_id))| (line.order.as_str(), user_id, item_id, line.line_number));
    keys.zip(0..).collect()
}

struct Stored {
    order_id: String,
    user_id: i64,
    item_id: i64,
    line_number: i32,
}

/// Stores the lines at the positions in `last`. Returns the keys of those that are new or have changed.
async fn add_lines(
    connection: &mut Connection,
    lines: &[PurchaseLine],
    last: &BTreeMap<Key<'_>, usize>,
) -> Result<HashSet<(String, i64, i64, i32)>, StoreError> {
    if last.is_empty() {
        return Ok(HashSet::new());
    }
    let column = |of: fn(&PurchaseLine) -> i64| last.values().map(|&position| of(&lines[position])).collect();
    let order_ids: Vec<String> = last.keys().map(|key| key.0.to_owned()).collect();
    let user_ids: Vec<i64> = last.keys().map(|key| key.1).collect();
    let item_ids: Vec<i64> = last.keys().map(|key| key.2).collect();
    let line_numbers: Vec<i32> = last.keys().map(|key| key.3).collect();
    let quantities: Vec<i32> = last.values().map(|&position| lines[position].quantity).collect();
    let totals: Vec<i64> = column(|line| line.line_total.amount_minor);
    let discounts: Vec<i64> = column(|line| line.coupon_discount_minor);
    let currencies: Vec<String> = last
        .values()
        .map(|&position| lines[position].line_total.currency.to_string())
        .collect();
    let repeated = times_of_repeated(connection, lines, last).await?;
    let purchased_at: Vec<Timestamp> = last
        .iter()
        .map(|(key, &position)| repeated.get(key).copied().unwrap_or(lines[position].purchased_at.at()))
        .collect();
    let stored = sqlx::query_as!(
        Stored,
        r#"WITH stored AS (
               INSERT INTO purchases AS old
                   (order_id, user_id, item_id, line_number, quantity, line_total_minor, currency_code, purchased_at,
                    coupon_discount_minor)
               SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::integer[], $5::integer[],
                                    $6::bigint[], $7::text[], $8::timestamptz[], $9::bigint[])
               ON CONFLICT (order_id, user_id, item_id, line_number) DO UPDATE
               SET quantity = excluded.quantity, line_total_minor = excluded.line_total_minor,
                   currency_code = excluded.currency_code, purchased_at = excluded.purchased_at,
                   coupon_discount_minor = excluded.coupon_discount_minor
               WHERE (old.quantity, old.line_total_minor, old.currency_code, old.purchased_at,
                      old.coupon_discount_minor)
                   IS DISTINCT FROM
                   (excluded.quantity, excluded.line_total_minor, excluded.currency_code, excluded.purchased_at,
                    excluded.coupon_discount_minor)
               -- A row that was there has been locked by this transaction, and a new one has not.
               RETURNING order_id, user_id, item_id, line_number, quantity < 0 OR xmax::text <> '0' AS takes_back
           ), logged AS (
               INSERT INTO changes (user_ids, item_ids, takes_back)
               SELECT array_agg(user_id), array_agg(item_id), takes_back
               FROM (SELECT user_id, item_id, bool_or(takes_back) AS takes_back FROM stored GROUP BY user_id, item_id)
                        AS pairs
               GROUP BY takes_back
           )
           SELECT order_id AS "order_id!", user_id AS "user_id!", item_id AS "item_id!", line_number AS "line_number!"
           FROM stored"#,
        &order_ids,
        &user_ids,
        &item_ids,
        &line_numbers,
        &quantities,
        &totals,
        &currencies,
        &purchased_at,
        &discounts,
    )
    .fetch_all(&mut *connection)
    .await?;
    let key = |row: Stored| (row.order_id, row.user_id, row.item_id, row.line_number);
    Ok(stored.into_iter().map(key).collect())
}

/// Returns the stored times of the lines that come without one: a line that is sent again keeps the time at which it was
/// first received.
async fn times_of_repeated<'a>(
    connection: &mut Connection,
    lines: &[PurchaseLine],
    last: &BTreeMap<Key<'a>, usize>,
) -> Result<HashMap<Key<'a>, Timestamp>, StoreError> {
    let untimed: Vec<Key<'a>> = last
        .iter()
        .filter(|&(_, &position)| matches!(lines[position].purchased_at, EventTime::Received(_)))
        .map(|(key, _)| *key)
        .collect();
    if untimed.is_empty() {
        return Ok(HashMap::new());
    }
    let stored = sqlx::query!(
        r#"SELECT wanted.position AS "position!", purchased_at
           FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::integer[]) WITH ORDINALITY
                    AS wanted (order_id, user_id, item_id, line_number, position)
           JOIN purchases USING (order_id, user_id, item_id, line_number)"#,
        &untimed.iter().map(|key| key.0.to_owned()).collect::<Vec<_>>(),
        &untimed.iter().map(|key| key.1).collect::<Vec<_>>(),
        &untimed.iter().map(|key| key.2).collect::<Vec<_>>(),
        &untimed.iter().map(|key| key.3).collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    Ok(stored
        .into_iter()
        .map(|row| (untimed[row.position as usize - 1], row.purchased_at))
        .collect())
}

/// The user or the order whose lines to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurchaseOwner {
    User(UserId),
    Order(OrderId),
}

/// The key after which a page of lines begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PurchaseCursor {
    pub order_id: String,
    pub user_id: String,
    pub item_id: String,
    pub line_number: i32,
}

/// Returns up to `limit` lines after `cursor`, ascending by order, user, item and line number.
pub async fn list(
    pool: &Pool,
    owner: &PurchaseOwner,
    cursor: &PurchaseCursor,
    limit: i64,
) -> Result<Vec<PurchaseLine>, StoreError> {
    let rows =
        match owner {
            PurchaseOwner::User(user) => sqlx::query_as!(
                Row,
                r#"SELECT order_id, users.external_id AS user_id, items.external_id AS item_id, line_number, quantity,
                          line_total_minor, purchases.currency_code, purchased_at, coupon_discount_minor
                   FROM purchases JOIN users ON users.id = user_id JOIN items ON items.id = item_id
                   WHERE users.external_id = $1 AND NOT is_pseudonym
                     AND (order_id, users.external_id, items.external_id, line_number) > ($2, $3, $4, $5)
                   ORDER BY order_id, users.external_id, items.external_id, line_number LIMIT $6"#,
                user.as_str(),
                cursor.order_id,
                cursor.user_id,
                cursor.item_id,
                cursor.line_number,
                limit,
            )
            .fetch_all(&mut *pool.acquire().await?)
            .await?,
            PurchaseOwner::Order(order) => sqlx::query_as!(
                Row,
                r#"SELECT order_id, users.external_id AS user_id, items.external_id AS item_id, line_number, quantity,
                          line_total_minor, purchases.currency_code, purchased_at, coupon_discount_minor
                   FROM purchases JOIN users ON users.id = user_id JOIN items ON items.id = item_id
                   WHERE order_id = $1
                     AND (order_id, users.external_id, items.external_id, line_number) > ($2, $3, $4, $5)
                   ORDER BY order_id, users.external_id, items.external_id, line_number LIMIT $6"#,
                order.as_str(),
                cursor.order_id,
                cursor.user_id,
                cursor.item_id,
                cursor.line_number,
                limit,
            )
            .fetch_all(&mut *pool.acquire().await?)
            .await?,
        };
    rows.into_iter().map(PurchaseLine::try_from).collect()
}

struct Row {
    order_id: String,
    user_id: String,
    item_id: String,
    line_number: i32,
    quantity: i32,
    line_total_minor: i64,
    currency_code: String,
    purchased_at: Timestamp,
    coupon_discount_minor: i64,
}

impl TryFrom<Row> for PurchaseLine {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            order: OrderId::stored(row.order_id).map_err(|error| StoreError::corrupt("purchases", error))?,
            line_number: row.line_number,
            user: UserId::stored(row.user_id).map_err(|error| StoreError::corrupt("users", error))?,
            item: ItemId::stored(row.item_id).map_err(|error| StoreError::corrupt("items", error))?,
            quantity: row.quantity,
            line_total: Money {
                amount_minor: row.line_total_minor,
                currency: Currency::new(&row.currency_code).map_err(|error| StoreError::corrupt("purchases", error))?,
            },
            purchased_at: EventTime::Given(row.purchased_at),
            coupon_discount_minor: row.coupon_discount_minor,
        })
    }
}
