//! Admission: who calls, what they may do, and which limits hold. It knows no transport, so that every server of the
//! process admits its callers by the same rules. A server turns a [`Refusal`] into an answer of its own protocol.

pub mod capacity;
pub mod concurrency_limit;
pub mod key_limits;
pub mod keyring;
pub mod options;
pub mod refusal;
pub mod rpc;

use std::sync::Arc;

use chrono::Utc;

use domain::access::Caller;
use domain::api_key::ApiKey;

use self::capacity::Capacity;
use self::concurrency_limit::Permit;
use self::keyring::{Key, KeyState, Keyring};
use self::refusal::Refusal;
use self::rpc::{Callers, Rpc};

/// Whether callers without a key are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyless {
    Refused,
    /// Until somebody makes the first key: on loopback.
    WhileThereAreNoKeys,
    Allowed,
}

/// Authenticates and authorizes every call. A clone shares the keys and the limits.
#[derive(Clone)]
pub struct Access {
    pub keyring: Keyring,
    pub keyless: Keyless,
    pub capacity: Capacity,
}

/// A call that may be made. Dropping it frees what the call takes up.
#[derive(Debug)]
pub struct Admission {
    /// `None` for an RPC that anyone may call.
    pub caller: Option<Arc<Caller>>,
    /// One of the server and one of the caller's key, where they have a limit.
    _permits: [Option<Permit>; 2],
}

impl Access {
    /// Admits a call of `rpc` with this value of the header `authorization`.
    ///
    /// # Errors
    /// Every [`Refusal`] but [`Refusal::ForeignMerchant`], which depends on what the request names.
    pub fn admit(&self, rpc: Rpc, authorization: Option<&[u8]>) -> Result<Admission, Refusal> {
        let (caller, key_permit) = match (rpc.callers(), authorization) {
            (Callers::Anyone, _) => (None, None),
            (Callers::Only(_), None) => (Some(self.admit_without_key()?), None),
            (Callers::Only(_), Some(authorization)) => {
                let key = self.authenticate(authorization)?;
                if !rpc.callers().include(key.caller.role) {
                    let (rpc, role) = (rpc.name(), key.caller.role);
                    return Err(Refusal::RoleNotAllowed { rpc, role });
                }
                let permit = key.usage.take(self.keyring.limits())?;
                (Some(key.caller.clone()), Some(permit))
            }
        };
        let server_permit = self.capacity.take(rpc.work())?;
        Ok(Admission {
            caller,
            _permits: [server_permit, key_permit],
        })
    }

    /// Returns the caller with this value of the header `authorization`, whatever they may call; `None` without a valid key.
    pub fn known_caller(&self, authorization: &[u8]) -> Option<Arc<Caller>> {
        let key = self.authenticate(authorization).ok()?;
        Some(key.caller.clone())
    }

    fn authenticate(&self, authorization: &[u8]) -> Result<Arc<Key>, Refusal> {
        let key = bearer(authorization)
            .and_then(ApiKey::parse)
            .ok_or(Refusal::KeyMalformed)?;
        valid(self.keyring.find(&key, Utc::now))
    }

    fn admit_without_key(&self) -> Result<Arc<Caller>, Refusal> {
        let is_allowed = match self.keyless {
            Keyless::Allowed => true,
            Keyless::Refused => false,
            Keyless::WhileThereAreNoKeys => self.keyring.is_empty().ok_or(Refusal::KeysNotLoaded)?,
        };
        match is_allowed {
            true => Ok(self.keyring.anonymous()),
            false => Err(Refusal::KeyMissing),
        }
    }
}

/// `state`: `None` while the keys are not loaded.
fn valid(state: Option<KeyState>) -> Result<Arc<Key>, Refusal> {
    match state.ok_or(Refusal::KeysNotLoaded)? {
        KeyState::Valid(key) => Ok(key),
        KeyState::Expired => Err(Refusal::KeyExpired),
        KeyState::Revoked => Err(Refusal::KeyRevoked),
        KeyState::Unknown => Err(Refusal::KeyUnknown),
    }
}

/// Lets a stream check now and then whether its caller is still admitted: the key may have expired or been revoked since
/// the stream began.
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
    /// A [`Refusal`] that concerns the key.
    pub fn check(&self) -> Result<(), Refusal> {
        match &self.caller.key {
            Some(key) => valid(self.access.keyring.state(key, Utc::now)).map(drop),
            None => self.access.admit_without_key().map(drop),
        }
    }
}

/// Checks that `caller` may name all merchants that stand in `field` of a request.
///
/// # Errors
/// [`Refusal::ForeignMerchant`] when the caller's key belongs to one merchant and another one is named. Nothing is looked
/// up, so that the answer does not show whether the other one exists.
pub fn check_merchants<'a>(
    caller: &Caller,
    field: &'static str,
    mut named: impl Iterator<Item = &'a str>,
) -> Result<(), Refusal> {
    match named.all(|merchant| caller.sees(Some(merchant))) {
        true => Ok(()),
        false => Err(Refusal::ForeignMerchant { field }),
    }
}

/// Returns the token of a value `Bearer TOKEN`.
///
/// Source: RFC 6750, 2.1; RFC 9110, 11.1, by which the scheme may be in any case.
fn bearer(authorization: &[u8]) -> Option<&str> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, token) = authorization.split_at_checked(SCHEME.len())?;
    let token = std::str::from_utf8(token.strip_prefix(b" ")?).ok()?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_follows_the_scheme() {
        let check = |value: &str, token: Option<&str>| assert_eq!(bearer(value.as_bytes()), token, "{value:?}");
        check("Bearer lm_a", Some("lm_a"));
        check("bearer  lm_a", Some("lm_a"));
        check("Basic lm_a", None);
        check("lm_a", None);
        check("Bearer", None);
        check("Bearerlm_a", None);
        check("Bearers lm_a", None);
    }
}
