//! Why a call is not admitted.

use std::time::Duration;

use domain::access::Role;

use super::capacity::Overloaded;
use super::key_limits::Overuse;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("an API key is required: send `authorization: Bearer <key>`")]
    KeyMissing,
    #[error("the value of authorization must be `Bearer <key>`, with a key as `likemind keys create` shows it")]
    KeyMalformed,
    #[error("the API key is not known")]
    KeyUnknown,
    #[error("the API key has expired")]
    KeyExpired,
    #[error("the API key has been revoked")]
    KeyRevoked,
    /// The keys could not be read from the database since the server started.
    #[error("the server does not know yet who may call; try again")]
    KeysNotLoaded,
    #[error("the role {role} may not call {rpc}")]
    RoleNotAllowed { rpc: &'static str, role: Role },
    #[error("{field} must name no merchant other than the key's own")]
    ForeignMerchant { field: &'static str },
    #[error(transparent)]
    Overuse(#[from] Overuse),
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
}

impl Refusal {
    /// When the same call may be admitted, if waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        const A_MOMENT: Duration = Duration::from_millis(100);
        match self {
            Self::KeysNotLoaded => Some(Duration::from_secs(1)),
            Self::Overuse(Overuse::Rate { retry_after }) => Some(*retry_after),
            Self::Overuse(Overuse::Concurrency) | Self::Overloaded(Overloaded) => Some(A_MOMENT),
            Self::KeyMissing
            | Self::KeyMalformed
            | Self::KeyUnknown
            | Self::KeyExpired
            | Self::KeyRevoked
            | Self::RoleNotAllowed { .. }
            | Self::ForeignMerchant { .. } => None,
        }
    }
}
