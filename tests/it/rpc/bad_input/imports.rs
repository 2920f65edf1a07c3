//! The cases and valid requests of ImportService.

use likemind::grpc::proto::v1::{
    FileFormat, GetImportRequest, ImportKind, ImportOptions, ListImportsRequest, StartImportRequest, UndoImportRequest,
    ValueMap,
};
use prost::Message;
use prost_reflect::Value;

use super::cases::{Case, Change, Tokens, f64s, i64s, required, text, texts};
use crate::support::postgres::{TestDatabase, scratch};
use crate::support::program::succeed;

/// Imports two small files.
pub fn import_twice(database: &TestDatabase) {
    let folder = scratch();
    for name in ["first.csv", "second.csv"] {
        let file = folder.path().join(name);
        std::fs::write(&file, "user_id,item_id,value,rated_at\nc,x,3,2020-01-01\n").unwrap();
        succeed(database, &["import", "ratings", file.to_str().unwrap()]);
    }
}

pub fn cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    let import_id = || vec![Case::free("import_id").bad("ID_OUT_OF_RANGE", i64s([0, -1, i64::MIN]))];
    Some(match method {
        "ImportService/StartImport" => option_cases(),
        "ImportService/GetImport" | "ImportService/UndoImport" => import_id(),
        "ImportService/ListImports" => tokens.page(&tokens.imports[0]),
        _ => return None,
    })
}

fn option_cases() -> Vec<Case> {
    let bytes = |bytes: &'static [u8]| Change::To(Value::Bytes(bytes.into()));
    let enums = |number| Change::To(Value::EnumNumber(number));
    // The good values of these fields depend on the columns of the file.
    let free = [
        "fill_forward",
        "fill_forward[]",
        "fill_within",
        "map_value[].column",
        "map_value[].values",
        "negate[]",
        "null[]",
        "unmap[]",
    ]
    .map(|field| Case::free(&format!("options.{field}")));
    let texts_of = |field: &str, bad: &[&str], good: &[&str]| {
        let field = format!("options.{field}");
        let case = Case::free(&field).bad("INVALID_OPTION", bad.iter().map(|value| text(value)));
        case.good(good.iter().map(|value| text(value)))
    };
    let column = |field: &str| {
        let field = format!("options.{field}");
        Case::free(&field).bad("UNKNOWN_COLUMN", [texts(["no such column".to_owned()])])
    };
    let mut cases = vec![
        required("options"),
        Case::free("bytes").bad("UNSUITABLE_FILE", [bytes(b"")]),
        Case::free("options.kind").bad("MISSING", [enums(0), enums(999)]),
        Case::free("options.source")
            .bad("TEXT_TOO_LONG", [text(&"x".repeat(201))])
            .bad("TEXT_HAS_CONTROL_CHARACTER", [text("a\nb")])
            .good([text(""), text(&"é".repeat(200))]),
        Case::free("options.format")
            .bad("UNKNOWN_FORMAT", [enums(999)])
            .good([0, 1].map(enums)),
        texts_of("encoding", &["klingon"], &["", "latin1"]),
        texts_of("delimiter", &["\"", "a\nb"], &["", ","]),
        texts_of("quote", &["ab", " ", "é"], &["", "none", "'"]),
        texts_of("escape", &["ab", "\n"], &["", "\\"]),
        Case::free("options.skip_lines")
            .bad("UNSUITABLE_FILE", [Change::To(Value::U32(99))])
            .said_of("bytes"),
        Case::free("options.sheet")
            .bad("UNSUITABLE_FILE", [text("x")])
            .said_of("bytes")
            .good([text("")]),
        texts_of("decimal", &[";", ".,"], &["", ",", "point"]),
        Case::free("options.time_format").good([texts([])]),
        Case::free("options.time_format[]")
            .bad("INVALID_TIME_FORMAT", [text("%Q"), text("%Y"), text("")])
            .said_of("options.time_format")
            .good([text("unix"), text("%d/%m/%Y")]),
        Case::free("options.time_zone")
            .bad("INVALID_TIME_ZONE", [text("Mars/Olympus")])
            .good([text(""), text("Asia/Tokyo")]),
        Case::free("options.map"),
        Case::free("options.set"),
        Case::free("options.default"),
        column("unmap").good([texts([])]),
        Case::free("options.where").good([texts([])]),
        texts_of(
            "where[]",
            &["", "value > 3", "= x"],
            &["value = 3", "value in 3,4", "'user_id' is not empty"],
        ),
        Case::free("options.null").good([texts([])]),
        column("negate").good([texts([])]),
        Case::free("options.map_value").good([Change::Times(0), Change::Times(2)]),
        Case::free("options.max_rejects").good([
            Change::Absent,
            Change::To(Value::U64(0)),
            Change::To(Value::U64(u64::MAX)),
        ]),
        Case::free("options.max_reject_share")
            .bad("OUT_OF_RANGE", f64s([-0.1, 1.1, f64::NAN, f64::INFINITY]))
            .good(f64s([0.0, 1.0]))
            .good([Change::Absent]),
    ];
    cases.extend(free);
    cases
}

pub fn valid_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "ImportService/StartImport" => vec![valid_upload().encode_to_vec()],
        "ImportService/GetImport" => vec![GetImportRequest { import_id: 1 }.encode_to_vec()],
        "ImportService/ListImports" => vec![
            ListImportsRequest {
                page_size: 1,
                page_token: String::new(),
            }
            .encode_to_vec(),
        ],
        "ImportService/UndoImport" => vec![UndoImportRequest { import_id: 1_000 }.encode_to_vec()],
        _ => return None,
    })
}

/// Returns an upload in one message. It stores nothing, so that any number of them may be under way.
fn valid_upload() -> StartImportRequest {
    StartImportRequest {
        options: Some(ImportOptions {
            kind: ImportKind::Ratings.into(),
            source: "a file".to_owned(),
            format: FileFormat::Csv.into(),
            time_format: vec!["%Y-%m-%d".to_owned()],
            time_zone: "Europe/London".to_owned(),
            r#where: vec!["value != 9".to_owned()],
            null: vec!["NA".to_owned()],
            unmap: vec!["rated_at".to_owned()],
            fill_forward: vec!["value".to_owned()],
            negate: vec!["other".to_owned()],
            map_value: vec![ValueMap {
                column: "value".to_owned(),
                values: [("good".to_owned(), "5".to_owned())].into(),
            }],
            dry_run: true,
            ..ImportOptions::default()
        }),
        bytes: b"user_id,item_id,value,rated_at,other\nc,x,3,2020-01-01,1\n".to_vec(),
    }
}
