//! Whole orders from files: the newest version of an order replaces the others.

use serde_json::Value;

use super::content::{Content, fresh_database};
use crate::support::postgres::scratch;
use crate::support::program::run;

const HEADER: &str = "order_id,updated_at,user_id,item_id,quantity,line_total,purchased_at,canceled\n";

/// Imports `lines` as orders, in whatever number of batches. Returns the exit code, the summary and the rejected lines.
fn import(content: &Content, lines: &str, args: &[&str]) -> (i32, Value, String) {
    let folder = scratch();
    let (file, rejects) = (folder.path().join("orders.csv"), folder.path().join("rejects.csv"));
    std::fs::write(&file, format!("{HEADER}{lines}")).unwrap();
    let rejects_option = format!("--rejects={}", rejects.display());
    let mut all = vec![
        "import",
        "orders",
        file.to_str().unwrap(),
        "--json",
        "--set=currency=GBP",
        &rejects_option,
    ];
    all.extend(args);
    let (code, printed, errors) = run(&content.database, &all);
    let summary = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed} {errors}"));
    (code, summary, std::fs::read_to_string(rejects).unwrap_or_default())
}

fn good(content: &Content, lines: &str) -> Value {
    let (code, summary, rejects) = import(content, lines, &[]);
    assert_eq!((code, &*rejects), (0, ""), "{summary}");
    summary
}

/// Returns the lines stored, merged, older and overwritten.
fn counts(summary: &Value) -> [u64; 4] {
    ["stored", "merged", "older", "overwritten"].map(|key| summary[key].as_u64().unwrap())
}

fn undo(content: &Content, summary: &Value) -> (i32, String, String) {
    run(
        &content.database,
        &["import", "undo", &summary["import_id"].to_string(), "--json"],
    )
}

/// Returns the stored lines as order, user, item, line number, quantity and total.
async fn lines(content: &Content) -> Vec<String> {
    let rows = content.rows("purchase").await;
    let short = |row: &String| row.split('|').skip(1).take(6).collect::<Vec<_>>().join(" ");
    rows.iter().map(short).collect()
}

const FIRST: &str = "GO3,2020-01-01,ann,tea,2,20,2020-01-01,\nGO3,2020-01-01,ann,pot,1,6,2020-01-01,\n";

#[tokio::test]
async fn a_correction_is_not_a_second_order() {
    let content = fresh_database().await;
    assert_eq!(counts(&good(&content, FIRST)), [2, 0, 0, 0]);
    let stored = ["GO3 ann pot 2 1 600", "GO3 ann tea 1 2 2000"];
    assert_eq!(lines(&content).await, stored);
    assert_eq!(counts(&good(&content, FIRST)), [0, 2, 0, 0]);
    // Another customer, and another item in place of the pot.
    let corrected = "GO3,2020-01-02,bob,cup,1,6,2020-01-01,\nGO3,2020-01-02,bob,tea,2,20,2020-01-01,\n";
    assert_eq!(counts(&good(&content, corrected)), [2, 0, 0, 0]);
    let stored = ["GO3 bob cup 1 1 600", "GO3 bob tea 2 2 2000"];
    assert_eq!(lines(&content).await, stored);
    assert_eq!(counts(&good(&content, FIRST)), [0, 2, 2, 0]);
    assert_eq!(lines(&content).await, stored);
    // The newest of several versions in one file counts.
    let history = "GO4,2020-01-03,ann,tea,3,30,2020-01-01,\nGO4,2020-01-01,ann,tea,1,10,2020-01-01,\n";
    assert_eq!(counts(&good(&content, history)), [1, 1, 0, 1]);
    // A cancellation takes the order away, and an older version does not bring it back.
    assert_eq!(counts(&good(&content, "GO3,2020-01-05,,,,,,yes\n")), [1, 0, 0, 0]);
    good(&content, corrected);
    assert_eq!(lines(&content).await, ["GO4 ann tea 1 3 3000"]);
    // A single line that is canceled is left out.
    let partly = "GO4,2020-01-06,ann,tea,3,30,2020-01-01,no\nGO4,2020-01-06,ann,pot,1,6,2020-01-01,yes\n";
    assert_eq!(counts(&good(&content, partly)), [2, 0, 0, 0]);
    assert_eq!(lines(&content).await, ["GO4 ann tea 1 3 3000"]);
}

#[tokio::test]
async fn an_order_with_a_bad_line_is_not_stored_in_part() {
    let content = fresh_database().await;
    let bad = "1,2020-01-01,ann,tea,1,10,2020-01-01,\n1,2020-01-01,ann,pot,many,6,2020-01-01,\n\
               2,2020-01-01,bob,tea,1,10,2020-01-01,\n1,2020-01-01,ann,cup,1,6,2020-01-01,\n\
               3,2020-01-01,bob,pot,1,6,2020-01-01,\n3,2020-01-01,bob,\"pot\n";
    let (code, summary, rejects) = import(&content, bad, &["--max-reject-share=1"]);
    assert_eq!((code, counts(&summary)), (0, [1, 0, 0, 0]));
    assert_eq!(lines(&content).await, ["2 bob tea 1 1 1000"]);
    let reasons: Vec<&str> = rejects
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(2))
        .collect();
    let expected = [
        "ORDER_INCOMPLETE",
        "INVALID_NUMBER",
        "ORDER_LINES_APART",
        "ORDER_INCOMPLETE",
    ];
    assert_eq!(reasons[..4], expected, "{rejects}");
    let numbered = "order_id,line_number,updated_at,user_id,item_id,quantity,line_total,purchased_at\n";
    let twice = format!("{numbered}9,1,2020-01-01,ann,tea,1,1,2020-01-01\n9,1,2020-01-01,ann,pot,1,1,2020-01-01\n");
    let folder = scratch();
    let file = folder.path().join("twice.csv");
    std::fs::write(&file, twice).unwrap();
    let rejects = format!("--rejects={}", folder.path().join("rejects.csv").display());
    let args = [
        "import",
        "orders",
        file.to_str().unwrap(),
        "--set=currency=GBP",
        &rejects,
    ];
    let (code, printed, _) = run(&content.database, &args);
    assert!(
        code == 6 && printed.contains("rejected 2: DUPLICATE_LINE_NUMBER"),
        "{printed}"
    );
}

#[tokio::test]
async fn the_lines_of_an_order_stay_together_in_large_files() {
    let content = fresh_database().await;
    // Batches of 10,000 and 40,000 lines would end within an order of three lines.
    let order = |number: usize| {
        ["tea", "pot", "cup"]
            .map(|item| format!("{number},2020-01-01,u{},{item},1,1,2020-01-01,\n", number % 97))
            .concat()
    };
    let text: String = (0..20_000).map(order).collect();
    assert_eq!(counts(&good(&content, &text)), [60_000, 0, 0, 0]);
    let whole = "SELECT count(*) FROM (SELECT FROM purchases GROUP BY order_id HAVING count(*) = 3) AS whole";
    assert_eq!(content.number(whole).await, 20_000);
    assert_eq!(counts(&good(&content, &text)), [0, 60_000, 0, 0]);
}

#[tokio::test]
async fn undoing_orders_gives_the_versions_before_back() {
    let content = fresh_database().await;
    let first = good(&content, FIRST);
    let before = lines(&content).await;
    let second = good(
        &content,
        "GO3,2020-01-02,bob,cup,1,6,2020-01-01,\nGO4,2020-01-02,bob,cup,1,6,2020-01-01,\nGO3,2020-01-03,bob,cup,9,6,2020-01-01,\n",
    );
    let (code, _, errors) = undo(&content, &first);
    let later = format!("import {} has overwritten rows", second["import_id"]);
    assert!(code == 1 && errors.contains(&later), "{errors}");
    let (code, printed, errors) = undo(&content, &second);
    assert_eq!(code, 0, "{errors}");
    assert!(printed.contains("\"restored\": 2"), "{printed}");
    assert_eq!(lines(&content).await, before);
    // The version is back as well: the same one is identical, an older one loses.
    assert_eq!(counts(&good(&content, FIRST)), [0, 2, 0, 0]);
    // Orders that were recorded since stay.
    let third = good(&content, "GO3,2020-02-01,bob,cup,1,6,2020-01-01,\n");
    sqlx::raw_sql(
        "UPDATE purchases SET import_id = NULL, quantity = 5;
         UPDATE orders SET updated_at = '2020-03-01' WHERE order_id = 'GO3'",
    )
    .execute(&content.sql)
    .await
    .unwrap();
    assert_eq!(undo(&content, &third).0, 0);
    assert_eq!(lines(&content).await, ["GO3 bob cup 1 5 600"]);
}
