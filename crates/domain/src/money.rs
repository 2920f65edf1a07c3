//! Money: an integer number of minor units, such as cents, and a currency.

use std::fmt;

use super::decimal::Decimal;
use super::error::InvalidField;

/// A currency by its ISO 4217 code: three capital ASCII letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Makes a currency of its code. It does not check whether ISO 4217 lists the code.
    ///
    /// # Errors
    /// `INVALID_CURRENCY`, naming `currency_code`, if `code` is not three capital letters.
    pub fn new(code: &str) -> Result<Self, InvalidField> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(InvalidField::new(
                "currency_code",
                "INVALID_CURRENCY",
                "must be an ISO 4217 code of three capital letters, for example GBP",
            )),
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_else(|_| unreachable!("three ASCII letters"))
    }

    /// Returns the decimal digits of the minor unit in ISO 4217: 2 for most currencies, 0 for JPY, 3 for KWD.
    pub fn minor_digits(&self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
            | b"UYI" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            b"CLF" | b"UYW" => 4,
            _ => 2,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An amount in minor units of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    pub amount_minor: i64,
    pub currency: Currency,
}

impl Money {
    /// Converts `amount` in major units (pounds, not pence), rounded to the minor unit, halves away from 0.
    ///
    /// Rounding is needed because files carry more decimals than money has, from unit prices, exchange rates and binary
    /// fractions.
    ///
    /// # Errors
    /// `AMOUNT_OUT_OF_RANGE`, naming `field`.
    pub fn from_major(field: &str, amount: Decimal, currency: Currency) -> Result<Self, InvalidField> {
        match amount.scaled(currency.minor_digits()) {
            Some(amount_minor) => Ok(Self { amount_minor, currency }),
            None => Err(InvalidField::new(
                field,
                "AMOUNT_OUT_OF_RANGE",
                "must fit into 64 bits as minor units",
            )),
        }
    }

    /// Checks that the amount is not negative, as a price must be.
    ///
    /// # Errors
    /// `NEGATIVE_PRICE`, naming `amount_minor`.
    pub fn require_not_negative(self) -> Result<Self, InvalidField> {
        if self.amount_minor < 0 {
            return Err(InvalidField::new(
                "amount_minor",
                "NEGATIVE_PRICE",
                format!("must be 0 or more, is {}", self.amount_minor),
            ));
        }
        Ok(self)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.currency.minor_digits() as usize;
        let sign = if self.amount_minor < 0 { "-" } else { "" };
        let text = format!("{:0>width$}", self.amount_minor.unsigned_abs(), width = digits + 1);
        let (whole, minor) = text.split_at(text.len() - digits);
        let point = if digits == 0 { "" } else { "." };
        write!(formatter, "{sign}{whole}{point}{minor} {}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_in_major_units() {
        let check = |amount_minor, code, text: &str| {
            let currency = Currency::new(code).unwrap();
            assert_eq!(Money { amount_minor, currency }.to_string(), text);
        };
        check(1999, "GBP", "19.99 GBP");
        check(5, "GBP", "0.05 GBP");
        check(-150, "USD", "-1.50 USD");
        check(300, "JPY", "300 JPY");
        check(1, "KWD", "0.001 KWD");
    }

    #[test]
    fn major_units_become_minor_ones() {
        let check = |text: &str, code, want: Result<i64, &str>| {
            let (amount, currency) = (Decimal::parse("price", text).unwrap(), Currency::new(code).unwrap());
            let got = Money::from_major("price", amount, currency);
            assert_eq!(
                got.map(|money| money.amount_minor).map_err(|error| error.reason),
                want,
                "{text} {code}"
            );
        };
        check("2.55", "GBP", Ok(255));
        check("-1.5", "USD", Ok(-150));
        check("300", "JPY", Ok(300));
        check("299.5", "JPY", Ok(300));
        check("0.0015", "KWD", Ok(2));
        check("92233720368547758.07", "GBP", Ok(i64::MAX));
        check("99999999999999999999", "GBP", Err("AMOUNT_OUT_OF_RANGE"));
    }

    #[test]
    fn currencies_are_three_capital_letters() {
        for bad in ["", "gbp", "GB", "GBPX", "G1P", "€"] {
            assert_eq!(Currency::new(bad).unwrap_err().reason, "INVALID_CURRENCY", "{bad:?}");
        }
    }
}
