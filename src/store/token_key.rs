//! The key by which servers authenticate the tokens that they hand out and get back.

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// The size of the key.
pub const KEY_BYTES: usize = 32;

/// Reads the key, which all servers of a database share.
pub async fn read(pool: &Pool) -> Result<[u8; KEY_BYTES], StoreError> {
    let secret = sqlx::query_scalar!("SELECT secret FROM token_key")
        .fetch_one(&mut *pool.acquire().await?)
        .await?;
    let size = |_| StoreError::corrupt("token_key", "secret is not 32 bytes");
    secret.try_into().map_err(size)
}
