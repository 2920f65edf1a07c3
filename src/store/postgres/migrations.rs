//! Migrates the schema, from `migrations/`.

use std::cmp::Ordering;

use sqlx::migrate::{Migrate, MigrateError, Migrator};

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Brings the schema up to this program's version. Running it again changes nothing.
///
/// Returns how many migrations were applied.
///
/// # Errors
/// [`StoreError::NewerSchema`] when the database is newer than this program; [`StoreError::Encoding`].
pub async fn migrate(pool: &Pool) -> Result<usize, StoreError> {
    let mut connection = pool.inner.acquire().await?;
    // The run takes the same lock again. It is taken here so that what others apply meanwhile is not counted.
    connection.lock().await?;
    let applied = migrate_locked(&mut connection).await;
    match connection.unlock().await {
        Ok(()) => applied,
        // The lock would go back to the pool with its connection.
        Err(error) => {
            connection.close_on_drop();
            applied.and(Err(error.into()))
        }
    }
}

async fn migrate_locked(connection: &mut sqlx::PgConnection) -> Result<usize, StoreError> {
    let before = applied(connection).await?;
    MIGRATOR.run(&mut *connection).await?;
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
/// [`StoreError::Unavailable`] when the database cannot be reached; [`StoreError::Encoding`].
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
    let database = sqlx::query!(
        r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "has_table!",
                  current_setting('server_encoding') AS "encoding!""#
    )
    .fetch_one(&mut *connection)
    .await?;
    if database.encoding != "UTF8" {
        return Err(StoreError::Encoding {
            encoding: database.encoding,
        });
    }
    if !database.has_table {
        return Ok(0);
    }
    match connection.list_applied_migrations("_sqlx_migrations").await {
        Ok(applied) => Ok(applied.len()),
        // Nothing was to be migrated yet.
        Err(MigrateError::Execute(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    }
}
