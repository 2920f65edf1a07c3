//! Reads Parquet files row by row. A page of each column is in memory at a time, however large the row groups are.
//!
//! A struct gives a column for each of its fields, such as `customer.id`; a list or map is one column with its JSON.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, NaiveDate, SecondsFormat};
use parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use parquet::data_type::Decimal;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use crate::error::OpenError;
use crate::record::{Malformed, Record, RowBuffer, Rows};

pub(crate) struct ParquetRows {
    rows: RowIter<'static>,
    columns: Vec<Column>,
    row: RowBuffer,
    line: u64,
    n_rows: u64,
    bytes: u64,
    bytes_read: Arc<AtomicU64>,
}

/// A column of the file, or a struct with columns of its own.
enum Column {
    Cell(Option<Moment>),
    Struct(Vec<Column>),
}

/// How a number that is an instant or a local time is counted.
#[derive(Clone, Copy)]
struct Moment {
    per_second: i64,
    is_utc: bool,
}

impl ParquetRows {
    /// Reads the schema. Returns the rows and the names of the columns.
    pub fn open(file: File, bytes_read: Arc<AtomicU64>) -> Result<(Self, Vec<String>), OpenError> {
        let bytes = file.metadata()?.len();
        let damaged = |error: ParquetError| OpenError::Content(format!("is no Parquet file that can be read: {error}"));
        let reader = SerializedFileReader::new(file).map_err(damaged)?;
        let metadata = reader.metadata().file_metadata();
        let mut header = Vec::new();
        let columns = columns(metadata.schema(), "", &mut header)?;
        let n_rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let rows = Self {
            rows: RowIter::from_file_into(Box::new(reader)),
            columns,
            row: RowBuffer::default(),
            line: 0,
            n_rows,
            bytes,
            bytes_read,
        };
        Ok((rows, header))
    }
}

/// Appends the names of the columns of `group` to `header`.
fn columns(group: &Type, prefix: &str, header: &mut Vec<String>) -> Result<Vec<Column>, OpenError> {
    let mut columns = Vec::new();
    for field in group.get_fields() {
        let info = field.get_basic_info();
        let name = format!("{prefix}{}", info.name());
        let is_struct = field.is_group()
            && info.converted_type() == ConvertedType::NONE
            && info.logical_type_ref().is_none()
            && !(info.has_repetition() && info.repetition() == parquet::basic::Repetition::REPEATED);
        if is_struct {
            columns.push(Column::Struct(self::columns(field, &format!("{name}."), header)?));
            continue;
        }
        if info.converted_type() == ConvertedType::INTERVAL {
            return Err(OpenError::Content(format!(
                "has the column {name} of the type INTERVAL, which cannot be read: leave it out of the file"
            )));
        }
        header.push(name);
        columns.push(Column::Cell(moment(info.logical_type_ref(), info.converted_type())));
    }
    Ok(columns)
}

fn moment(logical: Option<&LogicalType>, converted: ConvertedType) -> Option<Moment> {
    let of = |per_second, is_utc| Some(Moment { per_second, is_utc });
    match (logical, converted) {
        (Some(LogicalType::Timestamp(timestamp)), _) => {
            let per_second = match timestamp.unit {
                TimeUnit::MILLIS => 1_000,
                TimeUnit::MICROS => 1_000_000,
                TimeUnit::NANOS => 1_000_000_000,
            };
            of(per_second, timestamp.is_adjusted_to_u_t_c)
        }
        (_, ConvertedType::TIMESTAMP_MILLIS) => of(1_000, true),
        (_, ConvertedType::TIMESTAMP_MICROS) => of(1_000_000, true),
        _ => None,
    }
}

impl Rows for ParquetRows {
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Malformed<'_>>>> {
        // The library panics at some kinds of damage.
        let next = catch_unwind(AssertUnwindSafe(|| self.rows.next()));
        let damaged = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
        let row = match next {
            Err(_) => return Err(damaged(format!("row {} of the Parquet file is damaged", self.line + 1))),
            Ok(None) => {
                self.bytes_read.store(self.bytes, Ordering::Relaxed);
                return Ok(None);
            }
            Ok(Some(Err(error))) => return Err(damaged(problem(&error))),
            Ok(Some(Ok(row))) => row,
        };
        self.line += 1;
        self.row.clear();
        push_row(&mut self.row, &self.columns, Some(&row));
        if self.line.is_multiple_of(1024) {
            let done = self.bytes as f64 * self.line as f64 / self.n_rows.max(1) as f64;
            self.bytes_read.store(self.bytes.min(done as u64), Ordering::Relaxed);
        }
        Ok(Some(Ok(self.row.record(self.line, None))))
    }
}

fn problem(error: &ParquetError) -> String {
    let text = error.to_string();
    match text.contains("Disabled feature") {
        true => "the Parquet file is compressed with another codec than snappy, gzip and zstd".to_owned(),
        false => text,
    }
}

fn push_row(cells: &mut RowBuffer, columns: &[Column], row: Option<&Row>) {
    let mut fields = row.map(Row::get_column_iter);
    for column in columns {
        let field = fields.as_mut().and_then(|fields| fields.next()).map(|(_, field)| field);
        match (column, field) {
            (Column::Struct(columns), Some(Field::Group(row))) => push_row(cells, columns, Some(row)),
            (Column::Struct(columns), _) => push_row(cells, columns, None),
            (Column::Cell(moment), field) => {
                if let Some(field) = field {
                    write(&mut cells.bytes, field, *moment);
                }
                cells.end_cell();
            }
        }
    }
}

/// Appends the text of `field`; nothing for null.
fn write(bytes: &mut Vec<u8>, field: &Field, moment: Option<Moment>) {
    use std::io::Write;
    let count = match field {
        Field::Long(count) | Field::TimestampMicros(count) | Field::TimestampMillis(count) => Some(*count),
        _ => None,
    };
    if let (Some(moment), Some(count)) = (moment, count) {
        return bytes.extend_from_slice(moment.text(count).as_bytes());
    }
    // Writing into memory cannot fail.
    let _ = match field {
        Field::Null => Ok(()),
        Field::Bool(value) => write!(bytes, "{value}"),
        Field::Byte(value) => write!(bytes, "{value}"),
        Field::Short(value) => write!(bytes, "{value}"),
        Field::Int(value) => write!(bytes, "{value}"),
        Field::Long(value) => write!(bytes, "{value}"),
        Field::UByte(value) => write!(bytes, "{value}"),
        Field::UShort(value) => write!(bytes, "{value}"),
        Field::UInt(value) => write!(bytes, "{value}"),
        Field::ULong(value) => write!(bytes, "{value}"),
        Field::Float16(value) => write!(bytes, "{value}"),
        // The shortest text that gives the same number. NaN is how some programs write an absent number.
        Field::Float(value) if value.is_nan() => Ok(()),
        Field::Double(value) if value.is_nan() => Ok(()),
        Field::Float(value) => write!(bytes, "{value}"),
        Field::Double(value) => write!(bytes, "{value}"),
        Field::Decimal(value) => write!(bytes, "{}", decimal(value)),
        Field::Str(text) => bytes.write_all(text.as_bytes()),
        Field::Bytes(data) => bytes.write_all(data.data()),
        Field::Date(days) => write!(bytes, "{}", date(*days)),
        Field::TimestampMillis(_) => write!(bytes, "{field}"),
        Field::TimeMillis(_) | Field::TimeMicros(_) | Field::TimestampMicros(_) => write!(bytes, "{field}"),
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => write!(bytes, "{field}"),
    };
}

impl Moment {
    fn text(self, count: i64) -> String {
        let seconds = count.div_euclid(self.per_second);
        let nanos = count.rem_euclid(self.per_second) * (1_000_000_000 / self.per_second);
        let Some(instant) = DateTime::from_timestamp(seconds, nanos as u32) else {
            return count.to_string();
        };
        match self.is_utc {
            true => instant.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            false => instant.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string(),
        }
    }
}

fn date(days: i32) -> String {
    const EPOCH: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).expect("the epoch is a date");
    match EPOCH.checked_add_signed(chrono::Duration::days(days.into())) {
        Some(date) => date.to_string(),
        None => days.to_string(),
    }
}

/// Returns the number of at most 38 digits in decimal notation.
fn decimal(value: &Decimal) -> String {
    let bytes = value.data();
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        0xff
    } else {
        0
    };
    let mut wide = [sign; 16];
    let Some(start) = wide.len().checked_sub(bytes.len()) else {
        return String::from("a decimal of more than 38 digits");
    };
    wide[start..].copy_from_slice(bytes);
    let unscaled = i128::from_be_bytes(wide);
    let scale = usize::try_from(value.scale()).unwrap_or(0);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let minus = if unscaled < 0 { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    format!("{minus}{whole}{point}{fraction}")
}
