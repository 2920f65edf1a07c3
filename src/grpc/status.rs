//! What a caller sees of an error: `google.rpc.Status` with details. Every mapping is exhaustive, so that a new error
//! does not compile until somebody has decided; nothing internal leaves the process.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::domain::error::InvalidField;
use crate::store::error::StoreError;
use crate::store::snapshots::TransitionError;

/// Of `ErrorInfo`.
pub const DOMAIN: &str = "likemind";

/// The fields of a request that are wrong; collects them all before answering.
#[derive(Debug, Default)]
pub struct Violations {
    fields: Vec<InvalidField>,
}

impl Violations {
    /// The value, or its error noted down.
    pub fn check<T>(&mut self, result: Result<T, InvalidField>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.fields.push(error);
                None
            }
        }
    }

    pub fn add(&mut self, error: InvalidField) {
        self.fields.push(error);
    }

    /// `value` if nothing was wrong; it is `None` only when something was.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Status> {
        match value {
            Some(value) if self.fields.is_empty() => Ok(value),
            _ => Err(invalid_argument(self.fields)),
        }
    }
}

/// INVALID_ARGUMENT naming every bad field.
pub fn invalid_argument(fields: Vec<InvalidField>) -> Status {
    let message = match fields.as_slice() {
        [only] => only.to_string(),
        all => format!("{} fields are invalid; first: {}", all.len(), all.first().map_or("", |field| &field.field)),
    };
    let reason = fields.first().map_or("INVALID_ARGUMENT", |field| field.reason);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    details.set_bad_request(
        fields
            .into_iter()
            .map(|field| FieldViolation::new(field.field, field.message))
            .collect::<Vec<_>>(),
    );
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn with_reason(code: Code, reason: &str, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    if let Some(delay) = retry_after {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, message, details)
}

pub fn not_found(reason: &str, message: impl Into<String>) -> Status {
    with_reason(Code::NotFound, reason, message, None)
}

/// No snapshot has been loaded yet.
pub fn no_snapshot() -> Status {
    with_reason(
        Code::FailedPrecondition,
        "NO_SNAPSHOT",
        "no snapshot is active yet: run `likemind train`",
        None,
    )
}

/// More requests are under way than `server.max_concurrent_requests`.
pub fn overloaded() -> Status {
    with_reason(
        Code::ResourceExhausted,
        "OVERLOADED",
        "the server has as many requests as it can take; try again",
        Some(Duration::from_millis(100)),
    )
}

/// Work of a request ended with a panic, which is a mistake of ours.
pub fn internal() -> Status {
    with_reason(Code::Internal, "INTERNAL", "the server made a mistake; it is logged under the request id", None)
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let retry_after = error.retry_after();
        match error {
            StoreError::Unavailable(_) => with_reason(
                Code::Unavailable,
                "DATABASE_UNAVAILABLE",
                "the database is not available; try again",
                retry_after,
            ),
            StoreError::Conflict(_) => with_reason(
                Code::Aborted,
                "CONFLICT",
                "other writes to the same data were in the way; try again",
                retry_after,
            ),
            StoreError::Timeout(_) => {
                with_reason(Code::Unavailable, "DATABASE_SLOW", "the database took too long; try again", retry_after)
            }
            error @ (StoreError::Corrupt { .. }
            | StoreError::Migration(_)
            | StoreError::InvalidUrl(_)
            | StoreError::Unexpected(_)) => {
                tracing::error!(error = ?anyhow::Error::new(error), "a request failed in the database");
                internal()
            }
        }
    }
}

impl From<TransitionError> for Status {
    fn from(error: TransitionError) -> Self {
        let message = error.to_string();
        match error {
            TransitionError::Unknown { .. } => not_found("SNAPSHOT_NOT_FOUND", message),
            TransitionError::NotActivatable { .. } => {
                with_reason(Code::FailedPrecondition, "SNAPSHOT_NOT_ACTIVATABLE", message, None)
            }
            TransitionError::ReasonRequired { .. } => {
                with_reason(Code::FailedPrecondition, "REASON_REQUIRED", message, None)
            }
            TransitionError::NothingBefore => {
                with_reason(Code::FailedPrecondition, "NO_PREVIOUS_SNAPSHOT", message, None)
            }
            TransitionError::LeaseLost => with_reason(Code::Aborted, "LEASE_LOST", message, None),
            TransitionError::Store(error) => error.into(),
        }
    }
}
