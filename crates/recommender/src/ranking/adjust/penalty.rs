//! Lowers the scores of popular items.

use crate::ranking::kernel::top::Scored;
use crate::snapshot::popularity::Popularity;

/// A score and what the popularity penalty makes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Penalized {
    pub scored: Scored,
    pub penalized: f64,
}

/// Returns the `wanted` items with the largest penalized scores s·(n̄/n)^(γ/2), best first; all of them if there are fewer.
///
/// The penalty raises the score of an item at most by the factor n̄^(γ/2), since an item with a score has a user. So once the
/// last of the best by score, raised so, would not be among the best by penalized score, no later one is.
///
/// `ranked`: returns the best so many items by score, best first. `gamma`: in [0, 1].
pub(super) fn best(
    popularity: &Popularity,
    ranked: &impl Fn(usize) -> Vec<Scored>,
    wanted: usize,
    gamma: f64,
) -> Vec<Penalized> {
    if gamma == 0.0 {
        let plain = |scored: Scored| Penalized {
            scored,
            penalized: scored.score,
        };
        return ranked(wanted).into_iter().map(plain).collect();
    }
    let median = median_users(popularity);
    let penalize = |scored: Scored| {
        let users = f64::from(popularity.raters(scored.item).max(1));
        Penalized {
            scored,
            penalized: scored.score * (median / users).powf(gamma / 2.0),
        }
    };
    let largest_factor = median.powf(gamma / 2.0);
    let mut asked = wanted;
    loop {
        let scored = ranked(asked);
        let is_everything = scored.len() < asked;
        let unseen = scored.last().map_or(0.0, |last| last.score * largest_factor);
        let mut penalized: Vec<Penalized> = scored.into_iter().map(penalize).collect();
        penalized.sort_by(|a, b| {
            b.penalized
                .total_cmp(&a.penalized)
                .then(a.scored.item.cmp(&b.scored.item))
        });
        penalized.truncate(wanted);
        let is_settled = penalized.len() == wanted && penalized.last().is_some_and(|last| last.penalized > unseen);
        if is_everything || is_settled {
            return penalized;
        }
        asked = asked.saturating_mul(4);
    }
}

/// Returns the median number of users over the items that have any; 1 without such items.
fn median_users(popularity: &Popularity) -> f64 {
    let items = popularity.items();
    // The items stand with the most users first.
    let used = items.partition_point(|&item| popularity.raters(item) > 0);
    if used == 0 {
        return 1.0;
    }
    let users = |rank: usize| f64::from(popularity.raters(items[rank]));
    f64::midpoint(users((used - 1) / 2), users(used / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_over_items_with_users() {
        let check = |users: &[u32], expected| assert_eq!(median_users(&Popularity::new(users)), expected);
        check(&[], 1.0);
        check(&[0, 0], 1.0);
        check(&[9, 0, 2, 1], 2.0);
        check(&[9, 0, 2, 1, 4, 0], 3.0);
    }
}
