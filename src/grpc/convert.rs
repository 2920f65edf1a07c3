//! Conversions that several services share.

use chrono::{DateTime, Datelike, Utc};

use domain::error::InvalidField;
use domain::item::check_text;
use domain::money::{Currency, Money};
use domain::time::{EventTime, Timestamp, check_event_time, to_micros};

use super::proto::v1;

/// Returns the time of an event; without `at`, the event happened `now`.
pub fn event_time(field: &str, at: Option<prost_types::Timestamp>, now: Timestamp) -> Result<EventTime, InvalidField> {
    let Some(at) = at else {
        return check_event_time(field, now, now).map(EventTime::Received);
    };
    let instant: Option<DateTime<Utc>> = u32::try_from(at.nanos)
        .ok()
        .and_then(|nanos| DateTime::from_timestamp(at.seconds, nanos));
    match instant {
        Some(instant) if at.nanos < 1_000_000_000 => check_event_time(field, instant, now).map(EventTime::Given),
        _ => Err(InvalidField::new(
            field,
            "INVALID_TIMESTAMP",
            "must be a valid google.protobuf.Timestamp",
        )),
    }
}

/// Returns an instant, which may lie in the future.
///
/// # Errors
/// `INVALID_TIMESTAMP`, or `TIME_OUT_OF_RANGE` outside the years 1900 to 9998; both name `field`.
pub fn instant(field: &str, at: prost_types::Timestamp) -> Result<Timestamp, InvalidField> {
    let valid = u32::try_from(at.nanos).ok().filter(|&nanos| nanos < 1_000_000_000);
    let instant = valid.and_then(|nanos| DateTime::from_timestamp(at.seconds, nanos));
    let Some(instant) = instant else {
        let message = "must be a valid google.protobuf.Timestamp";
        return Err(InvalidField::new(field, "INVALID_TIMESTAMP", message));
    };
    if !(1900..=9998).contains(&instant.year()) {
        let message = "must lie between 1900-01-01 and 9998-12-31";
        return Err(InvalidField::new(field, "TIME_OUT_OF_RANGE", message));
    }
    Ok(to_micros(instant))
}

pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: at.timestamp_subsec_nanos() as i32,
    }
}

impl TryFrom<v1::Money> for Money {
    type Error = InvalidField;

    fn try_from(money: v1::Money) -> Result<Self, InvalidField> {
        Ok(Self {
            amount_minor: money.amount_minor,
            currency: Currency::new(&money.currency_code)?,
        })
    }
}

impl From<Money> for v1::Money {
    fn from(money: Money) -> Self {
        Self {
            amount_minor: money.amount_minor,
            currency_code: money.currency.to_string(),
        }
    }
}

/// Checks a text that must not be empty.
///
/// # Errors
/// The error names `field`.
pub fn given(field: &str, text: String) -> Result<String, InvalidField> {
    match check_text(field, text)? {
        text if text.is_empty() => Err(InvalidField::new(field, "MISSING", "must be given")),
        text => Ok(text),
    }
}

/// # Errors
/// `MISSING` naming `field`.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, InvalidField> {
    value.ok_or_else(|| InvalidField::new(field, "MISSING", "must be given"))
}

/// Returns the most rows that a stream may have; `None` for all.
///
/// # Errors
/// `LIMIT_OUT_OF_RANGE` naming `limit`.
pub fn row_limit(limit: i64) -> Result<Option<u64>, InvalidField> {
    match u64::try_from(limit) {
        Ok(0) => Ok(None),
        Ok(limit) => Ok(Some(limit)),
        Err(_) => Err(InvalidField::new(
            "limit",
            "LIMIT_OUT_OF_RANGE",
            format!("must be 0 or more (0 means all), is {limit}"),
        )),
    }
}

/// # Errors
/// `OUT_OF_RANGE` naming `field` unless the score is finite.
pub fn score(field: &str, score: Option<f64>) -> Result<Option<f64>, InvalidField> {
    match score {
        Some(score) if !score.is_finite() => Err(InvalidField::new(
            field,
            "OUT_OF_RANGE",
            format!("must be finite, is {score}"),
        )),
        // Makes 0 of -0, so that a page token holds for both.
        score => Ok(score.map(|score| score + 0.0)),
    }
}
