//! Assigns users to campaigns and takes them out again, and lists who is assigned.

use std::collections::{BTreeMap, HashMap};

use domain::error::InvalidField;
use domain::id::{CampaignId, MerchantId, UserId};
use domain::time::Timestamp;

use super::loads::{self, AssignmentLoad, no_campaign};
use crate::store::access::audit::{self, Action};
use crate::store::catalog::ids;
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::postgres::pool::{Connection, Pool};

/// The caller who changes assignments.
#[derive(Debug, Clone, Copy)]
pub struct Assigner<'a> {
    pub actor: &'a str,
    /// The merchant to which other merchants' campaigns do not exist; `None` sees all.
    pub viewer: Option<&'a MerchantId>,
    pub unknown_users: UnknownUsers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownUsers {
    Create,
    Refuse,
}

/// A user who is assigned to a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedUser {
    pub user: UserId,
    pub assigned_at: Timestamp,
}

/// Assigns users to campaigns, audited. Returns the outcome of each entry.
pub async fn assign(pool: &Pool, entries: &[AssignmentLoad], by: Assigner<'_>) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let campaigns = visible(&mut tx, entries, by.viewer).await?;
        let users = ids::find_users(&mut tx, entries.iter().map(|entry| entry.user.as_str())).await?;
        let refusal = |entry: &AssignmentLoad| match campaigns.contains_key(entry.campaign.as_str()) {
            false => Some(no_campaign(&entry.campaign)),
            true if by.unknown_users == UnknownUsers::Create || users.contains_key(entry.user.as_str()) => None,
            true => Some(no_user(&entry.user)),
        };
        let mut outcomes: Vec<LoadOutcome> = entries
            .iter()
            .map(|entry| refusal(entry).map_or(LoadOutcome::Merged, LoadOutcome::Refused))
            .collect();
        let (positions, accepted): (Vec<usize>, Vec<AssignmentLoad>) = accepted(entries, &outcomes).unzip();
        let assigned = loads::assign_in(&mut tx, pool, &accepted).await?;
        for (position, outcome) in positions.into_iter().zip(assigned) {
            outcomes[position] = outcome;
        }
        record(&mut tx, entries, &outcomes, Action::UsersAssigned, by.actor).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Takes users out of campaigns, audited. Returns the outcome of each entry: stored where the user was assigned.
pub async fn unassign(
    pool: &Pool,
    entries: &[AssignmentLoad],
    by: Assigner<'_>,
) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let campaigns = visible(&mut tx, entries, by.viewer).await?;
        let users = ids::find_users(&mut tx, entries.iter().map(|entry| entry.user.as_str())).await?;
        let key = |entry: &AssignmentLoad| {
            let campaign = campaigns.get(entry.campaign.as_str())?;
            Some((*campaign, *users.get(entry.user.as_str())?))
        };
        let (campaign_ids, user_ids): (Vec<i64>, Vec<i64>) = entries.iter().filter_map(key).unzip();
        let gone = sqlx::query!(
            "DELETE FROM assignments USING UNNEST($1::bigint[], $2::bigint[]) AS told (campaign_id, user_id)
             WHERE assignments.campaign_id = told.campaign_id AND assignments.user_id = told.user_id
             RETURNING assignments.campaign_id, assignments.user_id",
            &campaign_ids,
            &user_ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut gone: std::collections::HashSet<(i64, i64)> =
            gone.into_iter().map(|row| (row.campaign_id, row.user_id)).collect();
        let outcomes: Vec<LoadOutcome> = entries
            .iter()
            .map(|entry| match campaigns.contains_key(entry.campaign.as_str()) {
                false => LoadOutcome::Refused(no_campaign(&entry.campaign)),
                true if key(entry).is_some_and(|key| gone.remove(&key)) => LoadOutcome::Stored,
                true => LoadOutcome::Merged,
            })
            .collect();
        record(&mut tx, entries, &outcomes, Action::UsersUnassigned, by.actor).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

/// Returns the entries that are not refused, with their positions.
fn accepted<'a>(
    entries: &'a [AssignmentLoad],
    outcomes: &'a [LoadOutcome],
) -> impl Iterator<Item = (usize, AssignmentLoad)> + 'a {
    let pairs = entries.iter().zip(outcomes).enumerate();
    pairs
        .filter(|(_, (_, outcome))| !matches!(outcome, LoadOutcome::Refused(_)))
        .map(|(position, (entry, _))| (position, entry.clone()))
}

fn no_user(id: &UserId) -> InvalidField {
    InvalidField::new("user_id", "USER_NOT_FOUND", format!("there is no user {id}"))
}

/// Returns the keys of those campaigns of `entries` that `viewer` may see.
async fn visible(
    connection: &mut Connection,
    entries: &[AssignmentLoad],
    viewer: Option<&MerchantId>,
) -> Result<HashMap<String, i64>, StoreError> {
    let mut ids: Vec<String> = entries.iter().map(|entry| entry.campaign.to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    let rows = sqlx::query!(
        r#"SELECT campaigns.id AS "id!", campaigns.external_id AS "external_id!"
         FROM campaigns LEFT JOIN merchants AS owners ON owners.id = merchant_id
         WHERE campaigns.external_id = ANY($1::text[]) AND ($2::text IS NULL OR owners.external_id = $2)"#,
        &ids,
        viewer.map(MerchantId::as_str),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.external_id, row.id)).collect())
}

/// Records in the audit how many users of each campaign changed.
async fn record(
    connection: &mut Connection,
    entries: &[AssignmentLoad],
    outcomes: &[LoadOutcome],
    action: Action,
    actor: &str,
) -> Result<(), StoreError> {
    let mut changed: BTreeMap<&CampaignId, i64> = BTreeMap::new();
    for (entry, outcome) in entries.iter().zip(outcomes) {
        if *outcome == LoadOutcome::Stored {
            *changed.entry(&entry.campaign).or_default() += 1;
        }
    }
    for (campaign, users) in changed {
        let entry = audit::Entry {
            actor,
            action,
            subject: campaign.as_str(),
            note: "",
            row_count: users,
            snapshot_version: None,
        };
        audit::record(connection, entry).await?;
    }
    Ok(())
}

/// Returns up to `limit` users who are assigned to `campaign` and whose ids follow `after`, ascending by id.
///
/// `user`: looks for this user alone.
pub async fn list(
    pool: &Pool,
    campaign: &CampaignId,
    user: Option<&UserId>,
    after: &str,
    limit: i64,
) -> Result<Vec<AssignedUser>, StoreError> {
    let rows = sqlx::query!(
        "SELECT users.external_id, assigned_at FROM assignments JOIN users ON users.id = user_id
         WHERE campaign_id = (SELECT id FROM campaigns WHERE external_id = $1)
           AND users.external_id > $2 AND ($3::text IS NULL OR users.external_id = $3)
         ORDER BY users.external_id LIMIT $4",
        campaign.as_str(),
        after,
        user.map(UserId::as_str),
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(AssignedUser {
                user: UserId::stored(row.external_id).map_err(|error| StoreError::corrupt("users", error))?,
                assigned_at: row.assigned_at,
            })
        })
        .collect()
}
