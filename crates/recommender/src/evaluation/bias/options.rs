//! The configuration of the bias report.

use domain::error::InvalidField;

/// Section `bias` of the configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiasOptions {
    /// The user attributes whose groups are compared. Attributes with many values, such as a postal code, compare little: most
    /// of their groups are too small to be shown.
    #[serde(deserialize_with = "domain::text_list::deserialize")]
    pub attributes: Vec<String>,
    /// The least users of a group that is shown. At least 2: a group of one is a person.
    pub min_group: u64,
}

impl Default for BiasOptions {
    fn default() -> Self {
        Self {
            attributes: Vec::new(),
            min_group: 20,
        }
    }
}

impl BiasOptions {
    /// The most attributes that are compared.
    const MAX_ATTRIBUTES: usize = 20;

    /// Checks the values.
    ///
    /// # Errors
    /// `OUT_OF_RANGE`, `REPEATED_ATTRIBUTE` or what is wrong with a name, naming the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let out_of_range = |key: &str, message: String| Err(InvalidField::new(key, "OUT_OF_RANGE", message));
        if self.min_group < 2 {
            return out_of_range("bias.min_group", format!("must be 2 or more, is {}", self.min_group));
        }
        if self.attributes.len() > Self::MAX_ATTRIBUTES {
            let message = format!(
                "must have at most {} names, has {}",
                Self::MAX_ATTRIBUTES,
                self.attributes.len()
            );
            return out_of_range("bias.attributes", message);
        }
        for (position, name) in self.attributes.iter().enumerate() {
            if self.attributes[..position].contains(name) {
                let message = format!("must name each attribute once, names {name} twice");
                return Err(InvalidField::new("bias.attributes", "REPEATED_ATTRIBUTE", message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_one_and_repeated_attributes_are_refused() {
        let check = |attributes: &[&str], min_group, field: Option<&str>| {
            let options = BiasOptions {
                attributes: attributes.iter().map(|&name| name.to_owned()).collect(),
                min_group,
            };
            assert_eq!(options.validate().err().map(|error| error.field).as_deref(), field);
        };
        check(&[], 20, None);
        check(&["age", "income"], 2, None);
        check(&[], 1, Some("bias.min_group"));
        check(&["age", "age"], 20, Some("bias.attributes"));
        let many: Vec<String> = (0..21).map(|n| n.to_string()).collect();
        check(
            &many.iter().map(String::as_str).collect::<Vec<_>>(),
            20,
            Some("bias.attributes"),
        );
    }
}
