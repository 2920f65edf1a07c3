//! The terms of ranking scores that follow from orders: how an item trends, and how often its buyers come back for it.

use std::sync::Arc;

use super::by_rank::ByRank;
use super::dictionary::ItemIndex;
use super::orders::{OrderSums, Orders};
use super::popularity::Popularity;
use super::settings::FittedSettings;

/// The number of orders, at the share of all items, that the trend of an item is shrunk by.
const TREND_SHRINKAGE: f64 = 5.0;
/// The number of buyers, at the share of all items, that the repeat rate of an item is shrunk by.
const REPEAT_SHRINKAGE: f64 = 20.0;

/// The shares over all items, towards which those of single items are shrunk. They stay fixed until the next snapshot, so that
/// a fresh order changes the terms of its own item only.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OverallShares {
    /// φ: Σ 2^(−age/h) over all orders, divided by their number; 0 without orders.
    pub recent: f64,
    /// ρ: the share of repeat buyers among the buyers of all items; 0 without buyers.
    pub repeat: f64,
}

impl OverallShares {
    pub fn of(orders: &Orders) -> Self {
        let items = &orders.items;
        let total = |counts: &[u32]| counts.iter().map(|&count| f64::from(count)).sum::<f64>();
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let recent = items.recent.iter().map(|&recent| f64::from(recent)).sum();
        Self {
            recent: share(recent, total(&items.orders)),
            repeat: share(total(&items.repeat_buyers), total(&items.buyers)),
        }
    }

    /// Returns f_i/φ, above 0: how much more lately an item is ordered than all items are.
    ///
    /// `f_i = (Σ 2^(−age/h) + 5φ) / (n_i + 5)` over the n_i orders of the item. Returns 1 where nothing is ordered.
    ///
    /// Source: docs/formulas.md, "Ranking".
    pub fn trend(&self, sums: &OrderSums) -> f64 {
        if self.recent <= 0.0 {
            return 1.0;
        }
        let share = (sums.recent() + TREND_SHRINKAGE * self.recent) / (sums.orders.max(0) as f64 + TREND_SHRINKAGE);
        share / self.recent
    }

    /// Returns rep_i, in [0, 1]: how many of the item's buyers have ordered it again.
    ///
    /// `rep_i = (users with two orders + 20ρ) / (users with an order + 20)`.
    ///
    /// Source: docs/formulas.md, "Ranking".
    pub fn repeat_rate(&self, sums: &OrderSums) -> f64 {
        let repeated = sums.repeat_buyers.max(0) as f64 + REPEAT_SHRINKAGE * self.repeat;
        repeated / (sums.buyers.max(0) as f64 + REPEAT_SHRINKAGE)
    }
}

/// The terms of all items as the fitted settings need them. A term that no setting needs is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderTerms {
    shares: OverallShares,
    /// Trend factors (f_i/φ)^g for rankings of new items.
    pub new_items: Option<Factors>,
    /// Trend factors for rankings of all items.
    pub all_items: Option<Factors>,
    /// Raters times the trend factor of popularity.
    pub popularity: Option<Factors>,
    /// rep_i by rank.
    pub repeat_rates: Option<Arc<Vec<f64>>>,
}

/// One term by rank, with the exponent of the trend in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    exponent: f64,
    by_rank: Arc<ByRank>,
}

impl Factors {
    /// Returns the trend factors of all items.
    pub fn of_trend(orders: &Orders, popularity: &Popularity, exponent: f64) -> Self {
        Self::new(orders, popularity, exponent, |_| 1.0)
    }

    /// Returns the raters of all items times their trend factors.
    pub fn of_popularity(orders: &Orders, popularity: &Popularity, exponent: f64) -> Self {
        Self::new(orders, popularity, exponent, |item| f64::from(popularity.raters(item)))
    }

    fn new(orders: &Orders, popularity: &Popularity, exponent: f64, times: impl Fn(ItemIndex) -> f64) -> Self {
        let shares = OverallShares::of(orders);
        let factor = |&item: &ItemIndex| times(item) * shares.trend(&orders.of_item(item)).powf(exponent);
        Self {
            exponent,
            by_rank: Arc::new(ByRank::new(popularity.items().iter().map(factor).collect())),
        }
    }

    pub fn by_rank(&self) -> &ByRank {
        &self.by_rank
    }

    fn set(&mut self, rank: u32, trend: f64, times: f64) {
        let value = times * trend.powf(self.exponent);
        Arc::make_mut(&mut self.by_rank).set(rank, value);
    }
}

impl OrderTerms {
    /// Returns the terms that `settings` need; `None` if they need none.
    pub fn new(orders: &Orders, popularity: &Popularity, settings: &FittedSettings) -> Option<Self> {
        let trend = |exponent| (exponent > 0.0).then(|| Factors::of_trend(orders, popularity, exponent));
        let new_items = trend(settings.new_items.trend_exponent);
        let all_items = match settings.all_items.trend_exponent == settings.new_items.trend_exponent {
            true => new_items.clone(),
            false => trend(settings.all_items.trend_exponent),
        };
        let exponent = settings.popularity_trend_exponent;
        let by_popularity = (exponent > 0.0).then(|| Factors::of_popularity(orders, popularity, exponent));
        let has_habits = settings.all_items.habit_weight > 0.0;
        let terms = Self {
            shares: OverallShares::of(orders),
            new_items,
            all_items,
            popularity: by_popularity,
            repeat_rates: has_habits.then(|| Arc::new(repeat_rates(orders, popularity))),
        };
        let is_needed = terms.new_items.is_some()
            || terms.all_items.is_some()
            || terms.popularity.is_some()
            || terms.repeat_rates.is_some();
        is_needed.then_some(terms)
    }

    /// Computes the terms of `item` anew from its `sums`.
    pub fn update(&mut self, item: ItemIndex, sums: &OrderSums, popularity: &Popularity) {
        let rank = popularity.rank(item);
        let trend = self.shares.trend(sums);
        for factors in [&mut self.new_items, &mut self.all_items].into_iter().flatten() {
            factors.set(rank, trend, 1.0);
        }
        if let Some(factors) = &mut self.popularity {
            factors.set(rank, trend, f64::from(popularity.raters(item)));
        }
        if let Some(rates) = &mut self.repeat_rates {
            Arc::make_mut(rates)[rank as usize] = self.shares.repeat_rate(sums);
        }
    }
}

/// Returns rep_i of all items by rank.
pub fn repeat_rates(orders: &Orders, popularity: &Popularity) -> Vec<f64> {
    let shares = OverallShares::of(orders);
    let rate = |&item: &ItemIndex| shares.repeat_rate(&orders.of_item(item));
    popularity.items().iter().map(rate).collect()
}
