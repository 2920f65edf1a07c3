//! Converts the messages of PrivacyService.

pub mod erasures;
pub mod history;
pub mod suppressions;
pub mod user_data;

use tonic::Status;

use domain::consent::{ConsentDecision, ConsentInForce, PrivacyOptions, Purpose};
use domain::error::InvalidField;
use domain::id::UserId;
use domain::item::check_text;
use domain::time::{EventTime, Timestamp};

use crate::grpc::convert::{event_time, timestamp};
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

use self::user_data::unknown_user;

/// Decisions of one user, at most one for each purpose.
pub struct ConsentStatement {
    pub user: UserId,
    pub decisions: Vec<ConsentDecision>,
}

impl ConsentStatement {
    pub fn new(request: v1::SetConsentRequest, now: Timestamp) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(UserId::new(request.user_id));
        let answers = answers(&mut violations, &request.decisions);
        let decided_at = violations.check(event_time("decided_at", request.decided_at, now));
        let source = violations.check(check_text("source", request.source));
        let statement = user
            .zip(decided_at)
            .zip(source)
            .map(|((user, decided_at), source)| Self::by(user, &answers, decided_at, &source));
        violations.finish(statement)
    }

    fn by(user: UserId, answers: &[(Purpose, bool)], decided_at: EventTime, source: &str) -> Self {
        let decision = |&(purpose, is_granted): &(Purpose, bool)| ConsentDecision {
            user: user.clone(),
            purpose,
            is_granted,
            decided_at,
            source: source.to_owned(),
        };
        Self {
            decisions: answers.iter().map(decision).collect(),
            user,
        }
    }
}

/// Adds what is wrong to `violations`.
fn answers(violations: &mut Violations, decisions: &[v1::ConsentDecision]) -> Vec<(Purpose, bool)> {
    let most = Purpose::ALL.len();
    if decisions.is_empty() || decisions.len() > most {
        let message = format!("must have 1 to {most} entries, has {}", decisions.len());
        violations.add(InvalidField::new("decisions", "BATCH_SIZE_OUT_OF_RANGE", message));
        return Vec::new();
    }
    let mut answers: Vec<(Purpose, bool)> = Vec::with_capacity(decisions.len());
    for (position, decision) in decisions.iter().enumerate() {
        let field = format!("decisions[{position}].purpose");
        match violations.check(purpose(&field, decision.purpose)) {
            Some(purpose) if answers.iter().any(|&(other, _)| other == purpose) => {
                let message = format!("must not repeat a purpose, {purpose} is repeated");
                violations.add(InvalidField::new(field, "DUPLICATE_PURPOSE", message));
            }
            Some(purpose) => answers.push((purpose, decision.granted)),
            None => {}
        }
    }
    answers
}

fn purpose(field: &str, purpose: i32) -> Result<Purpose, InvalidField> {
    match v1::Purpose::try_from(purpose) {
        Ok(v1::Purpose::Marketing) => Ok(Purpose::Marketing),
        Ok(v1::Purpose::Profiling) => Ok(Purpose::Profiling),
        Ok(v1::Purpose::Training) => Ok(Purpose::Training),
        Ok(v1::Purpose::Unspecified) => Err(InvalidField::new(field, "MISSING", "must be given")),
        Err(_) => Err(InvalidField::new(
            field,
            "UNKNOWN_ENUM_VALUE",
            format!("must be a value of its enum, is {purpose}"),
        )),
    }
}

/// # Errors
/// INVALID_ARGUMENT for a bad id.
pub fn user_of(request: v1::GetConsentRequest) -> Result<UserId, Status> {
    let mut violations = Violations::default();
    let user = violations.check(UserId::asked(request.user_id));
    violations.finish(user)
}

/// Returns one consent for each purpose.
///
/// `found`: what is in force; `None` for an unknown user.
///
/// # Errors
/// NOT_FOUND for an unknown user.
pub fn consents(
    user: &UserId,
    found: Option<Vec<ConsentInForce>>,
    privacy: &PrivacyOptions,
) -> Result<Vec<v1::Consent>, Status> {
    let Some(in_force) = found else {
        return Err(unknown_user(user));
    };
    let consent = |purpose: Purpose| {
        let said = in_force.iter().find(|said| said.purpose == purpose);
        v1::Consent {
            purpose: v1::Purpose::from(purpose).into(),
            granted: said.map_or(privacy.without_record(purpose), |said| said.is_granted),
            decided_at: said.map(|said| timestamp(said.decided_at)),
            source: said.map(|said| said.source.clone()).unwrap_or_default(),
        }
    };
    Ok(Purpose::ALL.into_iter().map(consent).collect())
}

impl From<Purpose> for v1::Purpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Marketing => Self::Marketing,
            Purpose::Profiling => Self::Profiling,
            Purpose::Training => Self::Training,
        }
    }
}
