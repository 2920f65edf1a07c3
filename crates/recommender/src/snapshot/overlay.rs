//! Changes since a snapshot was trained: ratings, purchases, catalog entries and consents.
//!
//! An overlay is a value: applying a change to a clone leaves the original as it was. Clones share their common entries,
//! so that a reader keeps its own overlay while the next one is made.

use std::sync::Arc;

use imbl::HashMap;

use domain::consent::Consents;
use domain::id::{ItemId, UserId};
use domain::item::ItemFacts;

use super::catalog::Facts;
use super::dictionary::ItemIndex;
use crate::snapshot::Snapshot;

/// The present state of one (user, item), of one item, or of the consents of one user.
#[derive(Debug, Clone, PartialEq)]
pub enum FreshChange {
    Interaction {
        user: UserId,
        item: ItemId,
        /// The explicit rating, if there is one.
        rating: Option<f32>,
        /// Distinct orders with a net quantity above 0.
        orders: u32,
        /// The time of the last of these orders, in seconds since 1970; 0 without any.
        last_order_at: i64,
    },
    Item {
        item: ItemId,
        facts: ItemFacts,
    },
    Consents {
        user: UserId,
        consents: Consents,
    },
}

/// An item of the snapshot, or one that was added since.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemRef {
    Known(ItemIndex),
    New(ItemId),
}

/// The present state of a (user, item) that has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct FreshInteraction {
    pub item: ItemRef,
    /// The effective rating; `None` when there is none any more.
    pub rating: Option<f32>,
    pub purchased: bool,
    /// The time of the last order, in seconds since 1970; 0 without any.
    pub last_order_at: i64,
}

/// The changed interactions of one user.
#[derive(Debug, Clone, Default)]
struct FreshHistory {
    /// The number of the last change.
    changed: u64,
    /// Ascending by item.
    interactions: Vec<FreshInteraction>,
}

#[derive(Debug, Clone, Default)]
pub struct Overlay {
    users: HashMap<UserId, Arc<FreshHistory>>,
    known_items: HashMap<ItemIndex, Arc<ItemFacts>>,
    new_items: HashMap<ItemId, Arc<ItemFacts>>,
    consents: HashMap<Arc<str>, Consents>,
    /// The number of changes so far.
    changes: u64,
    /// The number of the last change of an item of the snapshot.
    items_changed: u64,
    entries: usize,
    dropped: u64,
}

impl Overlay {
    /// Applies `change` over `snapshot`. Applying a state twice, or an older one before a newer one, leaves the newer.
    ///
    /// A new entry past `max_entries` is dropped and counted. Changes of existing entries are always applied, and so are
    /// changes of entries of the snapshot, whose number is bounded: a deletion or a delisting always shows.
    pub fn apply(&mut self, snapshot: &Snapshot, change: FreshChange, max_entries: usize) {
        self.changes += 1;
        match change {
            FreshChange::Interaction {
                user,
                item,
                rating,
                orders,
                last_order_at,
            } => {
                let interaction = FreshInteraction {
                    item: item_ref(snapshot, item),
                    rating: snapshot.parameters().effective_rating(rating, orders),
                    purchased: orders > 0,
                    last_order_at,
                };
                let has_room = self.entries < max_entries || holds(snapshot, &user, &interaction.item);
                self.apply_interaction(user, interaction, has_room);
            }
            FreshChange::Item { item, facts } => {
                let facts = Arc::new(facts);
                let is_new = match item_ref(snapshot, item) {
                    ItemRef::Known(index) => {
                        self.items_changed = self.changes;
                        Some(self.known_items.insert(index, facts).is_none())
                    }
                    ItemRef::New(id) => {
                        let room = self.entries < max_entries || self.new_items.contains_key(&id);
                        room.then(|| self.new_items.insert(id, facts).is_none())
                    }
                };
                self.count(is_new);
            }
            // Never dropped, because a refusal holds at once.
            FreshChange::Consents { user, consents } => {
                let is_new = self.consents.insert(user.as_str().into(), consents).is_none();
                self.count(Some(is_new));
            }
        }
    }

    fn apply_interaction(&mut self, user: UserId, interaction: FreshInteraction, has_room: bool) {
        let known = self.interactions(&user);
        let position = known.binary_search_by(|entry| entry.item.cmp(&interaction.item));
        let is_new = match position {
            Err(_) if !has_room => None,
            _ => {
                let history = Arc::make_mut(self.users.entry(user).or_default());
                history.changed = self.changes;
                match position {
                    Ok(position) => history.interactions[position] = interaction,
                    Err(position) => history.interactions.insert(position, interaction),
                }
                Some(position.is_err())
            }
        };
        self.count(is_new);
    }

    /// Counts an entry that was added (`true`), changed (`false`) or dropped (`None`).
    fn count(&mut self, is_new: Option<bool>) {
        match is_new {
            Some(is_new) => self.entries += usize::from(is_new),
            None => self.dropped += 1,
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The number of changes that were dropped because the overlay was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns all users with changed interactions, in no order.
    pub fn users(&self) -> impl Iterator<Item = &UserId> {
        self.users.keys()
    }

    /// Returns the changed interactions of `user`, ascending by item: first those of items of the snapshot, by index.
    pub fn interactions(&self, user: &UserId) -> &[FreshInteraction] {
        self.users.get(user).map_or(&[], |history| &history.interactions)
    }

    /// Returns a number that differs after every change of the [`interactions`](Self::interactions) of `user`.
    pub fn user_changed(&self, user: &UserId) -> u64 {
        self.users.get(user).map_or(0, |history| history.changed)
    }

    /// Returns a number that differs after every change of an item of the snapshot.
    pub fn items_changed(&self) -> u64 {
        self.items_changed
    }

    /// Returns the consents of `user` where they have changed.
    pub fn consents(&self, user: &str) -> Option<Consents> {
        self.consents.get(user).copied()
    }

    pub fn has_consents(&self) -> bool {
        !self.consents.is_empty()
    }

    /// Returns the facts of an item of the snapshot where they have changed.
    pub fn known_item(&self, item: ItemIndex) -> Option<Facts<'_>> {
        // Most overlays change no item at all, and then the hash can be saved.
        if self.known_items.is_empty() {
            return None;
        }
        self.known_items.get(&item).map(|facts| borrow(facts))
    }

    /// Returns the facts of an item that was added after the snapshot.
    pub fn new_item(&self, item: &ItemId) -> Option<Facts<'_>> {
        self.new_items.get(item).map(|facts| borrow(facts))
    }

    /// Returns the items of the snapshot whose facts have changed, in no order.
    pub fn changed_items(&self) -> impl Iterator<Item = (ItemIndex, Facts<'_>)> {
        self.known_items.iter().map(|(&item, facts)| (item, borrow(facts)))
    }

    /// The number of [`changed_items`](Self::changed_items).
    pub fn n_changed_items(&self) -> usize {
        self.known_items.len()
    }

    /// Returns the items that were added after the snapshot, in no order.
    pub fn new_items(&self) -> impl Iterator<Item = (&ItemId, Facts<'_>)> {
        self.new_items.iter().map(|(item, facts)| (item, borrow(facts)))
    }

    /// Whether an item of this id was added after the snapshot.
    pub fn has_new_item(&self, item: &str) -> bool {
        self.new_items.contains_key(item)
    }
}

fn item_ref(snapshot: &Snapshot, item: ItemId) -> ItemRef {
    match snapshot.items().find(item.as_str()) {
        Some(index) => ItemRef::Known(index),
        None => ItemRef::New(item),
    }
}

/// Whether `user` has an effective rating of `item` in the snapshot.
fn holds(snapshot: &Snapshot, user: &UserId, item: &ItemRef) -> bool {
    let ItemRef::Known(item) = item else { return false };
    let Some(user) = snapshot.users().find(user.as_str()) else {
        return false;
    };
    snapshot.ratings().row(user.at()).position(*item).is_some()
}

fn borrow(facts: &ItemFacts) -> Facts<'_> {
    Facts {
        title: facts.title.as_deref().unwrap_or(""),
        category: facts.category.as_ref().map(|category| category.as_str()),
        merchant: facts.merchant.as_ref().map(|merchant| merchant.as_str()),
        price: facts.price,
        listed: facts.listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture::{self, item_id, user_id};

    #[test]
    fn a_full_overlay_still_takes_changes_of_entries_of_the_snapshot() {
        let snapshot = fixture::snapshot(&fixture::EXAMPLE);
        let mut overlay = Overlay::default();
        let mut check = |change: FreshChange, expected: (usize, u64)| {
            overlay.apply(&snapshot, change.clone(), 1);
            assert_eq!((overlay.len(), overlay.dropped()), expected, "{change:?}");
        };
        let interaction = |user: &str, item: &str, rating: Option<f32>| FreshChange::Interaction {
            user: user_id(user),
            item: item_id(item),
            rating,
            orders: 0,
            last_order_at: 0,
        };
        let delisted = |item: &str| FreshChange::Item {
            item: item_id(item),
            facts: ItemFacts {
                listed: false,
                ..ItemFacts::default()
            },
        };
        check(interaction("new", "i0", Some(3.0)), (1, 0));
        check(interaction("newer", "i0", Some(3.0)), (1, 1));
        check(interaction("u0", "i0", None), (2, 1));
        check(interaction("u0", "i3", Some(5.0)), (3, 1));
        check(interaction("u0", "i1", Some(5.0)), (3, 2));
        check(interaction("u0", "new", Some(5.0)), (3, 3));
        check(delisted("i1"), (4, 3));
        check(delisted("new"), (4, 4));
        check(interaction("new", "i0", None), (4, 4));
        assert!(overlay.interactions(&user_id("u0"))[0].rating.is_none());
        assert!(!overlay.known_item(ItemIndex(1)).unwrap().listed);
    }
}
