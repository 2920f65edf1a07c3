//! Counts of stock, and the policies by which items are ordered.

use super::super::columns::{ColumnError, Columns, Field};
use super::super::findings::Findings;
use super::super::numbers::NumberFormat;
use super::values::{Amount, TimeOrNow, Unit, currency, instant, optional, shown};
use super::{RecordKind, Rules, Written};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::inventory;
use crate::store::postgres::pool::Pool;
use demand::inventory::{OnOrder, PolicyScope, Position, ScopedPolicy};
use demand::replenishment::{MAX_DAYS, Policy, ServiceGoal};
use domain::error::InvalidField;
use domain::id::ItemId;
use domain::money::Currency;
use domain::time::{Timestamp, to_micros};
use tabular::record::Record;

pub(in super::super) struct Inventory {
    item: Field<ItemId>,
    on_hand: Field<f64>,
    on_order: Option<Field<f64>>,
    expected_at: Option<Field<Timestamp>>,
    backordered: Option<Field<f64>>,
    counted_at: TimeOrNow,
}

/// Reads a decimal number.
fn number(
    numbers: NumberFormat,
    field: &'static str,
) -> impl Fn(&str) -> Result<f64, InvalidField> + Send + Sync + 'static {
    move |text| numbers.float(field, text)
}

impl RecordKind for Inventory {
    type Value = Position;

    const FIELDS: &'static [&'static str] = &[
        "item_id",
        "on_hand",
        "on_order",
        "expected_at",
        "backordered",
        "counted_at",
    ];

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        let numbers = rules.numbers;
        Ok(Self {
            item: columns.required("item_id", |id| ItemId::new(id))?,
            on_hand: columns.required("on_hand", number(numbers, "on_hand"))?,
            on_order: columns.optional("on_order", number(numbers, "on_order"))?,
            expected_at: columns.optional("expected_at", instant("expected_at", rules))?,
            backordered: columns.optional("backordered", number(numbers, "backordered"))?,
            // The resolution of storage, so that a count is found again under its moment.
            counted_at: TimeOrNow::new(columns, "counted_at", rules, to_micros(rules.now))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<Position, InvalidField> {
        let item = self.item.require(record)?;
        let on_hand = self.on_hand.require(record)?;
        let quantity = optional(&self.on_order, record)?.unwrap_or(0.0);
        let expected_at = optional(&self.expected_at, record)?;
        let on_order = match (quantity == 0.0, expected_at) {
            (true, _) => Vec::new(),
            (false, Some(expected_at)) => vec![OnOrder { quantity, expected_at }],
            (false, None) => {
                let message = "must be given where units are on order";
                return Err(InvalidField::new("expected_at", "MISSING", message));
            }
        };
        let position = Position {
            item,
            on_hand,
            backordered: optional(&self.backordered, record)?.unwrap_or(0.0),
            on_order,
            counted_at: self.counted_at.get(record)?,
        };
        position.check().map_err(|error| match error.field.as_str() {
            // The file has one order on a line.
            "on_order[0].quantity" => InvalidField {
                field: "on_order".to_owned(),
                ..error
            },
            _ => error,
        })?;
        Ok(position)
    }

    fn describe(value: &Position) -> String {
        let on_order: Vec<String> = value
            .on_order
            .iter()
            .map(|order| format!("{} at {}", order.quantity, order.expected_at))
            .collect();
        format!(
            "item_id={} on_hand={} on_order=[{}] backordered={} counted_at={}",
            value.item,
            value.on_hand,
            on_order.join(", "),
            value.backordered,
            value.counted_at
        )
    }

    fn observe(value: &Position, findings: &mut Findings) {
        findings.items.add(value.item.as_str());
        findings.time(value.counted_at);
    }

    fn owner(value: &Position) -> &str {
        value.item.as_str()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[Position]) -> Result<Written, StoreError> {
        Ok(Written::of(
            inventory::upsert_positions(pool, values).await?,
            values.iter().map(|value| (value.item.as_str(), value.counted_at)),
        ))
    }
}

pub(in super::super) struct Policies {
    scope: Field<String>,
    id: Option<Field<String>>,
    lead_time_days: Field<f64>,
    review_period_days: Field<f64>,
    cycle_service_level: Option<Field<f64>>,
    fill_rate: Option<Field<f64>>,
    min_order_quantity: Option<Field<f64>>,
    order_multiple: Option<Field<f64>>,
    max_cover_days: Option<Field<f64>>,
    unit_cost: Option<Amount>,
    currency: Option<Field<Currency>>,
}

impl Policies {
    fn goal(&self, record: &Record<'_>) -> Result<ServiceGoal, InvalidField> {
        let level = optional(&self.cycle_service_level, record)?;
        let rate = optional(&self.fill_rate, record)?;
        match (level, rate) {
            (Some(level), None) => Ok(ServiceGoal::CycleServiceLevel(level)),
            (None, Some(rate)) => Ok(ServiceGoal::FillRate(rate)),
            (None, None) => {
                let message = "must be given, or fill_rate must be";
                Err(InvalidField::new("cycle_service_level", "MISSING", message))
            }
            (Some(_), Some(_)) => {
                let message = "must not be given beside fill_rate";
                Err(InvalidField::new("cycle_service_level", "GIVEN_TWICE", message))
            }
        }
    }
}

impl RecordKind for Policies {
    type Value = ScopedPolicy;

    const FIELDS: &'static [&'static str] = &[
        "scope",
        "id",
        "lead_time_days",
        "review_period_days",
        "cycle_service_level",
        "fill_rate",
        "min_order_quantity",
        "order_multiple",
        "max_cover_days",
        "unit_cost",
        "unit_cost_minor",
        "currency",
    ];

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        let numbers = rules.numbers;
        let text = |text: &str| Ok(text.to_owned());
        Ok(Self {
            scope: columns.required("scope", text)?,
            id: columns.optional("id", text)?,
            lead_time_days: columns.required("lead_time_days", number(numbers, "lead_time_days"))?,
            review_period_days: columns.required("review_period_days", number(numbers, "review_period_days"))?,
            cycle_service_level: columns.optional("cycle_service_level", number(numbers, "cycle_service_level"))?,
            fill_rate: columns.optional("fill_rate", number(numbers, "fill_rate"))?,
            min_order_quantity: columns.optional("min_order_quantity", number(numbers, "min_order_quantity"))?,
            order_multiple: columns.optional("order_multiple", number(numbers, "order_multiple"))?,
            max_cover_days: columns.optional("max_cover_days", number(numbers, "max_cover_days"))?,
            unit_cost: Amount::new(
                columns,
                numbers,
                &[("unit_cost_minor", Unit::Minor), ("unit_cost", Unit::Major)],
            )?,
            currency: columns.optional("currency", currency)?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<ScopedPolicy, InvalidField> {
        let kind = self.scope.require(record)?;
        let id = optional(&self.id, record)?.unwrap_or_default();
        let currency = || {
            optional(&self.currency, record)?
                .ok_or_else(|| InvalidField::new("currency", "MISSING", "must be given where there is a cost"))
        };
        let unit_cost = match &self.unit_cost {
            Some(amount) => amount.get(record, currency, 1)?,
            None => None,
        };
        let scoped = ScopedPolicy {
            scope: PolicyScope::new(&kind, &id)?,
            policy: Policy {
                lead_time_days: self.lead_time_days.require(record)?,
                review_period_days: self.review_period_days.require(record)?,
                goal: self.goal(record)?,
                min_order_quantity: optional(&self.min_order_quantity, record)?.unwrap_or(0.0),
                order_multiple: optional(&self.order_multiple, record)?.unwrap_or(1.0),
                max_cover_days: optional(&self.max_cover_days, record)?.unwrap_or(MAX_DAYS),
            },
            unit_cost,
        };
        scoped
            .check()
            .map_err(|error| match (&self.unit_cost, error.field.as_str()) {
                (Some(amount), "unit_cost.amount_minor") => InvalidField {
                    field: amount.name.to_owned(),
                    ..error
                },
                _ => error,
            })?;
        Ok(scoped)
    }

    fn describe(value: &ScopedPolicy) -> String {
        let policy = &value.policy;
        let goal = match policy.goal {
            ServiceGoal::CycleServiceLevel(level) => format!("cycle_service_level={level}"),
            ServiceGoal::FillRate(rate) => format!("fill_rate={rate}"),
        };
        format!(
            "scope={} id={} lead_time_days={} review_period_days={} {goal} min_order_quantity={} order_multiple={} \
             max_cover_days={} unit_cost={}",
            value.scope.kind(),
            value.scope.id(),
            policy.lead_time_days,
            policy.review_period_days,
            policy.min_order_quantity,
            policy.order_multiple,
            policy.max_cover_days,
            shown(&value.unit_cost)
        )
    }

    fn observe(value: &ScopedPolicy, findings: &mut Findings) {
        if let Some(cost) = value.unit_cost {
            findings.amount(cost);
        }
    }

    fn owner(value: &ScopedPolicy) -> &str {
        value.scope.id()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[ScopedPolicy]) -> Result<Written, StoreError> {
        Ok(Written::of(
            inventory::upsert_policies(pool, values).await?,
            values.iter().map(|value| (value.scope.kind(), value.scope.id())),
        ))
    }
}
