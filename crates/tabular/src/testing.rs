//! Makes Excel workbooks for tests.

use std::fmt::Write as _;
use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A cell of a sheet.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    Text(&'a str),
    Number(f64),
    /// Days since 1899-12-30, shown as a date with the time of day.
    Moment(f64),
    Empty,
}

/// Returns the bytes of a workbook with one sheet.
///
/// # Panics
/// Never: it writes into memory.
pub fn workbook(sheet: &str, rows: &[Vec<Cell<'_>>]) -> Vec<u8> {
    let mut data = String::new();
    for (row, cells) in (1..).zip(rows) {
        let _ = write!(data, "<row r=\"{row}\">");
        for (column, cell) in (b'A'..).zip(cells) {
            let at = format!("{}{row}", char::from(column));
            let _ = match cell {
                Cell::Text(text) => write!(data, "<c r=\"{at}\" t=\"inlineStr\"><is><t>{text}</t></is></c>"),
                Cell::Number(number) => write!(data, "<c r=\"{at}\"><v>{number}</v></c>"),
                Cell::Moment(days) => write!(data, "<c r=\"{at}\" s=\"1\"><v>{days}</v></c>"),
                Cell::Empty => Ok(()),
            };
        }
        data.push_str("</row>");
    }
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
    let relationship = |id: u32, kind: &str, target: &str| {
        format!("<Relationship Id=\"rId{id}\" Type=\"{OFFICE}/{kind}\" Target=\"{target}\"/>")
    };
    let relationships = |all: &str| format!("<Relationships xmlns=\"{PACKAGE}/relationships\">{all}</Relationships>");
    let parts = [
        (
            "[Content_Types].xml",
            format!("<Types xmlns=\"{PACKAGE}/content-types\"/>"),
        ),
        (
            "_rels/.rels",
            relationships(&relationship(1, "officeDocument", "xl/workbook.xml")),
        ),
        (
            "xl/_rels/workbook.xml.rels",
            relationships(
                &(relationship(1, "worksheet", "worksheets/sheet1.xml") + &relationship(2, "styles", "styles.xml")),
            ),
        ),
        (
            "xl/workbook.xml",
            format!(
                "<workbook xmlns=\"{MAIN}\" xmlns:r=\"{OFFICE}\"><sheets>\
                 <sheet name=\"{sheet}\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>"
            ),
        ),
        (
            "xl/styles.xml",
            format!(
                "<styleSheet xmlns=\"{MAIN}\"><cellXfs count=\"2\"><xf numFmtId=\"0\"/><xf numFmtId=\"22\"/></cellXfs></styleSheet>"
            ),
        ),
        (
            "xl/worksheets/sheet1.xml",
            format!("<worksheet xmlns=\"{MAIN}\"><sheetData>{data}</sheetData></worksheet>"),
        ),
    ];
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in parts {
        archive
            .start_file(name, SimpleFileOptions::default())
            .expect("memory takes every write");
        archive.write_all(text.as_bytes()).expect("memory takes every write");
    }
    archive.finish().expect("memory takes every write").into_inner()
}
