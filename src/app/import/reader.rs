//! Reads the file into batches, in a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::Utc;
use tokio::sync::mpsc;

use domain::error::InvalidField;

use super::columns::Columns;
use super::input::{Input, OpenError};
use super::kinds::{RecordKind, Rules};
use super::records::{Record, Records};
use super::rejects::Reject;
use super::{ImportError, ImportOptions};

/// Consecutive lines of the file.
pub(super) struct Batch<V> {
    pub values: Vec<V>,
    pub n_values: usize,
    /// The line of each value if the store may refuse it; otherwise empty.
    pub origins: Vec<Origin>,
    pub rejects: Vec<Reject>,
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
            last_line: 0,
            bytes_read: 0,
        }
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
    End,
}

/// The number of batches read ahead of the one that is stored.
const BATCHES_AHEAD: usize = 1;

/// The greatest amount of text in one batch, so that long records do not make large batches.
const BATCH_BYTES: usize = 8 << 20;

/// Reads `input` in a thread of its own. The thread may go on waiting for standard input after the import has ended.
pub(super) fn read_ahead<K: RecordKind>(input: Input, options: &ImportOptions) -> mpsc::Receiver<FromReader<K::Value>> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let options = options.clone();
    std::thread::spawn(move || {
        let last = match open::<K>(input, &options) {
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
        // Sending fails only after an interrupted import, when nobody receives.
        let _ = sender.blocking_send(last);
    });
    receiver
}

/// A file whose header has been read and understood.
struct OpenFile<K> {
    records: Records<Box<dyn io::Read + Send>>,
    bytes_read: Arc<AtomicU64>,
    kind: K,
}

fn open<K: RecordKind>(input: Input, options: &ImportOptions) -> Result<OpenFile<K>, ImportError> {
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
                "is empty, but must have a first line with the names of its columns".to_owned(),
            ));
        }
        Some(Err(malformed)) => return Err(no_csv(format!("has a malformed header line: {}", malformed.message))),
        Some(Ok(record)) => column_names(&record).map_err(no_csv)?,
    };
    let rules = Rules {
        scale: options.scale,
        times: Arc::new(options.times.clone()),
        now: Utc::now(),
    };
    let columns = Columns::new(header, K::FIELDS, &options.column_map)?;
    let kind = K::new(&columns, &rules)?;
    Ok(OpenFile {
        records,
        bytes_read,
        kind,
    })
}

pub(super) fn unreadable(name: String, source: io::Error) -> ImportError {
    ImportError::Unreadable { name, source }
}

fn column_names(header: &Record<'_>) -> Result<Vec<String>, String> {
    let name = |index| match std::str::from_utf8(header.field(index)) {
        Ok(name) => Ok(name.trim_ascii().to_owned()),
        Err(_) => Err("has a header line that is not UTF-8".to_owned()),
    };
    (0..header.width()).map(name).collect()
}

impl<K: RecordKind> OpenFile<K> {
    /// Sends the records in batches, until the file ends or nobody receives.
    fn read(mut self, batch_lines: usize, sender: &mpsc::Sender<FromReader<K::Value>>) -> io::Result<()> {
        let mut batch = Batch::new(batch_lines);
        let mut bytes = 0;
        loop {
            let length = match self.read_record(&mut batch) {
                Ok(Some(length)) => length,
                end => {
                    // If nobody receives any more, the next send notices.
                    let _ = self.send(batch, sender);
                    return end.map(|_| ());
                }
            };
            bytes += length;
            if batch.values.len() + batch.rejects.len() >= batch_lines || bytes >= BATCH_BYTES {
                bytes = 0;
                let full = std::mem::replace(&mut batch, Batch::new(batch_lines));
                if self.send(full, sender).is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Adds the next record, or the reason why it is rejected, to `batch`. Returns its length in bytes, or `None` at the
    /// end of the file.
    fn read_record(&mut self, batch: &mut Batch<K::Value>) -> io::Result<Option<usize>> {
        let (line, raw) = match self.records.next()? {
            None => return Ok(None),
            Some(Ok(record)) => {
                match self.kind.read(&record) {
                    Ok(value) => {
                        batch.values.push(value);
                        batch.n_values += 1;
                        if K::MAY_BE_REFUSED {
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
            Some(Err(malformed)) => {
                let error = InvalidField::new("", malformed.reason, malformed.message);
                batch.rejects.push(reject(malformed.line, malformed.raw, error));
                (malformed.line, malformed.raw)
            }
        };
        batch.last_line = line;
        Ok(Some(raw.len()))
    }

    fn send(
        &self,
        mut batch: Batch<K::Value>,
        sender: &mpsc::Sender<FromReader<K::Value>>,
    ) -> Result<(), mpsc::error::SendError<FromReader<K::Value>>> {
        if batch.values.is_empty() && batch.rejects.is_empty() {
            return Ok(());
        }
        batch.bytes_read = self.bytes_read.load(Ordering::Relaxed);
        sender.blocking_send(FromReader::Batch(batch))
    }
}

fn reject(line: u64, raw: &[u8], error: InvalidField) -> Reject {
    rejected(line, text(raw), error)
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}

fn rejected(line: u64, record: String, error: InvalidField) -> Reject {
    // The message may quote a field of any length, which the record has in full.
    const MAX_MESSAGE_CHARS: usize = 300;
    Reject {
        line,
        field: error.field,
        reason: error.reason,
        message: error.message.chars().take(MAX_MESSAGE_CHARS).collect(),
        record,
    }
}
