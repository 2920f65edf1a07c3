//! The history of a user: what the snapshot knows, and what is newer.

use domain::id::{ItemId, UserId};
use domain::time::Timestamp;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::snapshot::overlay::{FreshInteraction, ItemRef, LastOrders};
use recommender::snapshot::parameters::ImplicitFeedback;
use recommender::snapshot::view::{HistoryEntry, View};

use super::names::Seller;

/// The present history of a user: ratings and purchases in the snapshot, overlaid by newer ones.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    pub(super) view: &'a View,
    pub(super) index: Option<UserIndex>,
    fresh: &'a [FreshInteraction],
    /// The times of the last orders when purchases were last taken back; `None` if that has not happened since the snapshot.
    taken_back: Option<&'a LastOrders>,
}

impl<'a> History<'a> {
    /// Returns the history of `user`, whether the snapshot knows them or not.
    pub fn of_user(view: &'a View, user: &UserId) -> Self {
        Self::new(view, view.user(user), user)
    }

    /// Returns the history of `user`. `index`: that of `user` in the snapshot, `None` if it does not know them.
    pub fn new(view: &'a View, index: Option<UserIndex>, user: &UserId) -> Self {
        let fresh = view.overlay.interactions(user);
        Self {
            view,
            index,
            fresh,
            taken_back: view.overlay.last_orders(user),
        }
    }

    /// Returns all items that the user has rated or bought, in a fixed order: first those of the snapshot that have not
    /// changed since, then the changed and new ones.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
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

    /// Returns when the user last ordered something from `seller` that they have not returned since.
    ///
    /// Until the next snapshot, or until some of the user's purchases are taken back, an order of an item that has changed its
    /// merchant counts for its merchant before.
    pub(super) fn last_order(&self, seller: Seller<'_>) -> LastOrder {
        let (snapshot, activity) = (&self.view.snapshot, self.view.snapshot.activity());
        let stored = match (self.taken_back, self.index, seller.one()) {
            (Some(last), _, one) => {
                let at = one.map_or(last.at, |merchant| last.from_merchant(merchant.name));
                at.map_or(StoredOrder::None, StoredOrder::At)
            }
            (None, None, _) => StoredOrder::None,
            (None, Some(user), None) => match activity.orders[user.at()] {
                0 => StoredOrder::None,
                _ => StoredOrder::At(activity.last_order_at[user.at()]),
            },
            (None, Some(user), Some(merchant)) => match (snapshot.merchant_orders(), merchant.position) {
                (Err(_), _) => StoredOrder::NotTrained,
                (Ok(_), None) => StoredOrder::None,
                (Ok(orders), Some(merchant)) => match orders.last_order_at(user.at(), merchant) {
                    None => StoredOrder::None,
                    Some(at) => StoredOrder::At(at),
                },
            },
        };
        let own = |entry: &Entry<'_>| entry.is_purchased && seller.sells(entry.item, self.view);
        // If purchases are no ratings, the snapshot does not know which of them were returned since.
        let has_unrated_orders =
            snapshot.parameters().options.implicit == ImplicitFeedback::Off && stored != StoredOrder::None;
        if !has_unrated_orders && !self.entries().any(|entry| own(&entry)) {
            return LastOrder::Never;
        }
        let fresh = self.fresh.iter().filter(|interaction| own(&Entry::fresh(interaction)));
        let fresh = fresh.map(|interaction| interaction.last_order_at).max();
        let last = match stored {
            StoredOrder::NotTrained => None,
            StoredOrder::None => fresh,
            StoredOrder::At(at) => fresh.max(Some(at)),
        };
        let at = last.and_then(|last| Timestamp::from_timestamp(last, 0));
        at.map_or(LastOrder::NotTrained, LastOrder::At)
    }
}

/// The time of a user's last order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastOrder {
    /// The user has bought nothing, or returned everything.
    Never,
    At(Timestamp),
    /// The user has bought something, and the snapshot does not tell when.
    NotTrained,
}

/// The time of the last order that a snapshot tells, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoredOrder {
    None,
    At(i64),
    NotTrained,
}

/// The present state of a pair of user and item.
pub(super) struct Entry<'a> {
    pub item: EntryItem<'a>,
    /// The effective rating; 0 if there is none.
    pub rating: f32,
    pub is_purchased: bool,
}

/// An item of a history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EntryItem<'a> {
    /// An item of the snapshot.
    Known(ItemIndex),
    /// An item that is newer than the snapshot.
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
