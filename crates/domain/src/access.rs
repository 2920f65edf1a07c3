//! Callers and their roles.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::api_key::KeyId;
use super::error::InvalidField;
use super::id::MerchantId;

/// The role of a caller. It decides which RPCs the caller may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serves shoppers: asks for recommendations and reports what shoppers do.
    Service,
    /// Loads data.
    Ingest,
    /// Runs campaigns, of one merchant or of all.
    Marketer,
    /// Looks after the models.
    Operator,
    /// May do everything that the other roles may.
    Admin,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Service, Self::Ingest, Self::Marketer, Self::Operator, Self::Admin];

    /// Returns the name in configuration, storage and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Ingest => "ingest",
            Self::Marketer => "marketer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            let roles = Self::ALL.map(Self::as_str).join(", ");
            InvalidField::new("role", "UNKNOWN_ROLE", format!("must be one of {roles}, is {text}"))
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The caller of an RPC, as handlers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `None` on a server that asks for no keys.
    pub key: Option<KeyId>,
    /// The name for logs and audit: the public part of the key, or "anonymous".
    pub name: Arc<str>,
    pub role: Role,
    /// The only merchant that the caller may see or name; `None` for all merchants.
    pub merchant: Option<MerchantId>,
}

impl Caller {
    /// Returns the caller on a server that asks for no keys: an admin of all merchants.
    pub fn anonymous() -> Self {
        Self {
            key: None,
            name: "anonymous".into(),
            role: Role::Admin,
            merchant: None,
        }
    }

    /// Returns whether the caller may see data that belongs to the merchant `owner`, or to the platform if `None`.
    pub fn sees(&self, owner: Option<&str>) -> bool {
        match &self.merchant {
            None => true,
            Some(own) => owner == Some(own.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_round_trip_as_text() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        let error = "root".parse::<Role>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "role: must be one of service, ingest, marketer, operator, admin, is root"
        );
    }

    #[test]
    fn a_merchants_caller_sees_only_its_own_data() {
        let check = |merchant: Option<&str>, owner: Option<&str>, sees: bool| {
            let caller = Caller {
                merchant: merchant.map(|id| MerchantId::new(id).unwrap()),
                ..Caller::anonymous()
            };
            assert_eq!(caller.sees(owner), sees, "{merchant:?} {owner:?}");
        };
        check(None, None, true);
        check(None, Some("acme"), true);
        check(Some("acme"), Some("acme"), true);
        check(Some("acme"), Some("acme2"), false);
        check(Some("acme"), None, false);
    }
}
