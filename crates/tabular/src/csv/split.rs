//! Splits records of the dialects that `csv-core` does not know: delimiters of several characters, white space, and
//! escapes outside of quotes.

use super::{Delimiter, Dialect};
use crate::record::RowBuffer;

pub(super) enum Split {
    /// The record has been split. `length` includes its line end.
    Record { length: usize, is_well_quoted: bool },
    /// The record does not end within the text.
    Incomplete,
}

/// Splits the record at the front of `text` into `fields`. `at_end`: whether the file has no more text.
///
/// A line end within quotes belongs to the field. After an escape, `n`, `r` and `t` stand for line feed, carriage return and
/// tab, `N` keeps its escape because it stands for an absent value, and every other character stands for itself.
pub(super) fn split(text: &[u8], at_end: bool, dialect: &Dialect, fields: &mut RowBuffer) -> Split {
    fields.clear();
    let mut scan = Scan {
        text,
        at: 0,
        at_end,
        dialect,
        fields,
    };
    if dialect.delimiter == Delimiter::Whitespace {
        scan.skip_blanks();
    }
    loop {
        let end = match scan.field() {
            FieldEnd::Delimiter => continue,
            FieldEnd::BadQuote => false,
            FieldEnd::Line => true,
            // A quote that is still open at the end of the file is never closed.
            FieldEnd::TextInQuotes if at_end => false,
            FieldEnd::Text if at_end => true,
            FieldEnd::Text | FieldEnd::TextInQuotes => return Split::Incomplete,
        };
        return Split::Record {
            length: scan.at,
            is_well_quoted: end,
        };
    }
}

enum FieldEnd {
    Delimiter,
    Line,
    /// The text ended, outside or inside of quotes.
    Text,
    TextInQuotes,
    /// A closing quote stands before something else than a delimiter or a line end.
    BadQuote,
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    at_end: bool,
    dialect: &'a Dialect,
    fields: &'a mut RowBuffer,
}

impl Scan<'_> {
    /// Reads a field and what ends it.
    fn field(&mut self) -> FieldEnd {
        let mut in_quotes = false;
        let mut was_quoted = false;
        let begin = self.at;
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                self.fields.end_cell();
                return if in_quotes {
                    FieldEnd::TextInQuotes
                } else {
                    FieldEnd::Text
                };
            };
            if Some(byte) == self.dialect.escape {
                if !self.escaped() {
                    return if in_quotes {
                        FieldEnd::TextInQuotes
                    } else {
                        FieldEnd::Text
                    };
                }
                continue;
            }
            if in_quotes {
                self.at += 1;
                if Some(byte) != self.dialect.quote {
                    self.fields.bytes.push(byte);
                } else if self.text.get(self.at).copied() == self.dialect.quote {
                    self.at += 1;
                    self.fields.bytes.push(byte);
                } else {
                    in_quotes = false;
                }
                continue;
            }
            if self.at == begin && Some(byte) == self.dialect.quote {
                (in_quotes, was_quoted) = (true, true);
                self.at += 1;
                continue;
            }
            if let Some(end) = self.end() {
                self.fields.end_cell();
                return end;
            }
            if was_quoted {
                // A delimiter or line end that has begun may go on in the text that follows.
                let is_cut_off = !self.at_end && self.text.len() - self.at < self.longest_end();
                return if is_cut_off { FieldEnd::Text } else { FieldEnd::BadQuote };
            }
            self.fields.bytes.push(byte);
            self.at += 1;
        }
    }

    /// Consumes an escape and the character after it. Returns whether there is one.
    fn escaped(&mut self) -> bool {
        let escape = self.text[self.at];
        let Some(&byte) = self.text.get(self.at + 1) else {
            // At the end of the file it stands for itself.
            self.fields.bytes.push(escape);
            self.at += 1;
            return true;
        };
        self.at += 2;
        match byte {
            b'n' => self.fields.bytes.push(b'\n'),
            b'r' => self.fields.bytes.push(b'\r'),
            b't' => self.fields.bytes.push(b'\t'),
            b'N' => self.fields.bytes.extend([escape, b'N']),
            other => self.fields.bytes.push(other),
        }
        true
    }

    /// Consumes what ends a field, if it stands here.
    fn end(&mut self) -> Option<FieldEnd> {
        let rest = &self.text[self.at..];
        let line_end = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [b'\r'] if self.at_end => 1,
            _ => 0,
        };
        if line_end > 0 {
            self.at += line_end;
            return Some(FieldEnd::Line);
        }
        match &self.dialect.delimiter {
            Delimiter::Byte(byte) if rest[0] == *byte => self.at += 1,
            Delimiter::Text(text) if rest.starts_with(text.as_bytes()) => self.at += text.len(),
            Delimiter::Whitespace if is_blank(rest[0]) => {
                self.skip_blanks();
                // Blanks before the end of a line begin no further field.
                match &self.text[self.at..] {
                    [b'\n', ..] | [b'\r', b'\n', ..] => return self.end(),
                    [] => return Some(FieldEnd::Text),
                    _ => {}
                }
            }
            _ => return None,
        }
        Some(FieldEnd::Delimiter)
    }

    /// Returns the length of the longest text that ends a field.
    fn longest_end(&self) -> usize {
        match &self.dialect.delimiter {
            Delimiter::Text(text) => text.len().max(2),
            _ => 2,
        }
    }

    fn skip_blanks(&mut self) {
        while self.text.get(self.at).copied().is_some_and(is_blank) {
            self.at += 1;
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::super::records::Records;
    use super::*;
    use crate::record::Rows;

    /// Returns one byte at a time, so that records are met incomplete.
    struct Bytes<'a>(&'a [u8]);

    impl Read for Bytes<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }

    fn check(delimiter: &str, quote: Option<u8>, escape: Option<u8>, text: &str, want: &[&str]) {
        let delimiter = match delimiter {
            "whitespace" => Delimiter::Whitespace,
            other if other.len() == 1 => Delimiter::Byte(other.as_bytes()[0]),
            other => Delimiter::Text(other.to_owned()),
        };
        let dialect = Dialect {
            delimiter,
            quote,
            escape,
        };
        let mut records = Records::new(Bytes(text.as_bytes()), dialect);
        let mut seen = Vec::new();
        while let Some(next) = records.next().unwrap() {
            let lossy = |bytes| String::from_utf8_lossy(bytes).into_owned();
            seen.push(match next {
                Ok(record) => (0..record.width())
                    .map(|index| lossy(record.field(index)))
                    .collect::<Vec<_>>()
                    .join("|"),
                Err(malformed) => format!("{} {}", malformed.reason, lossy(malformed.raw)),
            });
        }
        assert_eq!(seen, want, "{text:?}");
    }

    const QUOTE: Option<u8> = Some(b'"');
    const BACKSLASH: Option<u8> = Some(b'\\');

    #[test]
    fn delimiters_have_any_length() {
        check("::", QUOTE, None, "1::1193::5\n2::a:b::3", &["1|1193|5", "2|a:b|3"]);
        check(
            "::",
            QUOTE,
            None,
            "a::b\r\n\"x::y\nz\"::\"\"\"\"\r\n",
            &["a|b", "x::y\nz|\""],
        );
        check("::", QUOTE, None, "a::b\n1\n", &["a|b", "WRONG_FIELD_COUNT 1"]);
        check(
            "::",
            QUOTE,
            None,
            "a::b\n\"1::2\n3::4\n",
            &["a|b", "BAD_QUOTE \"1::2", "3|4"],
        );
        check("::", None, None, "a::\"b\n1::2\n", &["a|\"b", "1|2"]);
        check("¦", QUOTE, None, "a¦b\n", &["a|b"]);
    }

    #[test]
    fn white_space_is_one_delimiter() {
        check(
            "whitespace",
            QUOTE,
            None,
            "  196\t242   3 \n a b \"c d\"\n\n1 2 3",
            &["196|242|3", "a|b|c d", "1|2|3"],
        );
        check("whitespace", QUOTE, None, "a b  \r\nc d\t\r\n", &["a|b", "c|d"]);
    }

    #[test]
    fn an_escape_takes_the_meaning_of_the_next_character() {
        check(",", QUOTE, BACKSLASH, "a\\,b,c\n\"x\\\"y\",z\n", &["a,b|c", "x\"y|z"]);
        check(
            ",",
            QUOTE,
            BACKSLASH,
            "\\N,a\\\\b\n1\\\n2,\\t\n",
            &["\\N|a\\b", "1\n2|\t"],
        );
        check(",", QUOTE, BACKSLASH, "a,b\\", &["a|b\\"]);
        check(",", QUOTE, BACKSLASH, "\"a\"x,b\n1,2\n", &["BAD_QUOTE \"a\"x,b", "1|2"]);
    }
}
