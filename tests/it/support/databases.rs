//! Databases with data in them. Each is made once a run and copied for every test that asks for it.

use tokio::sync::OnceCell;

use super::postgres::{TestDatabase, scratch};
use super::program::{command, output, succeed};

/// The ratings of the worked example in ARCHITECTURE.md.
pub const RATINGS: &str = "\
user_id,item_id,value
u0,i0,4
u0,i3,1
u0,i4,1
u1,i1,2
u1,i2,3
u1,i3,1
u2,i0,2
u2,i3,2
u2,i4,2
";

/// An argument of `train` that leaves the gate enough users to judge by, and makes less work.
pub const FEWER_USERS: &str = "--set-config=evaluation.max_users=500";

/// The worked example: [`RATINGS`], and version 1 trained on them, which is active.
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

/// The shipped purchases of Online Retail, without a snapshot.
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

/// [`online_retail`] and version 1, trained on it by one thread, which is active.
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
