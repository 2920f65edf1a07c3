//! Makes views for tests: some with changes, some random.

use std::sync::Arc;

use proptest::prelude::*;

use crate::snapshot::dictionary::ItemIndex;
use crate::snapshot::fixture::{catalog, item_id, matrix, orders, snapshot_parts, user_id};
use crate::snapshot::overlay::{FreshChange, Overlay};
use crate::snapshot::parameters::{BlendWeights, DefaultRanker};
use crate::snapshot::parts::Optional;
use crate::snapshot::settings::FittedSettings;
use crate::snapshot::significance::SignificantNeighbors;
use crate::snapshot::view::View;
use crate::snapshot::{Biases, SnapshotParts};
use domain::item::ItemFacts;
use domain::rating::RatingScale;
use similarity::cosine::{RowSelection, TopKOptions, top_k};
use similarity::lists::NeighborLists;
use similarity::significance::{SignificanceOptions, significant_lists};

/// Returns `view` after `changes`.
pub fn changed(view: View, changes: impl IntoIterator<Item = FreshChange>) -> View {
    let mut overlay = Overlay::clone(&view.overlay);
    for change in changes {
        overlay.apply(&view.snapshot, change, usize::MAX);
    }
    View {
        overlay: Arc::new(overlay),
        ..view
    }
}

/// Sets the explicit rating and the number of orders of a user and an item.
pub fn interaction(user: &str, item: &str, rating: Option<f32>, orders: u32) -> FreshChange {
    FreshChange::Interaction {
        user: user_id(user),
        item: item_id(item),
        rating,
        orders,
        last_order_at: 0,
        ordered_at: vec![0; orders as usize],
    }
}

pub fn facts_change(item: &str, facts: ItemFacts) -> FreshChange {
    FreshChange::Item {
        item: item_id(item),
        facts,
    }
}

/// Returns the external ids of `items`.
pub fn ids(view: &View, items: impl IntoIterator<Item = ItemIndex>) -> Vec<&str> {
    items.into_iter().map(|item| view.item_id(item)).collect()
}

#[track_caller]
pub fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found}, not {expected}");
}

/// Generates parts of up to six users and eight items with random contents; some items have no rating, are unlisted or
/// bought.
pub fn any_parts() -> impl Strategy<Value = SnapshotParts> {
    (1usize..=6, 1usize..=8).prop_flat_map(|(m, n)| {
        let rating = prop_oneof![1 => Just(0u8), 1 => 1u8..=10];
        (
            prop::collection::vec(prop::collection::vec(rating, n), m),
            prop::collection::vec(any::<bool>(), m * n),
            prop::collection::vec(prop::bool::weighted(0.8), n),
            (
                1.0..5.0f64,
                prop::collection::vec(-1.0..1.0f32, m),
                prop::collection::vec(-1.0..1.0f32, n),
            ),
            prop::array::uniform4(prop_oneof![Just(0.0), Just(0.5), Just(1.0), 0.0..1.0f64]),
            prop_oneof![Just(1usize), Just(2), Just(50)],
            prop_oneof![Just(RatingScale::default()), Just(RatingScale { min: 2.0, max: 3.5 })],
            any_terms(),
        )
            .prop_map(
                |(half_stars, purchased, listed, biases, weights, neighbors, scale, terms)| {
                    let rows: Vec<Vec<f32>> = half_stars
                        .iter()
                        .map(|row| row.iter().map(|&rating| f32::from(rating) / 2.0).collect())
                        .collect();
                    let mut parts = snapshot_parts(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    let options = TopKOptions { neighbors };
                    let ratings = matrix(&parts.ratings);
                    let by_item = ratings.transpose();
                    parts.user_neighbors = top_k(&ratings, &by_item, RowSelection::All, &options).unwrap().lists;
                    parts.item_neighbors = top_k(&by_item, &ratings, RowSelection::All, &options).unwrap().lists;
                    parts.purchased = purchased[..parts.ratings.nnz()].iter().copied().collect();
                    let listed = listed.iter().map(|&listed| ItemFacts {
                        listed,
                        ..ItemFacts::default()
                    });
                    parts.catalog = catalog(&listed.collect::<Vec<_>>());
                    let (global_mean, users, items) = biases;
                    parts.biases = Biases {
                        global_mean,
                        users,
                        items,
                    };
                    let [weighted_sum, weighted_mean, baseline, ranking] = weights;
                    parts.weights = BlendWeights {
                        weighted_sum,
                        weighted_mean,
                        baseline,
                        ranking,
                    };
                    parts.parameters.scale = scale;
                    let (significance, exponents, habit_weight) = terms;
                    if let Some(shrinkage) = significance {
                        let options = SignificanceOptions {
                            neighbors,
                            candidates: neighbors,
                        };
                        let candidates = &parts.item_neighbors;
                        let mut lists = significant_lists(&by_item, &ratings, candidates, &options, &[shrinkage]);
                        parts.significant_item_neighbors = Optional::Present(SignificantNeighbors {
                            shrinkage,
                            neighbors: lists.remove(0),
                        });
                    }
                    let mut settings = FittedSettings::plain(&parts.weights, DefaultRanker::Blended);
                    settings.new_items.trend_exponent = exponents[0];
                    settings.all_items.trend_exponent = exponents[1];
                    settings.all_items.habit_weight = habit_weight;
                    parts.fitted_settings = Optional::Present(settings);
                    parts.orders = Optional::Present(orders(&parts, |at| at as u32 % 4, 0.5));
                    parts
                },
            )
    })
}

/// Generates the significance, if lists are shrunk, the trend exponents of new and of all items, and the weight of own habits.
fn any_terms() -> impl Strategy<Value = (Option<f64>, [f64; 2], f64)> {
    let exponent = || prop_oneof![Just(0.0), Just(0.5), Just(1.0)];
    let significance = prop::option::of(prop_oneof![Just(0.0), Just(2.0)]);
    let habit_weight = prop_oneof![Just(0.0), Just(2.0)];
    (significance, [exponent(), exponent()], habit_weight)
}

/// Returns the lists of items that rank.
pub fn ranking_lists(parts: &SnapshotParts) -> &NeighborLists {
    match parts.significant_item_neighbors.get() {
        Ok(significant) => &significant.neighbors.lists,
        Err(_) => &parts.item_neighbors,
    }
}

/// An item with the rating and the number of orders that replace those of the snapshot for a user.
pub type Change = (usize, Option<f32>, u32);

/// Generates changes of items below eight, at most one for each; some remove everything.
pub fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    let rating = prop::option::of((1u8..=10).prop_map(|half_stars| f32::from(half_stars) / 2.0));
    let changes = prop::collection::btree_map(0usize..8, (rating, 0u32..4), 0..5);
    changes.prop_map(|changes| {
        changes
            .into_iter()
            .map(|(item, (rating, orders))| (item, rating, orders))
            .collect()
    })
}

/// A user in the terms of the formulas.
#[derive(Debug, Clone)]
pub struct Person {
    /// The rating of each item, 0 where there is none.
    pub ratings: Vec<f64>,
    pub purchased: Vec<bool>,
    /// The number of orders of each item.
    pub orders: Vec<u32>,
    /// Best first.
    pub neighbors: Vec<(usize, f64)>,
    pub bias: f64,
}

impl Person {
    /// Returns row `user` of `parts`, or an unknown user, after `changes`; changes of items that do not exist are ignored.
    pub fn new(parts: &SnapshotParts, user: Option<usize>, changes: &[Change]) -> Self {
        let n = parts.items.len();
        let (mut ratings, mut purchased, mut orders) = (vec![0.0; n], vec![false; n], vec![0; n]);
        if let Some(user) = user {
            let stored = parts.orders.get().ok();
            let mut counts = stored
                .into_iter()
                .flat_map(|stored| &stored.counts[stored.row_range(user)]);
            for ((item, value), position) in parts.ratings.row(user).iter().zip(parts.ratings.row_range(user)) {
                ratings[item.at()] = f64::from(value);
                purchased[item.at()] = parts.purchased.get(position);
                if purchased[item.at()] {
                    orders[item.at()] = counts.next().copied().unwrap_or(0);
                }
            }
        }
        let max = f64::from(parts.parameters.scale.max);
        let known: Vec<&Change> = changes.iter().filter(|change| change.0 < n).collect();
        for &&(item, rating, count) in &known {
            let implicit = (1.0 + f64::from(count).log2()).min(max) as f32;
            let effective = rating.unwrap_or(if count > 0 { implicit } else { 0.0 });
            ratings[item] = f64::from(effective);
            purchased[item] = count > 0;
            // An item without a rating is in no history.
            orders[item] = if effective > 0.0 { count } else { 0 };
        }

        let has_ratings = ratings.iter().any(|&rating| rating > 0.0);
        let neighbors = match user {
            Some(user) if has_ratings => {
                let (users, similarities) = parts.user_neighbors.row(user);
                let neighbors = users.iter().zip(similarities);
                neighbors
                    .map(|(&user, &similarity)| (user as usize, f64::from(similarity)))
                    .collect()
            }
            _ => Vec::new(),
        };
        let bias = match user {
            _ if !has_ratings => 0.0,
            Some(user) if changes.is_empty() => f64::from(parts.biases.users[user]),
            _ => {
                let rated = (0..n).filter(|&item| ratings[item] > 0.0);
                let deviations = rated.map(|item| ratings[item] - mean_of(parts) - f64::from(parts.biases.items[item]));
                let (total, count) =
                    deviations.fold((0.0, 0.0), |(total, count), deviation| (total + deviation, count + 1.0));
                total / (parts.parameters.options.user_bias_shrinkage + count)
            }
        };
        Self {
            ratings,
            purchased,
            orders,
            neighbors,
            bias,
        }
    }

    pub fn has_ratings(&self) -> bool {
        self.ratings.iter().any(|&rating| rating > 0.0)
    }
}

/// Returns μ, or the middle of the scale while there are no ratings.
pub fn mean_of(parts: &SnapshotParts) -> f64 {
    let scale = parts.parameters.scale;
    match parts.ratings.nnz() {
        0 => (f64::from(scale.min) + f64::from(scale.max)) / 2.0,
        _ => parts.biases.global_mean,
    }
}
