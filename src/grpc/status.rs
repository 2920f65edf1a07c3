//! Turns errors into `google.rpc.Status` with details. Every mapping is exhaustive, so that a new error does not compile
//! until somebody has decided what callers see of it. Nothing internal leaves the process.

use std::time::Duration;

use http::{HeaderMap, Response};
use tokio::task::JoinError;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::admission::key_limits::Overuse;
use crate::admission::refusal::Refusal;
use crate::app::activation::ActivationError;
use crate::app::audience::AudienceError;
use crate::app::campaign_bias::CampaignBiasError;
use crate::app::eligibility::EligibilityError;
use crate::app::import::columns::ColumnError;
use crate::app::import::{ImportError, StopCause};
use crate::app::random::NoRandomness;
use crate::app::redemption::ReserveError;
use crate::app::targets::TargetsError;
use crate::app::user_export::ExportError;
use crate::live::ServingStatus;
use crate::store::coupons::campaigns::DefineError;
use crate::store::error::StoreError;
use crate::store::imports::UndoError;
use crate::store::privacy::erasures::ReceiveError;
use crate::store::redemptions::requests::Done;
use crate::store::redemptions::{CloseError, RollbackError};
use crate::store::snapshots::TransitionError;
use coupons::eligibility::Assessment;
use coupons::offer_catalog::Offer;
use domain::access::Role;
use domain::error::{InvalidField, chain};
use domain::id::{CampaignId, CouponId};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "likemind";
/// The header with a call's id, in requests and answers.
pub const REQUEST_ID: &str = "x-request-id";

/// Collects all wrong fields of a request, so that one answer names them all.
#[derive(Debug, Default)]
pub struct Violations {
    fields: Vec<InvalidField>,
}

impl Violations {
    /// Returns the value, or `None` after noting its error.
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

    /// Returns `value` if nothing was wrong. It must not be `None` otherwise.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming every wrong field.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Status> {
        match value {
            Some(value) if self.fields.is_empty() => Ok(value),
            _ => Err(invalid_argument(self.fields)),
        }
    }
}

/// Most bytes of text about wrong fields in one status. A status travels in a header, and clients refuse headers above
/// 8 KiB.
const MAX_VIOLATION_BYTES: usize = 4_096;

/// Most characters of the message about one wrong field, which may quote names of the request.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// Returns INVALID_ARGUMENT naming every wrong field, or the first ones if there are very many.
pub fn invalid_argument(fields: Vec<InvalidField>) -> Status {
    let message = match fields.as_slice() {
        [only] => only.to_string().chars().take(MAX_MESSAGE_CHARS).collect(),
        all => format!(
            "{} fields are invalid, the first one is {}",
            all.len(),
            all.first().map_or("", |field| &field.field)
        ),
    };
    let reason = fields.first().map_or("INVALID_ARGUMENT", |field| field.reason);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    let mut bytes = 0;
    let violations = fields.into_iter().map_while(|field| {
        bytes += field.field.len() + field.message.len();
        (bytes <= MAX_VIOLATION_BYTES).then(|| FieldViolation::new(field.field, field.message))
    });
    details.set_bad_request(violations.collect::<Vec<_>>());
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

/// Returns FAILED_PRECONDITION for a server without a snapshot; `serving` says why it has none.
pub fn no_snapshot(serving: &ServingStatus) -> Status {
    const LOADING: Duration = Duration::from_secs(1);
    let (message, retry_after) = if serving.loading.is_some() {
        (
            "the active snapshot is being loaded; try again".to_owned(),
            Some(LOADING),
        )
    } else if serving.load_error.is_some() {
        let message = "the active snapshot cannot be served; GetServingStatus says why";
        (message.to_owned(), None)
    } else if !serving.database_available {
        let message = "no snapshot is loaded and the database is not available; try again";
        (message.to_owned(), Some(LOADING))
    } else {
        (serving.without_active_snapshot(), None)
    };
    with_reason(Code::FailedPrecondition, "NO_SNAPSHOT", message, retry_after)
}

/// The snapshot has no forecast of demand, for this `reason`.
pub fn no_demand_model(reason: String) -> Status {
    let message = format!("the snapshot has no forecast of demand: {reason}");
    with_reason(Code::FailedPrecondition, "NO_DEMAND_MODEL", message, None)
}

/// Stock and policies were not read yet, as the database is away since the start of the server.
pub fn not_loaded() -> Status {
    let message = "stock and policies are not loaded, as the database is not available; try again";
    with_reason(
        Code::Unavailable,
        "DATABASE_UNAVAILABLE",
        message,
        Some(Duration::from_secs(1)),
    )
}

/// No item has enough sales before the weeks that were to be replayed.
pub fn history_too_short() -> Status {
    let message = "no item has enough weeks with sales before the replay; ask for fewer weeks";
    with_reason(Code::FailedPrecondition, "HISTORY_TOO_SHORT", message, None)
}

/// The request took longer than the client's own deadline or `server.request_timeout_ms`.
pub fn deadline_exceeded() -> Status {
    with_reason(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the request took longer than its deadline or server.request_timeout_ms",
        None,
    )
}

/// The headers of a call are larger than it may have.
pub fn headers_too_large(bytes: usize, most: usize) -> Status {
    with_reason(
        Code::InvalidArgument,
        "HEADERS_TOO_LARGE",
        format!("the headers of a call must be at most {most} bytes in all, are {bytes}"),
        None,
    )
}

/// Returns ABORTED for a request that its client has cancelled, or left, before its end. The code is not CANCELLED, which tonic
/// takes for the end of a stream of messages.
pub fn request_aborted() -> Status {
    with_reason(
        Code::Aborted,
        "REQUEST_ABORTED",
        "the client ended the request in the middle",
        None,
    )
}

/// The server itself made a mistake: a handler panicked, or a case arose that cannot arise.
pub fn internal() -> Status {
    with_reason(
        Code::Internal,
        "INTERNAL",
        "the server made a mistake; its log explains it under the request id",
        None,
    )
}

/// Returns an answer with its code. A status that tonic has made gets the details that our contract promises.
pub fn with_details_and_code(response: Response<Body>) -> (Response<Body>, Code) {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return (response, Code::Ok);
    };
    let code = status.code();
    if code == Code::Ok || !status.details().is_empty() {
        return (response, code);
    }
    let metadata = status.metadata().clone();
    let mut status = with_details(status);
    *status.metadata_mut() = metadata;
    let code = status.code();
    (status.into_http(), code)
}

/// Gives the status in the trailers of an answer the details that our contract promises, if tonic has made it.
pub fn with_details_in_trailers(trailers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(trailers) else {
        return;
    };
    if status.code() == Code::Ok || !status.details().is_empty() {
        return;
    }
    let mut explained = HeaderMap::new();
    // Its message and details are sanitized, so this cannot fail; otherwise the trailers stay as they are.
    if with_details(status).add_header(&mut explained).is_ok() {
        trailers.extend(explained);
    }
}

/// `message`: that of tonic, which ends with the sizes.
fn answer_too_large(message: &str) -> Status {
    let sizes = message.rsplit_once("too large: ").map_or(message, |(_, sizes)| sizes);
    with_reason(
        Code::InvalidArgument,
        "ANSWER_TOO_LARGE",
        format!("the answer would be larger than clients accept ({sizes}); ask for less at a time, such as fewer ids"),
        None,
    )
}

fn too_large(message: &str) -> Status {
    let sizes = message.rsplit_once("too large: ").map_or(message, |(_, sizes)| sizes);
    with_reason(
        Code::InvalidArgument,
        "REQUEST_TOO_LARGE",
        format!("the request is larger than this RPC takes, or than server.max_message_bytes: {sizes}"),
        None,
    )
}

/// Gives details to a status that tonic has made, before a handler was called or instead of one. tonic gives none, and it
/// blames the server for a request that cannot be read.
fn with_details(status: Status) -> Status {
    const UNREADABLE: [&str; 6] = [
        "failed to decode Protobuf message",
        "protocol error",
        "Unexpected EOF",
        "Missing request message",
        "Error decompressing",
        // As for bytes that are not the Base64 that they are said to be.
        "tonic-web",
    ];
    let (code, message) = (status.code(), status.message());
    match code {
        Code::Internal if UNREADABLE.iter().any(|start| message.starts_with(start)) => with_reason(
            Code::InvalidArgument,
            "UNREADABLE_REQUEST",
            format!("the request must be the message that this RPC takes: {message}"),
            None,
        ),
        // tonic has two codes for a message that is too large: before it is decompressed and while it is.
        Code::ResourceExhausted if message.starts_with("Error decompressing") => too_large(message),
        Code::OutOfRange if message.contains("encoded message") => answer_too_large(message),
        Code::OutOfRange => too_large(message),
        Code::Unimplemented if message.is_empty() => with_reason(
            code,
            "UNKNOWN_RPC",
            "this server has no such RPC; reflection lists those that it has",
            None,
        ),
        Code::Internal | Code::Unknown | Code::DataLoss => {
            tracing::error!(
                code = code_name(code),
                message,
                "a request failed outside of its handler"
            );
            internal()
        }
        _ => with_reason(code, code_name(code), message, None),
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason) = match &refusal {
            Refusal::KeyMissing => (Code::Unauthenticated, "API_KEY_MISSING"),
            Refusal::KeyMalformed => (Code::Unauthenticated, "API_KEY_MALFORMED"),
            Refusal::KeyUnknown => (Code::Unauthenticated, "API_KEY_UNKNOWN"),
            Refusal::KeyExpired => (Code::Unauthenticated, "API_KEY_EXPIRED"),
            Refusal::KeyRevoked => (Code::Unauthenticated, "API_KEY_REVOKED"),
            Refusal::KeysNotLoaded => (Code::Unavailable, "DATABASE_UNAVAILABLE"),
            Refusal::RoleNotAllowed { .. } => (Code::PermissionDenied, "ROLE_NOT_ALLOWED"),
            Refusal::ForeignMerchant { .. } => (Code::PermissionDenied, "FOREIGN_MERCHANT"),
            Refusal::Overuse(Overuse::Rate { .. }) => (Code::ResourceExhausted, "RATE_LIMITED"),
            Refusal::Overuse(Overuse::Concurrency) => (Code::ResourceExhausted, "TOO_MANY_REQUESTS"),
            Refusal::Overloaded(_) => (Code::ResourceExhausted, "OVERLOADED"),
        };
        with_reason(code, reason, refusal.to_string(), refusal.retry_after())
    }
}

impl From<NoRandomness> for Status {
    fn from(error: NoRandomness) -> Self {
        tracing::error!(error = %chain(&error), "a request failed");
        internal()
    }
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
            StoreError::Busy(_) => with_reason(
                Code::Unavailable,
                "DATABASE_BUSY",
                "the database is overloaded; try again",
                retry_after,
            ),
            StoreError::Conflict(_) => with_reason(
                Code::Aborted,
                "CONFLICT",
                "other writes to the same data came first; try again",
                retry_after,
            ),
            StoreError::Timeout(_) => with_reason(
                Code::Unavailable,
                "DATABASE_SLOW",
                "the database took too long; try again",
                retry_after,
            ),
            error @ StoreError::ErasureKey => with_reason(
                Code::FailedPrecondition,
                "ERASURE_KEY_MISSING",
                error.to_string(),
                retry_after,
            ),
            error @ (StoreError::Corrupt { .. }
            | StoreError::Migration(_)
            | StoreError::NewerSchema
            | StoreError::Encoding { .. }
            | StoreError::InvalidUrl(_)
            | StoreError::Unexpected(_)) => {
                tracing::error!(error = %chain(&error), "a request failed in the database");
                internal()
            }
        }
    }
}

/// Returns the answer to an erasure while there is no key to remember it by.
pub fn erasure_key_missing() -> Status {
    with_reason(
        Code::FailedPrecondition,
        "ERASURE_KEY_MISSING",
        "privacy.erasure_key_file is not set: write a random key into a file outside the database, for example with \
         `openssl rand -hex 32 > erasure.key`, keep a copy of it, and set its path on every server",
        None,
    )
}

impl From<ExportError> for Status {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Erased => not_found("USER_ERASED", error.to_string()),
            ExportError::Store(error) => error.into(),
        }
    }
}

impl From<ReceiveError> for Status {
    fn from(error: ReceiveError) -> Self {
        let message = error.to_string();
        match error {
            ReceiveError::OtherKey => with_reason(Code::FailedPrecondition, "ERASURE_KEY_CHANGED", message, None),
            ReceiveError::RequestReused(_) => with_reason(Code::FailedPrecondition, "REQUEST_ID_REUSED", message, None),
            ReceiveError::ReasonNamesUser => {
                invalid_argument(vec![InvalidField::new("reason", "NAMES_THE_USER", message)])
            }
            ReceiveError::Store(error) => error.into(),
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
            TransitionError::Overtaken => {
                let retry_after = Some(Duration::from_millis(100));
                with_reason(Code::Aborted, "CONFLICT", message, retry_after)
            }
            TransitionError::Behind { .. } => with_reason(Code::Aborted, "USERS_ERASED", message, None),
            TransitionError::LeaseLost => with_reason(Code::Aborted, "LEASE_LOST", message, None),
            TransitionError::Store(error) => error.into(),
        }
    }
}

impl From<ActivationError> for Status {
    fn from(error: ActivationError) -> Self {
        let message = error.to_string();
        match error {
            ActivationError::Transition(error) => error.into(),
            ActivationError::Unusable { .. } => {
                with_reason(Code::FailedPrecondition, "SNAPSHOT_UNUSABLE", message, None)
            }
        }
    }
}

impl From<AudienceError> for Status {
    fn from(error: AudienceError) -> Self {
        let message = error.to_string();
        match error {
            AudienceError::UnknownItem(_) => not_found("ITEM_NOT_FOUND", message),
            AudienceError::UnknownCategory(_) => not_found("CATEGORY_NOT_FOUND", message),
            AudienceError::NoSnapshot(serving) => no_snapshot(&serving),
            AudienceError::SnapshotGone { .. } => with_reason(Code::Aborted, "PAGE_SNAPSHOT_GONE", message, None),
            AudienceError::Panicked => {
                tracing::error!("the audience of an item or category could not be ranked");
                internal()
            }
            AudienceError::Store(error) => error.into(),
        }
    }
}

impl From<TargetsError> for Status {
    fn from(error: TargetsError) -> Self {
        let message = error.to_string();
        match error {
            TargetsError::UnknownCoupon(_) => not_found("COUPON_NOT_FOUND", message),
            TargetsError::NoSnapshot(serving) => no_snapshot(&serving),
            TargetsError::SnapshotGone { .. } => with_reason(Code::Aborted, "PAGE_SNAPSHOT_GONE", message, None),
            TargetsError::NotFitted(_) => with_reason(Code::FailedPrecondition, "PROPENSITY_NOT_FITTED", message, None),
            TargetsError::Stopped { failure, .. } => {
                with_reason(Code::FailedPrecondition, failure.code().name(), message, None)
            }
            error @ (TargetsError::Audience(_) | TargetsError::Panicked) => {
                tracing::error!(error = %chain(&error), "the targets of a coupon could not be ranked");
                internal()
            }
            TargetsError::Store(error) => error.into(),
        }
    }
}

/// Returns PERMISSION_DENIED for a caller who may not let a campaign see the history of all merchants.
pub fn history_scope_not_allowed(role: Role) -> Status {
    let message = format!(
        "the role {role} may not set campaign.history_scope to HISTORY_SCOPE_PLATFORM; only operator and admin may"
    );
    with_reason(Code::PermissionDenied, "ROLE_NOT_ALLOWED", message, None)
}

pub fn no_campaign(id: &CampaignId) -> Status {
    not_found("CAMPAIGN_NOT_FOUND", format!("there is no campaign {id}"))
}

pub fn no_coupon(id: &CouponId) -> Status {
    not_found("COUPON_NOT_FOUND", format!("there is no coupon {id}"))
}

impl From<DefineError> for Status {
    fn from(error: DefineError) -> Self {
        let message = error.to_string();
        let failed = |reason| with_reason(Code::FailedPrecondition, reason, message.clone(), None);
        let exists = |reason| with_reason(Code::AlreadyExists, reason, message.clone(), None);
        match error {
            DefineError::UnknownCampaign(id) => no_campaign(&id),
            DefineError::UnknownCoupon(id) => no_coupon(&id),
            DefineError::UnknownMerchant(_) | DefineError::UnknownMerchants(_) => {
                not_found("MERCHANT_NOT_FOUND", message)
            }
            DefineError::ForeignMerchant { .. } => failed("FOREIGN_MERCHANT"),
            DefineError::CampaignExists(_) => exists("CAMPAIGN_EXISTS"),
            DefineError::CouponExists(_) => exists("COUPON_EXISTS"),
            DefineError::IdNotAvailable => failed("ID_NOT_AVAILABLE"),
            DefineError::NotDraft { .. } => failed("CAMPAIGN_NOT_DRAFT"),
            DefineError::InvalidTransition { .. } | DefineError::Begun => failed("INVALID_TRANSITION"),
            DefineError::LimitBelowUse { .. } => failed("LIMIT_BELOW_USE"),
            DefineError::SensitiveAttribute { .. } => failed("SENSITIVE_ATTRIBUTE"),
            DefineError::Invalid(error) => invalid_argument(vec![error.within("campaign")]),
            DefineError::Store(error) => error.into(),
        }
    }
}

impl From<CampaignBiasError> for Status {
    fn from(error: CampaignBiasError) -> Self {
        match error {
            CampaignBiasError::UnknownCampaign(id) => no_campaign(&id),
            CampaignBiasError::NoSnapshot(serving) => no_snapshot(&serving),
            error @ CampaignBiasError::Panicked => {
                tracing::error!(error = %chain(&error), "groups of users could not be compared");
                Status::internal("the users cannot be compared")
            }
            CampaignBiasError::Store(error) => error.into(),
        }
    }
}

/// The server imports as many uploads as it does at a time.
pub fn too_many_imports() -> Status {
    let message = "the server imports as many files as it does at a time (import.max_uploads); try again";
    let retry_after = Some(Duration::from_secs(5));
    with_reason(Code::ResourceExhausted, "TOO_MANY_IMPORTS", message, retry_after)
}

pub fn upload_too_large(max_bytes: u64) -> Status {
    let message = format!("a file of more than {max_bytes} bytes cannot be uploaded (import.max_upload_bytes)");
    with_reason(Code::InvalidArgument, "UPLOAD_TOO_LARGE", message, None)
}

pub fn upload_stalled(timeout: Duration) -> Status {
    let message = format!("the next message did not come within {timeout:?} (import.upload_timeout_ms)");
    with_reason(Code::DeadlineExceeded, "UPLOAD_STALLED", message, None)
}

/// The server stops, or somebody has undone the import while it was running.
pub fn import_interrupted(import_id: Option<i64>, last_line: u64) -> Status {
    let what = match import_id {
        Some(id) => format!("import {id} was ended after line {last_line}; the lines up to there are stored"),
        None => "the import was ended before anything was stored".to_owned(),
    };
    let message = format!("{what}; import the whole file again");
    let retry_after = Some(Duration::from_secs(1));
    with_reason(Code::Unavailable, "IMPORT_INTERRUPTED", message, retry_after)
}

/// A task that a handler waits for has panicked, or the process is ending.
pub fn background_task_failed(error: &JoinError) -> Status {
    tracing::error!(%error, "a task of a call failed");
    internal()
}

impl From<ImportError> for Status {
    fn from(error: ImportError) -> Self {
        let message = error.to_string();
        match error {
            ImportError::Unreadable { source, .. } if source.raw_os_error().is_none() => {
                let message = format!("cannot be read: {source}");
                invalid_argument(vec![InvalidField::new("bytes", "UNREADABLE_FILE", message)])
            }
            ImportError::Unsuitable { .. } => {
                invalid_argument(vec![InvalidField::new("bytes", "UNSUITABLE_FILE", message)])
            }
            ImportError::Columns(error) => invalid_argument(vec![of_column(error)]),
            ImportError::Rules(error) => {
                invalid_argument(vec![InvalidField::new(error.option, "UNKNOWN_COLUMN", error.problem)])
            }
            ImportError::Rejected { .. } => with_reason(Code::FailedPrecondition, "TOO_MANY_REJECTS", message, None),
            ImportError::Stopped {
                cause: StopCause::Store(error),
                ..
            } => {
                let status = Self::from(error);
                let message = format!("{message}: {}", status.message());
                Self::with_details(status.code(), message, status.details().to_vec().into())
            }
            error @ (ImportError::Unreadable { .. }
            | ImportError::Rejects { .. }
            | ImportError::Stopped {
                cause: StopCause::Read(_) | StopCause::Rejects(_) | StopCause::Panicked,
                ..
            }) => {
                tracing::error!(error = %chain(&error), "an uploaded file could not be imported");
                internal()
            }
        }
    }
}

/// Returns the option that does not fit the columns of a file.
fn of_column(error: ColumnError) -> InvalidField {
    const MAP: &str = "options.map";
    let message = error.to_string();
    let (field, reason) = match error {
        ColumnError::UnknownField { .. } => (MAP, "UNKNOWN_FIELD"),
        ColumnError::GivenTwice { .. } => (MAP, "FIELD_GIVEN_TWICE"),
        ColumnError::UnknownColumn { .. } => (MAP, "UNKNOWN_COLUMN"),
        ColumnError::AmbiguousColumn { .. } => (MAP, "AMBIGUOUS_COLUMN"),
        ColumnError::InvalidTemplate { .. } => (MAP, "INVALID_TEMPLATE"),
        ColumnError::Missing { .. } => (MAP, "FIELD_MISSING"),
        ColumnError::Exclusive { .. } => (MAP, "EXCLUSIVE_FIELDS"),
        ColumnError::InvalidConstant(error) => ("options.set", error.reason),
        ColumnError::UnknownUnmapped { .. } => ("options.unmap", "UNKNOWN_COLUMN"),
    };
    InvalidField::new(field, reason, message)
}

impl From<UndoError> for Status {
    fn from(error: UndoError) -> Self {
        let message = error.to_string();
        let failed = |reason| with_reason(Code::FailedPrecondition, reason, message.clone(), None);
        match error {
            UndoError::Unknown(_) => not_found("IMPORT_NOT_FOUND", message),
            UndoError::Running(_) => failed("IMPORT_RUNNING"),
            UndoError::UndoneBefore(_) => failed("IMPORT_UNDONE"),
            UndoError::TooOld(_) => failed("IMPORT_TOO_OLD"),
            UndoError::Overwritten { .. } => failed("IMPORT_OVERWRITTEN"),
            UndoError::Store(error) => error.into(),
        }
    }
}

impl From<EligibilityError> for Status {
    fn from(error: EligibilityError) -> Self {
        match error {
            EligibilityError::NoSnapshot(serving) => no_snapshot(&serving),
            EligibilityError::Store(error) => error.into(),
        }
    }
}

impl From<ReserveError> for Status {
    fn from(error: ReserveError) -> Self {
        let message = error.to_string();
        match error {
            ReserveError::UnknownCoupon(_) => not_found("COUPON_NOT_FOUND", message),
            ReserveError::NotEligible { assessment, offer } => not_eligible(&assessment, &offer),
            ReserveError::CartIdMissing => with_reason(Code::FailedPrecondition, "CART_ID_MISSING", message, None),
            ReserveError::NotApplied(_) => with_reason(Code::FailedPrecondition, "COUPON_NOT_APPLIED", message, None),
            ReserveError::Contended => {
                let retry_after = Some(Duration::from_millis(100));
                with_reason(Code::Aborted, "CONFLICT", message, retry_after)
            }
            ReserveError::NoRandomness => {
                tracing::error!("the system has no randomness to give");
                internal()
            }
            ReserveError::Eligibility(error) => error.into(),
        }
    }
}

/// Returns FAILED_PRECONDITION with every reason: the first code is the status's reason, the metadata `reasons` holds all
/// codes, and the message says them in words.
fn not_eligible(assessment: &Assessment, offer: &Offer) -> Status {
    let codes: Vec<&str> = assessment
        .failures
        .iter()
        .map(|failure| failure.code().name())
        .collect();
    let in_words = assessment.failures.iter().map(|failure| {
        let (code, required, seen) = (failure.code().name(), failure.required(Some(offer)), failure.seen());
        format!("{code} (required: {required}; seen: {seen})")
    });
    let message = format!("the user is not eligible: {}", in_words.collect::<Vec<_>>().join("; "));
    let first = codes.first().copied().unwrap_or("NOT_ELIGIBLE");
    let metadata = [("reasons".to_owned(), codes.join(","))];
    let details = ErrorDetails::with_error_info(first, DOMAIN, metadata);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

impl From<CloseError> for Status {
    fn from(error: CloseError) -> Self {
        let message = error.to_string();
        let failed = |reason| with_reason(Code::FailedPrecondition, reason, message.clone(), None);
        match error {
            CloseError::UnknownReservation(_) => not_found("RESERVATION_NOT_FOUND", message),
            CloseError::Expired { .. } => failed("RESERVATION_EXPIRED"),
            CloseError::Closed { .. } => failed("RESERVATION_CLOSED"),
            CloseError::AmountTooLarge { .. } => failed("AMOUNT_EXCEEDS_RESERVATION"),
            CloseError::Store(error) => error.into(),
        }
    }
}

impl From<RollbackError> for Status {
    fn from(error: RollbackError) -> Self {
        let message = error.to_string();
        let failed = |reason| with_reason(Code::FailedPrecondition, reason, message.clone(), None);
        match error {
            RollbackError::UnknownRedemption(_) => not_found("REDEMPTION_NOT_FOUND", message),
            RollbackError::AmountTooLarge { .. } => failed("AMOUNT_EXCEEDS_REDEMPTION"),
            RollbackError::NothingLeft(_) => failed("ROLLED_BACK_ALREADY"),
            RollbackError::CapNotRestorable { .. } => failed("CAP_NOT_RESTORABLE"),
            RollbackError::Store(error) => error.into(),
        }
    }
}

/// Returns the answer to a mutation, which may have been made by an earlier request of the same id.
///
/// # Errors
/// FAILED_PRECONDITION when the earlier request had another body.
pub fn answer<T>(done: Done<T>) -> Result<T, Status> {
    let reused = || {
        let message = "request_id was used for another request within the last 30 days; use a new one";
        with_reason(Code::FailedPrecondition, "REQUEST_ID_REUSED", message, None)
    };
    done.answer().ok_or_else(reused)
}

/// Returns the code as the protocol spells it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::InactiveSnapshot;
    use crate::store::snapshots::SnapshotState;

    #[test]
    fn a_missing_snapshot_has_a_reason_and_advice_that_is_right() {
        let check = |serving: ServingStatus, expected: &str, retry: bool| {
            let status = no_snapshot(&serving);
            assert!(status.message().contains(expected), "{status:?}");
            assert_eq!(status.get_details_retry_info().is_some(), retry, "{status:?}");
        };
        let away = ServingStatus::default();
        let there = ServingStatus {
            database_available: true,
            ..away.clone()
        };
        let loading = ServingStatus {
            loading: Some(1),
            ..there.clone()
        };
        let damaged = ServingStatus {
            load_error: Some("snapshot 1 is damaged".to_owned()),
            ..there.clone()
        };
        check(away, "the database is not available", true);
        let with = |version, state| ServingStatus {
            inactive: Some(InactiveSnapshot {
                version,
                state,
                is_empty: version == 2,
            }),
            ..there.clone()
        };
        let empty = with(2, SnapshotState::Rejected);
        let rejected = with(3, SnapshotState::Rejected);
        let candidate = with(4, SnapshotState::Candidate);
        let failed = with(5, SnapshotState::Failed);
        check(there, "no snapshot is active yet; run `likemind train`", false);
        check(
            rejected.clone(),
            "`likemind snapshots activate 3 --reason REASON`",
            false,
        );
        check(rejected, "the gate rejected snapshot 3", false);
        check(
            empty,
            "import ratings or purchases and run `likemind train` again, or activate it",
            false,
        );
        check(candidate, "`likemind snapshots activate 4`", false);
        check(failed, "`likemind snapshots show 5` says why", false);
        check(loading, "is being loaded", true);
        check(damaged, "cannot be served", false);
    }

    #[test]
    fn the_fields_of_a_status_fit_into_a_header() {
        let check = |given: usize, named: usize| {
            let field = |position| InvalidField::new(format!("item_ids[{position:05}]"), "EMPTY", "m".repeat(105));
            let status = invalid_argument((0..given).map(field).collect());
            let bad = status.get_details_bad_request().unwrap();
            assert_eq!(bad.field_violations.len(), named, "{given}");
            assert!(status.details().len() < 6_000);
            status.message().to_owned()
        };
        check(1, 1);
        check(30, 30);
        assert!(check(10_000, 34).starts_with("10000 fields are invalid"));
    }
}
