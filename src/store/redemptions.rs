//! Reservations and redemptions: what is taken of caps and budgets, and given back.
//!
//! Locks are taken in one order: the user, the reservation or redemption, then counters, first the user's, then the
//! coupon's, then the campaign's, which everybody wants and which is therefore held for the shortest time. A guarded
//! statement takes all three or, by answering nothing, none: its transaction is then rolled back.

use crate::domain::id::{CouponId, OrderId, RedemptionId, ReservationId, UserId};
use crate::domain::money::Currency;
use crate::domain::redemption::{Redemption, Reservation};
use crate::domain::time::Timestamp;

use super::eligibility::{Standing, standing_in};
use super::error::StoreError;
use super::pool::{Connection, Pool};
use super::requests::{self, Begun, Done, Request};

/// What is to be set aside.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub reservation: ReservationId,
    pub user: UserId,
    pub coupon: CouponId,
    pub exposure_window_days: u32,
}

/// What a user may set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    pub amount_minor: i64,
    /// Of the user's redemptions; `None`: without limit.
    pub user_cap: Option<i64>,
    pub by_assignment: bool,
}

/// Why nothing was set aside.
#[derive(Debug)]
pub enum ReserveError<R> {
    /// By the caller's own decision.
    Refused(R),
    /// What was free when that was decided has been taken since, or is held by a reservation that has expired.
    Taken,
    Store(StoreError),
}

impl<R> From<StoreError> for ReserveError<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Sets aside what `decide` grants to the user as they stand under lock.
pub async fn reserve<R: Send>(
    pool: &Pool,
    request: &Request,
    wanted: &Wanted,
    decide: impl Fn(&Standing) -> Result<Grant, R>,
) -> Result<Done<Reservation>, ReserveError<R>> {
    let decide = &decide;
    let outcome = pool
        .write(|mut tx| async move {
            match requests::begin::<StoredReservation>(&mut tx, request).await? {
                Begun::New => {}
                Begun::Before(stored) => return Ok(Ok(Done::Before(stored.try_into()?))),
                Begun::Reused => return Ok(Ok(Done::Reused)),
            }
            lock_user(&mut tx, &wanted.user).await?;
            let coupons = std::slice::from_ref(&wanted.coupon);
            let standing = standing_in(&mut tx, &wanted.user, coupons, wanted.exposure_window_days).await?;
            let grant = match decide(&standing) {
                Ok(grant) => grant,
                Err(refusal) => return Ok(Err(ReserveError::Refused(refusal))),
            };
            let Some(user_key) = standing.user_key else {
                return Ok(Err(ReserveError::Taken));
            };
            let Some(stored) = take(&mut tx, wanted, user_key, &grant).await? else {
                return Ok(Err(ReserveError::Taken));
            };
            requests::finish(&mut tx, request, &stored).await?;
            tx.commit().await?;
            Ok(Ok(Done::Now(stored.try_into()?)))
        })
        .await?;
    outcome
}

async fn lock_user(connection: &mut Connection, user: &UserId) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT id FROM users WHERE external_id = $1 FOR NO KEY UPDATE",
        user.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}

/// Takes one of the caps and the amount of the budget, if there is that much and the campaign is on at that moment.
async fn take(
    connection: &mut Connection,
    wanted: &Wanted,
    user_key: i64,
    grant: &Grant,
) -> Result<Option<StoredReservation>, StoreError> {
    // Each step looks whether the one before has found its row, which makes them one after the other.
    let taken = sqlx::query!(
        r#"WITH wanted AS (
               SELECT coupons.id AS coupon_id, campaigns.id AS campaign_id, currency_code, reservation_ttl_seconds
               FROM coupons JOIN campaigns ON campaigns.id = campaign_id WHERE coupons.external_id = $1
           ), own AS (
               INSERT INTO user_coupon_counters AS counters (user_id, coupon_id, cap, reserved)
               SELECT $2, coupon_id, $3, 1 FROM wanted
               ON CONFLICT (user_id, coupon_id) DO UPDATE SET reserved = counters.reserved + 1, cap = excluded.cap
               WHERE excluded.cap IS NULL OR counters.reserved + counters.redeemed < excluded.cap
               RETURNING counters.coupon_id
           ), counted AS (
               UPDATE coupon_counters AS counters SET reserved = reserved + 1
               WHERE coupon_id = (SELECT coupon_id FROM own)
                 AND (total_cap IS NULL OR reserved + redeemed < total_cap)
               RETURNING coupon_id
           ), paid AS (
               UPDATE campaign_states AS states SET reserved_minor = reserved_minor + $4
               WHERE campaign_id = (SELECT campaign_id FROM wanted JOIN counted USING (coupon_id))
                 AND state IN ('scheduled', 'active')
                 AND starts_at <= clock_timestamp() AND clock_timestamp() < ends_at
                 AND (limit_minor IS NULL OR reserved_minor + spent_minor + $4 <= limit_minor)
               RETURNING campaign_id, clock_timestamp() AS now
           ), stored AS (
               INSERT INTO reservations
                   (external_id, user_id, coupon_id, campaign_id, amount_minor, state, by_assignment, reserved_at, expires_at)
               SELECT $5, $2, coupon_id, campaign_id, $4, 'reserved', $6, now,
                      now + make_interval(secs => reservation_ttl_seconds)
               FROM paid JOIN wanted USING (campaign_id)
               RETURNING id, user_id, coupon_id, campaign_id, amount_minor, reserved_at, expires_at
           ), logged AS (
               INSERT INTO coupon_ledger
                   (entry, campaign_id, coupon_id, user_id, reservation_id, reserved_minor, spent_minor, reserved, redeemed)
               SELECT 'reserve', campaign_id, coupon_id, user_id, id, amount_minor, 0, 1, 0 FROM stored
           )
           SELECT currency_code AS "currency_code!", reserved_at AS "reserved_at!", expires_at AS "expires_at!"
           FROM stored JOIN wanted USING (coupon_id)"#,
        wanted.coupon.as_str(),
        user_key,
        grant.user_cap,
        grant.amount_minor,
        wanted.reservation.as_str(),
        grant.by_assignment,
    )
    .fetch_optional(connection)
    .await?;
    Ok(taken.map(|row| StoredReservation {
        id: wanted.reservation.to_string(),
        user: wanted.user.to_string(),
        coupon: wanted.coupon.to_string(),
        amount_minor: grant.amount_minor,
        currency: row.currency_code,
        reserved_at: row.reserved_at,
        expires_at: row.expires_at,
    }))
}

/// Why a reservation was not confirmed or released.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("there is no reservation {0}")]
    UnknownReservation(ReservationId),
    #[error("the reservation {id} expired at {expires_at}")]
    Expired { id: ReservationId, expires_at: Timestamp },
    #[error("the reservation {id} has been {state} already")]
    Closed { id: ReservationId, state: String },
    #[error("the amount must be at most what is reserved, {reserved_minor} minor units, is {amount_minor}")]
    AmountTooLarge { reserved_minor: i64, amount_minor: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a reservation is used.
#[derive(Debug, Clone)]
pub struct Confirmation {
    pub reservation: ReservationId,
    pub redemption: RedemptionId,
    /// `None`: all that is reserved.
    pub amount_minor: Option<i64>,
    pub order: Option<OrderId>,
}

/// Uses a reservation that has not expired at that moment, swept or not.
pub async fn confirm(
    pool: &Pool,
    request: &Request,
    confirmation: &Confirmation,
) -> Result<Done<Redemption>, CloseError> {
    pool.write(|mut tx| async move {
        match requests::begin::<StoredRedemption>(&mut tx, request).await? {
            Begun::New => {}
            Begun::Before(stored) => return Ok(Ok(Done::Before(stored.try_into()?))),
            Begun::Reused => return Ok(Ok(Done::Reused)),
        }
        let Some(open) = lock_reservation(&mut tx, &confirmation.reservation).await? else {
            return Ok(Err(CloseError::UnknownReservation(confirmation.reservation.clone())));
        };
        let id = || confirmation.reservation.clone();
        if open.is_expired() {
            let expires_at = open.expires_at;
            return Ok(Err(CloseError::Expired { id: id(), expires_at }));
        }
        if open.state != "reserved" {
            let state = open.state;
            return Ok(Err(CloseError::Closed { id: id(), state }));
        }
        let amount_minor = confirmation.amount_minor.unwrap_or(open.amount_minor);
        if amount_minor > open.amount_minor {
            let reserved_minor = open.amount_minor;
            return Ok(Err(CloseError::AmountTooLarge {
                reserved_minor,
                amount_minor,
            }));
        }
        use_up(&mut tx, &open, confirmation, amount_minor).await?;
        let stored = read_redemption(&mut tx, &confirmation.redemption).await?;
        requests::finish(&mut tx, request, &stored).await?;
        tx.commit().await?;
        Ok(Ok(Done::Now(stored.try_into()?)))
    })
    .await?
}

/// A reservation under lock, its user's too.
struct OpenReservation {
    id: i64,
    user_id: i64,
    coupon_id: i64,
    campaign_id: i64,
    amount_minor: i64,
    state: String,
    by_assignment: bool,
    expires_at: Timestamp,
    now: Timestamp,
}

impl OpenReservation {
    fn is_expired(&self) -> bool {
        self.state == "expired" || (self.state == "reserved" && self.now >= self.expires_at)
    }
}

async fn lock_reservation(
    connection: &mut Connection,
    reservation: &ReservationId,
) -> Result<Option<OpenReservation>, StoreError> {
    sqlx::query!(
        "SELECT users.id FROM users JOIN reservations ON reservations.user_id = users.id
         WHERE reservations.external_id = $1 FOR NO KEY UPDATE OF users",
        reservation.as_str()
    )
    .fetch_optional(&mut *connection)
    .await?;
    sqlx::query!(
        "SELECT id FROM reservations WHERE external_id = $1 FOR UPDATE",
        reservation.as_str()
    )
    .fetch_optional(&mut *connection)
    .await?;
    // A statement of its own: one that waits for a lock reads the clock before.
    let open = sqlx::query_as!(
        OpenReservation,
        r#"SELECT id, user_id, coupon_id, campaign_id, amount_minor, state, by_assignment, expires_at,
                  clock_timestamp() AS "now!"
           FROM reservations WHERE external_id = $1"#,
        reservation.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(open)
}

async fn use_up(
    connection: &mut Connection,
    open: &OpenReservation,
    confirmation: &Confirmation,
    amount_minor: i64,
) -> Result<(), StoreError> {
    let used = sqlx::query!(
        "WITH own AS (
             UPDATE user_coupon_counters SET reserved = reserved - 1, redeemed = redeemed + 1
             WHERE user_id = $1 AND coupon_id = $2 RETURNING coupon_id
         ), counted AS (
             UPDATE coupon_counters SET reserved = reserved - 1, redeemed = redeemed + 1
             WHERE coupon_id = (SELECT coupon_id FROM own) RETURNING coupon_id
         ), paid AS (
             UPDATE campaign_states SET reserved_minor = reserved_minor - $4, spent_minor = spent_minor + $5
             WHERE campaign_id = $3 AND EXISTS (SELECT FROM counted) RETURNING campaign_id
         ), closed AS (
             UPDATE reservations SET state = 'confirmed', closed_at = $6
             WHERE id = $7 AND EXISTS (SELECT FROM paid) RETURNING id
         ), stored AS (
             INSERT INTO redemptions
                 (external_id, reservation_id, user_id, coupon_id, campaign_id, amount_minor, by_assignment, order_id,
                  redeemed_at)
             SELECT $8, id, $1, $2, $3, $5, $9, $10, $6 FROM closed RETURNING id
         )
         INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, reservation_id, redemption_id, reserved_minor, spent_minor, reserved,
              redeemed)
         SELECT 'confirm', $3, $2, $1, $7, id, -$4::bigint, $5, -1, 1 FROM stored",
        open.user_id,
        open.coupon_id,
        open.campaign_id,
        open.amount_minor,
        amount_minor,
        open.now,
        open.id,
        confirmation.redemption.as_str(),
        open.by_assignment,
        confirmation.order.as_ref().map(OrderId::as_str),
    )
    .execute(connection)
    .await?;
    match used.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::corrupt("reservations", "a reservation without counters")),
    }
}

/// Gives a reservation back; false when it had expired.
pub async fn release(pool: &Pool, request: &Request, reservation: &ReservationId) -> Result<Done<bool>, CloseError> {
    pool.write(|mut tx| async move {
        match requests::begin::<bool>(&mut tx, request).await? {
            Begun::New => {}
            Begun::Before(released) => return Ok(Ok(Done::Before(released))),
            Begun::Reused => return Ok(Ok(Done::Reused)),
        }
        let Some(open) = lock_reservation(&mut tx, reservation).await? else {
            return Ok(Err(CloseError::UnknownReservation(reservation.clone())));
        };
        let is_expired = open.is_expired();
        if !is_expired && open.state != "reserved" {
            return Ok(Err(CloseError::Closed {
                id: reservation.clone(),
                state: open.state,
            }));
        }
        if open.state == "reserved" {
            let entry = if is_expired { "expire" } else { "release" };
            give_back(&mut tx, &[open], entry).await?;
        }
        requests::finish(&mut tx, request, &!is_expired).await?;
        tx.commit().await?;
        Ok(Ok(Done::Now(!is_expired)))
    })
    .await?
}

/// Most reservations of one transaction of a sweep.
const SWEEP_BATCH: i64 = 500;

/// Gives back what expired reservations hold; those that somebody has in hand are left for the next time. Returns how
/// many.
pub async fn sweep(pool: &Pool) -> Result<u64, StoreError> {
    let mut swept = 0;
    loop {
        let in_batch = pool
            .write(|mut tx| async move {
                let expired = sqlx::query_as!(
                    OpenReservation,
                    r#"SELECT id, user_id, coupon_id, campaign_id, amount_minor, state, by_assignment, expires_at,
                              clock_timestamp() AS "now!"
                       FROM reservations WHERE state = 'reserved' AND expires_at <= clock_timestamp()
                       ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED"#,
                    SWEEP_BATCH
                )
                .fetch_all(&mut *tx)
                .await?;
                if !expired.is_empty() {
                    give_back(&mut tx, &expired, "expire").await?;
                    tx.commit().await?;
                }
                Ok(expired.len() as i64)
            })
            .await?;
        swept += in_batch as u64;
        if in_batch < SWEEP_BATCH {
            return Ok(swept);
        }
    }
}

/// Closes `reservations`, which are locked and open, and gives back to the counters, in their order, what they hold.
async fn give_back(
    connection: &mut Connection,
    reservations: &[OpenReservation],
    entry: &str,
) -> Result<(), StoreError> {
    let column = |of: fn(&OpenReservation) -> i64| reservations.iter().map(of).collect::<Vec<i64>>();
    let (user_ids, coupon_ids) = (column(|open| open.user_id), column(|open| open.coupon_id));
    let (campaign_ids, amounts) = (column(|open| open.campaign_id), column(|open| open.amount_minor));
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
             UPDATE reservations SET state = CASE $6 WHEN 'expire' THEN 'expired' ELSE 'released' END,
                    closed_at = clock_timestamp()
             FROM given WHERE reservations.id = given.id
         )
         INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, reservation_id, reserved_minor, spent_minor, reserved, redeemed)
         SELECT $6, campaign_id, coupon_id, user_id, id, -amount_minor, 0, -1, 0 FROM given",
        &column(|open| open.id),
        &user_ids,
        &coupon_ids,
        &campaign_ids,
        &amounts,
        entry,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Why a redemption was not given back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error("there is no redemption {0}")]
    UnknownRedemption(RedemptionId),
    #[error("the amount must be at most what is left of the redemption, {left_minor} minor units, is {amount_minor}")]
    AmountTooLarge { left_minor: i64, amount_minor: i64 },
    #[error("all of the redemption {0} has been given back already")]
    NothingLeft(RedemptionId),
    #[error("the cap is restored only when nothing is left of the redemption; {left_minor} minor units would be")]
    CapNotRestorable { left_minor: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone)]
pub struct Rollback {
    pub redemption: RedemptionId,
    /// `None`: all that is left.
    pub amount_minor: Option<i64>,
    /// Whether the user may have the coupon again.
    pub restore_cap: bool,
}

/// Gives a redemption back, in part or as a whole.
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
        let left_minor = used.amount_minor - used.rolled_back_minor;
        let amount_minor = rollback.amount_minor.unwrap_or(left_minor);
        let restores_cap = rollback.restore_cap && !used.is_cap_restored;
        if left_minor == 0 && !restores_cap {
            return Ok(Err(RollbackError::NothingLeft(rollback.redemption.clone())));
        }
        if amount_minor > left_minor {
            return Ok(Err(RollbackError::AmountTooLarge {
                left_minor,
                amount_minor,
            }));
        }
        if rollback.restore_cap && amount_minor < left_minor {
            let left_minor = left_minor - amount_minor;
            return Ok(Err(RollbackError::CapNotRestorable { left_minor }));
        }
        undo(&mut tx, &used, amount_minor, i64::from(restores_cap)).await?;
        let stored = read_redemption(&mut tx, &rollback.redemption).await?;
        requests::finish(&mut tx, request, &stored).await?;
        tx.commit().await?;
        Ok(Ok(Done::Now(stored.try_into()?)))
    })
    .await?
}

/// A redemption under lock, its user's too.
struct UsedRedemption {
    id: i64,
    user_id: i64,
    coupon_id: i64,
    campaign_id: i64,
    amount_minor: i64,
    rolled_back_minor: i64,
    is_cap_restored: bool,
}

async fn lock_redemption(
    connection: &mut Connection,
    redemption: &RedemptionId,
) -> Result<Option<UsedRedemption>, StoreError> {
    sqlx::query!(
        "SELECT users.id FROM users JOIN redemptions ON redemptions.user_id = users.id
         WHERE redemptions.external_id = $1 FOR NO KEY UPDATE OF users",
        redemption.as_str()
    )
    .fetch_optional(&mut *connection)
    .await?;
    let used = sqlx::query_as!(
        UsedRedemption,
        "SELECT id, user_id, coupon_id, campaign_id, amount_minor, rolled_back_minor, is_cap_restored
         FROM redemptions WHERE external_id = $1 FOR UPDATE",
        redemption.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(used)
}

/// `restored`: 1 to give one of the caps back, else 0.
async fn undo(
    connection: &mut Connection,
    used: &UsedRedemption,
    amount_minor: i64,
    restored: i64,
) -> Result<(), StoreError> {
    sqlx::query!(
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
             UPDATE redemptions SET rolled_back_minor = rolled_back_minor + $4,
                    is_cap_restored = is_cap_restored OR $5 > 0
             WHERE id = $6 AND EXISTS (SELECT FROM paid) RETURNING id
         )
         INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, redemption_id, reserved_minor, spent_minor, reserved, redeemed)
         SELECT 'rollback', $3, $2, $1, id, 0, -$4::bigint, 0, -$5::bigint FROM changed",
        used.user_id,
        used.coupon_id,
        used.campaign_id,
        amount_minor,
        restored,
        used.id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn read_redemption(connection: &mut Connection, id: &RedemptionId) -> Result<StoredRedemption, StoreError> {
    let stored = sqlx::query_as!(
        StoredRedemption,
        r#"SELECT redemptions.external_id AS id, reservations.external_id AS "reservation?",
                  users.external_id AS "user", coupons.external_id AS coupon, redemptions.amount_minor,
                  currency_code AS currency, rolled_back_minor, is_cap_restored, order_id AS "order?", redeemed_at
           FROM redemptions
           LEFT JOIN reservations ON reservations.id = reservation_id
           JOIN users ON users.id = redemptions.user_id
           JOIN coupons ON coupons.id = redemptions.coupon_id
           JOIN campaigns ON campaigns.id = redemptions.campaign_id
           WHERE redemptions.external_id = $1"#,
        id.as_str()
    )
    .fetch_one(connection)
    .await?;
    Ok(stored)
}

/// As `request_log` keeps it.
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredReservation {
    id: String,
    user: String,
    coupon: String,
    amount_minor: i64,
    currency: String,
    reserved_at: Timestamp,
    expires_at: Timestamp,
}

impl TryFrom<StoredReservation> for Reservation {
    type Error = StoreError;

    fn try_from(stored: StoredReservation) -> Result<Self, StoreError> {
        let corrupt = |error| StoreError::corrupt("reservations", error);
        Ok(Self {
            id: ReservationId::new(stored.id).map_err(corrupt)?,
            user: UserId::new(stored.user).map_err(corrupt)?,
            coupon: CouponId::new(stored.coupon).map_err(corrupt)?,
            amount_minor: stored.amount_minor,
            currency: Currency::new(&stored.currency).map_err(corrupt)?,
            reserved_at: stored.reserved_at,
            expires_at: stored.expires_at,
        })
    }
}

/// As `request_log` keeps it.
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredRedemption {
    id: String,
    /// None of one that another system has made.
    reservation: Option<String>,
    user: String,
    coupon: String,
    amount_minor: i64,
    currency: String,
    rolled_back_minor: i64,
    is_cap_restored: bool,
    order: Option<String>,
    redeemed_at: Timestamp,
}

impl TryFrom<StoredRedemption> for Redemption {
    type Error = StoreError;

    fn try_from(stored: StoredRedemption) -> Result<Self, StoreError> {
        let corrupt = |error| StoreError::corrupt("redemptions", error);
        Ok(Self {
            id: RedemptionId::new(stored.id).map_err(corrupt)?,
            reservation: stored
                .reservation
                .map(ReservationId::new)
                .transpose()
                .map_err(corrupt)?,
            user: UserId::new(stored.user).map_err(corrupt)?,
            coupon: CouponId::new(stored.coupon).map_err(corrupt)?,
            amount_minor: stored.amount_minor,
            currency: Currency::new(&stored.currency).map_err(corrupt)?,
            rolled_back_minor: stored.rolled_back_minor,
            is_cap_restored: stored.is_cap_restored,
            order: stored.order.map(OrderId::new).transpose().map_err(corrupt)?,
            redeemed_at: stored.redeemed_at,
        })
    }
}
