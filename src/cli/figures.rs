//! Figures as people read them.

use std::fmt::{self, Display, Formatter};

/// A number for a format with a precision, such as `{:+.4}`, that is shown without the sign of a zero: what is rounded to
/// zero from below would else be `-0.0000`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figure(pub f64);

impl Display for Figure {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self(value) = *self;
        let is_zero = match formatter.precision() {
            Some(decimals) => format!("{:.decimals$}", value.abs())
                .bytes()
                .all(|byte| b"0.".contains(&byte)),
            None => value == 0.0,
        };
        Display::fmt(if is_zero { &0.0 } else { &value }, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_no_sign() {
        let check = |value: f64, expected: [&str; 4]| {
            let figure = Figure(value);
            let found = [
                format!("{figure:.4}"),
                format!("{figure:+.4}"),
                format!("{figure:>+8.3}"),
                format!("{figure}"),
            ];
            assert_eq!(found, expected, "{value}");
        };
        check(-0.0, ["0.0000", "+0.0000", "  +0.000", "0"]);
        check(0.0, ["0.0000", "+0.0000", "  +0.000", "0"]);
        check(-0.000_04, ["0.0000", "+0.0000", "  +0.000", "-0.00004"]);
        check(-0.000_06, ["-0.0001", "-0.0001", "  +0.000", "-0.00006"]);
        check(-1.5, ["-1.5000", "-1.5000", "  -1.500", "-1.5"]);
        check(f64::NAN, ["NaN", "NaN", "     NaN", "NaN"]);
        check(f64::NEG_INFINITY, ["-inf", "-inf", "    -inf", "-inf"]);
    }
}
