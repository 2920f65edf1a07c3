//! What PostgreSQL and we know of how much there is.

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// Has PostgreSQL look at how large the tables are. It keeps plans as long as it does not: one that was made when a table
/// was all but empty checks every foreign key by reading the whole of it, until somebody looks.
pub async fn analyze(pool: &Pool) -> Result<(), StoreError> {
    sqlx::query!(
        "ANALYZE users, merchants, items, ratings, purchases, coupons, coupon_items, assignments, user_attributes"
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(())
}

/// Whether there is neither a user nor an item.
pub async fn is_empty(pool: &Pool) -> Result<bool, StoreError> {
    let is_empty = sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (SELECT FROM users) AND NOT EXISTS (SELECT FROM items) AS "is_empty!""#
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?;
    Ok(is_empty)
}
