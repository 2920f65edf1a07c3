//! Where the database is and how much of it we use.

use std::fmt;

use crate::domain::error::InvalidField;

/// A connection URL. Shown, logged and serialized without its password.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// With its password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn redacted(&self) -> String {
        // userinfo ends at the last @ before the path; the password may stand there or in a parameter.
        let text = match self.0.split_once("://") {
            Some((scheme, rest)) => {
                let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(authority_end);
                match authority.rsplit_once('@') {
                    Some((user, host)) if user.contains(':') => {
                        let name = user.split(':').next().unwrap_or_default();
                        format!("{scheme}://{name}:[redacted]@{host}{path}")
                    }
                    _ => self.0.clone(),
                }
            }
            None => return "[redacted]".to_owned(),
        };
        match text.split_once("password=") {
            Some((before, after)) => {
                let rest = after.find('&').map_or("", |end| &after[end..]);
                format!("{before}password=[redacted]{rest}")
            }
            None => text,
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted())
    }
}

impl serde::Serialize for DatabaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

/// Section `database`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseOptions {
    /// `postgres://user:password@host:port/database`. Absent: a private PostgreSQL under `data_dir`.
    pub url: Option<DatabaseUrl>,
    pub max_connections: u32,
    /// Longest wait for a free connection.
    pub acquire_timeout_ms: u64,
    /// Longest statement of a request; 0 is no limit, as training and migrations have it. Below
    /// `server.request_timeout_ms`: a statement whose request has been given up would keep its connection.
    pub statement_timeout_ms: u64,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 16,
            acquire_timeout_ms: 2_000,
            statement_timeout_ms: 8_000,
        }
    }
}

impl DatabaseOptions {
    /// Fewest connections: the two loops of a server and a request, or the two readers of a trainer and its lease.
    const MIN_CONNECTIONS: u32 = 4;

    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.max_connections < Self::MIN_CONNECTIONS {
            return Err(InvalidField::new(
                "database.max_connections",
                "OUT_OF_RANGE",
                format!("must be {} or more, is {}", Self::MIN_CONNECTIONS, self.max_connections),
            ));
        }
        if self.acquire_timeout_ms == 0 {
            let message = "must be 1 or more, is 0";
            return Err(InvalidField::new(
                "database.acquire_timeout_ms",
                "OUT_OF_RANGE",
                message,
            ));
        }
        Ok(())
    }

    /// For work that may take long: without a limit on statements.
    pub fn for_jobs(&self) -> Self {
        Self {
            statement_timeout_ms: 0,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show() {
        let check = |url: &str, shown: &str| {
            let url = DatabaseUrl::new(url);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(serde_json::to_value(&url).unwrap(), shown);
        };
        check("postgres://me:s3cret@db:5432/x", "postgres://me:[redacted]@db:5432/x");
        check("postgres://me:p@ss@db/x", "postgres://me:[redacted]@db/x");
        check("postgres://me@db/x", "postgres://me@db/x");
        check(
            "postgres:///x?user=me&password=s3cret&port=1",
            "postgres:///x?user=me&password=[redacted]&port=1",
        );
        check("postgres:///x?password=s3cret", "postgres:///x?password=[redacted]");
        check("host=db password=s3cret", "[redacted]");
    }
}
