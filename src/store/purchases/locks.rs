//! The lock of every order. Writers of lines take it after users and items, in ascending order of order ids.

use std::collections::{HashMap, HashSet};

use domain::order::OrderVersion;
use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

/// Locks orders against [`lock_whole`], and lets others record lines of them. Returns those that were recorded as a whole.
///
/// `orders`: strictly ascending.
pub(super) async fn lock_for_lines(
    connection: &mut Connection,
    orders: &[String],
) -> Result<HashSet<String>, StoreError> {
    // The orders that this creates are locked by that.
    let created: HashSet<String> = create(connection, orders).await?.into_iter().collect();
    let known: Vec<String> = orders.iter().filter(|id| !created.contains(*id)).cloned().collect();
    if known.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = sqlx::query!(
        r#"SELECT order_id, updated_at IS NOT NULL AS "is_whole!" FROM orders
           WHERE order_id = ANY($1) ORDER BY order_id FOR KEY SHARE"#,
        &known
    )
    .fetch_all(connection)
    .await?;
    let whole = rows.into_iter().filter(|row| row.is_whole);
    Ok(whole.map(|row| row.order_id).collect())
}

/// Locks orders against everybody who writes lines of them. Returns the versions of those that were recorded as a whole.
///
/// `orders`: strictly ascending.
pub(super) async fn lock_whole(
    connection: &mut Connection,
    orders: &[String],
) -> Result<HashMap<String, OrderVersion>, StoreError> {
    create(connection, orders).await?;
    lock_known(connection, orders).await
}

/// Does the same as [`lock_whole`], but passes over orders that are not there.
pub(super) async fn lock_known(
    connection: &mut Connection,
    orders: &[String],
) -> Result<HashMap<String, OrderVersion>, StoreError> {
    let rows = sqlx::query!(
        "SELECT order_id, updated_at, content_hash FROM orders WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE",
        orders
    )
    .fetch_all(connection)
    .await?;
    let mut versions = HashMap::new();
    for row in rows {
        if let Some(version) = version(row.updated_at, row.content_hash)? {
            versions.insert(row.order_id, version);
        }
    }
    Ok(versions)
}

fn version(updated_at: Option<Timestamp>, content_hash: Option<Vec<u8>>) -> Result<Option<OrderVersion>, StoreError> {
    let Some((updated_at, content_hash)) = updated_at.zip(content_hash) else {
        return Ok(None);
    };
    let hash = content_hash
        .try_into()
        .map_err(|_| StoreError::corrupt("orders", "content_hash does not have 32 bytes"))?;
    Ok(Some(OrderVersion::new(updated_at, hash)))
}

/// Creates the orders that are not there yet. Returns them. Waits for others who are creating one of them.
async fn create(connection: &mut Connection, orders: &[String]) -> Result<Vec<String>, StoreError> {
    let created = sqlx::query_scalar!(
        "INSERT INTO orders (order_id) SELECT * FROM UNNEST($1::text[])
         ON CONFLICT (order_id) DO NOTHING RETURNING order_id",
        orders
    );
    Ok(created.fetch_all(connection).await?)
}
