//! Sets, deletes, lists and reads the attributes of users.

use std::collections::{BTreeSet, HashSet};

use domain::id::UserId;

use crate::store::access::audit::{self, Action};
use crate::store::catalog::ids;
use crate::store::coupons::loads::{self, AttributeLoad};
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::postgres::pool::{Connection, Pool};

/// The most names of attributes in the note of an audit row.
const MAX_NAMES: usize = 10;

/// The name of an attribute of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeKey {
    pub user: UserId,
    pub name: String,
}

/// The attributes to list; `None` stands for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttributeFilter {
    pub user: Option<UserId>,
    pub name: Option<String>,
    pub value: Option<String>,
}

/// Sets attributes, audited. Creates unknown users bare. Returns the outcome of each entry.
pub async fn set(pool: &Pool, entries: &[AttributeLoad], actor: &str) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = loads::set_attributes_in(&mut tx, pool, entries).await?;
        let names = entries.iter().map(|entry| entry.name.as_str());
        record(&mut tx, names.zip(&outcomes), Action::AttributesSet, actor).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Deletes attributes, audited. Returns the outcome of each entry: stored where there was such an attribute.
pub async fn delete(pool: &Pool, entries: &[AttributeKey], actor: &str) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = delete_in(&mut tx, entries).await?;
        let names = entries.iter().map(|entry| entry.name.as_str());
        record(&mut tx, names.zip(&outcomes), Action::AttributesDeleted, actor).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Does the same as [`delete`], in a transaction of the caller and not audited.
pub(in crate::store) async fn delete_in(
    connection: &mut Connection,
    entries: &[AttributeKey],
) -> Result<Vec<LoadOutcome>, StoreError> {
    let users = ids::find_users(&mut *connection, entries.iter().map(|entry| entry.user.as_str())).await?;
    let key = |entry: &AttributeKey| Some((*users.get(entry.user.as_str())?, entry.name.clone()));
    let (user_ids, names): (Vec<i64>, Vec<String>) = entries.iter().filter_map(key).unzip();
    let gone = sqlx::query!(
        "DELETE FROM user_attributes USING UNNEST($1::bigint[], $2::text[]) AS told (user_id, name)
         WHERE user_attributes.user_id = told.user_id AND user_attributes.name = told.name
         RETURNING user_attributes.user_id, user_attributes.name",
        &user_ids,
        &names,
    )
    .fetch_all(connection)
    .await?;
    let mut gone: HashSet<(i64, String)> = gone.into_iter().map(|row| (row.user_id, row.name)).collect();
    let outcome = |entry: &AttributeKey| LoadOutcome::of(key(entry).is_some_and(|key| gone.remove(&key)));
    Ok(entries.iter().map(outcome).collect())
}

/// Records in the audit how many attributes changed, and their names.
async fn record<'a>(
    connection: &mut Connection,
    entries: impl Iterator<Item = (&'a str, &'a LoadOutcome)>,
    action: Action,
    actor: &str,
) -> Result<(), StoreError> {
    let changed = entries.filter(|(_, outcome)| **outcome == LoadOutcome::Stored);
    let names: Vec<&str> = changed.map(|(name, _)| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let distinct: BTreeSet<&str> = names.iter().copied().collect();
    let shown: Vec<&str> = distinct.into_iter().take(MAX_NAMES).collect();
    let entry = audit::Entry {
        actor,
        action,
        subject: "user attributes",
        note: &shown.join(", "),
        row_count: names.len() as i64,
        snapshot_version: None,
    };
    audit::record(connection, entry).await
}

/// Returns up to `limit` attributes that follow the one named `after`, ascending by user and name.
pub async fn list(
    pool: &Pool,
    filter: &AttributeFilter,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<AttributeLoad>, StoreError> {
    let rows = sqlx::query!(
        "SELECT users.external_id, user_attributes.name, value
         FROM user_attributes JOIN users ON users.id = user_id
         WHERE ($1::text IS NULL OR users.external_id = $1)
           AND ($2::text IS NULL OR user_attributes.name = $2)
           AND ($3::text IS NULL OR value = $3)
           AND users.external_id >= $4 AND (users.external_id, user_attributes.name) > ($4, $5)
         ORDER BY users.external_id, user_attributes.name LIMIT $6",
        filter.user.as_ref().map(UserId::as_str),
        filter.name,
        filter.value,
        after.0,
        after.1,
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(AttributeLoad {
                user: UserId::stored(row.external_id).map_err(|error| StoreError::corrupt("users", error))?,
                name: row.name,
                value: row.value,
            })
        })
        .collect()
}

/// A user's value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeValue {
    pub name: String,
    pub user: String,
    pub value: String,
}

/// Reads the values that all users have of the attributes `names`, in any order.
pub async fn values(pool: &Pool, names: &[String]) -> Result<Vec<AttributeValue>, StoreError> {
    let mut transaction = pool.begin_unlimited().await?;
    let rows = sqlx::query_as!(
        AttributeValue,
        r#"SELECT user_attributes.name, external_id AS "user", user_attributes.value
           FROM user_attributes JOIN users ON users.id = user_id WHERE user_attributes.name = ANY($1)"#,
        names
    )
    .fetch_all(&mut *transaction)
    .await?;
    Ok(rows)
}
