//! Compares the categories of a list with those of a history.
//!
//! Source: Steck 2018, "Calibrated Recommendations": C_KL(p, q) = Σ_g p(g)·ln(p(g) / q̃(g)) with q̃ = (1 − α)·q + α·p and
//! α = .01, where p(g) is the share of category g in the history and q(g) its share in the list. All items weigh the same.

use std::collections::BTreeMap;

/// The share of p in the smoothed shares of a list: α.
const SMOOTHING: f64 = 0.01;

/// The share of each category among the items of a history that have one: p. Above 0; they sum to 1 unless there are none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CategoryShares<'a> {
    shares: BTreeMap<&'a str, f64>,
}

impl<'a> CategoryShares<'a> {
    /// `categories`: one for each item of the history that has one.
    pub fn new(categories: impl Iterator<Item = &'a str>) -> Self {
        let mut shares = BTreeMap::new();
        let mut n_items = 0.0;
        for category in categories {
            *shares.entry(category).or_insert(0.0) += 1.0;
            n_items += 1.0;
        }
        shares.values_mut().for_each(|share| *share /= n_items);
        Self { shares }
    }

    /// Whether no item of the history has a category.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Returns the divergence C_KL, 0 or more, of a list from these shares. A list without categories counts q = 0.
    ///
    /// `list`: the categories of the items of the list that have one.
    pub fn divergence(&self, list: impl Iterator<Item = &'a str>) -> f64 {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        let mut n_items = 0.0;
        for category in list {
            *counts.entry(category).or_default() += 1.0;
            n_items += 1.0;
        }
        let terms = self.shares.iter().map(|(category, &share)| {
            let count = counts.get(category).copied().unwrap_or(0.0);
            term(share, count, n_items)
        });
        terms.sum()
    }
}

/// Returns p·ln(p / q̃) of one category that has `count` of the list's `n_items`.
fn term(share: f64, count: f64, n_items: f64) -> f64 {
    let listed = if n_items > 0.0 { count / n_items } else { 0.0 };
    share * (share / ((1.0 - SMOOTHING) * listed + SMOOTHING * share)).ln()
}

/// The divergence of a list to which items are added one after the other.
#[derive(Debug)]
pub(super) struct Divergence {
    /// The share in the history of each category that the history has.
    shares: Vec<f64>,
    /// How many items of each of these the list has.
    counts: Vec<f64>,
    /// For each category of the candidates its position in `shares`, if the history has it.
    positions: Vec<Option<usize>>,
    n_items: f64,
}

/// How much the divergence falls if an item is added.
#[derive(Debug)]
pub(super) struct Gains {
    /// By category of the candidates; empty without shares.
    of_category: Vec<f64>,
}

impl Divergence {
    /// `categories`: those of the candidates.
    pub fn new(shares: &CategoryShares, categories: &[&str]) -> Self {
        let position = |category: &&str| shares.shares.keys().position(|known| known == category);
        Self {
            // Without a history there is nothing to compare with.
            positions: match shares.is_empty() {
                true => Vec::new(),
                false => categories.iter().map(position).collect(),
            },
            counts: vec![0.0; shares.shares.len()],
            shares: shares.shares.values().copied().collect(),
            n_items: 0.0,
        }
    }

    /// Returns the gain of each category; may be below 0.
    pub fn gains(&self) -> Gains {
        if self.positions.is_empty() {
            return Gains {
                of_category: Vec::new(),
            };
        }
        let with = |n_items: f64| -> Vec<f64> {
            let terms = self.shares.iter().zip(&self.counts);
            terms.map(|(&share, &count)| term(share, count, n_items)).collect()
        };
        let now: f64 = with(self.n_items).iter().sum();
        let longer = with(self.n_items + 1.0);
        let of_others: f64 = longer.iter().sum();
        let gain = |&position: &Option<usize>| match position {
            None => now - of_others,
            Some(at) => {
                let added = term(self.shares[at], self.counts[at] + 1.0, self.n_items + 1.0);
                now - (of_others - longer[at] + added)
            }
        };
        Gains {
            of_category: self.positions.iter().map(gain).collect(),
        }
    }

    /// Adds an item; one without a category changes nothing.
    pub fn add(&mut self, category: Option<usize>) {
        let Some(position) = category.and_then(|category| self.positions.get(category)) else {
            return;
        };
        self.n_items += 1.0;
        if let Some(at) = *position {
            self.counts[at] += 1.0;
        }
    }
}

impl Gains {
    /// Returns the gain of an item of a category; 0 without a category.
    pub fn of(&self, category: Option<usize>) -> f64 {
        let gain = category.and_then(|category| self.of_category.get(category));
        gain.copied().unwrap_or(0.0)
    }

    /// Returns a gain that no item exceeds.
    pub fn largest(&self) -> f64 {
        self.of_category.iter().copied().fold(0.0, f64::max)
    }
}
