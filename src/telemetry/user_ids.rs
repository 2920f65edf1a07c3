//! Decides how lines of the log show the ids of users, which stand in the fields `user_id` and `user_ids` and nowhere else.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tracing_subscriber::fmt::MakeWriter;

use super::TelemetryError;
use crate::app::random::random_bytes;

/// How the log shows the ids of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserIdFormat {
    Plain,
    /// The first 16 hexadecimal digits of an HMAC-SHA-256, so that lines about one user can be found together and nobody can find
    /// out who it is by trying ids.
    Hash,
    Omit,
}

/// The shortest key of hashes.
const MIN_KEY_BYTES: usize = 16;

/// Shows ids in one format.
#[derive(Debug)]
pub(super) struct UserIds {
    format: UserIdFormat,
    key: Vec<u8>,
}

impl UserIds {
    /// `key_file`: holds the key of hashes. Without one the key is random, and a user has another hash in every process.
    ///
    /// # Errors
    /// [`TelemetryError::UserIdKey`] when the file cannot be read or is too short.
    pub fn new(format: UserIdFormat, key_file: Option<&Path>) -> Result<Self, TelemetryError> {
        let refused = |file: &Path, source| TelemetryError::UserIdKey {
            file: file.to_owned(),
            source,
        };
        let key = match key_file {
            Some(file) => {
                let key = fs::read(file).map_err(|source| refused(file, source))?;
                if key.trim_ascii().len() < MIN_KEY_BYTES {
                    let message = format!("must hold {MIN_KEY_BYTES} bytes or more");
                    return Err(refused(file, io::Error::new(io::ErrorKind::InvalidData, message)));
                }
                key.trim_ascii().to_vec()
            }
            None => random_bytes::<32>()?.to_vec(),
        };
        Ok(Self { format, key })
    }

    pub fn is_plain(&self) -> bool {
        self.format == UserIdFormat::Plain
    }

    /// Returns what stands in the place of `id`; `None` when the field is left out.
    pub fn shown(&self, id: &str) -> Option<String> {
        match self.format {
            UserIdFormat::Plain => Some(id.to_owned()),
            UserIdFormat::Hash => Some(self.hash(id)),
            UserIdFormat::Omit => None,
        }
    }

    fn hash(&self, id: &str) -> String {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.key)
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        hmac.update(id.as_bytes());
        let code = hmac.finalize().into_bytes();
        code[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns `text` without `id`, as far as it stands there as whole words.
    pub fn without(&self, text: &str, id: &str) -> String {
        let shown = self.shown(id);
        replace_words(text, id, shown.as_deref().unwrap_or("[user]"))
    }
}

/// Returns whether a field of this name holds ids of users.
pub(super) fn is_user_field(name: &str) -> bool {
    matches!(name, "user_id" | "user_ids")
}

/// Replaces `word` where no letter or digit stands beside it.
fn replace_words(text: &str, word: &str, by: &str) -> String {
    if word.is_empty() {
        return text.to_owned();
    }
    let (mut replaced, mut copied) = (String::with_capacity(text.len()), 0);
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        if !text[..at].ends_with(char::is_alphanumeric) && !text[end..].starts_with(char::is_alphanumeric) {
            replaced.push_str(&text[copied..at]);
            replaced.push_str(by);
            copied = end;
        }
    }
    replaced.push_str(&text[copied..]);
    replaced
}

/// Writes lines of JSON to standard error, with ids in the format asked for.
#[derive(Debug, Clone)]
pub(super) struct JsonLines(pub Arc<UserIds>);

impl<'a> MakeWriter<'a> for JsonLines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for JsonLines {
    /// The library writes each line whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = match self.0.is_plain() {
            true => io::stderr().write_all(line),
            false => io::stderr().write_all(&self.0.rewritten(line)),
        };
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl UserIds {
    fn rewritten(&self, line: &[u8]) -> Vec<u8> {
        let Ok(mut value) = serde_json::from_slice::<Value>(line) else {
            return line.to_vec();
        };
        let mut ids = Vec::new();
        self.replace_fields(&mut value, &mut ids);
        if ids.is_empty() {
            return line.to_vec();
        }
        self.replace_in_texts(&mut value, &ids);
        format!("{value}\n").into_bytes()
    }

    /// Replaces the fields that hold ids, at any depth, and adds the ids to `ids`.
    fn replace_fields(&self, value: &mut Value, ids: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().filter(|name| is_user_field(name)).cloned().collect();
                for name in names {
                    let Some(Value::String(id)) = fields.remove(&name) else {
                        continue;
                    };
                    let id = unquoted(&id).to_owned();
                    if let Some(shown) = self.shown(&id) {
                        fields.insert(name, Value::String(shown));
                    }
                    ids.push(id);
                }
                fields.values_mut().for_each(|value| self.replace_fields(value, ids));
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.replace_fields(value, ids)),
            _ => {}
        }
    }

    fn replace_in_texts(&self, value: &mut Value, ids: &[String]) {
        match value {
            Value::String(text) => {
                for id in ids {
                    *text = self.without(text, id);
                }
            }
            Value::Object(fields) => fields.values_mut().for_each(|value| self.replace_in_texts(value, ids)),
            Value::Array(values) => values.iter_mut().for_each(|value| self.replace_in_texts(value, ids)),
            _ => {}
        }
    }
}

/// Removes the quotation marks that `?` puts around a text.
pub(super) fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(format: UserIdFormat) -> UserIds {
        UserIds {
            format,
            key: b"a key of the tests".to_vec(),
        }
    }

    #[test]
    fn a_line_of_json_shows_ids_in_the_format_asked_for() {
        let line = r#"{"level":"INFO","message":"user ann of joanne left","span":{"user_id":"ann","method":"m"},"user_id":"\"bob\""}"#;
        let rewritten = |format| -> Value {
            let bytes = ids(format).rewritten(line.as_bytes());
            serde_json::from_slice(&bytes).unwrap()
        };
        let hashed = rewritten(UserIdFormat::Hash);
        let (ann, bob) = (ids(UserIdFormat::Hash).hash("ann"), ids(UserIdFormat::Hash).hash("bob"));
        assert_eq!(
            (hashed["span"]["user_id"].as_str(), hashed["user_id"].as_str()),
            (Some(&*ann), Some(&*bob))
        );
        assert_eq!(hashed["message"], format!("user {ann} of joanne left"));
        assert_ne!(ann, bob);

        let without = rewritten(UserIdFormat::Omit);
        assert_eq!(without["message"], "user [user] of joanne left");
        assert_eq!(without["span"], serde_json::json!({ "method": "m" }));
        assert!(without.get("user_id").is_none());
        assert_eq!(rewritten(UserIdFormat::Plain)["user_id"], "bob");
    }

    #[test]
    fn a_key_is_read_from_its_file_and_short_ones_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hash = |key: &str| {
            fs::write(file.path(), key).unwrap();
            UserIds::new(UserIdFormat::Hash, Some(file.path())).map(|ids| ids.hash("ann"))
        };
        let first = hash("0123456789abcdef").unwrap();
        assert_eq!(first, hash("0123456789abcdef\n").unwrap());
        assert_ne!(first, hash("0123456789abcdeg").unwrap());
        let error = hash("short").unwrap_err();
        assert!(
            domain::error::chain(&error).contains("must hold 16 bytes or more"),
            "{error:?}"
        );
        assert!(UserIds::new(UserIdFormat::Hash, Some(Path::new("/no/such/file"))).is_err());
        let random = || UserIds::new(UserIdFormat::Hash, None).unwrap().hash("ann");
        assert_ne!(random(), random());
    }
}
