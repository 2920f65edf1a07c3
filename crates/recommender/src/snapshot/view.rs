//! The state that one request sees: a snapshot and the overlay of changes since. A request clones it once at its start and
//! passes it down.

use std::sync::Arc;

use domain::consent::{Consents, PrivacyOptions, Purpose};
use domain::id::{ItemId, UserId};

use super::catalog::Facts;
use super::dictionary::{ItemIndex, UserIndex};
use super::order_terms::OrderTerms;
use super::overlay::{ItemRef, Overlay};
use crate::snapshot::Snapshot;

#[derive(Debug, Clone)]
pub struct View {
    pub version: i64,
    /// Counts how often erased users were removed from the bytes of this version.
    pub redaction: i64,
    pub snapshot: Arc<Snapshot>,
    pub overlay: Arc<Overlay>,
    /// A number that all views share whose overlays have grown out of one another.
    pub epoch: u64,
    /// Says what it means that a user has nothing on record.
    pub privacy: PrivacyOptions,
}

/// Identifies the state behind an answer about one user, or about nobody. While the stamp is equal, so is the answer to the
/// same question, unless it names items that the snapshot does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    epoch: u64,
    items_changed: u64,
    /// A number that differs after every change of the terms of ranking scores that follow from everybody's orders; 0 where the
    /// answer does not rest on them.
    order_terms_changed: u64,
    user_changed: u64,
    /// The user's consents, where they have changed since the snapshot.
    consents: Option<Consents>,
}

/// The state that an answer rests on beside the snapshot and its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampedState {
    /// The user's own history and consents.
    User,
    /// These, and everybody's orders, which trends follow from.
    UserAndOrders,
}

/// One item of a user's history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryEntry {
    pub item: ItemIndex,
    /// Effective rating, above 0.
    pub rating: f32,
    pub purchased: bool,
    /// Distinct orders of the item.
    pub orders: u32,
}

/// The items of the snapshot that a user has rated or bought, ascending by index, each once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    entries: Vec<HistoryEntry>,
}

impl History {
    /// Takes `entries` in any order; of two entries for one item the one with the higher rating stays.
    pub fn new(mut entries: Vec<HistoryEntry>) -> Self {
        entries.sort_unstable_by(|a, b| a.item.cmp(&b.item).then(b.rating.total_cmp(&a.rating)));
        entries.dedup_by_key(|entry| entry.item);
        Self { entries }
    }

    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }
}

impl View {
    /// Returns the row of `user` in the snapshot; `None` for a user that was added since, or was erased.
    pub fn user(&self, user: &UserId) -> Option<UserIndex> {
        self.overlay.row(&self.snapshot, user)
    }

    /// Whether a user of the snapshot was erased since: nobody may be told of them.
    pub fn is_erased(&self, user: UserIndex) -> bool {
        self.overlay.has_erased_row(user)
    }

    /// `None` for an item that neither the snapshot nor the overlay knows.
    pub fn item(&self, item: &ItemId) -> Option<ItemRef> {
        match self.snapshot.items().find(item.as_str()) {
            Some(index) => Some(ItemRef::Known(index)),
            None => self.overlay.new_item(item).map(|_| ItemRef::New(item.clone())),
        }
    }

    /// Returns the stamp of answers about `user`, or about nobody, that rest on `state`. Statements about items that were added
    /// after the snapshot may change under an equal stamp.
    pub fn stamp(&self, user: Option<&UserId>, state: StampedState) -> Stamp {
        Stamp {
            epoch: self.epoch,
            items_changed: self.overlay.items_changed(),
            order_terms_changed: match state {
                StampedState::User => 0,
                StampedState::UserAndOrders => self.overlay.order_terms_changed(),
            },
            user_changed: user.map_or(0, |user| self.overlay.user_changed(user)),
            consents: user.and_then(|user| self.overlay.consents(user.as_str())),
        }
    }

    /// Whether nobody has any consents on record.
    pub fn has_no_consents(&self) -> bool {
        !self.overlay.has_consents() && self.snapshot.consents().ids().is_empty()
    }

    /// Returns the consents that `user` has on record now.
    pub fn consents(&self, user: &UserId) -> Consents {
        let recorded = || self.overlay.recorded_consents(&self.snapshot, user);
        self.overlay.consents(user.as_str()).unwrap_or_else(recorded)
    }

    /// Returns the consents that a user of the snapshot has on record now.
    pub fn user_consents(&self, user: UserIndex) -> Consents {
        let fresh = match self.overlay.has_consents() {
            true => self.overlay.consents(self.snapshot.users().id(user)),
            false => None,
        };
        fresh.unwrap_or_else(|| self.snapshot.user_consents(user))
    }

    /// Whether the data of `user` may be used for `purpose`.
    pub fn allows(&self, user: &UserId, purpose: Purpose) -> bool {
        // Saves the hash and the search in the common case.
        let consents = match self.has_no_consents() {
            true => Consents::default(),
            false => self.consents(user),
        };
        self.privacy.allows(consents, purpose)
    }

    /// Whether the data of a user of the snapshot may be used for `purpose`.
    pub fn user_allows(&self, user: UserIndex, purpose: Purpose) -> bool {
        self.privacy.allows(self.user_consents(user), purpose)
    }

    pub fn item_id(&self, item: ItemIndex) -> &str {
        self.snapshot.items().id(item)
    }

    /// Returns the present facts of an item of the snapshot.
    pub fn facts(&self, item: ItemIndex) -> Facts<'_> {
        self.overlay
            .known_item(item)
            .unwrap_or_else(|| self.snapshot.catalog().facts(item))
    }

    /// Returns the present terms of ranking scores that follow from orders; `None` where the settings need none.
    pub fn order_terms(&self) -> Option<&OrderTerms> {
        let stored = || self.snapshot.order_terms().map(|terms| &**terms);
        self.overlay.order_terms().or_else(stored)
    }

    /// Returns the history of `user` as the snapshot knows it, the most popular item first.
    pub fn stored_history(&self, user: UserIndex) -> impl Iterator<Item = HistoryEntry> {
        let positions = self.snapshot.ratings().row_range(user.at());
        let entries = self.snapshot.ratings().row(user.at()).iter().zip(positions);
        let mut counts = self.snapshot.order_counts(user).iter();
        entries.map(move |((item, rating), position)| {
            let purchased = self.snapshot.is_purchased(position);
            HistoryEntry {
                item,
                rating,
                purchased,
                orders: match purchased {
                    true => counts.next().copied().unwrap_or(0),
                    false => 0,
                },
            }
        })
    }

    /// Returns the present history of `user`: that of the snapshot with the changes since. Items that were added after the
    /// snapshot have no neighbors yet and are left out.
    pub fn history(&self, user: &UserId) -> History {
        let fresh = self.overlay.interactions(user);
        let mut entries = Vec::new();
        if let Some(row) = self.user(user) {
            entries.reserve(self.snapshot.ratings().row_range(row.at()).len() + fresh.len());
            entries.extend(self.stored_history(row));
        }
        let is_fresh = |item: ItemIndex| {
            fresh
                .binary_search_by(|interaction| interaction.item.cmp(&ItemRef::Known(item)))
                .is_ok()
        };
        entries.retain(|entry| !is_fresh(entry.item));
        entries.extend(fresh.iter().filter_map(|interaction| match interaction {
            super::overlay::FreshInteraction {
                item: ItemRef::Known(item),
                rating: Some(rating),
                purchased,
                orders,
                ..
            } => Some(HistoryEntry {
                item: *item,
                rating: *rating,
                purchased: *purchased,
                orders: *orders,
            }),
            _ => None,
        }));
        History::new(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::consents::ConsentRecords;
    use crate::snapshot::fixture::{EXAMPLE, snapshot_parts, user_id, view};
    use crate::snapshot::overlay::FreshChange;

    #[test]
    fn the_last_consent_counts_and_without_one_the_configured_default() {
        let profiling = |record| Consents::default().with(Purpose::Profiling, record);
        let mut parts = snapshot_parts(&EXAMPLE);
        let records = vec![profiling(Some(false)), profiling(Some(true)), profiling(Some(false))];
        parts.consents = ConsentRecords::new(["u0", "u1", "untrained"].iter().collect(), records).unwrap();
        let trained = view(parts);
        let check = |view: &View, expected: [bool; 5]| {
            let users = ["u0", "u1", "u2", "untrained", "stranger"].map(user_id);
            for (user, is_allowed) in users.iter().zip(expected) {
                assert_eq!(view.allows(user, Purpose::Profiling), is_allowed, "{user}");
                let of_index = view.user(user).map(|user| view.user_allows(user, Purpose::Profiling));
                assert_eq!(of_index.unwrap_or(is_allowed), is_allowed, "{user}");
            }
        };
        check(&trained, [false, true, true, false, true]);
        let strict = PrivacyOptions {
            profiling_without_record: false,
            ..PrivacyOptions::default()
        };
        let strict = View {
            privacy: strict,
            ..trained.clone()
        };
        check(&strict, [false, true, false, false, false]);

        let mut overlay = Overlay::default();
        for (user, record) in [
            ("u0", Some(true)),
            ("u1", Some(false)),
            ("untrained", None),
            ("stranger", Some(false)),
        ] {
            let consents = profiling(record);
            let user = user_id(user);
            // Applied however full the overlay is.
            overlay.apply(&trained.snapshot, FreshChange::Consents { user, consents }, 0);
        }
        assert_eq!((overlay.len(), overlay.dropped()), (4, 0));
        let fresh = View {
            overlay: Arc::new(overlay),
            ..trained
        };
        check(&fresh, [true, false, true, true, false]);

        let nothing = view(snapshot_parts(&EXAMPLE));
        assert!(nothing.has_no_consents() && !fresh.has_no_consents());
        check(&nothing, [true; 5]);
        let strict = View {
            privacy: strict.privacy,
            ..nothing
        };
        check(&strict, [false; 5]);
    }
}
