//! Reads numbers as files write them: with a decimal point or comma, thousands separators and currency signs.

use std::borrow::Cow;
use std::str::FromStr;

use domain::decimal::Decimal;
use domain::error::InvalidField;
use domain::money::Currency;
use tabular::option_names::OptionNames;

/// How the numbers of a file are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NumberFormat {
    /// `None`: a point, and a comma between thousands only where it can be nothing else.
    pub decimal: Option<DecimalSign>,
    /// Whether an amount with more decimals than its currency has is rounded, halves away from zero, instead of rejected.
    pub rounds: bool,
    /// How messages name these options.
    pub names: OptionNames,
}

/// The sign before the decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalSign {
    Point,
    Comma,
}

impl DecimalSign {
    /// Parses `,` or `.`, or their names.
    ///
    /// # Errors
    /// Says how the text must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "," | "comma" => Ok(Self::Comma),
            "." | "point" => Ok(Self::Point),
            _ => Err("must be , or .".to_owned()),
        }
    }
}

impl NumberFormat {
    /// # Errors
    /// `INVALID_NUMBER`, naming `field`.
    pub fn decimal(&self, field: &str, text: &str) -> Result<Decimal, InvalidField> {
        if self.decimal != Some(DecimalSign::Comma)
            && let Ok(number) = Decimal::parse(field, text)
        {
            return Ok(number);
        }
        let plain = self.plain(text);
        let number = plain.as_deref().and_then(|plain| Decimal::parse(field, plain).ok());
        number.ok_or_else(|| self.invalid(field, text))
    }

    /// Reads an amount of money, which may name its currency: `US $9.99`, `9,99 zł`, `EUR 9.99`. Returns the number, and the
    /// currency where the name belongs to one alone.
    ///
    /// # Errors
    /// `INVALID_NUMBER`, naming `field`.
    pub fn amount(&self, field: &str, text: &str) -> Result<(Decimal, Option<Currency>), InvalidField> {
        if self.decimal != Some(DecimalSign::Comma)
            && let Ok(number) = Decimal::parse(field, text)
        {
            return Ok((number, None));
        }
        let invalid = || self.invalid(field, text);
        let (unnamed, name) = without_currency_name(text).ok_or_else(invalid)?;
        let currency = if text.contains('€') { Some("EUR") } else { name };
        let currency = currency.and_then(|code| Currency::new(code).ok());
        let number = self.decimal(field, &unnamed).map_err(|_| invalid())?;
        Ok((number, currency))
    }

    /// Reads a number in binary floating point.
    ///
    /// # Errors
    /// `INVALID_NUMBER`, naming `field`.
    pub fn float<F: FromStr>(&self, field: &str, text: &str) -> Result<F, InvalidField> {
        if self.decimal != Some(DecimalSign::Comma)
            && let Ok(number) = text.parse()
        {
            return Ok(number);
        }
        let number = self.plain(text).and_then(|plain| plain.parse().ok());
        number.ok_or_else(|| self.invalid(field, text))
    }

    fn invalid(&self, field: &str, text: &str) -> InvalidField {
        let hint = match (self.decimal, text.contains(',')) {
            (None | Some(DecimalSign::Point), true) => {
                let [comma, point] = [',', '.'].map(|sign| self.names.with("--decimal", sign));
                match self.decimal {
                    None => format!(
                        "; if its comma stands before the decimals, say {comma}, and if between thousands, {point}"
                    ),
                    Some(_) => format!("; if its comma stands before the decimals, say {comma}"),
                }
            }
            (Some(DecimalSign::Comma), _) if text.contains('.') => {
                "; its point does not stand between thousands".to_owned()
            }
            _ => String::new(),
        };
        let message = format!("must be a number, for example 12.50, is {text:?}{hint}");
        InvalidField::new(field, "INVALID_NUMBER", message)
    }

    /// Returns the number in plain notation: a minus, digits, a point, digits, an exponent.
    fn plain(&self, text: &str) -> Option<String> {
        let (is_negative, unsigned) = without_signs(text)?;
        let (digits, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => unsigned.split_at(at),
            None => (unsigned, ""),
        };
        let sign = match self.decimal {
            Some(DecimalSign::Comma) => ',',
            _ => '.',
        };
        let (whole, fraction) = digits.split_once(sign).unwrap_or((digits, ""));
        let has_fraction = whole.len() < digits.len();
        let groups = ungrouped(whole, sign)?;
        if self.decimal.is_none() && groups.separator == Some(',') && groups.n_separators == 1 && !has_fraction {
            // `1,299` may be 1.299 where decimals follow a comma.
            return None;
        }
        let minus = if is_negative { "-" } else { "" };
        let point = if has_fraction { "." } else { "" };
        Some(format!("{minus}{}{point}{fraction}{exponent}", groups.digits))
    }
}

/// Removes the name of a currency that is written in letters. Returns the rest, and the name if it is the code of a currency.
/// Other letters may change the number, as those of `12K`, so the text is then no amount.
fn without_currency_name(text: &str) -> Option<(Cow<'_, str>, Option<&str>)> {
    /// Before a dollar sign: they tell whose dollar it is.
    const BEFORE_DOLLAR: [&str; 11] = ["US", "A", "AU", "C", "CA", "NZ", "HK", "S", "NT", "MX", "R"];
    const NAMES: [&str; 16] = [
        "zł", "zl", "kr", "Kč", "Ft", "Rs", "R", "lei", "лв", "руб", "р", "Fr", "SFr", "RM", "Rp", "TL",
    ];
    let Some(start) = text.find(char::is_alphabetic) else {
        return Some((Cow::Borrowed(text), None));
    };
    let length = text[start..].find(|c: char| !c.is_alphabetic());
    let end = length.map_or(text.len(), |length| start + length);
    let (name, after) = (&text[start..end], &text[end..]);
    let is_code = name.len() == 3 && name.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_dollar = BEFORE_DOLLAR.contains(&name) && after.trim_start().starts_with('$');
    if !(is_code || is_dollar || NAMES.contains(&name)) || after.contains(char::is_alphabetic) {
        return None;
    }
    // The point of an abbreviation.
    let after = after.strip_prefix('.').unwrap_or(after);
    let rest = Cow::Owned(format!("{}{after}", &text[..start]));
    Some((rest, is_code.then_some(name)))
}

/// Removes a sign and a currency sign at either end. A number in parentheses is negative. Returns whether the number is
/// negative, and the rest.
fn without_signs(text: &str) -> Option<(bool, &str)> {
    let is_blank = |c: char| c.is_whitespace();
    let (mut rest, mut sign, mut has_currency) = (text.trim_matches(is_blank), None, false);
    loop {
        let first = rest.chars().next()?;
        match first {
            '-' | '\u{2212}' if sign.is_none() => sign = Some(true),
            '+' if sign.is_none() => sign = Some(false),
            c if is_currency_sign(c) && !has_currency => has_currency = true,
            _ => break,
        }
        rest = rest[first.len_utf8()..].trim_start_matches(is_blank);
    }
    let in_parentheses = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    if let Some(inner) = in_parentheses {
        let is_plain = sign.is_none() && !inner.contains(['+', '(']);
        return match without_signs(inner)? {
            (false, rest) if is_plain => Some((true, rest)),
            _ => None,
        };
    }
    if let Some(amount) = rest.strip_suffix(is_currency_sign)
        && !has_currency
    {
        rest = amount.trim_end_matches(is_blank);
    }
    // Some programs write the minus behind the number.
    if let Some(amount) = rest.strip_suffix(['-', '\u{2212}'])
        && sign.is_none()
    {
        (rest, sign) = (amount.trim_end_matches(is_blank), Some(true));
    }
    (!rest.is_empty()).then_some((sign.unwrap_or(false), rest))
}

fn is_currency_sign(c: char) -> bool {
    matches!(c, '$' | '¢'..='¥' | '฿' | '\u{20a0}'..='\u{20cf}' | '＄' | '￡' | '￥')
}

/// The digits of a whole number, and what separates its groups.
struct Groups {
    digits: String,
    separator: Option<char>,
    n_separators: usize,
}

/// Removes one kind of separator between groups of digits. The last group must have three digits, those before it two or
/// three, the first one to three. `decimal`: no separator of groups.
fn ungrouped(whole: &str, decimal: char) -> Option<Groups> {
    let is_separator =
        |c: char| c != decimal && matches!(c, ',' | '.' | '\'' | '’' | ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}');
    let separator = whole.chars().find(|c| !c.is_ascii_digit());
    let Some(separator) = separator else {
        return Some(Groups {
            digits: whole.to_owned(),
            separator: None,
            n_separators: 0,
        });
    };
    let groups: Vec<&str> = whole.split(separator).collect();
    let last = groups.len() - 1;
    let fits = |(position, group): (usize, &&str)| match position {
        0 => (1..=3).contains(&group.len()),
        position if position == last => group.len() == 3,
        _ => (2..=3).contains(&group.len()),
    };
    let is_number = groups
        .iter()
        .all(|group| group.bytes().all(|byte| byte.is_ascii_digit()));
    (is_separator(separator) && is_number && groups.iter().enumerate().all(fits)).then(|| Groups {
        digits: groups.concat(),
        separator: Some(separator),
        n_separators: last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Option<DecimalSign> = None;
    const POINT: Option<DecimalSign> = Some(DecimalSign::Point);
    const COMMA: Option<DecimalSign> = Some(DecimalSign::Comma);

    fn check(decimal: Option<DecimalSign>, text: &str, want: Option<i64>) {
        let format = NumberFormat {
            decimal,
            ..NumberFormat::default()
        };
        let got = format.decimal("price", text);
        assert_eq!(
            got.ok().and_then(|number| number.scaled(3)),
            want,
            "{decimal:?} {text:?}"
        );
    }

    #[test]
    fn numbers_are_read_as_files_write_them() {
        for (text, want) in [
            ("9.99", 9_990),
            ("€9.99", 9_990),
            ("9.99 €", 9_990),
            ("-£1,299.00", -1_299_000),
            ("($4.50)", -4_500),
            ("$(4.50)", -4_500),
            ("4.50-", -4_500),
            ("4.50- €", -4_500),
            ("$-5", -5_000),
            ("\u{2212}5", -5_000),
            ("1,299.00", 1_299_000),
            ("1,234,567", 1_234_567_000),
            ("1'299.00", 1_299_000),
            ("1\u{202f}299", 1_299_000),
            ("1,00,000.00", 100_000_000),
            ("4.44e-16", 0),
            ("1e3", 1_000_000),
        ] {
            check(DEFAULT, text, Some(want));
            check(POINT, text, Some(want));
        }
        for (text, want) in [
            ("9,99", 9_990),
            ("1.299,00", 1_299_000),
            ("1.234", 1_234_000),
            ("1.234.567,5", 1_234_567_500),
            ("1 299,00 €", 1_299_000),
            ("€ 9,9", 9_900),
            ("12", 12_000),
            ("-,5", -500),
        ] {
            check(COMMA, text, Some(want));
        }
    }

    #[test]
    fn numbers_that_may_mean_another_are_refused() {
        for text in [
            "9,99",
            "1,299",
            "1.299,00",
            "1,29,9",
            "1,2345.00",
            "12 34",
            "$",
            "",
            "5 EUR x",
            "--5",
            "(-5)",
            "((5))",
            "-5-",
            "5)",
            "$5$",
            "1,",
        ] {
            check(DEFAULT, text, None);
        }
        check(POINT, "1,299", Some(1_299_000));
        for text in ["9.99", "1,299.00", "1.23,4.5", "1,2,3", ".5"] {
            check(COMMA, text, None);
        }
        let error = NumberFormat::default().decimal("price", "9,99").unwrap_err();
        assert_eq!((error.field.as_str(), error.reason), ("price", "INVALID_NUMBER"));
        assert!(error.message.contains("--decimal ,"), "{}", error.message);
    }

    #[test]
    fn amounts_may_name_their_currency() {
        let check = |decimal, text: &str, want: Option<(i64, Option<&str>)>| {
            let format = NumberFormat {
                decimal,
                ..NumberFormat::default()
            };
            let got = format.amount("price", text).ok();
            let got = got.map(|(number, currency)| (number.scaled(2).unwrap(), currency));
            let want = want.map(|(cents, code)| (cents, code.map(|code| Currency::new(code).unwrap())));
            assert_eq!(got, want, "{text}");
        };
        check(DEFAULT, "9.98", Some((998, None)));
        check(DEFAULT, "US $1,025.00", Some((102_500, None)));
        check(DEFAULT, "-R$5.00", Some((-500, None)));
        check(DEFAULT, "Rs.100", Some((10_000, None)));
        check(DEFAULT, "(USD 4.50)", Some((-450, Some("USD"))));
        check(DEFAULT, "€4.50", Some((450, Some("EUR"))));
        check(COMMA, "9,98 zł", Some((998, None)));
        check(COMMA, "PLN 9,98", Some((998, Some("PLN"))));
        check(COMMA, "kr. 1.299,00", Some((129_900, None)));
        check(COMMA, "9,98 kr.", Some((998, None)));
        for text in ["12K", "5 Mio", "12 kg", "US 5", "5 USD x", "EUR", "12 %", "USD 5 EUR"] {
            check(DEFAULT, text, None);
        }
    }

    #[test]
    fn floats_are_read_alike() {
        let comma = NumberFormat {
            decimal: COMMA,
            ..NumberFormat::default()
        };
        assert_eq!(comma.float("value", "4,5"), Ok(4.5));
        assert_eq!(NumberFormat::default().float("value", "4.5"), Ok(4.5));
        assert_eq!(
            NumberFormat::default().float::<f32>("value", "4,5").unwrap_err().reason,
            "INVALID_NUMBER"
        );
    }
}
