//! The lines of a file, and what an import stores or rejects of them.

use std::io::{Cursor, Read, Write};

use likemind::app::import::rejects::RejectsTo;
use likemind::app::import::{ImportKind, ImportOptions, import};
use tabular::input::Input;
use tokio_util::sync::CancellationToken;

use super::content::{counts, fresh_database, many_purchases, many_ratings, options, rejects, small_batches};
use crate::support::postgres::scratch;

/// The header of a file of purchases.
const HEADER: &str = "order_id,line_number,user_id,item_id,quantity,unit_price,currency,purchased_at,note\r\n";

/// Bad lines of [`HEADER`], with the field and the reason that are reported.
const BAD_LINES: [(&str, &str, &[u8]); 17] = [
    ("", "WRONG_FIELD_COUNT", b"x,1,ann,tea"),
    ("", "WRONG_FIELD_COUNT", b"x,1,ann,tea,2,1.25,GBP,2020-05-01,note,more"),
    ("", "BAD_QUOTE", b"x,1,ann,tea,2,1.25,GBP,2020-05-01,\"never closed"),
    ("user_id", "INVALID_UTF8", b"x,1,\xe9va,tea,2,1.25,GBP,2020-05-01,"),
    ("order_id", "MISSING", b",1,ann,tea,2,1.25,GBP,2020-05-01,"),
    (
        "item_id",
        "ID_HAS_CONTROL_CHARACTER",
        b"x,1,ann,te\x07a,2,1.25,GBP,2020-05-01,",
    ),
    (
        "line_number",
        "LINE_NUMBER_OUT_OF_RANGE",
        b"x,0,ann,tea,2,1.25,GBP,2020-05-01,",
    ),
    ("line_number", "INVALID_NUMBER", b"x,one,ann,tea,2,1.25,GBP,2020-05-01,"),
    ("quantity", "ZERO_QUANTITY", b"x,1,ann,tea,0,1.25,GBP,2020-05-01,"),
    ("quantity", "INVALID_NUMBER", b"x,1,ann,tea,2.5,1.25,GBP,2020-05-01,"),
    (
        "quantity",
        "OUT_OF_RANGE",
        b"x,1,ann,tea,9999999999,1.25,GBP,2020-05-01,",
    ),
    (
        "unit_price",
        "INVALID_NUMBER",
        b"x,1,ann,tea,2,\"1,25\",GBP,2020-05-01,",
    ),
    (
        "unit_price",
        "AMOUNT_OUT_OF_RANGE",
        b"x,1,ann,tea,2,99999999999999999999,GBP,2020-05-01,",
    ),
    ("unit_price", "MISSING", b"x,1,ann,tea,2,,GBP,2020-05-01,"),
    ("currency", "INVALID_CURRENCY", b"x,1,ann,tea,2,1.25,pounds,2020-05-01,"),
    (
        "purchased_at",
        "INVALID_TIMESTAMP",
        b"x,1,ann,tea,2,1.25,GBP,01/05/2020,",
    ),
    (
        "purchased_at",
        "TIME_OUT_OF_RANGE",
        b"x,1,ann,tea,2,1.25,GBP,2999-05-01,",
    ),
];

#[tokio::test]
async fn bad_lines_are_reported_with_field_and_reason_and_good_ones_stored() {
    let database = fresh_database().await;
    let folder = scratch();
    let path = folder.path().join("purchases.csv.rejects.csv");
    let good =
        |order: u32| format!("{order},1,ann,tea,2,1.25,GBP,2020-05-01T12:00,\"fine,\r\nreally\"\r\n").into_bytes();
    let mut text = ["\u{feff}", HEADER].concat().into_bytes();
    let mut expected = Vec::new();
    let mut line = 2;
    for (order, (field, reason, record)) in (1..).zip(BAD_LINES) {
        text.extend(good(order));
        expected.push(((line + 2).to_string(), field.to_owned(), reason.to_owned()));
        text.extend(record);
        text.extend(b"\r\n\r\n");
        line += 4;
    }
    text.extend(good(99));

    let purchases = ImportOptions {
        rejects: RejectsTo::File(path.clone()),
        ..small_batches(ImportKind::Purchases)
    };
    let summary = database.import(text, &purchases).await.unwrap();
    assert_eq!(counts(&summary), (35, 18, 0, 17));
    assert_eq!(summary.rejects_by_reason["INVALID_NUMBER"], 3);
    assert_eq!(summary.rejects_file.as_ref(), Some(&path));
    let rejects = rejects(&path);
    let found: Vec<_> = rejects
        .iter()
        .map(|reject| (reject[0].clone(), reject[1].clone(), reject[2].clone()))
        .collect();
    assert_eq!(found, expected);
    assert!(rejects.iter().all(|reject| !reject[3].is_empty()));
    assert_eq!(rejects[4][4], ",1,ann,tea,2,1.25,GBP,2020-05-01,");
    assert_eq!(rejects[11][4], "x,1,ann,tea,2,\"1,25\",GBP,2020-05-01,");
    let lines = database.rows("purchase").await;
    assert_eq!(lines.len(), 18);
    assert!(
        lines.contains(&"purchase|1|ann|tea|1|2|250|GBP|1588334400.000000".to_owned()),
        "{lines:?}"
    );

    // An import without rejects removes the file of the previous one.
    let again = database
        .import([HEADER.as_bytes(), &good(99)].concat(), &purchases)
        .await
        .unwrap();
    assert_eq!((counts(&again), again.rejects_file), ((1, 0, 1, 0), None));
    assert!(!path.exists());
}

#[tokio::test]
async fn importing_a_file_again_changes_nothing() {
    let database = fresh_database().await;
    for (kind, text) in [
        (ImportKind::Ratings, many_ratings()),
        (ImportKind::Purchases, many_purchases()),
    ] {
        let first = database.import(text.as_str(), &small_batches(kind)).await.unwrap();
        let content = database.content().await;
        let second = database.import(text.as_str(), &small_batches(kind)).await.unwrap();
        assert_eq!(counts(&second), (first.read, 0, first.read, 0), "{kind:?}");
        // The size of the batches and the number of connections make no difference either.
        let third = database.import(text.as_str(), &ImportOptions::new(kind)).await.unwrap();
        assert_eq!(counts(&third), counts(&second), "{kind:?}");
        assert_eq!(database.content().await, content, "{kind:?}");
    }
}

#[tokio::test]
async fn lines_without_a_number_are_counted_within_order_user_and_item() {
    let database = fresh_database().await;
    let text = "order_id,user_id,item_id,quantity,line_total_minor,currency,purchased_at\n\
                1,ann,tea,1,10,GBP,2020-01-01\n\
                1,ann,pot,2,20,GBP,2020-01-01\n\
                2,ann,tea,3,30,GBP,2020-01-01\n\
                1,ann,tea,4,40,GBP,2020-01-01\n\
                1,bob,tea,5,50,GBP,2020-01-01\n";
    let summary = database
        .import(text, &ImportOptions::new(ImportKind::Purchases))
        .await
        .unwrap();
    assert_eq!(counts(&summary), (5, 5, 0, 0));
    let at = 1_577_836_800;
    let expected = [
        format!("purchase|1|ann|pot|1|2|20|GBP|{at}.000000"),
        format!("purchase|1|ann|tea|1|1|10|GBP|{at}.000000"),
        format!("purchase|1|ann|tea|2|4|40|GBP|{at}.000000"),
        format!("purchase|1|bob|tea|1|5|50|GBP|{at}.000000"),
        format!("purchase|2|ann|tea|1|3|30|GBP|{at}.000000"),
    ];
    assert_eq!(database.rows("purchase").await, expected);
}

#[tokio::test]
async fn the_latest_rating_of_a_pair_is_kept_and_the_later_line_decides_between_equal_times() {
    let database = fresh_database().await;
    let ratings = ImportOptions::new(ImportKind::Ratings);
    let import = async |lines: &str| {
        let text = format!("user_id,item_id,value,rated_at\n{lines}");
        let summary = database.import(text, &ratings).await.unwrap();
        (summary.stored, summary.merged, database.rows("rating").await)
    };
    let rated = |value: &str| vec![format!("rating|ann|tea|{value}|1577836800.000000")];
    assert_eq!(import("ann,tea,4,2020-01-01\n").await, (1, 0, rated("4")));
    assert_eq!(import("ann,tea,1,2019-12-31\n").await, (0, 1, rated("4")));
    assert_eq!(import("ann,tea,3,2020-01-01\n").await, (1, 0, rated("3")));
    let lines = "ann,tea,5,2020-01-01\nann,tea,1,2019-01-01\nann,tea,2,2020-01-01\n";
    assert_eq!(import(lines).await, (1, 2, rated("2")));

    // That holds across batches and connections.
    let lines: String = (0..200)
        .map(|line| format!("u{},i,{},2020-01-01\n", line % 4, 1 + line / 4 % 5))
        .collect();
    let text = format!("user_id,item_id,value,rated_at\n{lines}");
    database
        .import(text, &small_batches(ImportKind::Ratings))
        .await
        .unwrap();
    let values = "SELECT count(*) FROM ratings JOIN items ON items.id = item_id WHERE external_id = 'i' AND value = 5";
    assert_eq!(database.number(values).await, 4);
}

#[tokio::test]
async fn all_ratings_of_a_file_without_times_get_the_same_time() {
    let database = fresh_database().await;
    let ratings = small_batches(ImportKind::Ratings);
    let lines: String = (0..100).map(|line| format!("u{line},i,3\n")).collect();
    database
        .import(format!("user_id,item_id,value\n{lines}"), &ratings)
        .await
        .unwrap();
    assert_eq!(database.number("SELECT count(DISTINCT rated_at) FROM ratings").await, 1);

    let dated = ImportOptions {
        connections: 2,
        ..options(ImportKind::Ratings, "", "rated_at=2020-01-01")
    };
    let summary = database
        .import(format!("user_id,item_id,value\n{lines}"), &dated)
        .await
        .unwrap();
    assert_eq!(counts(&summary), (100, 0, 100, 0));
}

/// An input like a pipe: of unknown size, in small pieces.
struct Pipe(Cursor<Vec<u8>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = buffer.len().min(1_000);
        self.0.read(&mut buffer[..end])
    }
}

#[tokio::test]
async fn plain_and_compressed_files_and_pipes_give_the_same_content() {
    let text = many_purchases().into_bytes();
    let folder = scratch();
    let write = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Input::file(&path).unwrap()
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text).unwrap();
    let gzip = gzip.finish().unwrap();
    // The content decides, not the name.
    let inputs = [
        write("plain.gz", text.clone()),
        write("gzip.csv", gzip.clone()),
        write("zstd.csv", zstd::encode_all(text.as_slice(), 3).unwrap()),
        Input::new("pipe", Pipe(Cursor::new(text.clone())), None),
        Input::new("compressed pipe", Pipe(Cursor::new(gzip)), None),
    ];
    let mut contents = Vec::new();
    for input in inputs {
        let database = fresh_database().await;
        let options = ImportOptions::new(ImportKind::Purchases);
        let summary = import(&database.pool, input, &options, &CancellationToken::new(), |_| {})
            .await
            .unwrap();
        assert_eq!(counts(&summary), (400, 400, 0, 0));
        contents.push(database.content().await);
    }
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn importing_an_item_keeps_the_fields_that_are_not_given() {
    let database = fresh_database().await;
    let items = options(ImportKind::Items, "", "currency=GBP");
    let first = "item_id,title,merchant_id,category,price,listed\ntea,Tea,leaf,drinks,2.50,yes\npot,,,,,\n";
    assert_eq!(counts(&database.import(first, &items).await.unwrap()), (2, 2, 0, 0));
    let second = "item_id,title,category,listed\ntea,,hot drinks,\npot,Pot,,no\n";
    let later = options(ImportKind::Items, "", "");
    assert_eq!(counts(&database.import(second, &later).await.unwrap()), (2, 2, 0, 0));
    assert_eq!(
        database.rows("item").await,
        ["item|pot|Pot|f", "item|tea|Tea|leaf|hot drinks|250|GBP|t"]
    );

    let merchants = options(ImportKind::Merchants, "merchant_id=id", "");
    let summary = database.import("id,name\nleaf,Leaf & Co\n", &merchants).await.unwrap();
    assert_eq!(counts(&summary), (1, 1, 0, 0));
    assert_eq!(database.rows("merchant").await, ["merchant|leaf|Leaf & Co"]);
}

#[tokio::test]
async fn files_without_header_or_lines_get_a_message_of_their_own() {
    let database = fresh_database().await;
    let ratings = ImportOptions::new(ImportKind::Ratings);
    let problem = async |text: &str| database.import(text, &ratings).await.unwrap_err().to_string();
    assert_eq!(
        problem("").await,
        "test is empty, but must have a first line with the names of its columns"
    );
    assert_eq!(
        problem("\r\n\n").await,
        "test is empty, but must have a first line with the names of its columns"
    );
    assert!(
        problem("\"user_id")
            .await
            .starts_with("test has a malformed header line")
    );
    assert!(
        problem("user_id;item_id;value\n")
            .await
            .starts_with("user_id is missing")
    );
    assert!(problem("PK\u{3}\u{4}").await.contains("Excel"));
    let summary = database.import("user_id,item_id,value\n\n", &ratings).await.unwrap();
    assert_eq!(counts(&summary), (0, 0, 0, 0));
}
