//! Rows of a file, whatever its format.

use std::borrow::Cow;
use std::io;

/// The greatest length of a record, in bytes.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// One row of cells.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The line on which it begins, from 1; in formats without lines, the number of the row.
    pub line: u64,
    /// The record as it stands in the file, without the line end. `None` in formats that are not text.
    pub(crate) raw: Option<&'a [u8]>,
    /// The cells, one after the other.
    pub(crate) bytes: &'a [u8],
    /// Where each cell ends in `bytes`.
    pub(crate) ends: &'a [usize],
    /// The text that the rules for cells have made of each cell, `None` for a cell as it was; empty if there are no rules.
    pub(crate) changed: &'a [Option<String>],
}

impl<'a> Record<'a> {
    /// Returns a cell. `index` must be below the width.
    pub fn field(&self, index: usize) -> &'a [u8] {
        match self.changed.get(index) {
            Some(Some(text)) => text.as_bytes(),
            _ => self.original(index),
        }
    }

    /// Returns a cell as the file has it, before any rule.
    pub(crate) fn original(&self, index: usize) -> &'a [u8] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[index]]
    }

    pub fn width(&self) -> usize {
        self.ends.len()
    }

    /// Returns the record as it stands in the file, with invalid UTF-8 replaced. A row of a format that is not text is
    /// written as a line of CSV.
    pub fn text(&self) -> Cow<'a, str> {
        if let Some(raw) = self.raw {
            return String::from_utf8_lossy(raw);
        }
        let cells = (0..self.width()).map(|index| {
            let cell = String::from_utf8_lossy(self.original(index));
            match cell.contains([',', '"', '\n', '\r']) {
                true => Cow::Owned(format!("\"{}\"", cell.replace('"', "\"\""))),
                false => cell,
            }
        });
        Cow::Owned(cells.collect::<Vec<_>>().join(","))
    }

    /// Returns the length of its cells in bytes, or of its text.
    pub fn length(&self) -> usize {
        self.raw.map_or(self.bytes.len(), <[u8]>::len)
    }
}

/// A line that is not a record of the file's width.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed<'a> {
    pub line: u64,
    pub raw: &'a [u8],
    /// A stable code in upper snake case.
    pub reason: &'static str,
    pub message: String,
}

/// The rows of a source, from first to last.
pub trait Rows: Send {
    /// Returns the next record that is not empty, or `None` at the end.
    ///
    /// # Errors
    /// The rest of the file cannot be read.
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Malformed<'_>>>>;

    /// Returns what a user should know about the rows read so far, as sentences.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The cells of a row that is put together cell by cell.
#[derive(Debug, Default)]
pub(crate) struct RowBuffer {
    pub bytes: Vec<u8>,
    pub ends: Vec<usize>,
}

impl RowBuffer {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Ends the cell that has been written to `bytes`.
    pub fn end_cell(&mut self) {
        self.ends.push(self.bytes.len());
    }

    pub fn push(&mut self, cell: &str) {
        self.bytes.extend_from_slice(cell.as_bytes());
        self.end_cell();
    }

    pub fn record<'a>(&'a self, line: u64, raw: Option<&'a [u8]>) -> Record<'a> {
        Record {
            line,
            raw,
            bytes: &self.bytes,
            ends: &self.ends,
            changed: &[],
        }
    }
}
