//! Keeps the answers to mutations, so that a caller who sends one again gets the same answer.

use serde::Serialize;
use serde::de::DeserializeOwned;

use domain::id::RequestId;

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// A mutation, identified by its caller.
#[derive(Debug, Clone)]
pub struct Request {
    /// The ids of different callers have nothing to do with each other.
    pub caller: String,
    pub id: RequestId,
    /// SHA-256 of the name of the RPC and its request.
    pub body_hash: [u8; 32],
}

/// The outcome of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done<T> {
    /// It was done now.
    Now(T),
    /// It was done before; this is the first answer.
    Before(T),
    /// The id was used with another body.
    Reused,
}

impl<T> Done<T> {
    /// Returns the answer; `None` when the id was used with another body.
    pub fn answer(self) -> Option<T> {
        match self {
            Self::Now(answer) | Self::Before(answer) => Some(answer),
            Self::Reused => None,
        }
    }
}

/// The answer of [`begin`].
pub(in crate::store) enum Begun<T> {
    /// It is to be done, and then [`finish`]ed, in this transaction.
    New,
    Before(T),
    Reused,
}

/// Records `request`. Waits for a request with the same id that is in progress: it ends with its transaction.
pub(in crate::store) async fn begin<T: DeserializeOwned>(
    connection: &mut Connection,
    request: &Request,
) -> Result<Begun<T>, StoreError> {
    let created = sqlx::query!(
        "INSERT INTO request_log (caller, request_id, body_hash, response) VALUES ($1, $2, $3, 'null')
         ON CONFLICT DO NOTHING",
        request.caller,
        request.id.as_str(),
        &request.body_hash[..],
    )
    .execute(&mut *connection)
    .await?;
    if created.rows_affected() == 1 {
        return Ok(Begun::New);
    }
    let stored = sqlx::query!(
        "SELECT body_hash, response FROM request_log WHERE caller = $1 AND request_id = $2",
        request.caller,
        request.id.as_str(),
    )
    .fetch_one(connection)
    .await?;
    if stored.body_hash != request.body_hash {
        return Ok(Begun::Reused);
    }
    let answer = serde_json::from_value(stored.response).map_err(|error| StoreError::corrupt("request_log", error))?;
    Ok(Begun::Before(answer))
}

/// Keeps the answer to `request`.
pub(in crate::store) async fn finish(
    connection: &mut Connection,
    request: &Request,
    response: &impl Serialize,
) -> Result<(), StoreError> {
    let response = serde_json::to_value(response).map_err(|error| StoreError::corrupt("request_log", error))?;
    sqlx::query!(
        "UPDATE request_log SET response = $3 WHERE caller = $1 AND request_id = $2",
        request.caller,
        request.id.as_str(),
        response,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The most requests that one statement deletes.
const PRUNE_BATCH: i64 = 5_000;

/// Deletes the requests that are older than 30 days. Returns their number.
pub async fn prune(pool: &Pool) -> Result<u64, StoreError> {
    let mut pruned = 0;
    loop {
        let batch = sqlx::query!(
            "DELETE FROM request_log WHERE (caller, request_id) IN (
                 SELECT caller, request_id FROM request_log WHERE at < clock_timestamp() - interval '30 days'
                 ORDER BY at LIMIT $1 FOR UPDATE SKIP LOCKED
             )",
            PRUNE_BATCH
        )
        .execute(&mut *pool.acquire().await?)
        .await?
        .rows_affected();
        pruned += batch;
        if batch < PRUNE_BATCH as u64 {
            return Ok(pruned);
        }
    }
}
