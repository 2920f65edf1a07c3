//! Redemptions that another system has recorded.

use sha2::{Digest, Sha256};

use super::super::columns::{ColumnError, Columns, Field};
use super::super::findings::Findings;
use super::values::{at_least, event_time, optional, shown};
use super::{RecordKind, Rules, Written};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::redemptions::loads::{self, RedemptionLoad};
use domain::error::InvalidField;
use domain::id::{CouponId, OrderId, RedemptionId, UserId};
use domain::time::Timestamp;
use tabular::record::Record;

pub(in super::super) struct Redemptions {
    redemption: Option<Field<RedemptionId>>,
    coupon: Field<CouponId>,
    user: Field<UserId>,
    redeemed_at: Field<Timestamp>,
    order: Option<Field<OrderId>>,
    amount_minor: Option<Field<i64>>,
}

impl RecordKind for Redemptions {
    type Value = RedemptionLoad;

    const FIELDS: &'static [&'static str] = &[
        "redemption_id",
        "coupon_id",
        "user_id",
        "redeemed_at",
        "order_id",
        "amount_minor",
    ];

    const MAY_BE_REFUSED: bool = true;

    const IS_MARKED: bool = true;

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            redemption: columns.optional("redemption_id", |id| RedemptionId::new(id))?,
            coupon: columns.required("coupon_id", |id| CouponId::new(id))?,
            user: columns.required("user_id", |id| UserId::new(id))?,
            redeemed_at: columns.required("redeemed_at", event_time("redeemed_at", rules))?,
            order: columns.optional("order_id", |id| OrderId::new(id))?,
            amount_minor: columns.optional("amount_minor", at_least(rules.numbers, "amount_minor", 0))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<RedemptionLoad, InvalidField> {
        let coupon = self.coupon.require(record)?;
        let user = self.user.require(record)?;
        let redeemed_at = self.redeemed_at.require(record)?;
        let id = match optional(&self.redemption, record)? {
            Some(id) => id,
            None => derived_id(&coupon, &user, redeemed_at)?,
        };
        Ok(RedemptionLoad {
            id,
            coupon,
            user,
            redeemed_at,
            order: optional(&self.order, record)?,
            amount_minor: optional(&self.amount_minor, record)?.unwrap_or(0),
        })
    }

    fn describe(value: &RedemptionLoad) -> String {
        format!(
            "redemption_id={} coupon_id={} user_id={} redeemed_at={} order_id={} amount_minor={}",
            value.id,
            value.coupon,
            value.user,
            value.redeemed_at,
            shown(&value.order),
            value.amount_minor
        )
    }

    fn observe(value: &RedemptionLoad, findings: &mut Findings) {
        findings.users.add(value.user.as_str());
        findings.time(value.redeemed_at);
    }

    /// Users are stored in parallel, so that the order of the lines does not decide who gets the last of a cap.
    fn owner(value: &RedemptionLoad) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[RedemptionLoad]) -> Result<Written, StoreError> {
        Ok(Written::of(
            loads::record(pool, values).await?,
            values.iter().map(|value| value.id.as_str()),
        ))
    }
}

/// Derives the same id from the same coupon, user and instant, so that a file can be imported again.
fn derived_id(coupon: &CouponId, user: &UserId, redeemed_at: Timestamp) -> Result<RedemptionId, InvalidField> {
    let mut hasher = Sha256::new();
    let at = redeemed_at.timestamp_micros().to_be_bytes();
    for part in [coupon.as_str().as_bytes(), user.as_str().as_bytes(), &at] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digits: String = hasher
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    RedemptionId::new(format!("import-{digits}"))
}
