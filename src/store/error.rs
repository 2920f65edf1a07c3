//! The errors of the database, by what the caller can do about them.

use std::time::Duration;

use sqlx::migrate::MigrateError;

use crate::store::error_cause::{Cause, MigrationCause};
use crate::store::postgres::refusals;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL cannot be reached, is starting or stopping, or refuses work for now: it is read-only, or out of disk space
    /// or memory. The caller may try again.
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    /// All connections are in use, and none became free within `database.acquire_timeout_ms`. The caller may try again.
    #[error("the database is busy")]
    Busy(#[source] Cause),
    /// The transaction conflicted with others in all of its
    /// [`ATTEMPTS`](crate::store::postgres::pool::ATTEMPTS).
    #[error("the transaction conflicts with others; try again")]
    Conflict(#[source] Cause),
    /// The statement took longer than `database.statement_timeout_ms`.
    #[error("the database took too long")]
    Timeout(#[source] Cause),
    /// A stored value breaks a rule that the code relies on.
    #[error("a stored value in table {table} is not valid: {problem}")]
    Corrupt { table: &'static str, problem: String },
    #[error("the database schema could not be migrated")]
    Migration(#[source] MigrationCause),
    #[error("the database schema is newer than this program; use the version of the program that migrated it")]
    NewerSchema,
    /// Texts could not be stored, or their lengths would be counted in bytes.
    #[error(
        "the database has the encoding {encoding}, and texts need UTF8: create the database with \
         `CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0`"
    )]
    Encoding { encoding: String },
    /// A user cannot be created without knowing whether they were erased.
    #[error(
        "users were erased, so privacy.erasure_key_file must name the file with the key that was used for it: without the key \
         no new user can be told from an erased one"
    )]
    ErasureKey,
    #[error("database.url is not a PostgreSQL URL")]
    InvalidUrl(#[source] Cause),
    #[error("the database answered with an error")]
    Unexpected(#[source] Cause),
}

impl StoreError {
    /// Returns how long to wait before trying again; `None` when waiting does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(_) => Some(Duration::from_secs(1)),
            Self::Busy(_) | Self::Conflict(_) | Self::Timeout(_) => Some(Duration::from_millis(100)),
            Self::Corrupt { .. }
            | Self::Migration(_)
            | Self::NewerSchema
            | Self::Encoding { .. }
            | Self::InvalidUrl(_)
            | Self::ErasureKey
            | Self::Unexpected(_) => None,
        }
    }

    /// Whether the database is away or busy, which the loop that reads fresh data reports for all. A statement that takes too long
    /// is none of this, as it may take too long every time.
    pub fn is_reported_elsewhere(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy(_) | Self::Conflict(_))
    }

    /// Returns the message for callers, without stored values and the names of tables.
    pub fn for_callers(&self) -> String {
        match self {
            Self::Corrupt { .. } => "a stored value is not valid".to_owned(),
            Self::Unavailable(_)
            | Self::Busy(_)
            | Self::Conflict(_)
            | Self::Timeout(_)
            | Self::Migration(_)
            | Self::NewerSchema
            | Self::Encoding { .. }
            | Self::InvalidUrl(_)
            | Self::ErasureKey
            | Self::Unexpected(_) => self.to_string(),
        }
    }

    /// Converts the error of an INSERT of rows that did not exist before: another transaction may have inserted them first.
    pub(super) fn of_insert(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Conflict(error.into()),
            _ => error.into(),
        }
    }

    /// Returns whether the transaction conflicted with another one.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }

    /// Returns whether a row was referred to that no longer exists.
    pub(super) fn is_dangling_reference(&self) -> bool {
        let database = match self {
            Self::Unexpected(cause) => cause.database(),
            _ => None,
        };
        database.is_some_and(|error| error.is_foreign_key_violation())
    }

    pub(super) fn corrupt(table: &'static str, problem: impl ToString) -> Self {
        Self::Corrupt {
            table,
            problem: problem.to_string(),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // The errors of a full pool are among these; `Pool::acquire` converts them before.
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.into()),
            // A server that is stopping closes a new connection before it has said whether it speaks TLS.
            sqlx::Error::Protocol(message) if message.contains("SSLRequest") => Self::Unavailable(error.into()),
            sqlx::Error::Database(database) => match database.code().as_deref() {
                Some("40001" | "40P01") => Self::Conflict(error.into()),
                Some("57014") => Self::Timeout(error.into()),
                // Raised by add_users of the schema.
                Some("LM001") => Self::ErasureKey,
                // Too many connections: a new one is refused, and nothing is wrong with those that are open.
                Some("53300") => Self::Unavailable(error.into()),
                Some(code) if refusals::is_refusal(code) => {
                    refusals::note(database.as_ref());
                    Self::Unavailable(error.into())
                }
                // Connection exceptions, shutting down, starting up, idle for too long.
                Some(code) if code.starts_with("08") || code.starts_with("57P") || code == "25P03" => {
                    Self::Unavailable(error.into())
                }
                _ => Self::Unexpected(error.into()),
            },
            _ => Self::Unexpected(error.into()),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(_) => Self::NewerSchema,
            error => Self::Migration(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_learn_nothing_of_tables() {
        let error = StoreError::corrupt("snapshots", "invalid type: null, expected a map at line 1");
        assert_eq!(error.for_callers(), "a stored value is not valid");
        let error = StoreError::from(sqlx::Error::Protocol("as asked".to_owned()));
        assert_eq!(error.for_callers(), "the database answered with an error");
    }

    #[test]
    fn a_connection_closed_before_tls_is_an_outage() {
        let closed = sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".to_owned());
        assert!(matches!(StoreError::from(closed), StoreError::Unavailable(_)));
    }
}
