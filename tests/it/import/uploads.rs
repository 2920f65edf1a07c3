//! Imports over gRPC: files that are uploaded, and the list of imports.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use likemind::grpc::proto::v1::import_service_client::ImportServiceClient;
use likemind::grpc::proto::v1::{
    FileFormat, GetImportRequest, Import, ImportKind, ImportOptions, ImportState, ImportSummary, ListImportsRequest,
    ListRatingsRequest, StartImportRequest, StartImportResponse, UndoImportRequest, ValueMap, list_ratings_request,
};
use serde_json::{Value, json};
use tonic::{Code, Response, Status};

use super::content::fresh_database;
use crate::support::answers::{assert_invalid, assert_status};
use crate::support::api_keys::{KeyedChannel, WithKey, create_key};
use crate::support::caller::Caller;
use crate::support::postgres::scratch;
use crate::support::program::{Server, command, run};

pub(super) type Imports = ImportServiceClient<KeyedChannel>;

pub(super) async fn connect(server: &Server, key: Option<&str>) -> Imports {
    ImportServiceClient::with_interceptor(server.channel().await, WithKey::new(key))
}

pub(super) const HEADER: &str = "user_id,item_id,value,rated_at\n";

pub(super) fn ratings_options() -> ImportOptions {
    ImportOptions {
        kind: ImportKind::Ratings.into(),
        source: "ratings.csv".to_owned(),
        ..ImportOptions::default()
    }
}

/// Splits a file into messages of `size` bytes, the first of them with the options.
pub(super) fn messages(options: ImportOptions, file: &[u8], size: usize) -> Vec<StartImportRequest> {
    let mut messages: Vec<StartImportRequest> = vec![StartImportRequest {
        options: Some(options),
        bytes: Vec::new(),
    }];
    messages.extend(file.chunks(size).map(|bytes| StartImportRequest {
        options: None,
        bytes: bytes.to_vec(),
    }));
    messages
}

pub(super) async fn upload(
    imports: &Imports,
    options: ImportOptions,
    file: &[u8],
) -> Result<StartImportResponse, Status> {
    let messages = tokio_stream::iter(messages(options, file, 10_000));
    let answer = imports.clone().start_import(messages).await;
    answer.map(Response::into_inner)
}

pub(super) async fn get(imports: &Imports, import_id: i64) -> Import {
    let answer = imports.clone().get_import(GetImportRequest { import_id }).await;
    answer.unwrap().into_inner().import.unwrap()
}

pub(super) async fn list(imports: &Imports) -> Vec<Import> {
    let answer = imports.clone().list_imports(ListImportsRequest::default()).await;
    answer.unwrap().into_inner().imports
}

/// Returns a summary of the command in the form of the RPC's.
fn of_command(summary: &Value) -> Value {
    let contents = &summary["contents"];
    let counts = [
        "read",
        "filtered",
        "stored",
        "merged",
        "older",
        "overwritten",
        "rejected",
        "last_line",
    ];
    let counts = counts.map(|key| summary[key].as_u64().unwrap());
    // Options are named as the caller gives them.
    let warnings = summary["warnings"].as_array().unwrap().iter();
    let named = |warning: &Value| {
        warning
            .as_str()
            .unwrap()
            .replace("--time-format", "options.time_format")
    };
    let warnings: Vec<String> = warnings.map(named).collect();
    json!({
        "counts": counts,
        "rejects_by_reason": summary["rejects_by_reason"],
        "rejects_by_field": summary["rejects_by_field"],
        "users": contents["users"]["count"],
        "items": contents["items"]["count"],
        "values": contents["values"],
        "times": contents["times"],
        "columns_by_name": summary["columns_by_name"],
        "warnings": warnings,
        "first": summary["first"],
    })
}

fn of_rpc(summary: &ImportSummary) -> Value {
    let sorted = |map: &std::collections::HashMap<String, u64>| map.clone().into_iter().collect::<BTreeMap<_, _>>();
    let time = |at: &Option<prost_types::Timestamp>| {
        let at = at.as_ref()?;
        let at = chrono::DateTime::from_timestamp(at.seconds, at.nanos as u32).unwrap();
        Some(at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    };
    let times = time(&summary.first_time).zip(time(&summary.last_time));
    let values: Vec<[&String; 2]> = summary
        .values
        .iter()
        .map(|range| [&range.least, &range.greatest])
        .collect();
    let counts = [
        summary.read,
        summary.filtered,
        summary.stored,
        summary.merged,
        summary.older,
        summary.overwritten,
        summary.rejected,
        summary.last_line,
    ];
    let values = if values.is_empty() { Value::Null } else { json!(values) };
    let times = times.map(|(first, last)| [first, last]);
    let columns_by_name: BTreeMap<_, _> = summary.columns_by_name.clone().into_iter().collect();
    json!({
        "counts": counts,
        "rejects_by_reason": sorted(&summary.rejects_by_reason),
        "rejects_by_field": sorted(&summary.rejects_by_field),
        "users": summary.users.map(|users| users.count),
        "items": summary.items.map(|items| items.count),
        "values": values,
        "times": times,
        "columns_by_name": columns_by_name,
        "warnings": summary.warnings,
        "first": summary.first,
    })
}

/// A file with the same options for the command and for the RPC.
struct Sample {
    file: Vec<u8>,
    args: Vec<&'static str>,
    options: ImportOptions,
}

fn map(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    let owned = |(field, text): &(&str, &str)| ((*field).to_owned(), (*text).to_owned());
    pairs.iter().map(owned).collect()
}

fn samples() -> Vec<Sample> {
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let orders = "Order;Kunde;Artikel;Menge;Preis;Datum;Status\n\
                  1;Jörg;Tee;2;1.299,00;03.04.2020;bezahlt\n1;Jörg;Dose;1;9,99;03.04.2020;bezahlt\n\
                  2;Änne;Tee;1;0,50;05.06.2020;storniert\n3;NA;Tee;1;0,50;05.06.2020;bezahlt\n";
    // The first 256 characters of Unicode are those of latin-1.
    let latin1 = orders
        .chars()
        .map(|letter| u8::try_from(u32::from(letter)).unwrap())
        .collect();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    zipped
        .write_all(b"196\t242\t3\t881250949\n22\t377\t9\t878887116\n22\t377\t1\t878887117\n")
        .unwrap();
    vec![
        Sample {
            file: latin1,
            args: vec![
                "purchases",
                "--encoding=latin1",
                "--delimiter=;",
                "--decimal=,",
                "--time-format=%d.%m.%Y",
                "--map=order_id=Order,user_id=Kunde,item_id=Artikel,quantity=Menge,line_total=Preis,purchased_at=Datum",
                "--set=currency=EUR",
                "--where=Status != storniert",
                "--null=NA",
                "--max-reject-share=1",
            ],
            options: ImportOptions {
                kind: ImportKind::Purchases.into(),
                encoding: "latin1".to_owned(),
                delimiter: ";".to_owned(),
                decimal: ",".to_owned(),
                time_format: strings(&["%d.%m.%Y"]),
                map: map(&[
                    ("order_id", "Order"),
                    ("user_id", "Kunde"),
                    ("item_id", "Artikel"),
                    ("quantity", "Menge"),
                    ("line_total", "Preis"),
                    ("purchased_at", "Datum"),
                ]),
                set: map(&[("currency", "EUR")]),
                r#where: strings(&["Status != storniert"]),
                null: strings(&["NA"]),
                max_reject_share: Some(1.0),
                ..ImportOptions::default()
            },
        },
        Sample {
            file: zipped.finish().unwrap(),
            args: vec![
                "ratings",
                "--no-header",
                "--delimiter=tab",
                "--map=user_id=1,item_id=2,value=3,rated_at=4",
                "--time-format=unix",
                "--max-reject-share=0.5",
            ],
            options: ImportOptions {
                kind: ImportKind::Ratings.into(),
                no_header: true,
                delimiter: "tab".to_owned(),
                map: map(&[("user_id", "1"), ("item_id", "2"), ("value", "3"), ("rated_at", "4")]),
                time_format: strings(&["unix"]),
                max_reject_share: Some(0.5),
                ..ImportOptions::default()
            },
        },
        Sample {
            file: b"{\"user\": {\"id\": \"ann\"}, \"item_id\": \"tea\", \"stars\": \"good\"}\n\
                    {\"user\": {\"id\": null}, \"item_id\": \"pot\", \"stars\": \"bad\"}\n"
                .to_vec(),
            args: vec![
                "ratings",
                "--map=user_id=user.id,value=stars",
                "--map-value=stars=good:5,bad:1",
                "--set=rated_at=2020-01-01",
                "--default=user.id=nobody",
                "--format=json-lines",
            ],
            options: ImportOptions {
                kind: ImportKind::Ratings.into(),
                format: FileFormat::JsonLines.into(),
                map: map(&[("user_id", "user.id"), ("value", "stars")]),
                map_value: vec![ValueMap {
                    column: "stars".to_owned(),
                    values: map(&[("good", "5"), ("bad", "1")]),
                }],
                set: map(&[("rated_at", "2020-01-01")]),
                default: map(&[("user.id", "nobody")]),
                ..ImportOptions::default()
            },
        },
    ]
}

#[tokio::test]
async fn an_upload_does_what_the_command_does() {
    for Sample { file, args, options } in samples() {
        let (by_command, by_rpc) = (fresh_database().await, fresh_database().await);
        let server = Server::start(&by_rpc.database);
        let imports = connect(&server, None).await;
        let folder = scratch();
        let path = folder.path().join("file");
        std::fs::write(&path, &file).unwrap();
        let command = |more: &[&str]| {
            let mut all = vec!["import", args[0], path.to_str().unwrap(), "--json"];
            all.extend(&args[1..]);
            all.extend(more);
            let rejects = format!("--rejects={}", folder.path().join("rejects").display());
            all.push(&rejects);
            let (_, printed, errors) = run(&by_command.database, &all);
            serde_json::from_str::<Value>(&printed).unwrap_or_else(|_| panic!("{printed} {errors}"))
        };
        let dry = ImportOptions {
            dry_run: true,
            ..options.clone()
        };
        let answer = upload(&imports, dry, &file).await.unwrap();
        assert_eq!((answer.import, answer.problem), (None, None));
        let summary = answer.summary.unwrap();
        assert!(summary.read > 0 && !summary.first.is_empty(), "{summary:?}");
        assert_eq!(of_rpc(&summary), of_command(&command(&["--dry-run"])), "{args:?}");
        assert!(by_rpc.content().await.is_empty());

        let answer = upload(&imports, options, &file).await.unwrap();
        let import = answer.import.unwrap();
        assert_eq!((import.state(), &*import.source), (ImportState::Done, "an upload"));
        assert_eq!(get(&imports, import.import_id).await, import);
        assert_eq!(of_rpc(&answer.summary.unwrap()), of_command(&command(&[])), "{args:?}");
        assert_eq!(by_rpc.content().await, by_command.content().await);
        assert!(!by_rpc.content().await.is_empty());
    }
}

#[tokio::test]
async fn errors_name_the_options_of_the_request() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let imports = connect(&server, None).await;
    let check = async |change: &dyn Fn(&mut ImportOptions), file: &[u8], field: &str, reason: &str, part: &str| {
        let mut options = ratings_options();
        change(&mut options);
        let status = upload(&imports, options, file).await.unwrap_err();
        assert_invalid(&status, reason, &[field]);
        assert!(status.message().contains(part), "{status:?}");
    };
    let good = format!("{HEADER}ann,tea,5,2020-01-01\n");
    let good = good.as_bytes();
    let unmapped = b"196,242,3,881250949\n22,377,1,878887116\n";
    let tabs = b"user_id\titem_id\tvalue\n";
    check(
        &|_| {},
        unmapped,
        "options.map",
        "FIELD_MISSING",
        "say options.no_header",
    )
    .await;
    check(&|_| {}, tabs, "options.map", "FIELD_MISSING", "is the delimiter right?").await;
    check(&|_| {}, b"", "bytes", "UNSUITABLE_FILE", "ratings.csv is empty").await;
    check(&|_| {}, b"BZh91AY&SY\x01", "bytes", "UNSUITABLE_FILE", "decompress it").await;
    check(
        &|_| {},
        b"\x1f\x8bnothing",
        "bytes",
        "UNREADABLE_FILE",
        "cannot be read",
    )
    .await;
    let latin1 = b"user_id,item_id,value,Bl\xfcten\nann,tea,5,1\n";
    let status = upload(&imports, ratings_options(), latin1).await.unwrap_err();
    let guess = "add options.encoding = \"windows-1252\"";
    assert!(
        status.code() == Code::InvalidArgument && status.message().contains(guess),
        "{status:?}"
    );
    let set = |options: &mut ImportOptions| options.set = map(&[("value", "9")]);
    check(
        &set,
        good,
        "options.set",
        "RATING_OUT_OF_RANGE",
        "the constant for value",
    )
    .await;
    let unknown = |options: &mut ImportOptions| options.map = map(&[("stars", "value")]);
    check(&unknown, good, "options.map", "UNKNOWN_FIELD", "stars is not a field").await;
    let negated = |options: &mut ImportOptions| options.negate = vec!["price".to_owned()];
    check(
        &negated,
        good,
        "options.negate",
        "UNKNOWN_COLUMN",
        "no column \"price\"",
    )
    .await;
    let filtered = |options: &mut ImportOptions| options.r#where = vec!["status = paid".to_owned()];
    check(
        &filtered,
        good,
        "options.where",
        "UNKNOWN_COLUMN",
        "no column \"status\"",
    )
    .await;
    let several = ImportOptions {
        delimiter: "\"".to_owned(),
        decimal: ";".to_owned(),
        max_reject_share: Some(2.0),
        r#where: vec!["value = 1".to_owned(), "value > 3".to_owned()],
        ..ImportOptions::default()
    };
    let status = upload(&imports, several, good).await.unwrap_err();
    let fields =
        ["kind", "delimiter", "decimal", "max_reject_share", "where[1]"].map(|field| format!("options.{field}"));
    assert_invalid(&status, "MISSING", &fields.each_ref().map(String::as_str));

    assert!(content.content().await.is_empty() && list(&imports).await.is_empty());

    let without = StartImportRequest {
        options: None,
        bytes: good.to_vec(),
    };
    let first = StartImportRequest {
        options: Some(ratings_options()),
        bytes: good.to_vec(),
    };
    for (messages, reason) in [
        (vec![], "MISSING"),
        (vec![without], "MISSING"),
        (vec![first.clone(), first], "NOT_FIRST"),
    ] {
        let answer = imports.clone().start_import(tokio_stream::iter(messages)).await;
        assert_invalid(&answer.unwrap_err(), reason, &["options"]);
    }
    let stopped = list(&imports).await;
    assert_eq!(stopped.len(), 1, "{stopped:?}");
    assert_eq!(stopped[0].state(), ImportState::Stopped);
}

#[tokio::test]
async fn rejected_lines_come_back_with_their_number() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let imports = connect(&server, None).await;
    let long = "x".repeat(2_000);
    let bad: String = (0..150)
        .map(|number| format!("u{number},{long},5,2020-01-01\n"))
        .collect();
    let good: String = (0..850).map(|number| format!("u{number},tea,5,2020-01-01\n")).collect();
    let file = format!("{HEADER}{good}{bad}");
    let answer = upload(&imports, ratings_options(), file.as_bytes()).await.unwrap();
    let (summary, problem) = (answer.summary.unwrap(), answer.problem.unwrap());
    assert_eq!((answer.import, &*problem.reason), (None, "TOO_MANY_REJECTS"));
    assert!(
        problem.message.contains("150 of the first 1000 lines")
            && problem.message.contains("(options.max_reject_share)")
    );
    assert_eq!((summary.read, summary.rejected, summary.rejects.len()), (150, 150, 100));
    assert!(content.content().await.is_empty());

    let tolerant = ImportOptions {
        max_reject_share: Some(0.15),
        ..ratings_options()
    };
    let answer = upload(&imports, tolerant, file.as_bytes()).await.unwrap();
    let summary = answer.summary.unwrap();
    assert_eq!((summary.read, summary.stored, summary.rejected), (1_000, 850, 150));
    assert_eq!((answer.import.unwrap().rejected, answer.problem), (150, None));
    let first = &summary.rejects[0];
    let error = first.error.as_ref().unwrap();
    assert_eq!(
        (first.line, &*error.field, &*error.reason),
        (852, "item_id", "ID_TOO_LONG")
    );
    assert_eq!(first.record.len(), 1_000);
    assert!(first.record.starts_with("u0,xxx"));
}

#[tokio::test]
async fn imports_are_listed_undone_and_audited() {
    let content = fresh_database().await;
    let key = create_key(&content.database, &["--role", "operator"]);
    let server = Server::start(&content.database);
    let imports = connect(&server, Some(&key)).await;
    let rated = async |value: &str| {
        let file = format!("{HEADER}ann,tea,{value},2020-01-0{value}\n");
        let answer = upload(&imports, ratings_options(), file.as_bytes()).await.unwrap();
        answer.import.unwrap().import_id
    };
    let (first, second) = (rated("3").await, rated("5").await);
    let mut client = imports.clone();
    let page = client
        .list_imports(ListImportsRequest {
            page_size: 1,
            page_token: String::new(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.imports[0].import_id, second);
    let page = client
        .list_imports(ListImportsRequest {
            page_size: 1,
            page_token: page.next_page_token,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((page.imports[0].import_id, &*page.next_page_token), (first, ""));
    assert!(page.imports[0].undoable);

    let mut undo = async |import_id| {
        client
            .undo_import(UndoImportRequest { import_id })
            .await
            .map(Response::into_inner)
    };
    let overwritten = undo(first).await.unwrap_err();
    assert_status(&overwritten, Code::FailedPrecondition, "IMPORT_OVERWRITTEN");
    assert!(
        overwritten
            .message()
            .contains(&format!("import {second} has overwritten"))
    );
    let undone = undo(second).await.unwrap();
    assert_eq!((undone.restored, undone.removed, undone.kept), (1, 0, 0));
    assert_eq!(undone.import.unwrap().state(), ImportState::Undone);
    assert_status(
        &undo(second).await.unwrap_err(),
        Code::FailedPrecondition,
        "IMPORT_UNDONE",
    );
    assert_status(&undo(1_000).await.unwrap_err(), Code::NotFound, "IMPORT_NOT_FOUND");
    assert_eq!(content.rows("rating").await, ["rating|ann|tea|3|1578009600.000000"]);

    let audited: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT action, subject, note, row_count FROM audit WHERE action LIKE 'IMPORT%' AND actor LIKE 'key:%' ORDER BY id",
    )
    .fetch_all(&content.sql)
    .await
    .unwrap();
    let row = |action: &str, id: i64, note: &str, rows| (action.to_owned(), id.to_string(), note.to_owned(), rows);
    assert_eq!(
        audited,
        [
            row("IMPORT_STARTED", first, "ratings from ratings.csv", 0),
            row("IMPORT_ENDED", first, "done", 1),
            row("IMPORT_STARTED", second, "ratings from ratings.csv", 0),
            row("IMPORT_ENDED", second, "done", 1),
            row("IMPORT_UNDONE", second, "", 1),
        ]
    );
}

#[tokio::test]
async fn what_is_uploaded_is_served_at_once() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let (caller, imports) = (Caller::of(&server).await, connect(&server, None).await);
    let campaigns = ImportOptions {
        kind: ImportKind::Campaigns.into(),
        set: map(&[("currency", "GBP")]),
        ..ImportOptions::default()
    };
    let file = b"campaign_id,starts_at,ends_at\nspring,2020-01-01,2020-02-01\n";
    upload(&imports, campaigns, file).await.unwrap();
    let coupons = ImportOptions {
        kind: ImportKind::Coupons.into(),
        set: map(&[("currency", "GBP")]),
        ..ImportOptions::default()
    };
    upload(&imports, coupons, b"coupon_id,campaign_id,percent\nten,spring,10\n")
        .await
        .unwrap();
    let request = likemind::grpc::proto::v1::CheckEligibilityRequest {
        user_id: "ann".to_owned(),
        coupon_ids: vec!["ten".to_owned()],
        ..Default::default()
    };
    let answer = caller.coupons.clone().check_eligibility(request).await;
    // Without a snapshot nothing is judged; an unknown coupon would be NOT_FOUND.
    match answer {
        Ok(answer) => assert_eq!(answer.into_inner().coupons.len(), 1),
        Err(status) => assert_status(&status, Code::FailedPrecondition, "NO_SNAPSHOT"),
    }
    let file = format!("{HEADER}ann,tea,4,2020-01-01\n");
    upload(&imports, ratings_options(), file.as_bytes()).await.unwrap();
    let request = ListRatingsRequest {
        of: Some(list_ratings_request::Of::UserId("ann".to_owned())),
        ..ListRatingsRequest::default()
    };
    let ratings = caller
        .ratings
        .clone()
        .list_ratings(request)
        .await
        .unwrap()
        .into_inner()
        .ratings;
    assert_eq!(ratings.len(), 1);
}

#[tokio::test]
async fn the_command_call_can_upload_a_file() {
    let content = fresh_database().await;
    let server = Server::start(&content.database);
    let encoded = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let requests = format!(
        "{{\"options\": {{\"kind\": \"IMPORT_KIND_RATINGS\", \"map\": {{\"value\": \"stars\"}}}}}}\n{{\"bytes\": \"{}\"}}\n\
         {{\"bytes\": \"{}\"}}\n",
        encoded("user_id,item_id,stars\nann,"),
        encoded("tea,5\n")
    );
    let mut child = command(
        &content.database,
        &["call", "StartImport", "-", "--address", &server.address],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    child.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&printed["import"]["stored"], &printed["summary"]["read"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(content.rows("rating").await.len(), 1);
}
