//! Lists the RPCs and their messages, with the comments of the .proto files.

use std::fmt::Write;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor};
use prost_types::FileDescriptorProto;

use super::message::is_well_known;
use super::methods::{Methods, path};

/// Lists the services, with one line for each method and the fields of its request.
pub(super) fn overview(methods: &Methods) -> String {
    let services: Vec<String> = methods.services().map(|service| service_overview(&service)).collect();
    services.join("\n") + "\nRun `likemind call --list METHOD` to see one in detail.\n"
}

fn service_overview(service: &ServiceDescriptor) -> String {
    let comment = comment(service.parent_file().file_descriptor_proto(), service.path());
    let mut text = match comment.as_str() {
        "" => format!("{}\n", service.full_name()),
        comment => format!("{}: {comment}\n", service.full_name()),
    };
    let width = service.methods().map(|method| method.name().len()).max().unwrap_or(0);
    for method in service.methods() {
        let stream = if method.is_client_streaming() { "stream of " } else { "" };
        let fields = fields_in_short(&method.input());
        let line = format!("  {:width$}  {stream}{fields}", method.name());
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// Returns the fields as `user_id | session, limit, filter`. Repeated fields have `[]`; `|` separates alternatives.
fn fields_in_short(message: &MessageDescriptor) -> String {
    let mut text = String::new();
    let mut before: Option<FieldDescriptor> = None;
    for field in message.fields() {
        let is_alternative = before
            .as_ref()
            .is_some_and(|before| alternatives(before).iter().any(|other| other == field.name()));
        text += match before {
            None => "",
            Some(_) if is_alternative => " | ",
            Some(_) => ", ",
        };
        text += field.name();
        text += if field.is_list() { "[]" } else { "" };
        before = Some(field);
    }
    text
}

/// Shows the method's comment and all fields, nested ones too, of its request and its answer.
pub(super) fn details(method: &MethodDescriptor) -> String {
    let mut text = path(method) + "\n";
    let comment = comment(
        method.parent_service().parent_file().file_descriptor_proto(),
        method.path(),
    );
    if !comment.is_empty() {
        text += &format!("{comment}\n");
    }
    for (role, is_stream, message) in [
        ("Request", method.is_client_streaming(), method.input()),
        ("Answer", method.is_server_streaming(), method.output()),
    ] {
        let stream = if is_stream { "stream of " } else { "" };
        let mut rows = Vec::new();
        add_rows(&mut rows, &message, &mut Vec::new());
        text += &format!("\n{role}: {stream}{}\n", message.name());
        text += &table(&rows);
    }
    text
}

struct Row {
    name: String,
    type_name: String,
    comment: String,
}

fn table(rows: &[Row]) -> String {
    let names = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let types = rows.iter().map(|row| row.type_name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let line = format!("  {:names$}  {:types$}  {}", row.name, row.type_name, row.comment);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `above`: the messages around `message`, since a message may contain itself.
fn add_rows(rows: &mut Vec<Row>, message: &MessageDescriptor, above: &mut Vec<String>) {
    above.push(message.full_name().to_owned());
    for field in message.fields() {
        let kind = field.kind();
        let others = alternatives(&field);
        let mut notes = Vec::new();
        if !others.is_empty() {
            notes.push(format!("Instead of {}.", others.join(" or ")));
        }
        if let Kind::Enum(values) = &kind {
            let names: Vec<String> = values.values().skip(1).map(|value| value.name().to_owned()).collect();
            notes.push(format!("{}.", names.join(", ")));
        }
        let comment = comment(message.parent_file_descriptor_proto(), field.path());
        if !comment.is_empty() {
            notes.push(comment);
        }
        rows.push(Row {
            name: format!("{}{}", "  ".repeat(above.len() - 1), field.name()),
            type_name: format!("{}{}", type_name(&kind), if field.is_list() { "[]" } else { "" }),
            comment: notes.join(" "),
        });
        if let Kind::Message(inner) = &kind
            && !is_well_known(inner)
            && !above.iter().any(|name| name == inner.full_name())
        {
            add_rows(rows, inner, above);
        }
    }
    above.pop();
}

fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(values) => values.name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

/// Returns the other fields of the same oneof.
fn alternatives(field: &FieldDescriptor) -> Vec<String> {
    let Some(oneof) = field.containing_oneof() else {
        return Vec::new();
    };
    let others = oneof.fields().filter(|other| other.number() != field.number());
    others.map(|other| other.name().to_owned()).collect()
}

/// Returns the comment above the element at `path` in the .proto file, in one line.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comment = locations
        .filter(|location| location.path == path)
        .find_map(|location| location.leading_comments.as_deref());
    comment
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_listed_with_its_fields() {
        let methods = Methods::compiled_in().unwrap();
        let text = overview(&methods);
        for line in [
            "likemind.v1.RatingService: Keeps explicit ratings.",
            "  Recommend         user_id | session, limit, basis, filter, exclude_purchased, exclude_history, explain, \
             max_explanation_items, diversity, popularity_penalty, max_per_merchant, max_per_category, calibrate\n",
            "  IngestRatings  stream of ratings[]\n",
            "  GetServingStatus\n",
            "grpc.health.v1.Health",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn details_go_down_to_the_last_field() {
        let methods = Methods::compiled_in().unwrap();
        let text = details(methods.resolve("Recommend").unwrap());
        let fields: Vec<&str> = text
            .lines()
            .map(|line| line.split("  ").find(|part| !part.is_empty()).unwrap_or(""))
            .collect();
        assert_eq!(
            &fields[..9],
            [
                "likemind.v1.RecommendationService/Recommend",
                "Ranks the items to show to a user or to an anonymous session.",
                "",
                "Request: RecommendRequest",
                "user_id",
                "session",
                "items",
                "item_id",
                "rating",
            ],
            "{text}"
        );
        for part in [
            "Instead of session.",
            "1 to 1,000; 0 means 10.",
            "BASIS_BLENDED",
            "Answer: RecommendResponse",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
