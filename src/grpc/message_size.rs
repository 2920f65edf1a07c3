//! Keeps answers below the size that clients accept.

use tonic::Status;

use super::status::invalid_argument;
use domain::error::InvalidField;

/// Most bytes of an answer: the limit of clients that have not raised it.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// # Errors
/// INVALID_ARGUMENT with `ANSWER_TOO_LARGE` for an answer of more than [`MAX_ANSWER_BYTES`]; it names `field`, which decides
/// how many rows the answer has.
pub fn check(answer_bytes: usize, field: &str) -> Result<(), Status> {
    if answer_bytes <= MAX_ANSWER_BYTES {
        return Ok(());
    }
    let message = format!(
        "asks for an answer of {answer_bytes} bytes, more than the {MAX_ANSWER_BYTES} (4 MiB) that clients accept; must be \
         smaller, or max_explanation_items must be"
    );
    Err(invalid_argument(vec![InvalidField::new(
        field,
        "ANSWER_TOO_LARGE",
        message,
    )]))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_an_answer_above_the_limit_is_refused_and_the_limit_is_named() {
        assert!(check(MAX_ANSWER_BYTES, "limit").is_ok());
        let refusal = check(MAX_ANSWER_BYTES + 1, "limit").unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(
            refusal.message().contains("limit") && refusal.message().contains("4194304"),
            "{refusal:?}"
        );
    }
}
