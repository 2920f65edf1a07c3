//! Converts the messages about the data of one user.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;

use crate::app::user_export::ExportRequest;
use crate::grpc::batch::MAX_BATCH;
use crate::grpc::convert::given;
use crate::grpc::proto::v1;
use crate::grpc::status::{Violations, not_found};
use crate::store::privacy::rectification::{Corrected, Correction};
use domain::access::Caller;
use domain::error::InvalidField;
use domain::id::UserId;
use domain::item::check_text;

pub fn unknown_user(user: &UserId) -> Status {
    not_found("USER_NOT_FOUND", format!("there is no user {user}"))
}

/// # Errors
/// INVALID_ARGUMENT naming every bad field.
pub fn export(request: v1::ExportUserDataRequest, caller: &Caller) -> Result<ExportRequest, Status> {
    let mut violations = Violations::default();
    let user = violations.check(UserId::asked(request.user_id));
    let reason = violations.check(check_text("reason", request.reason));
    violations.finish(user.zip(reason).map(|(user, reason)| ExportRequest {
        user,
        reason,
        actor: caller.name.to_string(),
    }))
}

impl TryFrom<v1::RectifyUserRequest> for Correction {
    type Error = Status;

    fn try_from(request: v1::RectifyUserRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(UserId::new(request.user_id));
        let reason = violations.check(check_text("reason", request.reason));
        let n_attributes = request.set.len() + request.remove.len();
        if !(1..=MAX_BATCH).contains(&n_attributes) {
            let (field, other) = match request.remove.len() > request.set.len() {
                true => ("remove", "set"),
                false => ("set", "remove"),
            };
            let message = format!("must have 1 to {MAX_BATCH} entries together with {other}, has {n_attributes}");
            violations.add(InvalidField::new(field, "BATCH_SIZE_OUT_OF_RANGE", message));
            // Too many entries are not looked at one by one.
            return violations.finish(None);
        }
        let mut names = BTreeSet::new();
        let mut once = |field: &str, name: String| match names.insert(name.clone()) {
            true => Ok(name),
            false => {
                let message = format!("must not repeat an attribute, {name} is repeated");
                Err(InvalidField::new(field, "DUPLICATE_ATTRIBUTE", message))
            }
        };
        let mut set = BTreeMap::new();
        for (position, attribute) in request.set.into_iter().enumerate() {
            let field = format!("set[{position}].name");
            let name = violations.check(given(&field, attribute.name).and_then(|name| once(&field, name)));
            let value = violations.check(given(&format!("set[{position}].value"), attribute.value));
            set.extend(name.zip(value));
        }
        let mut remove = Vec::new();
        for (position, name) in request.remove.into_iter().enumerate() {
            let field = format!("remove[{position}]");
            remove.extend(violations.check(given(&field, name).and_then(|name| once(&field, name))));
        }
        violations.finish(user.zip(reason).map(|(user, reason)| Self {
            user,
            set,
            remove,
            reason,
        }))
    }
}

impl From<Corrected> for v1::AttributeCorrection {
    fn from(corrected: Corrected) -> Self {
        Self {
            name: corrected.name,
            was: corrected.was,
            is: corrected.is,
        }
    }
}
