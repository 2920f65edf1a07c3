//! Printing for all commands. Those of the standard library panic when nobody reads any more, as in `likemind config | true`.
//!
//! A reader that has gone away is no failure: the command does its work, and what it would still print is dropped. Any
//! other error, such as a full disk, is reported once, when the command has ended.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

/// The first error of standard output.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints to standard output.
pub(super) fn print(text: Arguments) {
    match io::stdout().write_fmt(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            // The first error says enough.
            let _ = FAILURE.set(error);
        }
        _ => {}
    }
}

/// Prints to standard error, whose own errors can be told to nobody.
pub(super) fn print_error(text: Arguments) {
    let _ = io::stderr().write_fmt(text);
}

/// Returns why standard output could not be written, if somebody might still read it.
pub(super) fn failure() -> Option<&'static io::Error> {
    FAILURE.get()
}

macro_rules! print {
    ($($text:tt)*) => {
        $crate::cli::output::print(format_args!($($text)*))
    };
}

macro_rules! println {
    () => {
        $crate::cli::output::print(format_args!("\n"))
    };
    ($($text:tt)*) => {
        $crate::cli::output::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::cli::output::print_error(format_args!("{}\n", format_args!($($text)*)))
    };
}
