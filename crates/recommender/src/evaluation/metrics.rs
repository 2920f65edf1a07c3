//! Metrics of ranked lists and of predicted ratings, as plain functions.

use crate::snapshot::dictionary::ItemIndex;

/// Returns the normalized discounted cumulative gain, in [0, 1], of the first `k` of `ranked`, with a gain of 1 for a relevant
/// item:
/// `Σ_{r ≤ k, ranked[r] relevant} 1 / log2(r + 1)` over the same sum of a list that begins with the relevant items.
///
/// `relevant`: ascending, not empty.
///
/// Source: Järvelin & Kekäläinen 2002, "Cumulated Gain-Based Evaluation of IR Techniques".
pub fn ndcg(ranked: &[ItemIndex], relevant: &[ItemIndex], k: usize) -> f64 {
    let discount = |position: usize| 1.0 / (position as f64 + 2.0).log2();
    let gain: f64 = hits(ranked, relevant, k).map(discount).sum();
    let ideal: f64 = (0..k.min(relevant.len())).map(discount).sum();
    gain / ideal
}

/// Returns the share, in [0, 1], of the `relevant` items that are among the first `k` of `ranked`.
///
/// `relevant`: ascending, not empty.
pub fn recall(ranked: &[ItemIndex], relevant: &[ItemIndex], k: usize) -> f64 {
    hits(ranked, relevant, k).count() as f64 / relevant.len() as f64
}

/// Returns the share, in [0, 1], of items that are shown at all; 0 without items.
///
/// `exposures`: how often each item is shown.
pub fn coverage(exposures: &[u64]) -> f64 {
    if exposures.is_empty() {
        return 0.0;
    }
    let shown = exposures.iter().filter(|&&exposure| exposure > 0).count();
    shown as f64 / exposures.len() as f64
}

/// Returns the Gini index of `exposures` x_1 ≤ … ≤ x_n: `Σ_j (2j − n − 1)·x_j / ((n − 1)·Σ_j x_j)`.
///
/// It is 0 if all items are shown equally often and 1 if only one item is shown; it is also 0 without exposures and for a
/// single item.
///
/// Source: Shani & Gunawardana 2011, "Evaluating Recommendation Systems", on item space coverage.
pub fn gini(exposures: &[u64]) -> f64 {
    let n = exposures.len() as f64;
    let total = exposures.iter().sum::<u64>() as f64;
    if exposures.len() < 2 || total == 0.0 {
        return 0.0;
    }
    let mut ascending = exposures.to_vec();
    ascending.sort_unstable();
    let spread = |(j, &exposure): (usize, &u64)| (2.0 * (j as f64 + 1.0) - n - 1.0) * exposure as f64;
    let spread: f64 = ascending.iter().enumerate().map(spread).sum();
    spread / ((n - 1.0) * total)
}

/// Returns the root of the mean squared error. `errors`: not empty.
pub fn rmse(errors: &[f64]) -> f64 {
    mean(errors.iter().map(|error| error * error)).sqrt()
}

/// Returns the mean absolute error. `errors`: not empty.
pub fn mae(errors: &[f64]) -> f64 {
    mean(errors.iter().map(|error| error.abs()))
}

/// Returns the mean of `values`, which are not empty. It sums in order, so that equal sequences have equal means.
pub fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Returns the positions, from 0, of the relevant items among the first `k`.
fn hits(ranked: &[ItemIndex], relevant: &[ItemIndex], k: usize) -> impl Iterator<Item = usize> {
    let first = ranked.iter().take(k).enumerate();
    first.filter_map(|(position, item)| relevant.binary_search(item).is_ok().then_some(position))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(indices: &[u32]) -> Vec<ItemIndex> {
        indices.iter().copied().map(ItemIndex).collect()
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    #[test]
    fn ndcg_equals_values_worked_out_by_hand() {
        let check = |ranked: &[u32], relevant: &[u32], k, expected| {
            near(ndcg(&items(ranked), &items(relevant), k), expected);
        };
        check(&[7, 8, 9], &[7], 10, 1.0);
        check(&[8, 7, 9], &[7], 10, 1.0 / 3f64.log2());
        check(&[8, 9, 7], &[7], 10, 0.5);
        check(&[8, 9, 7], &[7], 2, 0.0);
        check(&[], &[7], 10, 0.0);
        // (1/log2(2) + 1/log2(4)) / (1/log2(2) + 1/log2(3)).
        check(&[7, 1, 8], &[7, 8], 10, 1.5 / (1.0 + 1.0 / 3f64.log2()));
        // With more relevant items than k, the ideal list has k of them.
        check(&[7, 8], &[6, 7, 8, 9], 2, 1.0);
        check(&[7, 1], &[6, 7, 8, 9], 2, 1.0 / (1.0 + 1.0 / 3f64.log2()));
        // Items missing from a short list count as missed.
        check(&[7], &[7, 8], 10, 1.0 / (1.0 + 1.0 / 3f64.log2()));
    }

    #[test]
    fn recall_equals_values_worked_out_by_hand() {
        let check = |ranked: &[u32], relevant: &[u32], k, expected| {
            near(recall(&items(ranked), &items(relevant), k), expected);
        };
        check(&[7, 1, 8], &[7, 8], 20, 1.0);
        check(&[7, 1, 8], &[7, 8], 2, 0.5);
        check(&[1, 2], &[7, 8], 20, 0.0);
        check(&[7, 8], &[6, 7, 8, 9], 20, 0.5);
    }

    #[test]
    fn coverage_and_gini_equal_values_worked_out_by_hand() {
        let check = |exposures: &[u64], expected_coverage, expected_gini| {
            near(coverage(exposures), expected_coverage);
            near(gini(exposures), expected_gini);
        };
        check(&[], 0.0, 0.0);
        check(&[5], 1.0, 0.0);
        check(&[0, 0, 0], 0.0, 0.0);
        check(&[4, 4, 4, 4], 1.0, 0.0);
        check(&[0, 9, 0, 0], 0.25, 1.0);
        // (−1·1 + 1·3) / (1·4).
        check(&[3, 1], 1.0, 0.5);
        // (−2·0 + 0·1 + 2·2) / (2·3).
        check(&[2, 0, 1], 2.0 / 3.0, 2.0 / 3.0);
    }

    #[test]
    fn errors_equal_values_worked_out_by_hand() {
        near(rmse(&[1.0, -1.0, 2.0, 0.0]), 1.5f64.sqrt());
        near(mae(&[1.0, -1.0, 2.0, 0.0]), 1.0);
        near(rmse(&[-3.0]), 3.0);
        near(mae(&[-3.0]), 3.0);
    }

    proptest! {
        #[test]
        fn ndcg_and_recall_lie_between_0_and_1(
            ranked in prop::sample::subsequence((0..30).collect::<Vec<u32>>(), 0..30).prop_shuffle(),
            relevant in prop::collection::btree_set(0u32..30, 1..20),
            k in 1usize..25,
        ) {
            let relevant = items(&relevant.into_iter().collect::<Vec<_>>());
            let ranked = items(&ranked);
            for figure in [ndcg(&ranked, &relevant, k), recall(&ranked, &relevant, k)] {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&figure));
            }
            prop_assert!((ndcg(&relevant, &relevant, k) - 1.0).abs() < 1e-12);
        }

        #[test]
        fn gini_is_half_the_relative_mean_difference(exposures in prop::collection::vec(0u64..50, 2..40)) {
            let n = exposures.len() as f64;
            let total: u64 = exposures.iter().sum();
            prop_assume!(total > 0);
            let differences: u64 = exposures.iter()
                .flat_map(|&a| exposures.iter().map(move |&b| a.abs_diff(b)))
                .sum();
            let expected = differences as f64 / (2.0 * (n - 1.0) * total as f64);
            prop_assert!((gini(&exposures) - expected).abs() < 1e-9);
        }
    }
}
