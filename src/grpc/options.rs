//! Configuration of the gRPC server.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::accept::open_connections::ConnectionLimits;
use super::grpc_web::Origins;
use super::http::HttpOptions;
use super::tls::options::TlsOptions;
use domain::error::InvalidField;

use crate::admission::Keyless;
use crate::admission::capacity::Capacity;

/// More cores than a machine has, and few enough to be started.
const MAX_THREADS: usize = 1_024;

/// Section `server`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerOptions {
    /// Address and port. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Lets callers without an API key do everything.
    pub allow_unauthenticated: bool,
    /// Listens beyond loopback without TLS, for example behind a proxy that ends it.
    pub allow_plaintext: bool,
    /// Number of serving threads, up to 1,024; 0 means one a core.
    pub threads: usize,
    /// Largest message that is taken from a client.
    pub max_message_bytes: usize,
    /// Most requests under way at a time: so many that are answered from memory, so many that need the database, and so
    /// many streams. The server answers RESOURCE_EXHAUSTED to more.
    pub max_concurrent_requests: usize,
    /// Most requests under way that need the database, if that is less. They queue for a connection, and a request that
    /// has none after `database.acquire_timeout_ms` fails: a queue that takes longer is work for nothing.
    pub max_concurrent_database_requests: usize,
    /// Longest time that a request may take unless it is a stream. A client's own deadline holds when it is shorter.
    pub request_timeout_ms: u64,
    /// Bytes for cached answers: 25 % for PredictRatings, 75 % for Recommend; 0 caches nothing.
    pub answer_cache_bytes: usize,
    /// Most open connections. The server takes fewer where the process may not open as many files, since the database needs
    /// some of them.
    pub max_connections: usize,
    /// Most open connections from one address; 0 means no limit besides the other one.
    pub max_connections_per_address: usize,
    /// Serves gRPC-Web too, which pages call from a browser, and accepts HTTP/1.1 for it.
    pub grpc_web: bool,
    /// Origins whose pages may call by gRPC-Web, with commas between them: `https://shop.example.com`; `*` for every origin.
    pub cors_origins: String,
    /// Longest time until a new connection has ended its TLS handshake, and then until it has begun to speak HTTP.
    pub handshake_timeout_ms: u64,
    /// Longest time for a client to take an answer, or a row of a stream, after which the call is reset.
    pub send_timeout_ms: u64,
    /// Age at which a client is asked to open a new connection, so that clients spread over servers that were started later;
    /// 0 means never.
    pub max_connection_age_ms: u64,
    /// How long the requests under way on such a connection may still take before it is cut off.
    pub max_connection_age_grace_ms: u64,
    /// How long a stopping server waits for requests under way.
    pub drain_timeout_ms: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_051)),
            allow_unauthenticated: false,
            allow_plaintext: false,
            threads: 0,
            max_message_bytes: 4 * 1024 * 1024,
            max_concurrent_requests: 1_024,
            max_concurrent_database_requests: 128,
            request_timeout_ms: 10_000,
            answer_cache_bytes: 64 * 1024 * 1024,
            max_connections: 4_096,
            max_connections_per_address: 1_024,
            grpc_web: false,
            cors_origins: String::new(),
            handshake_timeout_ms: 10_000,
            send_timeout_ms: 30_000,
            max_connection_age_ms: 0,
            max_connection_age_grace_ms: 60_000,
            drain_timeout_ms: 10_000,
        }
    }
}

impl ServerOptions {
    /// Returns the URL by which a client on this machine reaches the server.
    pub fn address(&self, tls: &TlsOptions) -> String {
        let mut address = self.listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let scheme = if tls.is_on() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Returns the limits on open connections.
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            max: self.max_connections,
            max_per_address: match self.max_connections_per_address {
                0 => usize::MAX,
                limit => limit,
            },
        }
    }

    /// Returns how connections are treated.
    pub fn http(&self) -> HttpOptions {
        HttpOptions {
            handshake_timeout: self.handshake_timeout(),
            send_timeout: Duration::from_millis(self.send_timeout_ms),
            max_age: (self.max_connection_age_ms > 0).then(|| Duration::from_millis(self.max_connection_age_ms)),
            max_age_grace: Duration::from_millis(self.max_connection_age_grace_ms),
            has_http1: self.grpc_web,
        }
    }

    /// Returns the origins whose pages may call by gRPC-Web; `None` when it is off.
    ///
    /// # Errors
    /// Names the configuration key.
    pub fn web_origins(&self) -> Result<Option<Origins>, InvalidField> {
        let origins = Origins::parse("server.cors_origins", &self.cors_origins)?;
        match (self.grpc_web, origins) {
            (true, origins) => Ok(Some(origins)),
            (false, Origins::Only(none)) if none.is_empty() => Ok(None),
            (false, _) => Err(InvalidField::new(
                "server.cors_origins",
                "NOT_ON",
                "must be empty unless server.grpc_web = true",
            )),
        }
    }

    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// Whether other machines reach the port and their messages travel unencrypted.
    pub fn is_plaintext_beyond_loopback(&self, tls: &TlsOptions) -> bool {
        !tls.is_on() && !self.listen.ip().is_loopback()
    }

    /// Returns whether callers without a key are admitted.
    pub fn keyless(&self) -> Keyless {
        if self.allow_unauthenticated {
            Keyless::Allowed
        } else if self.listen.ip().is_loopback() {
            Keyless::WhileThereAreNoKeys
        } else {
            Keyless::Refused
        }
    }

    /// Returns the limits on requests under way.
    pub fn capacity(&self) -> Capacity {
        Capacity::new(self.max_concurrent_requests, self.max_concurrent_database_requests)
    }

    /// # Errors
    /// Names the configuration key.
    pub fn validate(&self, tls: &TlsOptions) -> Result<(), InvalidField> {
        if self.is_plaintext_beyond_loopback(tls) && !self.allow_plaintext && !self.allow_unauthenticated {
            return Err(InvalidField::new(
                "server.listen",
                "NOT_LOOPBACK",
                format!(
                    "must be a loopback address without TLS, is {}; set tls.certificate_file and tls.key_file, \
                     or server.allow_plaintext = true where the network to clients is protected by other means, \
                     or server.allow_unauthenticated = true to admit everybody who reaches the port",
                    self.listen
                ),
            ));
        }
        for (key, value) in [
            ("server.max_message_bytes", self.max_message_bytes as u64),
            ("server.max_concurrent_requests", self.max_concurrent_requests as u64),
            (
                "server.max_concurrent_database_requests",
                self.max_concurrent_database_requests as u64,
            ),
            ("server.request_timeout_ms", self.request_timeout_ms),
            ("server.max_connections", self.max_connections as u64),
            ("server.handshake_timeout_ms", self.handshake_timeout_ms),
            ("server.send_timeout_ms", self.send_timeout_ms),
        ] {
            if value == 0 {
                return Err(InvalidField::new(key, "OUT_OF_RANGE", "must be 1 or more, is 0"));
            }
        }
        self.web_origins()?;
        if self.threads > MAX_THREADS {
            return Err(InvalidField::new(
                "server.threads",
                "OUT_OF_RANGE",
                format!("must be 0 (one a core) or up to {MAX_THREADS}, is {}", self.threads),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_beyond_loopback_requires_tls_or_an_explicit_setting() {
        let tls = TlsOptions {
            certificate_file: Some("c.pem".into()),
            key_file: Some("k.pem".into()),
            ..TlsOptions::default()
        };
        let check = |listen: &str, allow_plaintext, allow_unauthenticated, tls: &TlsOptions, is_valid| {
            let options = ServerOptions {
                listen: listen.parse().unwrap(),
                allow_plaintext,
                allow_unauthenticated,
                ..ServerOptions::default()
            };
            assert_eq!(options.validate(tls).is_ok(), is_valid, "{options:?} {tls:?}");
        };
        let plain = TlsOptions::default();
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1"] {
            check(loopback, false, false, &plain, true);
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            check(open, false, false, &plain, false);
            check(open, true, false, &plain, true);
            check(open, false, true, &plain, true);
            check(open, false, false, &tls, true);
        }
    }

    #[test]
    fn the_address_is_one_that_a_client_can_use() {
        let tls = TlsOptions {
            certificate_file: Some("c.pem".into()),
            ..TlsOptions::default()
        };
        let check = |listen: &str, tls: &TlsOptions, expected: &str| {
            let options = ServerOptions {
                listen: listen.parse().unwrap(),
                ..ServerOptions::default()
            };
            assert_eq!(options.address(tls), expected);
        };
        check("127.0.0.1:7", &TlsOptions::default(), "http://127.0.0.1:7");
        check("0.0.0.0:7", &TlsOptions::default(), "http://127.0.0.1:7");
        check("0.0.0.0:7", &tls, "https://127.0.0.1:7");
        check("[::]:7", &tls, "https://[::1]:7");
    }

    #[test]
    fn threads_that_cannot_be_started_are_refused_by_name() {
        let with_threads = |threads| {
            ServerOptions {
                threads,
                ..ServerOptions::default()
            }
            .validate(&TlsOptions::default())
        };
        for threads in [0, 1, MAX_THREADS] {
            assert_eq!(with_threads(threads), Ok(()));
        }
        let error = with_threads(MAX_THREADS + 1).unwrap_err();
        assert_eq!(error.field, "server.threads");
        assert!(error.to_string().contains("up to 1024, is 1025"), "{error}");
    }
}
