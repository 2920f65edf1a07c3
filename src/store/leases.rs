//! Leases: one holder at a time, for as long as it keeps renewing.

use std::time::Duration;

use crate::domain::time::Timestamp;

use super::error::StoreError;
use super::pool::{Connection, Pool};

/// Of the trainer.
pub const TRAINING: &str = "training";

/// Proof of holding a lease. A later holder has a higher token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub fencing_token: i64,
}

/// Who has the lease instead.
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
    pool.write(|connection| {
        Box::pin(async move {
            let token = sqlx::query_scalar!(
                "INSERT INTO leases (name, holder, fencing_token, expires_at)
                 VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
                 ON CONFLICT (name) DO UPDATE
                 SET holder = excluded.holder, fencing_token = leases.fencing_token + 1,
                     expires_at = excluded.expires_at
                 WHERE leases.expires_at <= clock_timestamp()
                 RETURNING fencing_token",
                name,
                holder,
                time_to_live.as_secs_f64(),
            )
            .fetch_optional(&mut *connection)
            .await?;
            if let Some(fencing_token) = token {
                return Ok(Ok(Lease {
                    name: name.to_owned(),
                    fencing_token,
                }));
            }
            let held = sqlx::query_as!(Held, "SELECT holder, expires_at FROM leases WHERE name = $1", name)
                .fetch_one(&mut *connection)
                .await?;
            Ok(Err(held))
        })
    })
    .await
}

/// Prolongs the lease; false when it has expired or is someone else's.
pub async fn renew(pool: &Pool, lease: &Lease, time_to_live: Duration) -> Result<bool, StoreError> {
    let renewed = sqlx::query!(
        "UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => $3)
         WHERE name = $1 AND fencing_token = $2 AND expires_at > clock_timestamp()",
        lease.name,
        lease.fencing_token,
        time_to_live.as_secs_f64(),
    )
    .execute(&pool.inner)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Gives the lease back; of no effect when it is someone else's by now.
pub async fn release(pool: &Pool, lease: &Lease) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND fencing_token = $2",
        lease.name,
        lease.fencing_token,
    )
    .execute(&pool.inner)
    .await?;
    Ok(())
}

/// Locks the lease until the end of the transaction and says whether it is still held: what is written in the same
/// transaction cannot be overtaken by another holder.
pub(super) async fn is_held(connection: &mut Connection, lease: &Lease) -> Result<bool, StoreError> {
    let held = sqlx::query_scalar!(
        r#"SELECT expires_at > clock_timestamp() AS "held!" FROM leases
           WHERE name = $1 AND fencing_token = $2 FOR UPDATE"#,
        lease.name,
        lease.fencing_token,
    )
    .fetch_optional(connection)
    .await?;
    Ok(held.unwrap_or(false))
}
