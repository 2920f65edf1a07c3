//! Whom an answer is for: their ratings at this moment and their neighbors.

use std::borrow::Cow;

use crate::domain::id::UserId;
use crate::model::dictionary::{ItemIndex, UserIndex};
use crate::model::snapshot::Snapshot;
use crate::model::view::{History, View};

/// A user or a session. Without ratings there are no neighbors either: who has withdrawn all of their ratings is
/// treated as somebody unknown.
pub(super) struct Shopper<'a> {
    snapshot: &'a Snapshot,
    /// Ascending.
    items: Cow<'a, [u32]>,
    /// Effective ratings of `items`, above 0.
    ratings: Cow<'a, [f32]>,
    purchased: Purchased,
    neighbors: (&'a [u32], &'a [f32]),
    unchanged: Option<UserIndex>,
}

/// Which of the items have been bought.
enum Purchased {
    /// As the snapshot says, whose entries of the user begin here.
    InSnapshot { first: usize },
    /// One an item.
    Present(Vec<bool>),
}

impl<'a> Shopper<'a> {
    pub fn of_user(view: &'a View, user: &UserId) -> Self {
        let index = view.user(user);
        match index {
            // The common case copies nothing.
            Some(index) if view.overlay.interactions(user).is_empty() => Self::of_index(view, index),
            _ => Self::of_history(&view.snapshot, index, &view.history(user)),
        }
    }

    /// As the snapshot knows them, without what has changed since.
    pub fn of_index(view: &'a View, user: UserIndex) -> Self {
        let snapshot = &view.snapshot;
        let (items, ratings) = snapshot.ratings().row(user.at());
        Self {
            snapshot,
            items: items.into(),
            ratings: ratings.into(),
            purchased: Purchased::InSnapshot {
                first: snapshot.ratings().row_range(user.at()).start,
            },
            neighbors: neighbors_of(snapshot, Some(user), items.is_empty()),
            unchanged: Some(user),
        }
    }

    pub fn of_session(view: &'a View, history: &History) -> Self {
        Self::of_history(&view.snapshot, None, history)
    }

    fn of_history(snapshot: &'a Snapshot, user: Option<UserIndex>, history: &History) -> Self {
        // A rating of 0 is none; with it an item could be met twice by whoever takes a score of 0 for "not yet met".
        let entries = || history.entries().iter().filter(|entry| entry.rating > 0.0);
        let items: Vec<u32> = entries().map(|entry| entry.item.0).collect();
        Self {
            snapshot,
            neighbors: neighbors_of(snapshot, user, items.is_empty()),
            items: items.into(),
            ratings: entries().map(|entry| entry.rating).collect(),
            purchased: Purchased::Present(entries().map(|entry| entry.purchased).collect()),
            unchanged: None,
        }
    }

    pub fn has_ratings(&self) -> bool {
        !self.items.is_empty()
    }

    /// Items and ratings, ascending by item.
    pub fn ratings(&self) -> impl Iterator<Item = (ItemIndex, f32)> {
        self.items
            .iter()
            .zip(&*self.ratings)
            .map(|(&item, &rating)| (ItemIndex(item), rating))
    }

    pub fn rating(&self, item: ItemIndex) -> Option<f32> {
        self.position(item).map(|position| self.ratings[position])
    }

    pub fn has_rated(&self, item: ItemIndex) -> bool {
        self.position(item).is_some()
    }

    pub fn has_purchased(&self, item: ItemIndex) -> bool {
        self.position(item).is_some_and(|position| match &self.purchased {
            Purchased::InSnapshot { first } => self.snapshot.is_purchased(first + position),
            Purchased::Present(purchased) => purchased[position],
        })
    }

    /// Similar users, best first, and their similarities; none for a session and for a user newer than the snapshot.
    pub fn neighbors(&self) -> impl Iterator<Item = (UserIndex, f32)> + use<'a> {
        let (users, similarities) = self.neighbors;
        users
            .iter()
            .zip(similarities)
            .map(|(&user, &similarity)| (UserIndex(user), similarity))
    }

    /// Their row in the snapshot, when the ratings are still those.
    pub fn unchanged(&self) -> Option<UserIndex> {
        self.unchanged
    }

    fn position(&self, item: ItemIndex) -> Option<usize> {
        self.items.binary_search(&item.0).ok()
    }
}

fn neighbors_of(snapshot: &Snapshot, user: Option<UserIndex>, has_no_ratings: bool) -> (&[u32], &[f32]) {
    match user {
        Some(user) if !has_no_ratings => snapshot.user_neighbors().row(user.at()),
        _ => (&[], &[]),
    }
}
