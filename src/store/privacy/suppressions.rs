//! Suppresses users, to whom nothing is offered any longer, whatever they consent to.

use std::collections::HashSet;

use domain::id::UserId;
use domain::time::Timestamp;

use super::consents::lock_users;
use crate::store::access::audit::{self, Action};
use crate::store::catalog::ids::{self, Told};
use crate::store::error::StoreError;
use crate::store::outcome::WriteOutcome;
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::privacy::dropped::AboutUser;

/// A user to whom nothing is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    pub user: UserId,
    pub reason: String,
    pub suppressed_at: Timestamp,
}

/// Suppresses users in one transaction: nothing is offered to them any longer, whatever they consent to. Each comes with
/// the reason, of which the last one is kept. Creates unknown users. Returns the outcome of each.
///
/// # Errors
/// After an error nothing is stored.
pub async fn suppress(pool: &Pool, suppressions: &[(UserId, String)]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = suppress_in(&mut tx, pool, suppressions).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// A suppression has no time.
impl AboutUser for (UserId, String) {
    fn told<'a>(&'a self, _: &Pool) -> Told<'a> {
        (&self.0, None)
    }
}

async fn suppress_in(
    connection: &mut Connection,
    pool: &Pool,
    suppressions: &[(UserId, String)],
) -> Result<Vec<WriteOutcome>, StoreError> {
    let users = lock_users(connection, pool, suppressions.iter().map(|one| one.told(pool))).await?;
    let kept = users.kept(pool, suppressions);
    let suppressions = &kept.entries[..];
    let user_ids: Vec<i64> = suppressions.iter().map(|(user, _)| users.key(user.as_str())).collect();
    let reasons: Vec<String> = suppressions.iter().map(|(_, reason)| reason.clone()).collect();
    let stored = sqlx::query_scalar!(
        r#"WITH stored AS (
               INSERT INTO suppressions AS old (user_id, reason)
               SELECT DISTINCT ON (user_id) user_id, reason
               FROM UNNEST($1::bigint[], $2::text[]) WITH ORDINALITY AS told (user_id, reason, position)
               ORDER BY user_id, position DESC
               ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason WHERE old.reason <> excluded.reason
               RETURNING user_id
           ), logged AS (
               INSERT INTO changes (user_id) SELECT user_id FROM stored
           )
           SELECT user_id AS "user_id!" FROM stored"#,
        &user_ids,
        &reasons,
    )
    .fetch_all(connection)
    .await?;
    let stored: HashSet<i64> = stored.into_iter().collect();
    let mut outcomes = vec![WriteOutcome::Merged; suppressions.len()];
    let mut seen = HashSet::new();
    for (position, user_id) in user_ids.iter().enumerate().rev() {
        if seen.insert(user_id) && stored.contains(user_id) {
            outcomes[position] = WriteOutcome::Stored;
        }
    }
    Ok(kept.outcomes(outcomes, WriteOutcome::Dropped))
}

/// Does the same as [`suppress`], audited.
pub async fn set(pool: &Pool, suppressions: &[(UserId, String)], actor: &str) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = suppress_in(&mut tx, pool, suppressions).await?;
        record(&mut tx, &outcomes, Action::UsersSuppressed, actor).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Lifts the suppressions of users, audited. Returns the outcome of each: stored where the user was suppressed.
pub async fn lift(pool: &Pool, users: &[UserId], actor: &str) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let keys = ids::find_users(&mut tx, users.iter().map(UserId::as_str)).await?;
        let user_ids: Vec<i64> = keys.values().copied().collect();
        let gone = sqlx::query_scalar!(
            r#"WITH gone AS (
                   DELETE FROM suppressions WHERE user_id = ANY($1::bigint[]) RETURNING user_id
               ), logged AS (
                   INSERT INTO changes (user_id) SELECT user_id FROM gone
               )
               SELECT user_id AS "user_id!" FROM gone"#,
            &user_ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut gone: HashSet<i64> = gone.into_iter().collect();
        let outcome = |user: &UserId| match keys.get(user.as_str()).is_some_and(|key| gone.remove(key)) {
            true => WriteOutcome::Stored,
            false => WriteOutcome::Merged,
        };
        let outcomes: Vec<WriteOutcome> = users.iter().map(outcome).collect();
        record(&mut tx, &outcomes, Action::SuppressionsLifted, actor).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Records in the audit how many users changed.
async fn record(
    connection: &mut Connection,
    outcomes: &[WriteOutcome],
    action: Action,
    actor: &str,
) -> Result<(), StoreError> {
    let changed = outcomes
        .iter()
        .filter(|outcome| **outcome == WriteOutcome::Stored)
        .count();
    if changed == 0 {
        return Ok(());
    }
    let entry = audit::Entry {
        actor,
        action,
        subject: "suppressions",
        note: "",
        row_count: changed as i64,
        snapshot_version: None,
    };
    audit::record(connection, entry).await
}

/// Returns up to `limit` suppressions of users whose ids follow `after`, ascending by id.
///
/// `user`: looks for this user alone.
pub async fn list(pool: &Pool, user: Option<&UserId>, after: &str, limit: i64) -> Result<Vec<Suppression>, StoreError> {
    let rows = sqlx::query!(
        "SELECT users.external_id, reason, suppressed_at FROM suppressions JOIN users ON users.id = user_id
         WHERE users.external_id > $1 AND ($2::text IS NULL OR users.external_id = $2)
         ORDER BY users.external_id LIMIT $3",
        after,
        user.map(UserId::as_str),
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Suppression {
                user: UserId::stored(row.external_id).map_err(|error| StoreError::corrupt("users", error))?,
                reason: row.reason,
                suppressed_at: row.suppressed_at,
            })
        })
        .collect()
}
