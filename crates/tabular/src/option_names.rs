//! Names the options of a file in messages.

use std::fmt::Display;

/// How the options were given, so that messages name them as whoever gave them does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OptionNames {
    /// As the arguments of a command, such as `--no-header`.
    #[default]
    Arguments,
    /// As the fields of a request, such as `options.no_header`.
    Fields,
}

impl OptionNames {
    /// Returns the name of the option whose argument is `argument`.
    pub fn name(self, argument: &str) -> String {
        match self {
            Self::Arguments => argument.to_owned(),
            Self::Fields => format!("options.{}", argument.trim_start_matches('-').replace('-', "_")),
        }
    }

    /// Returns the option with a value, as somebody would write it.
    pub fn with(self, argument: &str, value: impl Display) -> String {
        match self {
            Self::Arguments => format!("{argument} {value}"),
            Self::Fields => format!("{} = \"{value}\"", self.name(argument)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_named_as_they_are_given() {
        let check = |names: OptionNames, name: &str, with: &str| {
            assert_eq!(names.name("--max-reject-share"), name);
            assert_eq!(names.with("--encoding", "latin1"), with);
        };
        check(OptionNames::Arguments, "--max-reject-share", "--encoding latin1");
        check(
            OptionNames::Fields,
            "options.max_reject_share",
            "options.encoding = \"latin1\"",
        );
    }
}
