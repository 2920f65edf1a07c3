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
    /// An error such as `#N/A`.
    Error(&'a str),
    Empty,
}

/// A sheet with its name.
#[derive(Debug, Clone, Copy)]
pub struct Sheet<'a> {
    pub name: &'a str,
    pub is_hidden: bool,
    pub rows: &'a [Vec<Cell<'a>>],
}

/// Returns the XML of a sheet's rows.
fn sheet_data(rows: &[Vec<Cell<'_>>]) -> String {
    let mut data = String::new();
    for (row, cells) in (1..).zip(rows) {
        let _ = write!(data, "<row r=\"{row}\">");
        for (column, cell) in (b'A'..).zip(cells) {
            let at = format!("{}{row}", char::from(column));
            let _ = match cell {
                Cell::Text(text) => write!(data, "<c r=\"{at}\" t=\"inlineStr\"><is><t>{text}</t></is></c>"),
                Cell::Number(number) => write!(data, "<c r=\"{at}\"><v>{number}</v></c>"),
                Cell::Moment(days) => write!(data, "<c r=\"{at}\" s=\"1\"><v>{days}</v></c>"),
                Cell::Error(error) => write!(data, "<c r=\"{at}\" t=\"e\"><v>{error}</v></c>"),
                Cell::Empty => Ok(()),
            };
        }
        data.push_str("</row>");
    }
    data
}

/// Returns the bytes of a workbook with one sheet.
pub fn workbook(sheet: &str, rows: &[Vec<Cell<'_>>]) -> Vec<u8> {
    workbook_of(&[Sheet {
        name: sheet,
        is_hidden: false,
        rows,
    }])
}

/// Returns the bytes of a workbook.
///
/// # Panics
/// Never: it writes into memory.
pub fn workbook_of(sheets: &[Sheet<'_>]) -> Vec<u8> {
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
    let relationship = |id: u32, kind: &str, target: &str| {
        format!("<Relationship Id=\"rId{id}\" Type=\"{OFFICE}/{kind}\" Target=\"{target}\"/>")
    };
    let numbered = || sheets.iter().zip(1..);
    let sheet_files: String = numbered()
        .map(|(_, id)| relationship(id, "worksheet", &format!("worksheets/sheet{id}.xml")))
        .collect();
    let sheet_list: String = numbered()
        .map(|(sheet, id)| {
            let state = if sheet.is_hidden { " state=\"hidden\"" } else { "" };
            format!(
                "<sheet name=\"{}\" sheetId=\"{id}\"{state} r:id=\"rId{id}\"/>",
                sheet.name
            )
        })
        .collect();
    let relationships = |all: &str| format!("<Relationships xmlns=\"{PACKAGE}/relationships\">{all}</Relationships>");
    let parts = [
        (
            "[Content_Types].xml".to_owned(),
            format!("<Types xmlns=\"{PACKAGE}/content-types\"/>"),
        ),
        (
            "_rels/.rels".to_owned(),
            relationships(&relationship(1, "officeDocument", "xl/workbook.xml")),
        ),
        (
            "xl/_rels/workbook.xml.rels".to_owned(),
            relationships(&(sheet_files + &relationship(1000, "styles", "styles.xml"))),
        ),
        (
            "xl/workbook.xml".to_owned(),
            format!("<workbook xmlns=\"{MAIN}\" xmlns:r=\"{OFFICE}\"><sheets>{sheet_list}</sheets></workbook>"),
        ),
        (
            "xl/styles.xml".to_owned(),
            format!(
                "<styleSheet xmlns=\"{MAIN}\"><cellXfs count=\"2\"><xf numFmtId=\"0\"/><xf numFmtId=\"22\"/></cellXfs></styleSheet>"
            ),
        ),
    ];
    let sheet_parts = numbered().map(|(sheet, id)| {
        let data = sheet_data(sheet.rows);
        (
            format!("xl/worksheets/sheet{id}.xml"),
            format!("<worksheet xmlns=\"{MAIN}\"><sheetData>{data}</sheetData></worksheet>"),
        )
    });
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in parts.into_iter().chain(sheet_parts) {
        archive
            .start_file(name, SimpleFileOptions::default())
            .expect("memory takes every write");
        archive.write_all(text.as_bytes()).expect("memory takes every write");
    }
    archive.finish().expect("memory takes every write").into_inner()
}
