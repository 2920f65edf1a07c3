//! Checks the rules of a coupon against a user's history and attributes.
//!
//! Rules about the history see the items of one merchant or of all: see [`history_of`].

pub mod history;
mod names;
#[cfg(test)]
mod tests;

use chrono::Duration;

use domain::coupon::Rule;
use domain::id::ItemId;
use domain::time::Timestamp;
use recommender::snapshot::Snapshot;
use recommender::snapshot::dictionary::ItemIndex;
use recommender::snapshot::view::View;

use self::history::{History, LastOrder};
use self::names::{NamedCategory, NamedItems, Seller};
use super::affinity::{affinity_of_items, covered, is_covered, weighted_affinity, weights};
use super::offer_catalog::Offer;
use super::visibility::history_of;

/// The observation by which a rule fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// The user has bought none of the items of the rule.
    NoneBought,
    /// The user has bought one of them.
    Bought {
        item: ItemId,
    },
    /// The category's share of the history, by rating, 0 to 1.
    Share(f64),
    Affinity(f64),
    /// The user has never bought anything.
    NeverBought,
    /// The time of the user's last order.
    LastBought {
        at: Timestamp,
    },
    /// The user's value of the attribute, if they have one.
    Attribute(Option<String>),
    /// The snapshot does not tell when the user last bought something from the merchant.
    NotTrained,
    /// The reader may not know.
    Hidden,
}

/// The number of users that compiled rules serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    One,
    /// Work that pays off only for many users is done once, when the rules are compiled.
    Many,
}

/// The rules of an offer, with their names looked up in a view.
#[derive(Debug)]
pub struct CompiledRules<'a> {
    /// One per rule.
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
    NewUser {
        seller: Seller<'a>,
    },
    LapsedUser {
        seller: Seller<'a>,
        days: u32,
    },
    Attribute {
        name: &'a str,
        values: &'a [String],
    },
}

impl<'a> CompiledRules<'a> {
    /// Looks up the names of an offer's rules. `view` may be `None` if no rule [needs the history](Rule::needs_history).
    pub fn new(offer: &'a Offer, view: Option<&View>, users: Users) -> Self {
        let rules = offer.coupon.rules.iter();
        Self {
            conditions: rules.map(|rule| Condition::new(rule, offer, view, users)).collect(),
        }
    }

    /// Returns whether rule number `rule` looks at the user's history.
    pub(super) fn needs_history(&self, rule: usize) -> bool {
        !matches!(self.conditions[rule], Condition::Attribute { .. })
    }

    pub(super) fn len(&self) -> usize {
        self.conditions.len()
    }

    /// Checks whether rule number `rule` holds.
    ///
    /// `attributes`: name and value, ascending by name. `history`: from the view in which the rules were looked up; `None`
    /// for a user without a history.
    ///
    /// # Errors
    /// [`Seen`], the observation by which the rule fails.
    pub(super) fn check(
        &self,
        rule: usize,
        attributes: &[(String, String)],
        history: Option<&History<'_>>,
        now: Timestamp,
    ) -> Result<(), Seen> {
        let last_order = |seller: &Seller<'_>| history.map_or(LastOrder::Never, |history| history.last_order(*seller));
        match &self.conditions[rule] {
            Condition::Bought(set) => match history.and_then(|history| set.bought(history).next()) {
                Some(_) => Ok(()),
                None => Err(Seen::NoneBought),
            },
            Condition::NotBought(set) => match history.and_then(|history| set.bought_id(history)) {
                Some(item) => Err(Seen::Bought { item }),
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
            Condition::NewUser { seller } => match last_order(seller) {
                LastOrder::Never => Ok(()),
                LastOrder::At(at) => Err(Seen::LastBought { at }),
                LastOrder::NotTrained => Err(Seen::NotTrained),
            },
            Condition::LapsedUser { seller, days } => match last_order(seller) {
                LastOrder::Never => Err(Seen::NeverBought),
                LastOrder::NotTrained => Err(Seen::NotTrained),
                LastOrder::At(at) => {
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
            Rule::NewUser => Self::NewUser {
                seller: Seller::of(offer, view),
            },
            Rule::LapsedUser { days } => Self::LapsedUser {
                seller: Seller::of(offer, view),
                days: *days,
            },
            Rule::Attribute { name, values } => Self::Attribute { name, values },
        }
    }
}

/// The affinity to the items that an offer covers, from the snapshot alone. It is the score that ranks targets, without the
/// items of a history that the rules do not see.
#[derive(Debug)]
struct CoveredAffinity<'a> {
    offer: &'a Offer,
    /// The position of the only merchant whose items count; `None` for all items.
    seller: Option<SnapshotSeller>,
    /// The weight w_j of every item, if the rules serve many users.
    weights: Option<Vec<f64>>,
}

/// The merchant of [`history_of`], looked up in a snapshot; `None` for one that is not there.
#[derive(Debug, Clone, Copy)]
struct SnapshotSeller(Option<usize>);

impl SnapshotSeller {
    fn sells(self, snapshot: &Snapshot, item: ItemIndex) -> bool {
        let merchant = snapshot.catalog().merchant_of[item.at()];
        self.0.is_some_and(|own| own == merchant as usize)
    }
}

impl<'a> CoveredAffinity<'a> {
    fn new(offer: &'a Offer, view: Option<&View>, users: Users) -> Self {
        let seller = history_of(offer)
            .map(|name| SnapshotSeller(view.and_then(|view| view.snapshot.catalog().merchants.find(name))));
        let weights = view.filter(|_| users == Users::Many).map(|view| {
            let snapshot = &view.snapshot;
            let mut weights = weights(snapshot, &covered(snapshot, offer));
            if let Some(seller) = seller {
                for (item, weight) in (0..).zip(&mut weights) {
                    if !seller.sells(snapshot, ItemIndex(item)) {
                        *weight = 0.0;
                    }
                }
            }
            weights
        });
        Self { offer, seller, weights }
    }

    /// Returns the affinity of a user; 0 for a user whom the snapshot does not know.
    fn of(&self, history: &History<'_>) -> f64 {
        let (Some(user), snapshot) = (history.index, &history.view.snapshot) else {
            return 0.0;
        };
        let counts = |item| self.seller.is_none_or(|seller| seller.sells(snapshot, item));
        match &self.weights {
            Some(weights) => weighted_affinity(snapshot, weights, user),
            None => affinity_of_items(snapshot, |item| is_covered(snapshot, self.offer, item), counts, user),
        }
    }
}
