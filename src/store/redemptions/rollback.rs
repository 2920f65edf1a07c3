//! Rolls redemptions back.

use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::redemptions::requests::{self, Begun, Done, Request};
use domain::id::RedemptionId;
use domain::redemption::Redemption;
use domain::time::Timestamp;

use super::stored::StoredRedemption;

/// The reason why a redemption was not rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error("there is no redemption {0}")]
    UnknownRedemption(RedemptionId),
    #[error(
        "the amount must be at most the {left_minor} minor units that are left of the redemption, is {amount_minor}"
    )]
    AmountTooLarge { left_minor: i64, amount_minor: i64 },
    #[error("nothing is left of redemption {0} to give back")]
    NothingLeft(RedemptionId),
    #[error(
        "the cap can be restored only when nothing is left of the redemption; {left_minor} minor units would be left"
    )]
    CapNotRestorable { left_minor: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone)]
pub struct Rollback {
    pub redemption: RedemptionId,
    /// `None` takes all that is left.
    pub amount_minor: Option<i64>,
    /// Whether the user may have the coupon again.
    pub restore_cap: bool,
}

/// Rolls a redemption back, in part or as a whole.
pub async fn rollback(pool: &Pool, request: &Request, rollback: &Rollback) -> Result<Done<Redemption>, RollbackError> {
    pool.write(|mut tx| async move {
        match requests::begin::<StoredRedemption>(&mut tx, request).await? {
            Begun::New => {}
            Begun::Before(stored) => return Ok(Ok(Done::Before(stored.try_into()?))),
            Begun::Reused => return Ok(Ok(Done::Reused)),
        }
        let Some(used) = lock_redemption(&mut tx, &rollback.redemption).await? else {
            return Ok(Err(RollbackError::UnknownRedemption(rollback.redemption.clone())));
        };
        let undone = match used.undone_by(rollback) {
            Ok(undone) => undone,
            Err(error) => return Ok(Err(error)),
        };
        requests::finish(&mut tx, request, &undone).await?;
        undo(&mut tx, &used, &undone).await?;
        tx.commit().await?;
        Ok(Ok(Done::Now(undone.try_into()?)))
    })
    .await?
}

/// A redemption, locked together with its user.
struct Used {
    id: i64,
    user_id: i64,
    coupon_id: i64,
    campaign_id: i64,
    external_id: String,
    reservation: Option<String>,
    user: String,
    coupon: String,
    campaign: String,
    cart_id: Option<String>,
    amount_minor: i64,
    currency: String,
    rolled_back_minor: i64,
    is_cap_restored: bool,
    order_id: Option<String>,
    redeemed_at: Timestamp,
}

impl Used {
    /// Returns the redemption as it is after `rollback`.
    fn undone_by(&self, rollback: &Rollback) -> Result<StoredRedemption, RollbackError> {
        let left_minor = self.amount_minor - self.rolled_back_minor;
        let amount_minor = rollback.amount_minor.unwrap_or(left_minor);
        let restores_cap = rollback.restore_cap && !self.is_cap_restored;
        if left_minor == 0 && !restores_cap {
            return Err(RollbackError::NothingLeft(rollback.redemption.clone()));
        }
        if amount_minor > left_minor {
            return Err(RollbackError::AmountTooLarge {
                left_minor,
                amount_minor,
            });
        }
        if rollback.restore_cap && amount_minor < left_minor {
            let left_minor = left_minor - amount_minor;
            return Err(RollbackError::CapNotRestorable { left_minor });
        }
        Ok(StoredRedemption {
            id: self.external_id.clone(),
            reservation: self.reservation.clone(),
            user: self.user.clone(),
            coupon: self.coupon.clone(),
            campaign: Some(self.campaign.clone()),
            cart: self.cart_id.clone(),
            amount_minor: self.amount_minor,
            currency: self.currency.clone(),
            rolled_back_minor: self.rolled_back_minor + amount_minor,
            is_cap_restored: self.is_cap_restored || restores_cap,
            order: self.order_id.clone(),
            redeemed_at: self.redeemed_at,
        })
    }
}

async fn lock_redemption(connection: &mut Connection, redemption: &RedemptionId) -> Result<Option<Used>, StoreError> {
    sqlx::query!(
        "SELECT users.id FROM users JOIN redemptions ON redemptions.user_id = users.id
         WHERE redemptions.external_id = $1 FOR NO KEY UPDATE OF users",
        redemption.as_str()
    )
    .fetch_optional(&mut *connection)
    .await?;
    let used = sqlx::query_as!(
        Used,
        r#"SELECT redemptions.id, redemptions.user_id, redemptions.coupon_id, redemptions.campaign_id,
                  redemptions.external_id, reservations.external_id AS "reservation?", users.external_id AS "user",
                  coupons.external_id AS coupon, campaigns.external_id AS campaign, cart_id, redemptions.amount_minor, currency_code AS currency, rolled_back_minor,
                  is_cap_restored, order_id, redeemed_at
           FROM redemptions
           LEFT JOIN reservations ON reservations.id = reservation_id
           JOIN users ON users.id = redemptions.user_id
           JOIN coupons ON coupons.id = redemptions.coupon_id
           JOIN campaigns ON campaigns.id = redemptions.campaign_id
           WHERE redemptions.external_id = $1 FOR UPDATE OF redemptions"#,
        redemption.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(used)
}

/// Changes the redemption `used` into `undone`, and gives the difference back to the counters.
async fn undo(connection: &mut Connection, used: &Used, undone: &StoredRedemption) -> Result<(), StoreError> {
    let written = sqlx::query!(
        "WITH own AS (
             UPDATE user_coupon_counters SET redeemed = redeemed - $5 WHERE user_id = $1 AND coupon_id = $2
             RETURNING coupon_id
         ), counted AS (
             UPDATE coupon_counters SET redeemed = redeemed - $5 WHERE coupon_id = (SELECT coupon_id FROM own)
             RETURNING coupon_id
         ), paid AS (
             UPDATE campaign_states SET spent_minor = spent_minor - $4
             WHERE campaign_id = $3 AND EXISTS (SELECT FROM counted)
             RETURNING campaign_id
         ), changed AS (
             UPDATE redemptions SET rolled_back_minor = $7, is_cap_restored = $8
             WHERE id = $6 AND EXISTS (SELECT FROM paid) RETURNING id
         )
         INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, redemption_id, reserved_minor, spent_minor, reserved, redeemed)
         SELECT 'rollback', $3, $2, $1, id, 0, -$4::bigint, 0, -$5::bigint FROM changed",
        used.user_id,
        used.coupon_id,
        used.campaign_id,
        undone.rolled_back_minor - used.rolled_back_minor,
        i64::from(undone.is_cap_restored && !used.is_cap_restored),
        used.id,
        undone.rolled_back_minor,
        undone.is_cap_restored,
    )
    .execute(connection)
    .await?;
    match written.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::corrupt("redemptions", "a redemption has no counters")),
    }
}
