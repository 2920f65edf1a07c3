//! Decides which items an answer may contain.

use crate::snapshot::bits::Bits;
use crate::snapshot::catalog::{Facts, NONE};
use crate::snapshot::dictionary::{ItemIndex, Texts};
use crate::snapshot::view::View;
use domain::id::{Category, ItemId, MerchantId};
use domain::money::Currency;

/// The conditions on items. An item passes if it is listed and meets all of them; an empty list is no condition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemFilter {
    /// The item is in one of these.
    pub categories: Vec<Category>,
    /// The item is sold by one of these.
    pub merchants: Vec<MerchantId>,
    /// The item is one of these.
    pub candidates: Vec<ItemId>,
    /// The item is none of these.
    pub excluded: Vec<ItemId>,
    pub price: Option<PriceRange>,
}

/// A range of prices. An item without a price, or with one in another currency, is outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceRange {
    pub currency: Currency,
    /// Inclusive.
    pub min_minor: Option<i64>,
    /// Inclusive.
    pub max_minor: Option<i64>,
}

impl PriceRange {
    fn contains(&self, amount_minor: i64) -> bool {
        self.min_minor.is_none_or(|min| amount_minor >= min) && self.max_minor.is_none_or(|max| amount_minor <= max)
    }
}

/// An [`ItemFilter`] whose names have been looked up once, so that items are checked by their dense columns. Only an item
/// whose facts have changed since the snapshot is compared by name.
pub struct CompiledFilter<'a> {
    filter: &'a ItemFilter,
    view: &'a View,
    /// One bit for each category of the catalog.
    categories: Option<Bits>,
    /// One bit for each merchant of the catalog.
    merchants: Option<Bits>,
    /// Ascending.
    candidates: Option<Vec<ItemIndex>>,
    /// Ascending.
    excluded: Vec<ItemIndex>,
    /// The position of the price range's currency in the catalog.
    currency: Option<u32>,
}

impl<'a> CompiledFilter<'a> {
    /// Looks up the names of `filter`. One that the snapshot does not know matches no item of the snapshot.
    pub fn new(filter: &'a ItemFilter, view: &'a View) -> Self {
        let catalog = view.snapshot.catalog();
        let currency = filter.price.and_then(|price| {
            let position = catalog.currencies.binary_search(&price.currency).ok()?;
            u32::try_from(position).ok()
        });
        Self {
            filter,
            view,
            categories: positions(&catalog.categories, filter.categories.iter().map(Category::as_str)),
            merchants: positions(&catalog.merchants, filter.merchants.iter().map(MerchantId::as_str)),
            candidates: (!filter.candidates.is_empty()).then(|| indices(view, &filter.candidates)),
            excluded: indices(view, &filter.excluded),
            currency,
        }
    }

    pub fn passes(&self, item: ItemIndex) -> bool {
        if self.excluded.binary_search(&item).is_ok() {
            return false;
        }
        if let Some(candidates) = &self.candidates
            && candidates.binary_search(&item).is_err()
        {
            return false;
        }
        match self.view.overlay.known_item(item) {
            Some(facts) => self.present_facts_pass(&facts),
            None => self.snapshot_facts_pass(item),
        }
    }

    /// Returns the only items that can pass, ascending; `None` if the filter names no candidates.
    pub fn candidates(&self) -> Option<&[ItemIndex]> {
        self.candidates.as_deref()
    }

    fn snapshot_facts_pass(&self, item: ItemIndex) -> bool {
        let (catalog, at) = (self.view.snapshot.catalog(), item.at());
        let price_passes = |price: &PriceRange| {
            self.currency == Some(catalog.currency_of[at]) && price.contains(catalog.price_minor[at])
        };
        catalog.listed.get(at)
            && is_among(&self.categories, catalog.category_of[at])
            && is_among(&self.merchants, catalog.merchant_of[at])
            && self.filter.price.as_ref().is_none_or(price_passes)
    }

    fn present_facts_pass(&self, facts: &Facts) -> bool {
        let ItemFilter {
            categories,
            merchants,
            price,
            ..
        } = self.filter;
        let price_passes = |range: &PriceRange| {
            facts
                .price
                .is_some_and(|price| price.currency == range.currency && range.contains(price.amount_minor))
        };
        facts.listed
            && is_named(categories, facts.category, Category::as_str)
            && is_named(merchants, facts.merchant, MerchantId::as_str)
            && price.as_ref().is_none_or(price_passes)
    }
}

/// Returns the bits of `names` in the ascending `texts`; `None` if there are no names.
fn positions<'n>(texts: &Texts, names: impl ExactSizeIterator<Item = &'n str>) -> Option<Bits> {
    if names.len() == 0 {
        return None;
    }
    let mut bits = Bits::zeros(texts.len());
    for name in names {
        if let Some(position) = texts.find(name) {
            bits.set(position, true);
        }
    }
    Some(bits)
}

/// Returns the items of the snapshot among `ids`, ascending, each once.
fn indices(view: &View, ids: &[ItemId]) -> Vec<ItemIndex> {
    let mut indices: Vec<ItemIndex> = ids
        .iter()
        .filter_map(|id| view.snapshot.items().find(id.as_str()))
        .collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

fn is_among(allowed: &Option<Bits>, position: u32) -> bool {
    allowed
        .as_ref()
        .is_none_or(|allowed| position != NONE && allowed.get(position as usize))
}

fn is_named<N>(allowed: &[N], name: Option<&str>, as_str: impl Fn(&N) -> &str) -> bool {
    allowed.is_empty() || name.is_some_and(|name| allowed.iter().any(|allowed| as_str(allowed) == name))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{changed, facts_change};
    use super::*;
    use crate::snapshot::fixture::{catalog, item_facts, item_id, snapshot_parts, view};
    use domain::item::ItemFacts;
    use domain::money::Money;

    fn currency(code: &str) -> Currency {
        Currency::new(code).unwrap()
    }

    fn priced(amount_minor: i64, code: &str) -> ItemFacts {
        ItemFacts {
            price: Some(Money {
                amount_minor,
                currency: currency(code),
            }),
            ..ItemFacts::default()
        }
    }

    fn unlisted(facts: ItemFacts) -> ItemFacts {
        ItemFacts { listed: false, ..facts }
    }

    /// Builds a view with i0, a mug of acme, i1, a print of acme, and i2, a mug of zenith, each for 19.99 GBP; i3 without
    /// facts; i4, an unlisted mug; i5 for 5.00 EUR and i6 for 19.98 GBP.
    fn shop() -> View {
        let mut parts = snapshot_parts(&[&[1.0; 7]]);
        parts.catalog = catalog(&[
            item_facts("A", "mugs", "acme"),
            item_facts("B", "prints", "acme"),
            item_facts("C", "mugs", "zenith"),
            ItemFacts::default(),
            unlisted(item_facts("E", "mugs", "acme")),
            priced(500, "EUR"),
            priced(1998, "GBP"),
        ]);
        view(parts)
    }

    #[track_caller]
    fn check(view: &View, filter: &ItemFilter, expected: &[u32]) {
        let compiled = CompiledFilter::new(filter, view);
        let passing: Vec<u32> = (0..7).filter(|&item| compiled.passes(ItemIndex(item))).collect();
        assert_eq!(passing, expected, "{filter:?}");
    }

    fn categories(names: &[&str]) -> ItemFilter {
        ItemFilter {
            categories: names.iter().map(|name| Category::new(name).unwrap()).collect(),
            ..ItemFilter::default()
        }
    }

    fn merchants(names: &[&str]) -> ItemFilter {
        ItemFilter {
            merchants: names.iter().map(|name| MerchantId::new(name).unwrap()).collect(),
            ..ItemFilter::default()
        }
    }

    fn candidates(ids: &[&str]) -> ItemFilter {
        ItemFilter {
            candidates: ids.iter().map(|id| item_id(id)).collect(),
            ..ItemFilter::default()
        }
    }

    fn excluded(ids: &[&str]) -> ItemFilter {
        ItemFilter {
            excluded: ids.iter().map(|id| item_id(id)).collect(),
            ..ItemFilter::default()
        }
    }

    fn price(code: &str, min_minor: Option<i64>, max_minor: Option<i64>) -> ItemFilter {
        ItemFilter {
            price: Some(PriceRange {
                currency: currency(code),
                min_minor,
                max_minor,
            }),
            ..ItemFilter::default()
        }
    }

    #[test]
    fn every_condition_filters_alone() {
        let shop = shop();
        check(&shop, &ItemFilter::default(), &[0, 1, 2, 3, 5, 6]);
        check(&shop, &categories(&["mugs"]), &[0, 2]);
        check(&shop, &categories(&["prints", "mugs"]), &[0, 1, 2]);
        check(&shop, &categories(&["unheard of"]), &[]);
        check(&shop, &merchants(&["acme"]), &[0, 1]);
        check(&shop, &merchants(&["zenith", "unheard of"]), &[2]);
        check(&shop, &candidates(&["i5", "i4", "i1", "i1"]), &[1, 5]);
        check(&shop, &candidates(&["unheard of"]), &[]);
        check(&shop, &excluded(&["i5", "i0", "unheard of"]), &[1, 2, 3, 6]);
        check(&shop, &price("GBP", None, None), &[0, 1, 2, 6]);
        check(&shop, &price("GBP", Some(1999), None), &[0, 1, 2]);
        check(&shop, &price("GBP", None, Some(1998)), &[6]);
        check(&shop, &price("GBP", Some(1998), Some(1998)), &[6]);
        check(&shop, &price("EUR", Some(500), Some(500)), &[5]);
        check(&shop, &price("JPY", None, None), &[]);
    }

    #[test]
    fn all_conditions_must_be_met() {
        let shop = shop();
        let both = ItemFilter {
            merchants: merchants(&["acme"]).merchants,
            ..categories(&["mugs"])
        };
        check(&shop, &both, &[0]);
        let none = ItemFilter {
            excluded: excluded(&["i0"]).excluded,
            ..both
        };
        check(&shop, &none, &[]);
    }

    #[test]
    fn changed_facts_replace_those_of_the_snapshot() {
        let shop = changed(
            shop(),
            [
                facts_change("i0", unlisted(item_facts("A", "mugs", "acme"))),
                facts_change("i4", item_facts("E", "mugs", "acme")),
                facts_change("i1", item_facts("B", "books", "press")),
                facts_change("i2", priced(700, "JPY")),
                facts_change("i5", priced(499, "EUR")),
            ],
        );
        check(&shop, &ItemFilter::default(), &[1, 2, 3, 4, 5, 6]);
        check(&shop, &categories(&["mugs"]), &[4]);
        // Names that no item had when the snapshot was trained.
        check(&shop, &categories(&["books"]), &[1]);
        check(&shop, &merchants(&["press", "zenith"]), &[1]);
        check(&shop, &price("JPY", None, Some(700)), &[2]);
        check(&shop, &price("EUR", Some(500), None), &[]);
        check(&shop, &price("EUR", None, Some(499)), &[5]);
        check(&shop, &candidates(&["i0", "i4"]), &[4]);
        check(&shop, &excluded(&["i4"]), &[1, 2, 3, 5, 6]);
    }

    #[test]
    fn candidates_ascend_and_stand_once() {
        let shop = shop();
        let filter = candidates(&["i5", "i1", "unheard of", "i1"]);
        let compiled = CompiledFilter::new(&filter, &shop);
        assert_eq!(compiled.candidates(), Some(&[ItemIndex(1), ItemIndex(5)][..]));
        assert_eq!(CompiledFilter::new(&ItemFilter::default(), &shop).candidates(), None);
    }
}
