//! Converts the messages about attributes of users.

use tonic::Status;

use crate::grpc::convert::given;
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;
use crate::store::coupons::attributes::{AttributeFilter, AttributeKey};
use crate::store::coupons::loads::AttributeLoad;
use domain::error::InvalidField;
use domain::id::UserId;

/// # Errors
/// The first bad field.
pub fn attribute(attribute: v1::UserAttribute) -> Result<AttributeLoad, InvalidField> {
    Ok(AttributeLoad {
        user: UserId::new(attribute.user_id)?,
        name: given("name", attribute.name)?,
        value: given("value", attribute.value)?,
    })
}

/// # Errors
/// The first bad field.
pub fn key(key: v1::UserAttributeKey) -> Result<AttributeKey, InvalidField> {
    Ok(AttributeKey {
        user: UserId::new(key.user_id)?,
        name: given("name", key.name)?,
    })
}

impl From<AttributeLoad> for v1::UserAttribute {
    fn from(attribute: AttributeLoad) -> Self {
        Self {
            user_id: attribute.user.to_string(),
            name: attribute.name,
            value: attribute.value,
        }
    }
}

pub struct ListUserAttributes {
    pub filter: AttributeFilter,
    /// The user and the name of the last attribute before the page.
    cursor: (String, String),
    pub page_size: i64,
}

impl ListUserAttributes {
    pub fn after(&self) -> (&str, &str) {
        (&self.cursor.0, &self.cursor.1)
    }

    /// Returns what a page token is bound to.
    pub fn key(&self) -> impl serde::Serialize {
        let AttributeFilter { user, name, value } = &self.filter;
        let user = user.as_ref().map(ToString::to_string);
        ("ListUserAttributes", user, name.clone(), value.clone())
    }
}

impl TryFrom<v1::ListUserAttributesRequest> for ListUserAttributes {
    type Error = Status;

    fn try_from(request: v1::ListUserAttributesRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(request.user_id.map(UserId::asked).transpose());
        let name = violations.check(request.name.map(|name| given("name", name)).transpose());
        let value = violations.check(request.value.map(|value| given("value", value)).transpose());
        let page_size = violations.check(page::page_size(request.page_size));
        let Some((((user, name), value), page_size)) = user.zip(name).zip(value).zip(page_size) else {
            return violations.finish(None);
        };
        let mut list = Self {
            filter: AttributeFilter { user, name, value },
            cursor: Default::default(),
            page_size,
        };
        let is_possible =
            |(user, name): &(String, String)| UserId::stored(user).is_ok() && given("name", name.clone()).is_ok();
        let cursor = violations.check(page::cursor(&list.key(), &request.page_token, is_possible));
        list.cursor = cursor.flatten().unwrap_or_default();
        violations.finish(Some(list))
    }
}
