//! Predicted ratings.

use crate::domain::id::UserId;
use crate::model::dictionary::{ItemIndex, UserIndex};
use crate::model::overlay::ItemRef;
use crate::model::snapshot::Snapshot;
use crate::model::view::View;

use super::Basis;
pub use super::explain::{ItemContribution, SimilarUsers};
use super::explain::{item_contributions, similar_users};
use super::shopper::Shopper;

#[cfg(test)]
mod tests;

/// How a predicted rating is computed from the neighbors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Estimator {
    /// Σ sim·R / Σ|sim| over all neighbors, an absent rating counting 0; never clamped.
    WeightedSum,
    /// The same over the neighbors that have rated; clamped to the rating scale.
    WeightedMean,
    /// b_ui + Σ sim·(R − b) / Σ|sim| over the neighbors that have rated, b = μ + b_u + b_i; clamped.
    ///
    /// Source: Koren 2010, "Factor in the Neighbors", §2.
    #[default]
    Baseline,
}

/// What a prediction rests on when no neighbor could be used; always clamped to the rating scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Neighbors were used.
    None,
    /// μ + b_u + b_i.
    BaselineOnly,
    /// μ + b_i: the user has no ratings.
    ItemMean,
    /// μ + b_u: the snapshot has no ratings of the item.
    UserMean,
    /// μ.
    GlobalMean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PredictOptions {
    pub estimator: Estimator,
    pub basis: Basis,
    pub explain: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    pub value: f64,
    /// Neighbors that were used: for the weighted sum all, else those that have rated; of a blend both sides together.
    pub support: u32,
    /// The value was outside the rating scale and set to its limit.
    pub clamped: bool,
    pub fallback: Fallback,
    /// Present when asked for.
    pub explanation: Option<RatingExplanation>,
}

/// The terms of a predicted rating; all of them, over all items, sum to its value.
#[derive(Debug, Clone, PartialEq)]
pub struct RatingExplanation {
    pub global_mean: f64,
    pub user_bias: f64,
    pub item_bias: f64,
    /// Largest absolute contribution first.
    pub items: Vec<ItemContribution>,
    /// `None` when no similar user has rated the item, or they were not asked.
    pub similar_users: Option<SimilarUsers>,
    /// What clamping to the rating scale added.
    pub clamping: f64,
}

/// Predicts for one user; built once, whatever the number of items.
pub struct Predictor<'a> {
    snapshot: &'a Snapshot,
    shopper: Shopper<'a>,
    global_mean: f64,
    user_bias: f64,
}

/// Σ sim·x / Σ|sim| over the neighbors of one side.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    mean: f64,
    total_similarity: f64,
    support: u32,
}

/// How much each side counts, 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
struct Shares {
    items: f64,
    users: f64,
}

/// μ, b_u and b_i, or 0s where the estimator does without.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    global_mean: f64,
    user_bias: f64,
    item_bias: f64,
}

impl<'a> Predictor<'a> {
    /// For `user` as they are now. One whose ratings have changed since the snapshot gets the bias that these ratings
    /// have beside the snapshot's item biases; ratings of items newer than the snapshot do not count. Who has objected to
    /// profiling gets what somebody unknown gets.
    pub fn new(view: &'a View, user: &UserId) -> Self {
        Self::of(view, Shopper::of_user(view, user))
    }

    /// For `user` as the snapshot knows them, whatever has changed since.
    pub fn for_index(view: &'a View, user: UserIndex) -> Self {
        Self::of(view, Shopper::of_index(view, user))
    }

    fn of(view: &'a View, shopper: Shopper<'a>) -> Self {
        let snapshot = &*view.snapshot;
        let global_mean = global_mean(snapshot);
        Self {
            snapshot,
            global_mean,
            user_bias: user_bias(snapshot, &shopper, global_mean),
            shopper,
        }
    }

    /// An item's own rating by the user takes no part in its prediction, for no item is its own neighbor.
    pub fn predict(&self, item: &ItemRef, options: &PredictOptions) -> Prediction {
        let known = match item {
            ItemRef::Known(item) => Some(*item),
            ItemRef::New(_) => None,
        };
        let items = known
            .filter(|_| options.basis.has_items())
            .map(|item| self.item_side(item, options.estimator));
        let users = known
            .filter(|_| options.basis.has_users())
            .map(|item| self.user_side(item, options.estimator));
        let (items, users) = (items.unwrap_or_default(), users.unwrap_or_default());
        let support = items.support + users.support;
        let shares = self.shares(items, users, options.estimator);

        let base = if support == 0 || options.estimator == Estimator::Baseline {
            self.base(known)
        } else {
            Base::default()
        };
        let fallback = if support > 0 {
            Fallback::None
        } else {
            self.fallback(known)
        };

        let neighbors = shares.items * items.mean + shares.users * users.mean;
        let raw = base.sum() + neighbors;
        let (value, clamped) = match options.estimator {
            Estimator::WeightedSum if support > 0 => (raw, false),
            _ => self.snapshot.parameters().scale.clamp(raw),
        };

        let explanation = options.explain.then(|| {
            let weigh = |share: f64, side: Side| {
                if side.support > 0 {
                    share / side.total_similarity
                } else {
                    0.0
                }
            };
            let (per_item, per_user) = (weigh(shares.items, items), weigh(shares.users, users));
            RatingExplanation {
                global_mean: base.global_mean,
                user_bias: base.user_bias,
                item_bias: base.item_bias,
                items: known.filter(|_| items.support > 0).map_or(Vec::new(), |item| {
                    item_contributions(self.snapshot, &self.shopper, item, |neighbor, similarity, rating| {
                        per_item * similarity * (rating - self.expected_of_item(neighbor, options.estimator))
                    })
                }),
                similar_users: known.filter(|_| users.support > 0).and_then(|item| {
                    similar_users(self.snapshot, &self.shopper, item, |neighbor, similarity, rating| {
                        per_user * similarity * (rating - self.expected_of_user(neighbor, item, options.estimator))
                    })
                }),
                clamping: value - raw,
            }
        });
        Prediction {
            value,
            support,
            clamped,
            fallback,
            explanation,
        }
    }

    /// μ + b_u + b_i, clamped: what is predicted without neighbors.
    pub fn baseline(&self, item: ItemIndex) -> f64 {
        let (value, _) = self.snapshot.parameters().scale.clamp(self.base(Some(item)).sum());
        value
    }

    /// The item-based and the user-based value, neither of them clamped; `None` unless both have support, for only then
    /// does a blend weigh them.
    pub fn sides(&self, item: ItemIndex, estimator: Estimator) -> Option<(f64, f64)> {
        let (items, users) = (self.item_side(item, estimator), self.user_side(item, estimator));
        let base = match estimator {
            Estimator::WeightedSum | Estimator::WeightedMean => 0.0,
            Estimator::Baseline => self.base(Some(item)).sum(),
        };
        (items.support > 0 && users.support > 0).then_some((base + items.mean, base + users.mean))
    }

    /// Without `item`, one that the snapshot does not know.
    fn base(&self, item: Option<ItemIndex>) -> Base {
        Base {
            global_mean: self.global_mean,
            user_bias: self.user_bias,
            item_bias: item.map_or(0.0, |item| self.item_bias(item)),
        }
    }

    /// Over the neighbors of `item`, of which the user has rated some.
    fn item_side(&self, item: ItemIndex, estimator: Estimator) -> Side {
        if !self.shopper.has_ratings() {
            return Side::default();
        }
        let (neighbors, similarities) = self.snapshot.item_neighbors().row(item.at());
        let neighbors = neighbors.iter().zip(similarities).map(|(&neighbor, &similarity)| {
            let neighbor = ItemIndex(neighbor);
            let rating = self.shopper.rating(neighbor);
            let deviation = rating.map(|rating| f64::from(rating) - self.expected_of_item(neighbor, estimator));
            (f64::from(similarity), deviation)
        });
        Side::over(neighbors, estimator)
    }

    /// Over the neighbors of the user, of whom some have rated `item`.
    fn user_side(&self, item: ItemIndex, estimator: Estimator) -> Side {
        let neighbors = self.shopper.neighbors().map(|(neighbor, similarity)| {
            let rating = self.snapshot.ratings().get(neighbor.at(), item.0);
            let deviation = rating.map(|rating| f64::from(rating) - self.expected_of_user(neighbor, item, estimator));
            (f64::from(similarity), deviation)
        });
        Side::over(neighbors, estimator)
    }

    /// What ratings are compared with: this user's of `item`; 0 but for the baseline estimator.
    fn expected_of_item(&self, item: ItemIndex, estimator: Estimator) -> f64 {
        match estimator {
            Estimator::WeightedSum | Estimator::WeightedMean => 0.0,
            Estimator::Baseline => self.global_mean + self.user_bias + self.item_bias(item),
        }
    }

    /// What ratings are compared with: `user`'s of `item`; 0 but for the baseline estimator.
    fn expected_of_user(&self, user: UserIndex, item: ItemIndex, estimator: Estimator) -> f64 {
        match estimator {
            Estimator::WeightedSum | Estimator::WeightedMean => 0.0,
            Estimator::Baseline => {
                let user_bias = f64::from(self.snapshot.biases().users[user.at()]);
                self.global_mean + user_bias + self.item_bias(item)
            }
        }
    }

    fn item_bias(&self, item: ItemIndex) -> f64 {
        f64::from(self.snapshot.biases().items[item.at()])
    }

    /// The fitted weight where both sides have something to say, else all to the one that has.
    fn shares(&self, items: Side, users: Side, estimator: Estimator) -> Shares {
        let weights = self.snapshot.weights();
        let weight = match estimator {
            Estimator::WeightedSum => weights.weighted_sum,
            Estimator::WeightedMean => weights.weighted_mean,
            Estimator::Baseline => weights.baseline,
        };
        match (items.support > 0, users.support > 0) {
            (true, true) => Shares {
                items: weight,
                users: 1.0 - weight,
            },
            (items, users) => Shares {
                items: f64::from(u8::from(items)),
                users: f64::from(u8::from(users)),
            },
        }
    }

    fn fallback(&self, item: Option<ItemIndex>) -> Fallback {
        let item_has_ratings = item.is_some_and(|item| self.snapshot.raters(item) > 0);
        match (self.shopper.has_ratings(), item_has_ratings) {
            (true, true) => Fallback::BaselineOnly,
            (false, true) => Fallback::ItemMean,
            (true, false) => Fallback::UserMean,
            (false, false) => Fallback::GlobalMean,
        }
    }
}

impl Base {
    fn sum(self) -> f64 {
        self.global_mean + self.user_bias + self.item_bias
    }
}

impl Side {
    /// `neighbors`: similarity, above 0, and what is averaged, `None` from a neighbor that has not rated.
    fn over(neighbors: impl Iterator<Item = (f64, Option<f64>)>, estimator: Estimator) -> Self {
        let mut side = Self::default();
        let mut total = 0.0;
        for (similarity, deviation) in neighbors {
            if deviation.is_some() || estimator == Estimator::WeightedSum {
                side.support += 1;
                side.total_similarity += similarity;
                total += similarity * deviation.unwrap_or(0.0);
            }
        }
        if side.support > 0 {
            side.mean = total / side.total_similarity;
        }
        side
    }
}

/// μ; the middle of the rating scale while nothing has been rated, for the mean of nothing says nothing.
fn global_mean(snapshot: &Snapshot) -> f64 {
    if snapshot.ratings().nnz() > 0 {
        return snapshot.biases().global_mean;
    }
    let scale = &snapshot.parameters().scale;
    (f64::from(scale.min) + f64::from(scale.max)) / 2.0
}

/// b_u: the stored one while it is that of the present ratings, else Σ_j (r_uj − μ − b_j) / (λ + n), as in training;
/// 0 without ratings.
fn user_bias(snapshot: &Snapshot, shopper: &Shopper, global_mean: f64) -> f64 {
    if !shopper.has_ratings() {
        return 0.0;
    }
    if let Some(user) = shopper.unchanged() {
        return f64::from(snapshot.biases().users[user.at()]);
    }
    let mut total = 0.0;
    let mut weight = snapshot.parameters().options.user_bias_shrinkage;
    for (item, rating) in shopper.ratings() {
        total += f64::from(rating) - global_mean - f64::from(snapshot.biases().items[item.at()]);
        weight += 1.0;
    }
    total / weight
}
