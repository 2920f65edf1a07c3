//! Creates the databases of a PostgreSQL server.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::store::error::StoreError;

/// Creates the database `name` unless it exists.
///
/// `maintenance_url`: a database that exists on the same server.
///
/// # Errors
/// [`StoreError::Unavailable`] when the server cannot be reached.
pub async fn create_if_missing(maintenance_url: &str, name: &str) -> Result<(), StoreError> {
    let mut connection = PgConnection::connect(maintenance_url).await?;
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1) AS "exists!""#,
        name
    )
    .fetch_one(&mut connection)
    .await?;
    if !exists {
        // CREATE DATABASE takes no parameters.
        let statement = format!(r#"CREATE DATABASE "{}""#, name.replace('"', "\"\""));
        match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await {
            Err(sqlx::Error::Database(error)) if was_created_by_another(error.code().as_deref()) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    connection.close().await?;
    Ok(())
}

/// Recognizes duplicate_database, and unique_violation, which comes when two sessions create it at the same moment.
fn was_created_by_another(code: Option<&str>) -> bool {
    matches!(code, Some("42P04" | "23505"))
}
