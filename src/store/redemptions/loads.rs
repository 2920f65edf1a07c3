//! Stores batches of redemptions that another system has made.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::error::InvalidField;
use domain::id::{CouponId, OrderId, RedemptionId, UserId};
use domain::time::Timestamp;

use crate::store::catalog::ids::{self, Told};
use crate::store::coupons::loads::{CouponRef, coupons_of, no_coupon};
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::postgres::pool::{Connection, Pool, plan_for_lookups};
use crate::store::privacy::dropped::AboutUser;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedemptionLoad {
    pub id: RedemptionId,
    pub coupon: CouponId,
    pub user: UserId,
    pub redeemed_at: Timestamp,
    pub order: Option<OrderId>,
    /// 0 or more, in the currency of the campaign.
    pub amount_minor: i64,
}

/// A redemption to store, with its keys.
struct Accepted<'a> {
    load: &'a RedemptionLoad,
    user_id: i64,
    coupon_id: i64,
    campaign_id: i64,
}

/// Stores `redemptions` in one transaction, with their counters and ledger. Redemptions that are stored already change
/// nothing; those of an unknown coupon, or beyond a limit, are refused. Creates unknown users bare.
pub async fn record(pool: &Pool, redemptions: &[RedemptionLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        plan_for_lookups(&mut tx).await?;
        let outcomes = record_in(&mut tx, pool, redemptions).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

impl AboutUser for RedemptionLoad {
    fn told<'a>(&'a self, _: &Pool) -> Told<'a> {
        (&self.user, Some(self.redeemed_at))
    }
}

async fn record_in(
    connection: &mut Connection,
    pool: &Pool,
    redemptions: &[RedemptionLoad],
) -> Result<Vec<LoadOutcome>, StoreError> {
    let coupons = coupons_of(connection, redemptions.iter().map(|load| load.coupon.as_str())).await?;
    let of_known = redemptions
        .iter()
        .filter(|load| coupons.contains_key(load.coupon.as_str()));
    let users = ids::ensure_users(connection, pool.erasure_key(), of_known.map(|load| load.told(pool))).await?;
    let kept = users.kept(pool, redemptions);
    let redemptions = &kept.entries[..];
    // Locks are taken in the order of the module: user counters, coupon counters, campaigns.
    let pair = |load: &RedemptionLoad| {
        let coupon = coupons.get(load.coupon.as_str())?;
        Some((users.key(load.user.as_str()), coupon.id))
    };
    let pairs = redemptions.iter().filter_map(pair).collect();
    lock_user_counters(connection, pairs).await?;
    let mut limits = Limits::lock(connection, coupons.values()).await?;
    let mut known = stored_ids(connection, redemptions).await?;

    let mut outcomes = Vec::with_capacity(redemptions.len());
    let mut accepted = Vec::new();
    for load in redemptions {
        outcomes.push(match coupons.get(load.coupon.as_str()) {
            None => LoadOutcome::Refused(no_coupon(&load.coupon)),
            Some(_) if known.contains(load.id.as_str()) => LoadOutcome::Merged,
            Some(coupon) => match limits.take(coupon, load.amount_minor) {
                Err(refusal) => LoadOutcome::Refused(refusal),
                Ok(()) => {
                    known.insert(load.id.to_string());
                    accepted.push(Accepted {
                        load,
                        user_id: users.key(load.user.as_str()),
                        coupon_id: coupon.id,
                        campaign_id: coupon.campaign_id,
                    });
                    LoadOutcome::Stored
                }
            },
        });
    }
    store(connection, &accepted).await?;
    Ok(kept.outcomes(outcomes, LoadOutcome::Dropped))
}

/// The rest of the limits of coupons and campaigns, under lock.
struct Limits {
    /// Redemptions by coupon; `None` is no limit.
    redemptions: HashMap<i64, Option<i64>>,
    /// Minor units by campaign; without a limit, as much as fits into 64 bits.
    budgets: HashMap<i64, i64>,
}

impl Limits {
    async fn lock(connection: &mut Connection, coupons: impl Iterator<Item = &CouponRef>) -> Result<Self, StoreError> {
        let (coupon_ids, campaign_ids): (Vec<i64>, Vec<i64>) =
            coupons.map(|coupon| (coupon.id, coupon.campaign_id)).unzip();
        let redemptions = sqlx::query!(
            "SELECT coupon_id, total_cap - reserved - redeemed AS room FROM coupon_counters
             WHERE coupon_id = ANY($1::bigint[]) ORDER BY coupon_id FOR UPDATE",
            &coupon_ids
        )
        .fetch_all(&mut *connection)
        .await?;
        let budgets = sqlx::query!(
            "SELECT campaign_id, COALESCE(limit_minor, 9223372036854775807) - reserved_minor - spent_minor AS \"room!\"
             FROM campaign_states
             WHERE campaign_id = ANY($1::bigint[]) ORDER BY campaign_id FOR UPDATE",
            &campaign_ids
        )
        .fetch_all(connection)
        .await?;
        Ok(Self {
            redemptions: redemptions.into_iter().map(|row| (row.coupon_id, row.room)).collect(),
            budgets: budgets.into_iter().map(|row| (row.campaign_id, row.room)).collect(),
        })
    }

    /// Takes one redemption and its amount.
    ///
    /// # Errors
    /// Names the limit that it would exceed.
    fn take(&mut self, coupon: &CouponRef, amount_minor: i64) -> Result<(), InvalidField> {
        let redemptions = self.redemptions.entry(coupon.id).or_default();
        let budget = self.budgets.entry(coupon.campaign_id).or_insert(i64::MAX);
        if redemptions.is_some_and(|left| left < 1) {
            let message = "the coupon is redeemed as often as its total_cap allows";
            return Err(InvalidField::new("coupon_id", "TOTAL_CAP_REACHED", message));
        }
        if *budget < amount_minor {
            let message = "the budget of the campaign has less than this amount left";
            return Err(InvalidField::new("amount_minor", "BUDGET_EXHAUSTED", message));
        }
        *redemptions = redemptions.map(|left| left - 1);
        *budget -= amount_minor;
        Ok(())
    }
}

/// Locks the counters of (user, coupon) pairs, and creates those that are missing.
async fn lock_user_counters(connection: &mut Connection, mut pairs: Vec<(i64, i64)>) -> Result<(), StoreError> {
    pairs.sort_unstable();
    pairs.dedup();
    let (user_ids, coupon_ids): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
    sqlx::query!(
        "INSERT INTO user_coupon_counters (user_id, coupon_id) SELECT * FROM UNNEST($1::bigint[], $2::bigint[])
         ON CONFLICT DO NOTHING",
        &user_ids,
        &coupon_ids,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "SELECT user_coupon_counters.user_id FROM user_coupon_counters
         JOIN UNNEST($1::bigint[], $2::bigint[]) AS given (user_id, coupon_id) USING (user_id, coupon_id)
         ORDER BY user_id, coupon_id FOR UPDATE OF user_coupon_counters",
        &user_ids,
        &coupon_ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

async fn stored_ids(
    connection: &mut Connection,
    redemptions: &[RedemptionLoad],
) -> Result<HashSet<String>, StoreError> {
    let ids: Vec<String> = redemptions.iter().map(|load| load.id.to_string()).collect();
    let stored = sqlx::query_scalar!(
        "SELECT external_id FROM redemptions WHERE external_id = ANY($1::text[])",
        &ids
    )
    .fetch_all(connection)
    .await?;
    Ok(stored.into_iter().collect())
}

/// Inserts `accepted` and their ledger entries, and raises their counters.
async fn store(connection: &mut Connection, accepted: &[Accepted<'_>]) -> Result<(), StoreError> {
    if accepted.is_empty() {
        return Ok(());
    }
    let external_ids: Vec<String> = accepted.iter().map(|one| one.load.id.to_string()).collect();
    let user_ids: Vec<i64> = accepted.iter().map(|one| one.user_id).collect();
    let coupon_ids: Vec<i64> = accepted.iter().map(|one| one.coupon_id).collect();
    let campaign_ids: Vec<i64> = accepted.iter().map(|one| one.campaign_id).collect();
    let amounts: Vec<i64> = accepted.iter().map(|one| one.load.amount_minor).collect();
    let orders: Vec<Option<String>> = accepted
        .iter()
        .map(|one| one.load.order.as_ref().map(ToString::to_string))
        .collect();
    let times: Vec<Timestamp> = accepted.iter().map(|one| one.load.redeemed_at).collect();
    sqlx::query!(
        "WITH stored AS (
             INSERT INTO redemptions
                 (external_id, user_id, coupon_id, campaign_id, amount_minor, by_assignment, order_id, redeemed_at)
             SELECT external_id, user_id, coupon_id, campaign_id, amount_minor, false, order_id, redeemed_at
             FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
                         $7::timestamptz[])
                 AS given (external_id, user_id, coupon_id, campaign_id, amount_minor, order_id, redeemed_at)
             RETURNING id, user_id, coupon_id, campaign_id, amount_minor
         )
         INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, redemption_id, reserved_minor, spent_minor, reserved, redeemed)
         SELECT 'import', campaign_id, coupon_id, user_id, id, 0, amount_minor, 0, 1 FROM stored",
        &external_ids,
        &user_ids,
        &coupon_ids,
        &campaign_ids,
        &amounts,
        &orders as &[Option<String>],
        &times,
    )
    .execute(&mut *connection)
    .await?;
    raise_counters(connection, accepted).await
}

async fn raise_counters(connection: &mut Connection, accepted: &[Accepted<'_>]) -> Result<(), StoreError> {
    let mut by_pair: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let mut by_coupon: BTreeMap<i64, i64> = BTreeMap::new();
    let mut by_campaign: BTreeMap<i64, i64> = BTreeMap::new();
    for one in accepted {
        *by_pair.entry((one.user_id, one.coupon_id)).or_default() += 1;
        *by_coupon.entry(one.coupon_id).or_default() += 1;
        *by_campaign.entry(one.campaign_id).or_default() += one.load.amount_minor;
    }
    // The other system has allowed these redemptions, so they do not breach the cap here.
    sqlx::query!(
        "UPDATE user_coupon_counters AS counters SET redeemed = redeemed + given.count, cap = NULL
         FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS given (user_id, coupon_id, count)
         WHERE counters.user_id = given.user_id AND counters.coupon_id = given.coupon_id",
        &by_pair.keys().map(|pair| pair.0).collect::<Vec<_>>(),
        &by_pair.keys().map(|pair| pair.1).collect::<Vec<_>>(),
        &by_pair.values().copied().collect::<Vec<_>>(),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE coupon_counters AS counters SET redeemed = redeemed + given.count
         FROM UNNEST($1::bigint[], $2::bigint[]) AS given (coupon_id, count)
         WHERE counters.coupon_id = given.coupon_id",
        &by_coupon.keys().copied().collect::<Vec<_>>(),
        &by_coupon.values().copied().collect::<Vec<_>>(),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE campaign_states AS states SET spent_minor = spent_minor + given.amount_minor
         FROM UNNEST($1::bigint[], $2::bigint[]) AS given (campaign_id, amount_minor)
         WHERE states.campaign_id = given.campaign_id",
        &by_campaign.keys().copied().collect::<Vec<_>>(),
        &by_campaign.values().copied().collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}
