//! Stores which servers answer from memory, and up to which erasure each of them hides users.

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// A server that has not been seen for so long, in seconds, has ended or cannot reach the database. It is not waited for.
pub const SILENCE_S: f64 = 30.0;

/// Tells that a server is there, and hides everybody whose erasure has the number `masked_through` or a lower one. Returns its id.
pub async fn join(pool: &Pool, masked_through: i64) -> Result<String, StoreError> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO servers (id, masked_through) VALUES (gen_random_uuid()::text, $1) RETURNING id",
        masked_through,
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?)
}

/// Tells the same of a server that has joined. Returns whether it is still known: whoever has been silent for long has to join
/// again.
pub async fn tell(pool: &Pool, id: &str, masked_through: i64) -> Result<bool, StoreError> {
    let told = sqlx::query!(
        "UPDATE servers SET masked_through = $2, seen_at = clock_timestamp() WHERE id = $1",
        id,
        masked_through,
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(told.rows_affected() == 1)
}

/// Forgets the server `id`, which has ended.
pub async fn leave(pool: &Pool, id: &str) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM servers WHERE id = $1", id)
        .execute(&mut *pool.acquire().await?)
        .await?;
    Ok(())
}

/// Sets the time of stage MASKED of every erasure that all servers have told to hide. Returns how many. Forgets servers that have
/// been silent for a day.
pub async fn set_masked(pool: &Pool) -> Result<u64, StoreError> {
    let mut connection = pool.acquire().await?;
    sqlx::query!("DELETE FROM servers WHERE seen_at < clock_timestamp() - make_interval(days => 1)")
        .execute(&mut *connection)
        .await?;
    let masked = sqlx::query!(
        "UPDATE erasures SET masked_at = clock_timestamp()
         WHERE masked_at IS NULL AND NOT EXISTS (
             SELECT FROM servers
             WHERE seen_at > clock_timestamp() - make_interval(secs => $1) AND masked_through < erasures.id
         )",
        SILENCE_S,
    )
    .execute(&mut *connection)
    .await?;
    Ok(masked.rows_affected())
}
