//! The rules of a coupon against what a user did.
//!
//! Rules that name items or a category of a merchant's campaign see no items but that merchant's: who matches is told to the
//! merchant, and what users bought of others is none of their business.

use chrono::Duration;

use domain::coupon::{ItemSet, Rule};
use domain::id::{Category, ItemId, MerchantId, UserId};
use domain::time::Timestamp;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::catalog::{Catalog, Facts, NONE};
use recommender::snapshot::dictionary::{ItemIndex, Texts, UserIndex};
use recommender::snapshot::overlay::{FreshInteraction, ItemRef};
use recommender::snapshot::parameters::ImplicitFeedback;
use recommender::snapshot::view::{HistoryEntry, View};

use super::affinity::{affinity_of, covered, is_covered, weighted_affinity, weights};
use super::offer_catalog::Offer;

#[cfg(test)]
mod tests;

/// What a user did, as of now: their history in the snapshot, and what is newer.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    view: &'a View,
    index: Option<UserIndex>,
    fresh: &'a [FreshInteraction],
}

impl<'a> History<'a> {
    pub fn of_user(view: &'a View, user: &UserId) -> Self {
        Self::new(view, view.user(user), user)
    }

    /// `index`: that of `user` in the snapshot, `None` for a user that it does not know.
    pub fn new(view: &'a View, index: Option<UserIndex>, user: &UserId) -> Self {
        let fresh = view.overlay.interactions(user);
        Self { view, index, fresh }
    }

    /// All items that the user has rated or bought: those of the snapshot that have not changed since, then the changed
    /// ones, always in the same order.
    fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let (view, fresh) = (self.view, self.fresh);
        let is_changed = move |item: ItemIndex| {
            let item = ItemRef::Known(item);
            fresh
                .binary_search_by(|interaction| interaction.item.cmp(&item))
                .is_ok()
        };
        let stored = self.index.into_iter().flat_map(move |user| view.stored_history(user));
        stored
            .filter(move |entry| fresh.is_empty() || !is_changed(entry.item))
            .map(Entry::stored)
            .chain(fresh.iter().map(Entry::fresh))
    }

    /// When the user has last bought anything; `None`: never, or all of it was sent back. The time is that of the last order
    /// until the next snapshot, even where that one was.
    fn last_order_at(&self) -> Option<Timestamp> {
        let (snapshot, fresh) = (&self.view.snapshot, self.fresh.iter());
        let activity = snapshot.activity();
        // Purchases that are no ratings are known as figures only.
        let has_unrated_orders = snapshot.parameters().options.implicit == ImplicitFeedback::Off
            && self.index.is_some_and(|user| activity.orders[user.at()] > 0);
        if !has_unrated_orders && !self.entries().any(|entry| entry.is_purchased) {
            return None;
        }
        let stored = self.index.map(|user| activity.last_order_at[user.at()]);
        let last = fresh.map(|interaction| interaction.last_order_at).chain(stored).max()?;
        Timestamp::from_timestamp(last, 0)
    }
}

/// The present state of a user and an item.
struct Entry<'a> {
    item: EntryItem<'a>,
    /// Effective; 0 without one.
    rating: f32,
    is_purchased: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EntryItem<'a> {
    Known(ItemIndex),
    New(&'a ItemId),
}

impl<'a> Entry<'a> {
    fn stored(entry: HistoryEntry) -> Self {
        Self {
            item: EntryItem::Known(entry.item),
            rating: entry.rating,
            is_purchased: entry.purchased,
        }
    }

    fn fresh(interaction: &'a FreshInteraction) -> Self {
        Self {
            item: match &interaction.item {
                ItemRef::Known(item) => EntryItem::Known(*item),
                ItemRef::New(id) => EntryItem::New(id),
            },
            rating: interaction.rating.unwrap_or(0.0),
            is_purchased: interaction.purchased,
        }
    }
}

/// What was found where a rule fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// None of the items of the rule.
    NoneBought,
    /// One of them; `None`: the reader may not know which.
    Bought {
        item: Option<ItemId>,
    },
    /// Of the history, by rating: 0 to 1.
    Share(f64),
    Affinity(f64),
    NeverBought,
    LastBought {
        at: Timestamp,
    },
    /// The user's value of the attribute, if there is one.
    Attribute(Option<String>),
}

/// For how many users rules are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    One,
    /// What pays off only for many is done once for all of them.
    Many,
}

/// The rules of an offer, their names looked up in a view.
#[derive(Debug)]
pub struct CompiledRules<'a> {
    /// One a rule.
    conditions: Vec<Condition<'a>>,
}

#[derive(Debug)]
enum Condition<'a> {
    Bought(NamedItems<'a>),
    NotBought(NamedItems<'a>),
    CategoryAffinity {
        category: NamedCategory<'a>,
        min_share: f64,
    },
    MinAffinity {
        affinity: CoveredAffinity<'a>,
        min_score: f64,
    },
    NewUser,
    LapsedUser {
        days: u32,
    },
    Attribute {
        name: &'a str,
        values: &'a [String],
    },
}

impl<'a> CompiledRules<'a> {
    /// `view`: `None` where no rule needs the history, see [`Rule::needs_history`].
    pub fn new(offer: &'a Offer, view: Option<&View>, users: Users) -> Self {
        let rules = offer.coupon.rules.iter();
        Self {
            conditions: rules.map(|rule| Condition::new(rule, offer, view, users)).collect(),
        }
    }

    /// Whether rule number `rule` is about what the user did.
    pub(super) fn needs_history(&self, rule: usize) -> bool {
        !matches!(self.conditions[rule], Condition::Attribute { .. })
    }

    pub(super) fn len(&self) -> usize {
        self.conditions.len()
    }

    /// Whether rule number `rule` holds; if not, what was seen instead.
    ///
    /// `attributes`: name and value, ascending by name. `history`: of the view that the rules were looked up in; `None` for
    /// a user who did nothing.
    pub(super) fn check(
        &self,
        rule: usize,
        attributes: &[(String, String)],
        history: Option<&History<'_>>,
        now: Timestamp,
    ) -> Result<(), Seen> {
        let last_order_at = || history.and_then(History::last_order_at);
        match &self.conditions[rule] {
            Condition::Bought(set) => match history.and_then(|history| set.bought(history).next()) {
                Some(_) => Ok(()),
                None => Err(Seen::NoneBought),
            },
            Condition::NotBought(set) => match history.and_then(|history| set.bought_id(history)) {
                Some(item) => Err(Seen::Bought { item: Some(item) }),
                None => Ok(()),
            },
            Condition::CategoryAffinity { category, min_share } => {
                let share = history.map_or(0.0, |history| category.share(history));
                holds(share >= *min_share, || Seen::Share(share))
            }
            Condition::MinAffinity { affinity, min_score } => {
                let score = history.map_or(0.0, |history| affinity.of(history));
                holds(score >= *min_score, || Seen::Affinity(score))
            }
            Condition::NewUser => match last_order_at() {
                None => Ok(()),
                Some(at) => Err(Seen::LastBought { at }),
            },
            Condition::LapsedUser { days } => match last_order_at() {
                None => Err(Seen::NeverBought),
                Some(at) => {
                    let is_lapsed = now - at >= Duration::days(i64::from(*days));
                    holds(is_lapsed, || Seen::LastBought { at })
                }
            },
            Condition::Attribute { name, values } => {
                let position = attributes.binary_search_by(|(own, _)| own.as_str().cmp(name)).ok();
                let value = position.map(|position| &attributes[position].1);
                let is_among = value.is_some_and(|value| values.contains(value));
                holds(is_among, || Seen::Attribute(value.cloned()))
            }
        }
    }
}

fn holds(holds: bool, seen: impl FnOnce() -> Seen) -> Result<(), Seen> {
    match holds {
        true => Ok(()),
        false => Err(seen()),
    }
}

impl<'a> Condition<'a> {
    fn new(rule: &'a Rule, offer: &'a Offer, view: Option<&View>, users: Users) -> Self {
        match rule {
            Rule::Bought(set) => Self::Bought(NamedItems::new(set, offer, view)),
            Rule::NotBought(set) => Self::NotBought(NamedItems::new(set, offer, view)),
            Rule::CategoryAffinity { category, min_share } => Self::CategoryAffinity {
                category: NamedCategory::new(category, offer, view),
                min_share: *min_share,
            },
            Rule::MinAffinity { min_score } => Self::MinAffinity {
                affinity: CoveredAffinity::new(offer, view, users),
                min_score: *min_score,
            },
            Rule::NewUser => Self::NewUser,
            Rule::LapsedUser { days } => Self::LapsedUser { days: *days },
            Rule::Attribute { name, values } => Self::Attribute { name, values },
        }
    }
}

/// A set of items whose names have been looked up: an item of the snapshot is checked by its dense columns. Only one
/// whose facts have changed since, or that has come since, is compared by name.
#[derive(Debug, Clone)]
struct NamedItems<'a> {
    set: &'a ItemSet,
    seller: Seller<'a>,
    /// Ascending.
    items: Vec<ItemIndex>,
    /// One bit a category of the catalog.
    categories: Bits,
    /// One bit a merchant of the catalog.
    merchants: Bits,
}

impl<'a> NamedItems<'a> {
    fn new(set: &'a ItemSet, offer: &'a Offer, view: Option<&View>) -> Self {
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
            // As the ids ascend, so do the indices.
            items: items.collect(),
            categories: positions(&catalog.categories, set.categories.iter().map(Category::as_str)),
            merchants: positions(&catalog.merchants, set.merchants.iter().map(MerchantId::as_str)),
        }
    }

    /// Those of the set that the user has bought.
    fn bought<'h>(&self, history: &History<'h>) -> impl Iterator<Item = EntryItem<'h>> {
        let items = history
            .entries()
            .filter(|entry| entry.is_purchased)
            .map(|entry| entry.item);
        items.filter(|item| self.contains(*item, history.view) && self.seller.sells(*item, history.view))
    }

    /// The first of them by id, those that the snapshot knows before all others.
    fn bought_id(&self, history: &History<'_>) -> Option<ItemId> {
        match self.bought(history).min()? {
            EntryItem::Known(item) => ItemId::new(history.view.item_id(item)).ok(),
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

/// Whose items the rules of a campaign see: a merchant whose name has been looked up; `None`: everybody's.
#[derive(Debug, Clone, Copy)]
struct Seller<'a>(Option<Named<'a>>);

/// A name of the catalog.
#[derive(Debug, Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    /// In the snapshot's catalog.
    position: Option<usize>,
}

impl Named<'_> {
    /// Whether an item has this name in a column. `dense`: the column of the snapshot; `fact`: the same of one item.
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
    fn of(offer: &'a Offer, view: Option<&View>) -> Self {
        Self(offer.merchant().map(|name| Named {
            name,
            position: view.and_then(|view| view.snapshot.catalog().merchants.find(name)),
        }))
    }

    fn sells(self, item: EntryItem<'_>, view: &View) -> bool {
        let is_own = |own: Named<'_>| own.is_of(item, view, |catalog| &catalog.merchant_of, |facts| facts.merchant);
        self.0.is_none_or(is_own)
    }
}

/// A category whose name has been looked up.
#[derive(Debug, Clone)]
struct NamedCategory<'a> {
    category: Named<'a>,
    seller: Seller<'a>,
}

impl<'a> NamedCategory<'a> {
    fn new(category: &'a Category, offer: &'a Offer, view: Option<&View>) -> Self {
        let name = category.as_str();
        Self {
            category: Named {
                name,
                position: view.and_then(|view| view.snapshot.catalog().categories.find(name)),
            },
            seller: Seller::of(offer, view),
        }
    }

    /// Its share of the sum of the user's effective ratings of what the seller sells; 0 without any.
    fn share(&self, history: &History<'_>) -> f64 {
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

/// The affinity to what an offer covers, from the snapshot alone, as targets are ranked by.
#[derive(Debug)]
struct CoveredAffinity<'a> {
    offer: &'a Offer,
    /// w_j of every item, where many users are to be judged.
    weights: Option<Vec<f64>>,
}

impl<'a> CoveredAffinity<'a> {
    fn new(offer: &'a Offer, view: Option<&View>, users: Users) -> Self {
        let view_of_many = view.filter(|_| users == Users::Many);
        Self {
            offer,
            weights: view_of_many.map(|view| weights(&view.snapshot, &covered(&view.snapshot, offer))),
        }
    }

    /// 0 for a user that has come after the snapshot.
    fn of(&self, history: &History<'_>) -> f64 {
        let (Some(user), snapshot) = (history.index, &history.view.snapshot) else {
            return 0.0;
        };
        match &self.weights {
            Some(weights) => weighted_affinity(snapshot, weights, user),
            None => affinity_of(snapshot, |item| is_covered(snapshot, self.offer, item), user),
        }
    }
}

/// The bits of `names` in the ascending `texts`.
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
