//! The one error of values that come from outside, and errors in one line.

/// A value that cannot be accepted: which field, a stable reason, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// As the caller named it, for example `rated_at` or `line_total.currency_code`.
    pub field: String,
    /// Upper snake case, stable, for example `RATING_OUT_OF_RANGE`.
    pub reason: &'static str,
    /// For people: what is wrong and what would be right.
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

    /// The same problem, seen from the message that holds the field: `price` becomes `items[3].price`.
    pub fn within(mut self, outer: impl std::fmt::Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// An error with what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
