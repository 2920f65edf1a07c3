//! What a file holds: from a record to a value that can be stored, the same rules as on the wire.

use std::sync::Arc;

use crate::domain::decimal::Decimal;
use crate::domain::error::InvalidField;
use crate::domain::id::{Category, ItemId, MerchantId, OrderId, UserId};
use crate::domain::item::{ItemPatch, MerchantPatch, check_text};
use crate::domain::money::{Currency, Money};
use crate::domain::purchase::{PurchaseLine, check_line_number, check_quantity};
use crate::domain::rating::{Rating, RatingScale};
use crate::domain::time::{EventTime, Timestamp, check_event_time};
use crate::store::catalog;
use crate::store::error::StoreError;
use crate::store::outcome::WriteOutcome;
use crate::store::pool::Pool;
use crate::store::{purchases, ratings};

use super::columns::{ColumnError, Columns, Field, missing};
use super::order_lines::LineNumbers;
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

    fn new(columns: &Columns, rules: &Rules) -> Result<Self, ColumnError>;

    /// # Errors
    /// The first bad field.
    fn read(&mut self, record: &Record<'_>) -> Result<Self::Value, InvalidField>;

    /// Whose value it is. Values of different owners concern different rows.
    fn owner(value: &Self::Value) -> &str;

    /// What values of different owners may refer to, and would both create.
    fn shared(value: &Self::Value) -> Option<&str>;

    /// Creates what [`shared`](Self::shared) names for each of `values`, where it is not there yet.
    fn create_shared(pool: &Pool, values: &[&Self::Value]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Stores `values` in one transaction; returns what became of each.
    fn write(pool: &Pool, values: &[Self::Value])
    -> impl Future<Output = Result<Vec<WriteOutcome>, StoreError>> + Send;
}

pub(super) struct Ratings {
    user: Field<UserId>,
    item: Field<ItemId>,
    value: Field<f32>,
    rated_at: Option<Field<Timestamp>>,
    now: Timestamp,
}

impl Subject for Ratings {
    type Value = Rating;

    const FIELDS: &'static [&'static str] = &["user_id", "item_id", "value", "rated_at"];

    fn new(columns: &Columns, rules: &Rules) -> Result<Self, ColumnError> {
        let scale = rules.scale;
        let rated_at = columns.optional("rated_at", event_time("rated_at", rules))?;
        if rated_at.is_none() {
            let now = rules.now;
            tracing::info!(rated_at = %now, "the file has no rated_at: every rating is dated {now}");
        }
        Ok(Self {
            user: columns.required("user_id", |id| UserId::new(id))?,
            item: columns.required("item_id", |id| ItemId::new(id))?,
            value: columns.required("value", move |text| rating_value(&scale, text))?,
            rated_at,
            now: rules.now,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<Rating, InvalidField> {
        Ok(Rating {
            user: self.user.require(record)?,
            item: self.item.require(record)?,
            value: self.value.require(record)?,
            rated_at: optional(&self.rated_at, record)?.unwrap_or(self.now),
        })
    }

    fn owner(value: &Rating) -> &str {
        value.user.as_str()
    }

    fn shared(value: &Rating) -> Option<&str> {
        Some(value.item.as_str())
    }

    async fn create_shared(pool: &Pool, values: &[&Rating]) -> Result<(), StoreError> {
        let items: Vec<&ItemId> = values.iter().map(|value| &value.item).collect();
        catalog::create_items(pool, &items).await
    }

    async fn write(pool: &Pool, values: &[Rating]) -> Result<Vec<WriteOutcome>, StoreError> {
        ratings::upsert(pool, values).await
    }
}

pub(super) struct Purchases {
    order: Field<OrderId>,
    line_number: Option<Field<i32>>,
    line_numbers: LineNumbers,
    user: Field<UserId>,
    item: Field<ItemId>,
    quantity: Field<i32>,
    amount: Amount,
    currency: Field<Currency>,
    purchased_at: Field<Timestamp>,
}

impl Subject for Purchases {
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
    ];

    fn new(columns: &Columns, rules: &Rules) -> Result<Self, ColumnError> {
        const AMOUNTS: [(&str, Unit); 3] = [
            ("line_total_minor", Unit::Minor),
            ("line_total", Unit::Major),
            ("unit_price", Unit::MajorPerPiece),
        ];
        let order = columns.required("order_id", |id| OrderId::new(id))?;
        let user = columns.required("user_id", |id| UserId::new(id))?;
        let item = columns.required("item_id", |id| ItemId::new(id))?;
        let quantity = columns.required("quantity", |text| integer("quantity", text).and_then(check_quantity))?;
        let amount = Amount::new(columns, &AMOUNTS)?.ok_or_else(|| columns.missing(&AMOUNTS.map(|(name, _)| name)))?;
        Ok(Self {
            order,
            line_number: columns.optional("line_number", |text| {
                integer("line_number", text).and_then(check_line_number)
            })?,
            line_numbers: LineNumbers::default(),
            user,
            item,
            quantity,
            amount,
            currency: columns.required("currency", currency)?,
            purchased_at: columns.required("purchased_at", event_time("purchased_at", rules))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<PurchaseLine, InvalidField> {
        let order = self.order.require(record)?;
        let user = self.user.require(record)?;
        let item = self.item.require(record)?;
        let line_number = match &self.line_number {
            Some(line_number) => line_number.require(record)?,
            // Also where another field is bad: once it is mended, no other line has another number.
            None => self.line_numbers.next(&order, &user, &item)?,
        };
        let quantity = self.quantity.require(record)?;
        let line_total = self.amount.get(record, || self.currency.require(record), quantity)?;
        Ok(PurchaseLine {
            order,
            line_number,
            user,
            item,
            quantity,
            line_total: line_total.ok_or_else(|| missing(self.amount.name))?,
            purchased_at: EventTime::Given(self.purchased_at.require(record)?),
        })
    }

    fn owner(value: &PurchaseLine) -> &str {
        value.user.as_str()
    }

    fn shared(value: &PurchaseLine) -> Option<&str> {
        Some(value.item.as_str())
    }

    async fn create_shared(pool: &Pool, values: &[&PurchaseLine]) -> Result<(), StoreError> {
        let items: Vec<&ItemId> = values.iter().map(|value| &value.item).collect();
        catalog::create_items(pool, &items).await
    }

    async fn write(pool: &Pool, values: &[PurchaseLine]) -> Result<Vec<WriteOutcome>, StoreError> {
        purchases::record(pool, values).await
    }
}

pub(super) struct Items {
    item: Field<ItemId>,
    title: Option<Field<String>>,
    merchant: Option<Field<MerchantId>>,
    category: Option<Field<Category>>,
    price: Option<(Amount, Field<Currency>)>,
    listed: Option<Field<bool>>,
}

impl Subject for Items {
    type Value = ItemPatch;

    const FIELDS: &'static [&'static str] = &[
        "item_id",
        "title",
        "merchant_id",
        "category",
        "price",
        "price_minor",
        "currency",
        "listed",
    ];

    fn new(columns: &Columns, _: &Rules) -> Result<Self, ColumnError> {
        let price = match Amount::new(columns, &[("price_minor", Unit::Minor), ("price", Unit::Major)])? {
            Some(amount) => Some((amount, columns.required("currency", currency)?)),
            None => None,
        };
        Ok(Self {
            item: columns.required("item_id", |id| ItemId::new(id))?,
            title: columns.optional("title", |text| check_text("title", text.to_owned()))?,
            merchant: columns.optional("merchant_id", |id| MerchantId::new(id))?,
            category: columns.optional("category", |name| Category::new(name))?,
            price,
            listed: columns.optional("listed", boolean)?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<ItemPatch, InvalidField> {
        Ok(ItemPatch {
            id: self.item.require(record)?,
            title: optional(&self.title, record)?,
            merchant: optional(&self.merchant, record)?,
            category: optional(&self.category, record)?,
            price: self.price(record)?,
            listed: optional(&self.listed, record)?,
        })
    }

    fn owner(value: &ItemPatch) -> &str {
        value.id.as_str()
    }

    fn shared(value: &ItemPatch) -> Option<&str> {
        value.merchant.as_ref().map(|merchant| merchant.as_str())
    }

    async fn create_shared(pool: &Pool, values: &[&ItemPatch]) -> Result<(), StoreError> {
        let merchants: Vec<&MerchantId> = values.iter().filter_map(|item| item.merchant.as_ref()).collect();
        catalog::create_merchants(pool, &merchants).await
    }

    async fn write(pool: &Pool, values: &[ItemPatch]) -> Result<Vec<WriteOutcome>, StoreError> {
        catalog::upsert_items(pool, values).await
    }
}

impl Items {
    fn price(&self, record: &Record<'_>) -> Result<Option<Money>, InvalidField> {
        let Some((amount, currency)) = &self.price else {
            return Ok(None);
        };
        let price = amount.get(record, || currency.require(record), 1)?;
        price
            .map(Money::require_not_negative)
            .transpose()
            .map_err(|error| InvalidField {
                field: amount.name.to_owned(),
                ..error
            })
    }
}

pub(super) struct Merchants {
    merchant: Field<MerchantId>,
    name: Option<Field<String>>,
}

impl Subject for Merchants {
    type Value = MerchantPatch;

    const FIELDS: &'static [&'static str] = &["merchant_id", "name"];

    fn new(columns: &Columns, _: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            merchant: columns.required("merchant_id", |id| MerchantId::new(id))?,
            name: columns.optional("name", |text| check_text("name", text.to_owned()))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<MerchantPatch, InvalidField> {
        Ok(MerchantPatch {
            id: self.merchant.require(record)?,
            name: optional(&self.name, record)?,
        })
    }

    fn owner(value: &MerchantPatch) -> &str {
        value.id.as_str()
    }

    fn shared(_: &MerchantPatch) -> Option<&str> {
        None
    }

    async fn create_shared(_: &Pool, _: &[&MerchantPatch]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn write(pool: &Pool, values: &[MerchantPatch]) -> Result<Vec<WriteOutcome>, StoreError> {
        catalog::upsert_merchants(pool, values).await
    }
}

/// Money in one of the ways that files give it.
struct Amount {
    name: &'static str,
    unit: Unit,
    number: Field<Decimal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Minor units of the currency, without a fraction.
    Minor,
    /// Major units, rounded to minor ones.
    Major,
    /// Major units for one piece: multiplied exactly, then rounded.
    MajorPerPiece,
}

impl Amount {
    /// The one of `choices` that the file has.
    fn new(columns: &Columns, choices: &[(&'static str, Unit)]) -> Result<Option<Self>, ColumnError> {
        let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
        let chosen = columns.one_of(&names)?;
        let Some(&(name, unit)) = choices.iter().find(|(name, _)| Some(*name) == chosen) else {
            return Ok(None);
        };
        let number = columns.required(name, move |text| Decimal::parse(name, text.trim_ascii()))?;
        Ok(Some(Self { name, unit, number }))
    }

    fn get(
        &self,
        record: &Record<'_>,
        currency: impl FnOnce() -> Result<Currency, InvalidField>,
        quantity: i32,
    ) -> Result<Option<Money>, InvalidField> {
        let Some(number) = self.number.get(record)? else {
            return Ok(None);
        };
        let currency = currency()?;
        match self.unit {
            Unit::Minor => {
                let amount_minor = whole(self.name, number)?;
                Ok(Money { amount_minor, currency })
            }
            Unit::Major => Money::from_major(self.name, number, currency),
            Unit::MajorPerPiece => Money::from_major(self.name, number.times(quantity), currency),
        }
        .map(Some)
    }
}

fn optional<T: Clone>(field: &Option<Field<T>>, record: &Record<'_>) -> Result<Option<T>, InvalidField> {
    match field {
        Some(field) => field.get(record),
        None => Ok(None),
    }
}

fn rating_value(scale: &RatingScale, text: &str) -> Result<f32, InvalidField> {
    let value = text.trim_ascii().parse().map_err(|_| {
        InvalidField::new(
            "value",
            "INVALID_NUMBER",
            format!("must be a number, for example 4.5, is {text:?}"),
        )
    })?;
    scale.check("value", value)
}

fn integer(field: &str, text: &str) -> Result<i32, InvalidField> {
    whole(field, Decimal::parse(field, text.trim_ascii())?)
}

/// `6.0` is a whole number, too: so files write it that have passed through floating point.
fn whole<T: TryFrom<i64>>(field: &str, number: Decimal) -> Result<T, InvalidField> {
    let Some(integer) = number.integer() else {
        return Err(InvalidField::new(field, "INVALID_NUMBER", "must be a whole number"));
    };
    T::try_from(integer).map_err(|_| {
        InvalidField::new(
            field,
            "OUT_OF_RANGE",
            format!("is larger than can be stored: {integer}"),
        )
    })
}

fn boolean(text: &str) -> Result<bool, InvalidField> {
    match text.trim_ascii().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "0" => Ok(false),
        _ => Err(InvalidField::new(
            "listed",
            "INVALID_BOOLEAN",
            format!("must be true or false, yes or no, 1 or 0, is {text:?}"),
        )),
    }
}

fn currency(code: &str) -> Result<Currency, InvalidField> {
    Currency::new(code.trim_ascii()).map_err(|error| InvalidField {
        field: "currency".to_owned(),
        ..error
    })
}

fn event_time(field: &'static str, rules: &Rules) -> impl Fn(&str) -> Result<Timestamp, InvalidField> + Send + 'static {
    let (times, now) = (rules.times.clone(), rules.now);
    move |text| check_event_time(field, times.read(field, text.trim_ascii())?, now)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeZone, Utc};

    use super::super::columns::Assignments;
    use super::super::records::Records;
    use super::*;

    fn rules() -> Rules {
        Rules {
            scale: RatingScale::default(),
            times: Arc::new(TimeFormats::default()),
            now: Utc.with_ymd_and_hms(2020, 1, 1, 0, 0, 0).unwrap(),
        }
    }

    fn subject<S: Subject>(header: &str, constants: &[(&str, &str)]) -> Result<S, ColumnError> {
        let constants = constants
            .iter()
            .map(|(field, text)| ((*field).to_owned(), (*text).to_owned()));
        let assignments = Assignments {
            columns: Vec::new(),
            constants: constants.collect(),
        };
        let header = header.split(',').map(str::to_owned).collect();
        S::new(&Columns::new(header, S::FIELDS, &assignments)?, &rules())
    }

    /// What the lines after `header` are read as: the value as `show` has it, or field and reason.
    fn read<S: Subject>(header: &str, lines: &[u8], show: impl Fn(S::Value) -> String) -> Vec<String> {
        let mut subject: S = subject(header, &[]).unwrap();
        let text = [header.as_bytes(), b"\n", lines].concat();
        let mut records = Records::new(text.as_slice(), b',');
        records.next().unwrap().unwrap().unwrap();
        let mut seen = Vec::new();
        while let Some(record) = records.next().unwrap() {
            seen.push(match subject.read(&record.unwrap()) {
                Ok(value) => show(value),
                Err(error) => format!("{} {}", error.field, error.reason),
            });
        }
        seen
    }

    fn show(text: Option<impl ToString>) -> String {
        text.map_or("-".to_owned(), |text| text.to_string())
    }

    #[test]
    fn ratings_are_read() {
        let check = |line: &[u8], want: &str| {
            let seen = read::<Ratings>("user_id,item_id,value,rated_at", line, |rating| {
                let Rating {
                    user,
                    item,
                    value,
                    rated_at,
                } = rating;
                format!("{user} {item} {value} {}", rated_at.to_rfc3339())
            });
            assert_eq!(seen, [want], "{}", line.escape_ascii());
        };
        check(b"ann,tea,4.5,2019-05-01", "ann tea 4.5 2019-05-01T00:00:00+00:00");
        check(b" ann,tea, 5 , 2019-05-01 ", " ann tea 5 2019-05-01T00:00:00+00:00");
        check(b"ann,tea,1,", "ann tea 1 2020-01-01T00:00:00+00:00");
        check(b",tea,1,", "user_id MISSING");
        check(b"ann,  ,1,", "item_id MISSING");
        check(b"ann,tea,,", "value MISSING");
        check(b"ann,te\xe9,1,", "item_id INVALID_UTF8");
        check(b"a\x01nn,tea,1,", "user_id ID_HAS_CONTROL_CHARACTER");
        check(b"ann,\"te\na\",1,", "item_id ID_HAS_CONTROL_CHARACTER");
        check(
            &[b"ann,".as_slice(), &b"x".repeat(129), b",1,"].concat(),
            "item_id ID_TOO_LONG",
        );
        check(b"ann,tea,good,", "value INVALID_NUMBER");
        check(b"ann,tea,0.5,", "value RATING_OUT_OF_RANGE");
        check(b"ann,tea,5.1,", "value RATING_OUT_OF_RANGE");
        check(b"ann,tea,NaN,", "value RATING_OUT_OF_RANGE");
        check(b"ann,tea,1,soon", "rated_at INVALID_TIMESTAMP");
        check(b"ann,tea,1,2020-01-03", "rated_at TIME_OUT_OF_RANGE");
        check(b"ann,tea,1,1899-12-31", "rated_at TIME_OUT_OF_RANGE");
    }

    fn purchases(amount: &str, lines: &str) -> Vec<String> {
        let header = format!("order_id,user_id,item_id,quantity,{amount},currency,purchased_at");
        read::<Purchases>(&header, lines.as_bytes(), |line| {
            format!(
                "{}/{}/{}#{} {} {}",
                line.order, line.user, line.item, line.line_number, line.quantity, line.line_total
            )
        })
    }

    #[test]
    fn purchases_are_read() {
        let check = |amount: &str, line: &str, want: &str| {
            assert_eq!(purchases(amount, &format!("{line}\n")), [want], "{amount}: {line}");
        };
        check(
            "unit_price",
            "1,ann,tea,6,2.55,GBP,2019-05-01",
            "1/ann/tea#1 6 15.30 GBP",
        );
        check(
            "unit_price",
            "1,ann,tea,-2,2.55,GBP,2019-05-01",
            "1/ann/tea#1 -2 -5.10 GBP",
        );
        check(
            "unit_price",
            "1,ann,tea,3,0.335,GBP,2019-05-01",
            "1/ann/tea#1 3 1.01 GBP",
        );
        check(
            "unit_price",
            "1,ann,tea,3.0,100,JPY,2019-05-01",
            "1/ann/tea#1 3 300 JPY",
        );
        check("line_total", "1,ann,tea,6,2.5,USD,2019-05-01", "1/ann/tea#1 6 2.50 USD");
        check(
            "line_total",
            "1,ann,tea,6,2.4999999999,USD,2019-05-01",
            "1/ann/tea#1 6 2.50 USD",
        );
        check(
            "line_total_minor",
            "1,ann,tea,6,255,USD,2019-05-01",
            "1/ann/tea#1 6 2.55 USD",
        );
        check(
            "line_total_minor",
            "1,ann,tea,6,2.55,USD,2019-05-01",
            "line_total_minor INVALID_NUMBER",
        );
        check("line_total", "1,ann,tea,0,2.5,USD,2019-05-01", "quantity ZERO_QUANTITY");
        check(
            "line_total",
            "1,ann,tea,0.5,2.5,USD,2019-05-01",
            "quantity INVALID_NUMBER",
        );
        check(
            "line_total",
            "1,ann,tea,two,2.5,USD,2019-05-01",
            "quantity INVALID_NUMBER",
        );
        check(
            "line_total",
            "1,ann,tea,3000000000,2.5,USD,2019-05-01",
            "quantity OUT_OF_RANGE",
        );
        check(
            "line_total",
            "1,ann,tea,1,\"2,5\",USD,2019-05-01",
            "line_total INVALID_NUMBER",
        );
        check(
            "line_total",
            "1,ann,tea,1,99999999999999999999,USD,2019-05-01",
            "line_total AMOUNT_OUT_OF_RANGE",
        );
        check("line_total", "1,ann,tea,1,,USD,2019-05-01", "line_total MISSING");
        check(
            "line_total",
            "1,ann,tea,1,2.5,usd,2019-05-01",
            "currency INVALID_CURRENCY",
        );
        check("line_total", "1,ann,tea,1,2.5,,2019-05-01", "currency MISSING");
        check("line_total", "1,ann,tea,1,2.5,USD,", "purchased_at MISSING");
        check("line_total", ",ann,tea,1,2.5,USD,2019-05-01", "order_id MISSING");
    }

    #[test]
    fn lines_without_a_number_are_counted_also_where_they_are_rejected() {
        let lines = "1,ann,tea,1,2,USD,2019-05-01\n\
                     1,ann,tea,0,2,USD,2019-05-01\n\
                     1,ann,pot,1,2,USD,2019-05-01\n\
                     1,ann,tea,3,2,USD,2019-05-01\n";
        let want = [
            "1/ann/tea#1 1 2.00 USD",
            "quantity ZERO_QUANTITY",
            "1/ann/pot#1 1 2.00 USD",
            "1/ann/tea#3 3 2.00 USD",
        ];
        assert_eq!(purchases("line_total", lines), want);
    }

    #[test]
    fn line_numbers_of_the_file_are_kept() {
        let header = "order_id,line_number,user_id,item_id,quantity,line_total_minor,currency,purchased_at";
        let check = |number: &str, want: &str| {
            let line = format!("1,{number},ann,tea,1,5,USD,2019-05-01\n");
            let seen = read::<Purchases>(header, line.as_bytes(), |line| line.line_number.to_string());
            assert_eq!(seen, [want], "{number}");
        };
        check("7", "7");
        check("0", "line_number LINE_NUMBER_OUT_OF_RANGE");
        check("", "line_number MISSING");
        check("x", "line_number INVALID_NUMBER");
    }

    #[test]
    fn items_are_read() {
        let header = "item_id,title,merchant_id,category,price,currency,listed";
        let check = |line: &str, want: &str| {
            let seen = read::<Items>(header, format!("{line}\n").as_bytes(), |item| {
                let facts = [
                    show(item.title),
                    show(item.merchant),
                    show(item.category),
                    show(item.price),
                    show(item.listed),
                ];
                format!("{}: {}", item.id, facts.join("|"))
            });
            assert_eq!(seen, [want], "{line}");
        };
        check(
            "tea,Green tea,leaf,drinks,2.5,GBP,yes",
            "tea: Green tea|leaf|drinks|2.50 GBP|true",
        );
        check("tea,,,,,,", "tea: -|-|-|-|-");
        check("tea,,,,,GBP,0", "tea: -|-|-|-|false");
        check("tea,,,,2.5,,", "currency MISSING");
        check("tea,,,,-2.5,GBP,", "price NEGATIVE_PRICE");
        check("tea,,,,,,maybe", "listed INVALID_BOOLEAN");
        check("tea,\"two\nlines\",,,,,", "title TEXT_HAS_CONTROL_CHARACTER");
        check(&format!("tea,{},,,,,", "x".repeat(1025)), "title TEXT_TOO_LONG");
    }

    #[test]
    fn merchants_are_read() {
        let show = |merchant: MerchantPatch| format!("{} {}", merchant.id, show(merchant.name));
        let seen = read::<Merchants>("merchant_id,name", b"leaf,Leaf & Co\npot,\n,x\n", show);
        assert_eq!(seen, ["leaf Leaf & Co", "pot -", "merchant_id MISSING"]);
    }

    #[test]
    fn what_is_needed_is_known_beforehand() {
        let check = |error: Option<ColumnError>, want: &str| {
            let got = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(got.starts_with(want), "{got}");
        };
        check(subject::<Ratings>("user_id,item_id", &[]).err(), "value is missing");
        check(
            subject::<Ratings>("user_id,item_id", &[("value", "9")]).err(),
            "the constant of value: must lie between",
        );
        check(
            subject::<Ratings>("user_id,item_id", &[("value", "3"), ("rated_at", "2019-05-01")]).err(),
            "",
        );
        let header = "order_id,user_id,item_id,purchased_at";
        let set = [("quantity", "1"), ("currency", "GBP")];
        check(
            subject::<Purchases>(header, &set).err(),
            "line_total_minor or line_total or unit_price is missing",
        );
        check(subject::<Purchases>(&format!("{header},unit_price"), &set).err(), "");
        check(
            subject::<Purchases>(&format!("{header},unit_price"), &set[..1]).err(),
            "currency is missing",
        );
        check(
            subject::<Purchases>(&format!("{header},unit_price"), &set[1..]).err(),
            "quantity is missing",
        );
        check(
            subject::<Purchases>(&format!("{header},unit_price,line_total"), &set).err(),
            "only one of line_total, unit_price can be used",
        );
        check(subject::<Items>("item_id,price", &[]).err(), "currency is missing");
        check(subject::<Items>("item_id", &[]).err(), "");
        check(subject::<Items>("item_id", &[("currency", "pounds")]).err(), "");
        check(
            subject::<Items>("item_id,price", &[("currency", "pounds")]).err(),
            "the constant of currency: must be",
        );
    }

    #[test]
    fn instants_are_kept_to_the_microsecond() {
        let line = b"ann,tea,5,2019-05-01T00:00:00.123456789Z\n";
        let seen = read::<Ratings>("user_id,item_id,value,rated_at", line, |rating| {
            rating.rated_at.timestamp_micros().to_string()
        });
        let want = DateTime::parse_from_rfc3339("2019-05-01T00:00:00.123456Z").unwrap();
        assert_eq!(seen, [want.timestamp_micros().to_string()]);
    }
}
