//! Reads the times in files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::format::{Fixed, Item, Numeric, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveDateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

use domain::decimal::Decimal;
use domain::error::InvalidField;
use domain::time::Timestamp;
use tabular::option_names::OptionNames;

/// The default formats: RFC 3339, also with a space instead of the T, and without zone, seconds or time of day; and other times
/// that begin with the year, which can mean nothing else.
const ISO_8601: [&str; 11] = [
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y%m%d",
];

/// Reads a time by the first format that fits. A time without offset belongs to `zone`.
#[derive(Debug, Clone)]
pub struct TimeFormats {
    formats: Vec<Format>,
    zone: Tz,
    /// Shared by clones.
    seen: Arc<Seen>,
}

#[derive(Debug, Clone)]
enum Format {
    Strftime {
        items: Vec<Item<'static>>,
        /// `None` where the day and the month cannot be confused.
        order: Option<DayMonth>,
    },
    /// A count since 1970. `places` is the number of decimal places from its unit to microseconds: 6 for seconds.
    Unix { places: u32 },
}

impl Default for TimeFormats {
    fn default() -> Self {
        let formats = ISO_8601.iter().map(|format| Format::Strftime {
            items: StrftimeItems::new(format).collect(),
            order: None,
        });
        Self {
            formats: formats.collect(),
            zone: Tz::UTC,
            seen: Arc::default(),
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
            false => Ok(Self {
                formats,
                zone,
                seen: Arc::default(),
            }),
        }
    }

    /// Reads a time. Where the clocks of the zone show it twice, the earlier instant is meant.
    ///
    /// # Errors
    /// `INVALID_TIMESTAMP` names `field`, also for a time that the clocks of the zone skip.
    pub fn read(&self, field: &str, text: &str) -> Result<Timestamp, InvalidField> {
        let Some(local) = self.read_local(text) else {
            let hint = hint(text);
            let message =
                format!("must be a time in one of the given formats (by default ISO 8601), is {text:?}{hint}");
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

    fn read_local(&self, text: &str) -> Option<Moment> {
        let read = |text: &str| self.formats.iter().find_map(|format| format.read(text, &self.seen));
        read(text).or_else(|| {
            // Many databases write the zone so.
            let local = text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT"))?;
            read(&format!("{local}+0000"))
        })
    }

    /// Returns the same formats, and after them ISO 8601, with nothing seen.
    pub(super) fn with_iso(&self) -> Self {
        let iso = Self::default();
        Self {
            formats: self.formats.iter().cloned().chain(iso.formats).collect(),
            zone: self.zone,
            seen: iso.seen,
        }
    }

    /// Returns the same formats with nothing seen.
    pub(super) fn afresh(&self) -> Self {
        Self {
            seen: Arc::default(),
            ..self.clone()
        }
    }

    /// Says what is doubtful about the order of day and month in the times read so far.
    pub(super) fn doubts(&self, names: OptionNames) -> Option<String> {
        let [either, day_first, month_first] = self.seen.counts();
        if day_first > 0 && month_first > 0 {
            return Some(format!(
                "{day_first} times fit only with the day before the month, and {month_first} only with the month before the \
                 day: the file has both orders."
            ));
        }
        (either > 0 && day_first + month_first == 0).then(|| {
            format!(
                "In all {either} times that tell, the day could be the month and the month the day: check that the file \
                 has them in the order of {}.",
                names.name("--time-format")
            )
        })
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

/// Says what the format of `text` may be, which is no time in the given ones.
fn hint(text: &str) -> &'static str {
    let digits = text.split('.').next().unwrap_or_default();
    if (9..=13).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return "; the time format unix counts seconds since 1970, and unix_ms milliseconds";
    }
    let first = text.split_once(['/', '.']).map(|(first, _)| first);
    match first.is_some_and(|first| (1..=2).contains(&first.len()) && first.bytes().all(|byte| byte.is_ascii_digit())) {
        true => "; its time format may be like %d/%m/%Y or %m/%d/%Y",
        false => "",
    }
}

/// The order of the day and the month in a format that has both as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DayMonth {
    DayFirst,
    MonthFirst,
}

/// Counts times by what they tell about the order of day and month.
#[derive(Debug, Default)]
struct Seen {
    /// Times that are valid in either order, with another meaning.
    either: AtomicU64,
    day_first: AtomicU64,
    month_first: AtomicU64,
}

impl Seen {
    fn add(&self, order: DayMonth, day: u32, month: u32) {
        let counter = match order {
            _ if day == month => return,
            _ if day <= 12 => &self.either,
            DayMonth::DayFirst => &self.day_first,
            DayMonth::MonthFirst => &self.month_first,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> [u64; 3] {
        [&self.either, &self.day_first, &self.month_first].map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// Returns the order of the day and the month in a format. A year that stands first tells that the month comes next.
fn day_month(items: &[Item<'_>]) -> Option<DayMonth> {
    let numbers: Vec<&Numeric> = items
        .iter()
        .filter_map(|item| match item {
            Item::Numeric(numeric, _) => Some(numeric),
            _ => None,
        })
        .collect();
    let at = |wanted: &Numeric| numbers.iter().position(|numeric| *numeric == wanted);
    let (day, month) = (at(&Numeric::Day)?, at(&Numeric::Month)?);
    let is_year_first = at(&Numeric::Year).is_some_and(|year| year < day.min(month));
    match (is_year_first, day < month) {
        (true, _) => None,
        (false, true) => Some(DayMonth::DayFirst),
        (false, false) => Some(DayMonth::MonthFirst),
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
                "has %Z, which tells no offset: put the zone's name into the format as plain text, and give the zone as time_zone",
            ));
        }
        let example = DateTime::UNIX_EPOCH.format_with_items(items.iter()).to_string();
        let order = day_month(&items);
        let format = Self::Strftime { items, order };
        match format.read(&example, &Seen::default()) {
            Some(_) => Ok(format),
            None => Err(invalid(&format!(
                "does not hold a whole date: it would write 1970-01-01 as {example:?}"
            ))),
        }
    }

    fn read(&self, text: &str, seen: &Seen) -> Option<Moment> {
        let (items, order) = match self {
            Self::Unix { places } => {
                let micros = Decimal::parse("", text).ok()?.scaled(*places)?;
                return DateTime::from_timestamp_micros(micros).map(Moment::Instant);
            }
            Self::Strftime { items, order } => (items, *order),
        };
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, items.iter()).ok()?;
        // The library also takes years of fewer digits, so that 13 would be the year 13.
        if parsed.year().is_some_and(|year| !(1000..=9999).contains(&year)) {
            return None;
        }
        if let (Some(order), Some(day), Some(month)) = (order, parsed.day(), parsed.month()) {
            seen.add(order, day, month);
        }
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
        iso("2011/8/15", "2011-08-15T00:00:00+00:00");
        iso("2011/08/15 10:20", "2011-08-15T10:20:00+00:00");
        iso("20110815", "2011-08-15T00:00:00+00:00");
        check(
            &[],
            "Asia/Tokyo",
            "2011-08-15 10:20:30.5 UTC",
            Some("2011-08-15T10:20:30.500+00:00"),
        );
        check(
            &["%d/%m/%Y %H:%M %z"],
            "UTC",
            "15/08/2011 10:20 GMT",
            Some("2011-08-15T10:20:00+00:00"),
        );
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
        check(&["unix"], "UTC", "1e9", Some("2001-09-09T01:46:40+00:00"));
        check(&["%d/%m/%Y"], "UTC", "15/08/13", None);
        check(&["%d/%m/%y"], "UTC", "15/08/13", Some("2013-08-15T00:00:00+00:00"));
        check(&["unix"], "UTC", "99999999999999999999", None);
    }

    #[test]
    fn doubtful_orders_of_day_and_month_are_pointed_out() {
        let check = |formats: &[&str], texts: &[&str], part: Option<&str>| {
            let times = times(formats, "UTC").unwrap();
            for text in texts {
                times.read("rated_at", text).unwrap();
            }
            let doubts = times.doubts(OptionNames::Arguments);
            assert_eq!(doubts.is_some(), part.is_some(), "{formats:?} {texts:?} {doubts:?}");
            assert!(doubts.unwrap_or_default().contains(part.unwrap_or_default()));
        };
        let day_first = "%d/%m/%Y";
        check(&[day_first], &["10/02/2011", "11/02/2011"], Some("In all 2 times"));
        check(&["%m/%d/%y %H:%M"], &["10/02/11 10:00"], Some("In all 1 times"));
        check(&[day_first], &["10/02/2011", "13/02/2011"], None);
        check(&[day_first], &["02/02/2011"], None);
        check(
            &[day_first, "%m/%d/%Y"],
            &["13/02/2011", "02/13/2011"],
            Some("both orders"),
        );
        check(&["%Y-%m-%d"], &["2011-02-10"], None);
        check(&["%d %b %Y"], &["10 Feb 2011"], None);
        check(&[], &["2011-02-10"], None);
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
