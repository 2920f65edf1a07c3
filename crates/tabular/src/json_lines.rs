//! Reads JSON lines: one object on each line. A nested object gives a column for each of its keys, such as `customer.id`.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::OpenError;
use crate::record::{MAX_RECORD_BYTES, Malformed, Record, RowBuffer, Rows};

/// The columns are the keys of the first lines, up to this many and this many bytes.
const SAMPLE_LINES: usize = 10_000;
const SAMPLE_BYTES: usize = 8 << 20;

pub(crate) struct JsonLines {
    input: BufReader<Box<dyn Read + Send>>,
    columns: HashMap<String, usize>,
    /// Lines that were read for their keys.
    sample: VecDeque<Vec<u8>>,
    line: u64,
    text: Vec<u8>,
    /// The cells of the current line, by column.
    cells: Vec<String>,
    row: RowBuffer,
    /// Keys of later lines that are no columns.
    late: BTreeSet<String>,
}

impl JsonLines {
    /// Reads the first lines. Returns the rows and the names of the columns.
    pub fn open(input: Box<dyn Read + Send>) -> Result<(Self, Vec<String>), OpenError> {
        let mut rows = Self {
            input: BufReader::with_capacity(1 << 16, input),
            columns: HashMap::new(),
            sample: VecDeque::new(),
            line: 0,
            text: Vec::new(),
            cells: Vec::new(),
            row: RowBuffer::default(),
            late: BTreeSet::new(),
        };
        let mut header = Vec::new();
        let mut bytes = 0;
        while rows.sample.len() < SAMPLE_LINES && bytes < SAMPLE_BYTES {
            let mut line = Vec::new();
            if !read_line(&mut rows.input, &mut line)? {
                break;
            }
            bytes += line.len();
            // A line that is no object is rejected when its turn comes.
            let _ = for_each_value(&line, &mut |key, _| {
                if !rows.columns.contains_key(key) {
                    rows.columns.insert(key.to_owned(), header.len());
                    header.push(key.to_owned());
                }
            });
            rows.sample.push_back(line);
        }
        if header.is_empty() {
            let message = "must have one JSON object on each line, but none of the first lines is an object";
            return Err(OpenError::Content(message.to_owned()));
        }
        rows.cells = vec![String::new(); header.len()];
        Ok((rows, header))
    }
}

impl Rows for JsonLines {
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Malformed<'_>>>> {
        loop {
            match self.sample.pop_front() {
                Some(line) => self.text = line,
                None => {
                    self.text.clear();
                    if !read_line(&mut self.input, &mut self.text)? {
                        return Ok(None);
                    }
                }
            }
            self.line += 1;
            if !self.text.trim_ascii().is_empty() {
                break;
            }
        }
        if self.text.len() > MAX_RECORD_BYTES {
            return Ok(Some(Err(Malformed {
                line: self.line,
                raw: &self.text[..1024],
                reason: "RECORD_TOO_LONG",
                message: format!("must be at most {MAX_RECORD_BYTES} bytes long; only its beginning is shown"),
            })));
        }
        self.cells.iter_mut().for_each(String::clear);
        let (columns, cells, late) = (&self.columns, &mut self.cells, &mut self.late);
        let read = for_each_value(&self.text, &mut |key, value| match columns.get(key) {
            Some(&column) => {
                cells[column].clear();
                cells[column].push_str(&value);
            }
            None if late.len() < 20 => _ = late.insert(key.to_owned()),
            None => {}
        });
        if let Err(error) = read {
            return Ok(Some(Err(Malformed {
                line: self.line,
                raw: &self.text,
                reason: "BAD_JSON",
                message: format!("must be one JSON object: {}", problem(&error)),
            })));
        }
        self.row.clear();
        for cell in &self.cells {
            self.row.push(cell);
        }
        Ok(Some(Ok(self.row.record(self.line, Some(&self.text)))))
    }

    fn notes(&self) -> Vec<String> {
        let late: Vec<&str> = self.late.iter().map(String::as_str).collect();
        match late.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "Keys that none of the first lines has were not read: {}.",
                late.join(", ")
            )],
        }
    }
}

/// The error of the library without its line, which is always 1.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((problem, _)) => format!("{problem} at column {}", error.column()),
        None => text,
    }
}

/// Reads a line without its end into `line`, which must be empty. Returns whether there is one. Keeps only somewhat more
/// than [`MAX_RECORD_BYTES`] of a line that is too long.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            return Ok(!line.is_empty());
        }
        let (length, found) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(length) => (length, true),
            None => (buffer.len(), false),
        };
        if line.len() <= MAX_RECORD_BYTES {
            line.extend_from_slice(&buffer[..length]);
        }
        input.consume(length + usize::from(found));
        if found {
            if line.ends_with(b"\r") {
                line.pop();
            }
            if line.is_empty() {
                // An empty line is a line too, or line numbers would be wrong.
                line.push(b' ');
            }
            return Ok(true);
        }
    }
}

/// Calls `take` with the name of the column and the text of every value in the object `line`. The text of a number is
/// exactly that of the file; that of null is empty; that of an array is its JSON.
fn for_each_value(line: &[u8], take: &mut dyn FnMut(&str, Cow<'_, str>)) -> serde_json::Result<()> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let mut parser = serde_json::Deserializer::from_slice(line);
    parser.deserialize_map(Object { prefix: "", take })?;
    parser.end()
}

struct Object<'a> {
    prefix: &'a str,
    take: &'a mut dyn FnMut(&str, Cow<'_, str>),
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, &RawValue>()? {
            let name = match self.prefix {
                "" => key,
                prefix => Cow::Owned(format!("{prefix}.{key}")),
            };
            let value = value.get();
            match value.as_bytes().first() {
                Some(b'{') => {
                    let nested = Object {
                        prefix: &name,
                        take: self.take,
                    };
                    let mut parser = serde_json::Deserializer::from_str(value);
                    parser.deserialize_map(nested).map_err(serde::de::Error::custom)?;
                }
                Some(b'"') => {
                    let text: String = serde_json::from_str(value).map_err(serde::de::Error::custom)?;
                    (self.take)(&name, Cow::Owned(text));
                }
                Some(b'n') => (self.take)(&name, Cow::Borrowed("")),
                _ => (self.take)(&name, Cow::Borrowed(value)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the columns, the rows, and the notes.
    type Seen = (Vec<String>, Vec<String>, Vec<String>);

    fn read(text: &'static str) -> Result<Seen, String> {
        let (mut rows, header) = JsonLines::open(Box::new(text.as_bytes())).map_err(|error| error.to_string())?;
        let mut seen = Vec::new();
        while let Some(next) = rows.next().unwrap() {
            let lossy = |bytes| String::from_utf8_lossy(bytes).into_owned();
            seen.push(match next {
                Ok(record) => {
                    let cells: Vec<String> = (0..record.width()).map(|index| lossy(record.field(index))).collect();
                    format!("{}: {}", record.line, cells.join("|"))
                }
                Err(malformed) => format!("{}! {} {}", malformed.line, malformed.reason, malformed.message),
            });
        }
        Ok((header, seen, rows.notes()))
    }

    #[test]
    fn objects_become_rows() {
        let (header, rows, notes) = read(concat!(
            "{\"user\":\"a\\u00e9\",\"stars\":4.50,\"id\":12345678901234567890123}\n",
            "\n",
            "{\"stars\":null,\"ok\":true,\"user\":\"b\",\"customer\":{\"id\":7,\"tags\":[1, 2]}}\r\n",
            "{}",
        ))
        .unwrap();
        assert_eq!(header, ["user", "stars", "id", "ok", "customer.id", "customer.tags"]);
        assert_eq!(
            rows,
            [
                "1: aé|4.50|12345678901234567890123|||",
                "3: b|||true|7|[1, 2]",
                "4: |||||"
            ]
        );
        assert!(notes.is_empty());
    }

    #[test]
    fn a_line_that_is_no_object_costs_one_line() {
        let (_, rows, _) = read("{\"a\":1}\n{\"a\":2\n[3]\n{\"a\":4} x\n{\"a\":5}\n").unwrap();
        assert_eq!(
            rows,
            [
                "1: 1",
                "2! BAD_JSON must be one JSON object: EOF while parsing an object at column 6",
                "3! BAD_JSON must be one JSON object: invalid type: sequence, expected an object at column 0",
                "4! BAD_JSON must be one JSON object: trailing characters at column 9",
                "5: 5"
            ]
        );
        assert!(read("7\n").unwrap_err().contains("one JSON object on each line"));
    }

    #[test]
    fn keys_that_come_late_are_named() {
        let text = "{\"a\":1}\n".repeat(SAMPLE_LINES) + "{\"a\":2,\"b\":3}\n";
        let (header, rows, notes) = read(Box::leak(text.into_boxed_str())).unwrap();
        assert_eq!((header.len(), rows.len()), (1, SAMPLE_LINES + 1));
        assert_eq!(notes, ["Keys that none of the first lines has were not read: b."]);
    }
}
