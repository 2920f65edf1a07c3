//! The history and the neighbors that an answer rests on.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::ratings::Rated;
use crate::snapshot::view::{History, HistoryEntry, View};
use domain::consent::Purpose;
use domain::id::UserId;

/// A user or a session, with the ratings of this moment and similar users.
///
/// A shopper without ratings has no neighbors either: a user who has withdrawn all ratings is treated like an unknown one,
/// and so is a user who objects to profiling. The history of the latter only serves to leave items out.
pub(crate) struct Shopper<'a> {
    snapshot: &'a Snapshot,
    history: ShopperHistory<'a>,
    is_profiled: bool,
    neighbors: (&'a [u32], &'a [f32]),
    unchanged: Option<UserIndex>,
}

/// Effective ratings, above 0, the most popular item first.
enum ShopperHistory<'a> {
    /// The row of the snapshot; `first` is the position of its first entry among all entries.
    Stored {
        rated: Rated<'a>,
        first: usize,
        user: UserIndex,
    },
    Present(Vec<HistoryEntry>),
}

/// The part of a shopper's own history that an answer leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exclusion {
    Nothing,
    Purchases,
    /// Everything rated or bought.
    History,
}

impl<'a> Shopper<'a> {
    pub fn of_user(view: &'a View, user: &UserId) -> Self {
        let index = view.user(user);
        let is_profiled = match index {
            Some(index) => view.user_allows(index, Purpose::Profiling),
            None => view.allows(user, Purpose::Profiling),
        };
        let shopper = match index {
            // The common case copies nothing.
            Some(index) if view.overlay.interactions(user).is_empty() => Self::of_index(view, index),
            _ => Self::of_history(&view.snapshot, index, &view.history(user)),
        };
        match is_profiled {
            true => shopper,
            false => shopper.without_profile(),
        }
    }

    /// Takes the user as the snapshot knows them: later changes and objections are ignored.
    pub fn of_index(view: &'a View, user: UserIndex) -> Self {
        let snapshot = &view.snapshot;
        let rated = snapshot.ratings().row(user.at());
        let first = snapshot.ratings().row_range(user.at()).start;
        Self {
            snapshot,
            history: ShopperHistory::Stored { rated, first, user },
            is_profiled: true,
            neighbors: neighbors_of(snapshot, Some(user), rated.is_empty()),
            unchanged: Some(user),
        }
    }

    pub fn of_session(view: &'a View, history: &History) -> Self {
        Self::of_history(&view.snapshot, None, history)
    }

    fn of_history(snapshot: &'a Snapshot, user: Option<UserIndex>, history: &History) -> Self {
        // A rating of 0 is none, and `ratings` promises ratings above 0.
        let entries = history.entries().iter().filter(|entry| entry.rating > 0.0);
        let mut entries: Vec<HistoryEntry> = entries.copied().collect();
        // In the order of stored histories, so that the same ratings give the same sums.
        entries.sort_unstable_by_key(|entry| snapshot.popularity().rank(entry.item));
        Self {
            snapshot,
            neighbors: neighbors_of(snapshot, user, entries.is_empty()),
            is_profiled: true,
            history: ShopperHistory::Present(entries),
            unchanged: None,
        }
    }

    fn without_profile(self) -> Self {
        Self {
            is_profiled: false,
            neighbors: (&[], &[]),
            unchanged: None,
            ..self
        }
    }

    /// Tells whether there are [`Self::ratings`].
    pub fn has_ratings(&self) -> bool {
        self.n_ratings() > 0
    }

    /// Returns the items and ratings that an answer may rest on, the most popular item first.
    pub fn ratings(&self) -> impl Iterator<Item = (ItemIndex, f32)> {
        let (stored, present) = match &self.history {
            _ if !self.is_profiled => (None, None),
            ShopperHistory::Stored { rated, .. } => (Some(rated.iter()), None),
            ShopperHistory::Present(entries) => (None, Some(entries)),
        };
        let stored = stored.into_iter().flatten();
        let present = present.into_iter().flatten();
        stored.chain(present.map(|entry| (entry.item, entry.rating)))
    }

    /// Returns the ranks of the items that the user has ordered, with the number of orders, as far as an answer may rest on
    /// them.
    pub fn orders(&self) -> impl Iterator<Item = (u32, u32)> {
        let (stored, present) = match &self.history {
            _ if !self.is_profiled => (None, None),
            ShopperHistory::Stored { rated, first, user } => {
                let (rated, first) = (*rated, *first);
                let bought = (0..rated.len()).filter(move |at| self.snapshot.is_purchased(first + at));
                let counts = self.snapshot.order_counts(*user);
                (
                    Some(
                        bought
                            .zip(counts)
                            .map(move |(at, &orders)| (rated.ranks.get(at), orders)),
                    ),
                    None,
                )
            }
            ShopperHistory::Present(entries) => (None, Some(entries.iter().filter(|entry| entry.orders > 0))),
        };
        let rank = |entry: &HistoryEntry| (self.snapshot.popularity().rank(entry.item), entry.orders);
        let present = present.into_iter().flatten();
        stored.into_iter().flatten().chain(present.map(rank))
    }

    /// Returns the number of [`Self::ratings`].
    pub fn n_ratings(&self) -> usize {
        match &self.history {
            _ if !self.is_profiled => 0,
            ShopperHistory::Stored { rated, .. } => rated.len(),
            ShopperHistory::Present(entries) => entries.len(),
        }
    }

    /// Returns the one of [`Self::ratings`] that is of `item`.
    pub fn rating(&self, item: ItemIndex) -> Option<f32> {
        let position = self.position(item).filter(|_| self.is_profiled)?;
        Some(match &self.history {
            ShopperHistory::Stored { rated, .. } => rated.values.get(position),
            ShopperHistory::Present(entries) => entries[position].rating,
        })
    }

    /// Tells whether `item` is in the part of the history that `exclusion` names, whether or not an answer may rest on it.
    pub fn is_excluded(&self, item: ItemIndex, exclusion: Exclusion) -> bool {
        match exclusion {
            Exclusion::Nothing => false,
            Exclusion::Purchases => self.has_purchased(item),
            Exclusion::History => self.position(item).is_some(),
        }
    }

    pub fn has_purchased(&self, item: ItemIndex) -> bool {
        self.position(item).is_some_and(|position| match &self.history {
            ShopperHistory::Stored { first, .. } => self.snapshot.is_purchased(first + position),
            ShopperHistory::Present(entries) => entries[position].purchased,
        })
    }

    /// Returns similar users, best first, and their similarities. A session, and a user newer than the snapshot, has none.
    pub fn neighbors(&self) -> impl Iterator<Item = (UserIndex, f32)> + use<'a> {
        let (users, similarities) = self.neighbors;
        users
            .iter()
            .zip(similarities)
            .map(|(&user, &similarity)| (UserIndex(user), similarity))
    }

    /// Returns [`Self::neighbors`] as a list of users and one of similarities.
    pub fn neighbor_list(&self) -> (&'a [u32], &'a [f32]) {
        self.neighbors
    }

    /// Returns the user's row in the snapshot if the ratings are still those of the row.
    pub fn unchanged(&self) -> Option<UserIndex> {
        self.unchanged
    }

    fn position(&self, item: ItemIndex) -> Option<usize> {
        match &self.history {
            ShopperHistory::Stored { rated, .. } => rated.position(item),
            ShopperHistory::Present(entries) => {
                let rank = |item| self.snapshot.popularity().rank(item);
                entries.binary_search_by_key(&rank(item), |entry| rank(entry.item)).ok()
            }
        }
    }
}

fn neighbors_of(snapshot: &Snapshot, user: Option<UserIndex>, has_no_ratings: bool) -> (&[u32], &[f32]) {
    match user {
        Some(user) if !has_no_ratings => snapshot.user_neighbors().row(user.at()),
        _ => (&[], &[]),
    }
}
