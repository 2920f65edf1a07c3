//! Predicts ratings.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::overlay::ItemRef;
use crate::snapshot::view::View;
use domain::id::UserId;

use crate::ranking::Basis;
pub use crate::ranking::explain::{ItemContribution, SimilarUsers};
use crate::ranking::explain::{item_contributions, similar_users};
pub use crate::ranking::kernel::item_lookup::LookupOptions;
use crate::ranking::kernel::item_lookup::{Hits, RequestedItems};
use crate::ranking::kernel::prefetch::{AHEAD, prefetch, prefetch_ranks, prefetch_value};
use crate::ranking::shopper::Shopper;

#[cfg(test)]
mod tests;

/// The formula by which a predicted rating is computed from the neighbors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Estimator {
    /// Σ sim·R / Σ|sim| over all neighbors, where an absent rating counts as 0; never clamped.
    WeightedSum,
    /// The same over the neighbors with a rating; clamped to the rating scale.
    WeightedMean,
    /// b_ui + Σ sim·(R − b) / (Σ|sim| + λ) over the neighbors with a rating, b = μ + b_u + b_i; clamped. λ is fitted.
    ///
    /// Source: Koren 2010, "Factor in the Neighbors", §2.
    #[default]
    Baseline,
}

/// The source of a prediction when no neighbor could be used; such a prediction is always clamped to the rating scale.
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
    pub thresholds: Thresholds,
}

/// Decides by which of two methods [`Predictor::predict_all`] looks ratings up. This changes how long an answer takes, and
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub lookup: LookupOptions,
    /// The most ratings of the user per requested item that are spread out, one slot an item; of a user with more, each
    /// rating is searched for when it is needed.
    pub max_spread: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            lookup: LookupOptions::default(),
            max_spread: 200,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    pub value: f64,
    /// The number of neighbors used: all for the weighted sum, else those with a rating; a blend counts both sides.
    pub support: u32,
    /// The value was outside the rating scale and set to its limit.
    pub clamped: bool,
    pub fallback: Fallback,
    /// Present when it was requested.
    pub explanation: Option<RatingExplanation>,
}

/// The terms of a predicted rating; together, over all items, they sum to its value.
#[derive(Debug, Clone, PartialEq)]
pub struct RatingExplanation {
    pub global_mean: f64,
    pub user_bias: f64,
    pub item_bias: f64,
    /// Largest absolute contribution first.
    pub items: Vec<ItemContribution>,
    /// `None` when the basis has no users, or no similar user has rated the item.
    pub similar_users: Option<SimilarUsers>,
    /// The difference that clamping to the rating scale made.
    pub clamping: f64,
}

/// The fitted numbers of BASELINE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// The share of the item-based side in a blend, 0 to 1.
    pub weight: f64,
    /// λ: what is added to Σ|sim|, at least 0. It draws predictions that rest on little similarity to the biases.
    pub shrinkage: f64,
}

impl Baseline {
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            weight: snapshot.weights().baseline,
            shrinkage: snapshot.settings().baseline_shrinkage,
        }
    }
}

/// Predicts ratings of one user; built once for any number of items.
pub struct Predictor<'a> {
    snapshot: &'a Snapshot,
    baseline: Baseline,
    shopper: Shopper<'a>,
    global_mean: f64,
    user_bias: f64,
}

/// The buffers of one request, reused by the next. They grow to the number of items, and to the number of ratings that
/// neighbors have given to the items of a request.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The user's own ratings by item; between requests every one is 0.
    ratings: Vec<f32>,
    requested: RequestedItems,
    hits: Hits,
    found: Vec<FoundRating>,
}

/// A neighbor's rating of a requested item, before it is read.
///
/// All ratings are found before the first is read, so that they are fetched from memory meanwhile.
#[derive(Debug)]
struct FoundRating {
    neighbor: UserIndex,
    similarity: f32,
    /// The item's position in the request.
    position: usize,
    /// The rating's position among all entries of the ratings.
    entry: usize,
}

/// The terms of a sum over neighbors, added one after the other.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    total: f64,
    total_similarity: f64,
    support: u32,
}

/// Σ sim·x / Σ|sim| over the neighbors of one side, with λ in the denominator of BASELINE.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    mean: f64,
    /// The denominator.
    total_similarity: f64,
    support: u32,
}

/// The weight of each side, in [0, 1].
#[derive(Debug, Clone, Copy, Default)]
struct Shares {
    items: f64,
    users: f64,
}

/// μ, b_u and b_i; all are 0 where the estimator does not use them.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    global_mean: f64,
    user_bias: f64,
    item_bias: f64,
}

impl<'a> Predictor<'a> {
    /// Takes `user` with their present ratings.
    ///
    /// A user whose ratings have changed since the snapshot gets the bias that these ratings have beside the snapshot's item
    /// biases; ratings of items newer than the snapshot do not count. A user who objects to profiling is treated as unknown.
    pub fn new(view: &'a View, user: &UserId) -> Self {
        Self::of(view, Shopper::of_user(view, user))
    }

    /// Takes `user` as the snapshot knows them, whatever has changed since.
    pub fn for_index(view: &'a View, user: UserIndex) -> Self {
        Self::of(view, Shopper::of_index(view, user))
    }

    fn of(view: &'a View, shopper: Shopper<'a>) -> Self {
        let snapshot = &*view.snapshot;
        let global_mean = global_mean(snapshot);
        Self {
            snapshot,
            baseline: Baseline::of(snapshot),
            global_mean,
            user_bias: user_bias(snapshot, &shopper, global_mean),
            shopper,
        }
    }

    /// Replaces the fitted numbers of BASELINE.
    pub fn with_baseline(self, baseline: Baseline) -> Self {
        Self { baseline, ..self }
    }

    /// Predicts the rating of `item`. The user's own rating of it takes no part, because no item is its own neighbor.
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

    /// Predicts what [`Self::predict`] does for several items, at less cost for each.
    ///
    /// `items`: each once; `None` for an item that the snapshot does not know.
    pub fn predict_all(
        &self,
        items: &[Option<ItemIndex>],
        options: &PredictOptions,
        scratch: &mut Scratch,
    ) -> Vec<Prediction> {
        scratch.grow(self.snapshot.items().len());
        let by_items = match options.basis.has_items() {
            true => self.item_sides(items, options, scratch),
            false => vec![Side::default(); items.len()],
        };
        let by_users = match options.basis.has_users() {
            true => self.user_sides(items, options, scratch),
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
        Prediction {
            value,
            support,
            clamped,
            fallback,
            explanation: options.explain.then(|| RatingExplanation {
                global_mean: base.global_mean,
                user_bias: base.user_bias,
                item_bias: base.item_bias,
                items: self.explain_items(known, items, shares, options.estimator),
                similar_users: self.explain_users(known, users, shares, options.estimator),
                clamping: value - raw,
            }),
        }
    }

    fn explain_items(
        &self,
        item: Option<ItemIndex>,
        side: Side,
        shares: Shares,
        estimator: Estimator,
    ) -> Vec<ItemContribution> {
        let Some(item) = item.filter(|_| side.support > 0) else {
            return Vec::new();
        };
        let weight = shares.items / side.total_similarity;
        item_contributions(
            self.snapshot.item_neighbors(),
            &self.shopper,
            item,
            |neighbor, similarity, rating| weight * similarity * (rating - self.expected_of_item(neighbor, estimator)),
        )
    }

    fn explain_users(
        &self,
        item: Option<ItemIndex>,
        side: Side,
        shares: Shares,
        estimator: Estimator,
    ) -> Option<SimilarUsers> {
        let item = item.filter(|_| side.support > 0)?;
        let weight = shares.users / side.total_similarity;
        similar_users(self.snapshot, &self.shopper, item, |neighbor, similarity, rating| {
            weight * similarity * (rating - self.expected_of_user(neighbor, item, estimator))
        })
    }

    /// Returns μ + b_u + b_i, clamped: the prediction without neighbors.
    pub fn baseline(&self, item: ItemIndex) -> f64 {
        let (value, _) = self.snapshot.parameters().scale.clamp(self.base(Some(item)).sum());
        value
    }

    /// Returns the item-based and the user-based value, neither of them clamped. Returns `None` unless both have support,
    /// because a blend weighs them only then.
    pub fn sides(&self, item: ItemIndex, estimator: Estimator) -> Option<(f64, f64)> {
        let (items, users) = (self.item_side(item, estimator), self.user_side(item, estimator));
        let base = match estimator {
            Estimator::WeightedSum | Estimator::WeightedMean => 0.0,
            Estimator::Baseline => self.base(Some(item)).sum(),
        };
        (items.support > 0 && users.support > 0).then_some((base + items.mean, base + users.mean))
    }

    /// Returns the biases; `item` is `None` for one that the snapshot does not know.
    fn base(&self, item: Option<ItemIndex>) -> Base {
        Base {
            global_mean: self.global_mean,
            user_bias: self.user_bias,
            item_bias: item.map_or(0.0, |item| self.item_bias(item)),
        }
    }

    /// Averages the user's ratings of the neighbors of `item`.
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
        sum.over(similarities, estimator, self.baseline.shrinkage)
    }

    /// Averages the ratings of `item` by the neighbors of the user.
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
        sum.over(similarities, estimator, self.baseline.shrinkage)
    }

    /// Computes [`Self::item_side`], its plain reference, for every item. The user's ratings are spread out once for all.
    fn item_sides(&self, items: &[Option<ItemIndex>], options: &PredictOptions, scratch: &mut Scratch) -> Vec<Side> {
        let estimator = options.estimator;
        if !self.shopper.has_ratings() {
            return vec![Side::default(); items.len()];
        }
        if self.shopper.n_ratings() > options.thresholds.max_spread * items.len() {
            let side = |item| self.item_side(item, estimator);
            return items.iter().map(|item| item.map(side).unwrap_or_default()).collect();
        }
        let Scratch { ratings, hits, .. } = scratch;
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
            for &position in hits.find(neighbors, |neighbor| spread[neighbor as usize] > 0.0) {
                let (neighbor, similarity) = (neighbors[position as usize], similarities[position as usize]);
                let expected = self.expected_of_item(ItemIndex(neighbor), estimator);
                sum.add(similarity, f64::from(spread[neighbor as usize]) - expected);
            }
            sum.over(similarities, estimator, self.baseline.shrinkage)
        };
        let sides = items.iter().map(side).collect();
        for (item, _) in self.shopper.ratings() {
            ratings[item.at()] = 0.0;
        }
        sides
    }

    /// Computes [`Self::user_side`], its plain reference, for every item. Each neighbor's row is looked through once for all.
    fn user_sides(&self, items: &[Option<ItemIndex>], options: &PredictOptions, scratch: &mut Scratch) -> Vec<Side> {
        let estimator = options.estimator;
        for (position, item) in (0..).zip(items) {
            if let Some(item) = item {
                scratch
                    .requested
                    .insert(self.snapshot.popularity().rank(*item), position);
            }
        }
        self.find_ratings(&options.thresholds.lookup, scratch);
        scratch.requested.clear();

        let mut sums = vec![Sum::default(); items.len()];
        let values = self.snapshot.ratings().values().as_slice();
        for found in scratch.found.drain(..) {
            let Some(item) = items[found.position] else { continue };
            let expected = self.expected_of_user(found.neighbor, item, estimator);
            let deviation = f64::from(values.get(found.entry)) - expected;
            sums[found.position].add(found.similarity, deviation);
        }
        let (_, similarities) = self.shopper.neighbor_list();
        let side = |(sum, item): (Sum, &Option<ItemIndex>)| match item {
            Some(_) => sum.over(similarities, estimator, self.baseline.shrinkage),
            None => Side::default(),
        };
        sums.into_iter().zip(items).map(side).collect()
    }

    /// Finds the neighbors' ratings of the requested items, best neighbor first, and has each of them fetched.
    fn find_ratings(&self, options: &LookupOptions, scratch: &mut Scratch) {
        let Scratch {
            requested, hits, found, ..
        } = scratch;
        let ratings = self.snapshot.ratings();
        let row = |user: UserIndex| ratings.row(user.at());
        // The place of a row has to be known before the row can be fetched.
        for (neighbor, _) in self.shopper.neighbors() {
            prefetch(&ratings.offsets()[neighbor.at()..][..2]);
        }
        let mut ahead = self.shopper.neighbors().skip(AHEAD);
        for (neighbor, similarity) in self.shopper.neighbors() {
            if let Some((later, _)) = ahead.next()
                && let rated = row(later)
                && requested.is_scan_faster(rated.len(), options)
            {
                prefetch_ranks(rated.ranks);
            }
            let rated = row(neighbor);
            let first = ratings.row_range(neighbor.at()).start;
            let mut note = |rank: u32, entry: usize| {
                prefetch_value(rated.values, entry);
                found.push(FoundRating {
                    neighbor,
                    similarity,
                    position: requested.position(rank),
                    entry: first + entry,
                });
            };
            if requested.is_scan_faster(rated.len(), options) {
                for &entry in requested.find_in(rated.ranks, options, hits) {
                    note(rated.ranks.get(entry as usize), entry as usize);
                }
            } else {
                for &rank in requested.ranks() {
                    if let Some(entry) = rated.ranks.position(rank) {
                        note(rank, entry);
                    }
                }
            }
        }
    }

    /// Returns the user's expected rating of `item`, from which deviations are taken; 0 but for the baseline estimator.
    fn expected_of_item(&self, item: ItemIndex, estimator: Estimator) -> f64 {
        match estimator {
            Estimator::WeightedSum | Estimator::WeightedMean => 0.0,
            Estimator::Baseline => self.global_mean + self.user_bias + self.item_bias(item),
        }
    }

    /// Returns `user`'s expected rating of `item`, from which deviations are taken; 0 but for the baseline estimator.
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

    /// Returns the fitted weights where both sides have support; else the side with support gets all the weight.
    fn shares(&self, items: Side, users: Side, estimator: Estimator) -> Shares {
        let weights = self.snapshot.weights();
        let weight = match estimator {
            Estimator::WeightedSum => weights.weighted_sum,
            Estimator::WeightedMean => weights.weighted_mean,
            Estimator::Baseline => self.baseline.weight,
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
    /// Adds the term of a neighbor with a rating.
    #[inline]
    fn add(&mut self, similarity: f32, deviation: f64) {
        let similarity = f64::from(similarity);
        self.support += 1;
        self.total_similarity += similarity;
        self.total += similarity * deviation;
    }

    /// Returns the weighted mean. `similarities` are those of all neighbors: the weighted sum counts those without a rating too.
    /// `shrinkage`: λ of BASELINE.
    fn over(self, similarities: &[f32], estimator: Estimator, shrinkage: f64) -> Side {
        let (support, total_similarity) = match estimator {
            Estimator::WeightedSum => {
                let total = similarities.iter().map(|&similarity| f64::from(similarity)).sum();
                (similarities.len() as u32, total)
            }
            Estimator::WeightedMean => (self.support, self.total_similarity),
            Estimator::Baseline => (self.support, self.total_similarity + shrinkage),
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
        self.requested.grow(n_items);
    }
}

/// Returns μ, or the middle of the rating scale while nothing has been rated.
fn global_mean(snapshot: &Snapshot) -> f64 {
    if snapshot.ratings().nnz() > 0 {
        return snapshot.biases().global_mean;
    }
    let scale = &snapshot.parameters().scale;
    (f64::from(scale.min) + f64::from(scale.max)) / 2.0
}

/// Returns b_u: the stored bias while the ratings are those of the snapshot, else Σ_j (r_uj − μ − b_j) / (λ + n), as training
/// computes it; 0 without ratings.
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
