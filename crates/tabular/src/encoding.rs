//! Turns text of any encoding into UTF-8, and guesses the encoding of text that is not.

use std::io::{self, Read};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Finds an encoding by one of its names, such as `latin1`, `windows-1252` or `utf-16le`.
pub fn named(name: &str) -> Option<&'static Encoding> {
    // The standard of the web reads latin-1 as windows-1252, which has the same letters and more.
    let name = name.trim().to_ascii_lowercase().replace('_', "-");
    let name = match name.as_str() {
        "latin-1" => "latin1",
        "cp850" | "cp437" => return None,
        "utf-16" | "utf16" => "utf-16le",
        "utf8" | "utf-8-sig" => "utf-8",
        other => other,
    };
    Encoding::for_label(name.as_bytes())
}

/// Returns whether `name` is that of UTF-16 without its order of bytes.
pub(crate) fn is_utf16(name: &str) -> bool {
    matches!(&*name.trim().to_ascii_lowercase(), "utf-16" | "utf16" | "utf_16")
}

/// Returns the likely order of bytes of text in UTF-16.
pub(crate) fn utf16_without_mark(head: &[u8]) -> &'static Encoding {
    match zeros(head) {
        (even, odd) if even > odd => UTF_16BE,
        _ => UTF_16LE,
    }
}

/// Counts the zeros in even and in odd places. Text in UTF-16 has one in every second byte where its letters are Latin.
fn zeros(text: &[u8]) -> (usize, usize) {
    let count = |parity: usize| text.iter().skip(parity).step_by(2).filter(|&&byte| byte == 0).count();
    (count(0), count(1))
}

/// Returns the encoding that a byte order mark at the beginning of `head` tells, unless it is UTF-8.
pub(crate) fn of_mark(head: &[u8]) -> Option<&'static Encoding> {
    match head {
        [0xff, 0xfe, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] => Some(UTF_16BE),
        _ => None,
    }
}

/// Returns the likely name of the encoding of `text`, or `None` if it is UTF-8, apart from a character cut off at its end.
pub fn guess(text: &[u8]) -> Option<&'static str> {
    if let Some(encoding) = of_mark(text) {
        return Some(encoding.name());
    }
    let (even, odd) = zeros(text);
    if 4 * even.max(odd) > text.len() && 8 * even.min(odd) < even.max(odd) {
        return Some(if even > odd { UTF_16BE.name() } else { UTF_16LE.name() });
    }
    match std::str::from_utf8(text) {
        Ok(_) => return None,
        Err(error) if error.error_len().is_none() => return None,
        Err(_) => {}
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(text, true);
    Some(detector.guess(None, Utf8Detection::Deny).name())
}

/// Reads UTF-8 from bytes in another encoding.
pub(crate) struct Transcoder<R> {
    input: R,
    decoder: Decoder,
    name: &'static str,
    /// Bytes that have been read; those before `start` are decoded.
    encoded: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    /// Decoded text; what stands before `text_start` has been handed out.
    text: Vec<u8>,
    text_start: usize,
    text_end: usize,
    /// How many bytes have been decoded.
    n_decoded: u64,
    /// Whether the decoder has written its last text.
    is_finished: bool,
}

impl<R: Read> Transcoder<R> {
    pub fn new(input: R, encoding: &'static Encoding) -> Self {
        Self {
            input,
            decoder: encoding.new_decoder_with_bom_removal(),
            name: encoding.name(),
            encoded: vec![0; 1 << 16],
            start: 0,
            end: 0,
            at_end: false,
            text: vec![0; 1 << 16],
            text_start: 0,
            text_end: 0,
            n_decoded: 0,
            is_finished: false,
        }
    }

    /// Decodes more text. Leaves none at the end of the input.
    fn decode(&mut self) -> io::Result<()> {
        (self.text_start, self.text_end) = (0, 0);
        loop {
            if self.start == self.end && !self.at_end {
                self.end = self.input.read(&mut self.encoded)?;
                self.start = 0;
                self.at_end = self.end == 0;
            }
            let encoded = &self.encoded[self.start..self.end];
            let (result, read, written) =
                self.decoder
                    .decode_to_utf8_without_replacement(encoded, &mut self.text, self.at_end);
            self.start += read;
            self.n_decoded += read as u64;
            if let DecoderResult::Malformed(..) = result {
                let message = format!("the text is not {} near byte {}", self.name, self.n_decoded);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            if written > 0 || (self.at_end && result == DecoderResult::InputEmpty) {
                self.is_finished = self.at_end && result == DecoderResult::InputEmpty;
                self.text_end = written;
                return Ok(());
            }
        }
    }
}

impl<R: Read> Read for Transcoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.text_start == self.text_end && !self.is_finished {
            self.decode()?;
        }
        let count = buffer.len().min(self.text_end - self.text_start);
        buffer[..count].copy_from_slice(&self.text[self.text_start..self.text_start + count]);
        self.text_start += count;
        Ok(count)
    }
}

/// Returns whether text in `encoding` can be read as it is.
pub(crate) fn is_utf8(encoding: &'static Encoding) -> bool {
    encoding == UTF_8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_guessed() {
        let check = |text: &[u8], want: Option<&str>| assert_eq!(guess(text), want, "{text:?}");
        check(b"user_id,item_id\n", None);
        check("Größe,Käse\n".as_bytes(), None);
        check(&"Größe".as_bytes()[..3], None);
        check(b"Gr\xf6\xdfe,K\xe4se,caf\xe9\n", Some("windows-1252"));
        check(b"\xff\xfea\0", Some("UTF-16LE"));
        check(b"a\0b\0,\0c\0", Some("UTF-16LE"));
        check(b"\0a\0b\0,\0c", Some("UTF-16BE"));
        check(b"a\0\0\0\0\0\0\0", None);
    }

    #[test]
    fn text_is_transcoded_in_steps_of_any_size() {
        struct Steps<'a>(&'a [u8]);
        impl Read for Steps<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let step = buffer.len().min(3);
                self.0.read(&mut buffer[..step])
            }
        }
        let check = |name: &str, bytes: &[u8], want: Result<&str, io::ErrorKind>| {
            let mut text = String::new();
            let got = Transcoder::new(Steps(bytes), named(name).unwrap()).read_to_string(&mut text);
            assert_eq!(
                got.map(|_| text.as_str()).map_err(|error| error.kind()),
                want,
                "{name} {bytes:?}"
            );
        };
        check("latin1", b"K\xe4se", Ok("Käse"));
        check("latin-1", b"\x80 5", Ok("€ 5"));
        check("utf-16le", b"\xff\xfeK\0\xe4\0", Ok("Kä"));
        check("UTF-16BE", b"\0K\0\xe4", Ok("Kä"));
        check("shift_jis", b"\x83e\x83B\x81[", Ok("ティー"));
        check("shift_jis", b"\x83", Err(io::ErrorKind::InvalidData));
        check("utf-16le", b"a\0b", Err(io::ErrorKind::InvalidData));
        assert!(named("klingon").is_none());
        assert_eq!(utf16_without_mark(b"\0a\0,").name(), "UTF-16BE");
        assert_eq!(utf16_without_mark(b"a\0,\0").name(), "UTF-16LE");
    }
}
