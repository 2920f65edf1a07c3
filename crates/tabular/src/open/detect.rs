//! Tells formats by their first bytes, and names those that cannot be imported.

use super::{Format, ReadOptions};
use crate::encoding;
use crate::error::OpenError;
use crate::option_names::OptionNames;

/// A format that cannot be imported.
struct Other {
    /// Where its mark stands.
    at: usize,
    mark: &'static [u8],
    what: &'static str,
    remedy: &'static str,
    /// The command that writes what can be imported, if one does.
    command: &'static str,
}

const fn other(mark: &'static [u8], what: &'static str, remedy: &'static str, command: &'static str) -> Other {
    Other {
        at: 0,
        mark,
        what,
        remedy,
        command,
    }
}

const DECOMPRESS: &str = "decompress it";
const UNPACK: &str = "unpack it";
const CONVERT: &str = "convert it to Parquet or CSV";
const SAVE: &str = "save it as .xlsx or CSV";

const OTHERS: &[Other] = &[
    Other {
        at: 4,
        ..other(b"1AY&SY", "compressed with bzip2", DECOMPRESS, "bzcat")
    },
    other(b"\xfd7zXZ\0", "compressed with xz", DECOMPRESS, "xzcat"),
    other(b"LZIP", "compressed with lzip", DECOMPRESS, "lzip -dc"),
    other(b"\x04\x22\x4d\x18", "compressed with lz4", DECOMPRESS, "lz4cat"),
    other(b"\x1f\x9d", "compressed with compress", DECOMPRESS, "zcat"),
    other(b"\x1f\x8b", "compressed twice", DECOMPRESS, "zcat"),
    other(b"\x28\xb5\x2f\xfd", "compressed twice", DECOMPRESS, "zstdcat"),
    other(b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK, "7z x -so"),
    other(b"Rar!\x1a\x07", "a RAR archive", UNPACK, ""),
    other(b"PK\x05\x06", "an empty ZIP archive", "pack it again", ""),
    Other {
        at: 257,
        ..other(b"ustar", "a tar archive", UNPACK, "tar -xOf")
    },
    other(
        b"\xd0\xcf\x11\xe0",
        "an Excel workbook of the old kind, or one with a password",
        "save it as .xlsx without a password",
        "",
    ),
    other(b"PARE", "an encrypted Parquet file", "decrypt it", ""),
    other(b"Obj\x01", "an Avro file", CONVERT, ""),
    other(b"ORC", "an ORC file", CONVERT, ""),
    other(b"ARROW1\0\0", "an Arrow or Feather file", CONVERT, ""),
    other(b"\xff\xff\xff\xff", "a stream of Arrow", CONVERT, ""),
    other(b"\x89HDF\r\n", "an HDF5 file", CONVERT, ""),
    other(b"\x93NUMPY", "a file of NumPy", CONVERT, ""),
    other(b"SQLite format 3\0", "a database of SQLite", EXPORT, ""),
    other(b"-- MySQL dump", DUMP, EXPORT, ""),
    other(b"-- MariaDB dump", DUMP, EXPORT, ""),
    other(b"--\n-- PostgreSQL database dump", DUMP, EXPORT, ""),
    other(b"PGDMP", DUMP, EXPORT, ""),
    other(b"RDX2\n", "a file of R", "write it with write.csv", ""),
    other(b"RDX3\n", "a file of R", "write it with write.csv", ""),
    other(b"X\n\0\0\0", "a file of R", "write it with write.csv", ""),
    other(b"%PDF-", "a PDF file", "export the table as .xlsx or CSV", ""),
    other(b"<?xml", "an XML file", SAVE, ""),
    other(b"<!DOCTYPE", "an HTML page", SAVE, ""),
    other(b"<html", "an HTML page", SAVE, ""),
    other(b"<table", "an HTML page", SAVE, ""),
    other(
        b"\xff\xfe\0\0",
        "text in UTF-32",
        "convert it to UTF-8",
        "iconv -f UTF-32 -t UTF-8",
    ),
    other(
        b"\0\0\xfe\xff",
        "text in UTF-32",
        "convert it to UTF-8",
        "iconv -f UTF-32 -t UTF-8",
    ),
];

const DUMP: &str = "a dump of a database";
const EXPORT: &str = "export its table as CSV";

const PYTHON_OBJECTS: Other = other(
    b"{'",
    "not JSON but the notation of Python, with single quotes",
    "write it as JSON",
    "python3 -c 'import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]' <",
);

const EBCDIC: Other = other(b"", "text in EBCDIC", "convert it to UTF-8", "iconv -f IBM037 -t UTF-8");

/// Tells the format of an input by its first bytes.
///
/// # Errors
/// [`OpenError::Format`] names a format that cannot be imported, and says what to do.
pub(super) fn format_of(head: &[u8], names: OptionNames) -> Result<Format, OpenError> {
    match head {
        [b'P', b'A', b'R', b'1', ..] => return Ok(Format::Parquet),
        [b'P', b'K', 3, 4, ..] => return Ok(Format::Workbook),
        _ => {}
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let is_marked = |other: &&Other| {
        let marked = if other.mark.starts_with(b"<") { text } else { head };
        let mark = marked.get(other.at..other.at + other.mark.len());
        // The name of a column may begin with the same few letters.
        let is_telling =
            other.mark.len() > 4 || !other.mark.iter().all(u8::is_ascii_graphic) || has_many_controls(head);
        mark.is_some_and(|mark| mark.eq_ignore_ascii_case(other.mark)) && is_telling
    };
    if let Some(other) = OTHERS.iter().find(is_marked) {
        return Err(unreadable(other, names));
    }
    match text {
        [b'{', rest @ ..] if rest.trim_ascii_start().starts_with(b"'") => Err(unreadable(&PYTHON_OBJECTS, names)),
        [b'{', ..] => Ok(Format::JsonLines),
        [b'[', rest @ ..] if rest.trim_ascii_start().starts_with(b"{") || rest.trim_ascii() == b"]" => {
            Ok(Format::JsonLines)
        }
        _ => Ok(Format::Csv),
    }
}

/// Refuses bytes that are no text, or text in an encoding that is no option.
///
/// # Errors
/// [`OpenError::Format`] or [`OpenError::Content`].
pub(super) fn refuse_other_text(head: &[u8], options: &ReadOptions) -> Result<(), OpenError> {
    if options.encoding.is_some() {
        return Ok(());
    }
    match encoding::guess(head) {
        Some(guess) if guess.starts_with("UTF-16") => Ok(()),
        Some(_) if is_ebcdic(head) => Err(unreadable(&EBCDIC, options.names)),
        _ if has_many_controls(head) => Err(OpenError::Content(
            "is no text, and none of the formats that can be imported: CSV, JSON, Parquet and .xlsx".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Returns whether text that is not UTF-8 has the commas or line ends of EBCDIC, and none of ASCII.
fn is_ebcdic(head: &[u8]) -> bool {
    let count = |is: fn(u8) -> bool| head.iter().filter(|&&byte| is(byte)).count();
    let n_letters = count(|byte| byte >= 0x80);
    let n_ascii = count(|byte| matches!(byte, b'\n' | b'\r' | b',' | b';' | b'\t'));
    3 * n_letters > head.len() && n_ascii == 0 && count(|byte| matches!(byte, 0x15 | 0x25 | 0x6b)) > 0
}

/// Returns whether more than one byte in twenty is a control character that no text has. Fewer are damage of single lines.
fn has_many_controls(head: &[u8]) -> bool {
    let is_control = |byte: u8| matches!(byte, 0..=8 | 14..=25 | 28..=31);
    20 * head.iter().filter(|&&byte| is_control(byte)).count() > head.len()
}

fn unreadable(other: &Other, names: OptionNames) -> OpenError {
    // Only a command reads what another one writes.
    let remedy = match names {
        OptionNames::Arguments if !other.command.is_empty() => {
            format!("{}: {} FILE | likemind import KIND -", other.remedy, other.command)
        }
        OptionNames::Arguments | OptionNames::Fields => other.remedy.to_owned(),
    };
    OpenError::Format {
        what: other.what,
        remedy,
    }
}
