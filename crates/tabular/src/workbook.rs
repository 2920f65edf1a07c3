//! Reads a sheet of an Excel workbook row by row. Only the texts that the workbook keeps apart from its sheets are in memory
//! as a whole.

use std::fs::File;
use std::io::{self, BufReader};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use calamine::{DataRef, ExcelDateTime, Reader, SheetVisible, Xlsx, XlsxError};

use crate::error::OpenError;
use crate::option_names::OptionNames;
use crate::record::{MAX_RECORD_BYTES, Malformed, Record, RowBuffer, Rows};

/// The greatest size of the texts that a workbook keeps apart from its sheets.
const MAX_SHARED_BYTES: u64 = 256 << 20;

/// No sheet has more columns.
const MAX_COLUMNS: usize = 16_384;

const ROWS_AHEAD: usize = 256;

/// A row with anything in it: its number, from 1, and its cells.
type SheetRow = (u64, Vec<String>);

pub(crate) struct WorkbookRows {
    rows: Receiver<Result<SheetRow, String>>,
    first: Option<SheetRow>,
    width: usize,
    row: RowBuffer,
    /// The beginning of a row that was rejected, as CSV.
    excerpt: String,
    /// The sheets with anything in them that are not read, if none was asked for.
    other_sheets: Vec<String>,
    names: OptionNames,
}

impl WorkbookRows {
    /// Opens the sheet called `sheet`, or the first that is not hidden.
    pub fn open(file: File, sheet: Option<String>, option_names: OptionNames) -> Result<Self, OpenError> {
        check_size(&file)?;
        let mut workbook: Xlsx<_> = Xlsx::new(BufReader::new(file))
            .map_err(|error| OpenError::Content(format!("is no Excel workbook that can be read: {error}")))?;
        let names = workbook.sheet_names();
        let visible = |workbook: &Xlsx<_>| {
            let mut sheets = workbook.sheets_metadata().iter();
            sheets
                .find(|sheet| sheet.visible == SheetVisible::Visible)
                .map(|sheet| sheet.name.clone())
        };
        let is_chosen = sheet.is_some();
        let name = match sheet {
            None => visible(&workbook)
                .or_else(|| names.first().cloned())
                .ok_or_else(|| OpenError::Content("has no sheet".to_owned()))?,
            Some(sheet) if names.contains(&sheet) => sheet,
            Some(sheet) => {
                let names = names.join(", ");
                return Err(OpenError::Content(format!(
                    "has no sheet {sheet:?}; its sheets are {names}"
                )));
            }
        };
        let other_sheets = match is_chosen {
            true => Vec::new(),
            false => other_sheets(&mut workbook, &names, &name),
        };
        let (sender, rows) = sync_channel(ROWS_AHEAD);
        // The reader of cells borrows the workbook, so both live in a thread.
        std::thread::spawn(move || {
            if let Err(error) = send_rows(&mut workbook, &name, &sender) {
                // Nobody receives after an import that has ended early.
                let _ = sender.send(Err(format!("the sheet {name:?} cannot be read: {error}")));
            }
        });
        let mut rows = Self {
            rows,
            first: None,
            width: 0,
            row: RowBuffer::default(),
            excerpt: String::new(),
            other_sheets,
            names: option_names,
        };
        rows.first = rows.receive()?;
        match &rows.first {
            None => return Err(OpenError::Empty),
            Some((_, cells)) => rows.width = cells.len(),
        }
        Ok(rows)
    }

    /// Skips rows at the beginning.
    pub fn skip(&mut self, count: u32) -> Result<(), OpenError> {
        for _ in 0..count {
            self.first = self.receive()?;
            self.width = self.first.as_ref().ok_or(OpenError::Empty)?.1.len();
        }
        Ok(())
    }

    /// Takes the first row as the names of the columns.
    pub fn header(&mut self) -> Result<Vec<String>, OpenError> {
        self.first.take().map(|(_, names)| names).ok_or(OpenError::Empty)
    }

    pub fn n_columns(&self) -> usize {
        self.width
    }

    fn receive(&mut self) -> io::Result<Option<SheetRow>> {
        match self.rows.recv() {
            Ok(Ok(row)) => Ok(Some(row)),
            Ok(Err(problem)) => Err(io::Error::new(io::ErrorKind::InvalidData, problem)),
            Err(_) => Ok(None),
        }
    }
}

impl Rows for WorkbookRows {
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Malformed<'_>>>> {
        let next = match self.first.take() {
            Some(row) => Some(row),
            None => self.receive()?,
        };
        let Some((line, cells)) = next else { return Ok(None) };
        self.row.clear();
        for cell in cells
            .iter()
            .map(String::as_str)
            .chain(std::iter::repeat(""))
            .take(self.width)
        {
            self.row.push(cell);
        }
        let (width, found) = (self.width, cells.len());
        if found > width || self.row.bytes.len() > MAX_RECORD_BYTES {
            self.row.clear();
            cells.iter().for_each(|cell| self.row.push(cell));
            self.excerpt = self.row.record(line, None).text().chars().take(1024).collect();
            let (reason, message) = match found > width {
                true => (
                    "WRONG_FIELD_COUNT",
                    format!("must have at most {width} cells like the first row, has {found}"),
                ),
                false => (
                    "RECORD_TOO_LONG",
                    format!("must have at most {MAX_RECORD_BYTES} bytes of text; only its beginning is shown"),
                ),
            };
            return Ok(Some(Err(Malformed {
                line,
                raw: self.excerpt.as_bytes(),
                reason,
                message,
            })));
        }
        Ok(Some(Ok(self.row.record(line, None))))
    }

    fn notes(&self) -> Vec<String> {
        if self.other_sheets.is_empty() {
            return Vec::new();
        }
        let (sheets, option) = (self.other_sheets.join(", "), self.names.name("--sheet"));
        vec![format!(
            "The workbook has other sheets, which were not read: {sheets}. Import each of them with {option}."
        )]
    }
}

/// Returns the sheets but `read` that have anything in them and are not hidden.
fn other_sheets(workbook: &mut Xlsx<BufReader<File>>, names: &[String], read: &str) -> Vec<String> {
    const MAX_SHEETS: usize = 20;
    let hidden: Vec<String> = (workbook.sheets_metadata().iter())
        .filter(|sheet| sheet.visible != SheetVisible::Visible)
        .map(|sheet| sheet.name.clone())
        .collect();
    let others = names.iter().filter(|name| *name != read && !hidden.contains(name));
    let mut has_cells = |name: &&String| {
        let reader = workbook.worksheet_cells_reader(name);
        reader.is_ok_and(|mut reader| matches!(reader.next_cell(), Ok(Some(_))))
    };
    others
        .take(MAX_SHEETS)
        .filter(|name| has_cells(name))
        .cloned()
        .collect()
}

/// Refuses a workbook whose texts would not fit into memory, or that is another kind of ZIP archive.
fn check_size(file: &File) -> Result<(), OpenError> {
    let content = |text: String| OpenError::Content(text);
    let mut archive = zip::ZipArchive::new(BufReader::new(file))
        .map_err(|error| content(format!("is no Excel workbook that can be read: {error}")))?;
    if archive.index_for_name("xl/workbook.xml").is_none() {
        let is_other = |entry| archive.index_for_name(entry).is_some();
        let problem = match (is_other("xl/workbook.bin"), is_other("content.xml")) {
            (true, _) => "is a binary Excel workbook: save it as .xlsx",
            (_, true) => "is an OpenDocument file: save it as .xlsx or CSV",
            _ => "is a ZIP archive, but no Excel workbook: unpack it first",
        };
        return Err(content(problem.to_owned()));
    }
    for index in 0..archive.len() {
        let entry = archive
            .by_index_raw(index)
            .map_err(|error| content(format!("is no Excel workbook that can be read: {error}")))?;
        let is_sheet = entry.name().is_ok_and(|name| name.starts_with("xl/worksheets/"));
        if !is_sheet && entry.size() > MAX_SHARED_BYTES {
            return Err(content(format!(
                "has {} MB of text outside of its sheets, and at most {} can be read: save the sheet as CSV",
                entry.size() >> 20,
                MAX_SHARED_BYTES >> 20
            )));
        }
    }
    Ok(())
}

/// Sends the rows of a sheet that have anything in them.
fn send_rows(
    workbook: &mut Xlsx<BufReader<File>>,
    sheet: &str,
    rows: &SyncSender<Result<SheetRow, String>>,
) -> Result<(), XlsxError> {
    let mut reader = workbook.worksheet_cells_reader(sheet)?;
    let mut row: SheetRow = (0, Vec::new());
    while let Some(cell) = reader.next_cell()? {
        let (index, column) = cell.get_position();
        let text = text(cell.get_value());
        if text.is_empty() || column as usize >= MAX_COLUMNS {
            continue;
        }
        let number = u64::from(index) + 1;
        if number != row.0 {
            let full = std::mem::replace(&mut row, (number, Vec::new()));
            if !full.1.is_empty() && rows.send(Ok(full)).is_err() {
                return Ok(());
            }
        }
        if row.1.len() <= column as usize {
            row.1.resize(column as usize + 1, String::new());
        }
        row.1[column as usize] = text;
    }
    if !row.1.is_empty() {
        let _ = rows.send(Ok(row));
    }
    Ok(())
}

fn text(value: &DataRef<'_>) -> String {
    match value {
        DataRef::Empty => String::new(),
        DataRef::Int(number) => number.to_string(),
        // Excel has no integers; up to 2^53 a number without fraction is one.
        DataRef::Float(number) => number.to_string(),
        DataRef::String(text) => text.clone(),
        DataRef::SharedString(text) => (*text).to_owned(),
        DataRef::Bool(value) => value.to_string(),
        DataRef::DateTime(moment) => moment_text(moment),
        DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::Error(error) => error.to_string(),
    }
}

/// Returns a whole day as a date, less than a day as a time of the day, and every other moment as both, so that a date and a
/// time of two columns can be put together.
fn moment_text(moment: &ExcelDateTime) -> String {
    const SECONDS_PER_DAY: f64 = 86_400.0;
    let days = moment.as_f64();
    if (0.0..1.0).contains(&days) {
        let seconds = (days * SECONDS_PER_DAY).round() as u32;
        return format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    match moment.as_datetime() {
        _ if moment.is_duration() => days.to_string(),
        Some(local) if days.fract() == 0.0 => local.format("%Y-%m-%d").to_string(),
        Some(local) => local.format("%Y-%m-%dT%H:%M:%S%.f").to_string(),
        None => days.to_string(),
    }
}
