//! A database that was restored from another PostgreSQL, whose transactions had other numbers.

use std::time::Instant;

use sqlx::postgres::PgConnection;

use crate::program::{PATIENCE, Server, succeed};
use crate::shop::{self, Caller, Scores, for_user, item, scores_of, soon, user};

async fn execute(connection: &mut PgConnection, statement: &'static str) {
    sqlx::query(statement).execute(connection).await.unwrap();
}

async fn count_changes(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM changes")
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn fresh_data_show_also_after_a_restore() {
    let database = shop::open().await;
    let mut connection = shop::connect(&database).await;
    // As if transactions had been counted much further when the snapshot was trained.
    execute(
        &mut connection,
        "UPDATE snapshots SET input_watermark = '500000:500000:'",
    )
    .await;
    execute(&mut connection, "UPDATE changes SET xid = '499999'").await;
    execute(
        &mut connection,
        "INSERT INTO changes (xid, item_id) SELECT '499998', id FROM items LIMIT 1",
    )
    .await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let before: Scores = scores_of(caller.recommend(for_user(&user(0))).await);
    let unrated = shop::item_where(0, false);
    shop::write_rating(&mut connection, &user(0), &item(unrated), 5.0).await;
    soon("a rating written elsewhere moves the scores", || async {
        scores_of(caller.recommend(for_user(&user(0))).await) != before
    })
    .await;

    // Nothing is forgotten as long as a snapshot refers to the other numbers, and what has them goes afterwards.
    let all = count_changes(&mut connection).await;
    succeed(&database, &["snapshots", "prune"]);
    assert_eq!(count_changes(&mut connection).await, all);
    // All but what is younger than the oldest transaction of the whole cluster, which other tests use too.
    let deadline = Instant::now() + PATIENCE;
    loop {
        shop::train(database.url());
        execute(&mut connection, "DELETE FROM snapshots WHERE state <> 'active'").await;
        succeed(&database, &["snapshots", "prune"]);
        let left = count_changes(&mut connection).await;
        if left == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{left} changes are still there");
    }
}
