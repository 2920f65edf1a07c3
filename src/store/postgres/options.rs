//! The address of the database and the limits on its use.

use std::fmt;

use domain::error::InvalidField;

const REDACTED: &str = "[redacted]";

/// A connection URL, which is shown, logged and serialized without its password.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Returns the URL with its password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Refuses what the library that connects would let pass, or would log.
    fn validate(&self) -> Result<(), InvalidField> {
        let refused = |message: String| Err(InvalidField::new("database.url", "INVALID_URL", message));
        let is_scheme = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        match self.0.split_once("://") {
            Some(("postgres" | "postgresql", rest)) if rest.contains("sslpassword=") => {
                refused("sslpassword is not supported: sslkey must name a key without a password".to_owned())
            }
            Some(("postgres" | "postgresql", rest)) => match ssl_mode(rest) {
                Some(mode) if !SSL_MODES.contains(&mode) => {
                    refused(format!("sslmode must be one of {}, is {mode}", SSL_MODES.join(", ")))
                }
                _ => Ok(()),
            },
            Some((scheme, _)) if is_scheme(scheme) => refused(format!(
                "must begin with postgres://, not with {scheme}://: Likemind keeps its data in PostgreSQL"
            )),
            _ => refused("must be postgres://user:password@host:port/database".to_owned()),
        }
    }

    fn redacted(&self) -> String {
        // A password that is not percent-encoded may hold any character; the last @ ends it.
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return REDACTED.to_owned();
        };
        let (user, location) = match rest.rsplit_once('@') {
            Some((user, location)) => (Some(user), location),
            None => (None, rest),
        };
        let user = match user.map(|user| user.split_once(':').ok_or(user)) {
            Some(Ok((name, _))) => format!("{name}:{REDACTED}@"),
            Some(Err(name)) => format!("{name}@"),
            None => String::new(),
        };
        let parameter = |parameter: &str| match parameter.split_once('=') {
            Some((key, _)) if key.to_ascii_lowercase().contains("password") => format!("{key}={REDACTED}"),
            _ => parameter.to_owned(),
        };
        let location = match location.split_once('?') {
            Some((path, parameters)) => {
                let parameters: Vec<String> = parameters.split('&').map(parameter).collect();
                format!("{path}?{}", parameters.join("&"))
            }
            None => location.to_owned(),
        };
        format!("{scheme}://{user}{location}")
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

/// The values of the parameter `sslmode`.
///
/// Source: the manual of PostgreSQL, "SSL Support", 34.19.3.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Returns the value of the parameter `sslmode` of a URL without its scheme. A text with an @ is no parameter, but may belong to
/// a password.
fn ssl_mode(url: &str) -> Option<&str> {
    let (_, parameters) = url.rsplit_once('?')?;
    let value = parameters
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("sslmode="))?;
    (!parameters.contains('@')).then_some(value)
}

/// Returns `text` with every password of a URL replaced. It replaces rather too much than too little.
pub fn without_passwords(text: &str) -> String {
    text.split('\n')
        .map(line_without_passwords)
        .collect::<Vec<_>>()
        .join("\n")
}

fn line_without_passwords(line: &str) -> String {
    let Some((before, rest)) = line.split_once("://") else {
        return line.to_owned();
    };
    // A password that is not percent-encoded may hold any character; the last @ ends it.
    let rest = match rest.rsplit_once('@') {
        Some((user, location)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{REDACTED}@{location}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let mut pieces = rest.split("password=");
    let mut redacted = format!("{before}://{}", pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c: char| c == '&' || c == '"' || c == '\'' || c.is_whitespace());
        redacted.push_str(&format!("password={REDACTED}{}", &piece[end.unwrap_or(piece.len())..]));
    }
    redacted
}

/// The longest limit, which is the longest that PostgreSQL takes.
const MAX_TIMEOUT_MS: u64 = i32::MAX as u64;

/// Section `database`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseOptions {
    /// `postgres://user:password@host:port/database`. If absent, a private PostgreSQL runs in `data_dir`.
    pub url: Option<DatabaseUrl>,
    /// The most connections for the requests of a server, or for a command. A server has a few more, which requests cannot
    /// use up: those of `live::CONNECTIONS`, and one that reads the API keys.
    pub max_connections: u32,
    /// The longest wait for a free connection.
    pub acquire_timeout_ms: u64,
    /// The longest statement of a request; 0 is no limit, which is what training and migrations use. This should be less
    /// than `server.request_timeout_ms`: a statement whose request was given up would keep its connection.
    pub statement_timeout_ms: u64,
    /// The longest pause of a server in the middle of a transaction, after which PostgreSQL ends it: a server that is frozen
    /// or unreachable keeps the rows that it holds for no longer. 0 is no limit, which is what commands use.
    pub idle_in_transaction_timeout_ms: u64,
    /// The time after which PostgreSQL ends the connection of a server that does not take its answers; 0 leaves it to the
    /// operating system, which commands do.
    pub tcp_user_timeout_ms: u64,
    /// The time after which PostgreSQL checks whether a silent connection still exists, in whole seconds, rounded up. After
    /// three checks without an answer, as far apart, it ends the connection. 0 leaves it to the operating system.
    pub tcp_keepalive_ms: u64,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 16,
            acquire_timeout_ms: 2_000,
            statement_timeout_ms: 8_000,
            idle_in_transaction_timeout_ms: 3_000,
            tcp_user_timeout_ms: 10_000,
            tcp_keepalive_ms: 5_000,
        }
    }
}

impl DatabaseOptions {
    /// The fewest connections: a trainer needs two to read, and one for its lease.
    const MIN_CONNECTIONS: u32 = 3;

    /// Returns how many files a server's connections to the database need: those for requests, up to 6 more to keep up with
    /// what is written and with the API keys, and one that takes the place of another.
    pub fn open_files(&self) -> usize {
        self.max_connections as usize + 7
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        self.url.as_ref().map_or(Ok(()), DatabaseUrl::validate)?;
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
        let limits = [
            ("database.statement_timeout_ms", self.statement_timeout_ms),
            (
                "database.idle_in_transaction_timeout_ms",
                self.idle_in_transaction_timeout_ms,
            ),
            ("database.tcp_user_timeout_ms", self.tcp_user_timeout_ms),
            ("database.tcp_keepalive_ms", self.tcp_keepalive_ms),
        ];
        match limits.into_iter().find(|(_, limit_ms)| *limit_ms > MAX_TIMEOUT_MS) {
            Some((key, limit_ms)) => {
                let message = format!("must be {MAX_TIMEOUT_MS} or less, is {limit_ms}");
                Err(InvalidField::new(key, "OUT_OF_RANGE", message))
            }
            None => Ok(()),
        }
    }

    /// Returns options for work that may take long, without a limit on statements and on pauses between them.
    pub fn for_jobs(&self) -> Self {
        Self {
            statement_timeout_ms: 0,
            idle_in_transaction_timeout_ms: 0,
            tcp_user_timeout_ms: 0,
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
        check("postgres://me:s3/cr?et@db/x", "postgres://me:[redacted]@db/x");
        check(
            "postgres:///x?password=a&sslpassword=b&password=c",
            "postgres:///x?password=[redacted]&sslpassword=[redacted]&password=[redacted]",
        );
        check("host=db password=s3cret", "[redacted]");
    }

    #[test]
    fn only_urls_of_postgresql_are_accepted() {
        let check = |url: &str, part: Option<&str>| {
            let options = DatabaseOptions {
                url: Some(DatabaseUrl::new(url)),
                ..DatabaseOptions::default()
            };
            let message = options.validate().map_err(|error| error.to_string());
            match part {
                None => assert_eq!(message, Ok(()), "{url}"),
                Some(part) => {
                    let message = message.unwrap_err();
                    assert!(
                        message.contains("database.url") && message.contains(part) && !message.contains("s3cret"),
                        "{message}"
                    );
                }
            }
        };
        check("postgres://me:s3cret@db/x", None);
        check(
            "postgresql://me:s3cret@db/x?sslmode=require&channel_binding=require",
            None,
        );
        check("postgres://me:s3cret@db/x?sslmode=verify-full", None);
        check(
            "postgres://me:s3cret@db/x?sslmode=banana&x=y",
            Some("verify-full, is banana"),
        );
        check("postgres://me:s3cret?sslmode=a@db/x", None);
        check("mysql://me:s3cret@db/x", Some("mysql://"));
        check("sqlite:///x", Some("sqlite://"));
        check("me:s3cret@db://x", Some("postgres://user"));
        check("host=db password=s3cret", Some("postgres://user"));
        check("", Some("postgres://user"));
        check("postgres://db/x?sslkey=a&sslpassword=s3cret", Some("sslpassword"));
    }

    #[test]
    fn texts_lose_the_passwords_of_their_urls() {
        let check = |text: &str, expected: &str| assert_eq!(without_passwords(text), expected);
        check("no URL at all, a@b", "no URL at all, a@b");
        check("see https://example.com/x", "see https://example.com/x");
        check(
            "1 | url = \"postgres://me:s3@cret@db/x\n  | ^ unclosed",
            "1 | url = \"postgres://me:[redacted]@db/x\n  | ^ unclosed",
        );
        check(
            "string \"postgres:///x?password=s3cret\", expected",
            "string \"postgres:///x?password=[redacted]\", expected",
        );
    }
}
