//! What of a user and of coupons changes too often to be held in memory: two queries, however many coupons.

use std::collections::{HashMap, HashSet};

use crate::coupon::eligibility::{Usage, UserFacts};
use crate::domain::consent::{Consents, Purpose};
use crate::domain::coupon::Window;
use crate::domain::id::{CampaignId, CouponId, UserId};
use crate::domain::time::Timestamp;

use super::book::coupon_id;
use super::error::StoreError;
use super::pool::{Connection, Pool};

/// How a user stands with some coupons at one moment.
#[derive(Debug, Clone)]
pub struct Standing {
    pub user: UserFacts,
    /// Of the coupons that there are.
    pub usages: HashMap<CouponId, Usage>,
    /// Coupons that the user was ever exposed to, in either arm.
    pub exposed: HashSet<CouponId>,
    /// The database's clock.
    pub now: Timestamp,
    /// `None` for a user that there is not.
    pub(super) user_key: Option<i64>,
}

/// How `user` stands with `coupons` now; exposures of so many days are told one by one.
pub async fn standing(
    pool: &Pool,
    user: &UserId,
    coupons: &[CouponId],
    exposure_window_days: u32,
) -> Result<Standing, StoreError> {
    let mut connection = pool.acquire().await?;
    standing_in(&mut connection, user, coupons, exposure_window_days).await
}

pub(super) async fn standing_in(
    connection: &mut Connection,
    user: &UserId,
    coupons: &[CouponId],
    exposure_window_days: u32,
) -> Result<Standing, StoreError> {
    let (facts, user_key, now) = read_user(connection, user, exposure_window_days).await?;
    let mut standing = Standing {
        user: facts,
        usages: HashMap::with_capacity(coupons.len()),
        exposed: HashSet::new(),
        now,
        user_key,
    };
    let ids: Vec<String> = coupons.iter().map(ToString::to_string).collect();
    let rows = sqlx::query_as!(
        UsageRow,
        r#"SELECT coupons.external_id, state, starts_at, ends_at, limit_minor, reserved_minor, spent_minor, total_cap,
                  counters.reserved, counters.redeemed, assignments.user_id IS NOT NULL AS "is_assigned!",
                  COALESCE(own.reserved, 0) AS "user_reserved!", COALESCE(own.redeemed, 0) AS "user_redeemed!",
                  exposures.user_id IS NOT NULL AS "is_exposed!"
           FROM coupons
           JOIN campaign_states ON campaign_states.campaign_id = coupons.campaign_id
           JOIN coupon_counters AS counters ON counters.coupon_id = coupons.id
           LEFT JOIN user_coupon_counters AS own ON own.coupon_id = coupons.id AND own.user_id = $2
           LEFT JOIN assignments ON assignments.campaign_id = coupons.campaign_id AND assignments.user_id = $2
           LEFT JOIN exposures ON exposures.coupon_id = coupons.id AND exposures.user_id = $2
           WHERE coupons.external_id = ANY($1::text[])"#,
        &ids,
        user_key,
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let id = coupon_id(row.external_id.clone())?;
        if row.is_exposed {
            standing.exposed.insert(id.clone());
        }
        standing.usages.insert(id, row.usage()?);
    }
    Ok(standing)
}

async fn read_user(
    connection: &mut Connection,
    user: &UserId,
    exposure_window_days: u32,
) -> Result<(UserFacts, Option<i64>, Timestamp), StoreError> {
    let days = i32::try_from(exposure_window_days).unwrap_or(i32::MAX);
    let row = sqlx::query!(
        r#"SELECT clock_timestamp() AS "now!", users.id AS "id?",
                  (SELECT is_granted FROM consents WHERE user_id = users.id AND purpose = 'marketing') AS marketing,
                  (SELECT is_granted FROM consents WHERE user_id = users.id AND purpose = 'profiling') AS profiling,
                  (SELECT is_granted FROM consents WHERE user_id = users.id AND purpose = 'training') AS training,
                  EXISTS (SELECT FROM suppressions WHERE user_id = users.id) AS "is_suppressed!",
                  ARRAY(SELECT name FROM user_attributes WHERE user_id = users.id ORDER BY name) AS "names!",
                  ARRAY(SELECT value FROM user_attributes WHERE user_id = users.id ORDER BY name) AS "values!",
                  ARRAY(SELECT coupons.external_id FROM exposures JOIN coupons ON coupons.id = coupon_id
                        WHERE user_id = users.id AND exposed_at > clock_timestamp() - make_interval(days => $2))
                      AS "exposed!",
                  ARRAY(SELECT coupons.external_id FROM reservations JOIN coupons ON coupons.id = coupon_id
                        WHERE user_id = users.id AND state = 'reserved' AND expires_at > clock_timestamp()
                        ORDER BY reservations.id) AS "reserved_coupons!",
                  ARRAY(SELECT campaigns.external_id FROM reservations JOIN campaigns ON campaigns.id = campaign_id
                        WHERE user_id = users.id AND state = 'reserved' AND expires_at > clock_timestamp()
                        ORDER BY reservations.id) AS "reserved_campaigns!"
           FROM (VALUES (1)) AS always LEFT JOIN users ON users.external_id = $1"#,
        user.as_str(),
        days,
    )
    .fetch_one(connection)
    .await?;
    let consents = Consents::default()
        .with(Purpose::Marketing, row.marketing)
        .with(Purpose::Profiling, row.profiling)
        .with(Purpose::Training, row.training)
        .suppressed(row.is_suppressed);
    let campaign = |id: String| CampaignId::new(id).map_err(|error| StoreError::corrupt("campaigns", error));
    let reserved = row.reserved_coupons.into_iter().zip(row.reserved_campaigns);
    let facts = UserFacts {
        id: user.clone(),
        is_known: row.id.is_some(),
        consents,
        attributes: row.names.into_iter().zip(row.values).collect(),
        recent_exposures: row.exposed.into_iter().map(coupon_id).collect::<Result<_, _>>()?,
        reserved: reserved
            .map(|(coupon, of)| Ok((coupon_id(coupon)?, campaign(of)?)))
            .collect::<Result<_, StoreError>>()?,
    };
    Ok((facts, row.id, row.now))
}

struct UsageRow {
    external_id: String,
    state: String,
    starts_at: Timestamp,
    ends_at: Timestamp,
    limit_minor: Option<i64>,
    reserved_minor: i64,
    spent_minor: i64,
    total_cap: Option<i64>,
    reserved: i64,
    redeemed: i64,
    is_assigned: bool,
    user_reserved: i64,
    user_redeemed: i64,
    is_exposed: bool,
}

impl UsageRow {
    fn usage(self) -> Result<Usage, StoreError> {
        let corrupt = |error| StoreError::corrupt("campaign_states", error);
        Ok(Usage {
            state: self.state.parse().map_err(corrupt)?,
            window: Window::new(self.starts_at, self.ends_at).map_err(corrupt)?,
            limit_minor: self.limit_minor,
            reserved_minor: self.reserved_minor,
            spent_minor: self.spent_minor,
            total_cap: self.total_cap,
            reserved: self.reserved,
            redeemed: self.redeemed,
            is_assigned: self.is_assigned,
            user_reserved: self.user_reserved,
            user_redeemed: self.user_redeemed,
        })
    }
}
