//! A set of users in the order of their ids, most of whom a snapshot knows.

use std::ops::Range;
use std::sync::Arc;

use recommender::snapshot::Snapshot;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::dictionary::{Texts, UserIndex};

/// A set of users. It holds one bit for each user of a snapshot, and the ids of the others.
///
/// The users of the snapshot and the others form one sequence in byte order of their ids. A *place* is a position in this
/// sequence. Users of the snapshot that are not in the set have a place too.
#[derive(Debug)]
pub struct UserSet {
    snapshot: Arc<Snapshot>,
    /// Per user of the snapshot, whether they are in the set.
    known: Bits,
    others: Texts,
    /// The places of `others`, ascending.
    other_places: Vec<u32>,
    len: usize,
}

/// A user at a place of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A user of the snapshot.
    Known(UserIndex),
    /// A user whom the snapshot does not know, by their position among the others.
    Other(u32),
}

/// An error in the ids of a [`UserSet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserSetError {
    #[error("user {id:?} does not come after the one before; ids must ascend byte by byte")]
    Order { id: String },
    #[error("there are more users than an index of 32 bits allows")]
    TooMany,
}

impl UserSet {
    /// Makes a set of `ids`, which strictly ascend byte by byte.
    ///
    /// `is_erased`: whether the snapshot's user with this id was erased, so that the id belongs to somebody whom the snapshot
    /// does not know.
    ///
    /// Takes time O(Σ log d) over the distances d between successive ids in the snapshot.
    ///
    /// # Errors
    /// [`UserSetError::Order`] names the first id that is out of order.
    pub fn new<'a>(
        snapshot: Arc<Snapshot>,
        ids: impl Iterator<Item = &'a str>,
        is_erased: impl Fn(&str) -> bool,
    ) -> Result<Self, UserSetError> {
        let dictionary = snapshot.users().texts();
        let mut known = Bits::zeros(dictionary.len());
        let (mut other_ids, mut other_places) = (Vec::new(), Vec::new());
        let (mut at, mut len) = (0, 0_usize);
        let mut last: Option<&str> = None;
        for id in ids {
            if last.is_some_and(|last| last >= id) {
                return Err(UserSetError::Order { id: id.to_owned() });
            }
            at = first_not_before(dictionary, at, id);
            if at < dictionary.len() && dictionary.get(at) == id && !is_erased(id) {
                known.set(at, true);
            } else {
                let place = u32::try_from(at + other_ids.len()).map_err(|_| UserSetError::TooMany)?;
                other_places.push(place);
                other_ids.push(id);
            }
            last = Some(id);
            len += 1;
        }
        if u32::try_from(dictionary.len() + other_ids.len()).is_err() {
            return Err(UserSetError::TooMany);
        }
        Ok(Self {
            others: other_ids.into_iter().collect(),
            other_places,
            known,
            len,
            snapshot,
        })
    }

    /// Returns the snapshot that the set refers to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Returns the number of users in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of places.
    pub fn n_places(&self) -> u32 {
        // `new` has checked that the number fits.
        (self.known.len() + self.other_places.len()) as u32
    }

    /// Returns the members of the set at `places`, ascending.
    pub fn members(&self, places: Range<u32>) -> impl Iterator<Item = (u32, Member)> {
        let mut other = self.others_before(places.start);
        places.filter_map(move |place| {
            if self.other_places.get(other) == Some(&place) {
                other += 1;
                return Some((place, Member::Other(other as u32 - 1)));
            }
            let index = UserIndex(place - other as u32);
            self.known.get(index.at()).then_some((place, Member::Known(index)))
        })
    }

    /// Returns the user at `place`, in the set or not.
    pub fn at(&self, place: u32) -> Member {
        let before = self.others_before(place);
        match self.other_places.get(before) == Some(&place) {
            true => Member::Other(before as u32),
            false => Member::Known(UserIndex(place - before as u32)),
        }
    }

    /// Returns the id of a user.
    pub fn id(&self, member: Member) -> &str {
        match member {
            Member::Known(user) => self.snapshot.users().id(user),
            Member::Other(position) => self.others.get(position as usize),
        }
    }

    /// Returns the place of a user; `None` if they are not in the set.
    pub fn place(&self, id: &str) -> Option<u32> {
        if let Some(other) = self.others.find(id) {
            return Some(self.other_places[other]);
        }
        let user = self
            .snapshot
            .users()
            .find(id)
            .filter(|user| self.known.get(user.at()))?;
        // The others with at most as many users of the snapshot before them come before this user.
        let others = 0..self.other_places.len();
        let before = partition_point(others, |other| self.other_places[other] - other as u32 <= user.0);
        Some(user.0 + before as u32)
    }

    fn others_before(&self, place: u32) -> usize {
        self.other_places.partition_point(|&other| other < place)
    }
}

/// Returns the first position from `from` on whose text is not before `id`, in time O(log d) for a distance d.
fn first_not_before(texts: &Texts, from: usize, id: &str) -> usize {
    let (mut low, mut step) = (from, 1);
    while low + step <= texts.len() && texts.get(low + step - 1) < id {
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(texts.len());
    partition_point(low..high, |position| texts.get(position) < id)
}

/// Returns the first of `positions` for which `is_before` does not hold, or their end if it holds for all.
fn partition_point(positions: Range<usize>, is_before: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = positions;
    while start < end {
        let middle = start + (end - start) / 2;
        match is_before(middle) {
            true => start = middle + 1,
            false => end = middle,
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use recommender::snapshot::dictionary::Dictionary;
    use recommender::snapshot::fixture::snapshot_parts;

    fn snapshot(ids: &BTreeSet<String>) -> Arc<Snapshot> {
        let row: &[f32] = &[1.0];
        let mut parts = snapshot_parts(&vec![row; ids.len()]);
        parts.users = Dictionary::new(ids.iter().collect()).unwrap();
        Arc::new(Snapshot::new(parts).unwrap())
    }

    fn ids() -> impl Strategy<Value = BTreeSet<String>> {
        prop::collection::btree_set("[a-c]{1,3}", 1..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn places_follow_the_order_of_ids(trained in ids(), asked in ids(), cut in any::<prop::sample::Index>()) {
            let set = UserSet::new(snapshot(&trained), asked.iter().map(String::as_str), |_| false).unwrap();
            let sequence: Vec<&String> = trained.union(&asked).collect();
            prop_assert_eq!((set.n_places() as usize, set.len()), (sequence.len(), asked.len()));
            let expected: Vec<(u32, &str)> = (0..).zip(&sequence)
                .filter(|(_, id)| asked.contains(**id))
                .map(|(place, id)| (place, id.as_str()))
                .collect();
            let cut = cut.index(sequence.len() + 1) as u32;
            let found = set.members(0..cut).chain(set.members(cut..sequence.len() as u32));
            let found: Vec<(u32, &str)> = found.map(|(place, member)| (place, set.id(member))).collect();
            prop_assert_eq!(&found, &expected);
            for (place, id) in (0..).zip(&sequence) {
                prop_assert_eq!(set.id(set.at(place)), id.as_str());
                prop_assert_eq!(set.place(id), asked.contains(*id).then_some(place));
            }
            prop_assert_eq!(set.place("d"), None);
        }

        #[test]
        fn galloping_search_agrees_with_linear_search(trained in ids(), from in 0usize..30, id in "[a-d]{1,3}") {
            let texts: Texts = trained.iter().collect();
            let from = from.min(texts.len());
            let expected = (from..texts.len()).find(|&position| texts.get(position) >= id.as_str());
            prop_assert_eq!(first_not_before(&texts, from, &id), expected.unwrap_or(texts.len()));
        }
    }

    #[test]
    fn an_erased_user_is_another_one_with_the_same_id() {
        let trained = snapshot(&["a", "b", "c"].map(str::to_owned).into());
        let set = UserSet::new(trained, ["a", "b", "c"].into_iter(), |id| id == "b").unwrap();
        let members: Vec<(u32, Member)> = set.members(0..set.n_places()).collect();
        let expected = [
            (0, Member::Known(UserIndex(0))),
            (1, Member::Other(0)),
            (3, Member::Known(UserIndex(2))),
        ];
        assert_eq!(members, expected);
        assert_eq!((set.place("b"), set.id(set.at(1)), set.len()), (Some(1), "b", 3));
    }

    #[test]
    fn ids_must_ascend() {
        let trained = snapshot(&BTreeSet::from(["b".to_owned()]));
        let check = |ids: &[&str], expected: Option<&str>| {
            let error = UserSet::new(trained.clone(), ids.iter().copied(), |_| false).err();
            let named = error.map(|error| error.to_string());
            let expected = expected
                .map(|id| format!("user {id:?} does not come after the one before; ids must ascend byte by byte"));
            assert_eq!(named, expected, "{ids:?}");
        };
        check(&[], None);
        check(&["a", "b", "c"], None);
        check(&["b", "a"], Some("a"));
        check(&["a", "a"], Some("a"));
    }
}
