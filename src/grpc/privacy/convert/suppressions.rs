//! Converts the messages about suppressions.

use tonic::Status;

use crate::grpc::convert::timestamp;
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;
use crate::store::privacy::suppressions::Suppression;
use domain::error::InvalidField;
use domain::id::UserId;
use domain::item::check_text;

/// Returns the user and the reason.
///
/// # Errors
/// The first bad field.
pub fn suppression(suppression: v1::UserSuppression) -> Result<(UserId, String), InvalidField> {
    let user = UserId::new(suppression.user_id)?;
    Ok((user, check_text("reason", suppression.reason)?))
}

pub struct ListSuppressions {
    pub user: Option<UserId>,
    pub after: String,
    pub page_size: i64,
}

impl ListSuppressions {
    /// Returns what a page token is bound to.
    pub fn key(&self) -> (&'static str, Option<&str>) {
        ("ListSuppressions", self.user.as_ref().map(UserId::as_str))
    }
}

impl TryFrom<v1::ListSuppressionsRequest> for ListSuppressions {
    type Error = Status;

    fn try_from(request: v1::ListSuppressionsRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(request.user_id.map(UserId::asked).transpose());
        let page_size = violations.check(page::page_size(request.page_size));
        let Some((user, page_size)) = user.zip(page_size) else {
            return violations.finish(None);
        };
        let mut list = Self {
            user,
            after: String::new(),
            page_size,
        };
        let is_user = |id: &String| UserId::stored(id).is_ok();
        let after = violations.check(page::cursor(&list.key(), &request.page_token, is_user));
        list.after = after.flatten().unwrap_or_default();
        violations.finish(Some(list))
    }
}

impl From<Suppression> for v1::Suppression {
    fn from(suppression: Suppression) -> Self {
        Self {
            user_id: suppression.user.to_string(),
            reason: suppression.reason,
            suppressed_at: Some(timestamp(suppression.suppressed_at)),
        }
    }
}
