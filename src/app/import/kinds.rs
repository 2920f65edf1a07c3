//! The kinds of record that a file can hold. Each turns a record into a value that can be stored, by the rules of the wire.

mod campaigns;
mod catalog;
mod coupons;
mod inventory;
mod orders;
mod people;
mod purchases;
mod ratings;
mod redemptions;
mod values;

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::outcome::{LoadCounts, LoadOutcome};
use crate::store::postgres::pool::Pool;
use domain::error::InvalidField;
use domain::id::CouponId;
use domain::rating::RatingScale;
use domain::time::Timestamp;
use tabular::record::Record;

pub(super) use self::campaigns::Campaigns;
pub(super) use self::catalog::{Items, Merchants};
pub(super) use self::coupons::{CouponItems, Coupons};
pub(super) use self::inventory::{Inventory, Policies};
pub(super) use self::orders::Orders;
pub(super) use self::people::{Assignments, Attributes, Consents, Suppressions};
pub(super) use self::purchases::Purchases;
pub(super) use self::ratings::Ratings;
pub(super) use self::redemptions::Redemptions;

use super::columns::{ColumnError, Columns};
use super::findings::Findings;
use super::numbers::NumberFormat;
use super::times::TimeFormats;

/// Options that records are validated with.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub scale: RatingScale,
    pub times: Arc<TimeFormats>,
    pub numbers: NumberFormat,
    /// When the import began.
    pub now: Timestamp,
}

/// One kind of record: its fields, and how it is read and stored.
pub(super) trait RecordKind: Sized + Send + 'static {
    type Value: Send + Sync + 'static;

    const FIELDS: &'static [&'static str];

    /// Whether the store may refuse a value, for example because it refers to an unknown record. Lines are then kept until
    /// the store has answered.
    const MAY_BE_REFUSED: bool = false;

    /// Whether the rows hold the import that has written them. Of all others copies are kept, for undoing.
    const IS_MARKED: bool = false;

    /// Whether consecutive values belong together and are written in one batch.
    const IS_GROUPED: bool = false;

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError>;

    /// Reads one record.
    ///
    /// # Errors
    /// [`InvalidField`] names the first bad field.
    fn read(&mut self, record: &Record<'_>) -> Result<Self::Value, InvalidField>;

    /// Returns the positions of values that are refused for other values of the batch, with the reasons.
    fn refused(_: &[Self::Value]) -> Vec<(usize, InvalidField)> {
        Vec::new()
    }

    /// Is told of a line that is no record.
    fn malformed(&mut self) {}

    /// Whether `value` does not belong to the value before it. Asked only where values are grouped.
    fn starts_group(_: &Self::Value) -> bool {
        true
    }

    /// Returns the fields of `value` as they are understood, for people.
    fn describe(value: &Self::Value) -> String;

    /// Adds `value` to what the file holds.
    fn observe(value: &Self::Value, findings: &mut Findings);

    /// Returns the id of the value's owner. Values of different owners concern different rows.
    fn owner(value: &Self::Value) -> &str;

    /// Returns the id of a record that values of different owners may refer to, and that each of them would create.
    fn shared(_: &Self::Value) -> Option<&str> {
        None
    }

    /// Creates the records that [`shared`](Self::shared) names for `values`, unless they exist.
    fn create_shared(_: &Pool, _: &[&Self::Value]) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Returns the coupon that the value defines or changes. It is compared with the catalog when the file has been stored.
    fn coupon(_: &Self::Value) -> Option<&CouponId> {
        None
    }

    /// Stores `values` in one transaction. `known` caches the keys that former batches have looked up.
    fn write(
        pool: &Pool,
        known: &KeyCache,
        values: &[Self::Value],
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;
}

/// How many values of a batch were stored and which were refused. All others were merged.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub stored: u64,
    /// Merged values that are older than what is stored.
    pub older: u64,
    /// Merged values that a later value of the batch overwrites.
    pub overwritten: u64,
    /// Merged values whose users were erased since.
    pub dropped: u64,
    /// The position in the batch and the reason.
    pub refused: Vec<(usize, InvalidField)>,
}

impl From<LoadCounts> for Written {
    fn from(counts: LoadCounts) -> Self {
        Self {
            stored: counts.stored as u64,
            older: counts.older as u64,
            overwritten: counts.overwritten as u64,
            dropped: counts.dropped as u64,
            refused: Vec::new(),
        }
    }
}

impl Written {
    /// `outcomes` has one entry for every value. `keys` are those of the values: among equal keys the last counts.
    fn of<O: Into<LoadOutcome>, Id: Eq + Hash>(outcomes: Vec<O>, keys: impl DoubleEndedIterator<Item = Id>) -> Self {
        let mut later = HashSet::new();
        let is_last: Vec<bool> = keys.rev().map(|key| later.insert(key)).collect();
        let mut written = Self::default();
        for ((position, outcome), is_last) in outcomes.into_iter().enumerate().zip(is_last.into_iter().rev()) {
            match outcome.into() {
                LoadOutcome::Stored => written.stored += 1,
                LoadOutcome::Merged => written.overwritten += u64::from(!is_last),
                LoadOutcome::Dropped => written.dropped += 1,
                LoadOutcome::Refused(error) => written.refused.push((position, error)),
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
