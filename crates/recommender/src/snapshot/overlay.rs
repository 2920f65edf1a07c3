//! Changes since a snapshot was trained: ratings, purchases, catalog entries and consents.
//!
//! An overlay is a value: applying a change to a clone leaves the original as it was. Clones share their common entries,
//! so that a reader keeps its own overlay while the next one is made.

use std::sync::Arc;

use imbl::{HashMap, HashSet};

use domain::consent::{Consents, PrivacyOptions, Purpose};
use domain::id::{ItemId, MerchantId, UserId};
use domain::item::ItemFacts;

use super::catalog::Facts;
use super::dictionary::{ItemIndex, UserIndex};
use super::order_terms::OrderTerms;
use super::orders::{OrderSums, Orders};
use crate::snapshot::Snapshot;

/// The present state of one (user, item), of one item, or of the last order or the consents of one user.
#[derive(Debug, Clone, PartialEq)]
pub enum FreshChange {
    Interaction {
        user: UserId,
        item: ItemId,
        /// The explicit rating, if there is one.
        rating: Option<f32>,
        /// Distinct orders of which something is left after returns.
        orders: u32,
        /// The time of the last of these orders, in seconds since 1970; 0 without any.
        last_order_at: i64,
        /// The times of these orders, in seconds since 1970, in any order.
        ordered_at: Vec<i64>,
    },
    /// The times of the user's last orders, after some of their purchases were taken back.
    LastOrders {
        user: UserId,
        last_orders: LastOrders,
    },
    Item {
        item: ItemId,
        facts: ItemFacts,
    },
    Consents {
        user: UserId,
        consents: Consents,
    },
    /// The user was erased. Changes of a user with this id that are applied later are those of somebody else.
    Erased {
        user: UserId,
    },
}

/// The times of the last orders of a user of which something is left, in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastOrders {
    /// The last order of all; `None` without one.
    pub at: Option<i64>,
    /// The last order with an item of each merchant; ascending by merchant.
    pub by_merchant: Vec<(MerchantId, i64)>,
}

impl LastOrders {
    /// Returns the time of the last order with an item of `merchant`.
    pub fn from_merchant(&self, merchant: &str) -> Option<i64> {
        let found = self.by_merchant.binary_search_by(|(id, _)| id.as_str().cmp(merchant));
        found.ok().map(|position| self.by_merchant[position].1)
    }
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
    /// Distinct orders of which something is left after returns.
    pub orders: u32,
    /// The amounts that these orders add to the sums of the item.
    sums: OrderSums,
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
    /// Says whose orders may move trends: of those who allow training.
    privacy: PrivacyOptions,
    users: HashMap<UserId, Arc<FreshHistory>>,
    last_orders: HashMap<UserId, Arc<LastOrders>>,
    known_items: HashMap<ItemIndex, Arc<ItemFacts>>,
    new_items: HashMap<ItemId, Arc<ItemFacts>>,
    consents: HashMap<Arc<str>, Consents>,
    /// The ids of users who were erased, with the number of the change.
    erased: HashMap<Arc<str>, u64>,
    /// Those of them whom the snapshot holds as users.
    erased_rows: HashSet<UserIndex>,
    /// Whether the snapshot holds anything of one of them.
    hides_stored: bool,
    /// The present sums of items of the snapshot with changed orders.
    item_orders: HashMap<ItemIndex, OrderSums>,
    /// The present terms from orders, where they differ from those of the snapshot.
    order_terms: Option<Arc<OrderTerms>>,
    /// The number of the last change of these terms.
    order_terms_changed: u64,
    /// The number of changes so far.
    changes: u64,
    /// The number of the last change of an item of the snapshot.
    items_changed: u64,
    entries: usize,
    dropped: u64,
}

impl Overlay {
    /// Makes an overlay without changes. `privacy`: says what it means that a user has nothing on record.
    pub fn new(privacy: PrivacyOptions) -> Self {
        Self {
            privacy,
            ..Self::default()
        }
    }

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
                ordered_at,
            } => {
                let sums = self.counted_sums(snapshot, &user, orders, &ordered_at);
                let interaction = FreshInteraction {
                    item: item_ref(snapshot, item),
                    rating: snapshot.parameters().effective_rating(rating, orders),
                    purchased: orders > 0,
                    last_order_at,
                    orders,
                    sums,
                };
                let has_room = self.entries < max_entries || self.holds(snapshot, &user, &interaction.item);
                self.apply_interaction(snapshot, user, interaction, has_room);
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
            // Never dropped, because what was taken back must not count.
            FreshChange::LastOrders { user, last_orders } => {
                let is_new = self.last_orders.insert(user, Arc::new(last_orders)).is_none();
                self.count(Some(is_new));
            }
            // Never dropped, because a refusal holds at once.
            FreshChange::Consents { user, consents } => {
                let is_new = self.consents.insert(user.as_str().into(), consents).is_none();
                self.count(Some(is_new));
            }
            FreshChange::Erased { user } => self.erase(snapshot, &user),
        }
    }

    /// Forgets what was written of `user`, and hides what the snapshot holds of them.
    fn erase(&mut self, snapshot: &Snapshot, user: &UserId) {
        let history = self.users.remove(user).unwrap_or_default();
        for interaction in &history.interactions {
            // Sums over all users stay as the snapshot has them.
            let stored = self.stored_sums(snapshot, user, &interaction.item);
            self.apply_orders(snapshot, &interaction.item, interaction.sums, stored);
        }
        let had_last_orders = self.last_orders.remove(user).is_some();
        let had_consents = self.consents.remove(user.as_str()).is_some();
        self.entries -= history.interactions.len() + usize::from(had_last_orders) + usize::from(had_consents);
        self.hides_stored |= snapshot.holds(user.as_str());
        self.erased.insert(user.as_str().into(), self.changes);
        if let Some(row) = snapshot.users().find(user.as_str()) {
            self.erased_rows.insert(row);
        }
    }

    /// Whether the snapshot's data under this id are those of a user who was erased.
    pub fn has_erased(&self, user: &str) -> bool {
        // Saves the hash in the common case.
        !self.erased.is_empty() && self.erased.contains_key(user)
    }

    /// Whether a user of the snapshot was erased.
    pub fn has_erased_row(&self, user: UserIndex) -> bool {
        !self.erased_rows.is_empty() && self.erased_rows.contains(&user)
    }

    /// Whether the snapshot holds anything of a user who was erased.
    pub fn hides_stored(&self) -> bool {
        self.hides_stored
    }

    /// Returns the row of `user` in the snapshot; `None` for somebody it does not know, or who was erased.
    pub fn row(&self, snapshot: &Snapshot, user: &UserId) -> Option<UserIndex> {
        let row = snapshot.users().find(user.as_str());
        row.filter(|&row| !self.has_erased_row(row))
    }

    /// Returns the consents that the snapshot has on record for `user`.
    pub fn recorded_consents(&self, snapshot: &Snapshot, user: &UserId) -> Consents {
        match self.has_erased(user.as_str()) {
            true => Consents::default(),
            false => snapshot.consents().of(user.as_str()),
        }
    }

    fn apply_interaction(&mut self, snapshot: &Snapshot, user: UserId, interaction: FreshInteraction, has_room: bool) {
        let known = self.interactions(&user);
        let position = known.binary_search_by(|entry| entry.item.cmp(&interaction.item));
        if position.is_ok() || has_room {
            let before = match position {
                Ok(position) => known[position].sums,
                Err(_) => self.stored_sums(snapshot, &user, &interaction.item),
            };
            self.apply_orders(snapshot, &interaction.item, before, interaction.sums);
        }
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

    /// Returns what the orders of `user` add to the sums of their item: nothing if the user does not allow training.
    ///
    /// `ordered_at`: the times of the orders, in seconds since 1970.
    fn counted_sums(&self, snapshot: &Snapshot, user: &UserId, orders: u32, ordered_at: &[i64]) -> OrderSums {
        let recorded = || self.recorded_consents(snapshot, user);
        let consents = self.consents(user.as_str()).unwrap_or_else(recorded);
        match snapshot.orders() {
            Ok(stored) if self.privacy.allows(consents, Purpose::Training) => {
                Orders::of_pair(orders, stored.recent_of(ordered_at))
            }
            _ => OrderSums::default(),
        }
    }

    /// Whether `user` has an effective rating of `item` in the snapshot.
    fn holds(&self, snapshot: &Snapshot, user: &UserId, item: &ItemRef) -> bool {
        let ItemRef::Known(item) = item else { return false };
        let row = self.row(snapshot, user);
        row.is_some_and(|row| snapshot.ratings().row(row.at()).position(*item).is_some())
    }

    /// Returns what the orders of `user` add to the sums of `item` as of the snapshot.
    fn stored_sums(&self, snapshot: &Snapshot, user: &UserId, item: &ItemRef) -> OrderSums {
        let (ItemRef::Known(item), Ok(orders)) = (item, snapshot.orders()) else {
            return OrderSums::default();
        };
        let Some(user) = self.row(snapshot, user) else {
            return OrderSums::default();
        };
        let bought = snapshot
            .ratings()
            .row_range(user.at())
            .filter(|&at| snapshot.is_purchased(at));
        let bought = bought.zip(orders.row_range(user.at()));
        let position = snapshot.ratings().row(user.at()).position(*item);
        let position = position.map(|position| snapshot.ratings().row_range(user.at()).start + position);
        let entry = bought
            .filter(|&(at, _)| Some(at) == position)
            .map(|(_, entry)| entry)
            .next();
        entry.map_or_else(OrderSums::default, |entry| {
            Orders::of_pair(orders.counts[entry], f64::from(orders.recent[entry]))
        })
    }

    /// Moves the terms of `item` at once when what a user's orders add to its sums has changed from `before` to `after`.
    fn apply_orders(&mut self, snapshot: &Snapshot, item: &ItemRef, before: OrderSums, after: OrderSums) {
        let (ItemRef::Known(item), Ok(orders), Some(terms)) = (item, snapshot.orders(), snapshot.order_terms()) else {
            return;
        };
        if before == after {
            return;
        }
        let sums = self.item_orders.get(item).copied();
        let sums = sums.unwrap_or_else(|| orders.of_item(*item)).changed(before, after);
        self.item_orders.insert(*item, sums);
        let terms = self.order_terms.get_or_insert_with(|| terms.clone());
        Arc::make_mut(terms).update(*item, &sums, snapshot.popularity());
        self.order_terms_changed = self.changes;
    }

    /// Returns the present terms from orders, where they differ from those of the snapshot.
    pub fn order_terms(&self) -> Option<&OrderTerms> {
        self.order_terms.as_deref()
    }

    /// Returns a number that differs after every change of [`Self::order_terms`].
    pub fn order_terms_changed(&self) -> u64 {
        self.order_terms_changed
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

    /// Returns a number that differs after every change of the [`interactions`](Self::interactions) of `user`, and after their
    /// erasure.
    pub fn user_changed(&self, user: &UserId) -> u64 {
        let erased = || match self.erased.is_empty() {
            true => 0,
            false => self.erased.get(user.as_str()).copied().unwrap_or(0),
        };
        self.users.get(user).map_or_else(erased, |history| history.changed)
    }

    /// Returns a number that differs after every change of an item of the snapshot.
    pub fn items_changed(&self) -> u64 {
        self.items_changed
    }

    /// Returns the times of the last orders of `user` as they were when some of their purchases were last taken back; `None` if
    /// nothing was taken back. Orders since then are among the [`interactions`](Self::interactions).
    pub fn last_orders(&self, user: &UserId) -> Option<&LastOrders> {
        self.last_orders.get(user).map(|last_orders| &**last_orders)
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
    use crate::snapshot::parts::Optional;
    use crate::snapshot::settings::FittedSettings;

    fn ordered(user: &str, item: &str, ordered_at: &[i64]) -> FreshChange {
        FreshChange::Interaction {
            user: user_id(user),
            item: item_id(item),
            rating: None,
            orders: ordered_at.len() as u32,
            last_order_at: ordered_at.iter().copied().max().unwrap_or(0),
            ordered_at: ordered_at.to_vec(),
        }
    }

    /// The example, in which u0 has ordered i3 twice, with a trend in the scores and own habits.
    fn trending() -> Snapshot {
        let mut parts = fixture::snapshot_parts(&fixture::EXAMPLE);
        fixture::buy(&mut parts, 0, &[3]);
        parts.orders = Optional::Present(fixture::orders(&parts, |_| 2, 0.5));
        let mut settings = FittedSettings::default();
        settings.new_items.trend_exponent = 1.0;
        settings.all_items.habit_weight = 1.0;
        parts.fitted_settings = Optional::Present(settings);
        Snapshot::new(parts).unwrap()
    }

    fn applied(snapshot: &Snapshot, changes: &[FreshChange]) -> Overlay {
        let mut overlay = Overlay::default();
        for change in changes {
            overlay.apply(snapshot, change.clone(), usize::MAX);
        }
        overlay
    }

    #[test]
    fn a_fresh_order_moves_the_terms_of_its_item_at_once() {
        let snapshot = trending();
        let terms = |overlay: &Overlay, item: u32| {
            let terms = overlay.order_terms().unwrap_or_else(|| snapshot.order_terms().unwrap());
            let rank = snapshot.popularity().rank(ItemIndex(item));
            let trend = terms.new_items.as_ref().unwrap().by_rank().value(rank);
            (trend, terms.repeat_rates.as_ref().unwrap()[rank as usize])
        };
        let near = |(trend, rate): (f64, f64), expected: (f64, f64)| {
            assert!(
                (trend - expected.0).abs() < 1e-6 && (rate - expected.1).abs() < 1e-6,
                "{trend} {rate}"
            );
        };
        let stored = applied(&snapshot, &[]);
        // φ = 0.5 and ρ = 1: item 3 has two orders by one buyer, item 1 none.
        near(terms(&stored, 3), ((1.0 + 2.5) / 7.0 / 0.5, 1.0));
        near(terms(&stored, 1), (1.0, 1.0));
        assert_eq!(stored.order_terms_changed(), 0);
        // The newest order of the snapshot counts 1, one a week later 2.
        let newest = 7 * 86_400;
        let fresh = applied(&snapshot, &[ordered("new", "i1", &[newest, 2 * newest])]);
        near(terms(&fresh, 1), ((3.0 + 2.5) / 7.0 / 0.5, 1.0));
        near(terms(&fresh, 3), terms(&stored, 3));
        assert_ne!(fresh.order_terms_changed(), 0);
        // The same state again changes nothing, and a return takes the order away.
        let again = applied(
            &snapshot,
            &[
                ordered("new", "i1", &[newest, 2 * newest]),
                ordered("new", "i1", &[newest, 2 * newest]),
            ],
        );
        assert_eq!(terms(&again, 1), terms(&fresh, 1));
        let returned = applied(
            &snapshot,
            &[
                ordered("u0", "i3", &[]),
                ordered("new", "i1", &[newest]),
                ordered("new", "i1", &[]),
            ],
        );
        near(terms(&returned, 1), (1.0, 1.0));
        near(terms(&returned, 3), (1.0, 1.0));
        // One order is left of the two that the snapshot knows.
        near(
            terms(&applied(&snapshot, &[ordered("u0", "i3", &[0])]), 3),
            ((0.5 + 2.5) / 6.0 / 0.5, 20.0 / 21.0),
        );
    }

    #[test]
    fn servers_that_read_changes_in_different_order_have_the_same_terms() {
        let snapshot = trending();
        let changes = [
            ordered("u0", "i3", &[5, 77_777]),
            ordered("u1", "i1", &[12_345]),
            ordered("u2", "i1", &[99_999, 3, 1_000_000]),
            ordered("new", "i3", &[54_321]),
        ];
        let backwards: Vec<FreshChange> = changes.iter().rev().cloned().collect();
        assert_eq!(
            applied(&snapshot, &changes).order_terms(),
            applied(&snapshot, &backwards).order_terms()
        );
    }

    #[test]
    fn orders_of_users_who_refuse_training_move_no_trend() {
        let snapshot = trending();
        let refused = FreshChange::Consents {
            user: user_id("new"),
            consents: Consents::default().with(Purpose::Training, Some(false)),
        };
        let order = ordered("new", "i1", &[0]);
        assert!(applied(&snapshot, &[refused, order.clone()]).order_terms().is_none());
        let mut strict = Overlay::new(PrivacyOptions {
            training_without_record: false,
            ..PrivacyOptions::default()
        });
        strict.apply(&snapshot, order, usize::MAX);
        assert!(strict.order_terms().is_none());
        assert_eq!(strict.interactions(&user_id("new"))[0].orders, 1);
    }

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
            ordered_at: Vec::new(),
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
