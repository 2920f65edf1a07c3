//! Writes the rejected lines to a file of their own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

const HEADER: [&str; 5] = ["line", "field", "reason", "message", "record"];

/// A line that was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    /// The line on which its record begins, from 1.
    pub line: u64,
    /// The bad field; empty when the line is not a record at all.
    pub field: String,
    pub reason: &'static str,
    pub message: String,
    /// The record as it stands in the file, with invalid UTF-8 replaced.
    pub record: String,
}

/// A CSV file that is created with the first rejected line.
pub(super) struct RejectsFile {
    path: PathBuf,
    writer: Option<csv::Writer<BufWriter<File>>>,
}

impl RejectsFile {
    /// Chooses the first of `candidates` where a file can be created, and removes the rejects of a former import there.
    ///
    /// # Errors
    /// Names the candidate and its problem. A file that holds anything but rejects is never replaced.
    pub fn new(candidates: &[PathBuf]) -> Result<Option<Self>, (PathBuf, io::Error)> {
        for (position, path) in candidates.iter().enumerate() {
            match prepare(path) {
                Ok(()) => {
                    let path = path.clone();
                    return Ok(Some(Self { path, writer: None }));
                }
                Err(error) if is_about_the_folder(&error) && position + 1 < candidates.len() => {}
                Err(error) => return Err((path.clone(), error)),
            }
        }
        Ok(None)
    }

    pub fn write(&mut self, rejects: &[Reject]) -> io::Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        if self.writer.is_none() {
            let mut writer = csv::Writer::from_writer(BufWriter::new(File::create(&self.path)?));
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
            std::fs::remove_file(path)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // A file that cannot be created is better reported now than at the first reject.
    File::create_new(path)?;
    std::fs::remove_file(path)
}

fn is_about_the_folder(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
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

        let new = || RejectsFile::new(std::slice::from_ref(&path)).unwrap().unwrap();
        let mut rejects = new();
        rejects.write(&[]).unwrap();
        assert!(!path.exists());
        rejects
            .write(&[reject(2, "ann,\"t\"\"ea\",9"), reject(3, "x\ny")])
            .unwrap();
        rejects.write(&[reject(9, "é")]).unwrap();
        assert_eq!(rejects.written(), Some(path.clone()));
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
        assert!(RejectsFile::new(&[]).unwrap().is_none());
        assert!(RejectsFile::new(&["/dev/null".into()]).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_written_gives_way_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("rejects.csv");
        let rejects = RejectsFile::new(&["/proc/rejects.csv".into(), other.clone()]);
        // /proc answers that there is no such file, which concerns the path and not the permission.
        assert!(rejects.is_err());
        let read_only = folder.path().join("read_only");
        std::fs::create_dir(&read_only).unwrap();
        let mut permissions = std::fs::metadata(&read_only).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&read_only, permissions).unwrap();
        let rejects = RejectsFile::new(&[read_only.join("rejects.csv"), other.clone()])
            .unwrap()
            .unwrap();
        // Root may write to the read-only folder.
        assert!([other.as_path(), &read_only.join("rejects.csv")].contains(&rejects.path.as_path()));
    }

    #[test]
    fn nothing_else_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious.csv");
        for content in ["", "user_id,item_id\n", "line,field,reason,message,record,more\n"] {
            std::fs::write(&path, content).unwrap();
            let (at, error) = RejectsFile::new(&[path.clone(), folder.path().join("other")])
                .map(drop)
                .unwrap_err();
            assert_eq!((at.as_path(), error.kind()), (path.as_path(), ErrorKind::AlreadyExists));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
