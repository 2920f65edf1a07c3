//! Instants in UTC, to the microsecond, as PostgreSQL keeps them.

use chrono::{DateTime, TimeZone, Utc};

use super::error::InvalidField;

/// An instant.
pub type Timestamp = DateTime<Utc>;

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTime {
    /// As its source says.
    Given(Timestamp),
    /// The source does not say: when we were told, for the first time if it tells us again.
    Received(Timestamp),
}

impl EventTime {
    pub fn at(self) -> Timestamp {
        match self {
            Self::Given(at) | Self::Received(at) => at,
        }
    }
}

/// Something that happened: not before 1900, and not later than a day after `now` (clocks differ; more is a mistake
/// that would block every later write).
///
/// # Errors
/// `TIME_OUT_OF_RANGE` naming `field`.
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

/// Cut to whole microseconds, the resolution of storage, so that a value read back equals the one written.
pub fn to_micros(at: Timestamp) -> Timestamp {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}
