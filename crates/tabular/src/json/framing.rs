//! Cuts a stream of JSON into the texts of its objects, in bounded memory.

use std::io::{self, Read};

use crate::input::{READ_BYTES, read_more};
use crate::record::MAX_RECORD_BYTES;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Deeper nesting is refused, so that the scanner's memory stays bounded.
const MAX_BRACKETS: usize = 1 << 20;

/// The text of one object, or of what stands in its place.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Somewhat more than [`MAX_RECORD_BYTES`] of a text that is longer than that.
    pub text: Vec<u8>,
}

impl Frame {
    pub fn is_too_long(&self) -> bool {
        self.text.len() > MAX_RECORD_BYTES
    }

    /// Returns the key of the first array, if it is a plain word.
    pub fn array_key(&self) -> Option<&str> {
        let mut scanner = Scanner::default();
        let is_array = |&byte: &u8| !scanner.step(byte).is_in_string && byte == b'[';
        let at = self.text.iter().position(is_array)?;
        let before = self.text[..at].trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
        let key = before.strip_suffix(b"\"")?.rsplit(|&byte| byte == b'"').next()?;
        let is_word = !key.is_empty() && key.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
        std::str::from_utf8(key).ok().filter(|_| is_word)
    }

    /// Adds as much of `text` as may be kept.
    fn extend(&mut self, text: &[u8]) {
        let room = (MAX_RECORD_BYTES + 1).saturating_sub(self.text.len());
        self.text.extend_from_slice(&text[..text.len().min(room)]);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Each line is an object; one that is not costs only itself.
    Lines,
    /// Objects stand one after the other, with commas and line ends between or within them.
    Objects {
        /// The line of the bracket that opened the array, in an array.
        array: Option<u64>,
    },
}

pub(super) struct Frames {
    input: Box<dyn Read + Send>,
    /// The text read so far. What stands before `start` has been returned.
    text: Vec<u8>,
    start: usize,
    at_end: bool,
    /// The line number of `start`, from 1.
    line: u64,
    mode: Mode,
}

impl Frames {
    /// Reads the beginning, which tells how the objects are arranged.
    pub fn new(input: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut frames = Self {
            input,
            text: Vec::new(),
            start: 0,
            at_end: false,
            line: 1,
            mode: Mode::Lines,
        };
        while frames.text.len() < BYTE_ORDER_MARK.len() && frames.fill()? {}
        if frames.text.starts_with(BYTE_ORDER_MARK) {
            frames.start = BYTE_ORDER_MARK.len();
        }
        frames.mode = frames.find_mode()?;
        Ok(frames)
    }

    /// Reads the next text that is not blank into `frame`. Returns whether there is one.
    ///
    /// # Errors
    /// The input cannot be read, or ends within an array.
    pub fn next(&mut self, frame: &mut Frame) -> io::Result<bool> {
        frame.text.clear();
        match self.mode {
            Mode::Lines => self.next_line(frame),
            Mode::Objects { array } => self.next_object(frame, array),
        }
    }

    fn next_line(&mut self, frame: &mut Frame) -> io::Result<bool> {
        loop {
            frame.text.clear();
            frame.line = self.line;
            let is_line = loop {
                let rest = &self.text[self.start..];
                if let Some(length) = rest.iter().position(|&byte| byte == b'\n') {
                    frame.extend(&rest[..length]);
                    self.start += length + 1;
                    self.line += 1;
                    break true;
                }
                frame.extend(rest);
                self.start = self.text.len();
                self.forget();
                if !self.fill()? {
                    break false;
                }
            };
            if frame.text.ends_with(b"\r") {
                frame.text.pop();
            }
            match (frame.text.trim_ascii().is_empty(), is_line) {
                (false, _) => return Ok(true),
                (true, false) => return Ok(false),
                (true, true) => {}
            }
        }
    }

    fn next_object(&mut self, frame: &mut Frame, mut array: Option<u64>) -> io::Result<bool> {
        loop {
            self.forget();
            let Some(byte) = self.byte(self.start)? else {
                let Some(line) = array else { return Ok(false) };
                let problem =
                    format!("the JSON array that begins at line {line} has no end: the file is likely to be cut off");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
            };
            match (byte, array) {
                (b'\n', _) => self.line += 1,
                (b',' | b' ' | b'\t' | b'\r', _) => {}
                (b'[', None) => array = Some(self.line),
                (b']', Some(_)) => array = None,
                _ => break,
            }
            self.mode = Mode::Objects { array };
            self.start += 1;
        }
        frame.line = self.line;
        self.take_value(frame, array.is_some())?;
        Ok(true)
    }

    /// Reads one JSON value. Outside of an array, a value that is neither an object nor an array ends with its line.
    fn take_value(&mut self, frame: &mut Frame, in_array: bool) -> io::Result<()> {
        let mut scanner = Scanner::default();
        loop {
            let rest = &self.text[self.start..];
            let mut length = 0;
            let mut is_whole = false;
            for &byte in rest {
                if scanner.brackets.is_empty() && !scanner.is_in_string {
                    let ends = match byte {
                        b',' => true,
                        b']' => in_array,
                        b'\n' => !in_array,
                        _ => false,
                    };
                    if ends {
                        is_whole = true;
                        break;
                    }
                }
                length += 1;
                self.line += u64::from(byte == b'\n');
                if scanner.step(byte).closes_value {
                    is_whole = true;
                    break;
                }
            }
            frame.extend(&rest[..length]);
            self.start += length;
            self.forget();
            if scanner.brackets.len() > MAX_BRACKETS {
                let problem = format!("the JSON that begins at line {} is nested too deeply", frame.line);
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            if is_whole || !self.fill()? {
                return Ok(());
            }
        }
    }

    /// Tells from the beginning how the objects are arranged.
    fn find_mode(&mut self) -> io::Result<Mode> {
        const OBJECTS: Mode = Mode::Objects { array: None };
        let begin = self.after_blanks(self.start, |byte| byte.is_ascii_whitespace())?;
        match self.byte(begin)? {
            Some(b'[') => return Ok(OBJECTS),
            Some(b'{') => {}
            _ => return Ok(Mode::Lines),
        }
        let mut scanner = Scanner::default();
        for at in begin..begin + MAX_RECORD_BYTES {
            let Some(byte) = self.byte(at)? else { break };
            if byte == b'\n' {
                let next = self.after_blanks(at, |byte| byte.is_ascii_whitespace())?;
                let next = self.byte(next)?;
                let last = self.text[begin..at].trim_ascii_end().last().copied();
                return Ok(match scanner.goes_on(last, next) {
                    true => OBJECTS,
                    false => Mode::Lines,
                });
            }
            if scanner.step(byte).closes_value {
                let next = self.after_blanks(at + 1, |byte| matches!(byte, b' ' | b'\t' | b'\r'))?;
                return Ok(match self.byte(next)? {
                    Some(b'{' | b',') => OBJECTS,
                    _ => Mode::Lines,
                });
            }
        }
        Ok(Mode::Lines)
    }

    /// Returns the first place from `at` on that has no blank, or the end of a long run of blanks.
    fn after_blanks(&mut self, mut at: usize, is_blank: impl Fn(u8) -> bool) -> io::Result<usize> {
        let end = at + MAX_RECORD_BYTES;
        while at < end && self.byte(at)?.is_some_and(&is_blank) {
            at += 1;
        }
        Ok(at)
    }

    fn byte(&mut self, at: usize) -> io::Result<Option<u8>> {
        while at >= self.text.len() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(Some(self.text[at]))
    }

    /// Drops the text that has been returned, unless little would be won.
    fn forget(&mut self) {
        if self.start == self.text.len() || self.start >= READ_BYTES {
            self.text.drain(..self.start);
            self.start = 0;
        }
    }

    /// Reads more text. Returns whether there was some.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        self.at_end = !read_more(&mut self.input, &mut self.text)?;
        Ok(!self.at_end)
    }
}

/// Follows the strings and brackets of JSON.
#[derive(Debug, Default)]
struct Scanner {
    /// The brackets that are open.
    brackets: Vec<u8>,
    is_in_string: bool,
    is_escaped: bool,
}

/// Tells where in a value a byte stands.
struct Step {
    is_in_string: bool,
    /// Whether it closes the outermost bracket.
    closes_value: bool,
}

impl Scanner {
    fn step(&mut self, byte: u8) -> Step {
        let is_in_string = self.is_in_string;
        let mut closes_value = false;
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if is_in_string => self.is_escaped = true,
            // A string ends before the end of its line, also where its quote is missing.
            b'\n' => self.is_in_string = false,
            b'"' => self.is_in_string = !is_in_string,
            _ if is_in_string => {}
            b'{' | b'[' => self.brackets.push(byte),
            b'}' => closes_value = self.close(b'{'),
            b']' => closes_value = self.close(b'['),
            _ => {}
        }
        Step {
            is_in_string,
            closes_value,
        }
    }

    /// Closes the innermost bracket of a kind, and those within it whose ends are missing. Returns whether none is left.
    fn close(&mut self, bracket: u8) -> bool {
        if let Some(at) = self.brackets.iter().rposition(|&open| open == bracket) {
            self.brackets.truncate(at);
            return at == 0;
        }
        false
    }

    /// Returns whether a value goes on after the end of a line, whose last byte is `last`, before the byte `next`.
    fn goes_on(&self, last: Option<u8>, next: Option<u8>) -> bool {
        match (last, next) {
            _ if self.is_in_string => false,
            // No key begins with a bracket: the line is damaged, and the next one is another object.
            (Some(b','), Some(b'{')) => self.brackets.last() == Some(&b'['),
            (Some(b'{' | b'[' | b',' | b':'), _) => true,
            (_, Some(b'}' | b']' | b',' | b':')) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Steps(&'static [u8]);

    impl Read for Steps {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let step = buffer.len().min(3);
            self.0.read(&mut buffer[..step])
        }
    }

    fn check(text: &'static str, want: &[(u64, &str)]) {
        let mut frames = Frames::new(Box::new(Steps(text.as_bytes()))).unwrap();
        let (mut frame, mut seen) = (Frame::default(), Vec::new());
        while match frames.next(&mut frame) {
            Ok(found) => found,
            Err(error) => {
                seen.push((0, error.to_string()));
                false
            }
        } {
            seen.push((frame.line, String::from_utf8(frame.text.clone()).unwrap()));
        }
        let want: Vec<(u64, String)> = want.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        assert_eq!(seen, want, "{text}");
    }

    #[test]
    fn objects_are_found_however_they_are_arranged() {
        check("{\"a\":1}\n\n{\"a\":2}\r\n", &[(1, "{\"a\":1}"), (3, "{\"a\":2}")]);
        check("{\"a\":1}", &[(1, "{\"a\":1}")]);
        check(
            "[{\"a\":1},{\"a\":\"]}\\\"\"}]",
            &[(1, "{\"a\":1}"), (1, "{\"a\":\"]}\\\"\"}")],
        );
        check(
            "\u{feff} [\n  {\n\"a\": [1, {}]},\n{}\n]\n",
            &[(2, "{\n\"a\": [1, {}]}"), (4, "{}")],
        );
        check(
            "{\n  \"a\": 1\n}\n{\n  \"a\": 2}\n",
            &[(1, "{\n  \"a\": 1\n}"), (4, "{\n  \"a\": 2}")],
        );
        check(
            "{\"a\": [\n{}]} {\"a\": 3}",
            &[(1, "{\"a\": [\n{}]}"), (2, "{\"a\": 3}")],
        );
        check("{\"a\":1}{\"a\":2}", &[(1, "{\"a\":1}"), (1, "{\"a\":2}")]);
        check("{\"a\":1},\n{\"a\":2},\n", &[(1, "{\"a\":1}"), (2, "{\"a\":2}")]);
        check("[{}]\n[{}]", &[(1, "{}"), (2, "{}")]);
        check("[]", &[]);
        check("", &[]);
    }

    #[test]
    fn damage_costs_one_object() {
        check("{\"a\":1\n{\"a\":2}\n", &[(1, "{\"a\":1"), (2, "{\"a\":2}")]);
        check("{\"a\":1,\n{\"a\":2}\n", &[(1, "{\"a\":1,"), (2, "{\"a\":2}")]);
        check("{\"a\":\"x\n{\"a\":2}\n", &[(1, "{\"a\":\"x"), (2, "{\"a\":2}")]);
        check(
            "[{\"a\":[1},{\"a\":\"x\n},7,[8,9],{}]",
            &[
                (1, "{\"a\":[1}"),
                (1, "{\"a\":\"x\n}"),
                (2, "7"),
                (2, "[8,9]"),
                (2, "{}"),
            ],
        );
        check("{\n\"a\":1}\nx\n{}", &[(1, "{\n\"a\":1}"), (3, "x"), (4, "{}")]);
        let cut_off = "the JSON array that begins at line 1 has no end: the file is likely to be cut off";
        check("[{\"a\":1},{\"a\"", &[(1, "{\"a\":1}"), (1, "{\"a\""), (0, cut_off)]);
        check("[{}", &[(1, "{}"), (0, cut_off)]);
    }

    #[test]
    fn long_objects_are_not_kept() {
        let long = format!("{{\"orders\": [{}\"x\"]}}", "\"x\",".repeat(MAX_RECORD_BYTES / 4));
        for text in [format!("[{long},{{}}]"), format!("{long}\n{{}}")] {
            let mut frames = Frames::new(Box::new(io::Cursor::new(text))).unwrap();
            let mut frame = Frame::default();
            assert!(frames.next(&mut frame).unwrap());
            assert_eq!(frame.text.len(), MAX_RECORD_BYTES + 1);
            assert_eq!((frame.is_too_long(), frame.array_key()), (true, Some("orders")));
            assert!(frames.next(&mut frame).unwrap());
            assert_eq!(frame.text, b"{}");
            assert!(!frames.next(&mut frame).unwrap());
        }
    }
}
