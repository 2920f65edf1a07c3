//! Reads the file into batches, in a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use tokio::sync::mpsc;

use domain::error::InvalidField;
use tabular::cells::CellChanger;
use tabular::error::OpenError;
use tabular::input::Input;
use tabular::open::{Format, Source, open as open_source};
use tabular::record::{Malformed, Record, Rows};

use super::columns::{Columns, FileFacts};
use super::conclusion::{Conclusion, FileNotes};
use super::findings::Findings;
use super::kinds::{RecordKind, Rules};
use super::numbers::NumberFormat;
use super::other_problems::OtherProblems;
use super::rejects::{MAX_MESSAGE_CHARS, Reject};
use super::times::TimeFormats;
use super::{ImportError, ImportOptions, JUDGED_LINES};

/// Consecutive lines of the file.
pub(super) struct Batch<V> {
    pub values: Vec<V>,
    pub n_values: usize,
    /// The line of each value if the store may refuse it; otherwise empty.
    pub origins: Vec<Origin>,
    pub rejects: Vec<Reject>,
    /// How many records a filter has left out.
    pub filtered: u64,
    pub last_line: u64,
    /// How much of the file, before decompression, was read up to the end of this batch or somewhat beyond.
    pub bytes_read: u64,
}

impl<V> Batch<V> {
    fn new(lines: usize) -> Self {
        Self {
            values: Vec::with_capacity(lines),
            n_values: 0,
            origins: Vec::new(),
            rejects: Vec::new(),
            filtered: 0,
            last_line: 0,
            bytes_read: 0,
        }
    }

    /// Ends the batch and returns the next one, or `None` where it cannot end here. Where values are grouped, the last one must
    /// start a group, and goes into the next batch.
    fn cut<K: RecordKind<Value = V>>(&mut self, batch_lines: usize) -> Option<Self> {
        let mut next = Self::new(batch_lines);
        if K::IS_GROUPED && self.n_values > 0 {
            if self.n_values == 1 || !self.values.last().is_some_and(K::starts_group) {
                return None;
            }
            next.values.extend(self.values.pop());
            next.origins.extend(self.origins.pop());
            (next.n_values, next.last_line) = (1, self.last_line);
            self.n_values -= 1;
            self.last_line = next.origins.first().map_or(self.last_line, |origin| origin.line - 1);
        }
        Some(next)
    }
}

/// The line that a value was read from.
pub(super) struct Origin {
    line: u64,
    record: String,
}

impl Origin {
    pub fn reject(self, error: InvalidField) -> Reject {
        rejected(self.line, self.record, error)
    }
}

pub(super) enum FromReader<V> {
    /// The header has been read and has the required columns.
    Opened,
    /// The file or its header cannot be imported.
    Refused(ImportError),
    Batch(Batch<V>),
    /// The rest of the file cannot be read.
    Broken(io::Error),
    /// More lines than `max_rejects` were rejected. The last of them ends the batch before this.
    TooManyRejects {
        max: u64,
    },
    End,
}

/// The number of batches read ahead of the one that is stored.
const BATCHES_AHEAD: usize = 1;

/// The greatest amount of text in one batch, so that long records do not make large batches.
const BATCH_BYTES: usize = 8 << 20;

/// Reads `input` in a thread of its own. The thread may go on waiting for standard input after the import has ended.
///
/// `conclusion` is kept up to date with the batches.
pub(super) fn read_ahead<K: RecordKind>(
    input: Input,
    options: &ImportOptions,
    conclusion: Arc<Mutex<Conclusion>>,
) -> mpsc::Receiver<FromReader<K::Value>> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let options = options.clone();
    std::thread::spawn(move || {
        let last = match open::<K>(input, &options, conclusion) {
            Err(error) => FromReader::Refused(error),
            Ok(file) => {
                if sender.blocking_send(FromReader::Opened).is_err() {
                    return;
                }
                match file.read(options.batch_lines(), options.max_rejects, &sender) {
                    Ok(End::File) => FromReader::End,
                    Ok(End::TooManyRejects { max }) => FromReader::TooManyRejects { max },
                    Err(error) => FromReader::Broken(error),
                }
            }
        };
        // Sending fails only after an interrupted import, when nobody receives.
        let _ = sender.blocking_send(last);
    });
    receiver
}

/// A file whose header has been read and understood.
struct OpenFile<K> {
    rows: Box<dyn Rows>,
    changer: Option<CellChanger>,
    bytes_read: Arc<AtomicU64>,
    kind: K,
    findings: Findings,
    notes: FileNotes,
    other_problems: OtherProblems,
    conclusion: Arc<Mutex<Conclusion>>,
}

fn open<K: RecordKind>(
    input: Input,
    options: &ImportOptions,
    conclusion: Arc<Mutex<Conclusion>>,
) -> Result<OpenFile<K>, ImportError> {
    let name = input.name.clone();
    let source = open_source(input, &options.read).map_err(|error| match error {
        OpenError::Read(source) => unreadable(name.clone(), source),
        error => ImportError::Unsuitable {
            name: name.clone(),
            problem: error.to_string(),
        },
    })?;
    let Source {
        format,
        header,
        header_looks_like_data,
        encoding_guess,
        nested,
        rows,
        bytes_read,
    } = source;
    let changer = CellChanger::new(&options.cells, &header, options.read.names).map_err(ImportError::Rules)?;
    let times = Arc::new(times(&options.times, format));
    let rules = Rules {
        scale: options.scale,
        times: times.clone(),
        numbers: NumberFormat {
            names: options.read.names,
            ..options.numbers
        },
        now: Utc::now(),
    };
    let facts = FileFacts {
        encoding_guess,
        nested,
        ..FileFacts::new(format, options.read.names)
    };
    let mut columns = Columns::new(header, K::FIELDS, &options.column_map, facts)?;
    let kind = K::new(&mut columns, &rules)?;
    Ok(OpenFile {
        rows,
        changer,
        bytes_read,
        kind,
        findings: Findings::default(),
        other_problems: OtherProblems::new(columns.take_probes()),
        notes: FileNotes {
            times,
            id_doubts: columns.id_doubts(),
            undated: columns.undated(),
            taken_by_name: columns.taken_by_name(),
            header_looks_like_data,
            names: options.read.names,
        },
        conclusion,
    })
}

/// Returns the formats of times for a file. In formats that have times of their own, these are ISO 8601.
fn times(times: &TimeFormats, format: Format) -> TimeFormats {
    match format {
        Format::Csv | Format::JsonLines => times.afresh(),
        Format::Parquet | Format::Workbook => times.with_iso(),
    }
}

pub(super) fn unreadable(name: String, source: io::Error) -> ImportError {
    ImportError::Unreadable { name, source }
}

/// How the lines of a file ended.
enum End {
    File,
    TooManyRejects { max: u64 },
}

impl<K: RecordKind> OpenFile<K> {
    /// Sends the records in batches, until the file ends, too many are rejected, or nobody receives.
    fn read(
        mut self,
        batch_lines: usize,
        max_rejects: Option<u64>,
        sender: &mpsc::Sender<FromReader<K::Value>>,
    ) -> io::Result<End> {
        // The first batch has the lines that are judged before anything is stored.
        let mut limit = batch_lines.min(JUDGED_LINES as usize);
        let mut batch = Batch::new(limit);
        let (mut bytes, mut rejected) = (0, 0);
        loop {
            let rejects = batch.rejects.len();
            let length = match self.read_record(&mut batch) {
                Ok(Some(length)) => length,
                end => {
                    // If nobody receives any more, the next send notices.
                    let _ = self.send(batch, sender);
                    return end.map(|_| End::File);
                }
            };
            bytes += length;
            rejected += (batch.rejects.len() - rejects) as u64;
            if let Some(max) = max_rejects.filter(|max| rejected > *max) {
                let _ = self.send(batch, sender);
                return Ok(End::TooManyRejects { max });
            }
            let lines = batch.values.len() + batch.rejects.len();
            // A filter may leave out any number of records.
            if lines >= limit || bytes >= BATCH_BYTES || batch.filtered >= 10 * limit as u64 {
                let Some(next) = batch.cut::<K>(batch_lines) else {
                    continue;
                };
                (bytes, limit) = (0, batch_lines);
                let full = std::mem::replace(&mut batch, next);
                if self.send(full, sender).is_err() {
                    return Ok(End::File);
                }
            }
        }
    }

    /// Adds the next record, or the reason why it is rejected, to `batch`. Returns its length in bytes, or `None` at the
    /// end of the file.
    fn read_record(&mut self, batch: &mut Batch<K::Value>) -> io::Result<Option<usize>> {
        let record = match self.rows.next()? {
            None => return Ok(None),
            Some(Err(malformed)) => {
                batch.last_line = malformed.line;
                let length = malformed.raw.len();
                batch.rejects.push(malformed_line(malformed));
                self.kind.malformed();
                return Ok(Some(length));
            }
            Some(Ok(record)) => record,
        };
        let (line, length) = (record.line, record.length());
        batch.last_line = line;
        let record = match &mut self.changer {
            None => record,
            Some(changer) => match changer.apply(record) {
                Some(record) => record,
                None => {
                    batch.filtered += 1;
                    return Ok(Some(length));
                }
            },
        };
        match self.kind.read(&record) {
            Ok(value) => {
                K::observe(&value, &mut self.findings);
                batch.values.push(value);
                batch.n_values += 1;
                if K::MAY_BE_REFUSED {
                    let record = text(&record);
                    batch.origins.push(Origin { line, record });
                }
            }
            Err(error) => {
                self.other_problems.look(line, &record, &error);
                batch.rejects.push(rejected(line, text(&record), error));
            }
        }
        Ok(Some(length))
    }

    fn send(
        &self,
        mut batch: Batch<K::Value>,
        sender: &mpsc::Sender<FromReader<K::Value>>,
    ) -> Result<(), mpsc::error::SendError<FromReader<K::Value>>> {
        let mut notes = self.rows.notes();
        notes.extend(self.other_problems.sentences());
        let conclusion = self.notes.conclusion(&self.findings, notes);
        *self.conclusion.lock().unwrap_or_else(PoisonError::into_inner) = conclusion;
        if batch.values.is_empty() && batch.rejects.is_empty() && batch.filtered == 0 {
            return Ok(());
        }
        batch.bytes_read = self.bytes_read.load(Ordering::Relaxed);
        sender.blocking_send(FromReader::Batch(batch))
    }
}

fn malformed_line(malformed: Malformed<'_>) -> Reject {
    let record = String::from_utf8_lossy(malformed.raw).into_owned();
    let error = InvalidField::new("", malformed.reason, malformed.message);
    rejected(malformed.line, record, error)
}

fn text(record: &Record<'_>) -> String {
    record.text().into_owned()
}

fn rejected(line: u64, record: String, error: InvalidField) -> Reject {
    // The message may quote a field of any length, which the record has in full.
    Reject {
        line,
        field: error.field,
        reason: error.reason,
        message: error.message.chars().take(MAX_MESSAGE_CHARS).collect(),
        record,
    }
}
