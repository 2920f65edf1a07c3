//! The immutable snapshot that answers rest on: its validated parts, their bytes, and what has changed since training.

pub mod activity;
pub mod bits;
pub mod catalog;
pub mod codec;
pub mod consents;
pub mod dictionary;
#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
pub mod floats;
pub mod overlay;
pub mod parameters;
pub mod popularity;
pub mod propensity;
pub mod ratings;
pub mod reverse_neighbors;
pub mod view;

use domain::consent::Consents;
use similarity::lists::NeighborLists;

use self::activity::Activity;
use self::bits::Bits;
use self::catalog::Catalog;
use self::consents::ConsentRecords;
use self::dictionary::{Dictionary, ItemIndex, UserIndex};
use self::parameters::{BlendWeights, TrainingParameters};
use self::popularity::Popularity;
use self::propensity::Propensity;
use self::ratings::Ratings;
use self::reverse_neighbors::ReverseNeighbors;

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

/// What a snapshot is made of, and what its bytes hold. m users, n items.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotParts {
    pub parameters: TrainingParameters,
    pub weights: BlendWeights,
    /// The users with at least one effective rating.
    pub users: Dictionary<UserIndex>,
    /// All items of the catalog.
    pub items: Dictionary<ItemIndex>,
    pub catalog: Catalog,
    /// Effective ratings, [m, n].
    pub ratings: Ratings,
    /// One bit an entry of `ratings`: the user has bought the item.
    pub purchased: Bits,
    pub biases: Biases,
    /// m lists.
    pub user_neighbors: NeighborLists,
    /// n lists.
    pub item_neighbors: NeighborLists,
    /// m entries.
    pub activity: Activity,
    pub consents: ConsentRecords,
    pub propensity: Propensity,
}

/// Validated [`SnapshotParts`] with what is derived from them.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    parts: SnapshotParts,
    reverse_item_neighbors: ReverseNeighbors,
    user_consents: Vec<Consents>,
}

/// Parts that do not fit together.
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
        let (m, n) = (parts.users.len(), parts.items.len());
        let shapes = [
            ("catalog", n, parts.catalog.len()),
            ("ratings (rows)", m, parts.ratings.n_users()),
            ("ratings (columns)", n, parts.ratings.n_items()),
            ("purchased", parts.ratings.nnz(), parts.purchased.len()),
            ("user biases", m, parts.biases.users.len()),
            ("item biases", n, parts.biases.items.len()),
            ("user neighbors", m, parts.user_neighbors.n_rows()),
            ("item neighbors", n, parts.item_neighbors.n_rows()),
            ("user neighbors (targets)", m, parts.user_neighbors.n_targets()),
            ("item neighbors (targets)", n, parts.item_neighbors.n_targets()),
        ];
        for (part, expected, actual) in shapes {
            if expected != actual {
                return Err(SnapshotError::Shape { part, expected, actual });
            }
        }
        for actual in parts.activity.lengths() {
            if actual != m {
                let (part, expected) = ("activity", m);
                return Err(SnapshotError::Shape { part, expected, actual });
            }
        }
        if let Some(problem) = parts.catalog.problem() {
            return Err(SnapshotError::Catalog { problem });
        }
        let biases = &parts.biases;
        if !biases.global_mean.is_finite() || !biases.users.iter().chain(&biases.items).all(|bias| bias.is_finite()) {
            return Err(SnapshotError::Value { part: "biases" });
        }
        check_weights(&parts.weights)?;
        check_propensity(&parts.propensity)?;
        if parts.parameters.scale.validate().is_err() {
            return Err(SnapshotError::Value { part: "parameters" });
        }

        Ok(Self {
            reverse_item_neighbors: ReverseNeighbors::new(&parts.item_neighbors, parts.ratings.popularity()),
            user_consents: user_consents(&parts),
            parts,
        })
    }

    /// The same model with another propensity.
    ///
    /// # Errors
    /// A propensity with a number that is not finite or out of range.
    pub fn with_propensity(mut self, propensity: Propensity) -> Result<Self, SnapshotError> {
        check_propensity(&propensity)?;
        self.parts.propensity = propensity;
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

    pub fn users(&self) -> &Dictionary<UserIndex> {
        &self.parts.users
    }

    pub fn items(&self) -> &Dictionary<ItemIndex> {
        &self.parts.items
    }

    pub fn catalog(&self) -> &Catalog {
        &self.parts.catalog
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

    /// For every item j the items that have j in their neighbor list.
    pub fn reverse_item_neighbors(&self) -> &ReverseNeighbors {
        &self.reverse_item_neighbors
    }

    /// Of the items, by how many users have an effective rating of them.
    pub fn popularity(&self) -> &Popularity {
        self.parts.ratings.popularity()
    }

    pub fn activity(&self) -> &Activity {
        &self.parts.activity
    }

    pub fn propensity(&self) -> &Propensity {
        &self.parts.propensity
    }

    /// What is on record for a user of the snapshot, as of when its input was read.
    pub fn user_consents(&self, user: UserIndex) -> Consents {
        self.user_consents[user.at()]
    }

    /// What is on record for anybody, as of when the input was read.
    pub fn consents(&self) -> &ConsentRecords {
        &self.parts.consents
    }
}

fn user_consents(parts: &SnapshotParts) -> Vec<Consents> {
    let mut of_users = vec![Consents::default(); parts.users.len()];
    for (id, consents) in parts.consents.iter() {
        if let Some(user) = parts.users.find(id) {
            of_users[user.at()] = consents;
        }
    }
    of_users
}

fn check_weights(weights: &BlendWeights) -> Result<(), SnapshotError> {
    if weights.all().iter().all(|weight| (0.0..=1.0).contains(weight)) {
        return Ok(());
    }
    Err(SnapshotError::Value { part: "weights" })
}

fn check_propensity(propensity: &Propensity) -> Result<(), SnapshotError> {
    match propensity {
        Propensity::Fitted(model) if model.check().is_err() => Err(SnapshotError::Value { part: "propensity" }),
        Propensity::Fitted(_) | Propensity::NotFitted { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::snapshot::fixture::{EXAMPLE, snapshot_parts};

    use super::*;

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
}
