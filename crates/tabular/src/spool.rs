//! Copies a stream into a temporary file, for formats that are not read from front to back.

use std::fs::File;
use std::io::{self, Read, Seek};

/// Returns `file` from its beginning, or a temporary file with the bytes of `reader`. The temporary file has no name, and
/// nobody else can read it.
///
/// # Errors
/// The reader has more than `max_bytes`, or one of the files fails.
pub(crate) fn seekable(
    file: Option<File>,
    mut reader: Box<dyn Read + Send>,
    max_bytes: Option<u64>,
) -> io::Result<File> {
    let mut file = match file {
        Some(file) => file,
        None => {
            let mut spooled = tempfile::tempfile()?;
            let max = max_bytes.unwrap_or(u64::MAX);
            if io::copy(&mut reader.by_ref().take(max), &mut spooled)? == max && reader.read(&mut [0])? > 0 {
                let message = format!("it has more than {max} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            spooled
        }
    };
    file.rewind()?;
    Ok(file)
}
