//! Databases with something in them: made once a run, copied for every test that asks.

use tokio::sync::OnceCell;

use crate::example::RATINGS;
use crate::postgres::{TestDatabase, scratch};
use crate::program::{command, output, succeed};

/// For `train`: enough users for the gate to judge by, and less work.
pub const FEWER_USERS: &str = "--set-config=evaluation.max_users=500";

/// [`RATINGS`]; version 1, trained on them, is active.
pub async fn example() -> TestDatabase {
    static TEMPLATE: OnceCell<TestDatabase> = OnceCell::const_new();
    let make = async || {
        let database = TestDatabase::create().await;
        let folder = scratch();
        let file = folder.path().join("ratings.csv");
        std::fs::write(&file, RATINGS).unwrap();
        succeed(&database, &["import", "ratings", file.to_str().unwrap()]);
        succeed(&database, &["train"]);
        database
    };
    TEMPLATE.get_or_init(make).await.copy().await
}

/// The shipped purchases of Online Retail.
pub async fn online_retail() -> TestDatabase {
    static TEMPLATE: OnceCell<TestDatabase> = OnceCell::const_new();
    let make = async || {
        let database = TestDatabase::create().await;
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/online_retail/purchases.csv.zst");
        let columns = "order_id=invoice,user_id=customer_id,item_id=stock_code,quantity=qty,purchased_at=ts";
        succeed(
            &database,
            &["import", "purchases", file, "--map", columns, "--set", "currency=GBP"],
        );
        database
    };
    TEMPLATE.get_or_init(make).await.copy().await
}

/// [`online_retail`]; version 1, trained on it by one thread, is active.
pub async fn trained_online_retail() -> TestDatabase {
    static TEMPLATE: OnceCell<TestDatabase> = OnceCell::const_new();
    let make = async || {
        let database = online_retail().await;
        let trained = output(command(&database, &["train", FEWER_USERS]).env("RAYON_NUM_THREADS", "1"));
        assert!(trained.status.success(), "{trained:?}");
        database
    };
    TEMPLATE.get_or_init(make).await.copy().await
}
