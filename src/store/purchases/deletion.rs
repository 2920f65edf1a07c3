//! Deletes order lines.

use std::collections::BTreeSet;

use domain::id::{ItemId, OrderId, UserId};

use super::locks;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// Selects lines of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSelection {
    pub order: OrderId,
    /// Empty for all lines.
    pub line_numbers: BTreeSet<i32>,
    /// Selects only lines of this user.
    pub user: Option<UserId>,
    /// Selects only lines of this item.
    pub item: Option<ItemId>,
}

/// The lines that were deleted for one selection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeletedLines {
    pub count: usize,
    /// The line numbers of the selection under which there was no line left to delete.
    pub not_found: BTreeSet<i32>,
}

/// Deletes the selected lines in one transaction. A line counts for the first selection that selects it.
///
/// # Errors
/// After an error nothing is deleted.
pub async fn delete(pool: &Pool, selections: &[LineSelection]) -> Result<Vec<DeletedLines>, StoreError> {
    pool.write(|mut tx| async move {
        let deleted = delete_in(&mut tx, selections).await?;
        tx.commit().await?;
        Ok(deleted)
    })
    .await
}

async fn delete_in(connection: &mut Connection, selections: &[LineSelection]) -> Result<Vec<DeletedLines>, StoreError> {
    let orders: BTreeSet<&str> = selections.iter().map(|selection| selection.order.as_str()).collect();
    let orders: Vec<String> = orders.into_iter().map(str::to_owned).collect();
    locks::lock_known(connection, &orders).await?;

    let mut deleted: Vec<DeletedLines> = Vec::with_capacity(selections.len());
    let (mut positions, mut line_numbers) = (Vec::new(), Vec::new());
    for (selection, position) in selections.iter().zip(0_i32..) {
        if selection.line_numbers.is_empty() {
            positions.push(position);
            line_numbers.push(None);
        }
        for &line_number in &selection.line_numbers {
            positions.push(position);
            line_numbers.push(Some(line_number));
        }
        deleted.push(DeletedLines {
            count: 0,
            not_found: selection.line_numbers.clone(),
        });
    }
    let at = |&position: &i32| &selections[position as usize];
    let of_orders: Vec<String> = positions
        .iter()
        .map(|position| at(position).order.to_string())
        .collect();
    let users = positions
        .iter()
        .map(|position| at(position).user.as_ref().map(ToString::to_string));
    let items = positions
        .iter()
        .map(|position| at(position).item.as_ref().map(ToString::to_string));
    let rows = sqlx::query!(
        r#"WITH wanted AS (
               SELECT * FROM UNNEST($1::integer[], $2::text[], $3::integer[], $4::text[], $5::text[])
                   AS wanted (position, order_id, line_number, user_id, item_id)
           ), found AS (
               SELECT DISTINCT ON (purchases.order_id, purchases.user_id, purchases.item_id, purchases.line_number)
                      position, purchases.order_id, purchases.user_id, purchases.item_id, purchases.line_number
               FROM wanted JOIN purchases ON purchases.order_id = wanted.order_id
                   AND (wanted.line_number IS NULL OR purchases.line_number = wanted.line_number)
               JOIN users ON users.id = purchases.user_id
                   AND (wanted.user_id IS NULL OR users.external_id = wanted.user_id)
               JOIN items ON items.id = purchases.item_id
                   AND (wanted.item_id IS NULL OR items.external_id = wanted.item_id)
               ORDER BY purchases.order_id, purchases.user_id, purchases.item_id, purchases.line_number, position
           ), deleted AS (
               DELETE FROM purchases USING found
               WHERE purchases.order_id = found.order_id AND purchases.user_id = found.user_id
                 AND purchases.item_id = found.item_id AND purchases.line_number = found.line_number
               RETURNING position, purchases.user_id, purchases.item_id, purchases.line_number
           ), logged AS (
               INSERT INTO changes (user_ids, item_ids, takes_back)
               SELECT array_agg(user_id), array_agg(item_id), true
               FROM (SELECT DISTINCT user_id, item_id FROM deleted) AS pairs HAVING count(*) > 0
           )
           SELECT position AS "position!", line_number AS "line_number!" FROM deleted"#,
        &positions,
        &of_orders,
        &line_numbers as &[Option<i32>],
        &users.collect::<Vec<_>>() as &[Option<String>],
        &items.collect::<Vec<_>>() as &[Option<String>],
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let deleted = &mut deleted[row.position as usize];
        deleted.count += 1;
        deleted.not_found.remove(&row.line_number);
    }
    Ok(deleted)
}
