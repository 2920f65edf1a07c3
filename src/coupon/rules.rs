//! The rules of a coupon against what a user did.

use chrono::DateTime;

use crate::domain::coupon::{ItemSet, Rule};
use crate::domain::id::UserId;
use crate::domain::time::Timestamp;
use crate::model::bits::Bits;
use crate::model::catalogue::Facts;
use crate::model::dictionary::{ItemIndex, UserIndex};
use crate::model::overlay::{FreshInteraction, ItemRef};
use crate::model::view::{self, HistoryEntry, View};

use super::affinity::{affinity_of, covered, is_covered};
use super::book::Offer;

/// What a user did, as of now: their history in the snapshot, and what is newer.
#[derive(Debug, Clone)]
pub struct History<'a> {
    view: &'a View,
    index: Option<UserIndex>,
    fresh: &'a [FreshInteraction],
    /// With what is newer; `None` where nothing is.
    present: Option<view::History>,
}

impl<'a> History<'a> {
    pub fn of_user(view: &'a View, user: &UserId) -> Self {
        Self::new(view, view.user(user), user)
    }

    /// `index`: that of `user` in the snapshot, `None` for a user that it does not know.
    pub fn new(view: &'a View, index: Option<UserIndex>, user: &UserId) -> Self {
        let fresh = view.overlay.interactions(user);
        Self {
            view,
            index,
            fresh,
            present: (!fresh.is_empty()).then(|| view.history(user)),
        }
    }

    /// Items of the snapshot that the user has rated or bought.
    fn entries(&self) -> impl Iterator<Item = HistoryEntry> {
        let (present, stored) = match (&self.present, self.index) {
            (Some(present), _) => (present.entries(), None),
            (None, index) => (&[][..], index),
        };
        present
            .iter()
            .copied()
            .chain(stored.into_iter().flat_map(|user| self.view.stored_history(user)))
    }

    /// The id of something in the set that has been bought.
    fn bought(&self, test: &ItemTest) -> Option<String> {
        let known = self
            .entries()
            .find(|entry| entry.purchased && test.known(self.view, entry.item));
        let known = known.map(|entry| self.view.item_id(entry.item).to_owned());
        known.or_else(|| {
            self.fresh.iter().find_map(|interaction| match &interaction.item {
                ItemRef::New(id) if interaction.purchased => {
                    let facts = self.view.overlay.new_item(id);
                    test.set
                        .contains(id.as_str(), category(facts.as_ref()), merchant(facts.as_ref()))
                        .then(|| id.to_string())
                }
                _ => None,
            })
        })
    }

    /// The share of the ratings that is of items in the set; 0 without any.
    fn share_of(&self, test: &ItemTest) -> f64 {
        let (mut part, mut whole) = (0.0, 0.0);
        for entry in self.entries() {
            let rating = f64::from(entry.rating);
            whole += rating;
            if test.known(self.view, entry.item) {
                part += rating;
            }
        }
        match whole > 0.0 {
            true => part / whole,
            false => 0.0,
        }
    }

    /// When the user has last bought anything; `None`: never.
    fn last_order_at(&self) -> Option<Timestamp> {
        let activity = self.view.snapshot.activity();
        let stored = self.index.filter(|user| activity.orders[user.at()] > 0);
        let stored = stored.map(|user| activity.last_order_at[user.at()]);
        let fresh = self.fresh.iter().filter(|interaction| interaction.purchased);
        let last = fresh.map(|interaction| interaction.last_order_at).chain(stored).max()?;
        DateTime::from_timestamp(last, 0)
    }

    fn affinity(&self, is_covered: impl Fn(ItemIndex) -> bool) -> f64 {
        self.index
            .map_or(0.0, |user| affinity_of(&self.view.snapshot, is_covered, user))
    }
}

/// For how many users rules are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    One,
    /// Items are looked up once for all of them.
    Many,
}

/// The rules of an offer, looked up in a view.
#[derive(Debug)]
pub struct CompiledRules<'a> {
    rules: Vec<Compiled<'a>>,
}

#[derive(Debug)]
enum Compiled<'a> {
    Bought(ItemTest),
    NotBought(ItemTest),
    CategoryAffinity {
        of: ItemTest,
        min_share: f64,
    },
    /// `covered`: one bit an item, where that pays.
    MinAffinity {
        offer: &'a Offer,
        covered: Option<Bits>,
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
        let view_of_many = view.filter(|_| users == Users::Many);
        let rules = offer.coupon.rules.iter().map(|rule| match rule {
            Rule::Bought(set) => Compiled::Bought(ItemTest::new(set.clone(), view_of_many)),
            Rule::NotBought(set) => Compiled::NotBought(ItemTest::new(set.clone(), view_of_many)),
            Rule::CategoryAffinity { category, min_share } => Compiled::CategoryAffinity {
                of: ItemTest::new(
                    ItemSet {
                        categories: vec![category.clone()],
                        ..ItemSet::default()
                    },
                    view_of_many,
                ),
                min_share: *min_share,
            },
            Rule::MinAffinity { min_score } => Compiled::MinAffinity {
                offer,
                covered: view_of_many.map(|view| covered(&view.snapshot, offer)),
                min_score: *min_score,
            },
            Rule::NewUser => Compiled::NewUser,
            Rule::LapsedUser { days } => Compiled::LapsedUser { days: *days },
            Rule::Attribute { name, values } => Compiled::Attribute { name, values },
        });
        Self { rules: rules.collect() }
    }

    /// Whether rule number `rule` is about what the user did.
    pub(super) fn needs_history(&self, rule: usize) -> bool {
        !matches!(self.rules[rule], Compiled::Attribute { .. })
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether rule number `rule` holds; if not, what was seen instead, for people.
    ///
    /// `attributes`: name and value, ascending by name. `history`: must be there for a rule that needs it.
    pub(super) fn check(
        &self,
        rule: usize,
        attributes: &[(String, String)],
        history: Option<&History<'_>>,
        now: Timestamp,
    ) -> Result<(), String> {
        if let Compiled::Attribute { name, values } = &self.rules[rule] {
            return check_attribute(name, values, attributes);
        }
        let Some(history) = history else {
            return Err("nothing is known of what the user did".to_owned());
        };
        match &self.rules[rule] {
            Compiled::Bought(test) => match history.bought(test) {
                Some(_) => Ok(()),
                None => Err("bought none of them".to_owned()),
            },
            Compiled::NotBought(test) => match history.bought(test) {
                Some(item) => Err(format!("bought {item}")),
                None => Ok(()),
            },
            Compiled::CategoryAffinity { of, min_share } => at_least(history.share_of(of), *min_share),
            Compiled::MinAffinity {
                offer,
                covered,
                min_score,
            } => {
                let snapshot = &history.view.snapshot;
                let affinity = match covered {
                    Some(covered) => history.affinity(|item| covered.get(item.at())),
                    None => history.affinity(|item| is_covered(snapshot, offer, item)),
                };
                at_least(affinity, *min_score)
            }
            Compiled::NewUser => match history.last_order_at() {
                None => Ok(()),
                Some(_) => Err("has bought before".to_owned()),
            },
            Compiled::LapsedUser { days } => match history.last_order_at().map(|at| (now - at).num_days()) {
                None => Err("has never bought anything".to_owned()),
                Some(since) if since >= i64::from(*days) => Ok(()),
                Some(since) => Err(format!("bought {} days ago", since.max(0))),
            },
            Compiled::Attribute { name, values } => check_attribute(name, values, attributes),
        }
    }
}

fn at_least(value: f64, least: f64) -> Result<(), String> {
    match value >= least {
        true => Ok(()),
        false => Err(format!("{value:.4}")),
    }
}

fn check_attribute(name: &str, values: &[String], attributes: &[(String, String)]) -> Result<(), String> {
    match attributes.binary_search_by(|(own, _)| own.as_str().cmp(name)) {
        Err(_) => Err(format!("{name} is not known")),
        Ok(position) => {
            let own = &attributes[position].1;
            match values.contains(own) {
                true => Ok(()),
                false => Err(format!("{name} is {own}")),
            }
        }
    }
}

/// Whether items are in a set, by their present facts.
#[derive(Debug)]
struct ItemTest {
    set: ItemSet,
    /// One bit an item of the snapshot, where that pays.
    known: Option<Bits>,
}

impl ItemTest {
    fn new(set: ItemSet, view: Option<&View>) -> Self {
        let known = view.map(|view| {
            let items = (0..view.snapshot.items().len() as u32).map(ItemIndex);
            items.map(|item| is_in(&set, view, item)).collect()
        });
        Self { set, known }
    }

    fn known(&self, view: &View, item: ItemIndex) -> bool {
        match &self.known {
            Some(known) => known.get(item.at()),
            None => is_in(&self.set, view, item),
        }
    }
}

fn is_in(set: &ItemSet, view: &View, item: ItemIndex) -> bool {
    let facts = view.facts(item);
    set.contains(view.item_id(item), facts.category, facts.merchant)
}

fn category<'a>(facts: Option<&Facts<'a>>) -> Option<&'a str> {
    facts.and_then(|facts| facts.category)
}

fn merchant<'a>(facts: Option<&Facts<'a>>) -> Option<&'a str> {
    facts.and_then(|facts| facts.merchant)
}
