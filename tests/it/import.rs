//! Import: files into a real database.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::DateTime;
use domain::id::{ItemId, UserId};
use domain::rating::Rating;
use futures_util::future::join_all;
use likemind::app::import::columns::Assignments;
use likemind::app::import::input::Input;
use likemind::app::import::times::TimeFormats;
use likemind::app::import::{ImportError, ImportKind, ImportOptions, ImportSummary, Progress, StopCause, import};
use likemind::store::catalog::key_cache::KeyCache;
use likemind::store::error::StoreError;
use likemind::store::postgres::options::DatabaseOptions;
use likemind::store::postgres::pool::Pool;
use likemind::store::ratings;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use crate::postgres::{TestDatabase, scratch};

/// A database, and a connection for looking at what is stored.
struct Content {
    pool: Pool,
    sql: PgPool,
    /// Dropped last: nobody is connected to it any more.
    _database: TestDatabase,
}

async fn fresh_database() -> Content {
    let database = TestDatabase::create().await;
    Content {
        pool: database.pool().await,
        sql: PgPoolOptions::new()
            .max_connections(1)
            .connect(database.url())
            .await
            .unwrap(),
        _database: database,
    }
}

impl Content {
    async fn import(&self, text: impl Into<Vec<u8>>, options: &ImportOptions) -> Result<ImportSummary, ImportError> {
        let input = Input::new("test", Cursor::new(text.into()), None);
        let summary = import(&self.pool, input, options, &CancellationToken::new(), |_| {}).await?;
        assert_adds_up(&summary);
        Ok(summary)
    }

    /// The answer to a query for one number.
    async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.sql).await.unwrap()
    }

    /// Everything that is stored, with external ids, in a fixed order.
    async fn content(&self) -> Vec<String> {
        let queries = [
            "SELECT concat_ws('|', 'rating', users.external_id, items.external_id, value, extract(epoch FROM rated_at))
             FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id ORDER BY 1",
            "SELECT concat_ws('|', 'purchase', order_id, users.external_id, items.external_id, line_number, quantity,
                              line_total_minor, purchases.currency_code, extract(epoch FROM purchased_at))
             FROM purchases JOIN users ON users.id = user_id JOIN items ON items.id = item_id ORDER BY 1",
            "SELECT concat_ws('|', 'item', items.external_id, title, merchants.external_id, category, price_minor,
                              currency_code, listed)
             FROM items LEFT JOIN merchants ON merchants.id = merchant_id ORDER BY 1",
            "SELECT concat_ws('|', 'merchant', external_id, name) FROM merchants ORDER BY 1",
            "SELECT concat_ws('|', 'user', external_id) FROM users ORDER BY 1",
        ];
        let mut content = Vec::new();
        for query in queries {
            content.extend(
                sqlx::query_scalar::<_, String>(query)
                    .fetch_all(&self.sql)
                    .await
                    .unwrap(),
            );
        }
        content
    }

    async fn lines(&self, kind: &str) -> Vec<String> {
        let content = self.content().await;
        content
            .into_iter()
            .filter(|line| line.split('|').next() == Some(kind))
            .collect()
    }
}

fn assert_adds_up(summary: &ImportSummary) {
    let ImportSummary {
        read,
        stored,
        merged,
        rejected,
        ..
    } = *summary;
    assert_eq!(read, stored + merged + rejected, "{summary:?}");
    assert_eq!(summary.rejects_by_reason.values().sum::<u64>(), rejected, "{summary:?}");
}

fn counts(summary: &ImportSummary) -> (u64, u64, u64, u64) {
    (summary.read, summary.stored, summary.merged, summary.rejected)
}

/// `field=value,field=value`
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        pair.split_once('=')
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .unwrap()
    };
    text.split_terminator(',').map(pair).collect()
}

fn options(kind: ImportKind, map: &str, set: &str) -> ImportOptions {
    ImportOptions {
        assignments: Assignments {
            columns: pairs(map),
            constants: pairs(set),
        },
        ..ImportOptions::new(kind)
    }
}

fn small_batches(kind: ImportKind) -> ImportOptions {
    ImportOptions {
        connections: 3,
        transaction_lines: 7,
        ..ImportOptions::new(kind)
    }
}

/// Ratings of which every third is for a pair that was rated before; `rated_at` goes up.
fn many_ratings() -> String {
    let mut text = "user_id,item_id,value,rated_at\n".to_owned();
    for line in 0..500 {
        let (user, item) = (line % 7, (line / 3) % 60);
        let second = line / 100;
        text += &format!("u{user},i{item},{},2020-01-01T00:00:{second:02}Z\n", 1 + line % 5);
    }
    text
}

/// Order lines without line numbers, several of them for one order, user and item.
fn many_purchases() -> String {
    let mut text = "order_id,user_id,item_id,quantity,line_total_minor,currency,purchased_at\n".to_owned();
    for line in 0..400 {
        let (order, item) = (line / 8, line % 3);
        text += &format!(
            "o{order},u{},i{item},{},{},GBP,2020-01-01\n",
            order % 5,
            1 + line % 4,
            line
        );
    }
    text
}

#[tokio::test]
async fn bad_lines_are_reported_and_good_ones_loaded() {
    let database = fresh_database().await;
    let folder = scratch();
    let path = folder.path().join("purchases.csv.rejects.csv");
    let header = "order_id,line_number,user_id,item_id,quantity,unit_price,currency,purchased_at,note\r\n";
    let good =
        |order: u32| format!("{order},1,ann,tea,2,1.25,GBP,2020-05-01T12:00,\"fine,\r\nreally\"\r\n").into_bytes();
    // Line, field, reason, text.
    let bad: [(&str, &str, &[u8]); 17] = [
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
    let mut text = ["\u{feff}", header].concat().into_bytes();
    let mut want = Vec::new();
    let mut line = 2;
    for (order, (field, reason, record)) in (1..).zip(bad) {
        text.extend(good(order));
        want.push(((line + 2).to_string(), field.to_owned(), reason.to_owned()));
        text.extend(record);
        text.extend(b"\r\n\r\n");
        line += 4;
    }
    text.extend(good(99));

    let purchases = ImportOptions {
        rejects: vec![path.clone()],
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
    assert_eq!(found, want);
    assert!(rejects.iter().all(|reject| !reject[3].is_empty()));
    assert_eq!(rejects[4][4], ",1,ann,tea,2,1.25,GBP,2020-05-01,");
    assert_eq!(rejects[11][4], "x,1,ann,tea,2,\"1,25\",GBP,2020-05-01,");
    let lines = database.lines("purchase").await;
    assert_eq!(lines.len(), 18);
    assert!(
        lines.contains(&"purchase|1|ann|tea|1|2|250|GBP|1588334400.000000".to_owned()),
        "{lines:?}"
    );

    // The next import leaves no rejects: neither does it leave the former ones.
    let again = database
        .import([header.as_bytes(), &good(99)].concat(), &purchases)
        .await
        .unwrap();
    assert_eq!((counts(&again), again.rejects_file), ((1, 0, 1, 0), None));
    assert!(!path.exists());
}

fn rejects(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    assert_eq!(
        reader.headers().unwrap(),
        ["line", "field", "reason", "message", "record"].as_slice()
    );
    let record = |record: csv::StringRecord| record.iter().map(str::to_owned).collect();
    reader.records().map(Result::unwrap).map(record).collect()
}

async fn import_file(database: &Content, file: &str, options: &ImportOptions) -> ImportSummary {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data").join(file);
    let input = Input::file(&path).unwrap();
    let size = input.bytes.unwrap();
    let mut last = 0;
    let interrupt = CancellationToken::new();
    let watch = |progress: Progress<'_>| {
        assert_eq!(progress.bytes, Some(size));
        assert!(progress.bytes_read >= last && progress.bytes_read <= size);
        last = progress.bytes_read;
    };
    let summary = import(&database.pool, input, options, &interrupt, watch).await.unwrap();
    assert_eq!(last, size);
    assert_adds_up(&summary);
    summary
}

#[tokio::test]
async fn online_retail_loads_as_it_is() {
    let database = fresh_database().await;
    let items = options(ImportKind::Items, "item_id=stock_code,title=description", "");
    let summary = import_file(&database, "online_retail/items.csv.zst", &items).await;
    assert_eq!(counts(&summary), (3_541, 3_541, 0, 0));

    let purchases = ImportOptions {
        times: TimeFormats::new(&["%Y-%m-%dT%H:%M".to_owned()], "Europe/London").unwrap(),
        ..options(
            ImportKind::Purchases,
            "order_id=invoice,user_id=customer_id,item_id=stock_code,quantity=qty,purchased_at=ts",
            "currency=GBP",
        )
    };
    let summary = import_file(&database, "online_retail/purchases.csv.zst", &purchases).await;
    assert_eq!(counts(&summary), (278_616, 278_616, 0, 0));

    assert_eq!(database.number("SELECT count(*) FROM purchases").await, 278_616);
    assert_eq!(
        database
            .number("SELECT sum(line_total_minor)::bigint FROM purchases")
            .await,
        640_277_455
    );
    assert_eq!(database.number("SELECT sum(quantity) FROM purchases").await, 3_787_620);
    assert_eq!(database.number("SELECT count(*) FROM users").await, 3_718);
    assert_eq!(database.number("SELECT count(*) FROM items").await, 3_541);
    assert_eq!(
        database.number("SELECT max(line_number)::bigint FROM purchases").await,
        20
    );
    let latest = "SELECT extract(epoch FROM max(purchased_at))::bigint FROM purchases";
    // 16:22 in London, which is 15:22 in UTC in summer.
    assert_eq!(database.number(latest).await, 1_318_173_720);
}

#[tokio::test]
async fn the_complete_journey_loads_as_it_is() {
    let database = fresh_database().await;
    let items = options(
        ImportKind::Items,
        "item_id=product_id,merchant_id=manufacturer_id,category=product_category,title={product_type} {package_size}",
        "",
    );
    let summary = import_file(&database, "complete_journey/products.csv.zst", &items).await;
    assert_eq!(counts(&summary), (53_957, 53_957, 0, 0));

    let purchases = options(
        ImportKind::Purchases,
        "order_id=basket_id,user_id=household_id,item_id=product_id,line_total=sales_value,\
         purchased_at=transaction_timestamp",
        "currency=USD",
    );
    let summary = import_file(&database, "complete_journey/transactions.csv.zst", &purchases).await;
    assert_eq!(counts(&summary), (66_528, 66_156, 0, 372));
    assert_eq!(summary.rejects_by_reason, BTreeMap::from([("ZERO_QUANTITY", 372)]));

    assert_eq!(database.number("SELECT count(*) FROM purchases").await, 66_156);
    assert_eq!(
        database
            .number("SELECT sum(line_total_minor)::bigint FROM purchases")
            .await,
        20_626_994
    );
    assert_eq!(database.number("SELECT sum(quantity) FROM purchases").await, 6_748_604);
    assert_eq!(database.number("SELECT count(*) FROM users").await, 2_333);
    assert_eq!(database.number("SELECT count(*) FROM items").await, 53_958);
    assert_eq!(database.number("SELECT count(*) FROM merchants").await, 4_243);
    assert_eq!(database.number("SELECT count(DISTINCT category) FROM items").await, 298);
    let item: Option<String> = sqlx::query_scalar("SELECT title FROM items WHERE external_id = '26190'")
        .fetch_one(&database.sql)
        .await
        .unwrap();
    assert_eq!(item.as_deref(), Some("APPLE SAUCE 50 OZ"));
}

#[tokio::test]
async fn importing_twice_is_importing_once() {
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
    let want = [
        format!("purchase|1|ann|pot|1|2|20|GBP|{at}.000000"),
        format!("purchase|1|ann|tea|1|1|10|GBP|{at}.000000"),
        format!("purchase|1|ann|tea|2|4|40|GBP|{at}.000000"),
        format!("purchase|1|bob|tea|1|5|50|GBP|{at}.000000"),
        format!("purchase|2|ann|tea|1|3|30|GBP|{at}.000000"),
    ];
    assert_eq!(database.lines("purchase").await, want);
}

#[tokio::test]
async fn the_latest_rating_wins() {
    let database = fresh_database().await;
    let ratings = ImportOptions::new(ImportKind::Ratings);
    let import = async |lines: &str| {
        let text = format!("user_id,item_id,value,rated_at\n{lines}");
        let summary = database.import(text, &ratings).await.unwrap();
        (summary.stored, summary.merged, database.lines("rating").await)
    };
    let rated = |value: &str| vec![format!("rating|ann|tea|{value}|1577836800.000000")];
    assert_eq!(import("ann,tea,4,2020-01-01\n").await, (1, 0, rated("4")));
    assert_eq!(import("ann,tea,1,2019-12-31\n").await, (0, 1, rated("4")));
    assert_eq!(import("ann,tea,3,2020-01-01\n").await, (1, 0, rated("3")));
    let lines = "ann,tea,5,2020-01-01\nann,tea,1,2019-01-01\nann,tea,2,2020-01-01\n";
    assert_eq!(import(lines).await, (1, 2, rated("2")));

    // The order of the lines decides at equal instants, over batches and connections.
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
async fn ratings_without_a_time_are_dated_together() {
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

#[tokio::test]
async fn an_interrupted_import_is_made_good_by_the_next() {
    let database = fresh_database().await;
    for (kind, text) in [
        (ImportKind::Ratings, many_ratings()),
        (ImportKind::Purchases, many_purchases()),
    ] {
        let whole = fresh_database().await;
        whole.import(text.as_str(), &small_batches(kind)).await.unwrap();
        let want = whole.content().await;

        // Ends after what is under way, the fifth batch and the one that was handed over behind it, and says what was done
        // until then.
        let interrupt = CancellationToken::new();
        let mut batches = 0;
        let input = Input::new("test", Cursor::new(text.clone().into_bytes()), None);
        let options = small_batches(kind);
        let count = |_: Progress<'_>| {
            batches += 1;
            if batches == 5 {
                interrupt.cancel();
            }
        };
        let summary = import(&database.pool, input, &options, &interrupt, count)
            .await
            .unwrap();
        assert!(summary.interrupted);
        assert_eq!((batches, summary.read, summary.last_line), (6, 126, 127));
        assert_adds_up(&summary);
        if kind == ImportKind::Purchases {
            assert_eq!(database.number("SELECT count(*) FROM purchases").await, 126);
        }

        // Killed: the future is dropped at any moment, with transactions under way.
        for await_points in [3, 10, 25, 60] {
            let input = Input::new("test", Cursor::new(text.clone().into_bytes()), None);
            let interrupt = CancellationToken::new();
            let options = small_batches(kind);
            let mut running = std::pin::pin!(import(&database.pool, input, &options, &interrupt, |_| {}));
            let mut polls = 0;
            let killed = std::future::poll_fn(|context| {
                polls += 1;
                match running.as_mut().poll(context) {
                    std::task::Poll::Ready(_) => std::task::Poll::Ready(()),
                    std::task::Poll::Pending if polls >= await_points => std::task::Poll::Ready(()),
                    std::task::Poll::Pending => std::task::Poll::Pending,
                }
            });
            killed.await;
        }

        let summary = database.import(text.as_str(), &small_batches(kind)).await.unwrap();
        assert!(!summary.interrupted);
        let content = database.content().await;
        assert_eq!(content, want, "{kind:?}");
        // Without the triggers that keep what was recorded from being changed.
        let empty = "SET LOCAL session_replication_role = replica; TRUNCATE ratings, purchases, users, items CASCADE";
        sqlx::raw_sql(empty).execute(&database.sql).await.unwrap();
    }
}

#[tokio::test]
async fn compression_and_pipes_make_no_difference() {
    /// As standard input: of unknown size, in small pieces.
    struct Pipe(Cursor<Vec<u8>>);
    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(1_000);
            self.0.read(&mut buffer[..end])
        }
    }

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
    // The names say nothing of what is inside.
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
async fn items_keep_what_a_file_does_not_say() {
    let database = fresh_database().await;
    let items = options(ImportKind::Items, "", "currency=GBP");
    let first = "item_id,title,merchant_id,category,price,listed\ntea,Tea,leaf,drinks,2.50,yes\npot,,,,,\n";
    assert_eq!(counts(&database.import(first, &items).await.unwrap()), (2, 2, 0, 0));
    let second = "item_id,title,category,listed\ntea,,hot drinks,\npot,Pot,,no\n";
    let later = options(ImportKind::Items, "", "");
    assert_eq!(counts(&database.import(second, &later).await.unwrap()), (2, 2, 0, 0));
    assert_eq!(
        database.lines("item").await,
        ["item|pot|Pot|f", "item|tea|Tea|leaf|hot drinks|250|GBP|t"]
    );

    let merchants = options(ImportKind::Merchants, "merchant_id=id", "");
    let summary = database.import("id,name\nleaf,Leaf & Co\n", &merchants).await.unwrap();
    assert_eq!(counts(&summary), (1, 1, 0, 0));
    assert_eq!(database.lines("merchant").await, ["merchant|leaf|Leaf & Co"]);
}

#[tokio::test]
async fn files_without_lines_are_told_apart() {
    let database = fresh_database().await;
    let ratings = ImportOptions::new(ImportKind::Ratings);
    let problem = async |text: &str| database.import(text, &ratings).await.unwrap_err().to_string();
    assert_eq!(
        problem("").await,
        "test is empty: it needs a first line that names its columns"
    );
    assert_eq!(
        problem("\r\n\n").await,
        "test is empty: it needs a first line that names its columns"
    );
    assert!(
        problem("\"user_id")
            .await
            .starts_with("test has no header of column names")
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

#[tokio::test]
async fn a_file_that_breaks_off_is_imported_up_to_there() {
    let database = fresh_database().await;
    let mut compressed = Vec::new();
    for part in many_ratings().as_bytes().chunks(1_000) {
        compressed.extend(zstd::encode_all(part, 1).unwrap());
    }
    compressed.truncate(compressed.len() - 10);
    let error = database
        .import(compressed, &small_batches(ImportKind::Ratings))
        .await
        .unwrap_err();
    let ImportError::Stopped {
        cause: StopCause::Read(_),
        summary,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_adds_up(&summary);
    // Up to the last whole line.
    assert!(summary.read > 460, "{summary:?}");
    assert!(database.number("SELECT count(*) FROM ratings").await > 0);
}

#[tokio::test]
async fn too_many_rejects_stop_the_import() {
    let database = fresh_database().await;
    let folder = scratch();
    let path = folder.path().join("rejects.csv");
    let lines: String = (0..300).map(|line| format!("u{line},i,{}\n", line % 10)).collect();
    let text = format!("user_id,item_id,value\n{lines}");
    let limited = |max| ImportOptions {
        max_rejects: Some(max),
        rejects: vec![path.clone()],
        ..small_batches(ImportKind::Ratings)
    };
    // Half of the lines are bad: the fourth batch has the 40th of them.
    let error = database.import(text.as_str(), &limited(40)).await.unwrap_err();
    let message = error.to_string();
    let ImportError::Stopped {
        cause: StopCause::TooManyRejects { max: 40 },
        summary,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_adds_up(&summary);
    assert_eq!((summary.read, summary.last_line), (84, 85));
    assert!(message.contains("stopped after line 85"), "{message}");
    assert_eq!(rejects(&path).len() as u64, summary.rejected);
    assert_eq!(
        database.number("SELECT count(*) FROM ratings").await as u64,
        summary.stored
    );

    let enough = database.import(text.as_str(), &limited(150)).await.unwrap();
    assert_eq!((enough.read, enough.rejected), (300, 150));
}

#[tokio::test]
async fn an_import_outlives_its_connections() {
    let database = fresh_database().await;
    let text = many_purchases();
    let input = Input::new("test", Cursor::new(text.into_bytes()), None);
    let kill = async {
        let mut killed = 0i64;
        for pause_ms in [5, 20, 40, 60, 80] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                             WHERE datname = current_database() AND pid <> pg_backend_pid()";
            killed += sqlx::query_scalar::<_, i64>(statement)
                .fetch_one(&database.sql)
                .await
                .unwrap();
        }
        killed
    };
    let options = small_batches(ImportKind::Purchases);
    let interrupt = CancellationToken::new();
    let (summary, killed) = tokio::join!(import(&database.pool, input, &options, &interrupt, |_| {}), kill);
    let summary = summary.unwrap();
    assert!(killed > 0);
    assert_adds_up(&summary);
    // What was stored just before its connection was lost is merged the second time.
    assert_eq!((summary.read, summary.rejected), (400, 0));
    assert_eq!(database.number("SELECT count(*) FROM purchases").await, 400);
}

#[tokio::test]
async fn a_database_that_stays_away_ends_the_import() {
    // Nobody listens there.
    let pool = Pool::lazy("postgres://postgres@127.0.0.1:1/nowhere", &DatabaseOptions::default()).unwrap();
    let options = ImportOptions {
        patience: Duration::from_millis(300),
        ..small_batches(ImportKind::Ratings)
    };
    let input = || Input::new("test", Cursor::new(many_ratings().into_bytes()), None);
    let error = import(&pool, input(), &options, &CancellationToken::new(), |_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("stopped after line 0"), "{error}");
    let ImportError::Stopped {
        cause: StopCause::Store(StoreError::Unavailable(_)),
        summary,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(counts(&summary), (0, 0, 0, 0));

    // Waiting for it can be interrupted.
    let options = ImportOptions {
        patience: Duration::from_secs(600),
        ..options
    };
    let interrupt = CancellationToken::new();
    let (summary, ()) = tokio::join!(import(&pool, input(), &options, &interrupt, |_| {}), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        interrupt.cancel();
    });
    assert!(summary.unwrap().interrupted);
}

#[tokio::test]
async fn a_slow_writer_can_be_interrupted() {
    /// Standard input of a program that says nothing.
    struct Silence;
    impl Read for Silence {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            std::thread::park();
            Ok(0)
        }
    }
    let pool = Pool::lazy("postgres://postgres@127.0.0.1:1/nowhere", &DatabaseOptions::default()).unwrap();
    let header = Cursor::new(b"user_id,item_id,value\nann,tea,5\n");
    for input in [
        Input::new("silence", Silence, None),
        Input::new("silence", header.chain(Silence), None),
    ] {
        let (pool, interrupt) = (pool.clone(), CancellationToken::new());
        let importing = tokio::spawn({
            let interrupt = interrupt.clone();
            async move {
                import(
                    &pool,
                    input,
                    &ImportOptions::new(ImportKind::Ratings),
                    &interrupt,
                    |_| {},
                )
                .await
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        interrupt.cancel();
        let summary = importing.await.unwrap().unwrap();
        assert!(summary.interrupted);
        assert_eq!(summary.read, 0);
    }
}

fn rating(user: &str, item: &str, value: f32, second: i64) -> Rating {
    Rating {
        user: UserId::new(user).unwrap(),
        item: ItemId::new(item).unwrap(),
        value,
        rated_at: DateTime::from_timestamp_secs(second).unwrap(),
    }
}

#[tokio::test]
async fn ratings_refer_to_what_is_there() {
    let database = fresh_database().await;
    let known = KeyCache::default();
    let batch = [rating("ann", "tea", 4.0, 1), rating("bob", "tea", 3.0, 1)];
    assert_eq!(ratings::load(&database.pool, &known, &batch).await.unwrap(), 2);
    for statement in [
        "INSERT INTO ratings VALUES (4711, (SELECT id FROM items), 3, now())",
        "INSERT INTO ratings VALUES ((SELECT max(id) FROM users), 4711, 3, now())",
        "DELETE FROM users WHERE external_id = 'ann'",
        "DELETE FROM items",
    ] {
        let error = sqlx::query(statement).execute(&database.sql).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_foreign_key_violation(), "{error}");
    }

    // A key that is known may be that of a user who is gone.
    sqlx::raw_sql(
        "DELETE FROM ratings WHERE user_id = (SELECT id FROM users WHERE external_id = 'ann');
                   DELETE FROM users WHERE external_id = 'ann'",
    )
    .execute(&database.sql)
    .await
    .unwrap();
    let batch = [rating("ann", "tea", 5.0, 2), rating("bob", "tea", 3.0, 1)];
    assert_eq!(ratings::load(&database.pool, &known, &batch).await.unwrap(), 1);
    assert_eq!(
        database.lines("rating").await,
        ["rating|ann|tea|5|2.000000", "rating|bob|tea|3|1.000000"]
    );
}

/// Batches of new pairs only are stored in another way than those that meet pairs which are there.
#[tokio::test]
async fn batches_with_and_without_new_ratings_take_turns() {
    let database = fresh_database().await;
    let known = KeyCache::default();
    let load = async |batch: &[Rating]| ratings::load(&database.pool, &known, batch).await.unwrap();
    // Of two of a batch the later one counts.
    let new = [
        rating("ann", "tea", 4.0, 1),
        rating("ann", "tea", 3.0, 2),
        rating("bob", "tea", 3.0, 1),
    ];
    assert_eq!(load(&new).await, 2);
    let (bob, tea) = (UserId::new("bob").unwrap(), ItemId::new("tea").unwrap());
    let deleted_at = DateTime::from_timestamp_secs(5).unwrap();
    assert!(ratings::delete(&database.pool, &bob, &tea, deleted_at).await.unwrap());
    // Newer, as it was, deleted later, new.
    let mixed = [
        rating("ann", "tea", 5.0, 3),
        rating("bob", "tea", 2.0, 4),
        rating("cid", "tea", 2.0, 1),
    ];
    assert_eq!(load(&mixed).await, 2);
    assert_eq!(load(&mixed).await, 0);
    assert_eq!(load(&[rating("dan", "tea", 1.0, 1)]).await, 1);
    assert_eq!(
        load(&[rating("eve", "tea", 1.0, 1), rating("eve", "milk", 2.0, 1)]).await,
        2
    );
    assert_eq!(load(&[]).await, 0);
    assert_eq!(
        database.lines("rating").await,
        [
            "rating|ann|tea|5|3.000000",
            // Deleted.
            "rating|bob|tea|5.000000",
            "rating|cid|tea|2|1.000000",
            "rating|dan|tea|1|1.000000",
            "rating|eve|milk|2|1.000000",
            "rating|eve|tea|1|1.000000",
        ]
    );
    // In the feed stands what was stored, in a row a batch, and nothing of a batch of no effect.
    let pairs = "SELECT COALESCE(sum(cardinality(user_ids)), 0)::bigint FROM changes WHERE user_ids IS NOT NULL";
    assert_eq!(database.number(pairs).await, 2 + 2 + 1 + 2);
    assert_eq!(
        database
            .number("SELECT count(*) FROM changes WHERE user_ids IS NOT NULL")
            .await,
        4
    );
}

/// Every writer finds that the pairs are not there, and all but one that they are.
#[tokio::test]
async fn writers_of_the_same_new_ratings_do_not_fail() {
    const N_WRITERS: i64 = 8;
    let database = fresh_database().await;
    let known = KeyCache::default();
    let writes = (1..=N_WRITERS).map(|second| {
        let batch: Vec<Rating> = (0..300)
            .map(|n| {
                rating(
                    &format!("u{}", n % 20),
                    &format!("i{n:03}"),
                    (second % 5 + 1) as f32,
                    second,
                )
            })
            .collect();
        let (pool, known) = (&database.pool, &known);
        async move {
            match second % 2 {
                0 => ratings::load(pool, known, &batch).await.unwrap(),
                _ => ratings::upsert(pool, &batch).await.unwrap().len(),
            }
        }
    });
    join_all(writes).await;
    let latest = "SELECT count(*) FROM ratings WHERE rated_at = to_timestamp(8) AND value = 4";
    assert_eq!(database.number(latest).await, 300);
    // Every change is in the feed, in one row a batch.
    let pairs = "SELECT count(DISTINCT (pair.user_id, pair.item_id)) FROM changes, UNNEST(user_ids, item_ids) AS pair (user_id, item_id)";
    assert_eq!(database.number(pairs).await, 300);
    let batches = "SELECT count(*) FROM changes WHERE user_ids IS NOT NULL";
    assert!(database.number(batches).await <= N_WRITERS);
}
