//! Reads the times in files.

use chrono::format::{Fixed, Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveDateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

use domain::decimal::Decimal;
use domain::error::InvalidField;
use domain::time::Timestamp;

/// The default formats: RFC 3339, also with a space instead of the T, and without zone, seconds or time of day.
const ISO_8601: [&str; 7] = [
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
];

/// Reads a time by the first format that fits. A time without offset belongs to `zone`.
#[derive(Debug, Clone)]
pub struct TimeFormats {
    formats: Vec<Format>,
    zone: Tz,
}

#[derive(Debug, Clone)]
enum Format {
    Strftime(Vec<Item<'static>>),
    /// A count since 1970. `places` is the number of decimal places from its unit to microseconds: 6 for seconds.
    Unix {
        places: u32,
    },
}

impl Default for TimeFormats {
    fn default() -> Self {
        let formats = ISO_8601
            .iter()
            .map(|format| Format::Strftime(StrftimeItems::new(format).collect()));
        Self {
            formats: formats.collect(),
            zone: Tz::UTC,
        }
    }
}

impl TimeFormats {
    /// `formats`: strftime formats, `unix` (seconds since 1970) or `unix_ms`; ISO 8601 if empty. `zone`: a name of the IANA
    /// database, such as `Europe/London`.
    ///
    /// # Errors
    /// [`InvalidField`] names `time_format` or `time_zone`.
    pub fn new(formats: &[String], zone: &str) -> Result<Self, InvalidField> {
        let zone = zone.parse().map_err(|_| {
            let message = format!("must be a time zone of the IANA database, for example Europe/London, is {zone:?}");
            InvalidField::new("time_zone", "INVALID_TIME_ZONE", message)
        })?;
        let formats: Vec<Format> = formats
            .iter()
            .map(|format| Format::new(format))
            .collect::<Result<_, _>>()?;
        match formats.is_empty() {
            true => Ok(Self {
                zone,
                ..Self::default()
            }),
            false => Ok(Self { formats, zone }),
        }
    }

    /// Reads a time. Where the clocks of the zone show it twice, the earlier instant is meant.
    ///
    /// # Errors
    /// `INVALID_TIMESTAMP` names `field`, also for a time that the clocks of the zone skip.
    pub fn read(&self, field: &str, text: &str) -> Result<Timestamp, InvalidField> {
        let Some(local) = self.formats.iter().find_map(|format| format.read(text)) else {
            let message = format!("must be a time in one of the given formats (by default ISO 8601), is {text:?}");
            return Err(InvalidField::new(field, "INVALID_TIMESTAMP", message));
        };
        let local = match local {
            Moment::Instant(instant) => return Ok(instant),
            Moment::Local(local) => local,
        };
        match self.zone.from_local_datetime(&local).earliest() {
            Some(instant) => Ok(instant.with_timezone(&Utc)),
            None => {
                let message = format!(
                    "must be a time that exists, but clocks in {} were put forward past {local}",
                    self.zone
                );
                Err(InvalidField::new(field, "INVALID_TIMESTAMP", message))
            }
        }
    }

    /// Returns the first instant of the day after the day of `at`, in the zone.
    pub fn day_after(&self, at: Timestamp) -> Timestamp {
        let day = at.with_timezone(&self.zone).date_naive();
        // Where the clocks skip midnight, the day begins an hour or two later.
        let starts = (0..3).filter_map(|hour| {
            let local = day.succ_opt()?.and_hms_opt(hour, 0, 0)?;
            self.zone.from_local_datetime(&local).earliest()
        });
        starts.map(|start| start.with_timezone(&Utc)).next().unwrap_or(at)
    }
}

/// The result of reading a text, before the zone is applied.
enum Moment {
    Instant(Timestamp),
    Local(NaiveDateTime),
}

impl Format {
    fn new(format: &str) -> Result<Self, InvalidField> {
        let invalid = |problem: &str| {
            let message = format!("{format:?} {problem}");
            InvalidField::new("time_format", "INVALID_TIME_FORMAT", message)
        };
        match format {
            "unix" => return Ok(Self::Unix { places: 6 }),
            "unix_ms" => return Ok(Self::Unix { places: 3 }),
            _ => {}
        }
        let items = StrftimeItems::new(format)
            .parse_to_owned()
            .map_err(|_| invalid("is not a valid strftime format"))?;
        if items.contains(&Item::Fixed(Fixed::TimezoneName)) {
            return Err(invalid(
                "has %Z, which tells no offset: put the zone's name into the format as plain text, and name the zone in --time-zone",
            ));
        }
        let example = DateTime::UNIX_EPOCH.format_with_items(items.iter()).to_string();
        let format = Self::Strftime(items);
        match format.read(&example) {
            Some(_) => Ok(format),
            None => Err(invalid(&format!(
                "does not hold a whole date: it would write 1970-01-01 as {example:?}"
            ))),
        }
    }

    fn read(&self, text: &str) -> Option<Moment> {
        let items = match self {
            Self::Unix { places } => {
                let micros = Decimal::parse("", text).ok()?.scaled(*places)?;
                return DateTime::from_timestamp_micros(micros).map(Moment::Instant);
            }
            Self::Strftime(items) => items,
        };
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, items.iter()).ok()?;
        if parsed.offset().is_some() || parsed.timestamp().is_some() {
            let instant = parsed.to_datetime().ok()?;
            return Some(Moment::Instant(instant.with_timezone(&Utc)));
        }
        if parsed.hour_mod_12().is_none() && parsed.minute().is_none() {
            return parsed
                .to_naive_date()
                .ok()
                .map(|date| Moment::Local(date.and_time(NaiveTime::MIN)));
        }
        parsed.to_naive_datetime_with_offset(0).ok().map(Moment::Local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(formats: &[&str], zone: &str) -> Result<TimeFormats, InvalidField> {
        let formats: Vec<String> = formats.iter().map(|format| (*format).to_owned()).collect();
        TimeFormats::new(&formats, zone)
    }

    #[test]
    fn times_are_read() {
        let check = |formats: &[&str], zone, text: &str, want: Option<&str>| {
            let got = times(formats, zone).unwrap().read("rated_at", text);
            assert_eq!(
                got.as_ref().ok().map(DateTime::to_rfc3339).as_deref(),
                want,
                "{text} {got:?}"
            );
        };
        let iso = |text, want| check(&[], "UTC", text, Some(want));
        iso("2011-08-15T10:20:30Z", "2011-08-15T10:20:30+00:00");
        iso("2011-08-15T10:20:30.25+02:00", "2011-08-15T08:20:30.250+00:00");
        iso("2011-08-15 10:20:30+00", "2011-08-15T10:20:30+00:00");
        iso("2011-08-15 10:20:30", "2011-08-15T10:20:30+00:00");
        iso("2011-08-15T10:20:30.5", "2011-08-15T10:20:30.500+00:00");
        iso("2011-08-15T10:20", "2011-08-15T10:20:00+00:00");
        iso("2011-08-15 10:20", "2011-08-15T10:20:00+00:00");
        iso("2011-08-15", "2011-08-15T00:00:00+00:00");
        for bad in [
            "",
            "yesterday",
            "15/08/2011",
            "2011-08-15T",
            "2011-13-01",
            "2011-02-29",
            "1313403630",
        ] {
            check(&[], "UTC", bad, None);
        }

        check(
            &[],
            "Europe/London",
            "2011-08-15T10:20",
            Some("2011-08-15T09:20:00+00:00"),
        );
        check(
            &[],
            "Europe/London",
            "2011-08-15T10:20:00Z",
            Some("2011-08-15T10:20:00+00:00"),
        );
        check(&[], "Europe/London", "2011-12-15", Some("2011-12-15T00:00:00+00:00"));
        // The first is shown twice, the second is skipped.
        check(
            &[],
            "Europe/London",
            "2011-10-30T01:30",
            Some("2011-10-30T00:30:00+00:00"),
        );
        check(&[], "Europe/London", "2011-03-27T01:30", None);

        let day_first = &["%d/%m/%Y %H:%M", "%d/%m/%Y"];
        check(day_first, "UTC", "5/8/2011 9:05", Some("2011-08-05T09:05:00+00:00"));
        check(day_first, "UTC", "05/08/2011", Some("2011-08-05T00:00:00+00:00"));
        check(day_first, "UTC", "2011-08-15", None);
        check(
            &["%m/%d/%y %I:%M %p"],
            "America/New_York",
            "08/15/11 03:05 PM",
            Some("2011-08-15T19:05:00+00:00"),
        );
        check(
            &["%Y%m%d%H%M%S"],
            "UTC",
            "20110815102030",
            Some("2011-08-15T10:20:30+00:00"),
        );
        check(&["%s"], "Asia/Tokyo", "1313403630", Some("2011-08-15T10:20:30+00:00"));
        check(&["unix"], "Asia/Tokyo", "1313403630", Some("2011-08-15T10:20:30+00:00"));
        check(&["unix"], "UTC", "1313403630.5", Some("2011-08-15T10:20:30.500+00:00"));
        check(&["unix"], "UTC", "-1", Some("1969-12-31T23:59:59+00:00"));
        check(
            &["unix_ms"],
            "UTC",
            "1313403630500",
            Some("2011-08-15T10:20:30.500+00:00"),
        );
        check(&["unix"], "UTC", "1e9", None);
        check(&["unix"], "UTC", "99999999999999999999", None);
    }

    #[test]
    fn bad_formats_and_zones_are_refused() {
        let check = |formats: &[&str], zone, field: &str| {
            assert_eq!(times(formats, zone).unwrap_err().field, field, "{formats:?} {zone}");
        };
        check(&[], "Europe/Londn", "time_zone");
        check(&[], "", "time_zone");
        check(&["%d/%m"], "UTC", "time_format");
        check(&["%H:%M"], "UTC", "time_format");
        check(&["%Q"], "UTC", "time_format");
        check(&["%Y-%m-%d %H:%M %Z"], "UTC", "time_format");
        check(&[""], "UTC", "time_format");
        check(&["%Y-%m-%d", "nonsense"], "UTC", "time_format");
    }
}
