//! Migrates the schema, from `migrations/`.

use std::cmp::Ordering;

use sqlx::migrate::{Migrate, Migrator};

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Brings the schema up to this program's version. Running it again changes nothing.
///
/// Returns how many migrations were applied.
///
/// # Errors
/// [`StoreError::Migration`] also when the database is newer than this program.
pub async fn migrate(pool: &Pool) -> Result<usize, StoreError> {
    let mut connection = pool.inner.acquire().await?;
    // The run takes the same lock again. It is taken here so that what others apply meanwhile is not counted.
    connection.lock().await.map_err(StoreError::Migration)?;
    let applied = migrate_locked(&mut connection).await;
    match connection.unlock().await {
        Ok(()) => applied,
        // The lock would go back to the pool with its connection.
        Err(error) => {
            connection.close_on_drop();
            applied.and(Err(StoreError::Migration(error)))
        }
    }
}

async fn migrate_locked(connection: &mut sqlx::PgConnection) -> Result<usize, StoreError> {
    let before = applied(connection).await?;
    MIGRATOR.run(&mut *connection).await.map_err(StoreError::Migration)?;
    Ok(applied(connection).await? - before)
}

/// The schema of the database, compared with that of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    Older,
    Current,
    Newer,
}

/// Compares the schema of the database with that of this program.
///
/// # Errors
/// [`StoreError::Unavailable`] when the database cannot be reached.
pub async fn schema(pool: &Pool) -> Result<Schema, StoreError> {
    let mut connection = pool.inner.acquire().await?;
    let applied = applied(&mut connection).await?;
    let known = MIGRATOR
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration());
    Ok(match applied.cmp(&known.count()) {
        Ordering::Less => Schema::Older,
        Ordering::Equal => Schema::Current,
        Ordering::Greater => Schema::Newer,
    })
}

/// Counts the migrations that were applied.
async fn applied(connection: &mut sqlx::PgConnection) -> Result<usize, StoreError> {
    // The table is not created here: a role that may only read must be able to ask.
    let has_table = sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "has_table!""#)
        .fetch_one(&mut *connection)
        .await?;
    if !has_table {
        return Ok(0);
    }
    let applied = connection
        .list_applied_migrations("_sqlx_migrations")
        .await
        .map_err(StoreError::Migration)?;
    Ok(applied.len())
}
