//! Searches for erased ids, and ends the erasures of those that are found nowhere.
//!
//! Nothing is held open while the database is searched: every column is read by a statement of its own, and the transaction that
//! ends erasures looks once more, by indexes, at what a write may have added meanwhile.

use std::collections::{BTreeMap, HashSet};

use domain::id::UserId;

use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Lease};
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::privacy::erasure_key::ErasureKey;
use crate::store::snapshots::VersionedBytes;
use crate::store::snapshots::redaction;

/// The lease of whoever verifies erasures.
pub const LEASE: &str = "verification";

/// The most erasures that are verified together. One search reads every table once, however many ids it looks for.
const BATCH: i64 = 10_000;

/// The ids to look for, by erasure.
pub type Wanted = BTreeMap<i64, UserId>;

/// Where erased ids stand, by erasure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The places that hold the id of the user. They keep the erasure open.
    pub places: BTreeMap<i64, Vec<String>>,
    /// The columns of sentences about something else, one of which equals the id. It may be a word or mean the user.
    pub notes: BTreeMap<i64, Vec<String>>,
}

/// Returns the erasures after number `after` whose rows and snapshots are clean, up to as many as are searched for together.
///
/// `again`: also those whose id was found at the last time.
pub async fn wanted(pool: &Pool, after: i64, again: bool) -> Result<Wanted, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, user_id AS "user_id!" FROM erasures
           WHERE verified_at IS NULL AND snapshots_clean_at IS NOT NULL AND (finding = '' OR $1) AND id > $2
           ORDER BY id LIMIT $3"#,
        again,
        after,
        BATCH
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter()
        .map(|row| {
            let user = UserId::stored(row.user_id).map_err(|error| StoreError::corrupt("erasures", error))?;
            Ok((row.id, user))
        })
        .collect()
}

/// Searches every table for the exact ids.
pub async fn search(pool: &Pool, wanted: &Wanted) -> Result<Findings, StoreError> {
    let ids: Vec<i64> = wanted.keys().copied().collect();
    let mut findings = Findings::default();
    let columns = sqlx::query!(r#"SELECT place AS "place!", is_note AS "is_note!" FROM searched_columns()"#)
        .fetch_all(&mut *pool.acquire().await?)
        .await?;
    for column in columns {
        let mut tx = pool.begin_unlimited().await?;
        let found = sqlx::query_scalar!(r#"SELECT find_erased_in($1, $2) AS "id!""#, column.place, &ids)
            .fetch_all(&mut *tx)
            .await?;
        let kind = match column.is_note {
            true => &mut findings.notes,
            false => &mut findings.places,
        };
        for id in found {
            kind.entry(id).or_default().push(column.place.clone());
        }
    }
    let mut tx = pool.begin_unlimited().await?;
    for (id, place) in find_users(&mut tx, &ids).await? {
        findings.places.entry(id).or_default().push(place);
    }
    Ok(findings)
}

/// Finds what names one of the users as a user.
async fn find_users(connection: &mut Connection, ids: &[i64]) -> Result<Vec<(i64, String)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT erasure_id AS "erasure_id!", place AS "place!" FROM find_erased_users($1) ORDER BY place"#,
        ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.erasure_id, row.place)).collect())
}

/// One search for erased ids.
#[derive(Debug, Default)]
pub struct Search {
    pub wanted: Wanted,
    pub findings: Findings,
    /// The bytes of the snapshots that were searched.
    pub snapshots: HashSet<VersionedBytes>,
}

/// The outcome of [`finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// So many erasures have ended.
    Verified(u64),
    /// There are snapshots that were not searched, as they were published or rewritten meanwhile. Nothing has changed.
    NotSearched,
    /// Another process verifies.
    LeaseLost,
}

/// Ends the erasures whose ids were found nowhere: forgets the ids and sets the time. Notes for the others where they were found.
pub async fn finish(pool: &Pool, lease: &Lease, search: &Search, actor: &str) -> Result<Finished, StoreError> {
    let candidates = search.wanted.keys().copied();
    let candidates: Vec<i64> = candidates
        .filter(|id| !search.findings.places.contains_key(id))
        .collect();
    let candidates = &candidates;
    pool.write(|mut tx| async move {
        if !leases::is_held(&mut tx, lease).await? {
            return Ok(Finished::LeaseLost);
        }
        // A trainer that read its data before an erasure may have begun a version since the snapshots were clean.
        redaction::lock_erasures(&mut tx).await?;
        let through = redaction::clean_through(&mut tx).await?.unwrap_or(i64::MAX);
        if redaction::is_any_unsearched(&mut tx, candidates, &search.snapshots).await? {
            return Ok(Finished::NotSearched);
        }
        let mut places = search.findings.places.clone();
        for (id, place) in find_users(&mut tx, candidates).await? {
            places.entry(id).or_default().push(place);
        }
        let is_clean = |id: &&i64| **id <= through && !places.contains_key(*id);
        let clean: Vec<i64> = candidates.iter().filter(is_clean).copied().collect();
        let verified = end(&mut tx, &clean, &search.findings.notes, actor).await?;
        note(&mut tx, &places).await?;
        tx.commit().await?;
        Ok(Finished::Verified(verified))
    })
    .await
}

/// Notes for erasures where their ids were found.
async fn note(connection: &mut Connection, places: &BTreeMap<i64, Vec<String>>) -> Result<(), StoreError> {
    let (ids, places): (Vec<i64>, Vec<String>) = places.iter().map(|(id, places)| (*id, places.join(", "))).unzip();
    sqlx::query!(
        "UPDATE erasures SET finding = told.finding
         FROM UNNEST($1::bigint[], $2::text[]) AS told (id, finding) WHERE erasures.id = told.id",
        &ids,
        &places
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends erasures. Returns the number of those that had not ended before.
///
/// `notes`: the columns with texts that equal ids, which the erasures name from now on.
async fn end(
    connection: &mut Connection,
    ids: &[i64],
    notes: &BTreeMap<i64, Vec<String>>,
    actor: &str,
) -> Result<u64, StoreError> {
    let findings: Vec<String> = ids
        .iter()
        .map(|id| notes.get(id).map_or(String::new(), |notes| notes.join(", ")))
        .collect();
    let verified = sqlx::query!(
        "UPDATE erasures SET verified_at = clock_timestamp(), user_id = NULL, finding = told.finding
         FROM UNNEST($1::bigint[], $2::text[]) AS told (id, finding)
         WHERE erasures.id = told.id AND verified_at IS NULL",
        ids,
        &findings
    )
    .execute(&mut *connection)
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
        audit::record(connection, entry).await?;
    }
    Ok(verified)
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
