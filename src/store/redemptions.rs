//! Reserves, confirms and releases coupons: takes from caps and budgets, and gives back.
//!
//! Locks are taken in one order: the user, the reservation or redemption, then the counters of the user, of the coupon
//! and of the campaign. Every redemption of a campaign needs that last lock. One statement changes all three counters, and
//! it is the last of its transaction, so that the lock is held for no longer than a commit takes. A guard that refuses
//! makes the statement return no row: its transaction is then rolled back.

pub mod loads;
pub mod records;
pub mod requests;
mod rollback;
mod stored;
mod sweep;

use domain::id::{CampaignId, CartId, CouponId, ItemId, OrderId, RedemptionId, ReservationId, UserId};
use domain::money::Currency;
use domain::redemption::{Redemption, Reservation};
use domain::time::Timestamp;

use self::requests::{Begun, Done, Request};
use crate::store::coupons::eligibility::{self, UserCouponState};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

use self::stored::StoredRedemption;

pub use self::rollback::{Rollback, RollbackError, rollback};
pub use self::sweep::sweep;

/// The coupon to reserve, and for which user.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub reservation: ReservationId,
    pub user: UserId,
    pub coupon: CouponId,
    /// `None` for a cart without an identity.
    pub cart: Option<CartId>,
    pub exposure_window_days: u32,
}

/// The caller's permission to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub amount_minor: i64,
    /// The shares of the amount that come off the lines of the cart. The rest comes off the shipping.
    pub shares: Vec<(ItemId, i64)>,
    /// The cap on the user's redemptions; `None` is no limit.
    pub user_cap: Option<i64>,
    pub by_assignment: bool,
}

/// The reason why nothing was reserved.
#[derive(Debug)]
pub enum ReserveError<R> {
    /// The caller decided against it.
    Refused(R),
    /// Others have taken since that decision what was free, or an expired reservation still holds it.
    Taken,
    Store(StoreError),
}

impl<R> From<StoreError> for ReserveError<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reserves what `decide` grants, given the state of the user under lock.
pub async fn reserve<R: Send>(
    pool: &Pool,
    request: &Request,
    wanted: &Wanted,
    decide: impl Fn(&UserCouponState) -> Result<Grant, R>,
) -> Result<Done<Reservation>, ReserveError<R>> {
    let decide = &decide;
    pool.write(|mut tx| async move {
        match requests::begin::<String>(&mut tx, request).await? {
            Begun::New => {}
            Begun::Before(id) => return Ok(Ok(Done::Before(read_reservation(&mut tx, &id).await?))),
            Begun::Reused => return Ok(Ok(Done::Reused)),
        }
        lock_user(&mut tx, &wanted.user).await?;
        let coupons = std::slice::from_ref(&wanted.coupon);
        let state = eligibility::read_in(
            &mut tx,
            &wanted.user,
            coupons,
            wanted.cart.as_ref(),
            wanted.exposure_window_days,
        )
        .await?;
        let grant = match decide(&state) {
            Ok(grant) => grant,
            Err(refusal) => return Ok(Err(ReserveError::Refused(refusal))),
        };
        let Some(user_key) = state.user_key else {
            return Ok(Err(ReserveError::Taken));
        };
        // The answer about a reservation never changes, so its id is enough to repeat it.
        requests::finish(&mut tx, request, &wanted.reservation.as_str()).await?;
        let Some(reservation) = take(&mut tx, wanted, user_key, &grant).await? else {
            return Ok(Err(ReserveError::Taken));
        };
        tx.commit().await?;
        Ok(Ok(Done::Now(reservation)))
    })
    .await?
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

/// Takes one from each cap and the amount from the budget, if that much is left and the campaign is running.
async fn take(
    connection: &mut Connection,
    wanted: &Wanted,
    user_key: i64,
    grant: &Grant,
) -> Result<Option<Reservation>, StoreError> {
    // The shares are needed only to compute other coupons of the same cart.
    let shares = if wanted.cart.is_some() { &grant.shares[..] } else { &[] };
    let share_items: Vec<String> = shares.iter().map(|(item, _)| item.to_string()).collect();
    let share_minors: Vec<i64> = shares.iter().map(|(_, share_minor)| *share_minor).collect();
    // Each step checks that the one before has found its row, which fixes their order.
    let taken = sqlx::query!(
        r#"WITH wanted AS (
               SELECT coupons.id AS coupon_id, campaigns.id AS campaign_id, campaigns.external_id AS campaign, currency_code,
                      reservation_ttl_seconds
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
                 -- A sum of 64 bits could be too large for them; without a limit it must still fit.
                 AND reserved_minor::numeric + spent_minor + $4::bigint
                     <= COALESCE(limit_minor, 9223372036854775807)
               RETURNING campaign_id, clock_timestamp() AS now
           ), stored AS (
               INSERT INTO reservations
                   (external_id, user_id, coupon_id, campaign_id, amount_minor, state, by_assignment, reserved_at, expires_at,
                    cart_id, share_items, share_minors)
               SELECT $5, $2, coupon_id, campaign_id, $4, 'reserved', $6, now,
                      now + make_interval(secs => reservation_ttl_seconds), $7, $8::text[], $9::bigint[]
               FROM paid JOIN wanted USING (campaign_id)
               RETURNING id, user_id, coupon_id, campaign_id, amount_minor, reserved_at, expires_at
           ), logged AS (
               INSERT INTO coupon_ledger
                   (entry, campaign_id, coupon_id, user_id, reservation_id, reserved_minor, spent_minor, reserved, redeemed)
               SELECT 'reserve', campaign_id, coupon_id, user_id, id, amount_minor, 0, 1, 0 FROM stored
           )
           SELECT campaign AS "campaign!", currency_code AS "currency_code!", reserved_at AS "reserved_at!", expires_at AS "expires_at!"
           FROM stored JOIN wanted USING (coupon_id)"#,
        wanted.coupon.as_str(),
        user_key,
        grant.user_cap,
        grant.amount_minor,
        wanted.reservation.as_str(),
        grant.by_assignment,
        wanted.cart.as_ref().map(CartId::as_str),
        &share_items,
        &share_minors,
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = taken else { return Ok(None) };
    Ok(Some(Reservation {
        id: wanted.reservation.clone(),
        user: wanted.user.clone(),
        coupon: wanted.coupon.clone(),
        campaign: CampaignId::stored(row.campaign).map_err(|error| StoreError::corrupt("campaigns", error))?,
        cart: wanted.cart.clone(),
        amount_minor: grant.amount_minor,
        currency: currency(&row.currency_code)?,
        reserved_at: row.reserved_at,
        expires_at: row.expires_at,
    }))
}

async fn read_reservation(connection: &mut Connection, id: &str) -> Result<Reservation, StoreError> {
    let row = sqlx::query!(
        r#"SELECT users.external_id AS "user", coupons.external_id AS coupon, campaigns.external_id AS campaign,
                  cart_id, reservations.amount_minor, currency_code, reserved_at, expires_at
           FROM reservations
           JOIN users ON users.id = reservations.user_id
           JOIN coupons ON coupons.id = reservations.coupon_id
           JOIN campaigns ON campaigns.id = reservations.campaign_id
           WHERE reservations.external_id = $1"#,
        id
    )
    .fetch_one(connection)
    .await?;
    let corrupt = |error| StoreError::corrupt("reservations", error);
    Ok(Reservation {
        id: ReservationId::stored(id).map_err(corrupt)?,
        user: UserId::stored(row.user).map_err(corrupt)?,
        coupon: CouponId::stored(row.coupon).map_err(corrupt)?,
        campaign: CampaignId::stored(row.campaign).map_err(corrupt)?,
        cart: row.cart_id.map(CartId::stored).transpose().map_err(corrupt)?,
        amount_minor: row.amount_minor,
        currency: currency(&row.currency_code)?,
        reserved_at: row.reserved_at,
        expires_at: row.expires_at,
    })
}

fn currency(code: &str) -> Result<Currency, StoreError> {
    Currency::new(code).map_err(|error| StoreError::corrupt("campaigns", error))
}

/// The reason why a reservation was not confirmed or released.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("there is no reservation {0}")]
    UnknownReservation(ReservationId),
    #[error("reservation {id} expired at {expires_at}")]
    Expired { id: ReservationId, expires_at: Timestamp },
    #[error("reservation {id} is already {state}")]
    Closed { id: ReservationId, state: String },
    #[error("the amount must be at most the reserved {reserved_minor} minor units, is {amount_minor}")]
    AmountTooLarge { reserved_minor: i64, amount_minor: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The use of a reservation.
#[derive(Debug, Clone)]
pub struct Confirmation {
    pub reservation: ReservationId,
    pub redemption: RedemptionId,
    /// `None` takes the whole reserved amount.
    pub amount_minor: Option<i64>,
    pub order: Option<OrderId>,
}

/// Turns a reservation into a redemption, unless it has expired at that moment, whether swept or not.
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
        let Some(held) = lock_reservation(&mut tx, &confirmation.reservation).await? else {
            return Ok(Err(CloseError::UnknownReservation(confirmation.reservation.clone())));
        };
        let redeemed = match held.redeemed_by(confirmation) {
            Ok(redeemed) => redeemed,
            Err(error) => {
                // The locks are released before the answer, so that a sweep right after it finds the expired reservation.
                tx.rollback().await?;
                return Ok(Err(error));
            }
        };
        requests::finish(&mut tx, request, &redeemed).await?;
        close(&mut tx, &held, Ending::Confirmed(&redeemed)).await?;
        tx.commit().await?;
        Ok(Ok(Done::Now(redeemed.try_into()?)))
    })
    .await?
}

/// Gives a reservation back. Returns false when it had expired.
pub async fn release(pool: &Pool, request: &Request, reservation: &ReservationId) -> Result<Done<bool>, CloseError> {
    pool.write(|mut tx| async move {
        match requests::begin::<bool>(&mut tx, request).await? {
            Begun::New => {}
            Begun::Before(released) => return Ok(Ok(Done::Before(released))),
            Begun::Reused => return Ok(Ok(Done::Reused)),
        }
        let Some(held) = lock_reservation(&mut tx, reservation).await? else {
            return Ok(Err(CloseError::UnknownReservation(reservation.clone())));
        };
        let is_expired = held.is_expired();
        if !is_expired && held.state != "reserved" {
            return Ok(Err(held.closed()));
        }
        requests::finish(&mut tx, request, &!is_expired).await?;
        if held.state == "reserved" {
            let ending = if is_expired { Ending::Expired } else { Ending::Released };
            close(&mut tx, &held, ending).await?;
        }
        tx.commit().await?;
        Ok(Ok(Done::Now(!is_expired)))
    })
    .await?
}

/// A reservation, locked together with its user.
struct Held {
    id: i64,
    user_id: i64,
    coupon_id: i64,
    campaign_id: i64,
    external_id: String,
    user: String,
    coupon: String,
    campaign: String,
    cart_id: Option<String>,
    amount_minor: i64,
    currency: String,
    state: String,
    by_assignment: bool,
    expires_at: Timestamp,
    now: Timestamp,
}

impl Held {
    fn is_expired(&self) -> bool {
        self.state == "expired" || (self.state == "reserved" && self.now >= self.expires_at)
    }

    fn closed(self) -> CloseError {
        match ReservationId::stored(self.external_id) {
            Ok(id) => CloseError::Closed { id, state: self.state },
            Err(error) => StoreError::corrupt("reservations", error).into(),
        }
    }

    /// Returns the redemption that comes from confirming the reservation now.
    fn redeemed_by(&self, confirmation: &Confirmation) -> Result<StoredRedemption, CloseError> {
        let id = || confirmation.reservation.clone();
        if self.is_expired() {
            let expires_at = self.expires_at;
            return Err(CloseError::Expired { id: id(), expires_at });
        }
        if self.state != "reserved" {
            let state = self.state.clone();
            return Err(CloseError::Closed { id: id(), state });
        }
        let (reserved_minor, amount_minor) = (self.amount_minor, confirmation.amount_minor);
        let amount_minor = amount_minor.unwrap_or(reserved_minor);
        if amount_minor > reserved_minor {
            return Err(CloseError::AmountTooLarge {
                reserved_minor,
                amount_minor,
            });
        }
        Ok(StoredRedemption {
            id: confirmation.redemption.to_string(),
            reservation: Some(self.external_id.clone()),
            user: self.user.clone(),
            coupon: self.coupon.clone(),
            campaign: Some(self.campaign.clone()),
            cart: self.cart_id.clone(),
            amount_minor,
            currency: self.currency.clone(),
            rolled_back_minor: 0,
            is_cap_restored: false,
            order: confirmation.order.as_ref().map(ToString::to_string),
            redeemed_at: self.now,
        })
    }
}

async fn lock_reservation(
    connection: &mut Connection,
    reservation: &ReservationId,
) -> Result<Option<Held>, StoreError> {
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
    // This is a separate statement, as one that waits for a lock has read the clock before the wait.
    let held = sqlx::query_as!(
        Held,
        r#"SELECT reservations.id, user_id, coupon_id, reservations.campaign_id, reservations.external_id,
                  users.external_id AS "user", coupons.external_id AS coupon, campaigns.external_id AS campaign, cart_id,
                  reservations.amount_minor, currency_code AS currency, state, by_assignment, expires_at, clock_timestamp() AS "now!"
           FROM reservations
           JOIN users ON users.id = user_id
           JOIN coupons ON coupons.id = coupon_id
           JOIN campaigns ON campaigns.id = reservations.campaign_id
           WHERE reservations.external_id = $1"#,
        reservation.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(held)
}

/// The way in which a reservation ends.
#[derive(Clone, Copy)]
enum Ending<'a> {
    Confirmed(&'a StoredRedemption),
    Released,
    Expired,
}

impl Ending<'_> {
    /// Returns the name of the ledger entry and of the state of the reservation.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Confirmed(_) => ("confirm", "confirmed"),
            Self::Released => ("release", "released"),
            Self::Expired => ("expire", "expired"),
        }
    }
}

/// Closes an open reservation. The counters change first; each step checks that the one before has found its row.
async fn close(connection: &mut Connection, held: &Held, ending: Ending<'_>) -> Result<(), StoreError> {
    let (entry, state) = ending.names();
    let redemption = match ending {
        Ending::Confirmed(redemption) => Some(redemption),
        Ending::Released | Ending::Expired => None,
    };
    let closed = sqlx::query!(
        "WITH own AS (
             UPDATE user_coupon_counters SET reserved = reserved - 1, redeemed = redeemed + $5
             WHERE user_id = $1 AND coupon_id = $2 RETURNING coupon_id
         ), counted AS (
             UPDATE coupon_counters SET reserved = reserved - 1, redeemed = redeemed + $5
             WHERE coupon_id = (SELECT coupon_id FROM own) RETURNING coupon_id
         ), paid AS (
             UPDATE campaign_states SET reserved_minor = reserved_minor - $4, spent_minor = spent_minor + $6
             WHERE campaign_id = $3 AND EXISTS (SELECT FROM counted) RETURNING campaign_id
         ), closed AS (
             UPDATE reservations SET state = $8, closed_at = $9
             WHERE id = $7 AND state = 'reserved' AND EXISTS (SELECT FROM paid) RETURNING id
         ), redeemed AS (
             INSERT INTO redemptions
                 (external_id, reservation_id, user_id, coupon_id, campaign_id, amount_minor, by_assignment, order_id,
                  redeemed_at)
             SELECT $10, id, $1, $2, $3, $6, $11, $12, $9 FROM closed WHERE $10::text IS NOT NULL RETURNING id
         )
         INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, reservation_id, redemption_id, reserved_minor, spent_minor, reserved,
              redeemed)
         SELECT $13, $3, $2, $1, closed.id, redeemed.id, -$4::bigint, $6, -1, $5
         FROM closed LEFT JOIN redeemed ON true",
        held.user_id,
        held.coupon_id,
        held.campaign_id,
        held.amount_minor,
        i64::from(redemption.is_some()),
        redemption.map_or(0, |redemption| redemption.amount_minor),
        held.id,
        state,
        held.now,
        redemption.map(|redemption| redemption.id.as_str()),
        held.by_assignment,
        redemption.and_then(|redemption| redemption.order.as_deref()),
        entry,
    )
    .execute(connection)
    .await?;
    match closed.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::corrupt("reservations", "a reservation has no counters")),
    }
}
