//! Reads and writes ratings by COPY in its binary format, the fastest transfer that PostgreSQL has.
//!
//! Only PostgreSQL can divide a table by `ctid`. Another engine would take ranges of `user_id` instead, and a SELECT of the
//! same rows where it has no COPY of a query.
//!
//! Source: PostgreSQL's documentation, "COPY", "Binary Format".

use std::ops::Range;

use chrono::DateTime;
use futures_util::TryStreamExt;

use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

/// Stands before the first row.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The flags and the length of a header extension, both empty.
const HEADER_REST: [u8; 8] = [0; 8];
/// Stands after the last row, in place of a number of columns.
const END: i16 = -1;
const N_COLUMNS: i16 = 4;

/// A row of `ratings` that has a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) struct RatingRow {
    pub user_id: i64,
    pub item_id: i64,
    pub value: f32,
    pub rated_at: Timestamp,
}

/// The size of `ratings`.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Extent {
    /// The pages of the table. They hold everything that the present transaction sees until it ends.
    pub blocks: i64,
    /// The number of rows, as PostgreSQL estimates it.
    pub rows: usize,
}

/// Reads the size of `ratings`, and keeps others from rewriting the table until the transaction ends.
pub(in crate::store) async fn ratings_extent(connection: &mut Connection) -> Result<Extent, StoreError> {
    sqlx::query!("LOCK TABLE ratings IN ACCESS SHARE MODE")
        .execute(&mut *connection)
        .await?;
    let extent = sqlx::query!(
        r#"SELECT pg_relation_size(oid) / current_setting('block_size')::bigint AS "blocks!", reltuples AS rows
           FROM pg_class WHERE oid = 'ratings'::regclass"#
    )
    .fetch_one(connection)
    .await?;
    Ok(Extent {
        blocks: extent.blocks,
        // PostgreSQL has -1 here until the first ANALYZE.
        rows: extent.rows.max(0.0) as usize,
    })
}

/// Hands every rating in `blocks` of `ratings` whose user allows training to `take`, in any order.
///
/// `by_default`: whether users who have said nothing about training allow it.
pub(in crate::store) async fn read_ratings(
    connection: &mut Connection,
    blocks: Range<i64>,
    by_default: bool,
    mut take: impl FnMut(RatingRow) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    // COPY takes no parameters. These are two numbers and a boolean, so the text is safe.
    let Range { start, end } = blocks;
    let statement = format!(
        "COPY (SELECT ratings.user_id, item_id, value, rated_at
               FROM ratings LEFT JOIN consents ON consents.user_id = ratings.user_id AND purpose = 'training'
               WHERE ratings.ctid >= '({start},0)' AND ratings.ctid < '({end},0)'
                 AND value IS NOT NULL AND COALESCE(is_granted, {by_default}))
         TO STDOUT (FORMAT binary)"
    );
    let mut messages = connection.copy_out_raw(&statement).await?;
    while let Some(message) = messages.try_next().await? {
        let mut bytes = without_header(&message);
        while let Some(row) = rating(&mut bytes)? {
            take(row)?;
        }
    }
    Ok(())
}

/// Inserts `rows`, none of which may exist.
///
/// # Errors
/// [`StoreError::Conflict`] when one exists. The transaction can then only be rolled back, as after every other error.
pub(in crate::store) async fn insert_ratings(
    connection: &mut Connection,
    rows: impl ExactSizeIterator<Item = RatingRow>,
    import_id: Option<i64>,
) -> Result<(), StoreError> {
    const ROW_BYTES: usize = 2 + 5 * 4 + 4 * 8 + 4;
    let mut bytes = Vec::with_capacity(SIGNATURE.len() + HEADER_REST.len() + rows.len() * ROW_BYTES + 2);
    bytes.extend_from_slice(SIGNATURE);
    bytes.extend_from_slice(&HEADER_REST);
    rows.for_each(|row| put_rating(&mut bytes, row, import_id));
    bytes.extend_from_slice(&END.to_be_bytes());
    let statement = "COPY ratings (user_id, item_id, value, rated_at, import_id) FROM STDIN (FORMAT binary)";
    let mut copy = connection.copy_in_raw(statement).await?;
    copy.send(bytes).await?;
    copy.finish().await.map_err(StoreError::of_insert)?;
    Ok(())
}

fn put_rating(bytes: &mut Vec<u8>, row: RatingRow, import_id: Option<i64>) {
    fn put_field<const W: usize>(bytes: &mut Vec<u8>, field: [u8; W]) {
        bytes.extend_from_slice(&(W as i32).to_be_bytes());
        bytes.extend_from_slice(&field);
    }
    const NULL: i32 = -1;
    bytes.extend_from_slice(&(N_COLUMNS + 1).to_be_bytes());
    put_field(bytes, row.user_id.to_be_bytes());
    put_field(bytes, row.item_id.to_be_bytes());
    put_field(bytes, row.value.to_be_bytes());
    put_field(bytes, (row.rated_at.timestamp_micros() - Y2000_MICROS).to_be_bytes());
    match import_id {
        Some(import_id) => put_field(bytes, import_id.to_be_bytes()),
        None => bytes.extend_from_slice(&NULL.to_be_bytes()),
    }
}

/// Removes the header, which stands in the message of the first row. PostgreSQL sends a message for every row.
fn without_header(message: &[u8]) -> &[u8] {
    match message.starts_with(SIGNATURE) {
        true => message.get(SIGNATURE.len() + HEADER_REST.len()..).unwrap_or_default(),
        false => message,
    }
}

/// Takes the row at the front of `bytes`. Returns `None` at their end, and at the mark for the end of all rows.
fn rating(bytes: &mut &[u8]) -> Result<Option<RatingRow>, StoreError> {
    let invalid = || StoreError::corrupt("ratings", "a row is not four columns of fixed width");
    if bytes.is_empty() {
        return Ok(None);
    }
    match i16::from_be_bytes(take_chunk(bytes).ok_or_else(invalid)?) {
        END => return Ok(None),
        N_COLUMNS => {}
        _ => return Err(invalid()),
    }
    let mut row = || {
        Some((
            i64::from_be_bytes(field(bytes)?),
            i64::from_be_bytes(field(bytes)?),
            f32::from_be_bytes(field(bytes)?),
            i64::from_be_bytes(field(bytes)?),
        ))
    };
    let (user_id, item_id, value, micros) = row().ok_or_else(invalid)?;
    let rated_at = timestamp(micros).ok_or_else(|| StoreError::corrupt("ratings", "rated_at is out of range"))?;
    Ok(Some(RatingRow {
        user_id,
        item_id,
        value,
        rated_at,
    }))
}

/// Takes a field that is not null and W bytes wide.
fn field<const W: usize>(bytes: &mut &[u8]) -> Option<[u8; W]> {
    match i32::from_be_bytes(take_chunk(bytes)?) {
        width if width == W as i32 => take_chunk(bytes),
        _ => None,
    }
}

fn take_chunk<const W: usize>(bytes: &mut &[u8]) -> Option<[u8; W]> {
    let (chunk, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*chunk)
}

/// 2000-01-01, the epoch of PostgreSQL.
const Y2000_MICROS: i64 = 946_684_800_000_000;

/// `micros`: microseconds since 2000-01-01.
fn timestamp(micros: i64) -> Option<Timestamp> {
    DateTime::from_timestamp_micros(micros.checked_add(Y2000_MICROS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of PostgreSQL 15 for `COPY (SELECT 7::bigint, 9::bigint, 4.5::real, '2000-01-01 00:00:01Z'::timestamptz)`.
    const MESSAGES: [&[u8]; 2] = [
        b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
          \0\x04\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x08\0\0\0\0\0\0\0\x09\0\0\0\x04\x40\x90\0\0\0\0\0\x08\0\0\0\0\0\x0f\x42\x40",
        b"\xff\xff",
    ];

    fn rows(message: &[u8]) -> Result<Vec<RatingRow>, StoreError> {
        let mut bytes = without_header(message);
        std::iter::from_fn(|| rating(&mut bytes).transpose()).collect()
    }

    #[test]
    fn rows_are_read() {
        let expected = RatingRow {
            user_id: 7,
            item_id: 9,
            value: 4.5,
            rated_at: DateTime::from_timestamp_secs(946_684_801).unwrap(),
        };
        let row = without_header(MESSAGES[0]);
        assert_eq!(rows(MESSAGES[0]).unwrap(), [expected]);
        assert_eq!(rows(row).unwrap(), [expected]);
        assert_eq!(rows(&[row, row].concat()).unwrap(), [expected; 2]);
        assert_eq!(rows(MESSAGES[1]).unwrap(), []);
    }

    #[test]
    fn rows_are_written_as_they_are_read() {
        let row = without_header(MESSAGES[0]);
        let written = |import_id| {
            let mut bytes = Vec::new();
            put_rating(&mut bytes, rows(row).unwrap()[0], import_id);
            bytes
        };
        // The same, with one more column.
        let import_id = [&[0, 0, 0, 8][..], &7i64.to_be_bytes()].concat();
        assert_eq!(written(Some(7)), [&[0, 5][..], &row[2..], &import_id].concat());
        assert_eq!(written(None), [&[0, 5][..], &row[2..], &[0xff; 4]].concat());
    }

    #[test]
    fn anything_else_is_an_error() {
        let row = without_header(MESSAGES[0]);
        for end in 1..row.len() {
            rows(&row[..end]).unwrap_err();
        }
        let null = [&row[..2], &[0xff; 4], &row[14..]].concat();
        rows(&null).unwrap_err();
        let infinity = [&row[..row.len() - 8], &i64::MAX.to_be_bytes()].concat();
        rows(&infinity).unwrap_err();
    }
}
