//! Instants in UTC, to the microsecond, which is PostgreSQL's resolution.

use chrono::{DateTime, Datelike, TimeZone, Utc};

use super::error::InvalidField;

/// An instant.
pub type Timestamp = DateTime<Utc>;

/// The time of an event, and whether its source gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTime {
    /// The source gave the time.
    Given(Timestamp),
    /// The source gave no time. This is when the event was first received.
    Received(Timestamp),
}

impl EventTime {
    /// Returns the time, given or received.
    pub fn at(self) -> Timestamp {
        match self {
            Self::Given(at) | Self::Received(at) => at,
        }
    }
}

/// Checks the time of an event and cuts it to whole microseconds: not before 1900, at most a day after `now`.
///
/// Clocks differ by less than a day. A later time would be a mistake that blocks every later write.
///
/// # Errors
/// `TIME_OUT_OF_RANGE`, naming `field`.
pub fn check_event_time(field: &str, at: Timestamp, now: Timestamp) -> Result<Timestamp, InvalidField> {
    let earliest = Utc
        .with_ymd_and_hms(1900, 1, 1, 0, 0, 0)
        .earliest()
        .unwrap_or(DateTime::UNIX_EPOCH);
    let latest = now + chrono::Duration::days(1);
    if at < earliest || at > latest {
        return Err(InvalidField::new(
            field,
            "TIME_OUT_OF_RANGE",
            format!(
                "must lie between 1900-01-01 and one day from now, is {}",
                at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
            ),
        ));
    }
    Ok(to_micros(at))
}

/// Checks a time that may lie in the future, such as the end of a campaign, and cuts it to whole microseconds: from 1900
/// until the end of 9999.
///
/// # Errors
/// `TIME_OUT_OF_RANGE`, naming `field`.
pub fn check_instant(field: &str, at: Timestamp) -> Result<Timestamp, InvalidField> {
    match (1900..=9999).contains(&at.year()) {
        true => Ok(to_micros(at)),
        false => Err(InvalidField::new(
            field,
            "TIME_OUT_OF_RANGE",
            format!("must lie between the years 1900 and 9999, is in {}", at.year()),
        )),
    }
}

/// Cuts `at` to whole microseconds, the resolution of storage, so that a value read back equals the one written.
pub fn to_micros(at: Timestamp) -> Timestamp {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}
