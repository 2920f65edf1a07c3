//! The rules of a coupon against what a user did.

use crate::domain::id::UserId;
use crate::model::dictionary::UserIndex;
use crate::model::view::View;

/// What a user did, as of now: their history in the snapshot, and what is newer.
#[derive(Debug, Clone)]
pub struct History<'a> {
    #[expect(dead_code, reason = "read by the rules to come")]
    view: &'a View,
    #[expect(dead_code, reason = "read by the rules to come")]
    user: &'a UserId,
    #[expect(dead_code, reason = "read by the rules to come")]
    index: Option<UserIndex>,
}
