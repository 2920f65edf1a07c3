//! Decimal numbers as people and files write them, without binary fractions.

use super::error::InvalidField;

/// An exact decimal number: `digits` · 10^-`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    /// The most digits of a number. With more, [`times`](Self::times) could overflow.
    const MAX_DIGITS: usize = 27;
    const MAX: i128 = 10i128.pow(Self::MAX_DIGITS as u32) - 1;

    /// Parses an optional sign, digits, an optional point with more digits, and an optional exponent: `2.55`, `-3`, `.5`,
    /// `4.44e-16`.
    ///
    /// It accepts no thousands separator and no currency sign: their meaning depends on where the file comes from.
    ///
    /// # Errors
    /// `INVALID_NUMBER`, naming `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        Self::read(text).ok_or_else(|| {
            let message = format!(
                "must be a decimal number of at most {} digits, for example 12.50, is {text:?}",
                Self::MAX_DIGITS
            );
            InvalidField::new(field, "INVALID_NUMBER", message)
        })
    }

    fn read(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (unsigned, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let length = whole.len() + fraction.len();
        if length == 0 || length > Self::MAX_DIGITS {
            return None;
        }
        let mut digits = 0i128;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return None;
            }
            digits = digits * 10 + i128::from(byte - b'0');
        }
        let mut scale = fraction.len() as i32 - exponent;
        while scale < 0 {
            digits *= 10;
            scale += 1;
            if digits > Self::MAX {
                return None;
            }
        }
        Some(Self {
            digits: if negative { -digits } else { digits },
            scale: scale as u32,
        })
    }

    /// Returns whether the number has at most `places` decimals. What is left of a computation in binary, such as
    /// `0.30000000000000004` or `4.44e-16`, does not count: less than a millionth of the last place.
    pub fn has_decimals_within(self, places: u32) -> bool {
        let Some(excess) = self.scale.checked_sub(places).filter(|excess| *excess > 0) else {
            return true;
        };
        match 10i128.checked_pow(excess) {
            Some(unit) => {
                let rest = self.digits.rem_euclid(unit);
                rest.min(unit - rest) <= unit / 1_000_000
            }
            // The digits are far fewer than those of the unit.
            None => (self.digits as f64).abs() * 1e6 <= 10f64.powi(excess as i32),
        }
    }

    /// Returns `self` · `factor`, exactly.
    pub fn times(self, factor: i32) -> Self {
        Self {
            // The product is at most 10^27 · 2^31, which is below 2^127.
            digits: self.digits * i128::from(factor),
            scale: self.scale,
        }
    }

    /// Returns `self` · 10^`places` as an integer, halves rounded away from 0; `None` if it does not fit into 64 bits.
    pub fn scaled(self, places: u32) -> Option<i64> {
        let scaled = match places.checked_sub(self.scale) {
            Some(missing) => self.digits.checked_mul(10i128.checked_pow(missing)?)?,
            None => match 10i128.checked_pow(self.scale - places) {
                Some(divisor) => (self.digits + self.digits.signum() * (divisor / 2)) / divisor,
                // Less than half of the last place.
                None => 0,
            },
        };
        i64::try_from(scaled).ok()
    }

    /// Returns the number if it is an integer, as `6.0` is, and fits into 64 bits.
    pub fn integer(self) -> Option<i64> {
        let Some(divisor) = 10i128.checked_pow(self.scale) else {
            return (self.digits == 0).then_some(0);
        };
        match self.digits % divisor {
            0 => i64::try_from(self.digits / divisor).ok(),
            _ => None,
        }
    }
}

/// Reads the digits of an exponent with an optional sign.
fn exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    match digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_exactly() {
        let check = |text: &str, places: u32, want: Option<i64>| {
            let got = Decimal::parse("n", text).map(|number| number.scaled(places));
            assert_eq!(got, Ok(want), "{text} · 10^{places}");
        };
        check("2.55", 2, Some(255));
        check("1.5", 2, Some(150));
        check("-3", 2, Some(-300));
        check("+3", 0, Some(3));
        check(".5", 2, Some(50));
        check("5.", 2, Some(500));
        check("0.005", 2, Some(1));
        check("-0.005", 2, Some(-1));
        check("0.0049999", 2, Some(0));
        check("1.4999999999", 2, Some(150));
        check("1.005", 2, Some(101));
        check("0", 4, Some(0));
        check("92233720368547758.07", 2, Some(i64::MAX));
        check("-92233720368547758.08", 2, Some(i64::MIN));
        check("92233720368547758.08", 2, None);
        check("999999999999999999999999999", 4, None);
        check("0.00000000000000000000000001", 0, Some(0));
        check("1e3", 2, Some(100_000));
        check("1.5E+2", 0, Some(150));
        check("4.44e-16", 2, Some(0));
        check("-4.44e-160", 2, Some(0));
        check("25e-1", 1, Some(25));
    }

    #[test]
    fn malformed_numbers_are_refused() {
        for bad in [
            "",
            "-",
            ".",
            "+.",
            "1e",
            "e3",
            "1e3.5",
            "1e9999",
            "1e27",
            "1,5",
            "1 000",
            "£5",
            "5%",
            "--1",
            "1.2.3",
            "NaN",
            "inf",
            "0x10",
            " 1",
            "１",
            "1000000000000000000000000000",
            "0.0000000000000000000000000001",
        ] {
            let got = Decimal::parse("n", bad).map_err(|error| (error.field, error.reason));
            assert_eq!(got, Err(("n".to_owned(), "INVALID_NUMBER")), "{bad:?}");
        }
    }

    #[test]
    fn integers_may_have_a_fraction_of_zeros() {
        let check = |text: &str, want: Option<i64>| {
            assert_eq!(Decimal::parse("n", text).unwrap().integer(), want, "{text}");
        };
        check("6", Some(6));
        check("-6.000", Some(-6));
        check("6.5", None);
        check("99999999999999999999", None);
    }

    #[test]
    fn noise_of_binary_fractions_is_no_decimal() {
        let check = |text: &str, places, want| {
            let number = Decimal::parse("n", text).unwrap();
            assert_eq!(number.has_decimals_within(places), want, "{text} {places}");
        };
        check("9.99", 2, true);
        check("9.990", 2, true);
        check("9", 0, true);
        check("9.999", 2, false);
        check("-9.999", 2, false);
        check("0.005", 2, false);
        check("9.5", 0, false);
        check("0.30000000000000004", 2, true);
        check("-9.989999999999998", 2, true);
        check("4.44e-16", 0, true);
        check("4.44e-160", 2, true);
        check("1.2300001", 2, false);
    }

    #[test]
    fn a_product_is_rounded_once() {
        let check = |price: &str, quantity: i32, minor: i64| {
            let price = Decimal::parse("n", price).unwrap();
            assert_eq!(price.times(quantity).scaled(2), Some(minor), "{price:?} · {quantity}");
        };
        check("2.55", 6, 1530);
        check("0.001", 5, 1);
        check("0.335", 3, 101);
        check("1.459", -10, -1459);
    }

    proptest! {
        #[test]
        fn minor_units_round_trip_as_text(amount in any::<i64>(), places in 0u32..5) {
            let unsigned = format!("{:0>width$}", amount.unsigned_abs(), width = places as usize + 1);
            let (whole, fraction) = unsigned.split_at(unsigned.len() - places as usize);
            let text = format!("{}{whole}.{fraction}", if amount < 0 { "-" } else { "" });
            prop_assert_eq!(Decimal::parse("n", &text).unwrap().scaled(places), Some(amount));
        }

        #[test]
        fn the_largest_product_does_not_overflow(digits in "[0-9]{1,27}", quantity in any::<i32>()) {
            let product = Decimal::parse("n", &digits).unwrap().times(quantity);
            product.scaled(4);
            product.integer();
        }
    }
}
