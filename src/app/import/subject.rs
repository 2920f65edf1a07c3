//! What a file holds: from a record to a value that can be stored, the same rules as on the wire.

mod campaigns;
mod catalog;
mod coupons;
mod people;
mod purchases;
mod ratings;
mod redemptions;
mod values;

use std::sync::Arc;

use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::postgres::pool::Pool;
use domain::error::InvalidField;
use domain::rating::RatingScale;
use domain::time::Timestamp;

pub(super) use self::campaigns::Campaigns;
pub(super) use self::catalog::{Items, Merchants};
pub(super) use self::coupons::{CouponItems, Coupons};
pub(super) use self::people::{Assignments, Attributes, Consents, Suppressions};
pub(super) use self::purchases::Purchases;
pub(super) use self::ratings::Ratings;
pub(super) use self::redemptions::Redemptions;

use super::columns::{ColumnError, Columns};
use super::records::Record;
use super::times::TimeFormats;

/// What a record is judged by, beside itself.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub scale: RatingScale,
    pub times: Arc<TimeFormats>,
    /// When the import began.
    pub now: Timestamp,
}

/// One kind of file.
pub(super) trait Subject: Sized + Send + 'static {
    type Value: Send + Sync + 'static;

    const FIELDS: &'static [&'static str];

    /// Whether only the store can tell if a value fits: the lines are then kept until it has said so.
    const MAY_BE_REFUSED: bool = false;

    fn new(columns: &Columns, rules: &Rules) -> Result<Self, ColumnError>;

    /// # Errors
    /// The first bad field.
    fn read(&mut self, record: &Record<'_>) -> Result<Self::Value, InvalidField>;

    /// Whose value it is. Values of different owners concern different rows.
    fn owner(value: &Self::Value) -> &str;

    /// What values of different owners may refer to, and would both create.
    fn shared(_: &Self::Value) -> Option<&str> {
        None
    }

    /// Creates what [`shared`](Self::shared) names for each of `values`, where it is not there yet.
    fn create_shared(_: &Pool, _: &[&Self::Value]) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Stores `values` in one transaction. `known`: what former batches have met.
    fn write(
        pool: &Pool,
        known: &KeyCache,
        values: &[Self::Value],
    ) -> impl Future<Output = Result<Written, StoreError>> + Send;
}

/// What became of a batch; the rest was merged.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub stored: u64,
    /// By position in the batch.
    pub refused: Vec<(usize, InvalidField)>,
}

impl Written {
    /// Of values of which none is ever refused.
    fn of_accepted(stored: usize) -> Self {
        Self {
            stored: stored as u64,
            refused: Vec::new(),
        }
    }
}

impl<O: Into<LoadOutcome>> From<Vec<O>> for Written {
    /// `outcomes`: of every value.
    fn from(outcomes: Vec<O>) -> Self {
        let mut written = Self::default();
        for (position, outcome) in outcomes.into_iter().enumerate() {
            match outcome.into() {
                LoadOutcome::Stored => written.stored += 1,
                LoadOutcome::Merged => {}
                LoadOutcome::Refused(error) => written.refused.push((position, error)),
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
