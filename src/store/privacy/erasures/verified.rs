//! Searches for erased ids, and ends the erasures of those that are found nowhere.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use domain::id::UserId;

use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Pool, Tx, limit_idle, without_timeouts};
use crate::store::privacy::erasure_key::ErasureKey;
use crate::store::snapshots::redaction;

/// The most erasures that are verified together. One search reads every table once, however many ids it looks for.
const BATCH: i64 = 10_000;

/// The longest that the snapshots may be searched while the transaction waits.
const LONGEST_SEARCH: Duration = Duration::from_secs(3_600);

/// Erasures that are about to be verified, locked until this is finished or dropped. One process at a time verifies.
pub struct Verification {
    tx: Tx,
    /// The ids to look for, by erasure.
    pub users: BTreeMap<i64, UserId>,
}

impl Verification {
    /// Takes the erasures whose rows and snapshots are clean; `None` when there are none, or another process is verifying.
    ///
    /// `again`: also takes those whose id was found at the last time.
    pub async fn begin(pool: &Pool, again: bool) -> Result<Option<Self>, StoreError> {
        let mut tx = pool.begin().await?;
        without_timeouts(&mut tx).await?;
        limit_idle(&mut tx, LONGEST_SEARCH).await?;
        let is_mine = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_xact_lock(hashtextextended('likemind: verifying erasures', 0)) AS "is_mine!""#
        )
        .fetch_one(&mut *tx)
        .await?;
        if !is_mine {
            return Ok(None);
        }
        let rows = sqlx::query!(
            r#"SELECT id, user_id AS "user_id!" FROM erasures
               WHERE verified_at IS NULL AND snapshots_clean_at IS NOT NULL AND (finding = '' OR $1)
               ORDER BY id LIMIT $2 FOR UPDATE"#,
            again,
            BATCH
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut users = BTreeMap::new();
        for row in rows {
            let user = UserId::stored(row.user_id).map_err(|error| StoreError::corrupt("erasures", error))?;
            users.insert(row.id, user);
        }
        Ok((!users.is_empty()).then_some(Self { tx, users }))
    }

    /// Searches every table for the exact ids. Returns the columns that hold some, by erasure.
    pub async fn search(&mut self) -> Result<BTreeMap<i64, Vec<String>>, StoreError> {
        let wanted: Vec<i64> = self.users.keys().copied().collect();
        let rows = sqlx::query!(
            r#"SELECT erasure_id AS "erasure_id!", place AS "place!" FROM find_erased_ids($1) ORDER BY place"#,
            &wanted
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let mut found: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for row in rows {
            found.entry(row.erasure_id).or_default().push(row.place);
        }
        Ok(found)
    }

    /// Ends the erasures whose ids were found nowhere: forgets the ids and sets the time. Notes of the others where they were
    /// found. Returns the number of those that ended.
    ///
    /// `found`: the places of each erasure whose id was found.
    pub async fn finish(mut self, found: &BTreeMap<i64, Vec<String>>, actor: &str) -> Result<u64, StoreError> {
        let found_ids: HashSet<i64> = found.keys().copied().collect();
        // A trainer that read its data before an erasure may have begun a version since the snapshots were clean.
        redaction::lock_erasures(&mut self.tx).await?;
        let through = redaction::clean_through(&mut self.tx).await?.unwrap_or(i64::MAX);
        let clean: Vec<i64> = self
            .users
            .keys()
            .copied()
            .filter(|id| !found_ids.contains(id) && *id <= through)
            .collect();
        let (ids, places): (Vec<i64>, Vec<String>) = found.iter().map(|(id, places)| (*id, places.join(", "))).unzip();
        sqlx::query!(
            "UPDATE erasures SET finding = told.finding
             FROM UNNEST($1::bigint[], $2::text[]) AS told (id, finding) WHERE erasures.id = told.id",
            &ids,
            &places
        )
        .execute(&mut *self.tx)
        .await?;
        let verified = sqlx::query!(
            "UPDATE erasures SET verified_at = clock_timestamp(), user_id = NULL, finding = ''
             WHERE id = ANY($1) AND verified_at IS NULL",
            &clean
        )
        .execute(&mut *self.tx)
        .await?
        .rows_affected();
        if verified > 0 {
            let entry = audit::Entry {
                actor,
                action: Action::ErasuresVerified,
                subject: "users",
                note: "",
                row_count: verified as i64,
                snapshot_version: None,
            };
            audit::record(&mut self.tx, entry).await?;
        }
        self.tx.commit().await?;
        Ok(verified)
    }
}

/// How the key of a process fits the hashes in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Nobody was erased yet, or under this key.
    Fits,
    /// Users were erased, and the process has no key.
    Missing,
    /// Users were erased under another key.
    Other,
}

/// Compares the key of `pool` with the one under which users were erased.
pub async fn key_state(pool: &Pool) -> Result<KeyState, StoreError> {
    let stored = sqlx::query_scalar!("SELECT check_value FROM erasure_key")
        .fetch_optional(&mut *pool.acquire().await?)
        .await?;
    Ok(match (stored, pool.erasure_key().map(ErasureKey::check_value)) {
        (None, _) => KeyState::Fits,
        (Some(_), None) => KeyState::Missing,
        (Some(stored), Some(own)) if stored == own => KeyState::Fits,
        (Some(_), Some(_)) => KeyState::Other,
    })
}
