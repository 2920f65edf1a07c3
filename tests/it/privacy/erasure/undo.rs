//! Undoing imports after one of their users was erased: nothing of the user comes back, and the books hold the sums from before the
//! imports.

use std::path::Path;

use serde_json::Value;
use sqlx::PgConnection;

use super::ERASED;
use crate::support::caller::Caller;
use crate::support::coupons::{Offer, assert_balanced};
use crate::support::erasures::{KEY, KeyFile, traces};
use crate::support::postgres::{TestDatabase, execute, number, scratch, sessions_waiting_for_a_lock};
use crate::support::program::{Server, run, succeed};
use crate::support::shop::{self, item};
use crate::support::waiting::eventually;

/// Imports a file and returns the number of the import.
fn import(database: &TestDatabase, folder: &Path, kind: &str, text: &str) -> String {
    let path = folder.join(format!("{kind}.csv"));
    std::fs::write(&path, text).unwrap();
    let mut args = vec!["import", kind, path.to_str().unwrap(), "--json"];
    if ["orders", "purchases"].contains(&kind) {
        args.push("--set=currency=GBP");
    }
    let printed = succeed(database, &args);
    let summary: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(summary["rejected"], 0, "{kind}: {summary}");
    summary["import_id"].to_string()
}

/// Returns the lines of orders, without the user, and what is spent of budgets.
async fn books(connection: &mut PgConnection) -> Vec<String> {
    let lines =
        "SELECT concat_ws(' ', order_id, is_pseudonym, items.external_id, line_number, quantity, line_total_minor,
                                  coupon_discount_minor)
                 FROM purchases JOIN users ON users.id = user_id JOIN items ON items.id = item_id ORDER BY 1";
    let mut books: Vec<String> = sqlx::query_scalar(lines).fetch_all(&mut *connection).await.unwrap();
    for sum in [
        "SELECT sum(spent_minor)::bigint FROM campaign_states",
        "SELECT sum(redeemed)::bigint FROM user_coupon_counters",
        "SELECT count(*) FROM redemptions WHERE rolled_back_minor < amount_minor",
    ] {
        let sum: Option<i64> = sqlx::query_scalar(sum).fetch_one(&mut *connection).await.unwrap();
        books.push(sum.unwrap_or(0).to_string());
    }
    books
}

const ORDERS: &str = "order_id,updated_at,user_id,item_id,quantity,line_total,purchased_at\n";

/// Returns the hash of an order's version, as hexadecimal digits.
async fn hash_of(connection: &mut PgConnection, order: &str) -> String {
    let hash = format!("SELECT encode(content_hash, 'hex') FROM orders WHERE order_id = '{order}'");
    sqlx::query_scalar(sqlx::AssertSqlSafe(hash))
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn undone_imports_leave_the_books_as_before_and_nothing_of_the_erased_user() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    Offer::of("used").create(&mut connection).await;
    let (folder, key) = (scratch(), KeyFile::of(KEY));
    let server = Server::with(&database, &[key.setting()]);
    let caller = Caller::of(&server).await;
    let import = |kind: &str, text: &str| import(&database, folder.path(), kind, text);
    let (a, b, c) = (item(1), item(2), item(3));

    // From before the imports that are undone: ratings, single lines, and orders of the user and of another one.
    caller.rate(ERASED, &a, 4.0).await;
    caller.buy("single", 1, ERASED, &a, 2).await;
    caller.buy("mixed", 1, ERASED, &a, 1).await;
    caller.buy("mixed", 2, "somebody", &b, 1).await;
    import("attributes", &format!("user_id,name,value\n{ERASED},city,Bern\n"));
    import(
        "orders",
        &format!(
            "{ORDERS}whole,2020-01-01,{ERASED},{a},2,20,2020-01-01\nmoved,2020-01-01,{ERASED},{b},1,6,2020-01-01\n"
        ),
    );
    let hashes = [
        hash_of(&mut connection, "whole").await,
        hash_of(&mut connection, "moved").await,
    ];
    let before = books(&mut connection).await;

    let imports = [
        import(
            "ratings",
            &format!("user_id,item_id,value,rated_at\n{ERASED},{a},1,2100-01-01\n{ERASED},{b},1,2021-01-01\n")
                .replace("2100-01-01", &chrono::Utc::now().to_rfc3339()),
        ),
        import(
            "attributes",
            &format!("user_id,name,value\n{ERASED},city,Basel\n{ERASED},size,M\n"),
        ),
        import(
            "purchases",
            &format!(
                "order_id,user_id,item_id,line_number,quantity,line_total,purchased_at\n\
                      single,{ERASED},{a},1,9,99,2024-01-01\nnew,{ERASED},{c},1,1,7,2024-01-01\n\
                      new,somebody,{c},1,1,8,2024-01-01\n"
            ),
        ),
        import(
            "redemptions",
            &format!("coupon_id,user_id,redeemed_at,amount_minor\nused,{ERASED},2024-01-01,100\n"),
        ),
        // The user's order is corrected twice, one becomes somebody else's, and the lines of a third are replaced.
        import(
            "orders",
            &format!(
                "{ORDERS}whole,2020-01-02,{ERASED},{a},5,50,2020-01-01\nmoved,2020-01-02,somebody,{b},1,6,2020-01-01\n\
                      mixed,2020-01-02,somebody,{b},3,9,2020-01-01\nfresh,2020-01-02,{ERASED},{c},3,9,2020-01-01\n"
            ),
        ),
        import(
            "orders",
            &format!("{ORDERS}whole,2020-01-03,{ERASED},{c},1,10,2020-01-01\n"),
        ),
    ];
    let corrected = hash_of(&mut connection, "whole").await;
    assert_ne!(books(&mut connection).await, before);
    for hash in hashes.iter().chain([&corrected]) {
        assert!(!traces_of_hash(&mut connection, hash).await.is_empty(), "{hash}");
    }

    succeed(&database, &["erase", ERASED, &key.argument()]);
    let gone = async |connection: &mut PgConnection| {
        assert_eq!(traces(connection, ERASED).await, Vec::<String>::new());
        for hash in hashes.iter().chain([&corrected]) {
            assert_eq!(traces_of_hash(connection, hash).await, Vec::<String>::new());
        }
        for table in ["ratings", "user_attributes", "suppressions", "assignments", "exposures"] {
            let rows = format!("SELECT count(*) FROM {table} JOIN users ON users.id = user_id WHERE is_pseudonym");
            assert_eq!(number(connection, &rows).await, 0, "{table}");
        }
        let strangers = "SELECT count(*) FROM import_copies WHERE user_id NOT IN (SELECT id FROM users)
                            OR (row_before ->> 'user_id')::bigint NOT IN (SELECT id FROM users)
                            OR (row_after ->> 'user_id')::bigint NOT IN (SELECT id FROM users)";
        assert_eq!(number(connection, strangers).await, 0);
        assert_balanced(connection).await;
    };
    gone(&mut connection).await;
    for import in imports.iter().rev() {
        succeed(&database, &["import", "undo", import]);
        gone(&mut connection).await;
    }
    let after = books(&mut connection).await;
    // The line of somebody else is the one that is not of the pseudonym.
    assert_eq!(after.iter().filter(|line| line.contains(" f ")).count(), 1);
    assert_eq!(without_pseudonyms(after), without_pseudonyms(before));
}

/// Takes out of the books who is a pseudonym.
fn without_pseudonyms(books: Vec<String>) -> Vec<String> {
    let mut books: Vec<String> = books
        .into_iter()
        .map(|line| line.replace(" f ", " ").replace(" t ", " "))
        .collect();
    books.sort();
    books
}

/// Returns the columns in which the hexadecimal digits of a hash stand, or its bytes.
async fn traces_of_hash(connection: &mut PgConnection, hash: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (place, condition) in [
        (
            "orders.content_hash",
            format!("FROM orders WHERE content_hash = decode('{hash}', 'hex')"),
        ),
        (
            "import_copies.row_before",
            format!("FROM import_copies WHERE position('{hash}' IN row_before::text) > 0"),
        ),
        (
            "import_copies.row_after",
            format!("FROM import_copies WHERE position('{hash}' IN row_after::text) > 0"),
        ),
    ] {
        if number(connection, &format!("SELECT count(*) {condition}")).await > 0 {
            found.push(place.to_owned());
        }
    }
    found
}

#[tokio::test]
async fn an_import_that_replaces_an_order_during_the_erasure_can_be_undone() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let (folder, key) = (scratch(), KeyFile::of(KEY));
    let a = item(1);
    import(
        &database,
        folder.path(),
        "orders",
        &format!("{ORDERS}whole,2020-01-01,{ERASED},{a},2,20,2020-01-01\n"),
    );
    let before = books(&mut connection).await;
    let hash = hash_of(&mut connection, "whole").await;
    // An import has replaced the order by one of somebody else, and has not committed.
    let mut writer = database.connect().await;
    let replace = "BEGIN;
        INSERT INTO imports (id, kind, source, state) VALUES (1000, 'orders', 'orders.csv', 'done');
        INSERT INTO users (external_id) VALUES ('somebody');
        SELECT FROM orders WHERE order_id = 'whole' FOR UPDATE;
        INSERT INTO import_copies (import_id, table_name, user_id, row_before, row_after)
        SELECT 1000, 'order_lines', user_id, to_jsonb(purchases),
               jsonb_build_object('order_id', 'whole', 'updated_at', '2020-01-02T00:00:00+00:00', 'content_hash', to_jsonb(sha256('new')))
        FROM purchases WHERE order_id = 'whole';
        INSERT INTO import_copies (import_id, table_name, row_before, row_after)
        SELECT 1000, 'orders', to_jsonb(orders), row_after
        FROM orders, import_copies WHERE orders.order_id = 'whole' AND import_id = 1000 AND table_name = 'order_lines';
        DELETE FROM purchases WHERE order_id = 'whole';
        UPDATE orders SET updated_at = '2020-01-02T00:00:00+00:00', content_hash = sha256('new') WHERE order_id = 'whole'";
    execute(&mut writer, replace).await;
    let erased = {
        let (url, argument) = (database.url().to_owned(), key.argument());
        tokio::task::spawn_blocking(move || crate::support::program::succeed_at(&url, &["erase", ERASED, &argument]))
    };
    let mut watch = database.connect().await;
    let waiting = async || sessions_waiting_for_a_lock(&mut watch).await;
    eventually("the erasure waits for the import", waiting, |sessions| *sessions > 0).await;
    execute(&mut writer, "COMMIT").await;
    erased.await.unwrap();
    assert_eq!(traces_of_hash(&mut connection, &hash).await, Vec::<String>::new());
    let (code, _, errors) = run(&database, &["import", "undo", "1000"]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(
        without_pseudonyms(books(&mut connection).await),
        without_pseudonyms(before)
    );
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());
}
