//! The error of values that come from outside, and the text of an error with its causes.

/// A value that cannot be accepted, with its field, a stable reason and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// The path of the field in the caller's message, for example `rated_at` or `line_total.currency_code`.
    pub field: String,
    /// A stable code in upper snake case, for example `RATING_OUT_OF_RANGE`.
    pub reason: &'static str,
    /// The text for people: what would be right and what was given, without the field's name.
    pub message: String,
}

impl InvalidField {
    pub fn new(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason,
            message: message.into(),
        }
    }

    /// Returns the same error with `outer` before the field's path: `price` becomes `items[3].price`.
    pub fn within(mut self, outer: impl std::fmt::Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// Returns the texts of an error and of its causes in one line, separated by colons. A cause is left out where the error
/// above it has ended with the same text, as the errors of some libraries do.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
