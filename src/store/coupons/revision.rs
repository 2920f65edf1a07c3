//! The revision of all definitions of campaigns and coupons: a number that every change raises.

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// Reads the present revision.
pub async fn read(pool: &Pool) -> Result<i64, StoreError> {
    let revision = sqlx::query_scalar!("SELECT revision FROM coupon_book")
        .fetch_one(&mut *pool.acquire().await?)
        .await?;
    Ok(revision)
}

/// Raises the revision, because a definition has changed. This must be the last statement of its transaction: from here
/// on other transactions wait.
pub(super) async fn raise(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("UPDATE coupon_book SET revision = revision + 1")
        .execute(connection)
        .await?;
    Ok(())
}
