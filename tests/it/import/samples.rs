//! The shipped samples, imported whole through the library.

use std::collections::BTreeMap;
use std::path::PathBuf;

use likemind::app::import::times::TimeFormats;
use likemind::app::import::{ImportKind, ImportOptions, ImportSummary, Progress, import};
use tabular::input::Input;
use tokio_util::sync::CancellationToken;

use super::content::{Content, assert_adds_up, counts, fresh_database, options};

/// Imports a file of `data/`, and asserts that the progress ascends to the size of the file.
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
async fn all_of_online_retail_is_imported() {
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
    // 16:22 in London is 15:22 in UTC in summer.
    assert_eq!(database.number(latest).await, 1_318_173_720);
}

#[tokio::test]
async fn all_of_the_complete_journey_is_imported_except_lines_without_quantity_and_coupon() {
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
         purchased_at=transaction_timestamp,coupon_discount=coupon_disc",
        "currency=USD",
    );
    let summary = import_file(&database, "complete_journey/transactions.csv.zst", &purchases).await;
    assert_eq!(counts(&summary), (66_528, 66_289, 0, 239));
    assert_eq!(summary.rejects_by_reason, BTreeMap::from([("ZERO_QUANTITY", 239)]));

    assert_eq!(database.number("SELECT count(*) FROM purchases").await, 66_289);
    // 133 of them are no purchases.
    let evidence = "SELECT count(*) FROM purchases WHERE coupon_discount_minor > 0";
    assert_eq!(database.number(evidence).await, 960);
    assert_eq!(
        database
            .number("SELECT sum(line_total_minor)::bigint FROM purchases")
            .await,
        20_626_994
    );
    assert_eq!(database.number("SELECT sum(quantity) FROM purchases").await, 6_748_604);
    assert_eq!(database.number("SELECT count(*) FROM users").await, 2_334);
    assert_eq!(database.number("SELECT count(*) FROM items").await, 53_961);
    assert_eq!(database.number("SELECT count(*) FROM merchants").await, 4_243);
    assert_eq!(database.number("SELECT count(DISTINCT category) FROM items").await, 298);
    let item: Option<String> = sqlx::query_scalar("SELECT title FROM items WHERE external_id = '26190'")
        .fetch_one(&database.sql)
        .await
        .unwrap();
    assert_eq!(item.as_deref(), Some("APPLE SAUCE 50 OZ"));
}
