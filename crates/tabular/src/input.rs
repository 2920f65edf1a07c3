//! Opens a file, standard input or any other source of bytes, and decompresses it. The first bytes tell the compression.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

/// The bytes of a text that are read at a time.
pub(crate) const READ_BYTES: usize = 1 << 16;

/// A source of bytes to import.
pub struct Input {
    /// Named in messages.
    pub name: String,
    /// The size before decompression, if it is known.
    pub bytes: Option<u64>,
    reader: Box<dyn Read + Send>,
    /// The same bytes, if they are a regular file.
    file: Option<File>,
}

impl Input {
    pub fn new(name: impl Into<String>, reader: impl Read + Send + 'static, bytes: Option<u64>) -> Self {
        Self {
            name: name.into(),
            bytes,
            reader: Box::new(reader),
            file: None,
        }
    }

    /// # Errors
    /// The file cannot be opened.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let is_regular = metadata.is_file();
        let again = match is_regular {
            true => Some(file.try_clone()?),
            false => None,
        };
        Ok(Self {
            file: again,
            ..Self::new(path.display().to_string(), file, is_regular.then_some(metadata.len()))
        })
    }

    pub fn stdin() -> Self {
        Self::new("standard input", io::stdin(), None)
    }

    /// Decompresses the bytes, and reads the beginning of the result.
    ///
    /// # Errors
    /// The beginning cannot be read, or is that of a compression that cannot be undone.
    pub(crate) fn decompressed(mut self) -> io::Result<Decompressed> {
        let head = read_head(&mut self.reader)?;
        let compression = Compression::of(&head);
        let consumed = Arc::new(AtomicU64::new(0));
        let reader = Counting {
            reader: Cursor::new(head.clone()).chain(self.reader),
            consumed: consumed.clone(),
        };
        let mut reader: Box<dyn Read + Send> = match compression {
            Compression::None => {
                return Ok(Decompressed {
                    head,
                    reader: Box::new(reader),
                    file: self.file,
                    consumed,
                });
            }
            Compression::Gzip => Box::new(MultiGzDecoder::new(reader)),
            Compression::Zstd => Box::new(zstd::Decoder::new(reader)?),
        };
        let head = read_head(&mut reader)?;
        Ok(Decompressed {
            reader: Box::new(Cursor::new(head.clone()).chain(reader)),
            head,
            file: None,
            consumed,
        })
    }
}

/// The content of an input, without its compression.
pub(crate) struct Decompressed {
    /// Some of the first bytes, at least [`MAGIC_BYTES`] if there are as many.
    pub head: Vec<u8>,
    /// All bytes, those of `head` included.
    pub reader: Box<dyn Read + Send>,
    /// The same bytes, if they are a regular file as it is.
    pub file: Option<File>,
    /// Counts the bytes that have been read before decompression.
    pub consumed: Arc<AtomicU64>,
}

const MAGIC_BYTES: usize = 8;

/// Appends up to [`READ_BYTES`] more bytes to `text`. Returns whether there were any.
pub(crate) fn read_more(reader: &mut impl Read, text: &mut Vec<u8>) -> io::Result<bool> {
    let length = text.len();
    text.resize(length + READ_BYTES, 0);
    let count = loop {
        match reader.read(&mut text[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    text.truncate(length + *count.as_ref().unwrap_or(&0));
    Ok(count? > 0)
}

/// Reads what comes at once, but enough to tell a format.
fn read_head(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    const HEAD_BYTES: usize = 1 << 16;
    let mut head = vec![0; HEAD_BYTES];
    let mut length = 0;
    while length < MAGIC_BYTES {
        match reader.read(&mut head[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(length);
    Ok(head)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
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

    use flate2::write::GzEncoder;

    use super::*;

    const TEXT: &[u8] = b"user_id,item_id,value\nann,tea,5\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
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
        let Decompressed {
            mut reader, consumed, ..
        } = input.decompressed().map_err(|error| error.to_string())?;
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
    fn a_truncated_file_is_an_error() {
        let mut gzip = gzip(TEXT);
        gzip.truncate(gzip.len() - 9);
        assert!(read(gzip).is_err());
        let mut zstd = zstd::encode_all(TEXT, 0).unwrap();
        zstd.truncate(zstd.len() - 5);
        assert!(read(zstd).is_err());
    }
}
