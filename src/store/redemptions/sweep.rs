//! Closes expired reservations.

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// The most reservations that one transaction closes.
const BATCH: i64 = 500;

/// Closes the expired reservations and gives back what they hold. Skips those that are locked; the next sweep closes them.
/// Returns their number.
pub async fn sweep(pool: &Pool) -> Result<u64, StoreError> {
    let mut swept = 0;
    loop {
        let in_batch = pool
            .write(|mut tx| async move {
                let expired = sqlx::query_as!(
                    Expired,
                    "SELECT id, user_id, coupon_id, campaign_id, amount_minor
                     FROM reservations WHERE state = 'reserved' AND expires_at <= clock_timestamp()
                     ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED",
                    BATCH
                )
                .fetch_all(&mut *tx)
                .await?;
                if !expired.is_empty() {
                    give_back(&mut tx, &expired).await?;
                    tx.commit().await?;
                }
                Ok(expired.len() as i64)
            })
            .await?;
        swept += in_batch as u64;
        if in_batch < BATCH {
            return Ok(swept);
        }
    }
}

/// A reservation under lock.
struct Expired {
    id: i64,
    user_id: i64,
    coupon_id: i64,
    campaign_id: i64,
    amount_minor: i64,
}

/// Closes `reservations` and gives what they hold back to the counters. Each kind of counter is locked in the order of its
/// keys, so that two sweeps cannot deadlock.
async fn give_back(connection: &mut Connection, reservations: &[Expired]) -> Result<(), StoreError> {
    let column = |of: fn(&Expired) -> i64| reservations.iter().map(of).collect::<Vec<i64>>();
    let (user_ids, coupon_ids) = (column(|expired| expired.user_id), column(|expired| expired.coupon_id));
    let (campaign_ids, amounts) = (
        column(|expired| expired.campaign_id),
        column(|expired| expired.amount_minor),
    );
    sqlx::query!(
        "SELECT counters.user_id FROM user_coupon_counters AS counters
         WHERE (user_id, coupon_id) IN (SELECT * FROM UNNEST($1::bigint[], $2::bigint[]))
         ORDER BY user_id, coupon_id FOR UPDATE",
        &user_ids,
        &coupon_ids
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!(
        "SELECT coupon_id FROM coupon_counters WHERE coupon_id = ANY($1::bigint[]) ORDER BY coupon_id FOR UPDATE",
        &coupon_ids
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!(
        "SELECT campaign_id FROM campaign_states WHERE campaign_id = ANY($1::bigint[]) ORDER BY campaign_id FOR UPDATE",
        &campaign_ids
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!(
        "WITH given AS (
             SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                 AS given (id, user_id, coupon_id, campaign_id, amount_minor)
         ), own AS (
             UPDATE user_coupon_counters AS counters SET reserved = reserved - held.count
             FROM (SELECT user_id, coupon_id, count(*) FROM given GROUP BY user_id, coupon_id) AS held
             WHERE counters.user_id = held.user_id AND counters.coupon_id = held.coupon_id
         ), counted AS (
             UPDATE coupon_counters AS counters SET reserved = reserved - held.count
             FROM (SELECT coupon_id, count(*) FROM given GROUP BY coupon_id) AS held
             WHERE counters.coupon_id = held.coupon_id
         ), paid AS (
             UPDATE campaign_states AS states SET reserved_minor = reserved_minor - held.amount_minor
             FROM (SELECT campaign_id, sum(amount_minor)::bigint AS amount_minor FROM given GROUP BY campaign_id) AS held
             WHERE states.campaign_id = held.campaign_id
         ), closed AS (
             UPDATE reservations SET state = 'expired', closed_at = clock_timestamp()
             FROM given WHERE reservations.id = given.id
         )
         INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, reservation_id, reserved_minor, spent_minor, reserved, redeemed)
         SELECT 'expire', campaign_id, coupon_id, user_id, id, -amount_minor, 0, -1, 0 FROM given",
        &column(|expired| expired.id),
        &user_ids,
        &coupon_ids,
        &campaign_ids,
        &amounts,
    )
    .execute(connection)
    .await?;
    Ok(())
}
