//! Records erasures that were asked for. From that moment on the id is unknown to everything that is read or written.

use std::collections::{HashMap, HashSet};

use domain::id::{RequestId, UserId};

use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::privacy::erasure_key::ErasureKey;

/// The users to erase, and who asked for it.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// In any order; a user who is named twice is erased once.
    pub users: &'a [UserId],
    /// Sending the same request again gets the same erasure. It belongs to one user.
    pub request_id: Option<&'a RequestId>,
    pub reason: &'a str,
    /// `key:<id>` for an RPC, the process for a command.
    pub actor: &'a str,
}

/// An erasure that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub erasure_id: i64,
    pub user: UserId,
    /// Whether anything was stored under the id.
    pub was_known: bool,
}

/// The reason why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The database holds hashes under another key.
    #[error(
        "the key in privacy.erasure_key_file is not the one under which users were erased before; put the former one back, or \
         they would not be recognized in old feeds"
    )]
    OtherKey,
    #[error("request_id {0} was used for another user")]
    RequestReused(RequestId),
    #[error("the reason must not contain the id of a user, because it is kept")]
    ReasonNamesUser,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Records one erasure for each of the users, in one transaction: gives their rows pseudonyms, remembers the hashes of their
/// ids, and makes them refuse every use of their data. A user of whom nothing is stored is erased too, so that an old feed
/// does not bring them.
///
/// Returns the erasures in the order of their ids.
///
/// # Errors
/// After an error nothing is recorded.
pub async fn receive(pool: &Pool, key: &ErasureKey, request: &Request<'_>) -> Result<Vec<Received>, ReceiveError> {
    if request.users.iter().any(|user| names(request.reason, user)) {
        return Err(ReceiveError::ReasonNamesUser);
    }
    pool.write(|mut tx| async move {
        if !keeps_key(&mut tx, key).await? {
            return Ok(Err(ReceiveError::OtherKey));
        }
        if let Some(request_id) = request.request_id
            && let Some(before) = before(&mut tx, key, request, request_id).await?
        {
            return Ok(before);
        }
        let users: HashSet<&UserId> = request.users.iter().collect();
        let mut names: Vec<String> = users.iter().map(|user| user.to_string()).collect();
        names.sort_unstable();
        let (numbers, created) = lock_users(&mut tx, &names).await?;
        if numbers.len() < names.len() {
            // Another transaction has erased one of them in the meantime. The next attempt adds it anew.
            return Err(StoreError::Conflict(sqlx::Error::RowNotFound.into()));
        }
        let received = record(&mut tx, key, request, &numbers, &created).await?;
        hide(&mut tx, numbers.values().copied().collect()).await?;
        let entry = audit::Entry {
            actor: request.actor,
            action: Action::ErasureRequested,
            subject: "users",
            note: "",
            row_count: received.len() as i64,
            snapshot_version: None,
        };
        audit::record(&mut tx, entry).await?;
        tx.commit().await?;
        Ok(Ok(received))
    })
    .await?
}

/// Makes `key` the one of all erasures if there is none yet. Returns whether it is.
async fn keeps_key(connection: &mut Connection, key: &ErasureKey) -> Result<bool, StoreError> {
    let check_value = key.check_value();
    sqlx::query!(
        "INSERT INTO erasure_key (check_value) VALUES ($1) ON CONFLICT DO NOTHING",
        &check_value[..]
    )
    .execute(&mut *connection)
    .await?;
    let kept = sqlx::query_scalar!("SELECT check_value FROM erasure_key")
        .fetch_one(connection)
        .await?;
    Ok(kept == check_value)
}

/// Returns the answer to a request that was recorded before.
async fn before(
    connection: &mut Connection,
    key: &ErasureKey,
    request: &Request<'_>,
    request_id: &RequestId,
) -> Result<Option<Result<Vec<Received>, ReceiveError>>, StoreError> {
    let stored = sqlx::query!(
        "SELECT id, user_hash, was_known FROM erasures WHERE request_id = $1",
        request_id.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(stored.map(|stored| {
        let of_same = |user: &&UserId| key.hash(user.as_str())[..] == stored.user_hash;
        match request.users.iter().find(of_same) {
            Some(user) => Ok(vec![Received {
                erasure_id: stored.id,
                user: user.clone(),
                was_known: stored.was_known,
            }]),
            None => Err(ReceiveError::RequestReused(request_id.clone())),
        }
    }))
}

/// Locks the rows of users, and creates those that are missing. Returns the number of each, and the numbers that are new.
///
/// `names`: strictly ascending.
async fn lock_users(
    connection: &mut Connection,
    names: &[String],
) -> Result<(HashMap<String, i64>, HashSet<i64>), StoreError> {
    // A transaction that adds one of them at the same moment is waited for here, or waits for this one.
    let created = sqlx::query_scalar!(
        "INSERT INTO users (external_id) SELECT * FROM UNNEST($1::text[]) ON CONFLICT DO NOTHING RETURNING id",
        names
    )
    .fetch_all(&mut *connection)
    .await?;
    let rows = sqlx::query!(
        "SELECT id, external_id FROM users WHERE external_id = ANY($1) ORDER BY id FOR UPDATE",
        names
    )
    .fetch_all(connection)
    .await?;
    let numbers = rows.into_iter().map(|row| (row.external_id, row.id));
    Ok((numbers.collect(), created.into_iter().collect()))
}

/// Inserts the erasures.
async fn record(
    connection: &mut Connection,
    key: &ErasureKey,
    request: &Request<'_>,
    numbers: &HashMap<String, i64>,
    created: &HashSet<i64>,
) -> Result<Vec<Received>, StoreError> {
    let mut users: Vec<(i64, &UserId)> = Vec::with_capacity(numbers.len());
    for user in request.users.iter().collect::<HashSet<_>>() {
        users.push((numbers[user.as_str()], user));
    }
    users.sort_unstable();
    let user_numbers: Vec<i64> = users.iter().map(|(number, _)| *number).collect();
    let names: Vec<String> = users.iter().map(|(_, user)| user.to_string()).collect();
    let hashes: Vec<Vec<u8>> = users.iter().map(|(_, user)| key.hash(user.as_str()).to_vec()).collect();
    let known: Vec<bool> = user_numbers.iter().map(|number| !created.contains(number)).collect();
    let mut ids = sqlx::query_scalar!(
        "INSERT INTO erasures (user_number, user_id, user_hash, was_known, request_id, reason, requested_by)
         SELECT user_number, user_id, user_hash, was_known, $5, $6, $7
         FROM UNNEST($1::bigint[], $2::text[], $3::bytea[], $4::boolean[])
                  WITH ORDINALITY AS told (user_number, user_id, user_hash, was_known, position)
         ORDER BY position RETURNING id",
        &user_numbers,
        &names,
        &hashes,
        &known,
        request.request_id.map(RequestId::as_str),
        request.reason,
        request.actor,
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::of_insert)?;
    ids.sort_unstable();
    let received = ids.into_iter().zip(users).zip(known);
    Ok(received
        .map(|((erasure_id, (_, user)), was_known)| Received {
            erasure_id,
            user: user.clone(),
            was_known,
        })
        .collect())
}

/// Gives the rows of users pseudonyms and makes them refuse everything, so that no server or training takes them, and tells
/// the servers.
async fn hide(connection: &mut Connection, numbers: Vec<i64>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE users SET external_id = new_pseudonym(), is_pseudonym = true, erased_at = NULL WHERE id = ANY($1)",
        &numbers
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("SELECT refuse_everything($1)", &numbers)
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "INSERT INTO changes (user_id) SELECT * FROM UNNEST($1::bigint[])",
        &numbers
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns whether the id of `user` stands in `text` as a word of its own.
pub fn names(text: &str, user: &UserId) -> bool {
    let is_edge = |character: Option<char>| character.is_none_or(|character| !character.is_alphanumeric());
    text.match_indices(user.as_str()).any(|(start, id)| {
        is_edge(text[..start].chars().next_back()) && is_edge(text[start + id.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_named_where_it_stands_as_a_word() {
        let check = |text: &str, user: &str, expected: bool| {
            assert_eq!(names(text, &UserId::new(user).unwrap()), expected, "{user} in {text}");
        };
        check("u-1", "u-1", true);
        check("erase:u-1.", "u-1", true);
        check("erase-u-12", "u-1", false);
        check("bu-1", "u-1", false);
        check("xu-1 u-1", "u-1", true);
        check("ticket 17", "1", false);
        check("", "u-1", false);
    }
}
