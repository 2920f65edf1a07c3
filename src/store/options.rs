//! Where the database is and how much of it we use.

use crate::domain::error::InvalidField;

/// Section `database`.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseOptions {
    /// `postgres://user:password@host:port/database`. Absent: a private PostgreSQL under `data_dir`.
    pub url: Option<String>,
    pub max_connections: u32,
    /// Longest wait for a free connection.
    pub acquire_timeout_ms: u64,
    /// Longest statement of a request; training and migrations have no limit.
    pub statement_timeout_ms: u64,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 16,
            acquire_timeout_ms: 2_000,
            statement_timeout_ms: 30_000,
        }
    }
}
