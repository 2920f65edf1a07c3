//! Tells the format of an input and reads its header.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::csv::records::Records;
use crate::csv::{Delimiter, Dialect};
use crate::encoding::{self, Transcoder};
use crate::header::{looks_like_data, trimmed};
use crate::input::{Decompressed, Input};
use crate::json_lines::JsonLines;
use crate::parquet_rows::ParquetRows;
use crate::record::{Record, Rows};
use crate::spool::seekable;
use crate::workbook::WorkbookRows;

/// The formats that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Csv,
    /// One JSON object on each line.
    JsonLines,
    Parquet,
    /// An Excel workbook, `.xlsx`.
    Workbook,
}

/// How a file is read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// `None`: the first bytes tell the format.
    pub format: Option<Format>,
    /// The name of the encoding of text. `None`: UTF-8, or UTF-16 with a byte order mark.
    pub encoding: Option<String>,
    pub dialect: Dialect,
    /// Whether the first record of a CSV file or workbook has the names of the columns. Without them the columns are called
    /// 1, 2, 3 and so on.
    pub has_header: bool,
    /// The sheet of a workbook. `None`: its first.
    pub sheet: Option<String>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            encoding: None,
            dialect: Dialect::default(),
            has_header: true,
            sheet: None,
        }
    }
}

/// An input whose format is known and whose header has been read.
pub struct Source {
    pub format: Format,
    /// The names of the columns, without the blanks around them.
    pub header: Vec<String>,
    /// Whether the names stand in the first line of the file, but look like data.
    pub header_looks_like_data: bool,
    pub rows: Box<dyn Rows>,
    /// Counts the bytes that have been read before decompression.
    pub bytes_read: Arc<AtomicU64>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot be read")]
    Read(#[from] io::Error),
    #[error("is {what}, which cannot be imported; {remedy}")]
    Format { what: &'static str, remedy: &'static str },
    #[error("is not text in UTF-8; it looks like {guess}: add --encoding {guess}")]
    Encoding { guess: &'static str },
    #[error(
        "cannot be read in the encoding {name:?}, which is not known; known are utf-8, utf-16le, latin1, windows-1251, shift_jis and the others of the WHATWG standard"
    )]
    UnknownEncoding { name: String },
    #[error("is empty, but must have a first line with the names of its columns")]
    Empty,
    #[error("has a malformed header line: {0}")]
    Header(String),
    #[error("{0}")]
    Content(String),
}

/// Opens `input`.
///
/// # Errors
/// [`OpenError`] says what is wrong with the beginning of the input; its text continues a sentence that begins with the
/// input's name.
pub fn open(input: Input, options: &ReadOptions) -> Result<Source, OpenError> {
    let opened = input.decompressed()?;
    let format = match options.format {
        Some(format) => format,
        None => format_of(&opened.head)?,
    };
    match format {
        Format::Csv => open_csv(opened, options),
        Format::JsonLines => {
            let bytes_read = opened.consumed.clone();
            let (rows, header) = JsonLines::open(utf8(opened, options)?)?;
            Ok(named(format, header, Box::new(rows), bytes_read))
        }
        Format::Parquet => {
            let file = seekable(opened.file, opened.reader)?;
            let (rows, header) = ParquetRows::open(file, opened.consumed.clone())?;
            Ok(named(format, header, Box::new(rows), opened.consumed))
        }
        Format::Workbook => {
            let file = seekable(opened.file, opened.reader)?;
            let mut rows = WorkbookRows::open(file, options.sheet.clone())?;
            let header = match options.has_header {
                true => rows.header()?,
                false => numbered(rows.n_columns()),
            };
            let looks_like_data = options.has_header && looks_like_data(&header);
            Ok(Source {
                header_looks_like_data: looks_like_data,
                ..named(format, header, Box::new(rows), opened.consumed)
            })
        }
    }
}

fn named(format: Format, header: Vec<String>, rows: Box<dyn Rows>, bytes_read: Arc<AtomicU64>) -> Source {
    Source {
        format,
        header: header.iter().map(|name| trimmed(name).to_owned()).collect(),
        header_looks_like_data: false,
        rows,
        bytes_read,
    }
}

fn numbered(width: usize) -> Vec<String> {
    (1..=width).map(|number| number.to_string()).collect()
}

fn open_csv(opened: Decompressed, options: &ReadOptions) -> Result<Source, OpenError> {
    let bytes_read = opened.consumed.clone();
    let separator = separator_line(&opened.head);
    let mut dialect = options.dialect.clone();
    if let Some(byte) = separator {
        dialect.delimiter = Delimiter::Byte(byte);
    }
    let head = opened.head.clone();
    let mut records = Records::new(utf8(opened, options)?, dialect);
    if separator.is_some() {
        records.skip_line()?;
    }
    if !options.has_header {
        let width = match records.peek_width()? {
            Some(width) => width,
            None => {
                return Err(OpenError::Content(
                    "is empty, but must have at least one line".to_owned(),
                ));
            }
        };
        return Ok(named(Format::Csv, numbered(width), Box::new(records), bytes_read));
    }
    let header = match records.next()? {
        None => return Err(OpenError::Empty),
        Some(Err(malformed)) => return Err(OpenError::Header(malformed.message)),
        Some(Ok(record)) => column_names(&record, &head)?,
    };
    Ok(Source {
        header_looks_like_data: looks_like_data(&header),
        ..named(Format::Csv, header, Box::new(records), bytes_read)
    })
}

fn column_names(header: &Record<'_>, head: &[u8]) -> Result<Vec<String>, OpenError> {
    let name = |index| match std::str::from_utf8(header.field(index)) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err(OpenError::Encoding {
            guess: encoding::guess(head).unwrap_or("windows-1252"),
        }),
    };
    (0..header.width()).map(name).collect()
}

/// Returns the delimiter that a first line such as `sep=;` names. Excel writes and reads such lines.
fn separator_line(head: &[u8]) -> Option<u8> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let head = head.strip_prefix(b"\"").unwrap_or(head);
    let (&byte, rest) = head.strip_prefix(b"sep=")?.split_first()?;
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let is_line = rest.is_empty() || rest.starts_with(b"\n") || rest.starts_with(b"\r\n");
    (is_line && byte.is_ascii() && byte != b'\n' && byte != b'\r').then_some(byte)
}

/// Returns the text of `opened` in UTF-8.
fn utf8(opened: Decompressed, options: &ReadOptions) -> Result<Box<dyn Read + Send>, OpenError> {
    let by_mark = encoding::of_mark(&opened.head);
    let encoding = match (&options.encoding, by_mark) {
        (_, Some(encoding)) => encoding,
        (Some(name), None) => encoding::named(name).ok_or_else(|| OpenError::UnknownEncoding { name: name.clone() })?,
        (None, None) => match encoding::guess(&opened.head) {
            // In other encodings some lines may be readable; a line that is not is rejected for itself.
            Some(guess) if guess.starts_with("UTF-16") => return Err(OpenError::Encoding { guess }),
            _ => return Ok(opened.reader),
        },
    };
    match encoding::is_utf8(encoding) {
        true => Ok(opened.reader),
        false => Ok(Box::new(Transcoder::new(opened.reader, encoding))),
    }
}

fn format_of(head: &[u8]) -> Result<Format, OpenError> {
    let unreadable = |what, remedy| Err(OpenError::Format { what, remedy });
    match head {
        [b'P', b'A', b'R', b'1', ..] => return Ok(Format::Parquet),
        [b'P', b'K', 3, 4, ..] => return Ok(Format::Workbook),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            return unreadable(
                "compressed with bzip2",
                "decompress it: bzcat FILE | likemind import KIND -",
            );
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            return unreadable(
                "compressed with xz",
                "decompress it: xzcat FILE | likemind import KIND -",
            );
        }
        [0xd0, 0xcf, 0x11, 0xe0, ..] => {
            return unreadable(
                "an Excel workbook of the old kind, or one with a password",
                "save it as .xlsx without a password",
            );
        }
        _ => {}
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match text {
        [b'{', ..] => Ok(Format::JsonLines),
        [b'[', rest @ ..] if rest.trim_ascii_start().starts_with(b"{") => unreadable(
            "one JSON array",
            "write one object on each line: jq -c '.[]' FILE | likemind import KIND -",
        ),
        _ => Ok(Format::Csv),
    }
}

#[cfg(test)]
mod tests;
