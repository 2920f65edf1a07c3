//! Reads the facts about a user and coupons that change too often to be held in memory, in one query for any number of
//! coupons.

use std::collections::{HashMap, HashSet};

use coupons::eligibility::{Usage, UserFacts};
use coupons::stacking::HeldDiscount;
use domain::campaign::Window;
use domain::consent::{Consents, Purpose};
use domain::id::{CampaignId, CartId, CouponId, ItemId, UserId};
use domain::money::Currency;
use domain::time::Timestamp;

use super::rows::coupon_id;
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// The state of a user and of some coupons at one moment.
#[derive(Debug, Clone)]
pub struct UserCouponState {
    pub user: UserFacts,
    /// By coupon; unknown coupons are missing.
    pub usages: HashMap<CouponId, Usage>,
    /// The coupons that the user was ever exposed to, in either arm.
    pub exposed: HashSet<CouponId>,
    /// The discounts that the user's open reservations and redemptions hold for the cart, in the order of the reservations.
    pub held: Vec<HeldDiscount>,
    /// The database's clock.
    pub now: Timestamp,
    /// `None` when the user is unknown.
    pub(in crate::store) user_key: Option<i64>,
}

/// Reads the present state of `user` and `coupons`, and the discounts that are held for `cart`. It lists the exposures of the last
/// `exposure_window_days` days.
pub async fn read(
    pool: &Pool,
    user: &UserId,
    coupons: &[CouponId],
    cart: Option<&CartId>,
    exposure_window_days: u32,
) -> Result<UserCouponState, StoreError> {
    let mut connection = pool.acquire().await?;
    read_in(&mut connection, user, coupons, cart, exposure_window_days).await
}

/// Does the same as [`read`], on a connection of the caller.
pub(in crate::store) async fn read_in(
    connection: &mut Connection,
    user: &UserId,
    coupons: &[CouponId],
    cart: Option<&CartId>,
    exposure_window_days: u32,
) -> Result<UserCouponState, StoreError> {
    let ids: Vec<String> = coupons.iter().map(ToString::to_string).collect();
    let days = i32::try_from(exposure_window_days).unwrap_or(i32::MAX);
    // Planning this query takes ten times as long as running it. PostgreSQL keeps a plan that looks no worse than one for
    // the present values, so the number of coupons is hidden from it: their array comes out of a query. Each coupon is
    // looked up by itself, as a join of the number that PostgreSQL then expects would read all coupons of the table.
    let row = sqlx::query!(
        r#"SELECT clock_timestamp() AS "now!", users.id AS "id?",
                  ARRAY(SELECT (purpose, is_granted) FROM consents WHERE user_id = users.id)
                      AS "consents!: Vec<(String, bool)>",
                  EXISTS (SELECT FROM suppressions WHERE user_id = users.id) AS "is_suppressed!",
                  ARRAY(SELECT (name, value) FROM user_attributes WHERE user_id = users.id ORDER BY name)
                      AS "attributes!: Vec<(String, String)>",
                  ARRAY(SELECT coupons.external_id FROM exposures JOIN coupons ON coupons.id = coupon_id
                        WHERE user_id = users.id AND exposed_at > clock_timestamp() - make_interval(days => $2))
                      AS "recent_exposures!",
                  ARRAY(SELECT (coupons.external_id, campaigns.external_id)
                        FROM reservations
                        JOIN coupons ON coupons.id = coupon_id
                        JOIN campaigns ON campaigns.id = reservations.campaign_id
                        WHERE user_id = users.id AND state = 'reserved' AND expires_at > clock_timestamp()
                        ORDER BY reservations.id) AS "reserved!: Vec<(String, String)>",
                  -- Without a redemption the reservation is open. One that is rolled back as a whole is no longer applied.
                  ARRAY(SELECT (coupons.external_id, currency_code,
                                COALESCE(redemptions.amount_minor - rolled_back_minor, reservations.amount_minor),
                                share_items, share_minors)
                        FROM reservations
                        JOIN coupons ON coupons.id = reservations.coupon_id
                        JOIN campaigns ON campaigns.id = reservations.campaign_id
                        LEFT JOIN redemptions ON reservation_id = reservations.id
                        WHERE reservations.user_id = users.id AND cart_id = $4
                          AND (state = 'reserved' AND expires_at > clock_timestamp()
                               OR state = 'confirmed' AND NOT is_cap_restored
                                  AND (rolled_back_minor = 0 OR rolled_back_minor < redemptions.amount_minor))
                        ORDER BY reservations.id) AS "held!: Vec<HeldRow>",
                  ARRAY(SELECT (SELECT (coupons.external_id, state, starts_at, ends_at, limit_minor, reserved_minor,
                                        spent_minor, total_cap, counters.reserved, counters.redeemed,
                                        EXISTS (SELECT FROM assignments
                                                WHERE campaign_id = coupons.campaign_id AND user_id = users.id),
                                        COALESCE(own.reserved, 0), COALESCE(own.redeemed, 0),
                                        EXISTS (SELECT FROM exposures
                                                WHERE coupon_id = coupons.id AND user_id = users.id))
                                FROM coupons
                                JOIN campaign_states ON campaign_states.campaign_id = coupons.campaign_id
                                JOIN coupon_counters AS counters ON counters.coupon_id = coupons.id
                                LEFT JOIN user_coupon_counters AS own
                                    ON own.coupon_id = coupons.id AND own.user_id = users.id
                                WHERE coupons.external_id = asked.external_id)
                        FROM UNNEST(ARRAY(SELECT UNNEST($3::text[]))) AS asked (external_id))
                      AS "usages!: Vec<Option<UsageRow>>"
           FROM (VALUES (1)) AS always LEFT JOIN users ON users.external_id = $1 AND NOT is_pseudonym"#,
        user.as_str(),
        days,
        &ids,
        cart.map(CartId::as_str),
    )
    .fetch_one(connection)
    .await?;
    let mut state = UserCouponState {
        user: UserFacts {
            id: user.clone(),
            is_known: row.id.is_some(),
            consents: consents(row.consents)?.suppressed(row.is_suppressed),
            attributes: row.attributes,
            recent_exposures: row
                .recent_exposures
                .into_iter()
                .map(coupon_id)
                .collect::<Result<_, _>>()?,
            reserved: row.reserved.into_iter().map(reserved).collect::<Result<_, _>>()?,
        },
        usages: HashMap::with_capacity(row.usages.len()),
        exposed: HashSet::new(),
        held: row.held.into_iter().map(HeldRow::discount).collect::<Result<_, _>>()?,
        now: row.now,
        user_key: row.id,
    };
    state.add_usages(row.usages)?;
    Ok(state)
}

impl UserCouponState {
    fn add_usages(&mut self, rows: Vec<Option<UsageRow>>) -> Result<(), StoreError> {
        for row in rows.into_iter().flatten() {
            let id = coupon_id(row.external_id.clone())?;
            if row.is_exposed {
                self.exposed.insert(id.clone());
            }
            self.usages.insert(id, row.usage()?);
        }
        Ok(())
    }
}

fn consents(records: Vec<(String, bool)>) -> Result<Consents, StoreError> {
    let mut consents = Consents::default();
    for (purpose, is_granted) in records {
        let purpose: Purpose = purpose
            .parse()
            .map_err(|error| StoreError::corrupt("consents", error))?;
        consents = consents.with(purpose, Some(is_granted));
    }
    Ok(consents)
}

fn reserved((coupon, campaign): (String, String)) -> Result<(CouponId, CampaignId), StoreError> {
    let campaign = CampaignId::stored(campaign).map_err(|error| StoreError::corrupt("campaigns", error))?;
    Ok((coupon_id(coupon)?, campaign))
}

/// The fields stand in the order of the query.
#[derive(Debug, sqlx::Type)]
#[sqlx(type_name = "record")]
struct HeldRow {
    coupon: String,
    currency_code: String,
    amount_minor: i64,
    share_items: Vec<String>,
    share_minors: Vec<i64>,
}

impl HeldRow {
    fn discount(self) -> Result<HeldDiscount, StoreError> {
        let corrupt = |error| StoreError::corrupt("reservations", error);
        let shares = self.share_items.into_iter().zip(self.share_minors);
        let shares = shares.map(|(item, share_minor)| Ok((ItemId::stored(item).map_err(corrupt)?, share_minor)));
        Ok(HeldDiscount {
            coupon: coupon_id(self.coupon)?,
            currency: Currency::new(&self.currency_code).map_err(corrupt)?,
            amount_minor: self.amount_minor,
            shares: shares.collect::<Result<_, StoreError>>()?,
        })
    }
}

/// The fields stand in the order of the query.
#[derive(Debug, sqlx::Type)]
#[sqlx(type_name = "record")]
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
