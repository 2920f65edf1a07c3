//! Reads CSV records and the line that each begins at, in bounded memory.
//!
//! `csv-core` splits a record into fields: RFC 4180 with any one-byte delimiter. This module adds what the parser leaves
//! open: LF or CRLF at the end of a line, an optional byte order mark, a greatest length, and the rejection of bad lines.
//! Dialects that the parser does not know are split by [`split`](super::split).
//!
//! An unclosed quote costs one line, not the rest of the file. `csv-core` accepts any text and would read on until the
//! next quote. A record whose quotes are wrong, or that spans several lines and has not the width of the header, is
//! therefore abandoned: its first line alone is malformed, and reading resumes at the next line.

use std::io::{self, Read};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use super::Dialect;
use super::split::{Split, split};
use crate::input::{READ_BYTES, read_more};
use crate::record::{MAX_RECORD_BYTES, Malformed, Record, RowBuffer, Rows};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

pub(crate) struct Records<R> {
    input: R,
    dialect: Dialect,
    /// The delimiter if `csv-core` knows the dialect.
    simple: Option<u8>,
    /// The text read so far. Everything before `start` has been returned.
    text: Vec<u8>,
    start: usize,
    at_end: bool,
    /// The line number of `start`, from 1.
    line: u64,
    /// The number of fields of every record, known once the header has been read.
    width: Option<usize>,
    parser: Reader,
    /// The fields of the current record, one after the other, without their quotes.
    unquoted: Vec<u8>,
    /// Where each field ends in `unquoted`; only the first `n_fields` are in use.
    ends: Vec<usize>,
    n_fields: usize,
    /// The fields of the current record in a dialect that `csv-core` does not know.
    fields: RowBuffer,
    /// The beginning of a record that was too long to keep.
    excerpt: Vec<u8>,
}

impl<R: Read> Records<R> {
    pub fn new(input: R, dialect: Dialect) -> Self {
        let simple = dialect.simple_delimiter();
        Self {
            input,
            simple,
            text: Vec::new(),
            start: 0,
            at_end: false,
            line: 1,
            width: None,
            parser: new_parser(&dialect),
            dialect,
            unquoted: vec![0; READ_BYTES],
            ends: vec![0; 16],
            n_fields: 0,
            fields: RowBuffer::default(),
            excerpt: Vec::new(),
        }
    }

    /// Returns the number of fields of the first record, without consuming it, or `None` if there is none.
    pub fn peek_width(&mut self) -> io::Result<Option<usize>> {
        if !self.skip_empty_lines()? || self.parse()?.is_none() {
            return Ok(None);
        }
        self.parser = new_parser(&self.dialect);
        Ok(Some(match self.simple {
            Some(_) => self.n_fields,
            None => self.fields.ends.len(),
        }))
    }

    /// Skips the next line that is not empty. Returns whether there was one.
    pub fn skip_line(&mut self) -> io::Result<bool> {
        if self.skip_empty_lines()?
            && let Some(end) = self.line_end()?
        {
            self.start = self.text.len().min(end + 1);
            self.line += 1;
            return Ok(true);
        }
        Ok(false)
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

    /// Parses the record at `start` into fields. Returns `None` when it is longer than [`MAX_RECORD_BYTES`].
    fn parse(&mut self) -> io::Result<Option<Parsed>> {
        if self.simple.is_some() {
            return self.parse_simple();
        }
        loop {
            match split(&self.text[self.start..], self.at_end, &self.dialect, &mut self.fields) {
                Split::Record { length, is_well_quoted } => {
                    let line = without_line_end(&self.text[self.start..self.start + length]);
                    return Ok((line.len() <= MAX_RECORD_BYTES).then_some(Parsed {
                        next: self.start + length,
                        is_well_quoted,
                    }));
                }
                Split::Incomplete if self.text.len() - self.start > MAX_RECORD_BYTES + "\r".len() => return Ok(None),
                Split::Incomplete => _ = self.fill()?,
            }
        }
    }

    /// Parses the record at `start` with `csv-core`.
    fn parse_simple(&mut self) -> io::Result<Option<Parsed>> {
        let (mut at, mut n_bytes, mut n_ends) = (self.start, 0, 0);
        loop {
            let (unquoted, ends) = (&mut self.unquoted[n_bytes..], &mut self.ends[n_ends..]);
            let (result, read, written, ended) = self.parser.read_record(&self.text[at..], unquoted, ends);
            at += read;
            n_bytes += written;
            n_ends += ended;
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => break,
                ReadRecordResult::OutputFull => self.unquoted.resize(2 * self.unquoted.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                ReadRecordResult::InputEmpty if at - self.start > MAX_RECORD_BYTES + "\r".len() => return Ok(None),
                // At the end of the input the parser gets an empty slice, which tells it to end the record.
                ReadRecordResult::InputEmpty => _ = self.fill()?,
            }
        }
        self.n_fields = n_ends;
        let line = &self.text[self.start..at];
        let has_cr = line.strip_suffix(b"\n").unwrap_or(line).ends_with(b"\r");
        if let (true, Some(end)) = (has_cr, self.ends[..n_ends].last_mut()) {
            // The parser ends a record at LF alone, so that the last field has the CR.
            *end -= 1;
        }
        let line = without_line_end(line);
        Ok((line.len() <= MAX_RECORD_BYTES).then(|| Parsed {
            next: at,
            is_well_quoted: is_well_quoted(line, &self.dialect),
        }))
    }

    /// Returns the number of fields of the record that has been parsed. Empty ones beyond those of the first record, which some
    /// programs leave at the end of a line, do not count.
    fn count_fields(&mut self) -> usize {
        let ends = match self.simple {
            Some(_) => &self.ends[..self.n_fields],
            None => &self.fields.ends[..],
        };
        match self.width {
            Some(width) if ends.len() > width && ends[width - 1] == ends[ends.len() - 1] => {
                self.fields.ends.truncate(width);
                width
            }
            _ => ends.len(),
        }
    }

    /// Rejects the line at `start`, which is not a record by itself.
    fn bad_line(&mut self) -> io::Result<Malformed<'_>> {
        let (line, start) = (self.line, self.start);
        let Some(end) = self.line_end()? else {
            return self.too_long();
        };
        self.start = self.text.len().min(end + 1);
        self.line += 1;
        let raw = self.text[start..end].trim_ascii_end();
        let hint = match raw.windows(2).any(|pair| pair == b"\\\"") {
            true => "; if the file writes a backslash before them, give it as the escape character",
            false => "",
        };
        Ok(Malformed {
            line,
            raw,
            reason: "BAD_QUOTE",
            message: format!(
                "a quoted field must end with a quote before the delimiter or line end, and quotes within it must be \
                 doubled{hint}"
            ),
        })
    }

    /// Returns where the line at `start` ends, or `None` when it is longer than [`MAX_RECORD_BYTES`].
    fn line_end(&mut self) -> io::Result<Option<usize>> {
        let mut at = self.start;
        loop {
            if let Some(length) = self.text[at..].iter().position(|&byte| byte == b'\n') {
                return Ok(Some(at + length));
            }
            at = self.text.len();
            if at - self.start > MAX_RECORD_BYTES {
                return Ok(None);
            }
            if !self.fill()? {
                return Ok(Some(at));
            }
        }
    }

    /// Rejects the record at `start`, which is longer than [`MAX_RECORD_BYTES`], and skips it.
    fn too_long(&mut self) -> io::Result<Malformed<'_>> {
        self.parser = new_parser(&self.dialect);
        let window = &self.text[self.start..self.text.len().min(self.start + MAX_RECORD_BYTES)];
        if window.contains(&b'\n') {
            // It has several lines, most likely because a quote is never closed.
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
            message: format!("must be at most {MAX_RECORD_BYTES} bytes long; only its beginning is shown"),
        })
    }

    fn byte(&mut self, at: usize) -> io::Result<Option<u8>> {
        while at >= self.text.len() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(Some(self.text[at]))
    }

    /// Reads more text. Returns whether there was some.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        self.at_end = !read_more(&mut self.input, &mut self.text)?;
        Ok(!self.at_end)
    }
}

/// Where the next record begins, and whether the quotes of this one are right.
struct Parsed {
    next: usize,
    is_well_quoted: bool,
}

impl<R: Read + Send> Rows for Records<R> {
    /// The first record sets the width of all others, unless it is known.
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Malformed<'_>>>> {
        if !self.skip_empty_lines()? {
            return Ok(None);
        }
        let Some(Parsed { next, is_well_quoted }) = self.parse()? else {
            return self.too_long().map(|malformed| Some(Err(malformed)));
        };
        let (line, start) = (self.line, self.start);
        let end = start + without_line_end(&self.text[start..next]).len();
        let raw_lines = 1 + self.text[start..end].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let found = self.count_fields();
        if !is_well_quoted || (raw_lines > 1 && self.width.is_some_and(|width| width != found)) {
            return self.bad_line().map(|malformed| Some(Err(malformed)));
        }
        let width = *self.width.get_or_insert(found);
        self.start = next;
        self.line += raw_lines;
        let raw = &self.text[start..end];
        if found != width {
            return Ok(Some(Err(Malformed {
                line,
                raw,
                reason: "WRONG_FIELD_COUNT",
                message: wrong_count(width, found),
            })));
        }
        Ok(Some(Ok(match self.simple {
            Some(_) => Record {
                line,
                raw: Some(raw),
                bytes: &self.unquoted,
                ends: &self.ends[..found],
                changed: &[],
            },
            None => self.fields.record(line, Some(raw)),
        })))
    }
}

fn wrong_count(width: usize, found: usize) -> String {
    // R writes numbers of rows without a name above them.
    let hint = match found == width + 1 {
        true => "; if the first line does not name the first column, leave it out and read the file without a header",
        false => "",
    };
    format!("must have {width} fields like the first line, has {found}{hint}")
}

fn new_parser(dialect: &Dialect) -> Reader {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(dialect.simple_delimiter().unwrap_or(b','));
    match dialect.quote {
        Some(quote) => builder.quote(quote),
        None => builder.quoting(false),
    };
    let mut parser = builder.terminator(Terminator::Any(b'\n')).build();
    // A parser that has never read would drop a byte order mark, also in the middle of the file.
    parser.read_record(&[], &mut [], &mut []);
    parser
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Returns whether every field of `record` that begins with a quote also ends with one. `csv-core` does not ask for it.
fn is_well_quoted(record: &[u8], dialect: &Dialect) -> bool {
    enum State {
        FieldStart,
        Unquoted,
        Quoted,
        /// After a quote in a quoted field, which closes the field or is the first of two.
        QuoteInQuoted,
    }
    let (Some(quote), Some(delimiter)) = (dialect.quote, dialect.simple_delimiter()) else {
        return true;
    };
    if !record.contains(&quote) {
        return true;
    }
    let mut state = State::FieldStart;
    for &byte in record {
        state = match (state, byte) {
            (State::FieldStart | State::QuoteInQuoted, byte) if byte == quote => State::Quoted,
            (State::Quoted, byte) if byte == quote => State::QuoteInQuoted,
            (State::Quoted, _) => State::Quoted,
            (_, byte) if byte == delimiter => State::FieldStart,
            (State::FieldStart | State::Unquoted, _) => State::Unquoted,
            (State::QuoteInQuoted, _) => return false,
        };
    }
    !matches!(state, State::Quoted)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::super::Delimiter;
    use super::*;

    /// Returns at most `step` bytes at a time.
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

    fn dialect(delimiter: u8) -> Dialect {
        Dialect {
            delimiter: Delimiter::Byte(delimiter),
            ..Dialect::default()
        }
    }

    /// Shows every record as `line: field|field` and every malformed one as `line! REASON raw`.
    fn read_in_steps(text: &[u8], delimiter: u8, step: usize) -> Vec<String> {
        let input = Cursor::new(text.to_vec());
        let mut records = Records::new(Steps { input, step }, dialect(delimiter));
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
        // A quote that is never closed.
        check("a,b\n\"1,2\n3,4\n", &["1: a|b", "2! BAD_QUOTE \"1,2", "3: 3|4"]);
        check("a,b\n1,\"\n", &["1: a|b", "2! BAD_QUOTE 1,\""]);
        check("a,b\n1,\"", &["1: a|b", "2! BAD_QUOTE 1,\""]);
        // A quote that is closed by the quote that opens another field.
        check(
            "a,b\n\"1,2\n\"3\",4\n5,6\n",
            &["1: a|b", "2! BAD_QUOTE \"1,2", "3: 3|4", "4: 5|6"],
        );
        // A quote that is closed at a delimiter by chance, but then with too many fields.
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
            Dialect::default(),
        );
        while records.next().unwrap().is_some() {
            assert!(records.text.len() <= 3 * READ_BYTES, "{}", records.text.len());
        }
        assert_eq!(records.line, 1_000_001);
    }

    proptest! {
        /// The reference is the crate csv, which has written the text.
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
