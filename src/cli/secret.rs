//! Reads a secret from a file, because every user of a machine can read the arguments of a running command.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// Longest secret; a file that is larger is another file.
const MAX_BYTES: u64 = 16 * 1024;

/// Returns the only line of `file`, or of standard input for `-`, without the white space around it.
///
/// # Errors
/// The file cannot be read, or it holds nothing, more than one line, or other bytes than text. No error quotes the file.
pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let mut bytes = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("{name} cannot be read"))?;
    ensure!(
        bytes.len() as u64 <= MAX_BYTES,
        "{name} must hold one line, has more than {MAX_BYTES} bytes"
    );
    let Ok(text) = std::str::from_utf8(&bytes) else {
        bail!("{name} must hold one line of text");
    };
    let mut lines = text.trim().lines();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.to_owned()),
        (None, _) => bail!("{name} must hold one line, is empty"),
        (Some(_), Some(_)) => bail!("{name} must hold one line, has more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_only_line_of_its_file_and_no_error_quotes_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |bytes: &[u8], expected: Result<&str, &str>| {
            std::fs::write(file.path(), bytes).unwrap();
            match (read(file.path()), expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected),
                (Err(error), Err(part)) => {
                    let error = format!("{error:#}");
                    assert!(error.contains(part) && !error.contains("s3cret"), "{error}");
                }
                (read, expected) => panic!("{read:?} is not {expected:?}"),
            }
        };
        check(b"s3cret", Ok("s3cret"));
        check(b" s3cret\r\n\n", Ok("s3cret"));
        check(b"", Err("is empty"));
        check(b"\n \n", Err("is empty"));
        check(b"s3cret\ns3cret", Err("has more"));
        check(b"s3cret\xff", Err("text"));
        check(&b"s3cret".repeat(4_000), Err("more than 16384 bytes"));
        assert!(format!("{:#}", read(Path::new("/no/such/file")).unwrap_err()).contains("/no/such/file"));
    }
}
