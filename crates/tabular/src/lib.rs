//! Turns files as people have them into the same rows: CSV in its dialects and encodings, JSON, Parquet and Excel
//! workbooks. It knows nothing of what the rows mean.
//!
//! [`open`] reads the beginning of an [`Input`](input::Input), tells its format, and returns a [`Source`](open::Source) of
//! [`Record`](record::Record)s whose cells are text. Every source reads in bounded memory.

pub mod cells;
pub mod csv;
pub mod encoding;
pub mod error;
pub mod header;
pub mod input;
mod json;
pub mod open;
pub mod option_names;
mod parquet_rows;
pub mod record;
mod spool;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
mod workbook;
