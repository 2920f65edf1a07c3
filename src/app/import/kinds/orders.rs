//! Whole orders: a line of an order per record, and all lines of a version of an order one after the other.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::super::columns::{ColumnError, Columns, Field};
use super::super::findings::Findings;
use super::super::order_lines::AlreadyHashed;
use super::purchases::{LineFields, Purchases, line_number};
use super::values::{boolean, event_time, optional};
use super::{RecordKind, Rules, Written};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::purchases::orders::{self, OrderOutcome, RecordedOrder};
use domain::error::InvalidField;
use domain::id::OrderId;
use domain::order::Order;
use domain::purchase::PurchaseLine;
use domain::time::Timestamp;
use tabular::record::Record;

/// Most lines of an order, as on the wire.
const MAX_LINES: i32 = 10_000;
/// Most orders of which it is known that their lines have ended. Each takes 9 bytes or more.
const MAX_CLOSED: usize = 1 << 25;

pub(in super::super) struct Orders {
    line: LineFields,
    line_number: Option<Field<i32>>,
    updated_at: Field<Timestamp>,
    canceled: Option<Field<bool>>,
    /// The version of the order on the latest line.
    current: Option<Current>,
    /// Hashes of the versions whose lines have ended.
    closed: HashSet<u64, AlreadyHashed>,
}

struct Current {
    version: Arc<Version>,
    hash: u64,
    n_lines: i32,
}

/// A version of an order that is being read.
#[derive(Debug)]
pub(in super::super) struct Version {
    order: OrderId,
    updated_at: Timestamp,
    /// Whether a line of it was rejected. The version is then not stored at all.
    is_incomplete: AtomicBool,
}

/// One record of the file.
#[derive(Debug)]
pub(in super::super) struct OrderRecord {
    version: Arc<Version>,
    /// `None` for a line that was canceled.
    line: Option<PurchaseLine>,
    /// Whether it is the first of its version.
    is_first: bool,
}

impl RecordKind for Orders {
    type Value = OrderRecord;

    const FIELDS: &'static [&'static str] = &[
        "order_id",
        "updated_at",
        "canceled",
        "line_number",
        "user_id",
        "item_id",
        "quantity",
        "line_total_minor",
        "line_total",
        "unit_price",
        "currency",
        "purchased_at",
        "coupon_discount",
        "coupon_discount_minor",
    ];

    const IS_MARKED: bool = true;
    const MAY_BE_REFUSED: bool = true;
    const IS_GROUPED: bool = true;

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            line: LineFields::new(columns, rules)?,
            line_number: line_number(columns, rules)?,
            updated_at: columns.required("updated_at", event_time("updated_at", rules))?,
            canceled: columns.optional("canceled", |text| boolean("canceled", text))?,
            current: None,
            closed: HashSet::default(),
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<OrderRecord, InvalidField> {
        let order = self.line.order.require(record)?;
        let updated_at = self.updated_at.require(record).inspect_err(|_| self.malformed())?;
        let (version, n_lines) = self.enter(order, updated_at)?;
        let read = self.line_of(record, n_lines);
        let line = read.inspect_err(|_| version.is_incomplete.store(true, Ordering::Relaxed))?;
        Ok(OrderRecord {
            version,
            line,
            is_first: n_lines == 1,
        })
    }

    fn malformed(&mut self) {
        if let Some(current) = &self.current {
            current.version.is_incomplete.store(true, Ordering::Relaxed);
        }
    }

    fn describe(value: &OrderRecord) -> String {
        let updated_at = value.version.updated_at;
        match &value.line {
            Some(line) => format!("{} updated_at={updated_at}", Purchases::describe(line)),
            None => format!("order_id={} canceled updated_at={updated_at}", value.version.order),
        }
    }

    fn observe(value: &OrderRecord, findings: &mut Findings) {
        if let Some(line) = &value.line {
            Purchases::observe(line, findings);
        }
    }

    fn starts_group(value: &OrderRecord) -> bool {
        value.is_first
    }

    fn refused(values: &[OrderRecord]) -> Vec<(usize, InvalidField)> {
        let errors = ranges(values).filter_map(|range| Some((order(&values[range.clone()]).err()?, range)));
        errors
            .flat_map(|(error, range)| range.map(move |position| (position, error.clone())))
            .collect()
    }

    fn owner(value: &OrderRecord) -> &str {
        value.version.order.as_str()
    }

    async fn write(pool: &Pool, known: &KeyCache, values: &[OrderRecord]) -> Result<Written, StoreError> {
        let mut written = Written {
            refused: Self::refused(values),
            ..Written::default()
        };
        let whole = |range: Range<usize>| Some((order(&values[range.clone()]).ok()?, range));
        let (versions, positions): (Vec<Order>, Vec<Range<usize>>) = ranges(values).filter_map(whole).unzip();
        if versions.is_empty() {
            return Ok(written);
        }
        let recorded = orders::load(pool, known, &versions).await?;
        let kept: HashMap<&OrderId, Option<Timestamp>> = versions
            .iter()
            .zip(&recorded)
            .filter(|(_, recorded)| recorded.outcome != OrderOutcome::Superseded)
            .map(|(order, recorded)| (order.id(), recorded.kept_updated_at))
            .collect();
        for ((order, recorded), range) in versions.iter().zip(&recorded).zip(positions) {
            let RecordedOrder {
                outcome,
                kept_updated_at,
            } = recorded;
            let n_lines = range.len() as u64;
            match outcome {
                OrderOutcome::Stored => written.stored += n_lines,
                OrderOutcome::Identical => {}
                OrderOutcome::Dropped => written.dropped += n_lines,
                // The version that is kept stands in the file too.
                OrderOutcome::Superseded if kept.get(order.id()) == Some(kept_updated_at) => {
                    written.overwritten += n_lines
                }
                OrderOutcome::Superseded => written.older += n_lines,
            }
        }
        Ok(written)
    }
}

impl Orders {
    /// Makes the version of an order the current one. Returns it, and how many lines of it have been read with this one.
    fn enter(&mut self, order: OrderId, updated_at: Timestamp) -> Result<(Arc<Version>, i32), InvalidField> {
        if let Some(current) = &mut self.current
            && current.version.order == order
            && current.version.updated_at == updated_at
        {
            current.n_lines += 1;
            if current.n_lines > MAX_LINES {
                current.version.is_incomplete.store(true, Ordering::Relaxed);
                let message = format!("must be at most {MAX_LINES} in an order");
                return Err(InvalidField::new("line_number", "TOO_MANY_LINES", message));
            }
            return Ok((current.version.clone(), current.n_lines));
        }
        let hash = xxh3_64(format!("{} {order}", updated_at.timestamp_micros()).as_bytes());
        if let Some(current) = self.current.take() {
            self.closed.insert(current.hash);
        }
        if self.closed.contains(&hash) {
            return Err(apart("other orders stand between the lines of this one"));
        }
        if self.closed.len() >= MAX_CLOSED {
            return Err(apart(
                "the file has too many orders to tell whether their lines stand together",
            ));
        }
        let version = Arc::new(Version {
            order,
            updated_at,
            is_incomplete: AtomicBool::new(false),
        });
        self.current = Some(Current {
            version: version.clone(),
            hash,
            n_lines: 1,
        });
        Ok((version, 1))
    }

    /// Reads the line of a record. Without a column for it, its number is its place in the order.
    fn line_of(&mut self, record: &Record<'_>, place: i32) -> Result<Option<PurchaseLine>, InvalidField> {
        if optional(&self.canceled, record)? == Some(true) {
            return Ok(None);
        }
        let Self { line, line_number, .. } = self;
        let number = |_: &_, _: &_, _: &_| match line_number {
            Some(line_number) => line_number.require(record),
            None => Ok(place),
        };
        line.read(record, number).map(Some)
    }
}

fn apart(problem: &str) -> InvalidField {
    let message = format!("{problem}; sort the file by order and updated_at, since orders are stored whole");
    InvalidField::new("order_id", "ORDER_LINES_APART", message)
}

/// Returns the positions of the records of each version.
fn ranges(values: &[OrderRecord]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    let groups = values.chunk_by(|a, b| Arc::ptr_eq(&a.version, &b.version));
    groups.map(move |group| {
        let from = at;
        at += group.len();
        from..at
    })
}

/// Returns the order that the records of one version make.
fn order(records: &[OrderRecord]) -> Result<Order, InvalidField> {
    let version = &records[0].version;
    if version.is_incomplete.load(Ordering::Relaxed) {
        let message = "has another line that was rejected, and orders are stored whole";
        return Err(InvalidField::new("order_id", "ORDER_INCOMPLETE", message));
    }
    let lines = records.iter().filter_map(|record| record.line.clone()).collect();
    Order::new(version.order.clone(), version.updated_at, lines)
}
