//! Stores whole orders.

use std::collections::BTreeMap;

use domain::order::{Order, OrderVersion};
use domain::time::Timestamp;

use super::{add_lines, last, locks};
use crate::store::catalog::ids;
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::privacy::dropped::{self, AboutUser};

/// The outcome of one order of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderOutcome {
    /// The version is new and is kept.
    Stored,
    /// The same version with the same content is stored already, or comes a second time in the batch.
    Identical,
    /// A greater version is stored already or comes in the same batch.
    Superseded,
    /// The user of one of its lines was erased since. Nothing changed.
    Dropped,
}

/// The outcome of one order, and which version is kept now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedOrder {
    pub outcome: OrderOutcome,
    /// `None` for an order that was dropped.
    pub kept_updated_at: Option<Timestamp>,
}

/// Stores `orders` in one transaction. The greatest version of an order replaces all of its lines, also those that were
/// recorded one by one. Returns the outcome of each.
///
/// # Errors
/// After an error nothing is stored.
pub async fn record(pool: &Pool, orders: &[Order]) -> Result<Vec<RecordedOrder>, StoreError> {
    pool.write(|mut tx| async move {
        let recorded = record_in(&mut tx, pool, orders).await?;
        tx.commit().await?;
        Ok(recorded)
    })
    .await
}

/// Does the same as [`record`] for a batch of an import, whose keys `known` may have.
pub async fn load(pool: &Pool, known: &KeyCache, orders: &[Order]) -> Result<Vec<RecordedOrder>, StoreError> {
    let lines = || orders.iter().flat_map(Order::lines);
    // They are committed at once: otherwise every other transaction that refers to one of them would wait for this one.
    known.users(pool, lines().map(|line| line.told(pool))).await?;
    known.items(pool, lines().map(|line| line.item.as_str())).await?;
    record(pool, orders).await
}

async fn record_in(
    connection: &mut Connection,
    pool: &Pool,
    orders: &[Order],
) -> Result<Vec<RecordedOrder>, StoreError> {
    let versions: Vec<OrderVersion> = orders.iter().map(Order::version).collect();
    let mut greatest = greatest(orders, &versions);
    let lines = greatest.values().flat_map(|&position| orders[position].lines());
    let users = ids::ensure_users(connection, pool.erasure_key(), lines.map(|line| line.told(pool))).await?;
    // Without the line of an erased user an order would be another one, and would replace what is kept of it.
    let before = greatest.len();
    greatest.retain(|_, &mut position| !orders[position].lines().iter().any(|line| users.drops(line.told(pool))));
    dropped::count(before - greatest.len());
    let lines = || greatest.values().flat_map(|&position| orders[position].lines());
    let items = ids::ensure_items(connection, lines().map(|line| line.item.as_str())).await?;
    let order_ids: Vec<String> = greatest.keys().map(|&id| id.to_owned()).collect();
    let stored = locks::lock_whole(connection, &order_ids).await?;

    let is_newer = |&&position: &&usize| {
        let stored = stored.get(orders[position].id().as_str());
        stored.is_none_or(|stored| *stored < versions[position])
    };
    let newer: Vec<usize> = greatest.values().filter(is_newer).copied().collect();
    let kept = newer
        .iter()
        .map(|&position| (orders[position].id().to_string(), versions[position]));
    if let Some(import_id) = pool.import_id() {
        keep_replaced(connection, import_id, kept.clone()).await?;
    }
    remove_lines(
        connection,
        newer.iter().map(|&position| orders[position].id().to_string()),
    )
    .await?;
    let lines: Vec<_> = newer
        .iter()
        .flat_map(|&position| orders[position].lines().to_vec())
        .collect();
    let pairs = lines
        .iter()
        .map(|line| (users.key(line.user.as_str()), items.key(line.item.as_str())));
    let keyed = last(&lines, pairs);
    add_lines(connection, &lines, &keyed).await?;
    set_versions(connection, kept).await?;

    let recorded = orders
        .iter()
        .zip(&versions)
        .enumerate()
        .map(|(position, (order, version))| {
            let Some(&winner) = greatest.get(order.id().as_str()) else {
                return RecordedOrder {
                    outcome: OrderOutcome::Dropped,
                    kept_updated_at: None,
                };
            };
            let before = stored.get(order.id().as_str());
            let kept = before.map_or(versions[winner], |before| *before.max(&versions[winner]));
            RecordedOrder {
                outcome: match (kept == *version, position == winner && before != Some(version)) {
                    (true, true) => OrderOutcome::Stored,
                    (true, false) => OrderOutcome::Identical,
                    (false, _) => OrderOutcome::Superseded,
                },
                kept_updated_at: Some(kept.updated_at),
            }
        });
    Ok(recorded.collect())
}

/// Returns the position of the greatest version of every order; of equal ones, of the first.
fn greatest<'a>(orders: &'a [Order], versions: &[OrderVersion]) -> BTreeMap<&'a str, usize> {
    let mut greatest: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, order) in orders.iter().enumerate() {
        let kept = greatest.entry(order.id().as_str()).or_insert(position);
        if versions[position] > versions[*kept] {
            *kept = position;
        }
    }
    greatest
}

/// Keeps copies of orders that an import is about to replace, for undoing it: of their versions, and of each of their lines under
/// the version that replaces it.
async fn keep_replaced(
    connection: &mut Connection,
    import_id: i64,
    versions: impl Iterator<Item = (String, OrderVersion)>,
) -> Result<(), StoreError> {
    let (orders, updated_at, hashes) = columns(versions);
    sqlx::query!(
        "WITH new AS (
             SELECT * FROM UNNEST($2::text[], $3::timestamptz[], $4::bytea[]) AS new (order_id, updated_at, content_hash)
         ), lines AS (
             INSERT INTO import_copies (import_id, table_name, user_id, row_before, row_after)
             SELECT $1, 'order_lines', user_id, to_jsonb(purchases), to_jsonb(new)
             FROM new JOIN purchases ON purchases.order_id = new.order_id
         )
         INSERT INTO import_copies (import_id, table_name, row_before, row_after)
         SELECT $1, 'orders', to_jsonb(orders), to_jsonb(new) FROM new JOIN orders ON orders.order_id = new.order_id",
        import_id,
        &orders,
        &updated_at,
        &hashes
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes all lines of `orders`.
async fn remove_lines(connection: &mut Connection, orders: impl Iterator<Item = String>) -> Result<(), StoreError> {
    let orders: Vec<String> = orders.collect();
    sqlx::query!(
        "WITH removed AS (DELETE FROM purchases WHERE order_id = ANY($1) RETURNING user_id, item_id)
         INSERT INTO changes (user_ids, item_ids, takes_back)
         SELECT array_agg(user_id), array_agg(item_id), true FROM (SELECT DISTINCT user_id, item_id FROM removed) AS pairs
         HAVING count(*) > 0",
        &orders
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Sets the versions of orders, which must be there.
async fn set_versions(
    connection: &mut Connection,
    versions: impl Iterator<Item = (String, OrderVersion)>,
) -> Result<(), StoreError> {
    let (orders, updated_at, hashes) = columns(versions);
    sqlx::query!(
        "UPDATE orders SET updated_at = new.updated_at, content_hash = new.content_hash
         FROM UNNEST($1::text[], $2::timestamptz[], $3::bytea[]) AS new (order_id, updated_at, content_hash)
         WHERE orders.order_id = new.order_id",
        &orders,
        &updated_at,
        &hashes
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the ids of orders, and the times and hashes of their versions.
fn columns(versions: impl Iterator<Item = (String, OrderVersion)>) -> (Vec<String>, Vec<Timestamp>, Vec<Vec<u8>>) {
    let (orders, versions): (Vec<String>, Vec<OrderVersion>) = versions.unzip();
    let updated_at = versions.iter().map(|version| version.updated_at).collect();
    let hashes = versions.iter().map(|version| version.content_hash().to_vec()).collect();
    (orders, updated_at, hashes)
}
