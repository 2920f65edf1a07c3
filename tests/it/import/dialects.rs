//! Dialects of files, each with what a dry run of the real program says to it.

use tabular::testing::Cell::{Error, Moment, Number, Text};
use tabular::testing::{Sheet, workbook, workbook_of};

use super::files::Shop;

/// A file, how it is imported, and what the program must say: its exit code, and parts of its output.
struct Case<'a> {
    kind: &'a str,
    bytes: &'a [u8],
    args: &'a [&'a str],
    code: i32,
    says: &'a [&'a str],
}

const fn ratings<'a>(bytes: &'a [u8], args: &'a [&'a str], code: i32, says: &'a [&'a str]) -> Case<'a> {
    Case {
        kind: "ratings",
        bytes,
        args,
        code,
        says,
    }
}

const fn purchases<'a>(bytes: &'a [u8], args: &'a [&'a str], code: i32, says: &'a [&'a str]) -> Case<'a> {
    Case {
        kind: "purchases",
        ..ratings(bytes, args, code, says)
    }
}

async fn check(cases: &[Case<'_>]) {
    let shop = Shop::open().await;
    for case in cases {
        let args: Vec<&str> = case.args.iter().copied().chain(["--dry-run"]).collect();
        let ran = shop.import(case.kind, case.bytes, &args);
        let said = format!("{}\n{}", ran.output, ran.errors);
        let shown = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(200)]);
        assert_eq!(ran.code, case.code, "{shown}\n{args:?}\n{said}");
        for part in case.says {
            assert!(said.contains(part), "{shown}\n{args:?}\nmust say {part:?}:\n{said}");
        }
        for once in [" at line ", "is stored", "are stored"] {
            assert!(said.matches(once).count() <= 1, "{once:?} is said twice:\n{said}");
        }
    }
}

#[tokio::test]
async fn json_is_read_however_its_objects_are_arranged() {
    const MAP: &[&str] = &["--map=user_id=u,item_id=i,value=v,rated_at=t"];
    const SEEN: &[&str] = &[
        "read 2 = stored 0 + merged 2 + rejected 0",
        "user_id=a item_id=x value=4 rated_at=2020-01-01 00:00:00 UTC",
        "user_id=b item_id=y value=3.5 rated_at=2020-01-02 00:00:00 UTC",
    ];
    let objects = [
        r#"{"u":"a","i":"x","v":4,"t":"2020-01-01"}"#,
        r#"{"u":"b","i":"y","v":3.5,"t":"2020-01-02"}"#,
    ];
    let lines = objects.join("\n");
    let array = format!("[{}]", objects.join(",\n "));
    let pretty = objects
        .map(|object| object.replace(',', ",\n  ").replace('{', "{\n  "))
        .join("\n");
    let wrapped = format!("{{\"page\":1,\"orders\":{array}}}");
    check(&[
        ratings(lines.as_bytes(), MAP, 0, SEEN),
        ratings(array.as_bytes(), MAP, 0, SEEN),
        ratings(pretty.as_bytes(), MAP, 0, SEEN),
        ratings(objects.concat().as_bytes(), MAP, 0, SEEN),
        ratings(
            wrapped.as_bytes(),
            MAP,
            2,
            &["jq -c '.orders[]' FILE | likemind import KIND -"],
        ),
        ratings(
            &array.as_bytes()[..array.len() - 1],
            MAP,
            1,
            &["cannot be read: the JSON array that begins at line 1 has no end: the file is likely to be cut off"],
        ),
        ratings(b"{'u': 'a', 'v': 4.0}\n", MAP, 1, &["the notation of Python", "json.dumps"]),
        ratings(
            br#"{"u":{"$numberInt":"7"},"i":{"$oid":"5f"},"v":{"$numberDouble":"4.0"},"t":{"$date":{"$numberLong":"1577836800000"}}}"#,
            &[
                "--map=user_id=u.$numberInt,item_id=i.$oid,value=v.$numberDouble,rated_at=t.$date.$numberLong",
                "--time-format=unix_ms",
            ],
            0,
            &["user_id=7 item_id=5f value=4 rated_at=2020-01-01 00:00:00 UTC"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn sheets_have_dates_times_errors_and_neighbors() {
    let header = vec![
        Text("user_id"),
        Text("item_id"),
        Text("value"),
        Text("date"),
        Text("time"),
    ];
    let rows = [
        header.clone(),
        vec![Number(7.0), Text("tea"), Number(4.0), Moment(44_196.0), Moment(0.625)],
    ];
    let split = workbook("s", &rows);
    let broken = workbook(
        "s",
        &[
            header.clone(),
            vec![Number(7.0), Error("#N/A"), Number(4.0), Number(44_196.5)],
        ],
    );
    let sheet = |name, is_hidden| Sheet {
        name,
        is_hidden,
        rows: &rows[..],
    };
    let several = workbook_of(&[sheet("Old", true), sheet("2010", false), sheet("2011", false)]);
    let date = &[
        "--map=rated_at=date",
        "--null=#N/A",
        "--unmap=item_id",
        "--set=item_id=x",
    ];
    let excel = [&date[..], &["--time-format=excel"]].concat();
    check(&[
        ratings(
            &split,
            &["--map=rated_at={date} {time}"],
            0,
            &["user_id=7 item_id=tea value=4 rated_at=2020-12-31 15:00:00 UTC"],
        ),
        ratings(
            &broken,
            &["--map=rated_at=date"],
            6,
            &["rejected 1: SPREADSHEET_ERROR, such as line 2: item_id must be a value, is the error #N/A"],
        ),
        ratings(
            &broken,
            date,
            6,
            &["\"44196.5\"; the time format excel counts days since 1900"],
        ),
        ratings(&broken, &excel, 0, &["rated_at=2020-12-31 12:00:00 UTC"]),
        ratings(
            &several,
            &["--map=rated_at=date"],
            0,
            &["warning: The workbook has other sheets, which were not read: 2011."],
        ),
    ])
    .await;
}

#[tokio::test]
async fn doubtful_ids_and_lines_without_time_are_pointed_out() {
    check(&[
        ratings(
            b"user_id,item_id,value,rated_at\nnan,a,3,2020-01-01\n1.23457E+12,a,3,2020-01-01\n7.0,b,4,\n",
            &[],
            0,
            &[
                "1 ids in user_id are \"nan\": if that means an empty cell, say --null nan.",
                "1 ids in user_id are like 1.23457E+12: a spreadsheet has rounded them",
                "1 ids in user_id end in .0",
                "1 lines have nothing in rated_at, and are dated with the start of the import.",
            ],
        ),
        ratings(
            b"user_id,item_id,value,rated_at\nann,a,0,2020-01-01\n",
            &[],
            6,
            &["rejected 1: RATING_OUT_OF_RANGE, such as line 2: value must lie between 1 and 5, is 0; the configuration keys"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn amounts_and_times_of_shops_are_read_or_say_what_is_missing() {
    const HEADER: &str = "order_id,user_id,item_id,quantity,unit_price,currency,purchased_at\n";
    let line = |price: &str, currency: &str, at: &str| format!("{HEADER}1,ann,tea,2,\"{price}\",{currency},\"{at}\"\n");
    let stripe = line("1,234.56", "usd", "2020-12-31 24:00:00");
    let thousand = line("1,234", "USD", "2020-12-31");
    let german = line("1.234,56", "EUR", "31.12.2020 15:04");
    let american = line("12.30-", "USD", "1/2/20 3:04 PM");
    let eastern = line("5", "USD", "2020-12-31 23:59:59 EST");
    check(&[
        purchases(
            stripe.as_bytes(),
            &[],
            0,
            &["line_total=2469.12 USD purchased_at=2021-01-01 00:00:00 UTC"],
        ),
        purchases(
            thousand.as_bytes(),
            &[],
            6,
            &["if its comma stands before the decimals, say --decimal ,, and if between thousands, --decimal ."],
        ),
        purchases(thousand.as_bytes(), &["--decimal=."], 0, &["line_total=2468.00 USD"]),
        purchases(
            german.as_bytes(),
            &[],
            6,
            &[
                "say --decimal ,",
                "warning: Rejected lines have another problem too: line 2: purchased_at must be a time",
                "its time format may be %d.%m.%Y %H:%M.",
            ],
        ),
        purchases(
            german.as_bytes(),
            &["--decimal=,"],
            6,
            &["its time format may be %d.%m.%Y %H:%M"],
        ),
        purchases(
            german.as_bytes(),
            &[
                "--decimal=,",
                "--time-format=%d.%m.%Y %H:%M",
                "--time-zone=Europe/Berlin",
            ],
            0,
            &["line_total=2469.12 EUR purchased_at=2020-12-31 14:04:00 UTC"],
        ),
        purchases(
            american.as_bytes(),
            &[],
            6,
            &["its time format may be %d/%m/%y %I:%M %p or %m/%d/%y %I:%M %p"],
        ),
        purchases(
            american.as_bytes(),
            &["--time-format=%m/%d/%y %I:%M %p"],
            0,
            &["line_total=-24.60 USD purchased_at=2020-01-02 15:04:00 UTC"],
        ),
        purchases(
            eastern.as_bytes(),
            &[],
            6,
            &["may be %Y-%m-%d %H:%M:%S%.f EST, with the time zone that EST stands for"],
        ),
        purchases(
            eastern.as_bytes(),
            &["--time-format=%Y-%m-%d %H:%M:%S EST", "--time-zone=America/New_York"],
            0,
            &["purchased_at=2021-01-01 04:59:59 UTC"],
        ),
        purchases(
            b"id|who|what|n|sum|day|hour|\n1|ann|tea|2|5.00|2020-12-31|9|\n",
            &[
                "--delimiter=|",
                "--map=order_id=id,user_id=who,item_id=what,quantity=n,line_total=sum,purchased_at={day} {hour}",
                "--set=currency=EUR",
                "--time-format=%Y-%m-%d %H",
            ],
            0,
            &["line_total=5.00 EUR purchased_at=2020-12-31 09:00:00 UTC"],
        ),
        Case {
            kind: "items",
            ..ratings(
                b"item_id\ttitle\n1\tTea\\\tand\\\nmilk\n",
                &["--delimiter=tab", "--escape=\\"],
                0,
                &["item_id=1 title=Tea and milk"],
            )
        },
    ])
    .await;
}

#[tokio::test]
async fn a_file_of_another_kind_is_named_with_the_remedy() {
    check(&[
        ratings(
            b"user_id,item_id,value,rated_at\na,b,3,1577836800000\n",
            &["--time-format=unix"],
            6,
            &["is +51969-", "; the time format unix_ms counts milliseconds since 1970"],
        ),
        ratings(
            b"user_id,item_id,value\n\"a \\\"b\\\"\",c,3\n",
            &[],
            6,
            &["doubled; if the file writes a backslash before them, give it as the escape character"],
        ),
        ratings(b"user_id;item_id;value\na;b;3\n", &[], 2, &["--delimiter ';'"]),
        ratings(b"1:\n7,3,2005-09-06\n", &["--no-header"], 2, &["the first line has one field"]),
        ratings(b"user_id,value,value\na,3,4\n", &["--set=item_id=x"], 2, &["--skip-lines 1 and --no-header"]),
        ratings(
            b"\"user_id\" \"item_id\" \"value\"\n\"1\" \"a\" \"b\" 3\n",
            &["--delimiter= "],
            6,
            &["has 4; if the first line does not name the first column, leave it out and read the file without a header"],
        ),
        ratings(
            &[
                b"user_id,item_id,value\n\xf7\xe0\xe9,tea,3\n".to_vec(),
                b"\xef\xee\xea\xf3\xef\xe0\xf2\xe5\xeb\xfc,b,3\n".repeat(50),
            ]
            .concat(),
            &[],
            6,
            &["such as line 2: user_id must be UTF-8", "--encoding windows-1251"],
        ),
        ratings(b"SQLite format 3\0\x10\0\x01\x01", &[], 1, &["a database of SQLite", "export its table as CSV"]),
        ratings(b"<html><table><tr><td>user_id", &[], 1, &["an HTML page", "save it as .xlsx or CSV"]),
        ratings(b"\0a\0,\0b\0\n", &["--encoding=utf-16"], 2, &["columns are \"a\", \"b\""]),
        ratings(
            &[&b"{\"user_id\":\"a\",\"x\":"[..], &b"{\"a\":".repeat(90_000), b"1", &b"}".repeat(90_001)].concat(),
            &["--set=item_id=i,value=3"],
            0,
            &["read 1 = stored 0 + merged 1"],
        ),
    ])
    .await;
}
