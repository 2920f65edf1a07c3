//! Corrects the attributes of one user.

use std::collections::BTreeMap;

use domain::id::UserId;

use crate::store::access::audit::{self, Action};
use crate::store::coupons::attributes::{self, AttributeKey};
use crate::store::coupons::loads::{self, AttributeLoad};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// The attributes of a user that are wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    pub user: UserId,
    /// The values that attributes should have, by name.
    pub set: BTreeMap<String, String>,
    /// The names of attributes that should not exist. None of them is in `set`.
    pub remove: Vec<String>,
    /// The reason, for the audit.
    pub reason: String,
}

/// An attribute before and after a correction; `None` where the user had or has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrected {
    pub name: String,
    pub was: Option<String>,
    pub is: Option<String>,
}

/// Corrects the attributes, audited. The audit has the names of those that changed and not their values, because it is never
/// changed and must not keep what was wrong. Returns one entry for each attribute of the correction, ascending by name; `None` if
/// the user is unknown.
pub async fn rectify(pool: &Pool, correction: &Correction, actor: &str) -> Result<Option<Vec<Corrected>>, StoreError> {
    pool.write(|mut tx| async move {
        let Some(user_id) = lock(&mut tx, &correction.user).await? else {
            return Ok(None);
        };
        let names: Vec<String> = correction.set.keys().chain(&correction.remove).cloned().collect();
        let before = values(&mut tx, user_id, &names).await?;
        write(&mut tx, pool, correction).await?;
        let after = values(&mut tx, user_id, &names).await?;
        let corrected = |name: String| Corrected {
            was: before.get(&name).cloned(),
            is: after.get(&name).cloned(),
            name,
        };
        let mut corrected: Vec<Corrected> = names.into_iter().map(corrected).collect();
        corrected.sort_by(|a, b| a.name.cmp(&b.name));
        record(&mut tx, user_id, &corrected, &correction.reason, actor).await?;
        tx.commit().await?;
        Ok(Some(corrected))
    })
    .await
}

/// Keeps others from correcting or erasing the user until the end of the transaction. Returns the user's key.
async fn lock(connection: &mut Connection, user: &UserId) -> Result<Option<i64>, StoreError> {
    let user_id = sqlx::query_scalar!(
        "SELECT id FROM users WHERE external_id = $1 AND NOT is_pseudonym FOR NO KEY UPDATE",
        user.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(user_id)
}

async fn values(
    connection: &mut Connection,
    user_id: i64,
    names: &[String],
) -> Result<BTreeMap<String, String>, StoreError> {
    let rows = sqlx::query!(
        "SELECT name, value FROM user_attributes WHERE user_id = $1 AND name = ANY($2)",
        user_id,
        names,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.value)).collect())
}

async fn write(connection: &mut Connection, pool: &Pool, correction: &Correction) -> Result<(), StoreError> {
    let load = |(name, value): (&String, &String)| AttributeLoad {
        user: correction.user.clone(),
        name: name.clone(),
        value: value.clone(),
    };
    let loads: Vec<AttributeLoad> = correction.set.iter().map(load).collect();
    if !loads.is_empty() {
        loads::set_attributes_in(connection, pool, &loads).await?;
    }
    let key = |name: &String| AttributeKey {
        user: correction.user.clone(),
        name: name.clone(),
    };
    let keys: Vec<AttributeKey> = correction.remove.iter().map(key).collect();
    attributes::delete_in(connection, &keys).await?;
    Ok(())
}

async fn record(
    connection: &mut Connection,
    user_id: i64,
    corrected: &[Corrected],
    reason: &str,
    actor: &str,
) -> Result<(), StoreError> {
    let changed = corrected.iter().filter(|one| one.was != one.is);
    let names: Vec<&str> = changed.map(|one| one.name.as_str()).collect();
    let note = match (names.join(", "), reason) {
        (names, "") => names,
        (names, reason) => format!("{names}: {reason}"),
    };
    let entry = audit::Entry {
        actor,
        action: Action::UserRectified,
        subject: &audit::user_subject(user_id),
        note: &note,
        row_count: names.len() as i64,
        snapshot_version: None,
    };
    audit::record(connection, entry).await
}
