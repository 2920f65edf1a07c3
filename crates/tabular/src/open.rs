//! Tells the format of an input and reads its header.

mod detect;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use self::detect::{format_of, refuse_other_text};
use crate::csv::records::Records;
use crate::csv::{Delimiter, Dialect};
use crate::encoding::{self, Transcoder};
use crate::error::OpenError;
use crate::header::{looks_like_data, trimmed};
use crate::input::{Decompressed, Input};
use crate::json::JsonObjects;
use crate::option_names::OptionNames;
use crate::parquet_rows::ParquetRows;
use crate::record::{Record, Rows};
use crate::spool::seekable;
use crate::workbook::WorkbookRows;

/// The formats that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Csv,
    /// JSON objects: one on each line, one after the other, or in an array.
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
    /// How many lines of a CSV file or rows of a workbook come before the names of the columns or the first record. Empty ones
    /// do not count.
    pub skip_lines: u32,
    /// The sheet of a workbook. `None`: its first.
    pub sheet: Option<String>,
    /// Most bytes of a Parquet file or workbook that has to be written to a temporary file first. `None`: no limit.
    pub max_spooled_bytes: Option<u64>,
    /// How messages name these options.
    pub names: OptionNames,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            encoding: None,
            dialect: Dialect::default(),
            has_header: true,
            skip_lines: 0,
            sheet: None,
            max_spooled_bytes: None,
            names: OptionNames::default(),
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
    /// The likely encoding of text that is read as UTF-8, but is not.
    pub encoding_guess: Option<&'static str>,
    /// The column of a single JSON object that has an array of objects.
    pub nested: Option<String>,
    pub rows: Box<dyn Rows>,
    /// Counts the bytes that have been read before decompression.
    pub bytes_read: Arc<AtomicU64>,
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
        None => format_of(&opened.head, options.names)?,
    };
    if options.skip_lines > 0 && !matches!(format, Format::Csv | Format::Workbook) {
        let option = options.names.name("--skip-lines");
        let message = format!("has no lines before its columns, but {option} is given");
        return Err(OpenError::Content(message));
    }
    if options.sheet.is_some() && format != Format::Workbook {
        let option = options.names.name("--sheet");
        return Err(OpenError::Content(format!("is no workbook, but {option} is given")));
    }
    match format {
        Format::Csv => open_csv(opened, options),
        Format::JsonLines => {
            let bytes_read = opened.consumed.clone();
            let encoding_guess = encoding_guess(&opened.head, options);
            let (rows, header) = JsonObjects::open(utf8(opened, options)?)?;
            Ok(Source {
                encoding_guess,
                nested: header.nested,
                ..named(format, header.names, Box::new(rows), bytes_read)
            })
        }
        Format::Parquet => {
            let file = seekable(opened.file, opened.reader, options.max_spooled_bytes)?;
            let (rows, header) = ParquetRows::open(file, opened.consumed.clone())?;
            Ok(named(format, header, Box::new(rows), opened.consumed))
        }
        Format::Workbook => {
            let file = seekable(opened.file, opened.reader, options.max_spooled_bytes)?;
            let mut rows = WorkbookRows::open(file, options.sheet.clone(), options.names)?;
            rows.skip(options.skip_lines)?;
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
        encoding_guess: None,
        nested: None,
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
    let encoding_guess = encoding_guess(&head, options);
    let has_old_line_ends = has_old_line_ends(&opened.head);
    let mut text = utf8(opened, options)?;
    if has_old_line_ends {
        text = Box::new(NewLineEnds(text));
    }
    let mut records = Records::new(text, dialect);
    let mut left = u64::from(separator.is_some()) + u64::from(options.skip_lines);
    while left > 0 && records.skip_line()? {
        left -= 1;
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
        return Ok(Source {
            encoding_guess,
            ..named(Format::Csv, numbered(width), Box::new(records), bytes_read)
        });
    }
    let header = match records.next()? {
        None => return Err(OpenError::Empty),
        Some(Err(malformed)) => return Err(OpenError::Header(malformed.message)),
        Some(Ok(record)) => column_names(&record, &head, options.names)?,
    };
    Ok(Source {
        header_looks_like_data: looks_like_data(&header),
        encoding_guess,
        ..named(Format::Csv, header, Box::new(records), bytes_read)
    })
}

fn column_names(header: &Record<'_>, head: &[u8], names: OptionNames) -> Result<Vec<String>, OpenError> {
    let name = |index| match std::str::from_utf8(header.field(index)) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err(OpenError::Encoding {
            guess: encoding::guess(head).unwrap_or("windows-1252"),
            delimiter: likely_delimiter(header),
            names,
        }),
    };
    (0..header.width()).map(name).collect()
}

/// Returns the sign that stands between names that were read as a single one.
fn likely_delimiter(header: &Record<'_>) -> Option<char> {
    let signs = [';', '\t', '|'];
    let sign = signs.into_iter().find(|&sign| header.field(0).contains(&(sign as u8)));
    sign.filter(|_| header.width() == 1)
}

/// Whether lines end with a carriage return alone, as old programs wrote them on the Macintosh.
fn has_old_line_ends(head: &[u8]) -> bool {
    let at = head.iter().position(|&byte| byte == b'\r');
    at.is_some_and(|at| at + 1 < head.len()) && !head.contains(&b'\n')
}

/// Turns carriage returns into line feeds.
struct NewLineEnds<R>(R);

impl<R: Read> Read for NewLineEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        for byte in &mut buffer[..count] {
            if *byte == b'\r' {
                *byte = b'\n';
            }
        }
        Ok(count)
    }
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

/// Returns the likely encoding of text that is read as UTF-8, if it is not.
fn encoding_guess(head: &[u8], options: &ReadOptions) -> Option<&'static str> {
    match options.encoding {
        None => encoding::guess(head),
        Some(_) => None,
    }
}

/// Returns the text of `opened` in UTF-8.
fn utf8(opened: Decompressed, options: &ReadOptions) -> Result<Box<dyn Read + Send>, OpenError> {
    refuse_other_text(&opened.head, options)?;
    let by_mark = encoding::of_mark(&opened.head);
    let encoding = match (&options.encoding, by_mark) {
        (_, Some(encoding)) => encoding,
        (Some(name), None) if encoding::is_utf16(name) => encoding::utf16_without_mark(&opened.head),
        (Some(name), None) => encoding::named(name).ok_or_else(|| OpenError::UnknownEncoding { name: name.clone() })?,
        (None, None) => match encoding::guess(&opened.head) {
            // In other encodings some lines may be readable; a line that is not is rejected for itself.
            Some(guess) if guess.starts_with("UTF-16") => {
                let names = options.names;
                return Err(OpenError::Encoding {
                    guess,
                    delimiter: None,
                    names,
                });
            }
            _ => return Ok(opened.reader),
        },
    };
    match encoding::is_utf8(encoding) {
        true => Ok(opened.reader),
        false => Ok(Box::new(Transcoder::new(opened.reader, encoding))),
    }
}

#[cfg(test)]
mod tests;
