//! Snapshots whose stored bytes are not those that the trainer wrote.

use super::postgres::{TestDatabase, execute};

/// Deletes a part: its version is $1, its name $2, as in every statement for [`damaged_copy`].
pub const LOSE: &str = "DELETE FROM snapshot_chunks WHERE version = $1 AND part = $2";

/// Returns the names of the parts of the stored snapshots.
pub async fn parts(database: &TestDatabase) -> Vec<String> {
    let parts = sqlx::query_scalar("SELECT DISTINCT part FROM snapshot_chunks ORDER BY part");
    let parts: Vec<String> = parts.fetch_all(&mut database.connect().await).await.unwrap();
    assert!(parts.len() > 5, "{parts:?}");
    parts
}

/// Copies version 1 into a new candidate, applies `damage` to the chunks of its part `part`, and returns its version.
pub async fn damaged_copy(database: &TestDatabase, damage: &'static str, part: &str) -> i64 {
    let mut connection = database.connect().await;
    let version: i64 = sqlx::query_scalar(
        "INSERT INTO snapshots (state, fencing_token, parameters, evaluation, user_count, item_count, rating_count,
                                size_bytes, checksum, input_watermark)
         SELECT 'candidate', fencing_token, parameters, evaluation, user_count, item_count, rating_count, size_bytes,
                checksum, input_watermark
         FROM snapshots WHERE version = 1 RETURNING version",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    let copy = "INSERT INTO snapshot_chunks SELECT $1, part, chunk, bytes FROM snapshot_chunks WHERE version = 1";
    sqlx::query(copy).bind(version).execute(&mut connection).await.unwrap();
    let damaged = sqlx::query(damage)
        .bind(version)
        .bind(part)
        .execute(&mut connection)
        .await
        .unwrap();
    assert_ne!(damaged.rows_affected(), 0, "{damage}");
    version
}

/// Makes a version the active one without a look at its bytes, as if they were damaged after it was activated.
pub async fn activate_unseen(database: &TestDatabase, version: i64) {
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        &format!(
            "BEGIN; UPDATE snapshots SET state = 'retired' WHERE state = 'active';
             UPDATE snapshots SET state = 'active', activated_at = clock_timestamp() WHERE version = {version};
             NOTIFY snapshots; COMMIT"
        ),
    )
    .await;
}
