//! Logs which users were offered a coupon, or would have been: both arms of the holdout. Only the first time counts for a
//! user and a coupon.

use domain::id::{CouponId, UserId};

use crate::store::coupons::audience::OfferKeys;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// A user and their arm of the holdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    pub user_id: i64,
    pub is_held_out: bool,
}

/// Logs `exposures` to one coupon. Keeps the first time of users who were exposed before.
pub async fn log(
    pool: &Pool,
    keys: OfferKeys,
    snapshot_version: i64,
    exposures: &[Exposure],
) -> Result<(), StoreError> {
    if exposures.is_empty() {
        return Ok(());
    }
    let user_ids: Vec<i64> = exposures.iter().map(|exposure| exposure.user_id).collect();
    let held_out: Vec<bool> = exposures.iter().map(|exposure| exposure.is_held_out).collect();
    pool.write(|mut tx| {
        let (user_ids, held_out) = (&user_ids, &held_out);
        async move {
            // Rows are inserted in the order of their keys, so that two transactions with the same users cannot deadlock.
            sqlx::query!(
                "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
                 SELECT $1, user_id, $2, is_held_out, $3
                 FROM UNNEST($4::bigint[], $5::boolean[]) AS exposed (user_id, is_held_out)
                 -- Others were erased since they were chosen.
                 JOIN users ON users.id = user_id AND NOT is_pseudonym ORDER BY user_id
                 ON CONFLICT DO NOTHING",
                keys.coupon_id,
                keys.campaign_id,
                snapshot_version,
                user_ids,
                held_out,
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        }
    })
    .await
}

/// Logs that one user was exposed to `coupons`, each with whether the user is held out of it.
///
/// `snapshot_version`: 0 for none.
pub async fn log_of_user(
    pool: &Pool,
    user: &UserId,
    snapshot_version: i64,
    coupons: &[(CouponId, bool)],
) -> Result<(), StoreError> {
    if coupons.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = coupons.iter().map(|(coupon, _)| coupon.to_string()).collect();
    let held_out: Vec<bool> = coupons.iter().map(|(_, is_held_out)| *is_held_out).collect();
    sqlx::query!(
        "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
         SELECT coupons.id, users.id, coupons.campaign_id, given.is_held_out, $4
         FROM UNNEST($1::text[], $2::boolean[]) AS given (external_id, is_held_out)
         JOIN coupons ON coupons.external_id = given.external_id JOIN users ON users.external_id = $3 AND NOT is_pseudonym
         ORDER BY coupons.id ON CONFLICT DO NOTHING",
        &ids,
        &held_out,
        user.as_str(),
        snapshot_version,
    )
    .execute(&mut *pool.acquire().await?)
    .await?;
    Ok(())
}
