//! Converts the messages about erasures.

use tonic::Status;

use crate::grpc::convert::timestamp;
use crate::grpc::proto::v1;
use crate::grpc::status::{Violations, invalid_argument, not_found};
use crate::store::privacy::erasures::{self, Erasure};
use domain::error::InvalidField;
use domain::id::{RequestId, UserId};
use domain::item::check_text;

/// A user to erase.
pub struct EraseUser {
    pub user: UserId,
    pub request_id: RequestId,
    pub reason: String,
}

impl TryFrom<v1::EraseUserRequest> for EraseUser {
    type Error = Status;

    fn try_from(request: v1::EraseUserRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(UserId::asked(request.user_id));
        let request_id = violations.check(RequestId::new(request.request_id));
        let reason = violations.check(check_text("reason", request.reason));
        if let Some(user) = &user {
            for (field, text) in [
                ("request_id", request_id.as_ref().map(RequestId::as_str)),
                ("reason", reason.as_deref()),
            ] {
                if text.is_some_and(|text| erasures::names(text, user)) {
                    let message = "must not contain the id of the user, because it is kept";
                    violations.add(InvalidField::new(field, "NAMES_THE_USER", message));
                }
            }
        }
        let request = user.zip(request_id).zip(reason);
        violations.finish(request.map(|((user, request_id), reason)| Self {
            user,
            request_id,
            reason,
        }))
    }
}

/// # Errors
/// INVALID_ARGUMENT for an id below 1.
pub fn erasure_id(id: i64) -> Result<i64, Status> {
    if id < 1 {
        let message = format!("must be 1 or more, is {id}");
        return Err(invalid_argument(vec![InvalidField::new(
            "erasure_id",
            "OUT_OF_RANGE",
            message,
        )]));
    }
    Ok(id)
}

pub fn no_erasure(id: i64) -> Status {
    not_found("ERASURE_NOT_FOUND", format!("there is no erasure {id}"))
}

/// Returns what page tokens of ListErasures are bound to.
pub fn list_key(only_open: bool) -> (&'static str, bool) {
    ("ListErasures", only_open)
}

impl From<Erasure> for v1::Erasure {
    fn from(erasure: Erasure) -> Self {
        let stage = match &erasure {
            Erasure {
                verified_at: Some(_), ..
            } => v1::ErasureStage::Verified,
            Erasure {
                snapshots_clean_at: Some(_),
                ..
            } => v1::ErasureStage::SnapshotsClean,
            Erasure {
                rows_deleted_at: Some(_),
                ..
            } => v1::ErasureStage::RowsDeleted,
            Erasure { masked_at: Some(_), .. } => v1::ErasureStage::Masked,
            _ => v1::ErasureStage::Received,
        };
        Self {
            erasure_id: erasure.id,
            stage: stage.into(),
            received_at: Some(timestamp(erasure.received_at)),
            masked_at: erasure.masked_at.map(timestamp),
            rows_deleted_at: erasure.rows_deleted_at.map(timestamp),
            snapshots_clean_at: erasure.snapshots_clean_at.map(timestamp),
            verified_at: erasure.verified_at.map(timestamp),
            request_id: erasure.request_id.unwrap_or_default(),
            reason: erasure.reason,
            requested_by: erasure.requested_by,
            was_known: erasure.was_known,
            row_count: erasure.row_count as i64,
            finding: erasure.finding,
        }
    }
}
