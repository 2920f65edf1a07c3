//! The distribution of what an item will sell in the next L weeks.
//!
//! Two sets of quantiles are combined. *Pooled* ones take the level of the item times L and multiply it by the errors that
//! such levels had in the past, pooled over items of the same class and a like level (split conformal prediction on log
//! ratios). *Own* ones are those of sums of L weeks that are drawn from the item's recent weeks. Their geometric mean is
//! calibrated by the first and has the shape of the second.
//!
//! Source: docs/formulas.md, "Demand".

use rayon::prelude::*;

use super::class::DemandClass;
use super::history::{MIN_WEEKS, SalesHistory};
use super::smoothing::{self, Power};
use super::statistics::{mean, median, quantile};

/// Longest horizon, in weeks.
pub const MAX_WEEKS: usize = 26;

/// Number of levels at which quantiles are kept.
pub const N_LEVELS: usize = 100;

/// Weeks within which an item must have sold to be forecast.
pub const ACTIVE_WEEKS: usize = 26;
/// Least number of weeks with sales for a level.
const MIN_NONZERO: usize = 3;
/// Least number of weeks with sales for an item whose errors are pooled, where the history is that long.
const MIN_NONZERO_POOLED: usize = 6;
/// Origins whose errors are pooled, beside the last one that is known whole.
const POOLED_ORIGINS: usize = 16;
/// Errors below which a pool is too small, and that of all items stands in.
const MIN_POOL: usize = 100;
/// Recent weeks of which the own sums are taken.
const OWN_WEEKS: usize = 26;
/// Least number of own weeks to draw from, and of own sums.
const MIN_OWN: usize = 6;
/// Equally likely sums that stand for all that can be drawn; a power of two.
const N_DRAWN: usize = 128;
/// Quantile of an item's order lines at which they are capped for one of the levels.
const LINE_CAP: f64 = 0.95;

const N_QUARTILES: usize = 4;
const N_POOLS: usize = DemandClass::ALL.len() * N_QUARTILES;

/// Returns the levels of the quantiles: .01, .02, … .99, .995.
pub fn levels() -> [f64; N_LEVELS] {
    std::array::from_fn(|at| match at + 1 < N_LEVELS {
        true => (at + 1) as f64 / 100.0,
        false => 0.995,
    })
}

/// Quantiles of a demand at [`levels`], in units, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantiles([f64; N_LEVELS]);

impl Quantiles {
    /// Demand that is 0 for certain.
    pub const NONE: Self = Self([0.0; N_LEVELS]);

    pub(super) fn new(mut values: [f64; N_LEVELS]) -> Self {
        let mut least = 0.0;
        for value in &mut values {
            *value = value.max(least);
            least = *value;
        }
        Self(values)
    }

    pub fn values(&self) -> &[f64; N_LEVELS] {
        &self.0
    }

    /// Returns the quantile at `level`, interpolated between the levels that are kept; outside of them that of the nearest.
    pub fn at(&self, level: f64) -> f64 {
        let levels = levels();
        let above = levels.partition_point(|&kept| kept < level);
        match above {
            0 => self.0[0],
            N_LEVELS => self.0[N_LEVELS - 1],
            _ => {
                let share = (level - levels[above - 1]) / (levels[above] - levels[above - 1]);
                self.0[above - 1] + share * (self.0[above] - self.0[above - 1])
            }
        }
    }

    /// Returns the expected units.
    pub fn mean(&self) -> f64 {
        self.expectation(|units| units)
    }

    /// Returns the units by which demand is expected to exceed `stock`: E(D − stock)⁺.
    pub fn expected_excess(&self, stock: f64) -> f64 {
        self.expectation(|units| (units - stock).max(0.0))
    }

    /// Returns the probability that demand exceeds `stock`, in [0, 1].
    ///
    /// Demand comes in whole units, where the quantiles do not. More than `stock` means at least one unit more than its whole
    /// ones, and the quantiles from half a unit below that on stand for it.
    pub fn probability_above(&self, stock: f64) -> f64 {
        let stock = stock.floor() + 0.5;
        let levels = levels();
        let above = self.0.partition_point(|&units| units <= stock);
        match above {
            // All quantiles are above: somewhere between the lowest level and certainty.
            0 if stock < 0.0 => 1.0,
            0 => 1.0 - levels[0] * (stock / self.0[0]),
            // Nothing is expected, not even rarely.
            N_LEVELS if self.0[N_LEVELS - 1] == 0.0 => 0.0,
            N_LEVELS => 1.0 - levels[N_LEVELS - 1],
            _ => {
                let (low, high) = (self.0[above - 1], self.0[above]);
                let share = (stock - low) / (high - low);
                1.0 - (levels[above - 1] + share * (levels[above] - levels[above - 1]))
            }
        }
    }

    /// Returns the mean of `of` over the distribution: each quantile stands for the levels that are nearer to its own than to
    /// any other's.
    fn expectation(&self, of: impl Fn(f64) -> f64) -> f64 {
        let levels = levels();
        let mut sum = 0.0;
        let mut begin = 0.0;
        for at in 0..N_LEVELS {
            let end = levels.get(at + 1).map_or(1.0, |next| (levels[at] + next) / 2.0);
            sum += (end - begin) * of(self.0[at]);
            begin = end;
        }
        sum
    }

    /// Returns the quantiles of `factor` times the demand.
    ///
    /// `factor`: finite, at least 0.
    pub fn scaled(&self, factor: f64) -> Self {
        Self(self.0.map(|units| units * factor))
    }

    /// Returns the quantiles of the demand of a part of the way from `self` to `longer`, log-linear in 1 + units.
    ///
    /// `share`: in [0, 1].
    pub(super) fn toward(&self, longer: &Self, share: f64) -> Self {
        Self::new(std::array::from_fn(|at| {
            let (short, long) = (self.0[at].ln_1p(), longer.0[at].ln_1p());
            (short + share * (long - short)).exp_m1()
        }))
    }

    pub(super) fn at_least(mut self, other: &Self) -> Self {
        for (value, least) in self.0.iter_mut().zip(other.0) {
            *value = value.max(least);
        }
        self
    }
}

/// The state of an item that sells, as an origin sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ItemState {
    /// Units expected in a usual week.
    pub level: f64,
    pub class: DemandClass,
    /// Weeks with sales.
    pub n_nonzero: usize,
}

/// Room for the series of one item, kept for the next.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) units: Vec<f64>,
    capped: Vec<f64>,
    winsorized: Vec<f64>,
    lines: Vec<f64>,
}

/// Fills `units` with the item's series at `origin`: from the first sale, without weeks out of stock, preceded by zeros up to
/// [`MIN_WEEKS`]. Returns whether there is a sale in the last [`ACTIVE_WEEKS`].
pub(super) fn series(history: &SalesHistory, item: usize, origin: usize, units: &mut Vec<f64>) -> bool {
    history.weekly_units(item, origin, units);
    let is_active = units[origin.saturating_sub(ACTIVE_WEEKS)..]
        .iter()
        .any(|&unit| unit > 0.0);
    trim(history, item, origin, first_week(units), units);
    is_active
}

/// Returns the week with which the series of `units` begins.
fn first_week(units: &[f64]) -> usize {
    let first_sale = units.iter().position(|&unit| unit > 0.0).unwrap_or(units.len());
    first_sale.min(units.len().saturating_sub(MIN_WEEKS))
}

fn trim(history: &SalesHistory, item: usize, origin: usize, first: usize, units: &mut Vec<f64>) {
    units.drain(..first.min(origin));
    history.remove_stock_outs(item, first, units);
    if units.len() < MIN_WEEKS {
        let missing = MIN_WEEKS - units.len();
        units.splice(0..0, std::iter::repeat_n(0.0, missing));
    }
}

/// Returns the state of `item` at `origin`; `None` without a sale in the last [`ACTIVE_WEEKS`], or in fewer than three weeks.
///
/// The level is the mean of five levels that single large orders move little: exponential smoothing (.2) and
/// Teunter–Syntetos–Babai (.1, .2) of winsorized weeks, exponential smoothing (.2) of logarithms, the median of the last 8
/// weeks, and exponential smoothing (.2) of weeks whose order lines are capped at the item's .95 quantile.
pub fn state(history: &SalesHistory, item: usize, origin: usize, scratch: &mut Scratch) -> Option<ItemState> {
    const ALPHA: f64 = 0.2;
    const ALPHA_SIZE: f64 = 0.1;
    const MEDIAN_WEEKS: usize = 8;
    let Scratch {
        units,
        capped,
        winsorized,
        lines,
    } = scratch;
    history.weekly_units(item, origin, units);
    if units[origin.saturating_sub(ACTIVE_WEEKS)..]
        .iter()
        .all(|&unit| unit == 0.0)
    {
        return None;
    }
    let first = first_week(units);
    trim(history, item, origin, first, units);
    let n_nonzero = units.iter().filter(|&&unit| unit > 0.0).count();
    if n_nonzero < MIN_NONZERO {
        return None;
    }
    winsorized.clone_from(units);
    smoothing::winsorize(winsorized);
    history.line_quantities(item, origin, lines);
    history.weekly_units_with_cap(item, origin, quantile(lines, LINE_CAP), capped);
    trim(history, item, origin, first, capped);
    lines.clear();
    lines.extend_from_slice(&units[units.len() - MEDIAN_WEEKS..]);
    let candidates = [
        smoothing::simple(winsorized, ALPHA),
        smoothing::teunter_syntetos_babai(winsorized, ALPHA_SIZE, ALPHA),
        smoothing::power(units, Power::Logarithm, ALPHA),
        median(lines),
        smoothing::simple(capped, ALPHA),
    ];
    Some(ItemState {
        level: mean(&candidates),
        class: DemandClass::of(units),
        n_nonzero,
    })
}

/// The pooled errors of levels for every horizon up to [`MAX_WEEKS`].
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ErrorPools {
    /// That of L weeks stands at L − 1; `None` where no such horizon has passed yet.
    horizons: Vec<Option<HorizonPools>>,
}

/// The errors of the levels of one horizon.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct HorizonPools {
    /// Levels between the quarters of items.
    edges: [f64; N_QUARTILES - 1],
    /// By class, then quarter: ln(1 + sold) − ln(1 + L · level) at every one of [`levels`].
    errors: Vec<Vec<f32>>,
    /// Errors in each pool.
    n_errors: Vec<usize>,
}

/// A level and what was sold after it.
#[derive(Debug, Clone, Copy)]
struct PooledState {
    item: u32,
    origin: u16,
    class: DemandClass,
    level: f32,
}

impl ErrorPools {
    /// Pools the errors that the levels of past origins had, as `origin` knows them.
    pub fn fit(history: &SalesHistory, origin: usize) -> Self {
        let first = origin.saturating_sub(MAX_WEEKS + POOLED_ORIGINS).max(MIN_WEEKS);
        let states: Vec<PooledState> = history
            .fitted_items()
            .map_init(Scratch::default, |scratch, item| {
                let at_origin = |at: usize| {
                    let state = state(history, item, at, scratch)?;
                    let enough = MIN_NONZERO_POOLED.min(at / 3);
                    (state.n_nonzero >= enough).then_some(PooledState {
                        item: item as u32,
                        origin: at as u16,
                        class: state.class,
                        level: state.level as f32,
                    })
                };
                (first..origin).filter_map(at_origin).collect::<Vec<_>>()
            })
            .flatten_iter()
            .collect();
        let horizons = (1..=MAX_WEEKS)
            .into_par_iter()
            .map(|weeks| HorizonPools::fit(history, &states, origin, weeks))
            .collect();
        Self { horizons }
    }

    /// Whether the pools have the shape that [`fit`](Self::fit) gives them, and only finite numbers.
    pub fn is_valid(&self) -> bool {
        let are_finite = |pool: &Vec<f32>| pool.len() == N_LEVELS && pool.iter().all(|error| error.is_finite());
        let is_valid = |pools: &HorizonPools| {
            pools.errors.len() == N_POOLS
                && pools.n_errors.len() == N_POOLS
                && pools.errors.iter().all(are_finite)
                && pools.edges.iter().all(|edge| edge.is_finite())
        };
        self.horizons.len() == MAX_WEEKS && self.horizons.iter().flatten().all(is_valid)
    }

    /// Returns the quantiles of what an item will sell within `weeks` of `origin`.
    ///
    /// `weeks`: in 1..=[`MAX_WEEKS`]. Quantiles do not fall where the horizon grows.
    pub fn quantiles(&self, state: &ItemState, recent: &RecentWeeks, weeks: usize) -> Distribution {
        let mut all = self.quantiles_of_weeks(state, recent, weeks);
        all.pop().unwrap_or(Distribution::NONE)
    }

    /// Returns the same for each of 1 to `weeks` weeks.
    pub fn quantiles_of_weeks(&self, state: &ItemState, recent: &RecentWeeks, weeks: usize) -> Vec<Distribution> {
        let mut before = Quantiles::NONE;
        let mut own = DrawnSums::of(recent);
        let of = |weeks| {
            let own = own.as_mut().map(DrawnSums::of_next_week);
            let Distribution { quantiles, is_certain } = self.of_weeks(state, own, weeks);
            before = quantiles.at_least(&before);
            Distribution {
                quantiles: before.clone(),
                is_certain,
            }
        };
        (1..=weeks.clamp(1, MAX_WEEKS)).map(of).collect()
    }

    /// Returns the quantiles of what an item will sell within `days` of `origin`, log-linear in 1 + units between weeks.
    pub fn quantiles_of_days(&self, state: &ItemState, recent: &RecentWeeks, days: f64) -> Distribution {
        let days = days.clamp(0.0, (MAX_WEEKS * 7) as f64);
        let whole = (days / 7.0).floor();
        let share = days / 7.0 - whole;
        let below = match whole as usize {
            0 => Distribution::NONE,
            weeks => self.quantiles(state, recent, weeks),
        };
        if share == 0.0 {
            return below;
        }
        let above = self.quantiles(state, recent, whole as usize + 1);
        Distribution {
            quantiles: below.quantiles.toward(&above.quantiles, share),
            is_certain: above.is_certain,
        }
    }

    /// `own`: the quantiles of the item's own sums of as many weeks.
    fn of_weeks(&self, state: &ItemState, own: Option<[f64; N_LEVELS]>, weeks: usize) -> Distribution {
        let pooled = self.pooled(state, weeks);
        let is_certain = pooled.as_ref().is_some_and(|pooled| pooled.is_certain);
        let quantiles = match (pooled, own) {
            (Some(pooled), Some(own)) => Quantiles::new(std::array::from_fn(|at| {
                (0.5 * pooled.quantiles.0[at].ln_1p() + 0.5 * own[at].ln_1p()).exp_m1()
            })),
            (Some(pooled), None) => pooled.quantiles,
            (None, Some(own)) => Quantiles::new(own),
            (None, None) => poisson(state.level * weeks as f64),
        };
        Distribution { quantiles, is_certain }
    }

    /// Returns the level times the errors of its pool. Where no such horizon has passed yet, the errors of the longest one
    /// that has stand in, and the answer is not certain.
    fn pooled(&self, state: &ItemState, weeks: usize) -> Option<Distribution> {
        let (passed, pools) = (1..=weeks)
            .rev()
            .find_map(|passed| Some((passed, self.horizons[passed - 1].as_ref()?)))?;
        let pool = pools.pool_of(state.class, state.level);
        let center = (state.level * weeks as f64).ln_1p();
        let quantiles = Quantiles::new(std::array::from_fn(|at| {
            (center + f64::from(pools.errors[pool][at])).exp_m1().max(0.0)
        }));
        // The highest level needs an order statistic that so few errors do not have.
        let n = pools.n_errors[pool] as f64;
        let is_capped = ((n + 1.0) * levels()[N_LEVELS - 1]).ceil() > n;
        Some(Distribution {
            quantiles,
            is_certain: passed == weeks && !is_capped,
        })
    }
}

impl HorizonPools {
    fn fit(history: &SalesHistory, states: &[PooledState], origin: usize, weeks: usize) -> Option<Self> {
        let last = origin.checked_sub(weeks)?;
        let origins = last.saturating_sub(POOLED_ORIGINS).max(MIN_WEEKS)..=last;
        let pooled: Vec<(DemandClass, f64, f64)> = states
            .chunk_by(|a, b| a.item == b.item)
            .flat_map(|of_item| {
                let mut units = Vec::new();
                history.weekly_units(of_item[0].item as usize, origin, &mut units);
                let origins = origins.clone();
                of_item
                    .iter()
                    .filter(move |state| origins.contains(&usize::from(state.origin)))
                    .map(move |state| {
                        let at = usize::from(state.origin);
                        let sold: f64 = units[at..at + weeks].iter().sum();
                        let level = f64::from(state.level);
                        (state.class, level, sold.ln_1p() - (level * weeks as f64).ln_1p())
                    })
            })
            .collect();
        if pooled.is_empty() {
            return None;
        }
        let mut sorted_levels: Vec<f64> = pooled.iter().map(|(_, level, _)| *level).collect();
        sorted_levels.sort_unstable_by(f64::total_cmp);
        let edges = [0.25, 0.5, 0.75].map(|share| quantile(&sorted_levels, share));
        let mut pools = vec![Vec::new(); N_POOLS];
        for &(class, level, error) in &pooled {
            pools[pool_of(&edges, class, level)].push(error);
        }
        let mut all: Vec<f64> = pooled.iter().map(|(_, _, error)| *error).collect();
        all.sort_unstable_by(f64::total_cmp);
        let mut errors = Vec::with_capacity(N_POOLS);
        let mut n_errors = Vec::with_capacity(N_POOLS);
        for mut pool in pools {
            pool.sort_unstable_by(f64::total_cmp);
            let chosen = if pool.len() < MIN_POOL { &all } else { &pool };
            errors.push(order_statistics(chosen).map(|error| error as f32).to_vec());
            n_errors.push(chosen.len());
        }
        Some(Self {
            edges,
            errors,
            n_errors,
        })
    }

    fn pool_of(&self, class: DemandClass, level: f64) -> usize {
        pool_of(&self.edges, class, level)
    }
}

fn pool_of(edges: &[f64; N_QUARTILES - 1], class: DemandClass, level: f64) -> usize {
    class.at() * N_QUARTILES + edges.partition_point(|&edge| edge < level)
}

/// Returns, for every level τ, the min(n, ⌈(n + 1)τ⌉)-th smallest of the n values of `sorted`.
pub(super) fn order_statistics(sorted: &[f64]) -> [f64; N_LEVELS] {
    levels().map(|level| {
        let rank = ((sorted.len() + 1) as f64 * level).ceil() as usize;
        sorted[rank.min(sorted.len()) - 1]
    })
}

/// The quantiles of a demand, and how far they can be trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    pub quantiles: Quantiles,
    /// Whether enough errors of this horizon are known for the highest level.
    pub is_certain: bool,
}

impl Distribution {
    const NONE: Self = Self {
        quantiles: Quantiles::NONE,
        is_certain: true,
    };
}

/// The weeks of an item before an origin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecentWeeks {
    /// Oldest first, without weeks out of stock.
    units: Vec<f64>,
    /// Weeks since the first of the series.
    age: usize,
}

impl RecentWeeks {
    pub fn of(history: &SalesHistory, item: usize, origin: usize) -> Self {
        let mut units = Vec::new();
        history.weekly_units(item, origin, &mut units);
        let age = origin - first_week(&units).min(origin);
        history.remove_stock_outs(item, 0, &mut units);
        Self { units, age }
    }

    /// Makes the weeks of a series, oldest first, of which the last `age` are looked at.
    pub(super) fn of_series(units: Vec<f64>) -> Self {
        let age = units.len() - first_week(&units).min(units.len());
        Self { units, age }
    }

    /// Returns the quantiles of the sums of `weeks` consecutive weeks: over the last 26 weeks, and further back so that there
    /// are at least six. `None` where even that is not possible.
    pub(super) fn quantiles_of_sums(&self, weeks: usize) -> Option<[f64; N_LEVELS]> {
        let reach = self.age.min(OWN_WEEKS).max(weeks + MIN_OWN - 1);
        let recent = &self.units[self.units.len().checked_sub(reach)?..];
        let mut sums: Vec<f64> = recent.windows(weeks).map(|window| window.iter().sum()).collect();
        sums.sort_unstable_by(f64::total_cmp);
        Some(levels().map(|level| quantile(&sums, level)))
    }
}

/// The sums of 1, 2, 3, … weeks that are drawn, each by itself, from the recent weeks of an item.
///
/// 128 equally likely sums stand for the distribution. A week more is added as a point set of Hammersley pairs two axes: the sums
/// in ascending order meet the quantiles of a week in the order of their reversed bits, so that low and high of the one meet
/// low and high of the other about as often as in independent draws. The same weeks always give the same sums.
///
/// Source: Niederreiter 1992, "Random Number Generation and Quasi-Monte Carlo Methods", ch. 3.
struct DrawnSums {
    /// Quantiles of a single week, at the middles of 128 equal steps, in the order in which sums meet them.
    week: [f64; N_DRAWN],
    /// Ascending.
    sums: [f64; N_DRAWN],
}

impl DrawnSums {
    /// Begins with sums of no weeks. `None` where fewer than six weeks are known.
    fn of(recent: &RecentWeeks) -> Option<Self> {
        let reach = recent.age.min(OWN_WEEKS).min(recent.units.len());
        if reach < MIN_OWN {
            return None;
        }
        let mut weeks = recent.units[recent.units.len() - reach..].to_vec();
        weeks.sort_unstable_by(f64::total_cmp);
        // Reversed bits alone pair high with high too often (a correlation of .08); with every second one flipped they do not.
        const FLIPPED: usize = 0b010_1010;
        let reversed = |at: usize| (at.reverse_bits() >> (usize::BITS - N_DRAWN.ilog2())) ^ FLIPPED;
        Some(Self {
            week: std::array::from_fn(|at| weeks[(2 * reversed(at) + 1) * reach / (2 * N_DRAWN)]),
            sums: [0.0; N_DRAWN],
        })
    }

    /// Adds a week and returns the quantiles of the sums.
    fn of_next_week(&mut self) -> [f64; N_LEVELS] {
        for (sum, week) in self.sums.iter_mut().zip(self.week) {
            *sum += week;
        }
        self.sums.sort_unstable_by(f64::total_cmp);
        levels().map(|level| quantile(&self.sums, level))
    }
}

/// Returns the quantiles of a Poisson distribution, for items about which nothing more than a level is known.
pub(super) fn poisson(mean: f64) -> Quantiles {
    let mut values = [0.0; N_LEVELS];
    // Beyond this the probability of 0 is below the least float, and the normal distribution is as good.
    const LARGE: f64 = 700.0;
    if mean > LARGE {
        let normal = statrs::distribution::Normal::standard();
        return Quantiles::new(levels().map(|level| {
            use statrs::distribution::ContinuousCDF;
            (mean + mean.sqrt() * normal.inverse_cdf(level)).round()
        }));
    }
    let (mut count, mut probability) = (0.0, (-mean).exp());
    let mut cumulative = probability;
    for (value, level) in values.iter_mut().zip(levels()) {
        while cumulative < level && probability > 0.0 {
            count += 1.0;
            probability *= mean / count;
            cumulative += probability;
        }
        *value = count;
    }
    Quantiles::new(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_units, assert_near, history};

    fn ramp() -> Quantiles {
        Quantiles::new(levels().map(|level| 100.0 * level))
    }

    #[test]
    fn quantiles_are_read_between_levels() {
        let ramp = ramp();
        assert_near(ramp.at(0.5), 50.0, 1e-9);
        assert_near(ramp.at(0.505), 50.5, 1e-9);
        assert_near(ramp.at(0.001), 1.0, 1e-9);
        assert_near(ramp.at(0.999), 99.5, 1e-9);
        assert_near(ramp.mean(), 50.0, 0.02);
        assert_near(ramp.expected_excess(99.0), 0.0075 * 0.5, 1e-9);
    }

    #[test]
    fn demand_exceeds_stock_by_whole_units() {
        let ramp = ramp();
        // 31 units are too many for 30, and so is all that rounds to them.
        assert_near(ramp.probability_above(30.0), 0.695, 1e-9);
        assert_near(ramp.probability_above(30.9), 0.695, 1e-9);
        assert_near(ramp.probability_above(0.0), 0.995, 1e-9);
        assert_near(ramp.probability_above(-1.0), 1.0, 1e-9);
        assert_near(ramp.probability_above(1e9), 0.005, 1e-9);
        assert_eq!(Quantiles::NONE.probability_above(0.0), 0.0);
        // One unit in two of three cases: an empty shelf loses a sale as often.
        let one = Quantiles::new(levels().map(|level| f64::from(u8::from(level > 1.0 / 3.0))));
        assert_near(one.probability_above(0.0), 2.0 / 3.0, 0.01);
        assert_near(one.probability_above(1.0), 0.005, 1e-9);
    }

    #[test]
    fn order_statistics_follow_the_conformal_rank() {
        let sorted: Vec<f64> = (1..=199).map(f64::from).collect();
        let found = order_statistics(&sorted);
        // ⌈200 · .01⌉ = 2, ⌈200 · .5⌉ = 100, ⌈200 · .995⌉ = 199.
        assert_eq!([found[0], found[49], found[99]], [2.0, 100.0, 199.0]);
    }

    #[test]
    fn own_sums_reach_back_for_six() {
        let recent = RecentWeeks {
            units: (0..40).map(f64::from).collect(),
            age: 14,
        };
        // Ten weeks need 15: sums of 25..35 to 30..40.
        let found = recent.quantiles_of_sums(10).unwrap();
        let (least, most): (f64, f64) = ((25..35).map(f64::from).sum(), (30..40).map(f64::from).sum());
        assert_near(found[49], (least + most) / 2.0, 1e-9);
        assert_eq!(recent.quantiles_of_sums(36), None);
    }

    #[test]
    fn drawn_sums_are_those_of_independent_weeks() {
        let recent = RecentWeeks {
            units: vec![90.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            age: 8,
        };
        let mut sums = DrawnSums::of(&recent).unwrap();
        // One week in four sells one unit: the sum of L weeks is binomial.
        for n_weeks in 1..=26_u32 {
            let found = sums.of_next_week();
            let mean = sums.sums.iter().sum::<f64>() / N_DRAWN as f64;
            let expected = f64::from(n_weeks) / 4.0;
            let square = sums.sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / N_DRAWN as f64;
            assert_near(mean, expected, 1e-9);
            let variance = expected * 3.0 / 4.0;
            assert!(
                (square / variance - 1.0).abs() < 0.1,
                "{n_weeks}: {square}, not {variance}"
            );
            if n_weeks == 8 {
                // P(D ≤ 1) = .367, P(D ≤ 2) = .679, P(D ≤ 3) = .886, P(D ≤ 4) = .973.
                assert_eq!([found[29], found[49], found[79], found[94]], [1.0, 2.0, 3.0, 4.0]);
            }
        }
        let short = RecentWeeks {
            units: vec![1.0; 5],
            age: 5,
        };
        assert!(DrawnSums::of(&short).is_none());
    }

    #[test]
    fn poisson_quantiles_are_counts() {
        let found = poisson(2.0);
        // P(D ≤ 2) = .677, P(D ≤ 3) = .857, P(D ≤ 4) = .947.
        assert_eq!(
            [found.0[0], found.0[49], found.0[79], found.0[89]],
            [0.0, 2.0, 3.0, 4.0]
        );
        assert_near(poisson(1e6).at(0.5), 1e6, 1.0);
        assert_eq!(poisson(0.0), Quantiles::NONE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn quantiles_are_finite_and_grow_with_level_and_horizon(units in prop::collection::vec(any_units(), 1..8)) {
            let history = history(&units);
            let origin = history.n_weeks();
            let pools = ErrorPools::fit(&history, origin);
            let mut scratch = Scratch::default();
            for item in 0..units.len() {
                let Some(state) = state(&history, item, origin, &mut scratch) else { continue };
                let recent = RecentWeeks::of(&history, item, origin);
                let mut before = Quantiles::NONE;
                for days in [0.0, 1.0, 7.0, 10.0, 21.0, 90.0, 182.0] {
                    let found = pools.quantiles_of_days(&state, &recent, days).quantiles;
                    prop_assert!(found.0.iter().all(|value| value.is_finite()));
                    prop_assert!(found.0.is_sorted());
                    prop_assert!(found.0.iter().zip(before.0).all(|(now, before)| *now >= before - 1e-6 * before));
                    before = found;
                }
            }
        }
    }
}
