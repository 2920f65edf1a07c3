//! The immutable snapshot from which requests are answered: its validated parts, their bytes, and the overlay of changes
//! since training.

pub mod activity;
pub mod bits;
pub mod by_rank;
pub mod catalog;
pub mod codec;
pub mod consents;
pub mod dictionary;
pub mod erased_users;
#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
pub mod floats;
pub mod item_counts;
pub mod merchant_orders;
pub mod order_terms;
pub mod orders;
pub mod overlay;
pub mod parameters;
pub mod parts;
pub mod popularity;
pub mod propensity;
pub mod ratings;
pub mod reverse_neighbors;
pub mod settings;
pub mod significance;
pub mod view;

use std::sync::Arc;

use demand::model::{Demand, DemandModel};
use domain::consent::Consents;
use similarity::lists::NeighborLists;

use self::activity::Activity;
use self::catalog::Catalog;
use self::consents::ConsentRecords;
use self::dictionary::{Dictionary, ItemIndex, UserIndex};
use self::item_counts::ItemCounts;
use self::merchant_orders::MerchantOrders;
use self::order_terms::OrderTerms;
use self::orders::Orders;
use self::parameters::{BlendWeights, TrainingParameters};
/// Generated from the list of parts; the type belongs to [`Snapshot`].
pub use self::parts::SnapshotParts;
use self::parts::{Absence, Optional, PARTS};
use self::popularity::Popularity;
use self::propensity::Propensity;
use self::ratings::Ratings;
use self::reverse_neighbors::ReverseNeighbors;
use self::settings::FittedSettings;
use self::significance::SignificantNeighbors;

/// Mean rating and regularized deviations from it.
///
/// Source: Koren 2010, "Factor in the Neighbors", §2: b_ui = μ + b_u + b_i.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Biases {
    /// μ, the mean of all effective ratings; 0 without any.
    pub global_mean: f64,
    /// b_u, one a user.
    pub users: Vec<f32>,
    /// b_i, one an item; 0 for an item without ratings.
    pub items: Vec<f32>,
}

/// Validated [`SnapshotParts`] and tables derived from them.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    parts: SnapshotParts,
    reverse_item_neighbors: ReverseNeighbors,
    /// Transposed lists of shrunk similarities, where they are not those of `item_neighbors`.
    reverse_significant_neighbors: Option<ReverseNeighbors>,
    settings: FittedSettings,
    /// The terms of scores that follow from orders, where the settings need any.
    order_terms: Option<Arc<OrderTerms>>,
    /// Transposed item weights, where the snapshot has any.
    reverse_item_weights: Option<ReverseNeighbors>,
    user_consents: Vec<Consents>,
    item_counts: ItemCounts,
}

/// The reason why parts do not fit together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    #[error("{part} has {actual} entries where {expected} are expected")]
    Shape {
        part: &'static str,
        expected: usize,
        actual: usize,
    },
    #[error("the catalog is inconsistent: {problem}")]
    Catalog { problem: &'static str },
    #[error("{part} holds a value that is not finite or out of range")]
    Value { part: &'static str },
}

impl Snapshot {
    /// # Errors
    /// Names the part whose shape or values do not fit.
    pub fn new(parts: SnapshotParts) -> Result<Self, SnapshotError> {
        PARTS.iter().try_for_each(|part| (part.validate)(&parts))?;
        let popularity = parts.ratings.popularity();
        let item_weights = parts.item_weights.get().ok();
        let significant = parts.significant_item_neighbors.get().ok();
        // With the same lists, one transposed copy serves both.
        let significant = significant.filter(|lists| lists.shrinkage > 0.0);
        let settings = match parts.fitted_settings.get() {
            Ok(settings) => *settings,
            Err(_) => FittedSettings::plain(&parts.weights, parts.default_ranker),
        };
        let orders = parts.orders.get().ok();
        let order_terms = orders.and_then(|orders| OrderTerms::new(orders, popularity, &settings));
        Ok(Self {
            reverse_significant_neighbors: significant
                .map(|lists| ReverseNeighbors::new(lists.neighbors.lists.entries(), popularity)),
            settings,
            order_terms: order_terms.map(Arc::new),
            reverse_item_neighbors: ReverseNeighbors::new(parts.item_neighbors.entries(), popularity),
            reverse_item_weights: item_weights.map(|lists| ReverseNeighbors::new(lists.entries(), popularity)),
            user_consents: user_consents(&parts),
            item_counts: ItemCounts::new(&parts.catalog),
            parts,
        })
    }

    /// Replaces the propensity of the model.
    ///
    /// # Errors
    /// A propensity with a number that is not finite or out of range.
    pub fn with_propensity(mut self, propensity: Propensity) -> Result<Self, SnapshotError> {
        self.parts.propensity = propensity;
        PARTS.iter().try_for_each(|part| (part.validate)(&self.parts))?;
        Ok(self)
    }

    /// Replaces the sales and what was fitted on them.
    ///
    /// # Errors
    /// Sales of other items than the snapshot's, or a number that is not finite or out of range.
    pub fn with_demand(mut self, demand: Demand) -> Result<Self, SnapshotError> {
        self.parts.demand = Optional::Present(demand);
        PARTS.iter().try_for_each(|part| (part.validate)(&self.parts))?;
        Ok(self)
    }

    pub fn parts(&self) -> &SnapshotParts {
        &self.parts
    }

    pub fn parameters(&self) -> &TrainingParameters {
        &self.parts.parameters
    }

    pub fn weights(&self) -> &BlendWeights {
        &self.parts.weights
    }

    /// Returns the settings of ranking scores; those of a plain blend if none were fitted.
    pub fn settings(&self) -> &FittedSettings {
        &self.settings
    }

    /// Returns the orders by user and item.
    ///
    /// # Errors
    /// The reason why the snapshot has none.
    pub fn orders(&self) -> Result<&Orders, Absence> {
        self.parts.orders.get()
    }

    /// Returns the number of orders of each item that the user has bought, in the order of the purchased entries of the user's
    /// ratings. Returns nothing where the snapshot has no orders.
    pub fn order_counts(&self, user: UserIndex) -> &[u32] {
        self.orders()
            .map_or(&[], |orders| &orders.counts[orders.row_range(user.at())])
    }

    /// Returns the terms of scores that follow from orders; `None` where the settings need none, or there are no orders.
    pub fn order_terms(&self) -> Option<&Arc<OrderTerms>> {
        self.order_terms.as_ref()
    }

    pub fn into_parts(self) -> SnapshotParts {
        self.parts
    }

    pub fn users(&self) -> &Dictionary<UserIndex> {
        &self.parts.users
    }

    pub fn items(&self) -> &Dictionary<ItemIndex> {
        &self.parts.items
    }

    pub fn catalog(&self) -> &Catalog {
        &self.parts.catalog
    }

    /// Returns how many items of the catalog each category and merchant has.
    pub fn item_counts(&self) -> &ItemCounts {
        &self.item_counts
    }

    /// Effective ratings, [users, items].
    pub fn ratings(&self) -> &Ratings {
        &self.parts.ratings
    }

    /// Whether the user bought the item of entry `position` of [`Self::ratings`].
    pub fn is_purchased(&self, position: usize) -> bool {
        self.parts.purchased.get(position)
    }

    pub fn biases(&self) -> &Biases {
        &self.parts.biases
    }

    pub fn user_neighbors(&self) -> &NeighborLists {
        &self.parts.user_neighbors
    }

    pub fn item_neighbors(&self) -> &NeighborLists {
        &self.parts.item_neighbors
    }

    /// Returns the lists of items that rank: with similarities shrunk as fitted, or else the plain ones.
    pub fn ranking_item_neighbors(&self) -> &NeighborLists {
        match self.parts.significant_item_neighbors.get() {
            Ok(significant) => &significant.neighbors.lists,
            Err(_) => &self.parts.item_neighbors,
        }
    }

    /// Returns the same lists with the co-raters of each pair.
    ///
    /// # Errors
    /// The reason why the snapshot does not have them.
    pub fn significant_item_neighbors(&self) -> Result<&SignificantNeighbors, Absence> {
        self.parts.significant_item_neighbors.get()
    }

    /// Returns for every item j the items that have j in their list of [`Self::ranking_item_neighbors`].
    pub fn reverse_ranking_neighbors(&self) -> &ReverseNeighbors {
        let significant = self.reverse_significant_neighbors.as_ref();
        significant.unwrap_or(&self.reverse_item_neighbors)
    }

    /// Returns for every item j the items that have j in their neighbor list.
    pub fn reverse_item_neighbors(&self) -> &ReverseNeighbors {
        &self.reverse_item_neighbors
    }

    /// Ranks the items by how many users have an effective rating of them.
    pub fn popularity(&self) -> &Popularity {
        self.parts.ratings.popularity()
    }

    pub fn activity(&self) -> &Activity {
        &self.parts.activity
    }

    /// # Errors
    /// The reason why the snapshot does not hold them.
    pub fn merchant_orders(&self) -> Result<&MerchantOrders, Absence> {
        self.parts.merchant_orders.get()
    }

    pub fn propensity(&self) -> &Propensity {
        &self.parts.propensity
    }

    /// Returns the sales and what was fitted on them.
    ///
    /// # Errors
    /// The reason why there is nothing.
    pub fn demand(&self) -> Result<&DemandModel, String> {
        match self.parts.demand.get() {
            Ok(Demand::Fitted(model)) => Ok(model),
            Ok(Demand::NotFitted { reason }) => Err(reason.clone()),
            Err(absence) => Err(absence.to_string()),
        }
    }

    /// Returns for every item j the items that have a weight for j.
    ///
    /// # Errors
    /// The reason why the snapshot has no item weights.
    pub fn reverse_item_weights(&self) -> Result<&ReverseNeighbors, Absence> {
        self.parts.item_weights.get()?;
        self.reverse_item_weights.as_ref().ok_or(Absence::NotWritten)
    }

    /// Returns the consents on record for a user of the snapshot, as of when its input was read.
    pub fn user_consents(&self, user: UserIndex) -> Consents {
        self.user_consents[user.at()]
    }

    /// Whether the snapshot holds anything under the external id `user`.
    pub fn holds(&self, user: &str) -> bool {
        self.users().find(user).is_some() || self.consents().ids().find(user).is_some()
    }

    /// Returns all consents on record, as of when the input was read.
    pub fn consents(&self) -> &ConsentRecords {
        &self.parts.consents
    }
}

/// Returns the consents of every user of the snapshot, by index.
fn user_consents(parts: &SnapshotParts) -> Vec<Consents> {
    let mut by_user = vec![Consents::default(); parts.users.len()];
    for (id, consents) in parts.consents.iter() {
        if let Some(user) = parts.users.find(id) {
            by_user[user.at()] = consents;
        }
    }
    by_user
}

#[cfg(test)]
mod tests {
    use similarity::lists::WeightLists;

    use crate::snapshot::fixture::{EXAMPLE, snapshot_parts};
    use crate::snapshot::parts::Optional;

    use super::*;

    #[test]
    fn the_default_parts_are_those_of_a_valid_empty_snapshot() {
        let snapshot = Snapshot::new(SnapshotParts::default()).unwrap();
        assert_eq!((snapshot.users().len(), snapshot.items().len()), (0, 0));
        assert_eq!(snapshot.reverse_item_weights().unwrap_err(), Absence::NotWritten);
    }

    #[test]
    fn lists_may_name_only_what_the_snapshot_holds() {
        let check = |part: &str, change: fn(&mut SnapshotParts, NeighborLists)| {
            let mut parts = snapshot_parts(&EXAMPLE);
            let n_lists = if part.starts_with("user") { 3 } else { 5 };
            let mut offsets = vec![1; n_lists + 1];
            offsets[0] = 0;
            change(&mut parts, NeighborLists::new(6, offsets, vec![5], vec![0.5]).unwrap());
            let expected = format!("{part} neighbors (targets) has 6 entries where {n_lists} are expected");
            assert_eq!(Snapshot::new(parts).unwrap_err().to_string(), expected);
        };
        check("user", |parts, lists| parts.user_neighbors = lists);
        check("item", |parts, lists| parts.item_neighbors = lists);
    }

    #[test]
    fn item_weights_are_served_transposed_by_rank() {
        let mut parts = snapshot_parts(&EXAMPLE);
        let lists = WeightLists::new(5, vec![0, 1, 2, 2, 2, 2], vec![3, 3], vec![-0.5, 2.0]).unwrap();
        parts.item_weights = Optional::Present(lists);
        let snapshot = Snapshot::new(parts.clone()).unwrap();
        let (ranks, weights) = snapshot.reverse_item_weights().unwrap().row(ItemIndex(3));
        let items: Vec<ItemIndex> = (0..ranks.len())
            .map(|at| snapshot.popularity().item(ranks.get(at)))
            .collect();
        assert_eq!((items, weights), (vec![ItemIndex(0), ItemIndex(1)], &[-0.5, 2.0][..]));

        let wider = WeightLists::new(6, vec![0; 6], Vec::new(), Vec::new()).unwrap();
        parts.item_weights = Optional::Present(wider);
        let error = Snapshot::new(parts).unwrap_err().to_string();
        assert_eq!(error, "item weights (targets) has 6 entries where 5 are expected");
    }
}
