//! A database that was restored from another PostgreSQL, whose transactions had other numbers.

use sqlx::PgConnection;

use crate::support::caller::Caller;
use crate::support::postgres::{execute, number};
use crate::support::program::{Server, succeed};
use crate::support::shop::{self, item, user};
use crate::support::waiting::{eventually, soon};

async fn count_changes(connection: &mut PgConnection) -> i64 {
    number(connection, "SELECT count(*) FROM changes").await
}

/// Makes the stored transaction numbers much higher than those of this PostgreSQL, as after a restore into a new one.
async fn pretend_to_be_restored(connection: &mut PgConnection) {
    execute(
        connection,
        "UPDATE snapshots SET input_watermark = '500000:500000:';
         UPDATE changes SET xid = '499999';
         INSERT INTO changes (xid, item_id) SELECT '499998', id FROM items LIMIT 1",
    )
    .await;
}

#[tokio::test]
async fn changes_show_after_a_restore_into_another_postgresql() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    pretend_to_be_restored(&mut connection).await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let before = caller.scores(&user(0)).await;
    let unrated = shop::item_where(0, false);
    shop::write_rating(&mut connection, &user(0), &item(unrated), 5.0).await;
    let look = async || caller.scores(&user(0)).await;
    soon("the rating has moved the scores", look, |scores| *scores != before).await;
}

#[tokio::test]
async fn changes_of_the_restored_database_are_pruned_with_the_last_snapshot_that_needs_them() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    pretend_to_be_restored(&mut connection).await;
    let unrated = shop::item_where(0, false);
    shop::write_rating(&mut connection, &user(0), &item(unrated), 5.0).await;
    let all = count_changes(&mut connection).await;
    succeed(&database, &["snapshots", "prune"]);
    assert_eq!(count_changes(&mut connection).await, all);
    // Changes younger than the oldest transaction of the whole cluster, which other tests use too, stay for a while.
    let train_and_prune = async || {
        shop::train(database.url());
        execute(&mut connection, "DELETE FROM snapshots WHERE state <> 'active'").await;
        succeed(&database, &["snapshots", "prune"]);
        count_changes(&mut connection).await
    };
    eventually("all changes are pruned", train_and_prune, |&left| left == 0).await;
}
