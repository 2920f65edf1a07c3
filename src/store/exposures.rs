//! Who would have been offered a coupon, in either arm. The first time counts.

use crate::domain::id::{CouponId, UserId};

use super::error::StoreError;
use super::pool::Pool;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    pub coupon: CouponId,
    pub user: UserId,
    pub is_held_out: bool,
}

/// Logs `exposures` of users and coupons that there are, once each. `snapshot_version`: what they were chosen by, 0 for
/// none. Returns how many were new.
pub async fn record(pool: &Pool, exposures: &[Exposure], snapshot_version: i64) -> Result<u64, StoreError> {
    if exposures.is_empty() {
        return Ok(0);
    }
    let coupons: Vec<String> = exposures.iter().map(|exposure| exposure.coupon.to_string()).collect();
    let users: Vec<String> = exposures.iter().map(|exposure| exposure.user.to_string()).collect();
    let held_out: Vec<bool> = exposures.iter().map(|exposure| exposure.is_held_out).collect();
    let recorded = sqlx::query!(
        "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
         SELECT coupons.id, users.id, coupons.campaign_id, given.is_held_out, $4
         FROM UNNEST($1::text[], $2::text[], $3::boolean[]) AS given (coupon, user_name, is_held_out)
         JOIN coupons ON coupons.external_id = given.coupon JOIN users ON users.external_id = given.user_name
         ORDER BY coupons.id, users.id
         ON CONFLICT DO NOTHING",
        &coupons,
        &users,
        &held_out,
        snapshot_version,
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(recorded.rows_affected())
}
