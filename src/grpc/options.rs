//! What the server takes on.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::domain::error::InvalidField;

use super::access::Keyless;

/// Section `server`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerOptions {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whoever reaches the port may do everything: needed to listen on anything but loopback.
    pub allow_unauthenticated: bool,
    /// Largest message taken from a client.
    pub max_message_bytes: usize,
    /// Requests under way, of those that are answered from memory, of those that need the database and of streams of
    /// writes each; what is above is answered RESOURCE_EXHAUSTED.
    pub max_concurrent_requests: usize,
    /// Longest time for a request that is not a stream; a client's own deadline holds when it is shorter.
    pub request_timeout_ms: u64,
    /// How long a stopping server waits for the requests under way.
    pub drain_timeout_ms: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_051)),
            allow_unauthenticated: false,
            max_message_bytes: 4 * 1024 * 1024,
            max_concurrent_requests: 1_024,
            request_timeout_ms: 10_000,
            drain_timeout_ms: 10_000,
        }
    }
}

impl ServerOptions {
    /// Where a client on this machine finds the server.
    pub fn address(&self) -> String {
        let mut address = self.listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }

    /// Whether callers need a key.
    pub fn keyless(&self) -> Keyless {
        if self.allow_unauthenticated {
            Keyless::Allowed
        } else if self.listen.ip().is_loopback() {
            Keyless::WhileThereAreNoKeys
        } else {
            Keyless::Refused
        }
    }

    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if !self.listen.ip().is_loopback() && !self.allow_unauthenticated {
            return Err(InvalidField::new(
                "server.listen",
                "NOT_LOOPBACK",
                format!(
                    "must be a loopback address while there is no authentication, is {}; \
                     server.allow_unauthenticated = true opens it to whoever reaches the port",
                    self.listen
                ),
            ));
        }
        for (key, value) in [
            ("server.max_message_bytes", self.max_message_bytes as u64),
            ("server.max_concurrent_requests", self.max_concurrent_requests as u64),
            ("server.request_timeout_ms", self.request_timeout_ms),
        ] {
            if value == 0 {
                return Err(InvalidField::new(key, "OUT_OF_RANGE", "must be 1 or more, is 0"));
            }
        }
        Ok(())
    }
}
