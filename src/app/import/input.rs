//! Opens a file, standard input or memory, and decompresses it. The first bytes tell the compression.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

/// A source of bytes to import.
pub struct Input {
    /// Named in messages.
    pub name: String,
    /// The size before decompression, if it is known.
    pub bytes: Option<u64>,
    reader: Box<dyn Read + Send>,
}

impl Input {
    pub fn new(name: impl Into<String>, reader: impl Read + Send + 'static, bytes: Option<u64>) -> Self {
        Self {
            name: name.into(),
            bytes,
            reader: Box::new(reader),
        }
    }

    /// # Errors
    /// The file cannot be opened.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self::new(path.display().to_string(), file, bytes))
    }

    pub fn stdin() -> Self {
        Self::new("standard input", io::stdin(), None)
    }

    /// Returns the decompressed text, and a counter of the bytes read before decompression.
    ///
    /// # Errors
    /// [`OpenError::Format`] when the first bytes are those of a format that cannot be read.
    pub(super) fn open(mut self) -> Result<(Box<dyn Read + Send>, Arc<AtomicU64>), OpenError> {
        let mut magic = Vec::with_capacity(MAGIC_BYTES);
        self.reader.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
        let format = Format::of(&magic);
        let consumed = Arc::new(AtomicU64::new(0));
        let reader = Counting {
            reader: Cursor::new(magic).chain(self.reader),
            consumed: consumed.clone(),
        };
        let text: Box<dyn Read + Send> = match format {
            Format::Plain => Box::new(reader),
            Format::Gzip => Box::new(MultiGzDecoder::new(reader)),
            Format::Zstd => Box::new(zstd::Decoder::new(reader)?),
            Format::Unreadable(format) => return Err(OpenError::Format { format }),
        };
        Ok((text, consumed))
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("is {format}, but must be CSV in UTF-8, plain or compressed with gzip or zstd")]
    Format { format: &'static str },
}

const MAGIC_BYTES: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
    /// A known format that cannot be read.
    Unreadable(&'static str),
}

impl Format {
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Self::Unreadable("text in UTF-16"),
            [b'P', b'K', 3, 4, ..] => Self::Unreadable("a ZIP archive or an Excel workbook"),
            [b'B', b'Z', b'h', ..] => Self::Unreadable("compressed with bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Unreadable("compressed with xz"),
            [b'P', b'A', b'R', b'1', ..] => Self::Unreadable("a Parquet file"),
            _ => Self::Plain,
        }
    }
}

struct Counting<R> {
    reader: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.consumed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const TEXT: &[u8] = b"user_id,item_id,value\nann,tea,5\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        /// Behaves like a pipe whose writer is slow.
        struct OneByOne(Cursor<Vec<u8>>);
        impl Read for OneByOne {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let end = buffer.len().min(1);
                self.0.read(&mut buffer[..end])
            }
        }
        let length = bytes.len() as u64;
        let input = Input::new("test", OneByOne(Cursor::new(bytes)), None);
        let (mut reader, consumed) = input.open().map_err(|error| error.to_string())?;
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map_err(|error| error.to_string())?;
        assert_eq!(consumed.load(Ordering::Relaxed), length);
        Ok(text)
    }

    #[test]
    fn the_first_bytes_tell_the_format() {
        let check = |what: &str, bytes: Vec<u8>| assert_eq!(read(bytes).as_deref(), Ok(TEXT), "{what}");
        let (head, tail) = TEXT.split_at(10);
        check("plain", TEXT.to_vec());
        check("gzip", gzip(TEXT));
        check("gzip in two members", [gzip(head), gzip(tail)].concat());
        check("zstd", zstd::encode_all(TEXT, 0).unwrap());
        let frames = [zstd::encode_all(head, 0).unwrap(), zstd::encode_all(tail, 0).unwrap()];
        check("zstd in two frames", frames.concat());
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &frames.concat()].concat();
        check("zstd after a skippable frame", skippable);
        assert_eq!(read(Vec::new()), Ok(Vec::new()));
        assert_eq!(read(b"a".to_vec()), Ok(b"a".to_vec()));
    }

    #[test]
    fn other_formats_are_named() {
        let check = |bytes: &[u8], name: &str| {
            let error = read(bytes.to_vec()).unwrap_err();
            assert!(error.contains(name), "{error}");
        };
        check(b"\xff\xfeu\0s\0", "UTF-16");
        check(b"PK\x03\x04....", "Excel");
        check(b"BZh91AY", "bzip2");
        check(b"\xfd7zXZ\0...", "xz");
        check(b"PAR1....", "Parquet");
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let mut gzip = gzip(TEXT);
        gzip.truncate(gzip.len() - 9);
        assert!(read(gzip).is_err());
        let mut zstd = zstd::encode_all(TEXT, 0).unwrap();
        zstd.truncate(zstd.len() - 5);
        assert!(read(zstd).is_err());
    }
}
