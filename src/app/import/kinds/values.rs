//! Reads the texts of single fields into values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::columns::{ColumnError, Columns, Field};
use super::super::numbers::NumberFormat;
use super::super::times::hint::number_hint;
use super::Rules;
use domain::decimal::Decimal;
use domain::error::InvalidField;
use domain::item::check_text;
use domain::money::{Currency, Money};
use domain::rating::RatingScale;
use domain::time::{Timestamp, check_event_time, check_instant};
use tabular::record::Record;

/// An amount of money, in the unit that the file uses.
pub(super) struct Amount {
    pub name: &'static str,
    unit: Unit,
    /// The number, and the currency if the file names it beside the number.
    number: Field<(Decimal, Option<Currency>)>,
    numbers: NumberFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Whole minor units of the currency.
    Minor,
    /// Major units, which are rounded to minor units.
    Major,
    /// Major units for one piece, which are multiplied exactly and then rounded.
    MajorPerPiece,
}

impl Amount {
    /// Takes the one of `choices` that the file has.
    pub fn new(
        columns: &mut Columns,
        numbers: NumberFormat,
        choices: &[(&'static str, Unit)],
    ) -> Result<Option<Self>, ColumnError> {
        let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
        let chosen = columns.one_of(&names)?;
        let Some(&(name, unit)) = choices.iter().find(|(name, _)| Some(*name) == chosen) else {
            return Ok(None);
        };
        let number = columns.optional(name, move |text| numbers.amount(name, text))?;
        Ok(number.map(|number| Self {
            name,
            unit,
            number,
            numbers,
        }))
    }

    /// Returns `None` where the record has no amount.
    pub fn get(
        &self,
        record: &Record<'_>,
        currency: impl FnOnce() -> Result<Currency, InvalidField>,
        quantity: i32,
    ) -> Result<Option<Money>, InvalidField> {
        let Some((number, named)) = self.number.get(record)? else {
            return Ok(None);
        };
        let currency = currency()?;
        if let Some(named) = named.filter(|named| *named != currency) {
            let message = format!("must be in the currency of the line, {currency}, is in {named}");
            return Err(InvalidField::new(self.name, "CURRENCY_MISMATCH", message));
        }
        let digits = currency.minor_digits();
        if self.unit != Unit::Minor && !self.numbers.rounds && !number.has_decimals_within(digits) {
            let message = format!(
                "must have at most {digits} decimals, as {currency} has; if the file writes decimal commas, say {}; to round \
                 the amounts, {}",
                self.numbers.names.with("--decimal", ','),
                self.numbers.names.name("--round")
            );
            return Err(InvalidField::new(self.name, "TOO_MANY_DECIMALS", message));
        }
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

/// A time of a line. Lines that have none are dated with the start of the import.
pub(super) struct TimeOrNow {
    field: Option<Field<Timestamp>>,
    now: Timestamp,
    /// Counts the lines without a time, if the file has the field.
    undated: Option<Arc<AtomicU64>>,
}

impl TimeOrNow {
    /// `now`: the start of the import.
    pub fn new(columns: &mut Columns, name: &'static str, rules: &Rules, now: Timestamp) -> Result<Self, ColumnError> {
        let field = columns.optional(name, event_time(name, rules))?;
        let undated = match &field {
            Some(_) => Some(columns.count_undated(name)),
            None => {
                tracing::info!("the file has no {name}, so every line is dated {now}");
                None
            }
        };
        Ok(Self { field, now, undated })
    }

    pub fn get(&self, record: &Record<'_>) -> Result<Timestamp, InvalidField> {
        let at = optional(&self.field, record)?;
        if let (None, Some(undated)) = (at, &self.undated) {
            undated.fetch_add(1, Ordering::Relaxed);
        }
        Ok(at.unwrap_or(self.now))
    }
}

/// Reads a title or a name. Line ends and tabs in it become spaces.
pub(super) fn text_line(field: &str, text: &str) -> Result<String, InvalidField> {
    let line = match text.contains(['\n', '\r', '\t']) {
        true => text
            .split(['\n', '\r', '\t'])
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        false => text.to_owned(),
    };
    check_text(field, line)
}

/// Shows a value that may be absent.
pub(super) fn shown<T: std::fmt::Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), T::to_string)
}

pub(super) fn optional<T: Clone>(field: &Option<Field<T>>, record: &Record<'_>) -> Result<Option<T>, InvalidField> {
    match field {
        Some(field) => field.get(record),
        None => Ok(None),
    }
}

pub(super) fn rating_value(scale: &RatingScale, numbers: NumberFormat, text: &str) -> Result<f32, InvalidField> {
    scale
        .check("value", numbers.float("value", text)?)
        .map_err(|error| InvalidField {
            message: format!(
                "{}; the configuration keys rating.min and rating.max set the scale",
                error.message
            ),
            ..error
        })
}

pub(super) fn integer(numbers: NumberFormat, field: &str, text: &str) -> Result<i32, InvalidField> {
    whole(field, numbers.decimal(field, text)?)
}

/// Accepts `6.0` as a whole number too, because files that have passed through floating point write it so.
pub(super) fn whole<T: TryFrom<i64>>(field: &str, number: Decimal) -> Result<T, InvalidField> {
    let Some(integer) = number.integer() else {
        return Err(InvalidField::new(field, "INVALID_NUMBER", "must be a whole number"));
    };
    T::try_from(integer).map_err(|_| {
        InvalidField::new(
            field,
            "OUT_OF_RANGE",
            format!("must fit the number range of the field, is {integer}"),
        )
    })
}

pub(super) fn boolean(field: &str, text: &str) -> Result<bool, InvalidField> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "0" => Ok(false),
        _ => Err(InvalidField::new(
            field,
            "INVALID_BOOLEAN",
            format!("must be true or false, yes or no, 1 or 0, is {text:?}"),
        )),
    }
}

pub(super) fn currency(code: &str) -> Result<Currency, InvalidField> {
    // Some programs write codes in small letters.
    Currency::new(&code.to_ascii_uppercase()).map_err(|error| InvalidField {
        field: "currency".to_owned(),
        ..error
    })
}

pub(super) fn event_time(
    field: &'static str,
    rules: &Rules,
) -> impl Fn(&str) -> Result<Timestamp, InvalidField> + Send + Sync + 'static {
    let (times, now) = (rules.times.clone(), rules.now);
    move |text| {
        check_event_time(field, times.read(field, text)?, now).map_err(|error| match number_hint(text) {
            Some(hint) => InvalidField {
                message: error.message + hint,
                ..error
            },
            None => error,
        })
    }
}

/// Reads a time that may lie in the future, such as the end of a campaign.
pub(super) fn instant(
    field: &'static str,
    rules: &Rules,
) -> impl Fn(&str) -> Result<Timestamp, InvalidField> + Send + Sync + 'static {
    let times = rules.times.clone();
    move |text| check_instant(field, times.read(field, text)?)
}

/// Reads a count or an amount that is at least `least`.
pub(super) fn at_least<T>(
    numbers: NumberFormat,
    field: &'static str,
    least: T,
) -> impl Fn(&str) -> Result<T, InvalidField> + Send + Sync + 'static
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display + Send + Sync + 'static,
{
    move |text| {
        let value: T = whole(field, numbers.decimal(field, text)?)?;
        match value < least {
            false => Ok(value),
            true => {
                let message = format!("must be {least} or more, is {value}");
                Err(InvalidField::new(field, "OUT_OF_RANGE", message))
            }
        }
    }
}
