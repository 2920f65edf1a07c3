//! The part `catalogue`:
//!
//! | column | contents |
//! |---|---|
//! | texts, n | titles, empty for none |
//! | texts | categories, strictly ascending |
//! | texts | merchants, strictly ascending |
//! | currencies | strictly ascending |
//! | integers, n, three times | category, merchant and currency of every item: 1 + position among those above, 0 for none |
//! | integers, n | price in minor units, two's complement in 64 bits |
//! | bits, n | listed |
//!
//! Currencies are their number (8) and, for each, three capital letters of ISO 4217 in ASCII (3).

use domain::money::Currency;

use super::{Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::catalog::Catalog;
use crate::snapshot::codec::CodecError;

pub(in crate::snapshot) struct CatalogPart;

impl Part for CatalogPart {
    /// Spelled as stored snapshots have it.
    const NAME: &'static str = "catalogue";

    type Contents = Catalog;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        let catalog = &parts.catalog;
        to.texts(&catalog.titles);
        to.texts(&catalog.categories);
        to.texts(&catalog.merchants);
        to.u64(catalog.currencies.len() as u64);
        for currency in &catalog.currencies {
            to.raw(currency.as_str().as_bytes());
        }
        for references in [&catalog.category_of, &catalog.merchant_of, &catalog.currency_of] {
            // NONE, the highest, becomes 0.
            to.integers(references.iter().map(|reference| u64::from(reference.wrapping_add(1))));
        }
        to.integers(catalog.price_minor.iter().map(|&price| price as u64));
        to.bits(&catalog.listed);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let (titles, categories, merchants) = (
            from.texts("titles")?,
            from.texts("categories")?,
            from.texts("merchants")?,
        );
        let currencies = currencies(from)?;
        let mut references = |field| {
            let references = from.u32s(field)?;
            Ok(references
                .into_iter()
                .map(|reference| reference.wrapping_sub(1))
                .collect())
        };
        let catalog = Catalog {
            titles,
            categories,
            merchants,
            currencies,
            category_of: references("categories of the items")?,
            merchant_of: references("merchants of the items")?,
            currency_of: references("currencies of the items")?,
            price_minor: from.u64s("prices")?.into_iter().map(|price| price as i64).collect(),
            listed: from.bits("listed")?,
        };
        match catalog.problem() {
            Some(problem) => Err(CodecError::Catalog { problem }),
            None => Ok(catalog),
        }
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        check_length("catalog", parts.items.len(), parts.catalog.len())?;
        match parts.catalog.problem() {
            Some(problem) => Err(SnapshotError::Catalog { problem }),
            None => Ok(()),
        }
    }
}

fn currencies(from: &mut Reader<'_>) -> Result<Vec<Currency>, CodecError> {
    let n_currencies = from.u64("currencies")?;
    let currency = |letters: [u8; 3]| {
        let code = std::str::from_utf8(&letters).ok()?;
        Currency::new(code).ok()
    };
    let currencies = from.entries("currencies", n_currencies, currency)?;
    let currencies: Option<Vec<_>> = currencies.into_iter().collect();
    currencies.ok_or_else(|| from.invalid("currencies", "are not all three capital letters"))
}
