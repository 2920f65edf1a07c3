//! From the file to batches, in a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::Utc;
use tokio::sync::mpsc;

use domain::error::InvalidField;

use super::columns::Columns;
use super::input::{Input, OpenError};
use super::records::{Record, Records};
use super::rejects::Reject;
use super::subject::{Rules, Subject};
use super::{ImportError, ImportOptions};

/// Consecutive lines of the file.
pub(super) struct Batch<V> {
    pub values: Vec<V>,
    pub n_values: usize,
    /// Where each value stands, if the store may refuse it; else empty.
    pub origins: Vec<Origin>,
    pub rejects: Vec<Reject>,
    pub last_line: u64,
    /// Of the file as it is stored, from its beginning to the end of this batch or somewhat beyond.
    pub bytes_read: u64,
}

/// The line of a value.
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
    /// The header fits.
    Opened,
    /// The file does not fit.
    Refused(ImportError),
    Batch(Batch<V>),
    Broken(io::Error),
    End,
}

/// Batches read ahead of the one that is stored.
const BATCHES_AHEAD: usize = 1;

/// Most text of one batch, so that long records do not make large batches.
const BATCH_BYTES: usize = 8 << 20;

/// Reads in a thread of its own, which may wait for standard input when nobody waits for it any more.
pub(super) fn read_ahead<S: Subject>(input: Input, options: &ImportOptions) -> mpsc::Receiver<FromReader<S::Value>> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let options = options.clone();
    std::thread::spawn(move || {
        let last = match open::<S>(input, &options) {
            Err(error) => FromReader::Refused(error),
            Ok(file) => {
                if sender.blocking_send(FromReader::Opened).is_err() {
                    return;
                }
                match file.read(options.batch_lines(), &sender) {
                    Ok(()) => FromReader::End,
                    Err(error) => FromReader::Broken(error),
                }
            }
        };
        // Nobody listens any more when the import was interrupted.
        let _ = sender.blocking_send(last);
    });
    receiver
}

/// A file whose header has been read and understood.
struct OpenFile<S> {
    records: Records<Box<dyn io::Read + Send>>,
    bytes_read: Arc<AtomicU64>,
    subject: S,
}

fn open<S: Subject>(input: Input, options: &ImportOptions) -> Result<OpenFile<S>, ImportError> {
    let name = input.name.clone();
    let no_csv = |problem: String| ImportError::NoCsv {
        name: name.clone(),
        problem,
    };
    let (text, bytes_read) = input.open().map_err(|error| match error {
        OpenError::Read(source) => unreadable(name.clone(), source),
        error @ OpenError::Format { .. } => no_csv(error.to_string()),
    })?;
    let mut records = Records::new(text, options.delimiter);
    let header = match records.next().map_err(|source| unreadable(name.clone(), source))? {
        None => {
            return Err(no_csv(
                "is empty: it needs a first line that names its columns".to_owned(),
            ));
        }
        Some(Err(malformed)) => return Err(no_csv(format!("has no header of column names: {}", malformed.message))),
        Some(Ok(record)) => column_names(&record).map_err(no_csv)?,
    };
    let rules = Rules {
        scale: options.scale,
        times: Arc::new(options.times.clone()),
        now: Utc::now(),
    };
    let columns = Columns::new(header, S::FIELDS, &options.assignments)?;
    let subject = S::new(&columns, &rules)?;
    Ok(OpenFile {
        records,
        bytes_read,
        subject,
    })
}

pub(super) fn unreadable(name: String, source: io::Error) -> ImportError {
    ImportError::Unreadable { name, source }
}

fn column_names(header: &Record<'_>) -> Result<Vec<String>, String> {
    let name = |index| match std::str::from_utf8(header.field(index)) {
        Ok(name) => Ok(name.trim_ascii().to_owned()),
        Err(_) => Err("has a header that is not UTF-8".to_owned()),
    };
    (0..header.width()).map(name).collect()
}

impl<S: Subject> OpenFile<S> {
    fn read(mut self, batch_lines: usize, sender: &mpsc::Sender<FromReader<S::Value>>) -> io::Result<()> {
        let new_batch = || Batch {
            values: Vec::with_capacity(batch_lines),
            n_values: 0,
            origins: Vec::new(),
            rejects: Vec::new(),
            last_line: 0,
            bytes_read: 0,
        };
        let mut batch = new_batch();
        let mut bytes = 0;
        let ended = loop {
            let (line, raw) = match self.records.next() {
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
                Ok(Some(Ok(record))) => {
                    match self.subject.read(&record) {
                        Ok(value) => {
                            batch.values.push(value);
                            batch.n_values += 1;
                            if S::MAY_BE_REFUSED {
                                batch.origins.push(Origin {
                                    line: record.line,
                                    record: text(record.raw),
                                });
                            }
                        }
                        Err(error) => batch.rejects.push(reject(record.line, record.raw, error)),
                    }
                    (record.line, record.raw)
                }
                Ok(Some(Err(malformed))) => {
                    let error = InvalidField::new("", malformed.reason, malformed.message);
                    batch.rejects.push(reject(malformed.line, malformed.raw, error));
                    (malformed.line, malformed.raw)
                }
            };
            batch.last_line = line;
            bytes += raw.len();
            if batch.values.len() + batch.rejects.len() >= batch_lines || bytes >= BATCH_BYTES {
                let mut full = std::mem::replace(&mut batch, new_batch());
                full.bytes_read = self.bytes_read.load(Ordering::Relaxed);
                bytes = 0;
                if sender.blocking_send(FromReader::Batch(full)).is_err() {
                    return Ok(());
                }
            }
        };
        if !(batch.values.is_empty() && batch.rejects.is_empty()) {
            batch.bytes_read = self.bytes_read.load(Ordering::Relaxed);
            // When nobody listens any more, the next send says so.
            let _ = sender.blocking_send(FromReader::Batch(batch));
        }
        ended
    }
}

fn reject(line: u64, raw: &[u8], error: InvalidField) -> Reject {
    rejected(line, text(raw), error)
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}

fn rejected(line: u64, record: String, error: InvalidField) -> Reject {
    // It may quote a field of any length; the record has the whole of it.
    const MAX_MESSAGE_CHARS: usize = 300;
    Reject {
        line,
        field: error.field,
        reason: error.reason,
        message: error.message.chars().take(MAX_MESSAGE_CHARS).collect(),
        record,
    }
}
