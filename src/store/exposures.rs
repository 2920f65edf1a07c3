//! Who was offered a coupon, or would have been: both arms of the holdout.

use super::audience::OfferKeys;
use super::error::StoreError;
use super::pool::Pool;

/// A user and the arm they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    pub user_id: i64,
    pub is_held_out: bool,
}

/// Logs `exposures`; of a user who was exposed before, the first time stays.
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
            // In the order of the keys, so that two who log the same users do not wait for one another.
            sqlx::query!(
                "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
                 SELECT $1, user_id, $2, is_held_out, $3
                 FROM UNNEST($4::bigint[], $5::boolean[]) AS exposed (user_id, is_held_out) ORDER BY user_id
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
