//! Reads Parquet files row by row. A page of each column is in memory at a time, however large the row groups are.
//!
//! A struct gives a column for each of its fields, such as `customer.id`; a list or map is one column with its JSON.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, NaiveDate, SecondsFormat};
use parquet::basic::{Compression, ConvertedType, LogicalType, TimeUnit};
use parquet::data_type::Decimal;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
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
    Cell(Shape),
    Struct(Vec<Column>),
}

/// How the value of a cell is to be understood, where its type alone does not tell.
#[derive(Clone, Copy)]
enum Shape {
    Plain,
    Moment(Moment),
    /// 16 bytes.
    Uuid,
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
        let damaged = |error: ParquetError| {
            OpenError::Content(format!("is no Parquet file that can be read: {}", problem(&error)))
        };
        let reader = SerializedFileReader::new(file).map_err(damaged)?;
        check_codecs(reader.metadata())?;
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
        columns.push(Column::Cell(shape(info.logical_type_ref(), info.converted_type())));
    }
    Ok(columns)
}

fn shape(logical: Option<&LogicalType>, converted: ConvertedType) -> Shape {
    let of = |per_second, is_utc| Shape::Moment(Moment { per_second, is_utc });
    match (logical, converted) {
        (Some(LogicalType::Uuid), _) => Shape::Uuid,
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
        _ => Shape::Plain,
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

/// Returns the error of the library without the names of its kinds.
fn problem(error: &ParquetError) -> String {
    let text = error.to_string();
    let kinds = ["Parquet error: ", "External: ", "EOF: "];
    kinds
        .iter()
        .fold(text.as_str(), |text, kind| text.trim_start_matches(kind))
        .to_owned()
}

/// Refuses a file whose columns are compressed with a codec that is not read.
fn check_codecs(metadata: &ParquetMetaData) -> Result<(), OpenError> {
    let mut columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let is_read = |codec| {
        matches!(
            codec,
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_)
        )
    };
    match columns.find(|column| !is_read(column.compression())) {
        None => Ok(()),
        Some(column) => Err(OpenError::Content(format!(
            "has the column {} compressed with {}, and only snappy, gzip and zstd can be read: write the file with one of them",
            column.column_path().string(),
            column.compression()
        ))),
    }
}

fn push_row(cells: &mut RowBuffer, columns: &[Column], row: Option<&Row>) {
    let mut fields = row.map(Row::get_column_iter);
    for column in columns {
        let field = fields.as_mut().and_then(|fields| fields.next()).map(|(_, field)| field);
        match (column, field) {
            (Column::Struct(columns), Some(Field::Group(row))) => push_row(cells, columns, Some(row)),
            (Column::Struct(columns), _) => push_row(cells, columns, None),
            (Column::Cell(shape), field) => {
                if let Some(field) = field {
                    write(&mut cells.bytes, field, *shape);
                }
                cells.end_cell();
            }
        }
    }
}

/// Appends the text of `field`; nothing for null.
fn write(bytes: &mut Vec<u8>, field: &Field, shape: Shape) {
    use std::io::Write;
    let count = match field {
        Field::Long(count) | Field::TimestampMicros(count) | Field::TimestampMillis(count) => Some(*count),
        _ => None,
    };
    match (shape, count, field) {
        (Shape::Moment(moment), Some(count), _) => return bytes.extend_from_slice(moment.text(count).as_bytes()),
        (Shape::Uuid, _, Field::Bytes(data)) => return bytes.extend_from_slice(uuid(data.data()).as_bytes()),
        _ => {}
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

fn uuid(bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match bytes.len() {
        16 => [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]]
            .map(hex)
            .join("-"),
        _ => hex(bytes),
    }
}

/// Returns the number in decimal notation.
fn decimal(value: &Decimal) -> String {
    let bytes = value.data();
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let digits = match bytes.len() {
        0..=16 => {
            let mut wide = [if is_negative { 0xff } else { 0 }; 16];
            wide[16 - bytes.len()..].copy_from_slice(bytes);
            i128::from_be_bytes(wide).unsigned_abs().to_string()
        }
        _ => magnitude(bytes, is_negative),
    };
    let scale = usize::try_from(value.scale()).unwrap_or(0);
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let minus = if is_negative { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    format!("{minus}{whole}{point}{fraction}")
}

/// Returns the decimal digits of the absolute value of a number in two's complement, of any length.
fn magnitude(bytes: &[u8], is_negative: bool) -> String {
    let mut rest: Vec<u8> = bytes
        .iter()
        .map(|byte| if is_negative { !byte } else { *byte })
        .collect();
    if is_negative {
        for byte in rest.iter_mut().rev() {
            let (next, carries) = byte.overflowing_add(1);
            *byte = next;
            if !carries {
                break;
            }
        }
    }
    let mut digits = Vec::new();
    while rest.iter().any(|&byte| byte != 0) {
        let mut remainder = 0_u16;
        for byte in &mut rest {
            let value = (remainder << 8) | u16::from(*byte);
            *byte = (value / 10) as u8;
            remainder = value % 10;
        }
        digits.push(char::from(b'0' + remainder as u8));
    }
    match digits.is_empty() {
        true => "0".to_owned(),
        false => digits.iter().rev().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_any_length_are_written_out() {
        let check = |bytes: &[u8], scale, want: &str| {
            let value = Decimal::from_bytes(bytes.to_vec().into(), 76, scale);
            assert_eq!(decimal(&value), want, "{bytes:?}");
        };
        check(&[0x04, 0xd2], 2, "12.34");
        check(&[0xff], 2, "-0.01");
        check(&[], 0, "0");
        let wide = |bytes: [u8; 2], sign: u8| [&[sign; 22][..], &bytes].concat();
        check(&wide([0x04, 0xd2], 0), 3, "1.234");
        check(&wide([0xfb, 0x2e], 0xff), 3, "-1.234");
        check(&wide([0, 0], 0), 2, "0.00");
        check(
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            0,
            "340282366920938463463374607431768211456",
        );
    }

    #[test]
    fn uuids_are_written_as_they_are_known() {
        let bytes: Vec<u8> = (0..16).collect();
        assert_eq!(uuid(&bytes), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
