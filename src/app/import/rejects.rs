//! Keeps the rejected lines: in a file of their own, or the first of them for the answer.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longer messages are cut off.
pub(super) const MAX_MESSAGE_CHARS: usize = 300;

const HEADER: [&str; 5] = ["line", "field", "reason", "message", "record"];

/// Where rejected lines go. They are counted in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectsTo {
    Nowhere,
    File(PathBuf),
    /// The first ones go into the summary, with records of no more than so many characters.
    Summary {
        max_lines: usize,
        max_record_chars: usize,
    },
}

/// A line that was rejected.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reject {
    /// The line on which its record begins, from 1.
    pub line: u64,
    /// The bad field; empty when the line is not a record at all.
    pub field: String,
    pub reason: &'static str,
    pub message: String,
    /// The record as it stands in the file, with invalid UTF-8 replaced.
    pub record: String,
}

impl Reject {
    /// Says what is wrong with the line.
    pub fn sentence(&self) -> String {
        sentence(self.line, &self.field, &self.message)
    }
}

/// Says what is wrong with a field of a line, or with the line if `field` is empty.
pub(super) fn sentence(line: u64, field: &str, message: &str) -> String {
    // The message may quote a field of any length.
    let message: String = message.chars().take(MAX_MESSAGE_CHARS).collect();
    match field.is_empty() {
        true => format!("line {line}: {message}"),
        false => format!("line {line}: {field} {message}"),
    }
}

/// The rejected lines of a running import.
pub(super) enum Rejects {
    Dropped,
    File(Box<RejectsFile>),
    Kept {
        lines: Vec<Reject>,
        max_lines: usize,
        max_record_chars: usize,
    },
}

impl Rejects {
    /// # Errors
    /// Those of [`RejectsFile::new`], with the path.
    pub fn new(to: &RejectsTo) -> Result<Self, (PathBuf, io::Error)> {
        Ok(match to {
            RejectsTo::Nowhere => Self::Dropped,
            RejectsTo::File(path) => {
                let file = RejectsFile::new(path).map_err(|error| (path.clone(), error))?;
                Self::File(Box::new(file))
            }
            &RejectsTo::Summary {
                max_lines,
                max_record_chars,
            } => Self::Kept {
                lines: Vec::new(),
                max_lines,
                max_record_chars,
            },
        })
    }

    pub fn write(&mut self, rejects: &[Reject]) -> io::Result<()> {
        match self {
            Self::Dropped => Ok(()),
            Self::File(file) => file.write(rejects),
            Self::Kept {
                lines,
                max_lines,
                max_record_chars,
            } => {
                let room = *max_lines - lines.len();
                lines.extend(rejects.iter().take(room).map(|reject| Reject {
                    record: reject.record.chars().take(*max_record_chars).collect(),
                    ..reject.clone()
                }));
                Ok(())
            }
        }
    }

    /// Returns the path of the file if one was written, and the lines that were kept.
    pub fn finish(self) -> (Option<PathBuf>, Vec<Reject>) {
        match self {
            Self::Dropped => (None, Vec::new()),
            Self::File(file) => (file.written(), Vec::new()),
            Self::Kept { lines, .. } => (None, lines),
        }
    }
}

/// A CSV file that is created with the first rejected line.
pub(super) struct RejectsFile {
    path: PathBuf,
    writer: Option<csv::Writer<BufWriter<File>>>,
}

impl RejectsFile {
    /// Removes the rejects of a former import at `path`.
    ///
    /// # Errors
    /// No file can be created at `path`, or it holds anything but rejects and is therefore not replaced.
    pub fn new(path: &Path) -> io::Result<Self> {
        prepare(path)?;
        let path = path.to_owned();
        Ok(Self { path, writer: None })
    }

    pub fn write(&mut self, rejects: &[Reject]) -> io::Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        if self.writer.is_none() {
            let mut writer = csv::Writer::from_writer(BufWriter::new(create(&self.path)?));
            writer.write_record(HEADER)?;
            self.writer = Some(writer);
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        for reject in rejects {
            let line = reject.line.to_string();
            writer.write_record([&line, &reject.field, reject.reason, &reject.message, &reject.record])?;
        }
        writer.flush()
    }

    /// Returns the path of the file if one was written.
    pub fn written(self) -> Option<PathBuf> {
        self.writer.map(|_| self.path)
    }
}

fn prepare(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        // A terminal, a pipe or /dev/null can be written without a check.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => return Ok(()),
        Ok(_) => {
            if !is_rejects_file(File::open(path)?)? {
                let message = "the file exists and does not hold rejected lines; choose another file for them";
                return Err(io::Error::new(ErrorKind::AlreadyExists, message));
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // A folder that cannot be written to is better reported now than at the first reject. Another import of a file with the
    // same name may run in the same folder.
    let mut probe = path.as_os_str().to_owned();
    probe.push(format!(".{}", std::process::id()));
    create(Path::new(&probe))?;
    std::fs::remove_file(probe)
}

/// Opens a file for rejects, which only its owner may read: it holds whole records.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn is_rejects_file(file: File) -> io::Result<bool> {
    let mut first_line = Vec::new();
    let mut reader = io::Read::take(BufReader::new(file), 256);
    reader.read_until(b'\n', &mut first_line)?;
    Ok(first_line.trim_ascii_end() == HEADER.join(",").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(line: u64, record: &str) -> Reject {
        Reject {
            line,
            field: "value".to_owned(),
            reason: "RATING_OUT_OF_RANGE",
            message: "must lie between 1 and 5, is 9".to_owned(),
            record: record.to_owned(),
        }
    }

    #[test]
    fn the_file_holds_the_latest_rejects_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ratings.csv.rejects.csv");

        let new = || RejectsFile::new(&path).unwrap();
        let mut rejects = new();
        rejects.write(&[]).unwrap();
        assert!(!path.exists());
        rejects
            .write(&[reject(2, "ann,\"t\"\"ea\",9"), reject(3, "x\ny")])
            .unwrap();
        rejects.write(&[reject(9, "é")]).unwrap();
        assert_eq!(rejects.written(), Some(path.clone()));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let mut reader = csv::Reader::from_path(&path).unwrap();
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(reader.headers().unwrap(), HEADER.as_slice());
        assert_eq!(records[0][0], *"2");
        assert_eq!(records[0][4], *"ann,\"t\"\"ea\",9");
        assert_eq!(records[1][4], *"x\ny");
        assert_eq!(records.len(), 3);

        let rejects = new();
        assert!(!path.exists());
        assert_eq!(rejects.written(), None);
        assert!(RejectsFile::new(Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn nothing_else_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious.csv");
        for content in ["", "user_id,item_id\n", "line,field,reason,message,record,more\n"] {
            std::fs::write(&path, content).unwrap();
            let error = RejectsFile::new(&path).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
