//! Reads JSON objects: one on each line, one after the other over several lines, or in an array. A nested object gives a column
//! for each of its keys, such as `customer.id`.

mod framing;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::io::{self, Read};

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use self::framing::{Frame, Frames};
use crate::error::OpenError;
use crate::record::{MAX_RECORD_BYTES, Malformed, Record, RowBuffer, Rows};

/// The columns are the keys of the first objects, up to this many and this many bytes.
const SAMPLE_OBJECTS: usize = 10_000;
const SAMPLE_BYTES: usize = 8 << 20;

/// Objects that are nested more deeply are text.
const MAX_DEPTH: usize = 32;

pub(crate) struct JsonObjects {
    frames: Frames,
    columns: HashMap<String, usize>,
    /// Objects that were read for their keys.
    sample: VecDeque<Frame>,
    frame: Frame,
    /// The cells of the current object, by column.
    cells: Vec<String>,
    row: RowBuffer,
    /// Keys of later objects that are no columns.
    late: BTreeSet<String>,
}

/// The columns of a file of JSON objects.
pub(crate) struct JsonHeader {
    pub names: Vec<String>,
    /// The column with an array of objects, if the file has a single object: its records are likely to be those.
    pub nested: Option<String>,
}

impl JsonObjects {
    /// Reads the first objects. Returns the rows and the columns.
    pub fn open(input: Box<dyn Read + Send>) -> Result<(Self, JsonHeader), OpenError> {
        let mut rows = Self {
            frames: Frames::new(input)?,
            columns: HashMap::new(),
            sample: VecDeque::new(),
            frame: Frame::default(),
            cells: Vec::new(),
            row: RowBuffer::default(),
            late: BTreeSet::new(),
        };
        let mut header = JsonHeader {
            names: Vec::new(),
            nested: None,
        };
        let (mut bytes, mut first_problem) = (0, None);
        while rows.sample.len() < SAMPLE_OBJECTS && bytes < SAMPLE_BYTES {
            let mut frame = Frame::default();
            if !rows.frames.next(&mut frame)? {
                break;
            }
            bytes += frame.text.len();
            // A value that is no object is rejected when its turn comes.
            if let Err(problem) = rows.add_columns(&frame, &mut header) {
                first_problem.get_or_insert(problem);
            }
            rows.sample.push_back(frame);
        }
        if rows.sample.len() > 1 {
            header.nested = None;
        }
        if header.names.is_empty() {
            return Err(OpenError::Content(match first_problem {
                Some(problem) => format!("must have JSON objects, one on each line or all in one array, but {problem}"),
                None => "has no JSON object with anything in it".to_owned(),
            }));
        }
        rows.cells = vec![String::new(); header.names.len()];
        Ok((rows, header))
    }

    /// Adds the keys of an object that are not known to the columns. Returns what is wrong with it if it is none.
    fn add_columns(&mut self, frame: &Frame, header: &mut JsonHeader) -> Result<(), String> {
        if frame.is_too_long() {
            return Err(match frame.array_key() {
                Some(key) => format!(
                    "the object at line {} has more than 1 MiB; if the records are those in {key:?}, write each on a line: \
                     jq -c '.{key}[]'",
                    frame.line
                ),
                None => format!("the one at line {} has more than 1 MiB", frame.line),
            });
        }
        let read = for_each_value(&frame.text, &mut |key, value| {
            if !self.columns.contains_key(key) {
                self.columns.insert(key.to_owned(), header.names.len());
                header.names.push(key.to_owned());
            }
            let is_array = value
                .strip_prefix('[')
                .is_some_and(|rest| rest.trim_start().starts_with('{'));
            if is_array && header.nested.is_none() {
                header.nested = Some(key.to_owned());
            }
        });
        read.map_err(|error| format!("line {} is none: {}", frame.line, problem(&error)))
    }
}

impl Rows for JsonObjects {
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Malformed<'_>>>> {
        match self.sample.pop_front() {
            Some(frame) => self.frame = frame,
            None => {
                if !self.frames.next(&mut self.frame)? {
                    return Ok(None);
                }
            }
        }
        let Frame { line, text, .. } = &self.frame;
        if self.frame.is_too_long() {
            return Ok(Some(Err(Malformed {
                line: *line,
                raw: &text[..1024],
                reason: "RECORD_TOO_LONG",
                message: format!("must be at most {MAX_RECORD_BYTES} bytes long; only its beginning is shown"),
            })));
        }
        self.cells.iter_mut().for_each(String::clear);
        let (columns, cells, late) = (&self.columns, &mut self.cells, &mut self.late);
        let read = for_each_value(text, &mut |key, value| match columns.get(key) {
            Some(&column) => {
                cells[column].clear();
                cells[column].push_str(&value);
            }
            None if late.len() < 20 => _ = late.insert(key.to_owned()),
            None => {}
        });
        if let Err(error) = read {
            return Ok(Some(Err(Malformed {
                line: *line,
                raw: text,
                reason: "BAD_JSON",
                message: format!("must be one JSON object: {}", problem(&error)),
            })));
        }
        self.row.clear();
        for cell in &self.cells {
            self.row.push(cell);
        }
        Ok(Some(Ok(self.row.record(*line, Some(text)))))
    }

    fn notes(&self) -> Vec<String> {
        let late: Vec<&str> = self.late.iter().map(String::as_str).collect();
        match late.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "Keys that none of the first objects has were not read: {}.",
                late.join(", ")
            )],
        }
    }
}

/// Returns the error of the library, whose lines count from the beginning of the object.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((problem, _)) if error.line() > 1 => {
            format!(
                "{problem} at line {} of the object, column {}",
                error.line(),
                error.column()
            )
        }
        Some((problem, _)) => format!("{problem} at column {}", error.column()),
        None => text,
    }
}

/// Calls `take` with the name of the column and the text of every value in the object `text`. The text of a number is
/// exactly that of the file; that of null is empty; that of an array, and of an object at [`MAX_DEPTH`], is its JSON.
fn for_each_value(text: &[u8], take: &mut dyn FnMut(&str, Cow<'_, str>)) -> serde_json::Result<()> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let prefix = "";
    parser.deserialize_map(Object { prefix, depth: 0, take })?;
    parser.end()
}

struct Object<'a> {
    prefix: &'a str,
    /// The number of objects around it.
    depth: usize,
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
                Some(b'{') if self.depth < MAX_DEPTH => {
                    let nested = Object {
                        prefix: &name,
                        depth: self.depth + 1,
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
        let (mut rows, header) = JsonObjects::open(Box::new(text.as_bytes())).map_err(|error| error.to_string())?;
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
        Ok((header.names, seen, rows.notes()))
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
        let refused = |text: &'static str, want: &str| assert_eq!(read(text).unwrap_err(), want, "{text}");
        refused(
            "7\n",
            "must have JSON objects, one on each line or all in one array, but line 1 is none: invalid type: integer `7`, \
             expected an object at column 1",
        );
        refused(
            "[\n[1]]",
            "must have JSON objects, one on each line or all in one array, but line 2 is none: invalid type: sequence, \
             expected an object at column 0",
        );
        refused("[]", "has no JSON object with anything in it");
    }

    #[test]
    fn keys_that_come_late_are_named() {
        let text = "{\"a\":1}\n".repeat(SAMPLE_OBJECTS) + "{\"a\":2,\"b\":3}\n";
        let (header, rows, notes) = read(Box::leak(text.into_boxed_str())).unwrap();
        assert_eq!((header.len(), rows.len()), (1, SAMPLE_OBJECTS + 1));
        assert_eq!(notes, ["Keys that none of the first objects has were not read: b."]);
    }

    #[test]
    fn arrays_and_objects_of_several_lines_are_read_alike() {
        let want = [
            "2: a|4",
            "3! BAD_JSON must be one JSON object: trailing comma at column 8",
            "4: b|",
        ];
        let (header, rows, _) = read("[\n{\"u\":\"a\",\"v\":4},\n{\"u\":1,},\n{\"u\":\"b\"}]").unwrap();
        assert_eq!(
            (header, rows),
            (vec!["u".to_owned(), "v".to_owned()], want.map(str::to_owned).to_vec())
        );
        let (_, rows, _) = read("{\n\"u\": \"a\",\n}\n{\n\"u\": \"b\"\n}").unwrap();
        assert_eq!(
            rows,
            [
                "1! BAD_JSON must be one JSON object: trailing comma at line 3 of the object, column 1",
                "4: b"
            ]
        );
    }

    #[test]
    fn deep_nesting_ends_as_text() {
        let deep = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
        let (header, rows, _) = read(Box::leak(deep.into_boxed_str())).unwrap();
        assert_eq!((header, rows.len()), (vec![["a"; MAX_DEPTH + 1].join(".")], 1));
    }

    #[test]
    fn an_array_within_one_object_is_noticed() {
        let nested = |text: &'static str| {
            JsonObjects::open(Box::new(text.as_bytes()))
                .map(|(_, header)| header.nested)
                .unwrap()
        };
        assert_eq!(
            nested("{\"page\":1,\"data\":{\"orders\":[{\"id\":1}]}}").as_deref(),
            Some("data.orders")
        );
        assert_eq!(nested("{\"lines\":[{}]}\n{\"lines\":[{}]}"), None);
        assert_eq!(nested("{\"tags\":[\"a\"]}"), None);
    }
}
