//! Reads what users have decided: the whole history of one user, and everybody's decisions as a feed for other systems.
//!
//! The feed is read like that of fresh data, see [`changes`](crate::store::snapshots::changes): a moment is the set of
//! transactions that PostgreSQL sees as committed, and each reading hands over what was committed between two moments. A decision
//! is therefore never missed because a transaction that began earlier has committed later.

use domain::consent::Purpose;
use domain::id::UserId;
use domain::time::Timestamp;

use crate::store::catalog::ids;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// A decision as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentEvent {
    /// Ascends in the order of recording.
    pub id: i64,
    pub purpose: Purpose,
    pub is_granted: bool,
    pub decided_at: Timestamp,
    pub source: String,
    pub recorded_at: Timestamp,
}

struct EventRow {
    id: i64,
    purpose: String,
    is_granted: bool,
    decided_at: Timestamp,
    source: String,
    recorded_at: Timestamp,
}

impl TryFrom<EventRow> for ConsentEvent {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            purpose: row
                .purpose
                .parse()
                .map_err(|error| StoreError::corrupt("consent_events", error))?,
            is_granted: row.is_granted,
            decided_at: row.decided_at,
            source: row.source,
            recorded_at: row.recorded_at,
        })
    }
}

/// Returns up to `limit` decisions of `user` that were recorded before the one with the id `before`, the latest first; `None` if
/// the user is unknown.
pub async fn of_user(
    pool: &Pool,
    user: &UserId,
    before: i64,
    limit: i64,
) -> Result<Option<Vec<ConsentEvent>>, StoreError> {
    let mut connection = pool.acquire().await?;
    let found = ids::find_users(&mut connection, std::iter::once(user.as_str())).await?;
    let Some(&user_id) = found.get(user.as_str()) else {
        return Ok(None);
    };
    let rows = sqlx::query_as!(
        EventRow,
        "SELECT id, purpose, is_granted, decided_at, source, recorded_at FROM consent_events
         WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        user_id,
        before,
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    rows.into_iter()
        .map(ConsentEvent::try_from)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// A position in the feed: everything that was committed before the moment `from` has been read, and of what was committed
/// between `from` and `to` the decisions up to the one with the id `after`.
///
/// Moments have the format of `pg_snapshot`. They come back from callers and go to the database, so that they must be
/// authenticated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FeedPosition {
    /// `None` stands for the beginning.
    from: Option<String>,
    to: String,
    after: i64,
    /// The decisions recorded before this time are left out.
    since: Option<Timestamp>,
}

impl FeedPosition {
    /// Returns the position before the first decision that was recorded at `since` or later; without it, before the first of all.
    pub async fn beginning(pool: &Pool, since: Option<Timestamp>) -> Result<Self, StoreError> {
        Ok(Self {
            from: None,
            to: present(pool).await?,
            after: 0,
            since,
        })
    }

    /// Returns the position after the decision with the id `event`, which was read from this position.
    pub fn after(&self, event: i64) -> Self {
        Self {
            after: event,
            ..self.clone()
        }
    }

    /// Returns the position after everything that was committed before `to`.
    pub fn at_end(&self) -> Self {
        Self {
            from: Some(self.to.clone()),
            to: self.to.clone(),
            after: 0,
            since: None,
        }
    }

    /// Returns the position from which to read on: at the end of what could be read, up to the present moment.
    pub async fn continued(self, pool: &Pool) -> Result<Self, StoreError> {
        match self.from.as_ref() == Some(&self.to) {
            true => Ok(Self {
                to: present(pool).await?,
                ..self
            }),
            false => Ok(self),
        }
    }
}

/// Returns the present moment.
async fn present(pool: &Pool) -> Result<String, StoreError> {
    let moment = sqlx::query_scalar!(r#"SELECT pg_current_snapshot()::text AS "moment!""#)
        .fetch_one(&mut *pool.acquire().await?)
        .await?;
    Ok(moment)
}

struct FeedRow {
    id: i64,
    user: String,
    purpose: String,
    is_granted: bool,
    decided_at: Timestamp,
    source: String,
    recorded_at: Timestamp,
}

/// Returns up to `limit` decisions that follow `position`, in the order of recording, without those of erased users. There are no
/// more when there are fewer.
///
/// A moment that lies in the future comes from another cluster, from which the database was restored. Then everything is handed
/// over again.
pub async fn feed(pool: &Pool, position: &FeedPosition, limit: i64) -> Result<Vec<(UserId, ConsentEvent)>, StoreError> {
    let mut connection = pool.acquire().await?;
    let rows = match &position.from {
        None => sqlx::query_as!(
            FeedRow,
            r#"SELECT consent_events.id, users.external_id AS "user", purpose, is_granted, decided_at, source, recorded_at
               FROM consent_events JOIN users ON users.id = user_id
               WHERE NOT users.is_pseudonym AND consent_events.id > $2 AND recorded_at >= COALESCE($3::timestamptz, '-infinity')
                 -- What has a number from the future was restored from another cluster.
                 AND (pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
                      OR xid >= pg_snapshot_xmax(pg_current_snapshot()))
               ORDER BY consent_events.id LIMIT $4"#,
            position.to,
            position.after,
            position.since,
            limit,
        )
        .fetch_all(&mut *connection)
        .await?,
        Some(from) => sqlx::query_as!(
            FeedRow,
            r#"SELECT consent_events.id, users.external_id AS "user", purpose, is_granted, decided_at, source, recorded_at
               FROM consent_events JOIN users ON users.id = user_id
               WHERE NOT users.is_pseudonym AND consent_events.id > $3
                 AND (pg_snapshot_xmax($1::text::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
                      OR xid >= pg_snapshot_xmin($1::text::pg_snapshot)
                         AND xid < pg_snapshot_xmax(pg_current_snapshot())
                         AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
                         AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot))
               ORDER BY consent_events.id LIMIT $4"#,
            from,
            position.to,
            position.after,
            limit,
        )
        .fetch_all(&mut *connection)
        .await?,
    };
    rows.into_iter()
        .map(|row| {
            let user = UserId::stored(row.user).map_err(|error| StoreError::corrupt("users", error))?;
            let event = EventRow {
                id: row.id,
                purpose: row.purpose,
                is_granted: row.is_granted,
                decided_at: row.decided_at,
                source: row.source,
                recorded_at: row.recorded_at,
            };
            Ok((user, event.try_into()?))
        })
        .collect()
}
