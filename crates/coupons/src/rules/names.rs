//! Names of items, categories and merchants in rules, looked up in a view's snapshot once for all users.

use domain::coupon::ItemSet;
use domain::id::{Category, ItemId, MerchantId};
use recommender::snapshot::bits::Bits;
use recommender::snapshot::catalog::{Catalog, Facts, NONE};
use recommender::snapshot::dictionary::{ItemIndex, Texts};
use recommender::snapshot::view::View;

use super::history::{EntryItem, History};
use crate::offer_catalog::Offer;
use crate::visibility::history_of;

/// A set of items whose names were looked up.
///
/// An item of the snapshot is checked by its dense columns. An item that has changed since, or is new, is compared by name.
#[derive(Debug, Clone)]
pub(super) struct NamedItems<'a> {
    set: &'a ItemSet,
    seller: Seller<'a>,
    /// Ascending.
    items: Vec<ItemIndex>,
    /// One bit per category of the catalog.
    categories: Bits,
    /// One bit per merchant of the catalog.
    merchants: Bits,
}

impl<'a> NamedItems<'a> {
    pub fn new(set: &'a ItemSet, offer: &'a Offer, view: Option<&View>) -> Self {
        let seller = Seller::of(offer, view);
        let Some(view) = view else {
            return Self {
                set,
                seller,
                items: Vec::new(),
                categories: Bits::default(),
                merchants: Bits::default(),
            };
        };
        let catalog = view.snapshot.catalog();
        let items = set
            .items
            .iter()
            .filter_map(|id| view.snapshot.items().find(id.as_str()));
        Self {
            set,
            seller,
            // The indices ascend because the ids do.
            items: items.collect(),
            categories: positions(&catalog.categories, set.categories.iter().map(Category::as_str)),
            merchants: positions(&catalog.merchants, set.merchants.iter().map(MerchantId::as_str)),
        }
    }

    /// Returns the items of the set that the user has bought from the seller.
    pub fn bought<'h>(&self, history: &History<'h>) -> impl Iterator<Item = EntryItem<'h>> {
        let items = history
            .entries()
            .filter(|entry| entry.is_purchased)
            .map(|entry| entry.item);
        items.filter(|item| self.contains(*item, history.view) && self.seller.sells(*item, history.view))
    }

    /// Returns the id of the first of these items, in the order of ids, items of the snapshot before new ones.
    pub fn bought_id(&self, history: &History<'_>) -> Option<ItemId> {
        match self.bought(history).min()? {
            EntryItem::Known(item) => ItemId::stored(history.view.item_id(item)).ok(),
            EntryItem::New(id) => Some(id.clone()),
        }
    }

    fn contains(&self, item: EntryItem<'_>, view: &View) -> bool {
        let (id, facts) = match item {
            EntryItem::Known(item) => {
                if self.items.binary_search(&item).is_ok() {
                    return true;
                }
                let Some(facts) = view.overlay.known_item(item) else {
                    let catalog = view.snapshot.catalog();
                    return has(&self.categories, catalog.category_of[item.at()])
                        || has(&self.merchants, catalog.merchant_of[item.at()]);
                };
                (view.item_id(item), Some(facts))
            }
            EntryItem::New(id) => (id.as_str(), view.overlay.new_item(id)),
        };
        let (category, merchant) = facts.map_or((None, None), |facts| (facts.category, facts.merchant));
        self.set.contains(id, category, merchant)
    }
}

/// The merchant whose items the rules of a campaign see; `None` for the items of all merchants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seller<'a>(Option<Named<'a>>);

/// A name of a category or merchant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub name: &'a str,
    /// Its position in the snapshot's catalog, if it is there.
    pub position: Option<usize>,
}

impl Named<'_> {
    /// Returns whether an item has this name. `dense`: the column of the snapshot's catalog; `fact`: the same fact of one item.
    fn is_of(
        self,
        item: EntryItem<'_>,
        view: &View,
        dense: impl Fn(&Catalog) -> &[u32],
        fact: impl Fn(Facts<'_>) -> Option<&str>,
    ) -> bool {
        let facts = match item {
            EntryItem::Known(item) => match view.overlay.known_item(item) {
                Some(facts) => Some(facts),
                None => {
                    let column = dense(view.snapshot.catalog());
                    return self.position.is_some_and(|own| column[item.at()] as usize == own);
                }
            },
            EntryItem::New(id) => view.overlay.new_item(id),
        };
        facts.is_some_and(|facts| fact(facts) == Some(self.name))
    }
}

impl<'a> Seller<'a> {
    /// Returns the seller whose items the rules of `offer` see.
    pub fn of(offer: &'a Offer, view: Option<&View>) -> Self {
        Self(history_of(offer).map(|name| Named {
            name,
            position: view.and_then(|view| view.snapshot.catalog().merchants.find(name)),
        }))
    }

    /// Returns the one merchant; `None` for all merchants.
    pub fn one(self) -> Option<Named<'a>> {
        self.0
    }

    pub fn sells(self, item: EntryItem<'_>, view: &View) -> bool {
        let is_own = |own: Named<'_>| own.is_of(item, view, |catalog| &catalog.merchant_of, |facts| facts.merchant);
        self.0.is_none_or(is_own)
    }
}

/// A category whose name was looked up.
#[derive(Debug, Clone)]
pub(super) struct NamedCategory<'a> {
    category: Named<'a>,
    seller: Seller<'a>,
}

impl<'a> NamedCategory<'a> {
    pub fn new(category: &'a Category, offer: &'a Offer, view: Option<&View>) -> Self {
        let name = category.as_str();
        Self {
            category: Named {
                name,
                position: view.and_then(|view| view.snapshot.catalog().categories.find(name)),
            },
            seller: Seller::of(offer, view),
        }
    }

    /// Returns the category's share of the sum of the user's effective ratings of the seller's items; 0 without any.
    pub fn share(&self, history: &History<'_>) -> f64 {
        let (mut own, mut all) = (0.0, 0.0);
        let entries = history.entries();
        for entry in entries.filter(|entry| self.seller.sells(entry.item, history.view)) {
            let rating = f64::from(entry.rating);
            all += rating;
            if self.contains(entry.item, history.view) {
                own += rating;
            }
        }
        if all > 0.0 { own / all } else { 0.0 }
    }

    fn contains(&self, item: EntryItem<'_>, view: &View) -> bool {
        self.category
            .is_of(item, view, |catalog| &catalog.category_of, |facts| facts.category)
    }
}

/// Returns one bit for each of the ascending `texts`, set for `names`.
fn positions<'n>(texts: &Texts, names: impl Iterator<Item = &'n str>) -> Bits {
    let mut bits = Bits::zeros(texts.len());
    for position in names.filter_map(|name| texts.find(name)) {
        bits.set(position, true);
    }
    bits
}

fn has(bits: &Bits, position: u32) -> bool {
    position != NONE && bits.get(position as usize)
}
