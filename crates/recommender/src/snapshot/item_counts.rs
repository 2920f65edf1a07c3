//! Counts the items of each category and merchant.

use std::collections::HashMap;

use super::catalog::{Catalog, NONE};

/// The numbers of items in a catalog by their categories and merchants.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemCounts {
    /// One per category of the catalog.
    by_category: Vec<usize>,
    /// One per merchant of the catalog.
    by_merchant: Vec<usize>,
    /// By the positions of category and merchant.
    by_both: HashMap<(u32, u32), usize>,
    all: usize,
}

impl ItemCounts {
    /// Counts the items of `catalog`, whose references must be valid.
    pub fn new(catalog: &Catalog) -> Self {
        let mut counts = Self {
            by_category: vec![0; catalog.categories.len()],
            by_merchant: vec![0; catalog.merchants.len()],
            by_both: HashMap::new(),
            all: catalog.len(),
        };
        for (&category, &merchant) in catalog.category_of.iter().zip(&catalog.merchant_of) {
            if category != NONE {
                counts.by_category[category as usize] += 1;
            }
            if merchant != NONE {
                counts.by_merchant[merchant as usize] += 1;
            }
            if category != NONE && merchant != NONE {
                *counts.by_both.entry((category, merchant)).or_default() += 1;
            }
        }
        counts
    }

    /// Returns the number of items of `catalog`, which was counted, with these facts. `None` stands for any category or
    /// merchant.
    pub fn of(&self, catalog: &Catalog, category: Option<&str>, merchant: Option<&str>) -> usize {
        let category = category.map(|name| catalog.categories.find(name));
        let merchant = merchant.map(|name| catalog.merchants.find(name));
        match (category, merchant) {
            (None, None) => self.all,
            (Some(Some(category)), None) => self.by_category[category],
            (None, Some(Some(merchant))) => self.by_merchant[merchant],
            (Some(Some(category)), Some(Some(merchant))) => {
                let both = (category as u32, merchant as u32);
                self.by_both.get(&both).copied().unwrap_or_default()
            }
            // A name that no item has.
            (Some(None), _) | (_, Some(None)) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::item::ItemFacts;

    use super::*;
    use crate::snapshot::fixture::{catalog, item_facts};

    #[test]
    fn items_are_counted_by_category_and_merchant() {
        let facts = [
            item_facts("a", "tea", "acme"),
            item_facts("b", "tea", "acme"),
            item_facts("c", "tea", "zenith"),
            item_facts("d", "mugs", "zenith"),
            ItemFacts::default(),
        ];
        let catalog = catalog(&facts);
        let counts = ItemCounts::new(&catalog);
        let check = |category: Option<&str>, merchant: Option<&str>, expected: usize| {
            let found = counts.of(&catalog, category, merchant);
            assert_eq!(found, expected, "{category:?} of {merchant:?}");
        };
        check(None, None, 5);
        check(Some("tea"), None, 3);
        check(Some("mugs"), None, 1);
        check(None, Some("acme"), 2);
        check(None, Some("zenith"), 2);
        check(Some("tea"), Some("acme"), 2);
        check(Some("tea"), Some("zenith"), 1);
        check(Some("mugs"), Some("acme"), 0);
        check(Some("TEA"), None, 0);
        check(Some("TEA"), Some("acme"), 0);
        check(Some("tea"), Some("nobody"), 0);
        check(None, Some("nobody"), 0);
    }
}
