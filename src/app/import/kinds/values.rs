//! Reads the texts of single fields into values.

use super::super::columns::{ColumnError, Columns, Field};
use super::super::records::Record;
use super::Rules;
use domain::decimal::Decimal;
use domain::error::InvalidField;
use domain::money::{Currency, Money};
use domain::rating::RatingScale;
use domain::time::{Timestamp, check_event_time, to_micros};

/// An amount of money, in the unit that the file uses.
pub(super) struct Amount {
    pub name: &'static str,
    unit: Unit,
    number: Field<Decimal>,
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
    pub fn new(columns: &Columns, choices: &[(&'static str, Unit)]) -> Result<Option<Self>, ColumnError> {
        let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
        let chosen = columns.one_of(&names)?;
        let Some(&(name, unit)) = choices.iter().find(|(name, _)| Some(*name) == chosen) else {
            return Ok(None);
        };
        let number = columns.required(name, move |text| Decimal::parse(name, text.trim_ascii()))?;
        Ok(Some(Self { name, unit, number }))
    }

    /// Returns `None` where the record has no amount.
    pub fn get(
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

pub(super) fn optional<T: Clone>(field: &Option<Field<T>>, record: &Record<'_>) -> Result<Option<T>, InvalidField> {
    match field {
        Some(field) => field.get(record),
        None => Ok(None),
    }
}

pub(super) fn rating_value(scale: &RatingScale, text: &str) -> Result<f32, InvalidField> {
    let value = text.trim_ascii().parse().map_err(|_| {
        InvalidField::new(
            "value",
            "INVALID_NUMBER",
            format!("must be a number, for example 4.5, is {text:?}"),
        )
    })?;
    scale.check("value", value)
}

pub(super) fn integer(field: &str, text: &str) -> Result<i32, InvalidField> {
    whole(field, Decimal::parse(field, text.trim_ascii())?)
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
    match text.trim_ascii().to_ascii_lowercase().as_str() {
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
    Currency::new(code.trim_ascii()).map_err(|error| InvalidField {
        field: "currency".to_owned(),
        ..error
    })
}

pub(super) fn event_time(
    field: &'static str,
    rules: &Rules,
) -> impl Fn(&str) -> Result<Timestamp, InvalidField> + Send + 'static {
    let (times, now) = (rules.times.clone(), rules.now);
    move |text| check_event_time(field, times.read(field, text.trim_ascii())?, now)
}

/// Reads a time that may lie in the future, such as the end of a campaign.
pub(super) fn instant(
    field: &'static str,
    rules: &Rules,
) -> impl Fn(&str) -> Result<Timestamp, InvalidField> + Send + 'static {
    let times = rules.times.clone();
    move |text| Ok(to_micros(times.read(field, text.trim_ascii())?))
}

/// Reads a count or an amount that is at least `least`.
pub(super) fn at_least<T>(field: &'static str, least: T) -> impl Fn(&str) -> Result<T, InvalidField> + Send + 'static
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display + Send + 'static,
{
    move |text| {
        let value: T = whole(field, Decimal::parse(field, text.trim_ascii())?)?;
        match value < least {
            false => Ok(value),
            true => {
                let message = format!("must be {least} or more, is {value}");
                Err(InvalidField::new(field, "OUT_OF_RANGE", message))
            }
        }
    }
}
