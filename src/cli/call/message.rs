//! Converts between JSON and messages. Source: protobuf.dev, "ProtoJSON Format".

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::{Value, json};

/// Prints for people: names as in the .proto files, numbers as numbers, and fields with default values, unless the message
/// can tell that the field is absent.
const OUTPUT: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .stringify_64_bit_integers(false)
    .skip_default_fields(false);

#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("the request is not JSON")]
    NotJson(#[from] serde_json::Error),
    #[error("{method} takes one request, but {given} were given")]
    NotOne { method: String, given: usize },
    #[error("{path} is not a field of {message}, which has {}", known.join(", "))]
    UnknownField {
        path: String,
        message: String,
        known: Vec<String>,
    },
    #[error("{path}: {problem}")]
    Invalid { path: String, problem: String },
}

/// Reads the requests in `text`, which are JSON documents one after the other. A method that takes a stream accepts any
/// number, also as one array. Every other method takes one, and no document at all is an empty request.
pub(super) fn requests(method: &MethodDescriptor, text: &str) -> Result<Vec<DynamicMessage>, RequestError> {
    let documents: Vec<Value> = serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<_, _>>()?;
    let input = method.input();
    if method.is_client_streaming() {
        let requests = documents.into_iter().flat_map(|document| match document {
            Value::Array(requests) => requests,
            request => vec![request],
        });
        let message = |(position, request)| message(&input, &request, &format!("request {position}"));
        return requests.enumerate().map(message).collect();
    }
    match documents.as_slice() {
        [] => Ok(vec![DynamicMessage::new(input)]),
        [request] => Ok(vec![message(&input, request, "request")?]),
        several => Err(RequestError::NotOne {
            method: method.name().to_owned(),
            given: several.len(),
        }),
    }
}

pub(super) fn to_pretty(message: &DynamicMessage) -> serde_json::Result<String> {
    to_text(message, serde_json::ser::PrettyFormatter::new())
}

pub(super) fn to_line(message: &DynamicMessage) -> serde_json::Result<String> {
    to_text(message, serde_json::ser::CompactFormatter)
}

pub(super) fn to_value(message: &DynamicMessage) -> serde_json::Result<Value> {
    message.serialize_with_options(serde_json::value::Serializer, &OUTPUT)
}

/// Serializes without a [`Value`] in between, which would turn 4.1f32 into 4.099999904632568.
fn to_text(message: &DynamicMessage, formatter: impl serde_json::ser::Formatter) -> serde_json::Result<String> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    message.serialize_with_options(&mut serializer, &OUTPUT)?;
    Ok(String::from_utf8(text).unwrap_or_else(|_| unreachable!("serde_json writes UTF-8")))
}

/// Reads a message. `whole`: the name of the message as a whole in an error.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    value: &Value,
    whole: &str,
) -> Result<DynamicMessage, RequestError> {
    DynamicMessage::deserialize(descriptor.clone(), value).map_err(|error| {
        problem(descriptor, value, "").unwrap_or_else(|| RequestError::Invalid {
            path: whole.to_owned(),
            problem: error.to_string(),
        })
    })
}

/// Finds the field of `value` that cannot be read. `path` is the path of `value`. The library's errors do not name it.
fn problem(descriptor: &MessageDescriptor, value: &Value, path: &str) -> Option<RequestError> {
    value.as_object()?.iter().find_map(|(name, value)| {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let by_name = || descriptor.get_field_by_name(name);
        let Some(field) = descriptor.get_field_by_json_name(name).or_else(by_name) else {
            return Some(RequestError::UnknownField {
                path,
                message: descriptor.name().to_owned(),
                known: descriptor.fields().map(|field| field.name().to_owned()).collect(),
            });
        };
        problem_of_field(&field, value, path)
    })
}

fn problem_of_field(field: &FieldDescriptor, value: &Value, path: String) -> Option<RequestError> {
    let alone =
        |value: &Value| DynamicMessage::deserialize(field.parent_message().clone(), json!({field.name(): value}));
    let error = alone(value).err()?;
    if let (true, Value::Array(elements)) = (field.is_list(), value) {
        let element = |(position, element)| {
            let path = format!("{path}[{position}]");
            alone(&json!([element]))
                .err()
                .map(|error| problem_of_value(field, element, path, &error))
        };
        return elements.iter().enumerate().find_map(element);
    }
    Some(problem_of_value(field, value, path, &error))
}

fn problem_of_value(field: &FieldDescriptor, value: &Value, path: String, error: &serde_json::Error) -> RequestError {
    let kind = field.kind();
    let inner = match &kind {
        Kind::Message(message) if !is_well_known(message) && !field.is_map() => problem(message, value, &path),
        _ => None,
    };
    let hint = match &kind {
        Kind::Enum(values) => {
            let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
            format!("; must be one of {}", names.join(", "))
        }
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
            "; must be RFC 3339, for example \"2011-12-09T12:50:00Z\"".to_owned()
        }
        _ => String::new(),
    };
    inner.unwrap_or_else(|| RequestError::Invalid {
        path,
        problem: format!("{error}{hint}"),
    })
}

/// Returns whether the message has a JSON form of its own.
pub(super) fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::call::methods::Methods;

    fn requests_of(method: &str, text: &str) -> Result<Vec<DynamicMessage>, RequestError> {
        requests(Methods::compiled_in().unwrap().resolve(method).unwrap(), text)
    }

    /// Checks how `text` is read for `method` and printed again.
    fn check(method: &str, text: &str, expected: &str) {
        let read = requests_of(method, text).unwrap();
        let printed: Vec<String> = read.iter().map(|message| to_line(message).unwrap()).collect();
        assert_eq!(printed.join("\n"), expected, "{method} {text}");
    }

    #[test]
    fn both_spellings_of_a_field_are_read_and_defaults_are_shown() {
        let all = r#"{"user_id":"u","item_ids":["i"],"estimator":"ESTIMATOR_BASELINE","basis":"BASIS_UNSPECIFIED","explain":false,"max_explanation_items":0}"#;
        check(
            "PredictRatings",
            r#"{"user_id": "u", "item_ids": ["i"], "estimator": "ESTIMATOR_BASELINE"}"#,
            all,
        );
        check(
            "PredictRatings",
            r#"{"userId": "u", "itemIds": ["i"], "estimator": 3}"#,
            all,
        );
        check("GetSnapshot", "", r#"{"version":0}"#);
    }

    #[test]
    fn an_absent_field_is_shown_only_if_the_message_cannot_tell() {
        check(
            "UpsertItems",
            r#"{"items": [{"item_id": "i", "listed": false}]}"#,
            r#"{"items":[{"item_id":"i","listed":false}]}"#,
        );
        check(
            "ListRatings",
            r#"{"item_id": "i"}"#,
            r#"{"item_id":"i","page_size":0,"page_token":""}"#,
        );
    }

    #[test]
    fn numbers_and_times_keep_their_value() {
        check(
            "GetSnapshot",
            r#"{"version": 9007199254740993}"#,
            r#"{"version":9007199254740993}"#,
        );
        check(
            "GetSnapshot",
            r#"{"version": "9007199254740993"}"#,
            r#"{"version":9007199254740993}"#,
        );
        let rating = r#"{"ratings":[{"user_id":"u","item_id":"i","value":4.1,"rated_at":"2011-12-09T12:50:00.500Z"}]}"#;
        check("UpsertRatings", rating, rating);
        check(
            "UpsertRatings",
            &rating.replace("12:50:00.500Z", "13:50:00.5+01:00"),
            rating,
        );
    }

    #[test]
    fn only_a_stream_takes_several_requests() {
        let (one, two) = (r#"{"ratings":[]}"#, "{\"ratings\":[]}\n{\"ratings\":[]}");
        check("IngestRatings", one, one);
        check("IngestRatings", two, two);
        check("IngestRatings", r#"[{}, {"ratings": []}]"#, two);
        check("IngestRatings", "", "");
        assert!(matches!(
            requests_of("UpsertRatings", two),
            Err(RequestError::NotOne { given: 2, .. })
        ));
    }

    #[test]
    fn an_error_names_the_field() {
        let check = |method: &str, text: &str, expected: &str| {
            let error = format!("{:#}", anyhow::Error::from(requests_of(method, text).unwrap_err()));
            assert!(error.starts_with(expected), "{method} {text}: {error}");
        };
        check(
            "Recommend",
            r#"{"user": "u"}"#,
            "user is not a field of RecommendRequest, which has user_id, session, limit",
        );
        check("Recommend", r#"{"limit": "x"}"#, "limit: ");
        check(
            "Recommend",
            r#"{"filter": {"category": "x"}}"#,
            "filter.category is not a field of ItemFilter, which has categories,",
        );
        check(
            "Recommend",
            r#"{"basis": "ITEM"}"#,
            "basis: unrecognized enum value 'ITEM'; must be one of BASIS_UNSPECIFIED, BASIS_USER_BASED",
        );
        check(
            "Recommend",
            r#"{"session": {"items": [{}, {"rating": "x"}]}}"#,
            "session.items[1].rating: ",
        );
        check(
            "Recommend",
            r#"{"userId": "u", "session": {}}"#,
            "request: multiple fields provided for oneof 'subject'",
        );
        check("Recommend", "[]", "request: invalid type: sequence");
        check("Recommend", "7", "request: invalid type: integer");
        check(
            "PredictRatings",
            r#"{"item_ids": ["a", 7]}"#,
            "item_ids[1]: invalid type: integer `7`, expected a string",
        );
        check(
            "UpsertRatings",
            r#"{"ratings": [{"rated_at": "yesterday"}]}"#,
            "ratings[0].rated_at: ",
        );
        check(
            "UpsertRatings",
            r#"{"ratings": {}}"#,
            "ratings: invalid type: map, expected a list",
        );
        check("IngestRatings", "{} 7", "request 1: invalid type");
        check("GetItem", "{", "the request is not JSON: EOF");
    }
}
