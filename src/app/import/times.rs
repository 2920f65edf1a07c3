//! Reads the times in files.

pub(super) mod hint;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::format::{Fixed, Item, Numeric, Parsed, StrftimeItems, parse};
use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

use domain::decimal::Decimal;
use domain::error::InvalidField;
use domain::time::Timestamp;
use tabular::option_names::OptionNames;

/// The default formats: RFC 3339, also with a space instead of the T, and without zone, seconds or time of day; and other times
/// that begin with the year, which can mean nothing else.
const ISO_8601: [&str; 13] = [
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
    "%Y%m%dT%H%M%S%.f%#z",
    "%Y%m%dT%H%M%S%.f",
];

/// For how many times of a file that cannot be read another format is looked for.
const MAX_HINTS: u64 = 1_000;

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
    Unix {
        places: u32,
    },
    UnixNanos,
    /// Days since 1899-12-30, as spreadsheets count.
    Excel,
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
    /// `formats`: strftime formats, `unix` (seconds since 1970), `unix_ms`, `unix_us`, `unix_ns` or `excel`; ISO 8601 if empty. `zone`: a name of the IANA
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
            // Looking for a format takes much longer than reading a time.
            let hint = match self.seen.hinted.fetch_add(1, Ordering::Relaxed) < MAX_HINTS {
                true => hint::hint(text),
                false => String::new(),
            };
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
        read(text)
            .or_else(|| {
                // Many databases write the zone so.
                let local = text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT"))?;
                read(&format!("{local}+0000"))
            })
            .or_else(|| match read(&with_midnight(text)?)? {
                Moment::Instant(at) => Some(Moment::Instant(at + Duration::days(1))),
                Moment::Local(at) => Some(Moment::Local(at + Duration::days(1))),
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

/// Writes the beginning of 1970 in a strftime format. Returns `None` where the library cannot.
fn example(format: &str) -> Option<String> {
    // Only a reader knows offsets without minutes.
    let format = format.replace("%#z", "%z");
    let mut text = String::new();
    write!(
        text,
        "{}",
        DateTime::UNIX_EPOCH.format_with_items(StrftimeItems::new(&format))
    )
    .ok()?;
    Some(text)
}

/// Returns `text` with 00:00 for 24:00, which is the end of its day.
fn with_midnight(text: &str) -> Option<String> {
    let (date, rest) = text.split_once("24:00")?;
    let is_whole = !rest.starts_with(|c: char| c.is_ascii_digit())
        && !rest
            .trim_start_matches([':', '0', '.'])
            .starts_with(|c: char| c.is_ascii_digit());
    (date.ends_with([' ', 'T', 't']) && is_whole).then(|| format!("{date}00:00{rest}"))
}

/// Reads days since 1899-12-30, from 1900 to 9999, with a point or comma before their decimals.
fn excel_moment(text: &str) -> Option<NaiveDateTime> {
    const MILLIS_PER_DAY: f64 = 86_400_000.0;
    const EPOCH: NaiveDate = NaiveDate::from_ymd_opt(1899, 12, 30).expect("it is a date");
    let days: f64 = text.replace(',', ".").parse().ok()?;
    (1.0..2_958_466.0).contains(&days).then_some(())?;
    EPOCH
        .and_time(NaiveTime::MIN)
        .checked_add_signed(Duration::milliseconds((days * MILLIS_PER_DAY).round() as i64))
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
    /// How many times could not be read.
    hinted: AtomicU64,
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
            "unix_us" => return Ok(Self::Unix { places: 0 }),
            "unix_ns" => return Ok(Self::UnixNanos),
            "excel" => return Ok(Self::Excel),
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
        let Some(example) = example(format) else {
            return Err(invalid("is not a format in which a time can be written"));
        };
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
            Self::UnixNanos => {
                let nanos = Decimal::parse("", text).ok()?.scaled(0)?;
                return Some(Moment::Instant(DateTime::from_timestamp_nanos(nanos)));
            }
            Self::Excel => return excel_moment(text).map(Moment::Local),
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
        if parsed.hour_mod_12().is_some() && parsed.minute().is_none() {
            parsed.set_minute(0).ok()?;
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
        iso("20110815T102030Z", "2011-08-15T10:20:30+00:00");
        iso("20110815T102030.5", "2011-08-15T10:20:30.500+00:00");
        iso("2011-08-31T24:00", "2011-09-01T00:00:00+00:00");
        iso("2011-12-31 24:00:00.000+01:00", "2011-12-31T23:00:00+00:00");
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
        check(
            &["unix_us"],
            "UTC",
            "1313403630000250",
            Some("2011-08-15T10:20:30.000250+00:00"),
        );
        check(
            &["unix_ns"],
            "UTC",
            "1313403630000250000",
            Some("2011-08-15T10:20:30.000250+00:00"),
        );
        check(
            &["excel"],
            "Europe/London",
            "40770.430902777778",
            Some("2011-08-15T09:20:30+00:00"),
        );
        check(&["excel"], "UTC", "40770,5", Some("2011-08-15T12:00:00+00:00"));
        check(&["excel"], "UTC", "1313403630", None);
        check(
            &["%Y-%m-%d %H:%M %#z"],
            "UTC",
            "2011-08-15 10:20 +02",
            Some("2011-08-15T08:20:00+00:00"),
        );
        check(
            &["%Y-%m-%d %H"],
            "UTC",
            "2011-08-15 9",
            Some("2011-08-15T09:00:00+00:00"),
        );
        for bad in [
            "",
            "2011-08-15T24:01",
            "2011-08-15T24:00:30",
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
