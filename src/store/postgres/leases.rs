//! Leases, which have one holder at a time, for as long as it keeps renewing.

use std::time::Duration;

use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, limit_idle};

/// The lease of the trainer.
pub const TRAINING: &str = "training";

/// The lease of the server that deletes records that are too old.
pub const RETENTION: &str = "retention";

/// Proof of holding a lease. A later holder has a higher token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub fencing_token: i64,
    /// Counted from each renewal.
    pub time_to_live: Duration,
}

/// The present holder of a lease that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub holder: String,
    pub expires_at: Timestamp,
}

/// Takes the lease if it is free or has expired.
pub async fn acquire(
    pool: &Pool,
    name: &str,
    holder: &str,
    time_to_live: Duration,
) -> Result<Result<Lease, Held>, StoreError> {
    pool.write(|mut tx| async move {
        limit_idle(&mut tx, time_to_live).await?;
        // The statement reads the clock again, as `excluded.expires_at` would count from before a wait for the row.
        let token = sqlx::query_scalar!(
            "INSERT INTO leases (name, holder, fencing_token, expires_at)
             VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (name) DO UPDATE
             SET holder = excluded.holder, fencing_token = leases.fencing_token + 1,
                 expires_at = clock_timestamp() + make_interval(secs => $3)
             WHERE leases.expires_at <= clock_timestamp()
             RETURNING fencing_token",
            name,
            holder,
            time_to_live.as_secs_f64(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let result = match token {
            Some(fencing_token) => Ok(Lease {
                name: name.to_owned(),
                fencing_token,
                time_to_live,
            }),
            None => Err(
                sqlx::query_as!(Held, "SELECT holder, expires_at FROM leases WHERE name = $1", name)
                    .fetch_one(&mut *tx)
                    .await?,
            ),
        };
        tx.commit().await?;
        Ok(result)
    })
    .await
}

/// Returns whether anybody has ever held the lease.
pub async fn has_been_taken(pool: &Pool, name: &str) -> Result<bool, StoreError> {
    let taken = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM leases WHERE name = $1) AS "taken!""#,
        name
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?;
    Ok(taken)
}

/// Renews the lease. Returns false when it has expired or another holder has it.
pub async fn renew(pool: &Pool, lease: &Lease) -> Result<bool, StoreError> {
    pool.write(|mut tx| async move {
        if !is_held(&mut tx, lease).await? {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => $2) WHERE name = $1",
            lease.name,
            lease.time_to_live.as_secs_f64(),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    })
    .await
}

/// Gives the lease back. Returns false, and changes nothing, when it has expired or another holder has it.
pub async fn release(pool: &Pool, lease: &Lease) -> Result<bool, StoreError> {
    let released = sqlx::query!(
        "UPDATE leases SET expires_at = clock_timestamp()
         WHERE name = $1 AND fencing_token = $2 AND expires_at > clock_timestamp()",
        lease.name,
        lease.fencing_token,
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(released.rows_affected() == 1)
}

/// Locks the lease until the end of the transaction, and returns whether it is still held: another holder cannot overtake
/// the writes of this transaction. PostgreSQL ends the transaction of a process that stops in the middle of it.
pub(in crate::store) async fn is_held(connection: &mut Connection, lease: &Lease) -> Result<bool, StoreError> {
    limit_idle(connection, lease.time_to_live).await?;
    let expires_at = sqlx::query_scalar!(
        "SELECT expires_at FROM leases WHERE name = $1 AND fencing_token = $2 FOR UPDATE",
        lease.name,
        lease.fencing_token,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(expires_at) = expires_at else { return Ok(false) };
    // This is a separate statement, as the one that waits for the lock has read the clock before the wait.
    let held = sqlx::query_scalar!(r#"SELECT $1 > clock_timestamp() AS "held!""#, expires_at)
        .fetch_one(connection)
        .await?;
    Ok(held)
}
