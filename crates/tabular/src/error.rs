//! The reasons why an input cannot be opened.

use std::io;

use crate::option_names::OptionNames;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot be read")]
    Read(#[from] io::Error),
    #[error("is {what}, which cannot be imported; {remedy}")]
    Format { what: &'static str, remedy: String },
    #[error("is not text in UTF-8; it looks like {guess}: add {}{}", .names.with("--encoding", .guess), delimited(*.delimiter, *.names))]
    Encoding {
        guess: &'static str,
        /// The likely delimiter, if it is another than the one that was given.
        delimiter: Option<char>,
        names: OptionNames,
    },
    #[error(
        "cannot be read in the encoding {name:?}, which is not known; known are utf-8, utf-16le, latin1, windows-1251, shift_jis and the others of the WHATWG standard"
    )]
    UnknownEncoding { name: String },
    #[error("is empty, but must have a first line with the names of its columns")]
    Empty,
    #[error("has a malformed header line: {0}")]
    Header(String),
    #[error("{0}")]
    Content(String),
}

fn delimited(delimiter: Option<char>, names: OptionNames) -> String {
    match (delimiter, names) {
        (None, _) => String::new(),
        (Some('\t'), _) => format!(", and {}", names.with("--delimiter", "tab")),
        (Some(sign), OptionNames::Arguments) => format!(", and {}", names.with("--delimiter", format!("'{sign}'"))),
        (Some(sign), OptionNames::Fields) => format!(", and {}", names.with("--delimiter", sign)),
    }
}
