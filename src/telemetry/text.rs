//! The fields of a log line as text. JSON has a field for every fact, and so the message of a line often repeats fields in
//! words; as text the line then says each fact once.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::user_ids::{UserIds, is_user_field, unquoted};

/// Writes the message, and after it the fields that it does not contain, with ids of users in the format asked for.
#[derive(Debug, Clone)]
pub(super) struct EachFactOnce(pub Arc<UserIds>);

impl<'writer> FormatFields<'writer> for EachFactOnce {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line::default();
        fields.record(&mut line);
        if !self.0.is_plain() {
            line.show_users(&self.0);
        }
        writer.write_str(&line.text())
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<Fact>,
}

struct Fact {
    name: &'static str,
    /// As a message would contain it.
    value: String,
    /// As it stands after the name.
    shown: String,
}

impl Line {
    fn add(&mut self, field: &Field, value: String, shown: String) {
        match field.name() {
            "message" => self.message = value,
            // These say where a record of the crate `log` comes from.
            name if name.starts_with("log.") => {}
            name => self.fields.push(Fact {
                name: name.strip_prefix("r#").unwrap_or(name),
                value,
                shown,
            }),
        }
    }

    /// Shows the ids of users in the format of `user_ids`, in their fields and wherever else they stand.
    fn show_users(&mut self, user_ids: &UserIds) {
        let is_user = |fact: &Fact| is_user_field(fact.name);
        let ids: Vec<String> = self
            .fields
            .iter()
            .filter(|fact| is_user(fact))
            .map(|fact| unquoted(&fact.value).to_owned())
            .collect();
        for id in &ids {
            self.message = user_ids.without(&self.message, id);
            for fact in self.fields.iter_mut().filter(|fact| !is_user(fact)) {
                fact.value = user_ids.without(&fact.value, id);
                fact.shown = user_ids.without(&fact.shown, id);
            }
        }
        self.fields.retain_mut(|fact| {
            if !is_user_field(fact.name) {
                return true;
            }
            let shown = user_ids.shown(unquoted(&fact.value));
            fact.value = shown.clone().unwrap_or_default();
            fact.shown = shown.clone().unwrap_or_default();
            shown.is_some()
        });
    }

    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (position, fact) in self.fields.iter().enumerate() {
            // Two fields of one value are two facts: each needs its own place in the message.
            let earlier = self.fields[..position].iter().filter(|other| other.value == fact.value);
            if occurrences(&self.message, &fact.value) > earlier.count() {
                continue;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "{}={}", fact.name, fact.shown);
        }
        text
    }
}

/// Counts where `message` contains `value` as whole words.
fn occurrences(message: &str, value: &str) -> usize {
    if value.is_empty() {
        return 0;
    }
    let is_whole = |at: usize| {
        let (before, after) = (&message[..at], &message[at + value.len()..]);
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    };
    message.match_indices(value).filter(|(at, _)| is_whole(*at)).count()
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned(), format!("{value:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        self.add(field, text.clone(), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_that_the_message_contains_is_not_repeated() {
        let check = |message: &str, fields: &[(&'static str, &str)], expected: &str| {
            let fields = fields.iter().map(|&(name, value)| Fact {
                name,
                value: value.to_owned(),
                shown: value.to_owned(),
            });
            let line = Line {
                message: message.to_owned(),
                fields: fields.collect(),
            };
            assert_eq!(line.text(), expected);
        };
        let address = ("address", "127.0.0.1:50051");
        check(
            "serving on 127.0.0.1:50051",
            &[address, ("tls", "false")],
            "serving on 127.0.0.1:50051 tls=false",
        );
        check(
            "snapshot 12 is active",
            &[("version", "1")],
            "snapshot 12 is active version=1",
        );
        check(
            "snapshot 3 is active",
            &[("version", "3"), ("users", "3")],
            "snapshot 3 is active users=3",
        );
        check(
            "it failed: no such file",
            &[("error", "no such file")],
            "it failed: no such file",
        );
        check("", &[("method", "A"), ("id", "")], "method=A id=");
    }
}
