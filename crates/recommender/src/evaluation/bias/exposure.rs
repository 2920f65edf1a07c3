//! How often each item is shown.

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::ItemIndex;

/// The share of all ratings that the items before the long tail have at least.
const HEAD: f64 = 0.8;

/// Returns how often each of `n_items` is in `lists`.
pub(super) fn counts(lists: &[&[ItemIndex]], n_items: usize) -> Vec<u64> {
    let mut counts = vec![0; n_items];
    for item in lists.iter().copied().flatten() {
        counts[item.at()] += 1;
    }
    counts
}

/// Returns the long tail: all items but the most popular ones that together have 80 % of all ratings. Where two
/// items are equally popular, the one with the lower index counts as more popular.
///
/// `users`: the number of users, that is of ratings, of each item.
pub(super) fn long_tail(users: &[u32]) -> Bits {
    let total: u64 = users.iter().map(|&users| u64::from(users)).sum();
    let mut by_popularity: Vec<usize> = (0..users.len()).collect();
    by_popularity.sort_by_key(|&item| std::cmp::Reverse(users[item]));
    let mut tail = Bits::zeros(users.len());
    let mut before = 0;
    for item in by_popularity {
        tail.set(item, before as f64 >= HEAD * total as f64);
        before += u64::from(users[item]);
    }
    tail
}

/// Returns the sum of `value` over everything shown.
pub(super) fn total(exposures: &[u64], value: impl Fn(usize) -> f64) -> f64 {
    let exposed = exposures.iter().enumerate();
    exposed.map(|(item, &exposure)| exposure as f64 * value(item)).sum()
}

/// Returns the share, in [0, 1], of the exposures that `items` have; 0 without exposures.
pub(super) fn share(exposures: &[u64], items: &Bits) -> f64 {
    share_of(exposures.iter().copied(), items)
}

/// Returns the share, in [0, 1], of the sum of `counts` that `items` have; 0 if the sum is 0.
pub(super) fn share_of(counts: impl Iterator<Item = u64>, items: &Bits) -> f64 {
    let (mut among, mut all) = (0, 0);
    for (item, count) in counts.enumerate() {
        all += count;
        among += if items.get(item) { count } else { 0 };
    }
    among as f64 / all.max(1) as f64
}
