//! Predicted ratings.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::overlay::ItemRef;
use crate::snapshot::view::View;
use domain::id::UserId;

use crate::ranking::Basis;
pub use crate::ranking::explain::{ItemContribution, SimilarUsers};
use crate::ranking::explain::{item_contributions, similar_users};
use crate::ranking::kernel::item_lookup::{Hits, RequestedItems};
use crate::ranking::kernel::prefetch::{AHEAD, prefetch, prefetch_ranks, prefetch_value};
use crate::ranking::shopper::Shopper;

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

/// Room for the predictions of one request, kept for the next: it grows to the number of items, and to that of ratings that
/// neighbors have given to those of a request.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The user's own ratings, one an item; between requests every one is 0.
    ratings: Vec<f32>,
    asked: RequestedItems,
    met: Hits,
    meetings: Vec<Meeting>,
}

/// A neighbor of the user has rated an item that is asked about.
///
/// All are found before the first rating is read: that would be waited for, and is fetched meanwhile.
#[derive(Debug)]
struct Meeting {
    neighbor: UserIndex,
    similarity: f32,
    /// Of the item in the request.
    place: usize,
    /// Position of the rating among all.
    entry: usize,
}

/// Terms of a sum over neighbors, one added after the other.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    total: f64,
    total_similarity: f64,
    support: u32,
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
        self.prediction(known, items.unwrap_or_default(), users.unwrap_or_default(), options)
    }

    /// [`Self::predict`] of several items, which costs less a piece.
    ///
    /// `items`: each once; `None`: one that the snapshot does not know.
    pub fn predict_all(
        &self,
        items: &[Option<ItemIndex>],
        options: &PredictOptions,
        scratch: &mut Scratch,
    ) -> Vec<Prediction> {
        scratch.grow(self.snapshot.items().len());
        let by_items = match options.basis.has_items() {
            true => self.item_sides(items, options.estimator, scratch),
            false => vec![Side::default(); items.len()],
        };
        let by_users = match options.basis.has_users() {
            true => self.user_sides(items, options.estimator, scratch),
            false => vec![Side::default(); items.len()],
        };
        let sides = by_items.into_iter().zip(by_users);
        let prediction = |(&item, (by_items, by_users))| self.prediction(item, by_items, by_users, options);
        items.iter().zip(sides).map(prediction).collect()
    }

    fn prediction(&self, known: Option<ItemIndex>, items: Side, users: Side, options: &PredictOptions) -> Prediction {
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
        let mut sum = Sum::default();
        for (&neighbor, &similarity) in neighbors.iter().zip(similarities) {
            let neighbor = ItemIndex(neighbor);
            if let Some(rating) = self.shopper.rating(neighbor) {
                sum.add(
                    similarity,
                    f64::from(rating) - self.expected_of_item(neighbor, estimator),
                );
            }
        }
        sum.over(similarities, estimator)
    }

    /// Over the neighbors of the user, of whom some have rated `item`.
    fn user_side(&self, item: ItemIndex, estimator: Estimator) -> Side {
        let (neighbors, similarities) = self.shopper.neighbor_list();
        let mut sum = Sum::default();
        for (&neighbor, &similarity) in neighbors.iter().zip(similarities) {
            let neighbor = UserIndex(neighbor);
            if let Some(rating) = self.snapshot.ratings().get(neighbor.at(), item) {
                sum.add(
                    similarity,
                    f64::from(rating) - self.expected_of_user(neighbor, item, estimator),
                );
            }
        }
        sum.over(similarities, estimator)
    }

    /// [`Self::item_side`] of every item: the user's ratings are spread out once for all of them.
    fn item_sides(&self, items: &[Option<ItemIndex>], estimator: Estimator, scratch: &mut Scratch) -> Vec<Side> {
        if !self.shopper.has_ratings() {
            return vec![Side::default(); items.len()];
        }
        if self.shopper.n_ratings() > MAX_SPREAD * items.len() {
            let side = |item| self.item_side(item, estimator);
            return items.iter().map(|item| item.map(side).unwrap_or_default()).collect();
        }
        let Scratch { ratings, met, .. } = scratch;
        for (item, rating) in self.shopper.ratings() {
            ratings[item.at()] = rating;
        }
        let spread = &ratings[..];
        let row = |item: ItemIndex| self.snapshot.item_neighbors().row(item.at());
        let mut ahead = items.iter().skip(AHEAD).map(|item| item.map(row));
        let side = |item: &Option<ItemIndex>| {
            if let Some((neighbors, similarities)) = ahead.next().flatten() {
                prefetch(neighbors);
                prefetch(similarities);
            }
            let Some(item) = item else { return Side::default() };
            let (neighbors, similarities) = row(*item);
            let mut sum = Sum::default();
            for &position in met.among(neighbors, |neighbor| spread[neighbor as usize] > 0.0) {
                let (neighbor, similarity) = (neighbors[position as usize], similarities[position as usize]);
                let expected = self.expected_of_item(ItemIndex(neighbor), estimator);
                sum.add(similarity, f64::from(spread[neighbor as usize]) - expected);
            }
            sum.over(similarities, estimator)
        };
        let sides = items.iter().map(side).collect();
        for (item, _) in self.shopper.ratings() {
            ratings[item.at()] = 0.0;
        }
        sides
    }

    /// [`Self::user_side`] of every item: the row of each neighbor is gone through once for all of them.
    fn user_sides(&self, items: &[Option<ItemIndex>], estimator: Estimator, scratch: &mut Scratch) -> Vec<Side> {
        let Scratch {
            asked, met, meetings, ..
        } = scratch;
        for (place, item) in (0..).zip(items) {
            if let Some(item) = item {
                asked.insert(self.snapshot.popularity().rank(*item), place);
            }
        }
        let ratings = self.snapshot.ratings();
        let row = |user: UserIndex| ratings.row(user.at());
        // Before a row can be fetched it has to be known where it is.
        for (neighbor, _) in self.shopper.neighbors() {
            prefetch(&ratings.offsets()[neighbor.at()..][..2]);
        }
        let mut ahead = self.shopper.neighbors().skip(AHEAD);
        for (neighbor, similarity) in self.shopper.neighbors() {
            if let Some((later, _)) = ahead.next()
                && let rated = row(later)
                && asked.is_short(rated.len())
            {
                prefetch_ranks(rated.ranks);
            }
            let rated = row(neighbor);
            let first = ratings.row_range(neighbor.at()).start;
            let mut note = |rank: u32, position: usize| {
                prefetch_value(rated.values, position);
                meetings.push(Meeting {
                    neighbor,
                    similarity,
                    place: asked.place(rank),
                    entry: first + position,
                });
            };
            if asked.is_short(rated.len()) {
                for &position in asked.met_in(rated.ranks, met) {
                    note(rated.ranks.get(position as usize), position as usize);
                }
            } else {
                for &rank in asked.ranks() {
                    if let Some(position) = rated.ranks.position(rank) {
                        note(rank, position);
                    }
                }
            }
        }
        let mut sums = vec![Sum::default(); items.len()];
        let values = ratings.values().as_slice();
        for meeting in meetings.drain(..) {
            let Some(item) = items[meeting.place] else { continue };
            let expected = self.expected_of_user(meeting.neighbor, item, estimator);
            let deviation = f64::from(values.get(meeting.entry)) - expected;
            sums[meeting.place].add(meeting.similarity, deviation);
        }
        asked.clear();
        let (_, similarities) = self.shopper.neighbor_list();
        let side = |(sum, item): (Sum, &Option<ItemIndex>)| match item {
            Some(_) => sum.over(similarities, estimator),
            None => Side::default(),
        };
        sums.into_iter().zip(items).map(side).collect()
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
        let item_has_ratings = item.is_some_and(|item| self.snapshot.popularity().raters(item) > 0);
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

impl Sum {
    /// A neighbor that has rated, and what is averaged.
    #[inline]
    fn add(&mut self, similarity: f32, deviation: f64) {
        let similarity = f64::from(similarity);
        self.support += 1;
        self.total_similarity += similarity;
        self.total += similarity * deviation;
    }

    /// The mean; over all neighbors, whose `similarities` those are, where who has not rated counts too.
    fn over(self, similarities: &[f32], estimator: Estimator) -> Side {
        let (support, total_similarity) = match estimator {
            Estimator::WeightedSum => {
                let total = similarities.iter().map(|&similarity| f64::from(similarity)).sum();
                (similarities.len() as u32, total)
            }
            Estimator::WeightedMean | Estimator::Baseline => (self.support, self.total_similarity),
        };
        Side {
            mean: if support > 0 {
                self.total / total_similarity
            } else {
                0.0
            },
            total_similarity,
            support,
        }
    }
}

impl Scratch {
    fn grow(&mut self, n_items: usize) {
        if self.ratings.len() < n_items {
            self.ratings.resize(n_items, 0.0);
        }
        self.asked.grow(n_items);
    }
}

/// Ratings of a user for every item asked about, above which looking for single ones is quicker than to spread them out.
const MAX_SPREAD: usize = if cfg!(test) { 1 } else { 200 };

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
