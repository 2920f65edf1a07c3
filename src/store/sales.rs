//! Reads what was sold lately, for forecasts that are fresher than the snapshot.

use std::hash::{DefaultHasher, Hash, Hasher};

use demand::returns::RecordedLine;
use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// An order line with the external id of its item; the index of the item means nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct FreshLine {
    pub item: String,
    pub recorded: RecordedLine,
}

/// Returns the order lines of `items` since `from`, of users who allow training.
///
/// `by_default`: whether users who have said nothing about training allow it.
pub async fn lines_since(
    pool: &Pool,
    items: &[String],
    from: Timestamp,
    by_default: bool,
) -> Result<Vec<FreshLine>, StoreError> {
    let rows = sqlx::query!(
        "SELECT items.external_id, order_id, purchases.user_id, quantity, purchased_at
         FROM items JOIN purchases ON purchases.item_id = items.id
         LEFT JOIN consents ON consents.user_id = purchases.user_id AND purpose = 'training'
         WHERE items.external_id = ANY($1) AND purchased_at >= $2 AND COALESCE(is_granted, $3)",
        items,
        from,
        by_default
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    let line = rows.into_iter().map(|row| FreshLine {
        item: row.external_id,
        recorded: RecordedLine {
            user: row.user_id,
            item: 0,
            order: number_of(&row.order_id),
            at: row.purchased_at.timestamp(),
            quantity: row.quantity,
        },
    });
    Ok(line.collect())
}

/// Returns a number that tells orders apart.
pub(in crate::store) fn number_of(order: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    order.hash(&mut hasher);
    hasher.finish()
}
