//! Reads the users who could get a coupon, and the facts that decide about each of them.

use std::collections::HashMap;

use futures_util::try_join;

use chrono::TimeDelta;
use coupons::eligibility::Usage;
use coupons::targeting::UserRecords;
use domain::campaign::{Audience, CampaignState, Window};
use domain::consent::{Consents, Purpose};
use domain::id::{CampaignId, CouponId};
use domain::time::Timestamp;

use super::rows::coupon_id;
use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, without_timeouts};
use crate::store::snapshots::changes;

/// The number of ids in one row: a row for each id would cost more than reading the id does.
const CHUNK_IDS: i64 = 32_768;

/// The coupon whose audience to read, and what can be in its way.
#[derive(Debug, Clone)]
pub struct AudienceQuery<'a> {
    pub coupon: &'a CouponId,
    pub audience: Audience,
    /// An id that divides the users into two halves, roughly, one for each connection.
    pub middle: &'a str,
    /// The reservations of other campaigns that exclude the coupon.
    pub conflicts: Conflicts,
    /// The most coupons that a user is offered within `exposure_window_days`; `None` is no limit.
    pub max_exposures: Option<u32>,
    pub exposure_window_days: u32,
    /// The names and values of attributes in the rules of the coupon.
    pub attributes: Vec<(String, String)>,
}

/// The reservations of other campaigns that exclude a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    None,
    /// Reservations of exclusive campaigns.
    WithExclusive,
    /// All reservations, as the campaign of the coupon is exclusive.
    WithAny,
}

/// The users who could get a coupon, as of one moment.
#[derive(Debug)]
pub struct AudienceRead {
    pub now: Timestamp,
    pub keys: OfferKeys,
    /// The usage for a user who has neither reserved nor redeemed the coupon.
    pub usage: Usage,
    pub particulars: UserRecords,
    /// Ascending ids, one a line: ids hold no control characters.
    chunks: Vec<String>,
}

impl AudienceRead {
    /// Returns the ids of the users, ascending by their bytes.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.chunks.iter().flat_map(|chunk| chunk.split('\n'))
    }
}

/// The database keys of a coupon and its campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferKeys {
    pub coupon_id: i64,
    pub campaign_id: i64,
}

/// Reads an audience over two connections that see the same moment. Returns `None` when the coupon is unknown.
pub async fn read(pool: &Pool, query: &AudienceQuery<'_>) -> Result<Option<AudienceRead>, StoreError> {
    let (mut first, mut second, _) = changes::two_readers(pool).await?;
    try_join!(without_timeouts(&mut first), without_timeouts(&mut second))?;
    let Some((keys, now, usage)) = read_usage(&mut first, query).await? else {
        return Ok(None);
    };
    let (particulars, chunks) = match query.audience {
        Audience::Assigned => try_join!(
            read_particulars(&mut first, query, keys, now),
            read_assigned(&mut second, keys.campaign_id),
        )?,
        Audience::Everybody => {
            let first_half = async {
                let particulars = read_particulars(&mut first, query, keys, now).await?;
                Ok((particulars, read_users(&mut first, "", Some(query.middle)).await?))
            };
            let second_half = read_users(&mut second, query.middle, None);
            let ((particulars, mut chunks), more) = try_join!(first_half, second_half)?;
            chunks.extend(more);
            (particulars, chunks)
        }
    };
    Ok(Some(AudienceRead {
        now,
        keys,
        usage,
        particulars,
        chunks,
    }))
}

async fn read_usage(
    connection: &mut Connection,
    query: &AudienceQuery<'_>,
) -> Result<Option<(OfferKeys, Timestamp, Usage)>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT coupons.id, coupons.campaign_id, state, starts_at, ends_at, limit_minor, reserved_minor, spent_minor,
                  total_cap, reserved, redeemed, clock_timestamp() AS "now!"
           FROM coupons JOIN campaign_states ON campaign_states.campaign_id = coupons.campaign_id
           JOIN coupon_counters ON coupon_counters.coupon_id = coupons.id
           WHERE external_id = $1"#,
        query.coupon.as_str()
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let keys = OfferKeys {
        coupon_id: row.id,
        campaign_id: row.campaign_id,
    };
    let usage = Usage {
        state: state(&row.state)?,
        window: window(row.starts_at, row.ends_at)?,
        limit_minor: row.limit_minor,
        reserved_minor: row.reserved_minor,
        spent_minor: row.spent_minor,
        total_cap: row.total_cap,
        reserved: row.reserved,
        redeemed: row.redeemed,
        is_assigned: query.audience == Audience::Assigned,
        user_reserved: 0,
        user_redeemed: 0,
    };
    Ok(Some((keys, row.now, usage)))
}

async fn read_particulars(
    connection: &mut Connection,
    query: &AudienceQuery<'_>,
    keys: OfferKeys,
    now: Timestamp,
) -> Result<UserRecords, StoreError> {
    let usage = sqlx::query!(
        "SELECT external_id, reserved, redeemed FROM user_coupon_counters JOIN users ON users.id = user_id
         WHERE coupon_id = $1 AND reserved + redeemed > 0",
        keys.coupon_id
    )
    .fetch_all(&mut *connection)
    .await?;
    let usage = usage
        .into_iter()
        .map(|row| (row.external_id, (row.reserved, row.redeemed)));
    let exposures = match query.max_exposures {
        Some(max) => read_exposures(&mut *connection, query, keys, now, max).await?,
        None => Vec::new(),
    };
    let attributes = match query.attributes.is_empty() {
        true => Vec::new(),
        false => read_attributes(&mut *connection, &query.attributes).await?,
    };
    Ok(UserRecords {
        usage: usage.collect(),
        reserved: match query.conflicts {
            Conflicts::None => Vec::new(),
            Conflicts::WithExclusive => read_reserved(connection, keys, now, false).await?,
            Conflicts::WithAny => read_reserved(connection, keys, now, true).await?,
        },
        exposures,
        attributes,
    })
}

async fn read_reserved(
    connection: &mut Connection,
    keys: OfferKeys,
    now: Timestamp,
    of_any_campaign: bool,
) -> Result<Vec<(String, (CouponId, CampaignId))>, StoreError> {
    let rows = sqlx::query!(
        "SELECT users.external_id AS user_id, coupons.external_id AS coupon_id, campaigns.external_id AS campaign_id
         FROM reservations JOIN campaigns ON campaigns.id = reservations.campaign_id
         JOIN coupons ON coupons.id = reservations.coupon_id JOIN users ON users.id = reservations.user_id
         WHERE reservations.state = 'reserved' AND expires_at > $1 AND campaigns.id <> $2 AND ($3 OR is_exclusive)",
        now,
        keys.campaign_id,
        of_any_campaign,
    )
    .fetch_all(connection)
    .await?;
    let row = |user: String, coupon: String, campaign: String| {
        let campaign = CampaignId::stored(campaign).map_err(|error| StoreError::corrupt("campaigns", error))?;
        Ok((user, (coupon_id(coupon)?, campaign)))
    };
    rows.into_iter()
        .map(|found| row(found.user_id, found.coupon_id, found.campaign_id))
        .collect()
}

/// Reads the recent exposures of the users who were offered at least `max` other coupons and not this one.
async fn read_exposures(
    connection: &mut Connection,
    query: &AudienceQuery<'_>,
    keys: OfferKeys,
    now: Timestamp,
    max: u32,
) -> Result<Vec<(String, CouponId)>, StoreError> {
    let rows = sqlx::query!(
        r#"WITH full_up AS (
               SELECT user_id FROM exposures WHERE exposed_at > $1::timestamptz - make_interval(days => $2)
               GROUP BY user_id HAVING count(*) >= $3 AND NOT bool_or(coupon_id = $4)
           )
           SELECT users.external_id AS user_id, coupons.external_id AS coupon_id
           FROM full_up JOIN exposures USING (user_id) JOIN users ON users.id = user_id
           JOIN coupons ON coupons.id = coupon_id
           WHERE exposed_at > $1::timestamptz - make_interval(days => $2)"#,
        now,
        i32::try_from(query.exposure_window_days).unwrap_or(i32::MAX),
        i64::from(max),
        keys.coupon_id,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.user_id, coupon_id(row.coupon_id)?)))
        .collect()
}

async fn read_attributes(
    connection: &mut Connection,
    wanted: &[(String, String)],
) -> Result<Vec<(String, (String, String))>, StoreError> {
    let (names, values): (Vec<String>, Vec<String>) = wanted.iter().cloned().unzip();
    let rows = sqlx::query!(
        "SELECT external_id, user_attributes.name, user_attributes.value
         FROM (SELECT DISTINCT * FROM UNNEST($1::text[], $2::text[]) AS wanted (name, value)) AS wanted
         JOIN user_attributes ON (user_attributes.name, user_attributes.value) = (wanted.name, wanted.value)
         JOIN users ON users.id = user_id",
        &names,
        &values
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.external_id, (row.name, row.value)))
        .collect())
}

/// Reads all ids after `after`, up to and including `until` if it is given, in chunks.
async fn read_users(connection: &mut Connection, after: &str, until: Option<&str>) -> Result<Vec<String>, StoreError> {
    let (mut chunks, mut after) = (Vec::new(), after.to_owned());
    // No id comes before the empty one.
    while until != Some("") {
        let chunk = sqlx::query_scalar!(
            r#"SELECT string_agg(external_id, E'\n') FROM (
                   SELECT external_id FROM users WHERE external_id > $1 AND NOT is_pseudonym
                   ORDER BY external_id LIMIT $2
               ) AS chunk"#,
            after,
            CHUNK_IDS
        )
        .fetch_one(&mut *connection)
        .await?;
        let Some(mut chunk) = chunk else { break };
        let last = chunk.rsplit('\n').next().unwrap_or_default();
        let is_past = until.is_some_and(|until| last > until);
        after = last.to_owned();
        if is_past {
            chunk = lines_until(chunk, until.unwrap_or_default());
        }
        // An empty chunk would read as one empty id.
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        if is_past {
            break;
        }
    }
    Ok(chunks)
}

/// Returns the lines of `chunk`, which are ascending, up to and including `until`.
fn lines_until(mut chunk: String, until: &str) -> String {
    let kept = chunk.split('\n').take_while(|line| *line <= until);
    let length: usize = kept.map(|line| line.len() + 1).sum();
    chunk.truncate(length.saturating_sub(1));
    chunk
}

/// Reads the users who are assigned to the campaign, in one chunk.
async fn read_assigned(connection: &mut Connection, campaign_id: i64) -> Result<Vec<String>, StoreError> {
    let parts = sqlx::query_scalar!(
        r#"SELECT string_agg(external_id, E'\n') AS "ids!" FROM assignments JOIN users ON users.id = user_id
           WHERE campaign_id = $1 AND NOT is_pseudonym GROUP BY user_id / $2"#,
        campaign_id,
        CHUNK_IDS,
    )
    .fetch_all(connection)
    .await?;
    let mut ids: Vec<&str> = parts.iter().flat_map(|part| part.split('\n')).collect();
    ids.sort_unstable();
    let chunk = ids.join("\n");
    Ok(Some(chunk).filter(|chunk| !chunk.is_empty()).into_iter().collect())
}

/// The facts that may have changed since an audience was read.
#[derive(Debug)]
pub struct Recheck {
    pub now: Timestamp,
    pub state: CampaignState,
    pub window: Window,
    /// By external id; users who no longer exist are missing.
    pub users: HashMap<String, UserState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserState {
    pub user_id: i64,
    /// The consents to marketing and profiling, and whether the user is suppressed.
    pub consents: Consents,
    /// When a user of this id was erased who has come back since.
    erased_at: Option<Timestamp>,
}

/// How far the clocks of servers and of the database may differ.
const CLOCK_DIFFERENCE: TimeDelta = TimeDelta::minutes(1);

impl UserState {
    /// Whether the user has been erased and has come back since `ranked_at`: whoever was ranked then is somebody else.
    pub fn has_come_back_since(&self, ranked_at: Timestamp) -> bool {
        self.erased_at
            .is_some_and(|erased_at| erased_at > ranked_at - CLOCK_DIFFERENCE)
    }
}

/// Reads the present state of a campaign, and of the users with these external ids.
pub async fn recheck(pool: &Pool, keys: OfferKeys, ids: &[String]) -> Result<Recheck, StoreError> {
    let mut connection = pool.acquire().await?;
    let campaign = sqlx::query!(
        r#"SELECT state, starts_at, ends_at, clock_timestamp() AS "now!" FROM campaign_states WHERE campaign_id = $1"#,
        keys.campaign_id
    )
    .fetch_one(&mut *connection)
    .await?;
    let users = user_states(&mut connection, ids).await?;
    Ok(Recheck {
        now: campaign.now,
        state: state(&campaign.state)?,
        window: window(campaign.starts_at, campaign.ends_at)?,
        users,
    })
}

/// Reads the present consents of the users with these external ids, by these ids.
pub async fn recheck_users(pool: &Pool, ids: &[String]) -> Result<HashMap<String, UserState>, StoreError> {
    user_states(&mut *pool.acquire().await?, ids).await
}

async fn user_states(connection: &mut Connection, ids: &[String]) -> Result<HashMap<String, UserState>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT users.id, users.external_id, users.erased_at, suppressions.user_id IS NOT NULL AS "is_suppressed!",
                  marketing.is_granted AS "marketing?", profiling.is_granted AS "profiling?"
           FROM UNNEST($1::text[]) AS asked (external_id) JOIN users USING (external_id)
           LEFT JOIN consents AS marketing ON marketing.user_id = users.id AND marketing.purpose = 'marketing'
           LEFT JOIN consents AS profiling ON profiling.user_id = users.id AND profiling.purpose = 'profiling'
           LEFT JOIN suppressions ON suppressions.user_id = users.id"#,
        ids
    )
    .fetch_all(connection)
    .await?;
    let users = rows.into_iter().map(|row| {
        let consents = Consents::default()
            .with(Purpose::Marketing, row.marketing)
            .with(Purpose::Profiling, row.profiling)
            .suppressed(row.is_suppressed);
        let state = UserState {
            user_id: row.id,
            consents,
            erased_at: row.erased_at,
        };
        (row.external_id, state)
    });
    Ok(users.collect())
}

/// A list of users that is handed out, for the audit.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// The caller who gets it.
    pub actor: &'a str,
    pub kind: ListingKind,
    /// The coupon, or the item or category that is advertised.
    pub subject: &'a str,
    pub note: &'a str,
    pub rows: ListedRows,
    pub snapshot_version: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingKind {
    /// The targets of a coupon.
    Targets,
    /// The audience of an item or a category.
    Audience,
}

/// The number of rows of a list.
#[derive(Debug, Clone, Copy)]
pub enum ListedRows {
    /// None has left yet, and no more than these may.
    AtMost(u64),
    /// These have left.
    Sent(u64),
}

/// Records in the audit that users are listed.
pub async fn log_listing(pool: &Pool, listing: Listing<'_>) -> Result<(), StoreError> {
    let (action, rows) = match (listing.kind, listing.rows) {
        (ListingKind::Targets, ListedRows::AtMost(rows)) => (Action::TargetsOpened, rows),
        (ListingKind::Targets, ListedRows::Sent(rows)) => (Action::TargetsListed, rows),
        (ListingKind::Audience, ListedRows::AtMost(rows)) => (Action::AudienceOpened, rows),
        (ListingKind::Audience, ListedRows::Sent(rows)) => (Action::AudienceListed, rows),
    };
    let entry = audit::Entry {
        actor: listing.actor,
        action,
        subject: listing.subject,
        note: listing.note,
        row_count: i64::try_from(rows).unwrap_or(i64::MAX),
        snapshot_version: Some(listing.snapshot_version),
    };
    audit::record(&mut *pool.acquire().await?, entry).await
}

fn state(state: &str) -> Result<CampaignState, StoreError> {
    state
        .parse()
        .map_err(|error| StoreError::corrupt("campaign_states", error))
}

fn window(starts_at: Timestamp, ends_at: Timestamp) -> Result<Window, StoreError> {
    Window::new(starts_at, ends_at).map_err(|error| StoreError::corrupt("campaign_states", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_between_its_lines() {
        let check = |until: &str, expected: &str| {
            assert_eq!(lines_until("b\nbb\nd".to_owned(), until), expected, "{until}");
        };
        check("a", "");
        check("b", "b");
        check("ba", "b");
        check("c", "b\nbb");
        check("d", "b\nbb\nd");
    }
}
