//! Finds the format of a time that the given formats do not fit.

use std::sync::LazyLock;

use super::{Format, ISO_8601, Seen};

/// Formats of dates. Those with years of two digits come after those of four.
const DATES: [&str; 29] = [
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y.%m.%d",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d-%m-%y",
    "%m-%d-%y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b-%d-%Y",
    "%b-%d-%y",
    "%a, %d %b %Y",
    "%a %b %d %Y",
    "%A, %B %d, %Y",
    "%G-W%V-%u",
    "%Y-%j",
    "%Y%j",
    "%d/%b/%Y",
    "%Y%m%d%H%M%S",
    "%Y-%m-%d",
    "%Y/%m/%d",
];

/// Formats of what follows a date. Their spaces also fit where there is none.
const TIMES: [&str; 15] = [
    "",
    " %H:%M",
    " %H:%M:%S%.f",
    " %I:%M %p",
    " %I:%M:%S %p",
    " %H:%M:%S%.f %z",
    " %H:%M %z",
    ", %H:%M",
    ", %H:%M:%S",
    ", %I:%M %p",
    ", %I:%M:%S %p",
    ":%H:%M:%S",
    ":%H:%M:%S %z",
    " %H",
    " %H%M",
];

/// Formats that end with the year, as C and Java write times.
const YEAR_LAST: [&str; 3] = [
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S UTC %Y",
];

/// The longest text that is likely to be a time.
const MAX_LENGTH: usize = 40;

/// Returns the end of a sentence about a time that cannot be read: which formats it fits, if any.
pub(super) fn hint(text: &str) -> String {
    if text.len() > MAX_LENGTH || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return String::new();
    }
    if text.starts_with("0000-00-00") {
        return "; databases write this for no time: name it among the texts that mean an empty cell".to_owned();
    }
    if let Some(hint) = number_hint(text) {
        return hint.to_owned();
    }
    let list = |formats: Vec<String>| formats.join(" or ");
    let formats = fitting(text);
    if !formats.is_empty() {
        return format!("; its time format may be {}", list(formats));
    }
    // A name of a zone tells no offset.
    let zone = |zone: &str| {
        (2..=5).contains(&zone.len())
            && zone.bytes().all(|byte| byte.is_ascii_uppercase())
            && !matches!(zone, "AM" | "PM")
    };
    match text.rsplit_once(' ').filter(|(_, name)| zone(name)) {
        Some((local, name)) if !fitting(local).is_empty() => {
            let formats = fitting(local).iter().map(|format| format!("{format} {name}")).collect();
            format!(
                "; its time format may be {}, with the time zone that {name} stands for",
                list(formats)
            )
        }
        _ => String::new(),
    }
}

/// Returns the end of a sentence about a number that is no time, by its size: what it is likely to count.
pub(in super::super) fn number_hint(text: &str) -> Option<&'static str> {
    let digits = text.split(['.', ',']).next().unwrap_or_default();
    let is_number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b','))
        && text.matches(['.', ',']).count() <= 1;
    match (is_number, digits.len()) {
        (true, 5) => Some("; the time format excel counts days since 1900"),
        (true, 9 | 10) => Some("; the time format unix counts seconds since 1970"),
        (true, 12 | 13) => Some("; the time format unix_ms counts milliseconds since 1970"),
        (true, 15 | 16) => Some("; the time format unix_us counts microseconds since 1970"),
        (true, 18 | 19) => Some("; the time format unix_ns counts nanoseconds since 1970"),
        _ => None,
    }
}

/// Returns the first formats that `text` fits: two if the day and the month can be exchanged.
fn fitting(text: &str) -> Vec<String> {
    const MAX_FORMATS: usize = 2;
    static FORMATS: LazyLock<Vec<(String, Format)>> = LazyLock::new(|| {
        let dated = DATES
            .iter()
            .flat_map(|date| TIMES.iter().map(move |time| format!("{date}{time}")));
        let iso = ISO_8601.iter().chain(&YEAR_LAST).map(|format| (*format).to_owned());
        let parsed = |format: String| Format::new(&format).ok().map(|parsed| (format, parsed));
        dated.chain(iso).filter_map(parsed).collect()
    });
    let mut found: Vec<String> = Vec::new();
    for (format, _) in FORMATS
        .iter()
        .filter(|(_, format)| format.read(text, &Seen::default()).is_some())
    {
        // Another time of the same date is the same in another way of writing.
        let date = |format: &str| {
            format
                .chars()
                .filter(|c| "dmbByYjV".contains(*c))
                .collect::<String>()
                .to_lowercase()
        };
        if !found.iter().any(|known| date(known) == date(format)) {
            found.push(format.clone());
        }
        if found.len() == MAX_FORMATS {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_a_time_is_named() {
        let check = |text: &str, want: &str| assert_eq!(hint(text), want, "{text}");
        let may_be = |text: &str, want: &str| check(text, &format!("; its time format may be {want}"));
        may_be("31.12.2020", "%d.%m.%Y");
        may_be("31/12/2020 15:04", "%d/%m/%Y %H:%M");
        may_be("1/2/20 3:04 PM", "%d/%m/%y %I:%M %p or %m/%d/%y %I:%M %p");
        may_be("12/31/20", "%m/%d/%y");
        may_be("Dec 31, 2020", "%b %d, %Y");
        may_be("Dec 31, 2020, 3:04:05\u{202f}PM", "%b %d, %Y, %I:%M:%S %p");
        may_be("31-Dec-20", "%d-%b-%y");
        may_be("31 December 2020", "%d %B %Y");
        may_be("2020-W53-4", "%G-W%V-%u");
        may_be("Dec-31-20", "%b-%d-%y");
        may_be("31 Dec 2020 11:59pm", "%d %b %Y %I:%M %p");
        may_be("2020-12-31 11:59:59 PM", "%Y-%m-%d %I:%M:%S %p");
        may_be("Thu Dec 31 23:59:59 UTC 2020", "%a %b %d %H:%M:%S UTC %Y");
        may_be("2020-366", "%Y-%j");
        may_be("20201231235959", "%Y%m%d%H%M%S");
        may_be("10/Oct/2000:13:55:36 -0700", "%d/%b/%Y:%H:%M:%S %z");
        may_be("Thu, 31 Dec 2020 23:59:59 +0000", "%a, %d %b %Y %H:%M:%S%.f %z");
        may_be(
            "2020-12-31 23:59:59 EST",
            "%Y-%m-%d %H:%M:%S%.f EST, with the time zone that EST stands for",
        );
        check("44196.5", "; the time format excel counts days since 1900");
        check("1609459199", "; the time format unix counts seconds since 1970");
        check(
            "1609459199123",
            "; the time format unix_ms counts milliseconds since 1970",
        );
        check(
            "1609459199123456",
            "; the time format unix_us counts microseconds since 1970",
        );
        check(
            "1609459199123456789",
            "; the time format unix_ns counts nanoseconds since 1970",
        );
        assert!(hint("0000-00-00 00:00:00").contains("an empty cell"));
        for text in ["", "yesterday", "7", "31.31.2020", "2020-12-31x", "31 Dezember 2020"] {
            check(text, "");
        }
    }
}
