//! Which items an answer may hold.

use crate::domain::id::{Category, ItemId, MerchantId};
use crate::domain::money::Currency;
use crate::model::bits::Bits;
use crate::model::catalogue::{Facts, NONE};
use crate::model::dictionary::{ItemIndex, Texts};
use crate::model::view::View;

/// An item passes when it is listed and meets every condition that is given; an empty list is no condition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemFilter {
    /// In one of these.
    pub categories: Vec<Category>,
    /// From one of these.
    pub merchants: Vec<MerchantId>,
    /// Only these.
    pub candidates: Vec<ItemId>,
    /// None of these.
    pub excluded: Vec<ItemId>,
    pub price: Option<PriceRange>,
}

/// Items without a price, or in another currency, do not pass.
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

/// An [`ItemFilter`] whose names have been looked up once, so that an item is checked by its dense columns. Only an
/// item whose facts have changed since the snapshot is compared by name.
pub struct CompiledFilter<'a> {
    filter: &'a ItemFilter,
    view: &'a View,
    /// One bit a category of the catalogue.
    categories: Option<Bits>,
    /// One bit a merchant of the catalogue.
    merchants: Option<Bits>,
    /// Ascending.
    candidates: Option<Vec<ItemIndex>>,
    /// Ascending.
    excluded: Vec<ItemIndex>,
    /// Position of the price range's currency in the catalogue.
    currency: Option<u32>,
}

impl<'a> CompiledFilter<'a> {
    /// A name that the snapshot does not know meets no item of it.
    pub fn new(filter: &'a ItemFilter, view: &'a View) -> Self {
        let catalogue = view.snapshot.catalogue();
        let currency = filter.price.and_then(|price| {
            let position = catalogue.currencies.binary_search(&price.currency).ok()?;
            u32::try_from(position).ok()
        });
        Self {
            filter,
            view,
            categories: positions(&catalogue.categories, filter.categories.iter().map(Category::as_str)),
            merchants: positions(&catalogue.merchants, filter.merchants.iter().map(MerchantId::as_str)),
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

    /// The items that the filter names as the only ones, ascending; `None` when it names none.
    pub fn candidates(&self) -> Option<&[ItemIndex]> {
        self.candidates.as_deref()
    }

    fn snapshot_facts_pass(&self, item: ItemIndex) -> bool {
        let (catalogue, at) = (self.view.snapshot.catalogue(), item.at());
        let price_passes = |price: &PriceRange| {
            self.currency == Some(catalogue.currency_of[at]) && price.contains(catalogue.price_minor[at])
        };
        catalogue.listed.get(at)
            && is_among(&self.categories, catalogue.category_of[at])
            && is_among(&self.merchants, catalogue.merchant_of[at])
            && self.filter.price.as_ref().is_none_or(price_passes)
    }

    fn present_facts_pass(&self, facts: &Facts) -> bool {
        let ItemFilter { categories, merchants, price, .. } = self.filter;
        let price_passes = |range: &PriceRange| {
            facts.price.is_some_and(|price| price.currency == range.currency && range.contains(price.amount_minor))
        };
        facts.listed
            && is_named(categories, facts.category, Category::as_str)
            && is_named(merchants, facts.merchant, MerchantId::as_str)
            && price.as_ref().is_none_or(price_passes)
    }
}

/// The bits of `names` in the ascending `texts`; `None` without names.
fn positions<'n>(texts: &Texts, names: impl ExactSizeIterator<Item = &'n str>) -> Option<Bits> {
    if names.len() == 0 {
        return None;
    }
    let mut bits = Bits::zeros(texts.len());
    for name in names {
        if let Some(position) = find(texts, name) {
            bits.set(position, true);
        }
    }
    Some(bits)
}

fn find(texts: &Texts, name: &str) -> Option<usize> {
    let (mut from, mut to) = (0, texts.len());
    while from < to {
        let middle = from + (to - from) / 2;
        if texts.get(middle) < name {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    (from < texts.len() && texts.get(from) == name).then_some(from)
}

/// The items of the snapshot among `ids`, ascending, each once.
fn indices(view: &View, ids: &[ItemId]) -> Vec<ItemIndex> {
    let mut indices: Vec<ItemIndex> = ids.iter().filter_map(|id| view.snapshot.items().find(id.as_str())).collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

fn is_among(allowed: &Option<Bits>, position: u32) -> bool {
    allowed.as_ref().is_none_or(|allowed| position != NONE && allowed.get(position as usize))
}

fn is_named<N>(allowed: &[N], name: Option<&str>, as_str: impl Fn(&N) -> &str) -> bool {
    allowed.is_empty() || name.is_some_and(|name| allowed.iter().any(|allowed| as_str(allowed) == name))
}
