//! Assertions about the answers of RPCs.

use likemind::grpc::proto::v1::{EntryOutcome, EntryResult};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Asserts what became of each entry: the outcome, or the field and reason of the error.
#[track_caller]
pub fn assert_outcomes(results: &[EntryResult], expected: &[Result<EntryOutcome, (&str, &str)>]) {
    let found: Vec<Result<EntryOutcome, (&str, &str)>> = results
        .iter()
        .map(|result| match &result.error {
            None => Ok(result.outcome()),
            Some(error) => {
                assert_eq!(result.outcome(), EntryOutcome::Rejected);
                assert_nothing_internal(&error.message);
                Err((error.field.as_str(), error.reason.as_str()))
            }
        })
        .collect();
    assert_eq!(found, expected);
}

/// Asserts that `status` has this code and reason, and says nothing of how the server is built.
#[track_caller]
pub fn assert_status(status: &Status, code: Code, reason: &str) {
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason, "likemind"),
        "{status:?}"
    );
    assert_nothing_internal(status.message());
}

/// Asserts that `status` is INVALID_ARGUMENT and names `fields` and no other field, in any order.
#[track_caller]
pub fn assert_invalid(status: &Status, reason: &str, fields: &[&str]) {
    assert_status(status, Code::InvalidArgument, reason);
    let bad = status.get_details_bad_request();
    let violations = bad
        .unwrap_or_else(|| panic!("no BadRequest: {status:?}"))
        .field_violations;
    let mut found: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    found.sort_unstable();
    let mut expected = fields.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected, "{status:?}");
    for violation in &violations {
        assert!(!violation.description.is_empty(), "{status:?}");
        assert_nothing_internal(&violation.description);
    }
}

/// Asserts that `text` says nothing of how the server is built.
#[track_caller]
pub fn assert_nothing_internal(text: &str) {
    let text = text.to_lowercase();
    let internals = [
        "sqlx",
        "select ",
        "insert ",
        "update ",
        "postgres",
        "relation",
        "constraint",
        "for encoding",
        "panicked",
        "backtrace",
        ".rs",
        "/src",
        "/root",
        "/home",
        "/tmp",
        "src/",
        "tokio",
        "h2 ",
        "hyper",
    ];
    for internal in internals {
        assert!(!text.contains(internal), "{text:?} reveals {internal:?}");
    }
}

/// Lists all pages; returns their rows and the number of pages.
///
/// `page`: returns the rows and the next page token for a page token.
pub async fn all_pages<T, F>(mut page: impl FnMut(String) -> F) -> (Vec<T>, usize)
where
    F: Future<Output = (Vec<T>, String)>,
{
    let (mut rows, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let (more, next) = page(token).await;
        rows.extend(more);
        pages += 1;
        assert!(pages <= 10_000, "the pages do not end");
        if next.is_empty() {
            return (rows, pages);
        }
        token = next;
    }
}

/// Returns everything by which a caller can distinguish refusals: code, message and reason, with `id` taken out of the
/// message.
pub fn distinguishable(status: &Status, id: &str) -> (Code, String, Option<String>) {
    let reason = status.get_details_error_info().map(|info| info.reason);
    (status.code(), status.message().replace(id, "ID"), reason)
}
