//! Reads a list of texts from a configuration: a list, or one text with commas, as the environment and flags give it.

use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum TextList {
    List(Vec<String>),
    Commas(String),
}

/// Deserializes `["a", "b"]` or `"a, b"`; blanks around an entry are dropped, and an empty text is an empty list.
///
/// # Errors
/// For anything but texts.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match TextList::deserialize(deserializer)? {
        TextList::List(list) => list,
        TextList::Commas(text) if text.trim().is_empty() => Vec::new(),
        TextList::Commas(text) => text.split(',').map(|entry| entry.trim().to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, SeqDeserializer};

    #[test]
    fn a_list_and_a_text_with_commas_are_read_alike() {
        let text = |text: &str| deserialize::<serde::de::value::StrDeserializer<Error>>(text.into_deserializer());
        assert_eq!(text("age, income").unwrap(), ["age", "income"]);
        assert_eq!(text("age").unwrap(), ["age"]);
        assert!(text(" ").unwrap().is_empty());
        let list = SeqDeserializer::<_, Error>::new(["age, old", "income"].into_iter());
        assert_eq!(deserialize(list).unwrap(), ["age, old", "income"]);
    }
}
