//! CSV and its dialects.

pub(crate) mod records;
mod split;

/// How a file of text divides its records into fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    pub delimiter: Delimiter,
    /// Encloses fields; doubled, it stands for itself. `None`: quotes are letters like others.
    pub quote: Option<u8>,
    /// Takes the meaning of the character after it, inside and outside of quotes.
    pub escape: Option<u8>,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            delimiter: Delimiter::Byte(b','),
            quote: Some(b'"'),
            escape: None,
        }
    }
}

/// The text between two fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delimiter {
    Byte(u8),
    /// Several characters, or one outside of ASCII; not empty.
    Text(String),
    /// One or more spaces and tabs. Those at the ends of a line mean nothing.
    Whitespace,
}

impl Delimiter {
    /// Parses a delimiter. The words `tab` and `whitespace` stand for a tab and for any number of spaces and tabs.
    ///
    /// # Errors
    /// Says how the text must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "tab" | "\\t" => Ok(Self::Byte(b'\t')),
            "whitespace" => Ok(Self::Whitespace),
            "" => Err("must not be empty".to_owned()),
            text if text.contains(['"', '\n', '\r']) => Err("must not have a quote or a line end".to_owned()),
            text => Ok(match text.as_bytes() {
                [byte] => Self::Byte(*byte),
                _ => Self::Text(text.to_owned()),
            }),
        }
    }
}

/// Parses the character that encloses fields; `none` stands for no such character.
///
/// # Errors
/// Says how the text must be.
pub fn quote(text: &str) -> Result<Option<u8>, String> {
    match text {
        "none" => Ok(None),
        text => one_character(text).map(Some),
    }
}

/// Parses a quote or an escape character.
///
/// # Errors
/// Says how the text must be.
pub fn one_character(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Ok(*byte),
        _ => Err("must be one visible ASCII character".to_owned()),
    }
}

impl Dialect {
    /// Returns the delimiter if `csv-core` knows the dialect.
    fn simple_delimiter(&self) -> Option<u8> {
        match (&self.delimiter, self.escape) {
            (Delimiter::Byte(byte), None) => Some(*byte),
            _ => None,
        }
    }
}
