//! Files as people have them, imported by the real program.

use std::path::PathBuf;

use tempfile::TempDir;

use super::content::{Content, fresh_database};
use crate::support::program::run;

/// A database, and a folder for files.
pub(super) struct Shop {
    content: Content,
    folder: TempDir,
}

/// The outcome of a run of the program: its exit code, standard output and standard error.
pub(super) struct Ran {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

impl Shop {
    pub async fn open() -> Self {
        Self {
            content: fresh_database().await,
            folder: crate::support::postgres::scratch(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `bytes` to a file and imports it.
    pub fn import(&self, kind: &str, bytes: &[u8], args: &[&str]) -> Ran {
        let file = self.path("file");
        std::fs::write(&file, bytes).unwrap();
        let rejects = format!("--rejects={}", self.path("rejects.csv").display());
        let mut all = vec!["import", kind, file.to_str().unwrap(), &rejects];
        all.extend(args);
        let (code, output, errors) = run(&self.content.database, &all);
        Ran { code, output, errors }
    }

    /// Imports a file all of whose `lines` must be stored.
    fn stores(&self, kind: &str, bytes: &[u8], args: &[&str], lines: u64) -> String {
        let Ran { code, output, errors } = self.import(kind, bytes, args);
        let counts = format!("read {lines} = stored {lines} + merged 0 + rejected 0");
        assert!(
            code == 0 && output.contains(&counts),
            "{args:?}: {code}\n{output}\n{errors}"
        );
        output
    }

    /// Imports a file whose one line must be rejected with `reason`.
    fn rejects(&self, kind: &str, bytes: &[u8], args: &[&str], reason: &str) {
        let Ran { code, output, errors } = self.import(kind, bytes, args);
        assert_eq!(code, 6, "{output}\n{errors}");
        assert!(output.contains(&format!("rejected 1: {reason}")), "{output}\n{errors}");
    }

    async fn rows(&self, kind: &str) -> Vec<String> {
        self.content.rows(kind).await
    }

    /// Returns the totals of all purchases in minor units, ascending.
    async fn totals(&self) -> Vec<i64> {
        sqlx::query_scalar("SELECT line_total_minor FROM purchases ORDER BY 1")
            .fetch_all(&self.content.sql)
            .await
            .unwrap()
    }
}

const RATED: &str = "--set=rated_at=2020-01-01";

fn rated(rows: &[&str]) -> Vec<String> {
    rows.iter()
        .map(|row| format!("rating|{row}|1577836800.000000"))
        .collect()
}

#[tokio::test]
async fn csv_is_read_in_its_dialects() {
    let by_number = ["--no-header", "--map", "user_id=1,item_id=2,value=3", RATED];
    for (text, args) in [
        ("ann,tea,5\nbob,pot,4\n", &[][..]),
        ("ann::tea::5\nbob::pot::4\n", &["--delimiter=::"]),
        ("ann \t tea  5\n  bob pot 4 \n", &["--delimiter=whitespace"]),
        ("ann\ttea\t5\nbob\tpot\t4\n", &["--delimiter=tab"]),
        ("'ann';'tea';5\n'bob';'pot';4\n", &["--delimiter=;", "--quote='"]),
        ("sep=;\nann;tea;5\nbob;pot;4\n", &[]),
    ] {
        let shop = Shop::open().await;
        shop.stores("ratings", text.as_bytes(), &[&by_number[..], args].concat(), 2);
        assert_eq!(
            shop.rows("rating").await,
            rated(&["ann|tea|5", "bob|pot|4"]),
            "{text:?}"
        );
    }
    let shop = Shop::open().await;
    shop.stores(
        "ratings",
        b"User ID,ITEMID,Value\n\"a\\\"b\",x\\,y,5\n",
        &["--escape=\\", RATED],
        1,
    );
    shop.stores(
        "ratings",
        b"user_id,item_id,value\na,\"5 inch,4\n",
        &["--quote=none", RATED],
        1,
    );
    assert_eq!(shop.rows("rating").await, rated(&["a\"b|x,y|5", "a|\"5 inch|4"]));
}

#[tokio::test]
async fn a_missing_header_is_noticed() {
    let shop = Shop::open().await;
    let text = "196,242,3,881250949\n186,302,3,891717742\n";
    let ran = shop.import("ratings", text.as_bytes(), &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.errors.contains("they look like data"), "{}", ran.errors);
    assert!(ran.errors.contains("--no-header"), "{}", ran.errors);
    let map = [
        "--map=user_id=196,item_id=242,value=3,rated_at=881250949",
        "--time-format=unix",
    ];
    let ran = shop.import("ratings", text.as_bytes(), &map);
    assert!(
        ran.output.contains("warning: The first line was read as the names"),
        "{}",
        ran.output
    );
}

#[tokio::test]
async fn text_is_read_in_its_encoding() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let text = "user_id,item_id,value\nann,Käse,5\n";
    for (bytes, args) in [
        (text.as_bytes().to_vec(), &[RATED][..]),
        (
            b"user_id,item_id,value\nann,K\xe4se,5\n".to_vec(),
            &[RATED, "--encoding=latin1"],
        ),
        (utf16(&format!("\u{feff}{text}")), &[RATED]),
        (utf16(text), &[RATED, "--encoding=utf-16le"]),
    ] {
        let shop = Shop::open().await;
        shop.stores("ratings", &bytes, args, 1);
        assert_eq!(shop.rows("rating").await, rated(&["ann|Käse|5"]), "{args:?}");
    }
    let shop = Shop::open().await;
    let ran = shop.import("ratings", &utf16(text), &[]);
    assert!(ran.errors.contains("--encoding UTF-16LE"), "{}", ran.errors);
    assert!(!ran.errors.contains('\0'), "{}", ran.errors);
    shop.rejects(
        "ratings",
        b"user_id,item_id,value\nann,K\xe4se,5\n",
        &[],
        "INVALID_UTF8",
    );
    let rejects = std::fs::read_to_string(shop.path("rejects.csv")).unwrap();
    assert!(rejects.contains("--encoding windows-1252"), "{rejects}");
}

#[tokio::test]
async fn json_lines_become_rows() {
    let shop = Shop::open().await;
    let text = concat!(
        "{\"customer\":{\"id\":\"ann\"},\"sku\":12345678901234567890123,\"stars\":4.5}\n",
        "{\"customer\":{\"id\":\"bob\"},\"sku\":7,\"stars\":null}\n",
        "{\"customer\":{\"id\":\"bob\"},\"sku\":7,\n",
    );
    let args = [
        "--map=user_id=customer.id,item_id=sku,value=stars",
        RATED,
        "--max-reject-share=1",
    ];
    let ran = shop.import("ratings", text.as_bytes(), &args);
    assert!(
        ran.output.contains("read 3 = stored 1 + merged 0 + rejected 2"),
        "{}",
        ran.output
    );
    assert!(ran.output.contains("rejected 1: BAD_JSON"), "{}", ran.output);
    assert_eq!(shop.rows("rating").await, rated(&["ann|12345678901234567890123|4.5"]));
}

/// The columns of a file of purchases with prices, without its header.
const PURCHASES: &str = "order_id,user_id,item_id,quantity,unit_price,purchased_at\n";

fn purchases(prices: &[&str]) -> Vec<u8> {
    let line = |(order, price): (usize, &&str)| format!("{order},ann,tea,1,\"{price}\",2020-01-01\n");
    let lines: String = prices.iter().enumerate().map(line).collect();
    [PURCHASES, &lines].concat().into_bytes()
}

const GBP: &str = "--set=currency=GBP";
const EUR: &str = "--set=currency=EUR";

#[tokio::test]
async fn amounts_are_read_as_they_are_written_or_refused() {
    let shop = Shop::open().await;
    let prices = ["9,99", "1.299,00", "€ 2,50", "1.234", "3 €"];
    shop.stores("purchases", &purchases(&prices), &["--decimal=,", EUR], 5);
    assert_eq!(shop.totals().await, [250, 300, 999, 123_400, 129_900]);

    let shop = Shop::open().await;
    shop.stores(
        "purchases",
        &purchases(&["1,299.00", "€9.99", "4.44e-16", "0.30000000000000004"]),
        &[EUR],
        4,
    );
    assert_eq!(shop.totals().await, [0, 30, 999, 129_900]);
    shop.rejects("purchases", &purchases(&["€9.99"]), &[GBP], "CURRENCY_MISMATCH");
    shop.rejects("purchases", &purchases(&["1.234"]), &[GBP], "TOO_MANY_DECIMALS");
    shop.rejects(
        "purchases",
        &purchases(&["1.5"]),
        &["--set=currency=JPY"],
        "TOO_MANY_DECIMALS",
    );
    shop.rejects("purchases", &purchases(&["9,99"]), &[GBP], "INVALID_NUMBER");
    shop.rejects("purchases", &purchases(&["1,299"]), &[GBP], "INVALID_NUMBER");
    let rounded = Shop::open().await;
    rounded.stores("purchases", &purchases(&["1.235"]), &[GBP, "--round"], 1);
    assert_eq!(rounded.totals().await, [124]);
}

#[tokio::test]
async fn a_percentage_has_at_most_two_decimals() {
    let shop = Shop::open().await;
    shop.stores(
        "campaigns",
        b"campaign_id,starts_at,ends_at\nc,2020-01-01,2020-02-01\n",
        &[GBP],
        1,
    );
    let coupon = |percent: &str| format!("coupon_id,campaign_id,percent\nk{percent},c,{percent}\n").into_bytes();
    shop.rejects("coupons", &coupon("99.999"), &[GBP], "TOO_MANY_DECIMALS");
    shop.rejects("coupons", &coupon("0.005"), &[GBP], "TOO_MANY_DECIMALS");
    shop.stores("coupons", &coupon("12.5"), &[GBP], 1);
    assert_eq!(
        shop.content
            .number("SELECT percent_basis_points::bigint FROM coupons")
            .await,
        1_250
    );
}

#[tokio::test]
async fn blanks_around_ids_mean_nothing_and_absent_ones_can_be_named() {
    let shop = Shop::open().await;
    let text =
        "user_id,item_id,value\n\"12 \",TEA,5\n\u{a0}12\u{200b},POT,4\n\u{feff}13,TEA\u{3000},3\nNA,TEA,1\n\\N,TEA,1\n";
    let ran = shop.import(
        "ratings",
        text.as_bytes(),
        &["--null=NA,\\N", RATED, "--max-reject-share=.5"],
    );
    assert!(ran.output.contains("rejected 2: MISSING"), "{}", ran.output);
    assert_eq!(shop.rows("rating").await, rated(&["12|POT|4", "12|TEA|5", "13|TEA|3"]));
    let output = shop.stores(
        "ratings",
        b"user_id,item_id,value\n17.0,x,5\n18.0,1.10,5\n",
        &[RATED],
        2,
    );
    assert!(output.contains("warning: 2 ids in user_id end in .0"), "{output}");
    assert!(!output.contains("item_id end"), "{output}");
}

#[tokio::test]
async fn implausible_times_are_refused_or_pointed_out() {
    let rating = |at: &str| format!("user_id,item_id,value,rated_at\nann,tea,5,{at}\n").into_bytes();
    let shop = Shop::open().await;
    shop.rejects(
        "ratings",
        &rating("15/08/13"),
        &["--time-format=%d/%m/%Y"],
        "INVALID_TIMESTAMP",
    );
    let campaign = b"campaign_id,starts_at,ends_at\nc,0013-01-01,2020-02-01\n";
    shop.rejects("campaigns", campaign, &[GBP], "INVALID_TIMESTAMP");
    let campaign = b"campaign_id,starts_at,ends_at\nc,1013-01-01,2020-02-01\n";
    shop.rejects("campaigns", campaign, &[GBP], "TIME_OUT_OF_RANGE");
    let output = shop.stores("ratings", &rating("10/02/2011"), &["--time-format=%d/%m/%Y"], 1);
    assert!(output.contains("the day could be the month"), "{output}");
    let output = shop.stores(
        "ratings",
        &rating("1313403630"),
        &["--time-format=unix_ms", "--set=item_id=x"],
        1,
    );
    assert!(output.contains("All times lie in 1970"), "{output}");
}

#[tokio::test]
async fn the_summary_tells_what_the_file_holds() {
    let shop = Shop::open().await;
    let text = "user_id,item_id,value,rated_at\nann,tea,5,2020-03-01\nbob,tea,1.5,2019-01-01\nann,pot,3,2020-01-01\n";
    let output = shop.stores("ratings", text.as_bytes(), &[], 3);
    let wanted =
        "2 users, 2 items, times from 2019-01-01 00:00:00 UTC to 2020-03-01 00:00:00 UTC, values from 1.5 to 5";
    assert!(output.contains(wanted), "{output}");
    assert!(
        output.contains("optional columns taken by their name: rated_at"),
        "{output}"
    );
}

#[tokio::test]
async fn an_optional_column_that_nobody_mapped_is_named_where_it_rejects_lines() {
    let shop = Shop::open().await;
    let text = "order_id,user_id,item_id,quantity,line_total,purchased_at,coupon_discount\n\
                1,ann,tea,1,5,2020-01-01,none\n2,ann,tea,1,5,2020-01-01,\n";
    let ran = shop.import("purchases", text.as_bytes(), &[GBP]);
    assert_eq!(ran.code, 6);
    let wanted =
        "rejected 1 for coupon_discount, read from coupon_discount by its name; --unmap coupon_discount leaves it out";
    assert!(ran.output.contains(wanted), "{}", ran.output);
    shop.stores("purchases", text.as_bytes(), &[GBP, "--unmap=coupon_discount"], 2);
}

#[tokio::test]
async fn discounts_may_have_either_sign_but_not_both() {
    let file = |discounts: &[&str]| {
        let line = |(order, discount): (usize, &&str)| {
            let (quantity, discount) = discount.split_once('x').unwrap();
            format!("{order},ann,tea,{quantity},5,2020-01-01,{discount}\n")
        };
        let lines: String = discounts.iter().enumerate().map(line).collect();
        format!("order_id,user_id,item_id,quantity,line_total,purchased_at,coupon_discount\n{lines}").into_bytes()
    };
    for discounts in [["1x-1.50", "1x0", "-1x1.50"], ["1x1.50", "1x0", "-1x-1.50"]] {
        let shop = Shop::open().await;
        shop.stores("purchases", &file(&discounts), &[GBP], 3);
        let sum = "SELECT sum(coupon_discount_minor)::bigint FROM purchases";
        assert_eq!(shop.content.number(sum).await, 300, "{discounts:?}");
    }
    let shop = Shop::open().await;
    let ran = shop.import("purchases", &file(&["1x-1", "1x2"]), &[GBP, "--max-reject-share=1"]);
    assert!(
        ran.output.contains("rejected 1: MIXED_DISCOUNT_SIGNS"),
        "{}",
        ran.output
    );
}

#[tokio::test]
async fn an_export_of_orders_is_filtered_and_its_values_mapped() {
    let shop = Shop::open().await;
    let text = "Name,Financial Status,Email,Lineitem sku,Lineitem quantity,Lineitem price,Created at,Kind\n\
                #1,paid,ann@example.com,tea,2,5.00,2020-01-01 10:00:00 +0100,sale\n\
                #1,,,pot,,3.00,,sale\n\
                #2,cancelled,bob@example.com,tea,1,5.00,2020-01-02 10:00:00 +0100,sale\n\
                #3,paid,bob@example.com,tea,1,-5.00,2020-01-03 10:00:00 +0100,refund\n";
    let args = [
        "--map=order_id=Name,user_id=Email,item_id=Lineitem sku,quantity=Lineitem quantity,unit_price=Lineitem price",
        "--map=purchased_at=Created at",
        "--time-format=%Y-%m-%d %H:%M:%S %z",
        "--fill-forward=Financial Status,Email,Created at",
        "--default=Lineitem quantity=1",
        "--where=Financial Status != cancelled",
        "--map-value=Kind=refund:back",
        "--where=kind in sale, back",
        "--negate=Lineitem price",
        GBP,
    ];
    let output = shop.stores("purchases", text.as_bytes(), &args, 3);
    assert!(output.contains("left out 1"), "{output}");
    assert_eq!(shop.totals().await, [-1_000, -300, 500]);
    let owners = "SELECT count(DISTINCT user_id) FROM purchases";
    assert_eq!(shop.content.number(owners).await, 2);
    let ran = shop.import("purchases", text.as_bytes(), &["--where=state = paid", GBP]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.errors.contains("--where: the file has no column \"state\""),
        "{}",
        ran.errors
    );
}

/// Returns a file of ratings in which every line from `first_bad` on is rejected.
fn ratings_until(first_bad: usize, lines: usize) -> Vec<u8> {
    let line = |line: usize| format!("u{},i{line},{}\n", line % 50, if line < first_bad { 5 } else { 9 });
    let lines: String = (0..lines).map(line).collect();
    format!("user_id,item_id,value\n{lines}").into_bytes()
}

#[tokio::test]
async fn a_file_that_does_not_fit_stores_nothing() {
    let shop = Shop::open().await;
    let stored = "SELECT count(*) FROM ratings";
    for (bytes, args, part) in [
        (ratings_until(0, 30), &[RATED][..], "none of the 30 lines was accepted"),
        (ratings_until(25, 30), &[RATED], "5 of the first 30 lines were rejected"),
        (
            ratings_until(8_000, 50_000),
            &[RATED],
            "2000 of the first 10000 lines were rejected",
        ),
        (
            ratings_until(25, 30),
            &[RATED, "--max-rejects=2"],
            "stopped at line 29, because more than 2 lines were rejected; nothing was stored",
        ),
        (
            ratings_until(30, 30),
            &[RATED, "--where=value = 1"],
            "none of the 30 lines meets the conditions",
        ),
    ] {
        let ran = shop.import("ratings", &bytes, args);
        assert_eq!(ran.code, 6, "{part}: {}{}", ran.output, ran.errors);
        assert!(ran.errors.contains(part), "{part}: {}", ran.errors);
        assert_eq!(shop.content.number(stored).await, 0, "{part}");
    }
    let ran = shop.import("ratings", &ratings_until(28, 30), &[RATED]);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    // Lines that are there already are accepted too.
    let ran = shop.import("ratings", &ratings_until(28, 28), &[RATED]);
    assert!(ran.code == 0 && ran.output.contains("merged 28"), "{}", ran.output);
}

#[tokio::test]
async fn rejects_beyond_the_first_lines_are_judged_at_the_end() {
    let shop = Shop::open().await;
    let ran = shop.import("ratings", &ratings_until(20_000, 30_000), &[RATED]);
    assert_eq!(ran.code, 6, "{}", ran.output);
    assert!(
        ran.output.contains("stored 20000 + merged 0 + rejected 10000"),
        "{}",
        ran.output
    );
    assert!(
        ran.errors.contains("10000 of 30000 lines were rejected"),
        "{}",
        ran.errors
    );
    let shop = Shop::open().await;
    let ran = shop.import("ratings", &ratings_until(20_000, 30_000), &[RATED, "--max-rejects=10"]);
    assert_eq!(ran.code, 6, "{}", ran.output);
    // It stops at the 11th rejected line, not at the end of a batch.
    assert!(
        ran.output
            .contains("read 20011 = stored 20000 + merged 0 + rejected 11"),
        "{}",
        ran.output
    );
}

#[tokio::test]
async fn errors_tell_the_cause_once() {
    let shop = Shop::open().await;
    for (bytes, args, error) in [
        (
            &b"user_id,item_id,value\n"[..],
            &["--encoding=klingon"][..],
            "cannot be read in the encoding \"klingon\"",
        ),
        (b"PK\x03\x04....", &[], "is no Excel workbook that can be read"),
        (b"PAR1....", &[], "is no Parquet file that can be read"),
        (
            b"7\n8\n",
            &["--format=json-lines"],
            "must have JSON objects, one on each line or all in one array, but line 1 is none",
        ),
    ] {
        let ran = shop.import("ratings", bytes, args);
        assert_eq!(ran.code, 1, "{}", ran.errors);
        assert_eq!(ran.errors.matches(error).count(), 1, "{}", ran.errors);
    }
}
