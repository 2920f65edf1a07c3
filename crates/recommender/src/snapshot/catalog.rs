//! The catalog facts of a snapshot, column by column.

use domain::money::{Currency, Money};

use super::bits::Bits;
use super::dictionary::{ItemIndex, Texts};

/// Marks "none" in a column of dense references.
pub const NONE: u32 = u32::MAX;

/// Facts of n items; every column has n entries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog {
    /// Empty where there is no title.
    pub titles: Texts,
    /// Strictly ascending.
    pub categories: Texts,
    /// Strictly ascending.
    pub merchants: Texts,
    /// Position in `categories`, or [`NONE`].
    pub category_of: Vec<u32>,
    /// Position in `merchants`, or [`NONE`].
    pub merchant_of: Vec<u32>,
    /// Price in minor units; means nothing where there is no currency.
    pub price_minor: Vec<i64>,
    /// Position in `currencies`, or [`NONE`] for an item without a price.
    pub currency_of: Vec<u32>,
    /// Strictly ascending.
    pub currencies: Vec<Currency>,
    pub listed: Bits,
}

/// The catalog facts of one item, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Facts<'a> {
    pub title: &'a str,
    pub category: Option<&'a str>,
    pub merchant: Option<&'a str>,
    pub price: Option<Money>,
    pub listed: bool,
}

impl Catalog {
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Finds a problem in the columns: lengths that differ, a reference to nothing, or names that do not strictly ascend.
    pub fn problem(&self) -> Option<&'static str> {
        let n = self.len();
        let refers = |column: &[u32], len: usize| column.iter().all(|&entry| entry == NONE || (entry as usize) < len);
        let ascending = |texts: &Texts| (1..texts.len()).all(|i| texts.get(i - 1) < texts.get(i));
        if [
            self.titles.len(),
            self.category_of.len(),
            self.merchant_of.len(),
            self.price_minor.len(),
            self.currency_of.len(),
        ]
        .iter()
        .any(|&len| len != n)
        {
            Some("its columns differ in length")
        } else if !refers(&self.category_of, self.categories.len()) {
            Some("an item refers to a category that does not exist")
        } else if !refers(&self.merchant_of, self.merchants.len()) {
            Some("an item refers to a merchant that does not exist")
        } else if !refers(&self.currency_of, self.currencies.len()) {
            Some("an item refers to a currency that does not exist")
        } else if !ascending(&self.categories)
            || !ascending(&self.merchants)
            || !self.currencies.is_sorted_by(|a, b| a < b)
        {
            Some("its categories, merchants or currencies are not strictly ascending")
        } else {
            None
        }
    }

    pub fn facts(&self, item: ItemIndex) -> Facts<'_> {
        let at = item.at();
        Facts {
            title: self.titles.get(at),
            category: lookup(&self.categories, self.category_of[at]),
            merchant: lookup(&self.merchants, self.merchant_of[at]),
            price: (self.currency_of[at] != NONE).then(|| Money {
                amount_minor: self.price_minor[at],
                currency: self.currencies[self.currency_of[at] as usize],
            }),
            listed: self.listed.get(at),
        }
    }
}

fn lookup(texts: &Texts, index: u32) -> Option<&str> {
    (index != NONE).then(|| texts.get(index as usize))
}
