//! Keeps PostgreSQL informed about the sizes of tables, and checks whether there is any data.

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// Runs ANALYZE so that cached plans use current table sizes. A plan from when a table was almost empty checks every
/// foreign key by reading the whole table, and PostgreSQL keeps that plan until the next ANALYZE.
pub async fn analyze(pool: &Pool) -> Result<(), StoreError> {
    sqlx::query!(
        "ANALYZE users, merchants, items, ratings, orders, purchases, campaigns, campaign_states, coupons, coupon_items,
                 coupon_counters, user_coupon_counters, redemptions, assignments, user_attributes"
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(())
}

/// Returns whether there is neither a user nor an item.
pub async fn is_empty(pool: &Pool) -> Result<bool, StoreError> {
    let is_empty = sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (SELECT FROM users) AND NOT EXISTS (SELECT FROM items) AS "is_empty!""#
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?;
    Ok(is_empty)
}
