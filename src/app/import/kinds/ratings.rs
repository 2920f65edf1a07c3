//! Ratings.

use super::super::columns::{ColumnError, Columns, Field};
use super::super::findings::Findings;
use super::values::{TimeOrNow, rating_value};
use super::{RecordKind, Rules, Written};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::ratings;
use domain::error::InvalidField;
use domain::id::{ItemId, UserId};
use domain::rating::Rating;
use tabular::record::Record;

pub(in super::super) struct Ratings {
    user: Field<UserId>,
    item: Field<ItemId>,
    value: Field<f32>,
    rated_at: TimeOrNow,
}

impl RecordKind for Ratings {
    type Value = Rating;

    const FIELDS: &'static [&'static str] = &["user_id", "item_id", "value", "rated_at"];

    const IS_MARKED: bool = true;

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        let (scale, numbers) = (rules.scale, rules.numbers);
        Ok(Self {
            user: columns.required("user_id", |id| UserId::new(id))?,
            item: columns.required("item_id", |id| ItemId::new(id))?,
            value: columns.required("value", move |text| rating_value(&scale, numbers, text))?,
            rated_at: TimeOrNow::new(columns, "rated_at", rules, rules.now)?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<Rating, InvalidField> {
        Ok(Rating {
            user: self.user.require(record)?,
            item: self.item.require(record)?,
            value: self.value.require(record)?,
            rated_at: self.rated_at.get(record)?,
        })
    }

    fn describe(value: &Rating) -> String {
        format!(
            "user_id={} item_id={} value={} rated_at={}",
            value.user, value.item, value.value, value.rated_at
        )
    }

    fn observe(value: &Rating, findings: &mut Findings) {
        findings.users.add(value.user.as_str());
        findings.items.add(value.item.as_str());
        findings.time(value.rated_at);
        findings.value(value.value);
    }

    fn owner(value: &Rating) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, known: &KeyCache, values: &[Rating]) -> Result<Written, StoreError> {
        Ok(ratings::load(pool, known, values).await?.into())
    }
}
