//! Taking imports back.

use serde_json::Value;

use super::content::{Content, fresh_database};
use crate::support::postgres::scratch;
use crate::support::program::{run, succeed};

/// Imports `text` and returns the summary.
fn import(content: &Content, kind: &str, text: &str, args: &[&str]) -> Value {
    let folder = scratch();
    let file = folder.path().join("file.csv");
    std::fs::write(&file, text).unwrap();
    let mut all = vec!["import", kind, file.to_str().unwrap(), "--json"];
    if ["purchases", "campaigns", "coupons"].contains(&kind) {
        all.push("--set=currency=GBP");
    }
    all.extend(args);
    serde_json::from_str(&succeed(&content.database, &all)).unwrap()
}

/// Undoes the import of `summary`, and returns how many rows were restored, removed, rolled back and kept.
fn undo(content: &Content, summary: &Value) -> [u64; 4] {
    let id = summary["import_id"].to_string();
    let undone: Value = serde_json::from_str(&succeed(&content.database, &["import", "undo", &id, "--json"])).unwrap();
    ["restored", "removed", "rolled_back", "kept"].map(|key| undone[key].as_u64().unwrap())
}

const RATED: &str = "user_id,item_id,value,rated_at\n";

#[tokio::test]
async fn undoing_ratings_removes_new_ones_and_restores_old_ones() {
    let content = fresh_database().await;
    import(
        &content,
        "ratings",
        &format!("{RATED}ann,tea,5,2020-01-01\nbob,tea,4,2020-01-01\n"),
        &[],
    );
    let before = content.rows("rating").await;
    // Undated ratings win for ever: the mistake that undo is for.
    let wrong = import(
        &content,
        "ratings",
        "user_id,item_id,value\nann,tea,1\nann,pot,2\nbob,tea,4\nann,tea,2\n",
        &[],
    );
    assert_eq!(wrong["overwritten"], 1);
    let changes = "SELECT count(*) FROM changes";
    let n_changes = content.number(changes).await;
    assert_eq!(undo(&content, &wrong), [2, 1, 0, 0]);
    assert_eq!(content.rows("rating").await, before);
    assert!(content.number(changes).await > n_changes);

    let id = wrong["import_id"].to_string();
    let (code, _, errors) = run(&content.database, &["import", "undo", &id]);
    assert!(
        code == 1 && errors.contains(&format!("import {id} is undone already")),
        "{errors}"
    );
    let (code, _, errors) = run(&content.database, &["import", "undo", "999"]);
    assert!(code == 1 && errors.contains("there is no import 999"), "{errors}");
}

#[tokio::test]
async fn what_was_written_since_stays() {
    let content = fresh_database().await;
    let first = import(
        &content,
        "ratings",
        &format!("{RATED}ann,tea,5,2020-01-01\nann,pot,5,2020-01-01\n"),
        &[],
    );
    let second = import(&content, "ratings", &format!("{RATED}ann,tea,3,2020-02-01\n"), &[]);
    let id = first["import_id"].to_string();
    let (code, _, errors) = run(&content.database, &["import", "undo", &id]);
    let later = format!(
        "import {} has overwritten rows of import {id}: undo it first",
        second["import_id"]
    );
    assert!(code == 1 && errors.contains(&later), "{errors}");
    sqlx::query("UPDATE ratings SET value = 2, import_id = NULL WHERE value = 5")
        .execute(&content.sql)
        .await
        .unwrap();
    assert_eq!(undo(&content, &second), [1, 0, 0, 0]);
    assert_eq!(undo(&content, &first), [0, 1, 0, 0]);
    assert_eq!(content.rows("rating").await, ["rating|ann|pot|2|1577836800.000000"]);
}

const BOUGHT: &str = "order_id,line_number,user_id,item_id,quantity,line_total,purchased_at\n";

#[tokio::test]
async fn undoing_purchases_removes_new_lines_and_restores_old_ones() {
    let content = fresh_database().await;
    let first = import(
        &content,
        "purchases",
        &format!("{BOUGHT}1,1,ann,tea,1,5,2020-01-01\n2,1,ann,tea,1,5,2020-01-01\n"),
        &[],
    );
    let before = content.rows("purchase").await;
    let second = import(
        &content,
        "purchases",
        &format!("{BOUGHT}1,1,ann,tea,3,15,2020-01-02\n2,1,ann,tea,1,5,2020-01-01\n3,1,bob,pot,1,5,2020-01-01\n"),
        &[],
    );
    assert_eq!((&second["stored"], &second["merged"]), (&2.into(), &1.into()));
    assert_eq!(undo(&content, &second), [1, 1, 0, 0]);
    assert_eq!(content.rows("purchase").await, before);
    assert_eq!(undo(&content, &first), [0, 2, 0, 0]);
    assert!(content.rows("purchase").await.is_empty());
}

#[tokio::test]
async fn undoing_the_catalog_restores_it_and_keeps_what_others_refer_to() {
    let content = fresh_database().await;
    import(&content, "items", "item_id,title,merchant_id\ntea,Tea,leaf\n", &[]);
    let before = content.content().await;
    let second = import(
        &content,
        "items",
        "item_id,title,merchant_id\ntea,Coffee,bean\npot,Pot,\ncup,Cup,\n",
        &[],
    );
    import(&content, "ratings", &format!("{RATED}ann,cup,5,2020-01-01\n"), &[]);
    // The cup is rated, so its row stays.
    let [restored, removed, _, kept] = undo(&content, &second);
    assert!(
        restored >= 1 && removed >= 2 && kept >= 1,
        "{restored} {removed} {kept}"
    );
    let items = content.rows("item").await;
    assert!(items.contains(&"item|tea|Tea|leaf|t".to_owned()), "{items:?}");
    assert_eq!(items.len(), 2, "{items:?}");
    assert!(
        content
            .rows("merchant")
            .await
            .iter()
            .all(|merchant| before.contains(merchant))
    );
}

#[tokio::test]
async fn undoing_redemptions_gives_caps_and_budgets_back() {
    let content = fresh_database().await;
    let campaign = "campaign_id,starts_at,ends_at,budget\nc,2020-01-01,2020-02-01,100\n";
    let campaigns = import(&content, "campaigns", campaign, &[]);
    let coupons = import(
        &content,
        "coupons",
        "coupon_id,campaign_id,percent,total_cap\nk,c,10,5\n",
        &[],
    );
    let redemptions = "coupon_id,user_id,redeemed_at,amount_minor\nk,ann,2020-01-02,30\nk,bob,2020-01-03,40\n";
    let first = import(&content, "redemptions", redemptions, &[]);
    assert_eq!(undo(&content, &first), [0, 0, 2, 0]);
    let counters = "SELECT spent_minor + 1000 * (SELECT sum(redeemed)::bigint FROM coupon_counters)
                    + 1000000 * (SELECT sum(redeemed)::bigint FROM user_coupon_counters) FROM campaign_states";
    assert_eq!(content.number(counters).await, 0);
    let ledger = "SELECT sum(spent_minor + 1000 * redeemed)::bigint FROM coupon_ledger";
    assert_eq!(content.number(ledger).await, 0);
    // The same redemptions can be imported again.
    let again = import(&content, "redemptions", redemptions, &[]);
    assert_eq!(again["stored"], 2);
    assert_eq!(content.number(counters).await, 2_002_070);
    // Redemptions refer to the coupon and the campaign, which therefore stay.
    assert_eq!(undo(&content, &coupons)[1..], [0, 0, 1]);
    assert_eq!(undo(&content, &campaigns)[1..], [0, 0, 1]);
}

#[tokio::test]
async fn undoing_definitions_removes_them_whole() {
    let content = fresh_database().await;
    let campaign = "campaign_id,starts_at,ends_at\nc,2020-01-01,2020-02-01\n";
    let campaigns = import(&content, "campaigns", campaign, &[]);
    let coupons = import(
        &content,
        "coupons",
        "coupon_id,campaign_id,percent,total_cap\nk,c,10,5\n",
        &[],
    );
    let moved = import(
        &content,
        "campaigns",
        "campaign_id,starts_at,ends_at\nc,2020-01-01,2020-03-01\n",
        &[],
    );
    let covered = import(&content, "coupon-items", "coupon_id,item_id\nk,tea\n", &[]);
    let assigned = import(&content, "assignments", "campaign_id,user_id\nc,ann\n", &[]);
    for summary in [&assigned, &covered, &moved, &coupons, &campaigns] {
        let [_, _, _, kept] = undo(&content, summary);
        assert_eq!(kept, 0, "{summary}");
    }
    let rows = "SELECT (SELECT count(*) FROM campaigns) + (SELECT count(*) FROM campaign_states)
                + (SELECT count(*) FROM coupons) + (SELECT count(*) FROM coupon_counters)
                + (SELECT count(*) FROM coupon_items) + (SELECT count(*) FROM assignments)";
    assert_eq!(content.number(rows).await, 0);
}

#[tokio::test]
async fn undoing_keeps_refusals_of_consent() {
    let content = fresh_database().await;
    let consents = "user_id,purpose,granted,decided_at\n";
    import(
        &content,
        "consents",
        &format!("{consents}ann,marketing,true,2020-01-01\nbob,marketing,false,2020-01-01\n"),
        &[],
    );
    let second = import(
        &content,
        "consents",
        &format!("{consents}ann,marketing,false,2020-02-01\nbob,marketing,true,2020-02-01\n"),
        &[],
    );
    assert_eq!(undo(&content, &second), [1, 0, 0, 1]);
    let granted = "SELECT count(*) FROM consents WHERE is_granted";
    assert_eq!(content.number(granted).await, 0);
}

#[tokio::test]
async fn imports_are_listed_and_can_be_undone_for_some_days() {
    let content = fresh_database().await;
    let rated = format!("{RATED}ann,tea,5,2020-01-01\n");
    let first = import(&content, "ratings", &rated, &[]);
    import(
        &content,
        "ratings",
        &format!("{RATED}ann,tea,4,2020-02-01\n"),
        &["--set-config=import.undo_days=0"],
    );
    let list: Value = serde_json::from_str(&succeed(&content.database, &["import", "list", "--json"])).unwrap();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(
        (&list[1]["state"], &list[1]["is_undoable"]),
        (&"done".into(), &false.into())
    );
    assert_eq!(
        (&list[0]["kind"], &list[0]["lines"]["stored"]),
        (&"ratings".into(), &1.into())
    );
    assert!(succeed(&content.database, &["import", "list"]).contains("cannot be undone"));
    let id = first["import_id"].to_string();
    let (code, _, errors) = run(&content.database, &["import", "undo", &id]);
    assert!(
        code == 1 && errors.contains("too old to be undone (import.undo_days)"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_dry_run_shows_the_file_as_it_is_understood_and_stores_nothing() {
    let content = fresh_database().await;
    let folder = scratch();
    let file = folder.path().join("file.csv");
    std::fs::write(
        &file,
        format!("{BOUGHT}1,1,ann,tea,2,\"1.299,00\",2020-01-01\n2,1,bob,tea,1,5,2020-01-02\n"),
    )
    .unwrap();
    let args = [
        "import",
        "purchases",
        file.to_str().unwrap(),
        "--set=currency=EUR",
        "--decimal=,",
        "--dry-run",
    ];
    let output = succeed(&content.database, &args);
    let first = "order_id=1 line_number=1 user_id=ann item_id=tea quantity=2 line_total=1299.00 EUR";
    assert!(
        output.contains("nothing was stored") && output.contains(first),
        "{output}"
    );
    assert!(output.contains("2 users, 1 items, times from 2020-01-01"), "{output}");
    let rows =
        "SELECT (SELECT count(*) FROM purchases) + (SELECT count(*) FROM users) + (SELECT count(*) FROM imports)";
    assert_eq!(content.number(rows).await, 0);
}

#[tokio::test]
async fn merged_lines_are_told_apart() {
    let content = fresh_database().await;
    import(
        &content,
        "ratings",
        &format!("{RATED}ann,tea,5,2020-01-01\nann,pot,5,2020-01-01\n"),
        &[],
    );
    let text =
        format!("{RATED}ann,tea,5,2020-01-01\nann,pot,4,2019-01-01\nann,cup,1,2020-01-01\nann,cup,2,2020-01-02\n");
    let summary = import(&content, "ratings", &text, &[]);
    let counts = ["stored", "merged", "older", "overwritten"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts, [1, 3, 1, 1]);
}

#[tokio::test]
async fn a_line_without_quantity_is_kept_when_it_tells_of_a_coupon() {
    let content = fresh_database().await;
    let text = "order_id,user_id,item_id,quantity,line_total,purchased_at,coupon_discount\n\
                1,ann,tea,0,0,2020-01-01,1.50\n2,ann,tea,0,0,2020-01-01,0\n3,ann,tea,1,5,2020-01-01,0\n";
    let summary = import(&content, "purchases", text, &["--max-reject-share=.5"]);
    assert_eq!((&summary["stored"], &summary["rejected"]), (&2.into(), &1.into()));
    assert_eq!(summary["rejects_by_reason"]["ZERO_QUANTITY"], 1);
}
