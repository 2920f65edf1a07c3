//! Consents and refusals on record when a snapshot's input was read.

use domain::consent::Consents;

use super::dictionary::Texts;
use super::erased_users::ErasedUsers;

/// The consents of everybody who has any on record. Users that the snapshot does not know otherwise are included, because
/// their refusals must be known all the same.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConsentRecords {
    ids: Texts,
    consents: Vec<Consents>,
}

impl ConsentRecords {
    /// `None` unless `ids` are strictly ascending byte by byte, and as many as `consents`.
    pub fn new(ids: Texts, consents: Vec<Consents>) -> Option<Self> {
        let ascending = (1..ids.len()).all(|i| ids.get(i - 1) < ids.get(i));
        (ascending && ids.len() == consents.len()).then_some(Self { ids, consents })
    }

    pub fn ids(&self) -> &Texts {
        &self.ids
    }

    pub fn consents(&self) -> &[Consents] {
        &self.consents
    }

    /// Returns the consents of `user`; empty where nothing is on record.
    pub fn of(&self, user: &str) -> Consents {
        match self.ids.find(user) {
            Some(position) => self.consents[position],
            None => Consents::default(),
        }
    }

    /// Returns the consents of everybody else.
    pub fn without(&self, erased: &ErasedUsers) -> Self {
        let (ids, consents): (Vec<&str>, Vec<Consents>) = self.iter().filter(|(id, _)| !erased.has_id(id)).unzip();
        Self {
            ids: ids.into_iter().collect(),
            consents,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Consents)> {
        self.ids.iter().zip(self.consents.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::consent::Purpose;

    #[test]
    fn records_are_found_by_id() {
        let refused = Consents::default().with(Purpose::Profiling, Some(false));
        let records = ConsentRecords::new(["a", "c"].iter().collect(), vec![refused, Consents::default()]).unwrap();
        assert_eq!(records.of("a"), refused);
        for other in ["", "b", "c", "d"] {
            assert_eq!(records.of(other), Consents::default(), "{other}");
        }
        assert_eq!(ConsentRecords::new(["b", "a"].iter().collect(), vec![refused; 2]), None);
        assert_eq!(ConsentRecords::new(["a"].iter().collect(), Vec::new()), None);
    }
}
