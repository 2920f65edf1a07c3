//! Who calls, and in which role.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::api_key::KeyId;
use super::error::InvalidField;
use super::id::MerchantId;

/// What a caller is there for. Which RPCs that includes is said in one table, `grpc/method.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A part of the shop: asks for recommendations, reports what shoppers do.
    Service,
    /// A loader of data.
    Ingest,
    /// Whoever runs campaigns, of one merchant or of all.
    Marketer,
    /// Whoever looks after the models.
    Operator,
    /// All of these.
    Admin,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Service, Self::Ingest, Self::Marketer, Self::Operator, Self::Admin];

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

/// Who calls, as every handler is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `None`: whoever reaches a server that asks for no keys.
    pub key: Option<KeyId>,
    /// For logs and audit: the public part of the key, or what stands for it.
    pub name: Arc<str>,
    pub role: Role,
    /// The only merchant that the caller may see or name; `None`: all of them.
    pub merchant: Option<MerchantId>,
}

impl Caller {
    /// Whoever reaches a server that asks for no keys.
    pub fn anonymous() -> Self {
        Self {
            key: None,
            name: "anonymous".into(),
            role: Role::Admin,
            merchant: None,
        }
    }

    /// Whether the caller may see what belongs to `owner`.
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
    fn roles_are_read_as_they_are_written() {
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
    fn a_merchant_sees_its_own() {
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
