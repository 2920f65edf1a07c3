//! Generates seeded sets of ratings with the shape of well-known ones, which may not be shipped, for benches.
//!
//! Quantiles give the number of ratings of a user and how often an item is drawn; between quantiles counts grow
//! exponentially. Users and items have tastes. A user rates items of their own taste more often and higher, so that there is
//! something to learn.

use similarity::sparse::{CsrMatrix, SparseError};

use super::random::SplitMix;

/// The number of tastes.
const TASTES: u64 = 16;

/// The probability, in 256ths, that a drawn item of another taste is rated.
const OTHER_TASTE_OF_256: u64 = 96;

/// The shape of a set of ratings.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub n_users: usize,
    pub n_items: usize,
    /// Quantiles (share of the users, number of ratings), ascending from share 0 to share 1.
    pub ratings_of_users: &'static [(f64, f64)],
    /// Quantiles (share of the items, relative probability to be drawn), ascending from share 0 to share 1.
    pub popularity_of_items: &'static [(f64, f64)],
    /// Pairs (rating, frequency in 1000ths).
    pub values: &'static [(f32, u64)],
}

impl Shape {
    /// Returns the shape of MovieLens-20M: 138,493 users × 26,744 items, 19.9 M ratings in half stars.
    ///
    /// Users have 67 ratings in the median, 144 in the mean and at most 9,108; items 21, 745 and 67,389.
    pub const fn movielens_20m() -> Self {
        Self {
            n_users: 138_493,
            n_items: 26_744,
            ratings_of_users: &[
                (0.0, 20.0),
                (0.25, 34.0),
                (0.5, 67.0),
                (0.75, 134.0),
                (0.9, 283.0),
                (0.97, 655.0),
                (0.99, 1160.0),
                (0.999, 3000.0),
                (0.9999, 6300.0),
                (1.0, 9250.0),
            ],
            popularity_of_items: &[
                (0.0, 0.66),
                (0.25, 2.67),
                (0.5, 14.0),
                (0.75, 134.0),
                (0.9, 1049.0),
                (0.95, 2822.0),
                (0.98, 8500.0),
                (0.99, 15_364.0),
                (0.995, 25_859.0),
                (0.999, 58_620.0),
                (1.0, 175_304.0),
            ],
            values: &[
                (0.5, 20),
                (1.0, 45),
                (1.5, 20),
                (2.0, 90),
                (2.5, 50),
                (3.0, 230),
                (3.5, 110),
                (4.0, 260),
                (4.5, 65),
                (5.0, 110),
            ],
        }
    }

    /// Returns the shape of MovieLens-1M: 6,040 users × 3,706 items, 1 M ratings in whole stars.
    pub const fn movielens_1m() -> Self {
        Self {
            n_users: 6_040,
            n_items: 3_706,
            ratings_of_users: &[
                (0.0, 20.0),
                (0.25, 44.0),
                (0.5, 96.0),
                (0.75, 200.0),
                (0.9, 370.0),
                (0.97, 670.0),
                (0.99, 950.0),
                (0.999, 1600.0),
                (1.0, 2385.0),
            ],
            popularity_of_items: &[
                (0.0, 0.75),
                (0.25, 22.5),
                (0.5, 97.5),
                (0.75, 305.0),
                (0.9, 715.0),
                (0.97, 1475.0),
                (0.99, 2414.0),
                (0.999, 5082.0),
                (1.0, 9400.0),
            ],
            values: &[(1.0, 65), (2.0, 120), (3.0, 275), (4.0, 345), (5.0, 195)],
        }
    }

    /// Returns the shape with `factor` times as many users, items and ratings.
    ///
    /// The distributions of counts stay the same, so `Σ n²`, the work of all pairs, is `factor` times as much on both sides.
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |n: usize| ((n as f64 * factor).round() as usize).max(1);
        Self {
            n_users: scale(self.n_users),
            n_items: scale(self.n_items),
            ..self
        }
    }
}

/// A set of ratings that is drawn user by user. It depends on the shape and the seed alone, not on the order of drawing.
#[derive(Debug, Clone)]
pub struct SyntheticRatings {
    shape: Shape,
    seed: u64,
    /// Per user, their rank in the order of counts, shuffled.
    user_ranks: Vec<u32>,
    items: AliasTable,
}

impl SyntheticRatings {
    pub fn new(shape: Shape, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let item_ranks = shuffled(shape.n_items, &mut random);
        let weights = item_ranks
            .iter()
            .map(|&rank| at_share(shape.popularity_of_items, rank, shape.n_items));
        Self {
            user_ranks: shuffled(shape.n_users, &mut random),
            items: AliasTable::new(&weights.collect::<Vec<_>>()),
            seed,
            shape,
        }
    }

    pub fn n_users(&self) -> usize {
        self.shape.n_users
    }

    pub fn n_items(&self) -> usize {
        self.shape.n_items
    }

    /// Returns the ratings (item, value) of one user after another.
    pub fn users(&self) -> impl Iterator<Item = Vec<(u32, f32)>> {
        let mut is_rated = vec![false; self.shape.n_items];
        (0..self.shape.n_users).map(move |user| self.ratings_of(user, &mut is_rated))
    }

    /// Returns the ratings as a matrix [n_users, n_items].
    ///
    /// # Errors
    /// None, as no user rates an item twice.
    pub fn matrix(&self) -> Result<CsrMatrix, SparseError> {
        let mut offsets = vec![0];
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for mut ratings in self.users() {
            ratings.sort_unstable_by_key(|&(item, _)| item);
            columns.extend(ratings.iter().map(|&(item, _)| item));
            values.extend(ratings.iter().map(|&(_, value)| value));
            offsets.push(columns.len() as u64);
        }
        CsrMatrix::new(self.shape.n_items, offsets, columns, values)
    }

    /// Returns the ratings (item, value) of a user in the order of drawing. `is_rated`: n_items times false, before and after.
    fn ratings_of(&self, user: usize, is_rated: &mut [bool]) -> Vec<(u32, f32)> {
        let mut random = SplitMix::new(self.seed ^ SplitMix::new(user as u64 + 1).next());
        let wanted = at_share(self.shape.ratings_of_users, self.user_ranks[user], self.shape.n_users).round();
        let wanted = (wanted as usize).min(self.shape.n_items);
        let mut ratings = Vec::with_capacity(wanted);
        while ratings.len() < wanted {
            let item = self.items.draw(&mut random);
            // An item's number is independent of its popularity, because ranks are shuffled.
            let is_own_taste = u64::from(item) % TASTES == user as u64 % TASTES;
            if is_rated[item as usize] || !is_own_taste && random.below(256) >= OTHER_TASTE_OF_256 {
                continue;
            }
            is_rated[item as usize] = true;
            let value = self.value(&mut random);
            let value = if is_own_taste {
                value.max(self.value(&mut random))
            } else {
                value
            };
            ratings.push((item, value));
        }
        for &(item, _) in &ratings {
            is_rated[item as usize] = false;
        }
        ratings
    }

    fn value(&self, random: &mut SplitMix) -> f32 {
        let mut left = random.below(1000);
        for &(value, of_1000) in self.shape.values {
            if left < of_1000 {
                return value;
            }
            left -= of_1000;
        }
        unreachable!("the shares of the values make 1000");
    }
}

/// A summary of the distribution of counts.
#[derive(Debug, Clone, PartialEq)]
pub struct CountSummary {
    pub n: usize,
    pub median: u64,
    pub mean: f64,
    pub max: u64,
    /// `Σ n²`, the multiply-adds of all pairs on the other side.
    pub sum_of_squares: u64,
}

impl CountSummary {
    /// Returns the summary of the numbers of entries per row.
    pub fn of_rows(matrix: &CsrMatrix) -> Self {
        let mut counts: Vec<u64> = matrix.offsets().windows(2).map(|ends| ends[1] - ends[0]).collect();
        counts.sort_unstable();
        Self {
            n: counts.len(),
            median: counts.get(counts.len() / 2).copied().unwrap_or(0),
            mean: matrix.nnz() as f64 / counts.len().max(1) as f64,
            max: counts.last().copied().unwrap_or(0),
            sum_of_squares: counts.iter().map(|count| count * count).sum(),
        }
    }
}

/// Returns the value at the middle of rank `rank` of `n`, interpolated between the logarithms of the `quantiles`.
fn at_share(quantiles: &[(f64, f64)], rank: u32, n: usize) -> f64 {
    let share = (f64::from(rank) + 0.5) / n as f64;
    let above = quantiles.partition_point(|&(at, _)| at < share);
    let ((start, low), (end, high)) = (quantiles[above - 1], quantiles[above]);
    low * (high / low).powf((share - start) / (end - start))
}

/// Returns 0, 1, …, n - 1 in random order.
fn shuffled(n: usize, random: &mut SplitMix) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for last in (1..n).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

/// Draws an index by its weight in constant time.
///
/// Source: Vose, "A linear algorithm for generating random numbers with a given distribution" (1991).
#[derive(Debug, Clone)]
struct AliasTable {
    /// Per slot, the probability, in 2³²ths, that its own index is drawn, and the index that is drawn otherwise.
    slots: Vec<(u32, u32)>,
}

impl AliasTable {
    /// Makes a table of `weights`: above 0, at least one.
    fn new(weights: &[f64]) -> Self {
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&index| shares[index] < 1.0);
        let mut slots = (0..weights.len() as u32)
            .map(|index| (u32::MAX, index))
            .collect::<Vec<_>>();
        while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
            slots[low] = ((shares[low] * 2f64.powi(32)) as u32, high as u32);
            shares[high] -= 1.0 - shares[low];
            if shares[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { slots }
    }

    fn draw(&self, random: &mut SplitMix) -> u32 {
        let slot = random.below(self.slots.len() as u64) as usize;
        let (own, other) = self.slots[slot];
        if random.next() >> 32 < u64::from(own) {
            slot as u32
        } else {
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movielens_1m_has_its_shape() {
        let ratings = SyntheticRatings::new(Shape::movielens_1m(), 1).matrix().unwrap();
        let (users, items) = (
            CountSummary::of_rows(&ratings),
            CountSummary::of_rows(&ratings.transpose()),
        );
        let near =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.04, "{found}, not {expected}");
        near(ratings.nnz() as f64, 1e6);
        near(users.median as f64, 96.0);
        near(users.max as f64, 2_314.0);
        near(items.median as f64, 123.0);
        near(items.max as f64, 3_428.0);
        for value in ratings.values() {
            assert!([1.0, 2.0, 3.0, 4.0, 5.0].contains(value));
        }
    }

    #[test]
    fn the_seed_decides_the_ratings() {
        let matrix = |seed| {
            SyntheticRatings::new(Shape::movielens_1m().scaled(0.1), seed)
                .matrix()
                .unwrap()
        };
        assert_eq!(matrix(1), matrix(1));
        assert_ne!(matrix(1), matrix(2));
    }

    #[test]
    fn scaling_keeps_the_distribution() {
        let work = |factor| {
            let ratings = SyntheticRatings::new(Shape::movielens_1m().scaled(factor), 1)
                .matrix()
                .unwrap();
            CountSummary::of_rows(&ratings).sum_of_squares as f64
        };
        let ratio = work(1.0) / work(0.5);
        assert!((1.9..2.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn draws_follow_the_weights() {
        let table = AliasTable::new(&[1.0, 2.0, 5.0]);
        let mut random = SplitMix::new(7);
        let mut counts = [0i32; 3];
        for _ in 0..80_000 {
            counts[table.draw(&mut random) as usize] += 1;
        }
        for (count, expected) in counts.iter().zip([10_000, 20_000, 50_000]) {
            assert!((count - expected).abs() < 600, "{counts:?}");
        }
    }
}
