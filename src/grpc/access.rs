//! Who calls: found out once for every call, before anything else is done for it.

mod keyring;
mod limits;
pub mod options;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tonic::{Request, Status};

use domain::access::Caller;
use domain::api_key::ApiKey;

pub use self::keyring::Keyring;

use self::keyring::{Key, KeyState};
use super::method::{Callers, Method};
use super::slots::Slot;
use super::status;

/// Whether a caller needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyless {
    Refused,
    /// On loopback: until somebody makes the first key.
    WhileThereAreNoKeys,
    Allowed,
}

/// The door.
#[derive(Clone)]
pub struct Access {
    pub keyring: Keyring,
    pub keyless: Keyless,
}

/// Somebody who may make this call.
#[derive(Debug)]
pub struct Admission {
    /// `None` where nobody is asked.
    pub caller: Option<Arc<Caller>>,
    /// Of the key's own.
    pub slot: Option<Slot>,
}

impl Access {
    /// # Errors
    /// UNAUTHENTICATED without a good key; PERMISSION_DENIED to a role that the RPC is not for; RESOURCE_EXHAUSTED when
    /// the key has too much under way; UNAVAILABLE while it is not known which keys there are.
    pub fn admit(&self, method: Method, headers: &HeaderMap) -> Result<Admission, Status> {
        if method.callers() == Callers::Anyone {
            return Ok(Admission {
                caller: None,
                slot: None,
            });
        }
        let Some(authorization) = headers.get(AUTHORIZATION) else {
            return self.admit_without_key();
        };
        let key = bearer(authorization)
            .and_then(ApiKey::parse)
            .ok_or_else(status::malformed_key)?;
        let key = self.good(self.keyring.find(&key, Utc::now))?;
        if !method.callers().include(key.caller.role) {
            return Err(status::role_not_allowed(method.name(), key.caller.role));
        }
        let slot = key.usage.take(self.keyring.limits()).map_err(status::key_overused)?;
        Ok(Admission {
            caller: Some(key.caller.clone()),
            slot: Some(slot),
        })
    }

    fn admit_without_key(&self) -> Result<Admission, Status> {
        let is_allowed = match self.keyless {
            Keyless::Allowed => true,
            Keyless::Refused => false,
            Keyless::WhileThereAreNoKeys => self.keyring.is_empty().ok_or_else(status::keys_unknown)?,
        };
        match is_allowed {
            true => Ok(Admission {
                caller: Some(self.keyring.anonymous()),
                slot: None,
            }),
            false => Err(status::no_key()),
        }
    }

    fn good(&self, state: Option<KeyState>) -> Result<Arc<Key>, Status> {
        match state.ok_or_else(status::keys_unknown)? {
            KeyState::Good(key) => Ok(key),
            KeyState::Expired => Err(status::key_not_good("API_KEY_EXPIRED", "the API key has expired")),
            KeyState::Revoked => Err(status::key_not_good("API_KEY_REVOKED", "the API key has been revoked")),
            KeyState::Unknown => Err(status::key_not_good("API_KEY_UNKNOWN", "the API key is not known")),
        }
    }
}

/// What a stream goes on by: a key that was good when it began may not be any more.
#[derive(Clone)]
pub struct StreamAuthorization {
    access: Access,
    caller: Arc<Caller>,
}

impl StreamAuthorization {
    pub fn new(access: &Access, caller: &Arc<Caller>) -> Self {
        Self {
            access: access.clone(),
            caller: caller.clone(),
        }
    }

    /// # Errors
    /// As [`Access::admit`].
    pub fn check(&self) -> Result<(), Status> {
        match &self.caller.key {
            Some(key) => self.access.good(self.access.keyring.state(key, Utc::now)).map(drop),
            None => self.access.admit_without_key().map(drop),
        }
    }
}

/// Source: RFC 6750, 2.1; the scheme in any case, as RFC 9110, 11.1 has it.
fn bearer(authorization: &HeaderValue) -> Option<&str> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, token) = authorization.as_bytes().split_at_checked(SCHEME.len())?;
    let token = std::str::from_utf8(token.strip_prefix(b" ")?).ok()?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_start_matches(' '))
}

/// Who makes this call.
///
/// # Errors
/// INTERNAL where the call has not come through [`Access::admit`].
pub fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    attached(request)
}

/// What this stream goes on by.
///
/// # Errors
/// As [`caller`].
pub fn pass<T>(request: &Request<T>) -> Result<StreamAuthorization, Status> {
    attached(request)
}

fn attached<T, A: Clone + Send + Sync + 'static>(request: &Request<T>) -> Result<A, Status> {
    request.extensions().get::<A>().cloned().ok_or_else(|| {
        tracing::error!("a call has come past the check of who calls");
        status::internal()
    })
}

/// # Errors
/// PERMISSION_DENIED when `caller` is of one merchant and `named` are not all that one.
pub fn check_merchants<'a>(
    caller: &Caller,
    field: &str,
    mut named: impl Iterator<Item = &'a str>,
) -> Result<(), Status> {
    match named.all(|merchant| caller.sees(Some(merchant))) {
        true => Ok(()),
        false => Err(status::foreign_merchant(field)),
    }
}

/// What a key has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overuse {
    /// Requests in a time; when the next one is due.
    Rate { retry_after: Duration },
    /// Requests at a time.
    Concurrency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearers_are_read() {
        let check = |value: &'static str, token: Option<&str>| {
            assert_eq!(bearer(&HeaderValue::from_static(value)), token, "{value:?}");
        };
        check("Bearer lm_a", Some("lm_a"));
        check("bearer  lm_a", Some("lm_a"));
        check("Basic lm_a", None);
        check("lm_a", None);
        check("Bearer", None);
        check("Bearerlm_a", None);
        check("Bearers lm_a", None);
    }
}
