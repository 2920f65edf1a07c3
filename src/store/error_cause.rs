//! The causes of errors of the database, in the words of the database or the network and nothing besides: the texts of the library
//! say again what the error above them says, and name lines of PostgreSQL's source.

use std::error::Error;
use std::fmt;

use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;

/// An answer of the database or the network that explains an error.
#[derive(Debug)]
pub struct Cause(sqlx::Error);

impl Cause {
    /// Returns the answer of PostgreSQL, if it gave one.
    pub(in crate::store) fn database(&self) -> Option<&dyn DatabaseError> {
        self.0.as_database_error()
    }

    /// Returns whether the pool had no connection to give in time.
    pub(in crate::store) fn is_pool_timeout(&self) -> bool {
        matches!(self.0, sqlx::Error::PoolTimedOut)
    }
}

impl From<sqlx::Error> for Cause {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(formatter, &self.0)
    }
}

// The texts of what lies below are in its own text already.
impl Error for Cause {}

const POOLER: &str = "; between this program and PostgreSQL seems to be a pooler that shares sessions, and Likemind needs its own: \
                      connect to PostgreSQL itself, or see \"Encoding and poolers\" in docs/operations.md";

/// Tells whether an error shows that statements of a session reach several sessions of PostgreSQL, or that its settings are
/// refused on the way.
fn shows_pooler(code: &str, message: &str) -> bool {
    match code {
        // duplicate_prepared_statement; invalid_sql_statement_name, of a prepared statement that another session has.
        "42P05" | "26000" => true,
        "08P01" => message.starts_with("unsupported startup parameter"),
        _ => false,
    }
}

fn write(formatter: &mut fmt::Formatter<'_>, error: &sqlx::Error) -> fmt::Result {
    match error {
        sqlx::Error::Database(answer) => {
            formatter.write_str(answer.message())?;
            let code = answer.code().unwrap_or_default();
            write!(formatter, " (SQLSTATE {code})")?;
            match shows_pooler(&code, answer.message()) {
                true => formatter.write_str(POOLER),
                false => Ok(()),
            }
        }
        sqlx::Error::Io(error) => write!(formatter, "{error}"),
        sqlx::Error::Tls(error) => write!(formatter, "TLS: {error}"),
        sqlx::Error::Configuration(error) => match error.downcast_ref() {
            Some(inner) => write(formatter, inner),
            None => write!(formatter, "{error}"),
        },
        error => write!(formatter, "{error}"),
    }
}

/// Why the schema could not be migrated.
#[derive(Debug)]
pub struct MigrationCause(MigrateError);

impl From<MigrateError> for MigrationCause {
    fn from(error: MigrateError) -> Self {
        Self(error)
    }
}

impl fmt::Display for MigrationCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// duplicate_table
        const TABLE_EXISTS: &str = "42P07";
        match &self.0 {
            MigrateError::Execute(error) => write(formatter, error),
            MigrateError::ExecuteMigration(error, version) => {
                write!(formatter, "migration {version}: ")?;
                write(formatter, error)?;
                let code = error.as_database_error().and_then(DatabaseError::code);
                match (version, code.as_deref()) {
                    (1, Some(TABLE_EXISTS)) => formatter
                        .write_str("; the database holds tables of another program, and Likemind needs one of its own"),
                    _ => Ok(()),
                }
            }
            error => write!(formatter, "{error}"),
        }
    }
}

impl Error for MigrationCause {}

#[cfg(test)]
mod tests {
    use std::io;

    use crate::store::error::StoreError;
    use domain::error::chain;

    #[test]
    fn nothing_is_said_twice() {
        let check = |error: sqlx::Error, expected: &str| assert_eq!(chain(&StoreError::from(error)), expected);
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "Connection refused");
        check(
            sqlx::Error::Io(refused),
            "the database is not available: Connection refused",
        );
        check(
            sqlx::Error::Tls("server does not support TLS".into()),
            "the database is not available: TLS: server does not support TLS",
        );
        let unknown = sqlx::Error::Configuration("unknown value".into());
        check(
            sqlx::Error::Configuration(Box::new(unknown)),
            "the database answered with an error: unknown value",
        );
    }
}
