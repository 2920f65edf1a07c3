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

impl Dialect {
    /// Returns the delimiter if `csv-core` knows the dialect.
    fn simple_delimiter(&self) -> Option<u8> {
        match (&self.delimiter, self.escape) {
            (Delimiter::Byte(byte), None) => Some(*byte),
            _ => None,
        }
    }
}
