//! CSV as it comes: records with the lines they begin at, in bounded memory.
//!
//! RFC 4180, with any one-byte delimiter, LF or CRLF, and a byte order mark allowed. A quote that is not closed costs
//! one line, not the rest of the file: where a record over several lines has not the width of the header, its first
//! line alone is malformed and reading goes on with the next one.

use std::io::{self, Read};
use std::ops::Range;

/// Longest record, in bytes.
pub(super) const MAX_RECORD_BYTES: usize = 1 << 20;

const READ_BYTES: usize = 1 << 16;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

pub(super) struct Records<R> {
    input: R,
    delimiter: u8,
    /// What has been read; records up to `start` are done with.
    text: Vec<u8>,
    start: usize,
    at_end: bool,
    /// Of `start`, from 1.
    line: u64,
    /// Fields of a record, once the header is known.
    width: Option<usize>,
    fields: Vec<Field>,
    /// Quoted fields without the doubled quotes.
    unescaped: Vec<u8>,
    /// The beginning of a record that was too long to keep.
    excerpt: Vec<u8>,
}

/// A line that is no record of the header's width.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed<'a> {
    pub line: u64,
    pub raw: &'a [u8],
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    /// Where it begins, from 1.
    pub line: u64,
    /// As it stands in the file, without the line end.
    pub raw: &'a [u8],
    text: &'a [u8],
    unescaped: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Record<'a> {
    /// `index` must be below the width.
    pub fn field(&self, index: usize) -> &'a [u8] {
        match &self.fields[index] {
            Field::Verbatim(range) => &self.text[range.clone()],
            Field::Unescaped(range) => &self.unescaped[range.clone()],
        }
    }

    pub fn width(&self) -> usize {
        self.fields.len()
    }
}

#[derive(Debug, Clone)]
enum Field {
    /// In the text.
    Verbatim(Range<usize>),
    /// In `unescaped`.
    Unescaped(Range<usize>),
}

/// Where a record ends, or why it is none.
enum Scanned {
    /// The record ends at `end`, the next one begins at `next`.
    Record {
        end: usize,
        next: usize,
    },
    /// A quote is not closed, or closed in the middle of a field.
    BadQuote,
    TooLong,
}

/// What stops a search in the text.
enum Found {
    At(usize),
    End,
    TooLong,
}

impl<R: Read> Records<R> {
    pub fn new(input: R, delimiter: u8) -> Self {
        Self {
            input,
            delimiter,
            text: Vec::new(),
            start: 0,
            at_end: false,
            line: 1,
            width: None,
            fields: Vec::new(),
            unescaped: Vec::new(),
            excerpt: Vec::new(),
        }
    }

    /// The next record that is not an empty line; `None` at the end. The first one sets the width of all others.
    pub fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Malformed<'_>>>> {
        if !self.skip_empty_lines()? {
            return Ok(None);
        }
        let scanned = self.scan()?;
        let (line, start) = (self.line, self.start);
        let (end, next) = match scanned {
            Scanned::Record { end, next } => (end, next),
            Scanned::BadQuote => return self.bad_line().map(|malformed| Some(Err(malformed))),
            Scanned::TooLong => return self.too_long().map(|malformed| Some(Err(malformed))),
        };
        let raw_lines = 1 + self.text[start..end].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let found = self.fields.len();
        let width = *self.width.get_or_insert(found);
        if found != width && raw_lines > 1 {
            return self.bad_line().map(|malformed| Some(Err(malformed)));
        }
        self.start = next;
        self.line += raw_lines;
        let raw = &self.text[start..end];
        if found != width {
            return Ok(Some(Err(Malformed {
                line,
                raw,
                reason: "WRONG_FIELD_COUNT",
                message: format!("must have {width} fields as the header has, has {found}"),
            })));
        }
        Ok(Some(Ok(Record {
            line,
            raw,
            text: &self.text,
            unescaped: &self.unescaped,
            fields: &self.fields,
        })))
    }

    /// Returns whether there is something left.
    fn skip_empty_lines(&mut self) -> io::Result<bool> {
        if self.line == 1 && self.start == 0 {
            while self.text.len() < BYTE_ORDER_MARK.len() && self.fill()? {}
            if self.text.starts_with(BYTE_ORDER_MARK) {
                self.start = BYTE_ORDER_MARK.len();
            }
        }
        loop {
            if self.start >= READ_BYTES {
                self.text.drain(..self.start);
                self.start = 0;
            }
            let length = match (self.byte(self.start)?, self.byte(self.start + 1)?) {
                (None, _) => return Ok(false),
                (Some(b'\n'), _) => 1,
                (Some(b'\r'), Some(b'\n')) => 2,
                (Some(b'\r'), None) => 1,
                _ => return Ok(true),
            };
            self.start += length;
            self.line += 1;
        }
    }

    /// Finds the fields of the record at `start`.
    fn scan(&mut self) -> io::Result<Scanned> {
        self.fields.clear();
        self.unescaped.clear();
        let delimiter = self.delimiter;
        let mut at = self.start;
        loop {
            let is_quoted = self.byte(at)? == Some(b'"');
            let end = match is_quoted {
                true => match self.quoted(at + 1)? {
                    Ok(end) => end,
                    Err(problem) => return Ok(problem),
                },
                false => match self.find(at, |byte| byte == delimiter || byte == b'\n')? {
                    Found::At(end) => end,
                    Found::End => self.text.len(),
                    Found::TooLong => return Ok(Scanned::TooLong),
                },
            };
            if self.text.get(end) == Some(&delimiter) {
                if !is_quoted {
                    self.fields.push(Field::Verbatim(at..end));
                }
                at = end + 1;
                continue;
            }
            let next = self.text.len().min(end + 1);
            let end = match self.text[at..end].last() {
                Some(b'\r') => end - 1,
                _ => end,
            };
            if !is_quoted {
                self.fields.push(Field::Verbatim(at..end));
            }
            return Ok(match end - self.start > MAX_RECORD_BYTES {
                true => Scanned::TooLong,
                false => Scanned::Record { end, next },
            });
        }
    }

    /// Reads the quoted field whose text begins at `begin`. Returns where the delimiter or line end after it stands.
    fn quoted(&mut self, begin: usize) -> io::Result<Result<usize, Scanned>> {
        let first_unescaped = self.unescaped.len();
        let mut piece = begin;
        loop {
            let quote = match self.find(piece, |byte| byte == b'"')? {
                Found::At(quote) => quote,
                Found::End => return Ok(Err(Scanned::BadQuote)),
                Found::TooLong => return Ok(Err(Scanned::TooLong)),
            };
            let after = self.byte(quote + 1)?;
            if after == Some(b'"') {
                self.unescaped.extend_from_slice(&self.text[piece..=quote]);
                piece = quote + 2;
                continue;
            }
            let field = match piece == begin {
                true => Field::Verbatim(begin..quote),
                false => {
                    self.unescaped.extend_from_slice(&self.text[piece..quote]);
                    Field::Unescaped(first_unescaped..self.unescaped.len())
                }
            };
            self.fields.push(field);
            let end = match (after, self.byte(quote + 2)?) {
                (Some(b'\r'), Some(b'\n') | None) => quote + 2,
                _ => quote + 1,
            };
            return Ok(match self.text.get(end) {
                Some(&byte) if byte != self.delimiter && byte != b'\n' => Err(Scanned::BadQuote),
                _ => Ok(end),
            });
        }
    }

    /// The physical line at `start`, which is no record by itself.
    fn bad_line(&mut self) -> io::Result<Malformed<'_>> {
        let (line, start) = (self.line, self.start);
        let end = match self.find(start, |byte| byte == b'\n')? {
            Found::At(end) => end,
            Found::End => self.text.len(),
            Found::TooLong => return self.too_long(),
        };
        self.start = self.text.len().min(end + 1);
        self.line += 1;
        Ok(Malformed {
            line,
            raw: self.text[start..end].trim_ascii_end(),
            reason: "BAD_QUOTE",
            message: "a quoted field must end with a quote before the delimiter or line end, \
                      and quotes within it are doubled"
                .to_owned(),
        })
    }

    fn too_long(&mut self) -> io::Result<Malformed<'_>> {
        let window = &self.text[self.start..self.text.len().min(self.start + MAX_RECORD_BYTES)];
        if window.contains(&b'\n') {
            // Several lines: a quote that nothing closes, most likely.
            return self.bad_line();
        }
        const EXCERPT_BYTES: usize = 1024;
        let line = self.line;
        self.excerpt.clear();
        self.excerpt.extend_from_slice(&window[..EXCERPT_BYTES]);
        loop {
            match self.text[self.start..].iter().position(|&byte| byte == b'\n') {
                Some(length) => {
                    self.start += length + 1;
                    break;
                }
                None => {
                    self.text.clear();
                    self.start = 0;
                    if !self.fill()? {
                        break;
                    }
                }
            }
        }
        self.line += 1;
        Ok(Malformed {
            line,
            raw: &self.excerpt,
            reason: "RECORD_TOO_LONG",
            message: format!("must be at most {MAX_RECORD_BYTES} bytes long; its beginning is shown"),
        })
    }

    fn find(&mut self, from: usize, stop: impl Fn(u8) -> bool) -> io::Result<Found> {
        let mut at = from;
        loop {
            if let Some(offset) = self.text[at..].iter().position(|&byte| stop(byte)) {
                return Ok(Found::At(at + offset));
            }
            at = self.text.len();
            if at - self.start > MAX_RECORD_BYTES {
                return Ok(Found::TooLong);
            }
            if !self.fill()? {
                return Ok(Found::End);
            }
        }
    }

    fn byte(&mut self, at: usize) -> io::Result<Option<u8>> {
        while at >= self.text.len() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(Some(self.text[at]))
    }

    /// Reads more text; returns whether there was some.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        let length = self.text.len();
        self.text.resize(length + READ_BYTES, 0);
        let count = loop {
            match self.input.read(&mut self.text[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.text.truncate(length + *count.as_ref().unwrap_or(&0));
        self.at_end = count? == 0;
        Ok(!self.at_end)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// Gives at most `step` bytes at a time.
    struct Steps {
        input: Cursor<Vec<u8>>,
        step: usize,
    }

    impl Read for Steps {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let end = buffer.len().min(self.step);
            self.input.read(&mut buffer[..end])
        }
    }

    /// Every record as `line: field|field`, every malformed one as `line! REASON raw`.
    fn read_in_steps(text: &[u8], delimiter: u8, step: usize) -> Vec<String> {
        let input = Cursor::new(text.to_vec());
        let mut records = Records::new(Steps { input, step }, delimiter);
        let mut seen = Vec::new();
        while let Some(next) = records.next().unwrap() {
            let lossy = |bytes| String::from_utf8_lossy(bytes).into_owned();
            seen.push(match next {
                Ok(record) => {
                    let fields: Vec<String> = (0..record.width()).map(|index| lossy(record.field(index))).collect();
                    format!("{}: {}", record.line, fields.join("|"))
                }
                Err(malformed) => format!("{}! {} {}", malformed.line, malformed.reason, lossy(malformed.raw)),
            });
        }
        seen
    }

    fn check(text: &str, want: &[&str]) {
        for step in [1, 2, 7, usize::MAX] {
            assert_eq!(
                read_in_steps(text.as_bytes(), b',', step),
                want,
                "{text:?} in steps of {step}"
            );
        }
    }

    #[test]
    fn well_formed_records_are_read() {
        check("", &[]);
        check("\n\r\n\n", &[]);
        check("a,b", &["1: a|b"]);
        check("a,b\n1,2\n3,4", &["1: a|b", "2: 1|2", "3: 3|4"]);
        check("a,b\r\n1,2\r\n3,4\r\n", &["1: a|b", "2: 1|2", "3: 3|4"]);
        check("\u{feff}a,b\n1,2\n", &["1: a|b", "2: 1|2"]);
        check("\u{feff}", &[]);
        check("\u{feff}\n\"a\"\n", &["2: a"]);
        check("a,b\n,\n", &["1: a|b", "2: |"]);
        check("a\n\n \n", &["1: a", "3:  "]);
        check("a,b\n\n\r\n1,2\n", &["1: a|b", "4: 1|2"]);
        check("a,b\r", &["1: a|b"]);
        check("\"a\",\"b\"\r\n\"1\",\"2\"\r", &["1: a|b", "2: 1|2"]);
        check("\"a\",b\n\"x, \"\"y\"\"\",\"\"\n", &["1: a|b", "2: x, \"y\"|"]);
        check("a,b\n\"\"\"\",\"\"\"\"\"\"\n", &["1: a|b", "2: \"|\"\""]);
        check("a,b\n5\" pipe,x\"\n", &["1: a|b", "2: 5\" pipe|x\""]);
        check("a,b\r\n\"1\r\n2\",3\r\n4,5\r\n", &["1: a|b", "2: 1\r\n2|3", "4: 4|5"]);
        check("a,b\n\"1\n\n2\",\"3\n\"\n4,5", &["1: a|b", "2: 1\n\n2|3\n", "6: 4|5"]);
    }

    #[test]
    fn a_bad_line_costs_one_line() {
        check(
            "a,b\n1\n2,3\n4,5,6\n7,8\n",
            &[
                "1: a|b",
                "2! WRONG_FIELD_COUNT 1",
                "3: 2|3",
                "4! WRONG_FIELD_COUNT 4,5,6",
                "5: 7|8",
            ],
        );
        // Never closed.
        check("a,b\n\"1,2\n3,4\n", &["1: a|b", "2! BAD_QUOTE \"1,2", "3: 3|4"]);
        check("a,b\n1,\"\n", &["1: a|b", "2! BAD_QUOTE 1,\""]);
        check("a,b\n1,\"", &["1: a|b", "2! BAD_QUOTE 1,\""]);
        // Closed by the quote that opens another field.
        check(
            "a,b\n\"1,2\n\"3\",4\n5,6\n",
            &["1: a|b", "2! BAD_QUOTE \"1,2", "3: 3|4", "4: 5|6"],
        );
        // Closed by chance at a delimiter, but with fields too many.
        check(
            "a,b\n\"1,2\n3\",4,5\n6,7\n",
            &["1: a|b", "2! BAD_QUOTE \"1,2", "3! WRONG_FIELD_COUNT 3\",4,5", "4: 6|7"],
        );
        check(
            "a,b\r\n\"1\"x,2\r\n3,4\r\n",
            &["1: a|b", "2! BAD_QUOTE \"1\"x,2", "3: 3|4"],
        );
        check("a,b\n\"1\" ,2\n3,4\n", &["1: a|b", "2! BAD_QUOTE \"1\" ,2", "3: 3|4"]);
    }

    #[test]
    fn records_have_a_greatest_length() {
        let beginning =
            |seen: Vec<String>| -> Vec<String> { seen.iter().map(|text| text.chars().take(22).collect()).collect() };
        let check = |text: String, want: &[&str]| {
            for step in [1 << 10, usize::MAX] {
                assert_eq!(beginning(read_in_steps(text.as_bytes(), b',', step)), want);
            }
        };
        let fits = "x".repeat(MAX_RECORD_BYTES - 2);
        check(
            format!("a,b\n1,{fits}\n2,3\n"),
            &["1: a|b", "2: 1|xxxxxxxxxxxxxxxxx", "3: 2|3"],
        );
        check(
            format!("a,b\n1,x{fits}\n2,3\n"),
            &["1: a|b", "2! RECORD_TOO_LONG 1,x", "3: 2|3"],
        );
        check(format!("a,b\n1,x{fits}"), &["1: a|b", "2! RECORD_TOO_LONG 1,x"]);
        check(
            format!("a,b\n\"1,x{fits}\n2,3\n"),
            &["1: a|b", "2! RECORD_TOO_LONG \"1,", "3: 2|3"],
        );
        let lines = "2,3\n".repeat(MAX_RECORD_BYTES / 4 + 1);
        let seen = read_in_steps(format!("a,b\n\"1,2\n{lines}").as_bytes(), b',', usize::MAX);
        assert_eq!(seen[..3], ["1: a|b", "2! BAD_QUOTE \"1,2", "3: 2|3"]);
        assert_eq!(seen.len(), MAX_RECORD_BYTES / 4 + 3);
    }

    #[test]
    fn memory_does_not_grow_with_the_file() {
        let line = b"some,record,of,a,large,file\n\n";
        let input = std::iter::repeat_n(line, 400_000)
            .flatten()
            .copied()
            .chain([b'\n'; 200_000])
            .collect();
        let mut records = Records::new(
            Steps {
                input: Cursor::new(input),
                step: usize::MAX,
            },
            b',',
        );
        while records.next().unwrap().is_some() {
            assert!(records.text.len() <= 3 * READ_BYTES, "{}", records.text.len());
        }
        assert_eq!(records.line, 1_000_001);
    }

    proptest! {
        /// The reference: the crate csv, on what it has written itself.
        #[test]
        fn records_are_those_of_the_reference(
            rows in prop::collection::vec(prop::collection::vec("[a,;\"\r\n ]{0,4}", 3), 1..8),
            delimiter in prop::sample::select(vec![b',', b';', b'\t']),
            crlf in any::<bool>(),
            step in 1usize..40,
        ) {
            let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let mut writer = csv::WriterBuilder::new().delimiter(delimiter).terminator(terminator).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let seen: Vec<String> = read_in_steps(&text, delimiter, step)
                .into_iter()
                .map(|line| line.split_once(": ").unwrap().1.to_owned())
                .collect();
            let want: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
            prop_assert_eq!(seen, want);
        }

        #[test]
        fn no_text_is_lost(text in "[a,\"\r\n]{0,60}", step in 1usize..9) {
            let seen = read_in_steps(text.as_bytes(), b',', step);
            let count = |text: &str| text.matches('a').count();
            prop_assert_eq!(seen.iter().map(|record| count(record)).sum::<usize>(), count(&text));
        }
    }
}
