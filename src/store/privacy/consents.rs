//! Stores the decisions of users about the use of their data: all of them, and which are in force.

use domain::consent::{ConsentDecision, ConsentInForce};
use domain::id::UserId;
use domain::time::{EventTime, Timestamp};

use crate::store::catalog::ids::{self, Keys, Told};
use crate::store::error::StoreError;
use crate::store::outcome::WriteOutcome;
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::privacy::dropped::AboutUser;

/// Records `decisions` in one transaction, and creates unknown users. A decision comes into force if it is later than the
/// one in force, or as late and a refusal. Returns the outcome of each: the same decision at the same instant from the same
/// source is recorded once.
///
/// # Errors
/// After an error nothing is stored.
pub async fn set(pool: &Pool, decisions: &[ConsentDecision]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let users = lock_users(&mut tx, pool, decisions.iter().map(|decision| decision.told(pool))).await?;
        let kept = users.kept(pool, decisions);
        let outcomes = set_in(&mut tx, &users, &kept.entries).await?;
        tx.commit().await?;
        Ok(kept.outcomes(outcomes, WriteOutcome::Dropped))
    })
    .await
}

impl AboutUser for ConsentDecision {
    fn told<'a>(&'a self, pool: &Pool) -> Told<'a> {
        (&self.user, pool.time_of(self.decided_at))
    }
}

async fn set_in(
    connection: &mut Connection,
    users: &Keys,
    decisions: &[ConsentDecision],
) -> Result<Vec<WriteOutcome>, StoreError> {
    let user_ids: Vec<i64> = decisions.iter().map(|one| users.key(one.user.as_str())).collect();
    let purposes: Vec<String> = decisions.iter().map(|one| one.purpose.to_string()).collect();
    let granted: Vec<bool> = decisions.iter().map(|one| one.is_granted).collect();
    let told_at: Vec<Timestamp> = decisions.iter().map(|one| one.decided_at.at()).collect();
    let received: Vec<bool> = decisions
        .iter()
        .map(|one| matches!(one.decided_at, EventTime::Received(_)))
        .collect();
    let sources: Vec<String> = decisions.iter().map(|one| one.source.clone()).collect();
    let recorded = sqlx::query_scalar!(
        r#"WITH told AS (
               SELECT position, user_id, told.purpose, told.is_granted, told.source,
                      -- What is only received comes after all that was received before, whoever's clock is late.
                      CASE WHEN is_received THEN GREATEST(told_at, consents.decided_at) ELSE told_at END AS decided_at
               FROM UNNEST($1::bigint[], $2::text[], $3::boolean[], $4::timestamptz[], $5::boolean[], $6::text[])
                        WITH ORDINALITY AS told (user_id, purpose, is_granted, told_at, is_received, source, position)
               LEFT JOIN consents USING (user_id, purpose)
           ), recorded AS (
               INSERT INTO consent_events (user_id, purpose, is_granted, decided_at, source)
               SELECT user_id, purpose, is_granted, decided_at, source FROM told
               WHERE NOT EXISTS (
                   SELECT FROM consent_events AS old
                   WHERE old.user_id = told.user_id
                     AND (old.purpose, old.is_granted, old.decided_at, old.source)
                       = (told.purpose, told.is_granted, told.decided_at, told.source)
               )
               GROUP BY user_id, purpose, is_granted, decided_at, source
               ORDER BY min(position)
               RETURNING user_id, purpose, is_granted, decided_at, source
           ), in_force AS (
               INSERT INTO consents AS old (user_id, purpose, is_granted, decided_at, source)
               SELECT DISTINCT ON (user_id, purpose) user_id, purpose, is_granted, decided_at, source
               FROM told ORDER BY user_id, purpose, decided_at DESC, is_granted, position
               ON CONFLICT (user_id, purpose) DO UPDATE
               SET is_granted = excluded.is_granted, decided_at = excluded.decided_at, source = excluded.source
               WHERE (excluded.decided_at, NOT excluded.is_granted) > (old.decided_at, NOT old.is_granted)
               RETURNING user_id
           ), logged AS (
               INSERT INTO changes (user_id) SELECT DISTINCT user_id FROM in_force
           )
           SELECT min(position) AS "position!"
           FROM told JOIN recorded USING (user_id, purpose, is_granted, decided_at, source)
           GROUP BY user_id, purpose, is_granted, decided_at, source"#,
        &user_ids,
        &purposes,
        &granted,
        &told_at,
        &received,
        &sources,
    )
    .fetch_all(connection)
    .await?;
    let mut outcomes = vec![WriteOutcome::Merged; decisions.len()];
    for position in recorded {
        outcomes[position as usize - 1] = WriteOutcome::Stored;
    }
    Ok(outcomes)
}

/// Creates unknown users, and keeps other transactions from deciding about all of them until this one ends: a reservation
/// takes the same lock.
pub(super) async fn lock_users<'a>(
    connection: &mut Connection,
    pool: &Pool,
    told: impl Iterator<Item = Told<'a>> + Clone,
) -> Result<Keys, StoreError> {
    let keys = ids::ensure_users(connection, pool.erasure_key(), told).await?;
    let user_ids: Vec<i64> = keys.by_external_id.values().copied().collect();
    sqlx::query!(
        "SELECT FROM users WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE",
        &user_ids
    )
    .execute(connection)
    .await?;
    Ok(keys)
}

/// Returns the decisions in force for `user`, at most one for each purpose; `None` if the user is unknown.
pub async fn get(pool: &Pool, user: &UserId) -> Result<Option<Vec<ConsentInForce>>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT purpose AS "purpose?", is_granted AS "is_granted?", decided_at AS "decided_at?", source AS "source?"
           FROM users LEFT JOIN consents ON consents.user_id = users.id
           WHERE users.external_id = $1 AND NOT is_pseudonym"#,
        user.as_str(),
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut in_force = Vec::with_capacity(rows.len());
    for row in rows {
        let (Some(purpose), Some(is_granted), Some(decided_at)) = (row.purpose, row.is_granted, row.decided_at) else {
            continue;
        };
        in_force.push(ConsentInForce {
            purpose: purpose
                .parse()
                .map_err(|error| StoreError::corrupt("consents", error))?,
            is_granted,
            decided_at,
            source: row.source.unwrap_or_default(),
        });
    }
    Ok(Some(in_force))
}
