//! Copies a stream into a temporary file, for formats that are not read from front to back.

use std::fs::File;
use std::io::{self, Read, Seek};

/// Returns `file` from its beginning, or a temporary file with the bytes of `reader`. The temporary file has no name, and
/// nobody else can read it.
pub(crate) fn seekable(file: Option<File>, mut reader: Box<dyn Read + Send>) -> io::Result<File> {
    let mut file = match file {
        Some(file) => file,
        None => {
            let mut spooled = tempfile::tempfile()?;
            io::copy(&mut reader, &mut spooled)?;
            spooled
        }
    };
    file.rewind()?;
    Ok(file)
}
