//! Formats a gRPC status for people.

use std::error::Error;

use tonic::Status;
use tonic_types::{ErrorDetail, StatusExt};

use crate::grpc::status::{REQUEST_ID, code_name};
use domain::error::chain;

/// Formats code and message, then one line for each detail, and the cause of a status that no server sent.
pub(super) fn render(status: &Status) -> String {
    let code = code_name(status.code());
    let mut lines = vec![match status.message() {
        "" => code.to_owned(),
        message => format!("{code}: {message}"),
    }];
    for detail in status.get_error_details_vec() {
        match detail {
            ErrorDetail::BadRequest(bad) => {
                let field = |violation: &tonic_types::FieldViolation| {
                    format!("field {}: {}", violation.field, violation.description)
                };
                lines.extend(bad.field_violations.iter().map(field));
            }
            ErrorDetail::ErrorInfo(info) => {
                lines.push(format!("reason: {} ({})", info.reason, info.domain));
                let mut metadata: Vec<_> = info.metadata.into_iter().collect();
                metadata.sort();
                lines.extend(metadata.into_iter().map(|(key, value)| format!("{key}: {value}")));
            }
            ErrorDetail::RetryInfo(retry) => {
                lines.extend(retry.retry_delay.map(|delay| format!("retry after: {delay:?}")));
            }
            other => lines.push(format!("{other:?}")),
        }
    }
    if let Some(cause) = status.source() {
        lines.push(format!("cause: {}", chain(cause)));
    }
    if let Some(id) = status.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
        lines.push(format!("request id: {id}"));
    }
    lines.join("\n  ") + "\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn details_are_readable() {
        let check = |status: Status, expected: &str| assert_eq!(render(&status), expected);
        check(Status::unimplemented(""), "UNIMPLEMENTED\n");

        let mut details = ErrorDetails::with_error_info("LIMIT_OUT_OF_RANGE", "likemind", []);
        details.set_bad_request(vec![
            FieldViolation::new("limit", "must be 1 or more"),
            FieldViolation::new("filter.price", "must be given"),
        ]);
        let mut invalid = Status::with_error_details(Code::InvalidArgument, "2 fields are invalid", details);
        invalid.metadata_mut().insert(REQUEST_ID, "abc-1".parse().unwrap());
        check(
            invalid,
            "INVALID_ARGUMENT: 2 fields are invalid\n  \
               reason: LIMIT_OUT_OF_RANGE (likemind)\n  \
               field limit: must be 1 or more\n  \
               field filter.price: must be given\n  \
               request id: abc-1\n",
        );

        let mut details =
            ErrorDetails::with_error_info("OVERLOADED", "likemind", [("limit".to_owned(), "1024".to_owned())]);
        details.set_retry_info(Some(Duration::from_millis(100)));
        let overloaded = Status::with_error_details(Code::ResourceExhausted, "try again", details);
        let expected = "RESOURCE_EXHAUSTED: try again\n  retry after: 100ms\n  \
                        reason: OVERLOADED (likemind)\n  limit: 1024\n";
        check(overloaded, expected);
    }
}
