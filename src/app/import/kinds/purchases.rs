//! Purchases: one order line per record.

use super::super::columns::{ColumnError, Columns, Field, missing};
use super::super::findings::Findings;
use super::super::order_lines::LineNumbers;
use super::values::{Amount, Unit, currency, event_time, integer};
use super::{RecordKind, Rules, Written};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::purchases;
use domain::error::InvalidField;
use domain::id::{ItemId, OrderId, UserId};
use domain::money::Currency;
use domain::purchase::{PurchaseLine, check_line_number, check_quantity};
use domain::time::{EventTime, Timestamp};
use tabular::record::Record;

pub(in super::super) struct Purchases {
    line: LineFields,
    line_number: Option<Field<i32>>,
    line_numbers: LineNumbers,
}

/// The fields of a line but its number.
pub(super) struct LineFields {
    pub order: Field<OrderId>,
    user: Field<UserId>,
    item: Field<ItemId>,
    quantity: Field<i32>,
    amount: Amount,
    currency: Field<Currency>,
    purchased_at: Field<Timestamp>,
    coupon_discount: Option<Amount>,
    /// The sign of the first discount of a line that is no return; 0 before it. Files write discounts either way.
    discount_sign: i64,
}

/// Returns the field of the line number, if the file has it.
pub(super) fn line_number(columns: &mut Columns, rules: &Rules) -> Result<Option<Field<i32>>, ColumnError> {
    let numbers = rules.numbers;
    columns.optional("line_number", move |text| {
        integer(numbers, "line_number", text).and_then(check_line_number)
    })
}

impl RecordKind for Purchases {
    type Value = PurchaseLine;

    const FIELDS: &'static [&'static str] = &[
        "order_id",
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

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            line: LineFields::new(columns, rules)?,
            line_number: line_number(columns, rules)?,
            line_numbers: LineNumbers::default(),
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<PurchaseLine, InvalidField> {
        let Self {
            line,
            line_number,
            line_numbers,
        } = self;
        line.read(record, |order, user, item| match line_number {
            Some(line_number) => line_number.require(record),
            // A line with another bad field takes a number too, so that correcting it changes no other line's number.
            None => line_numbers.next(order, user, item),
        })
    }

    fn describe(value: &PurchaseLine) -> String {
        format!(
            "order_id={} line_number={} user_id={} item_id={} quantity={} line_total={} purchased_at={} \
             coupon_discount_minor={}",
            value.order,
            value.line_number,
            value.user,
            value.item,
            value.quantity,
            value.line_total,
            value.purchased_at.at(),
            value.coupon_discount_minor
        )
    }

    fn observe(value: &PurchaseLine, findings: &mut Findings) {
        findings.users.add(value.user.as_str());
        findings.items.add(value.item.as_str());
        findings.time(value.purchased_at.at());
        findings.amount(value.line_total);
    }

    fn owner(value: &PurchaseLine) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, known: &KeyCache, values: &[PurchaseLine]) -> Result<Written, StoreError> {
        Ok(Written::of(
            purchases::load(pool, known, values).await?,
            values.iter().map(|line| {
                (
                    line.order.as_str(),
                    line.user.as_str(),
                    line.item.as_str(),
                    line.line_number,
                )
            }),
        ))
    }
}

impl LineFields {
    pub fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        const AMOUNTS: [(&str, Unit); 3] = [
            ("line_total_minor", Unit::Minor),
            ("line_total", Unit::Major),
            ("unit_price", Unit::MajorPerPiece),
        ];
        const DISCOUNTS: [(&str, Unit); 2] = [("coupon_discount_minor", Unit::Minor), ("coupon_discount", Unit::Major)];
        let order = columns.required("order_id", |id| OrderId::new(id))?;
        let user = columns.required("user_id", |id| UserId::new(id))?;
        let item = columns.required("item_id", |id| ItemId::new(id))?;
        let numbers = rules.numbers;
        let quantity = columns.required("quantity", move |text| integer(numbers, "quantity", text))?;
        let amount =
            Amount::new(columns, numbers, &AMOUNTS)?.ok_or_else(|| columns.missing(&AMOUNTS.map(|(name, _)| name)))?;
        columns.mark_required(amount.name);
        Ok(Self {
            order,
            user,
            item,
            quantity,
            amount,
            currency: columns.required("currency", currency)?,
            purchased_at: columns.required("purchased_at", event_time("purchased_at", rules))?,
            coupon_discount: Amount::new(columns, numbers, &DISCOUNTS)?,
            discount_sign: 0,
        })
    }

    /// Reads a line, whose number `line_number` tells.
    pub fn read(
        &mut self,
        record: &Record<'_>,
        line_number: impl FnOnce(&OrderId, &UserId, &ItemId) -> Result<i32, InvalidField>,
    ) -> Result<PurchaseLine, InvalidField> {
        let order = self.order.require(record)?;
        let user = self.user.require(record)?;
        let item = self.item.require(record)?;
        let line_number = line_number(&order, &user, &item)?;
        let quantity = self.quantity.require(record)?;
        let line_total = self.amount.get(record, || self.currency.require(record), quantity)?;
        let coupon_discount_minor = self.coupon_discount_minor(record, quantity)?;
        // A line without quantity is no purchase, but tells that the user has used a coupon.
        if coupon_discount_minor == 0 {
            check_quantity(quantity)?;
        }
        Ok(PurchaseLine {
            order,
            line_number,
            user,
            item,
            quantity,
            line_total: line_total.ok_or_else(|| missing(self.amount.name))?,
            purchased_at: EventTime::Given(self.purchased_at.require(record)?),
            coupon_discount_minor,
        })
    }

    /// Returns the discount without its sign, which must be the same for all lines that are no returns; 0 where the file has
    /// no discount.
    fn coupon_discount_minor(&mut self, record: &Record<'_>, quantity: i32) -> Result<i64, InvalidField> {
        let Some(discount) = &self.coupon_discount else {
            return Ok(0);
        };
        let discount_minor = discount.get(record, || self.currency.require(record), 1)?;
        let discount_minor = discount_minor.map_or(0, |money| money.amount_minor);
        if quantity >= 0 && self.discount_sign == 0 {
            self.discount_sign = discount_minor.signum();
        }
        if quantity >= 0 && self.discount_sign * discount_minor < 0 {
            let message = format!("must have the sign of the discounts before it, is {discount_minor} minor units");
            return Err(InvalidField::new(discount.name, "MIXED_DISCOUNT_SIGNS", message));
        }
        discount_minor.checked_abs().ok_or_else(|| {
            InvalidField::new(
                discount.name,
                "AMOUNT_OUT_OF_RANGE",
                "must fit into 64 bits as minor units",
            )
        })
    }
}
