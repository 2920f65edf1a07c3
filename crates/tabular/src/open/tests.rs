use std::io::Cursor;

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::testing::{Cell, Sheet, workbook, workbook_of};

/// Returns the header and the rows, cells joined by `|`, or the error.
fn read(bytes: &[u8], options: &ReadOptions) -> Result<(String, Vec<String>), String> {
    let input = Input::new("test", Cursor::new(bytes.to_vec()), None);
    let mut source = open(input, options).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    while let Some(next) = source.rows.next().map_err(|error| error.to_string())? {
        rows.push(match next {
            Ok(record) => {
                let cell = |index| String::from_utf8_lossy(record.field(index)).into_owned();
                let cells: Vec<String> = (0..record.width()).map(cell).collect();
                format!("{}: {}", record.line, cells.join("|"))
            }
            Err(malformed) => format!("{}! {}", malformed.line, malformed.reason),
        });
    }
    Ok((source.header.join("|"), rows))
}

fn check(bytes: &[u8], options: &ReadOptions, header: &str, rows: &[&str]) {
    let got = read(bytes, options).unwrap();
    let want: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
    assert_eq!(got, (header.to_owned(), want), "{:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn a_file_without_header_has_numbered_columns() {
    let options = ReadOptions {
        has_header: false,
        ..ReadOptions::default()
    };
    check(
        b"196,242,3\n186,302\n22,377,1",
        &options,
        "1|2|3",
        &["1: 196|242|3", "2! WRONG_FIELD_COUNT", "3: 22|377|1"],
    );
    assert!(read(b"", &options).unwrap_err().contains("is empty"));
    let source = open(
        Input::new("test", Cursor::new(b"196,242,3\n".to_vec()), None),
        &ReadOptions::default(),
    )
    .unwrap();
    assert!(source.header_looks_like_data);
}

#[test]
fn a_first_line_may_name_the_delimiter() {
    let default = ReadOptions::default();
    check(b"sep=;\na;b\n1;2\n", &default, "a|b", &["3: 1|2"]);
    check(b"\xef\xbb\xbfsep=\t\r\na\tb\r\n1\t2\r\n", &default, "a|b", &["3: 1|2"]);
    check(b"\"sep=;\"\na;b\n1;2\n", &default, "a|b", &["3: 1|2"]);
    check(b"sep=x,b\n1,2\n", &default, "sep=x|b", &["2: 1|2"]);
}

#[test]
fn text_in_other_encodings_is_read_or_the_encoding_guessed() {
    let default = ReadOptions::default();
    let encoded = |name: &str| ReadOptions {
        encoding: Some(name.to_owned()),
        ..ReadOptions::default()
    };
    check(b"n\xe4me,b\nK\xe4se,1\n", &encoded("latin1"), "näme|b", &["2: Käse|1"]);
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    check(&utf16("\u{feff}näme,b\nKäse,1\n"), &default, "näme|b", &["2: Käse|1"]);
    check(
        &utf16("näme,b\nKäse,1\n"),
        &encoded("utf-16le"),
        "näme|b",
        &["2: Käse|1"],
    );
    let refused = |bytes: &[u8], options: &ReadOptions, part: &str| {
        let error = read(bytes, options).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    refused(&utf16("name,b\nKase,1\n"), &default, "add --encoding UTF-16LE");
    refused(
        b"n\xe4me,gr\xf6\xdfe\nK\xe4se,1\n",
        &default,
        "add --encoding windows-1252",
    );
    refused(
        b"n\xe4me;gr\xf6\xdfe\nK\xe4se;1\n",
        &default,
        "add --encoding windows-1252, and --delimiter ';'",
    );
    refused(b"a,b\n", &encoded("klingon"), "\"klingon\"");
}

#[test]
fn formats_that_cannot_be_read_are_named_with_the_remedy() {
    let check = |bytes: &[u8], part: &str| {
        let error = read(bytes, &ReadOptions::default()).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    check(b"BZh91AY&SY\x01\x02", "bzcat FILE | likemind import KIND -");
    check(b"PARE\x01\x02\x03\x04", "an encrypted Parquet file");
    check(&[&[b'a'; 257][..], b"ustar\0"].concat(), "a tar archive");
    check(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0", "is empty");
    check(
        b"Obj\x01\x04\x14avro.codec",
        "an Avro file, which cannot be imported; convert it to Parquet or CSV",
    );
    check(b"<?XML version=\"1.0\"?><Workbook>", "save it as .xlsx or CSV");
    check(
        b"-- MySQL dump 10.13\nINSERT INTO r VALUES (1);\n",
        "a dump of a database",
    );
    check(b"\n <html><table>", "an HTML page");
    check(b"\xff\xfe\0\0a\0\0\0", "UTF-32");
    check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no text");
    check(b"\xa4\x96\x6b\x89\x96\x15\x81\x6b\x82\x15", "text in EBCDIC");
    check(b"{'user': 'a', 'stars': 5.0}\n", "the notation of Python");
    check(b"\xfd7zXZ\0...", "xzcat");
    check(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as .xlsx");
    check(b"[]", "has no JSON object");
    check(b"PAR1....", "no Parquet file");
    check(b"PK\x03\x04....", "no Excel workbook");
    check(b"", "is empty");
    check(b"\"a", "malformed header");
}

#[test]
fn names_of_columns_may_begin_like_another_format() {
    let default = ReadOptions::default();
    check(b"PARENT,ORC\n1,2\n", &default, "PARENT|ORC", &["2: 1|2"]);
    check(b"ORC\n1\n", &default, "ORC", &["2: 1"]);
}

#[test]
fn empty_fields_at_the_end_of_a_line_do_not_count() {
    let piped = |dialect: Dialect| ReadOptions {
        dialect,
        ..ReadOptions::default()
    };
    let byte = Dialect {
        delimiter: Delimiter::Byte(b'|'),
        ..Dialect::default()
    };
    let text = Dialect {
        delimiter: Delimiter::Text("|".to_owned()),
        ..Dialect::default()
    };
    for dialect in [byte, text] {
        check(
            b"a|b\n1|2|\n3|\"4\n5\"||\r\n6|7|8\n9\n",
            &piped(dialect),
            "a|b",
            &["2: 1|2", "3: 3|4\n5", "5! WRONG_FIELD_COUNT", "6! WRONG_FIELD_COUNT"],
        );
    }
}

#[test]
fn lines_before_the_header_are_left_out() {
    let skipping = |skip_lines| ReadOptions {
        skip_lines,
        ..ReadOptions::default()
    };
    let text = b"Report\n\nof May\na,b\n1,2\n";
    check(text, &skipping(2), "a|b", &["5: 1|2"]);
    let error = read(text, &skipping(u32::MAX)).unwrap_err();
    assert!(error.starts_with("is empty"), "{error}");
    let error = read(
        b"a\n1\n",
        &ReadOptions {
            sheet: Some("s".to_owned()),
            ..ReadOptions::default()
        },
    )
    .unwrap_err();
    assert_eq!(error, "is no workbook, but --sheet is given");
    let error = read(b"{\"a\": 1}\n", &skipping(1)).unwrap_err();
    assert!(error.contains("--skip-lines is given"), "{error}");
}

#[test]
fn lines_may_end_with_a_carriage_return_alone() {
    let default = ReadOptions::default();
    check(b"a,b\r1,2\r\"x\r\",4\r", &default, "a|b", &["2: 1|2", "3: x\n|4"]);
    check(b"a,b\r\n1,2\r\n", &default, "a|b", &["2: 1|2"]);
}

#[test]
fn a_sheet_of_a_workbook_is_read() {
    use Cell::{Empty, Moment, Number, Text};
    let rows = [
        vec![],
        vec![Text("InvoiceNo"), Text(" Price "), Text("At")],
        vec![Text("536365"), Number(2.55), Moment(40_513.0 + 506.0 / 1_440.0)],
        vec![],
        vec![Number(17850.0), Empty, Moment(40513.0)],
        vec![Text("a"), Number(4.44e-16), Empty, Text("more")],
    ];
    let bytes = workbook("Online Retail", &rows);
    let sheet = |name: Option<&str>| ReadOptions {
        sheet: name.map(str::to_owned),
        ..ReadOptions::default()
    };
    for options in [sheet(None), sheet(Some("Online Retail"))] {
        check(
            &bytes,
            &options,
            "InvoiceNo|Price|At",
            &[
                "3: 536365|2.55|2010-12-01T08:26:00",
                "5: 17850||2010-12-01",
                "6! WRONG_FIELD_COUNT",
            ],
        );
    }
    let error = read(&bytes, &sheet(Some("Data"))).unwrap_err();
    assert_eq!(error, "has no sheet \"Data\"; its sheets are Online Retail");
    let no_header = ReadOptions {
        has_header: false,
        ..ReadOptions::default()
    };
    assert_eq!(read(&bytes, &no_header).unwrap().0, "1|2|3");
    let skipping = ReadOptions {
        skip_lines: 1,
        ..ReadOptions::default()
    };
    check(
        &bytes,
        &skipping,
        "536365|2.55|2010-12-01T08:26:00",
        &["5: 17850||2010-12-01", "6! WRONG_FIELD_COUNT"],
    );
    let error = read(&bytes[..bytes.len() / 2], &ReadOptions::default()).unwrap_err();
    assert!(error.contains("no Excel workbook that can be read"), "{error}");
}

/// Returns a Parquet file of `n_rows` rows in groups of 1,000.
fn parquet_file(n_rows: i64, compression: Compression) -> Vec<u8> {
    let schema = "message rows {
        optional binary user_id (UTF8);
        required int64 item;
        optional group price { required double amount; }
        required int64 at (TIMESTAMP(MICROS, true));
        required int64 local (TIMESTAMP(NANOS, false));
        required int32 day (DATE);
        required int32 total (DECIMAL(9, 2));
    }";
    let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
    let properties = std::sync::Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut first = 0;
    while first < n_rows {
        let rows = first..n_rows.min(first + 1_000);
        first = rows.end;
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let path = column.untyped();
            match path {
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    // Every third user is absent.
                    let levels: Vec<i16> = rows.clone().map(|row| i16::from(row % 3 != 0)).collect();
                    let present = rows.clone().filter(|row| row % 3 != 0);
                    let users: Vec<ByteArray> = present.map(|row| format!("u{row}").as_str().into()).collect();
                    writer.write_batch(&users, Some(&levels), None).unwrap();
                }
                ColumnWriter::DoubleColumnWriter(writer) => {
                    let prices: Vec<f64> = rows.clone().map(|row| row as f64 + 0.1).collect();
                    writer.write_batch(&prices, Some(&vec![1; prices.len()]), None).unwrap();
                }
                ColumnWriter::Int64ColumnWriter(writer) => {
                    let scale = match writer.get_descriptor().name() {
                        "at" => 1_500_000,
                        "local" => 1_000_000_001,
                        _ => 1,
                    };
                    let numbers: Vec<i64> = rows.clone().map(|row| row * scale).collect();
                    writer.write_batch(&numbers, None, None).unwrap();
                }
                ColumnWriter::Int32ColumnWriter(writer) => {
                    let numbers: Vec<i32> = rows.clone().map(|row| row as i32 - 1).collect();
                    writer.write_batch(&numbers, None, None).unwrap();
                }
                _ => unreachable!("the schema has no other column"),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn parquet_is_read_whatever_its_codec() {
    let header = "user_id|item|price.amount|at|local|day|total";
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let (got, rows) = read(&parquet_file(2_500, compression), &ReadOptions::default()).unwrap();
        assert_eq!((got.as_str(), rows.len()), (header, 2_500), "{compression:?}");
        assert_eq!(
            rows[0],
            "1: |0|0.1|1970-01-01T00:00:00Z|1970-01-01T00:00:00|1969-12-31|-0.01"
        );
        assert_eq!(
            rows[1],
            "2: u1|1|1.1|1970-01-01T00:00:01.500Z|1970-01-01T00:00:01.000000001|1970-01-01|0.00"
        );
        assert!(rows[2_499].starts_with("2500: |2499|2499.1|"), "{}", rows[2_499]);
    }
}

#[test]
fn damaged_parquet_is_an_error() {
    let file = parquet_file(100, Compression::SNAPPY);
    assert!(read(&file[..file.len() - 20], &ReadOptions::default()).is_err());
    let mut damaged = file.clone();
    damaged[10..200].fill(0xff);
    assert!(read(&damaged, &ReadOptions::default()).is_err());
}

#[test]
fn the_first_sheet_that_is_shown_is_read_and_others_are_named() {
    use Cell::{Error, Moment, Number, Text};
    let rows = |item| vec![vec![Text("item"), Text("value")], vec![Text(item), Number(1.0)]];
    let (notes, tea, cake) = (rows("note"), rows("tea"), rows("cake"));
    let sheet = |name, is_hidden, rows| Sheet { name, is_hidden, rows };
    let bytes = workbook_of(&[
        sheet("Notes", true, &notes[..]),
        sheet("2010", false, &tea),
        sheet("Empty", false, &[]),
        sheet("2011", false, &cake),
    ]);
    let read = |name: Option<&str>| {
        let input = Input::new("test", Cursor::new(bytes.clone()), None);
        let options = ReadOptions {
            sheet: name.map(str::to_owned),
            ..ReadOptions::default()
        };
        let mut rows = open(input, &options).unwrap().rows;
        let cell = rows.next().unwrap().unwrap().unwrap().field(0).to_vec();
        (String::from_utf8(cell).unwrap(), rows.notes())
    };
    let note = "The workbook has other sheets, which were not read: 2011. Import each of them with --sheet.";
    assert_eq!(read(None), ("tea".to_owned(), vec![note.to_owned()]));
    assert_eq!(read(Some("2011")), ("cake".to_owned(), Vec::new()));
    assert_eq!(read(Some("Notes")), ("note".to_owned(), Vec::new()));

    let rows = [
        vec![Text("date"), Text("time"), Text("both"), Text("error")],
        vec![Moment(44_196.0), Moment(0.628), Moment(44_196.628), Error("#N/A")],
    ];
    check(
        &workbook("s", &rows),
        &ReadOptions::default(),
        "date|time|both|error",
        &["2: 2020-12-31|15:04:19|2020-12-31T15:04:19.200|#N/A"],
    );
}
