//! Metrics of scores and probabilities: how well they separate redeemers, and how well they are calibrated.

use statrs::function::erf::erfc;

use recommender::snapshot::propensity::{ReliabilityBin, sigmoid};

/// The number of points that represent the distribution of the campaign effect.
const EFFECT_POINTS: usize = 400;
/// The number of bins of [`reliability`].
const BINS: usize = 5;

/// Returns the probability, in [0, 1], that a positive scores above a negative, ties counting half.
///
/// `scores`: finite, one per label. Returns `None` unless there are both positives and negatives.
///
/// Source: Hanley & McNeil 1982, "The Meaning and Use of the Area under a ROC Curve", by the rank sum of Mann and Whitney.
pub fn roc_auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let ranks = ranks(scores);
    let positive_ranks = ranks.iter().zip(labels).filter(|&(_, &label)| label);
    let rank_sum: f64 = positive_ranks.map(|(rank, _)| rank).sum();
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Returns the rate of positives among the ⌈n/10⌉ best scores over the rate among all.
///
/// Scores that tie at the cut count in part, by the share of them that falls above the cut. Returns `None` without
/// positives.
pub fn lift_at_10_percent(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let positives = labels.iter().filter(|&&label| label).count();
    if positives == 0 {
        return None;
    }
    let n_best = scores.len().div_ceil(10);
    let mut descending = scores.to_vec();
    descending.sort_unstable_by(|a, b| b.total_cmp(a));
    let cut = descending[n_best - 1];
    let count = |keep: &dyn Fn(f64) -> bool| {
        let kept = || scores.iter().zip(labels).filter(|&(&score, _)| keep(score));
        let hits = kept().filter(|&(_, &label)| label).count();
        (kept().count() as f64, hits as f64)
    };
    let (above, hits_above) = count(&|score| score > cut);
    let (tied, hits_tied) = count(&|score| score == cut);
    let hits = hits_above + hits_tied * (n_best as f64 - above) / tied;
    Some(hits / n_best as f64 / (positives as f64 / labels.len() as f64))
}

/// Returns the rank of each score, 1 for the lowest; equal scores share the mean of their ranks.
pub fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut ranks = vec![0.0; scores.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let rank = first as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|&at| ranks[at] = rank);
        first += tied.len();
    }
    ranks
}

/// Returns the Brier score, the mean of (p − label)². `probabilities`: not empty, one per label.
///
/// Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability".
pub fn brier(probabilities: &[f64], labels: &[bool]) -> f64 {
    mean(probabilities, labels, |p, label| {
        (p - f64::from(u8::from(label))).powi(2)
    })
}

/// Returns the mean of −ln of the probability of the label. `probabilities`: in (0, 1), not empty, one per label.
pub fn log_loss(probabilities: &[f64], labels: &[bool]) -> f64 {
    mean(probabilities, labels, |p, label| {
        -(if label { p } else { 1.0 - p }).ln()
    })
}

fn mean(probabilities: &[f64], labels: &[bool], term: impl Fn(f64, bool) -> f64) -> f64 {
    let terms = probabilities.iter().zip(labels).map(|(&p, &label)| term(p, label));
    terms.sum::<f64>() / probabilities.len() as f64
}

/// Returns five bins of equal size, lowest probabilities first, ties by position; fewer bins for fewer than five values.
pub fn reliability(probabilities: &[f64], labels: &[bool]) -> Vec<ReliabilityBin> {
    let n = probabilities.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
    let cut = |bin: usize| n * bin / BINS;
    let bins = (0..BINS).map(|bin| &order[cut(bin)..cut(bin + 1)]);
    bins.filter(|bin| !bin.is_empty())
        .map(|bin| {
            let size = bin.len() as f64;
            ReliabilityBin {
                recipients: bin.len() as u64,
                predicted: bin.iter().map(|&at| probabilities[at]).sum::<f64>() / size,
                observed: bin.iter().filter(|&&at| labels[at]).count() as f64 / size,
            }
        })
        .collect()
}

/// Returns the 95 % interval of the number of redeemers of a campaign.
///
/// `log_odds`: one per recipient, without the campaign's effect b, which is normal with mean 0 and `variance`. Given b, the
/// number is nearly normal with mean Σp and variance Σp(1 − p). Over all b it is a mixture, and the interval lies between
/// the mixture's quantiles.
pub fn redeemers_interval(log_odds: &[f64], variance: f64) -> (f64, f64) {
    let given = |point: usize| {
        let quantile = (point as f64 + 0.5) / EFFECT_POINTS as f64;
        let effect = variance.sqrt() * normal_quantile(quantile);
        log_odds.iter().fold((0.0, 0.0), |(mean, variance), x| {
            let p = sigmoid(x + effect);
            (mean + p, variance + p * (1.0 - p))
        })
    };
    let parts: Vec<(f64, f64)> = (0..EFFECT_POINTS).map(given).collect();
    let below = |count: f64| {
        let shares = parts.iter().map(|&(mean, variance)| match variance > 0.0 {
            true => normal_cdf((count - mean) / variance.sqrt()),
            false => f64::from(u8::from(count >= mean)),
        });
        shares.sum::<f64>() / EFFECT_POINTS as f64
    };
    let quantile = |share: f64| bisect(0.0, log_odds.len() as f64, |count| below(count) < share);
    (quantile(0.025), quantile(0.975))
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

fn normal_quantile(share: f64) -> f64 {
    bisect(-10.0, 10.0, |x| normal_cdf(x) < share)
}

/// Returns the point between `low` and `high` up to which `is_below` holds.
fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match is_below(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() < tolerance, "{found}, not {expected}");
    }

    #[test]
    fn metrics_equal_those_worked_out_by_hand() {
        let labels = [true, false, true, false];
        assert_eq!(roc_auc(&[4.0, 3.0, 2.0, 1.0], &labels), Some(0.75));
        assert_eq!(roc_auc(&[1.0, 1.0, 1.0, 1.0], &labels), Some(0.5));
        assert_eq!(roc_auc(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(roc_auc(&[], &[]), None);
        assert_eq!(ranks(&[2.0, 1.0, 2.0, 5.0]), [2.5, 1.0, 2.5, 4.0]);
        // The best 1 of 4, a rate of 1/2.
        assert_eq!(lift_at_10_percent(&[4.0, 3.0, 2.0, 1.0], &labels), Some(2.0));
        assert_eq!(lift_at_10_percent(&[1.0, 4.0, 2.0, 1.0], &labels), Some(0.0));
        assert_eq!(lift_at_10_percent(&[1.0, 1.0, 1.0, 0.0], &labels), Some(4.0 / 3.0));
        assert_eq!(lift_at_10_percent(&[1.0], &[false]), None);
        // The 2 best of 11 are the first, and half of each of two that tie, one of whom redeemed.
        let mut scores = [0.0; 11];
        (scores[0], scores[1], scores[2]) = (9.0, 5.0, 5.0);
        let mut redeemed = [false; 11];
        redeemed[1] = true;
        near(lift_at_10_percent(&scores, &redeemed).unwrap(), 0.5 / 2.0 * 11.0, 1e-12);
        near(brier(&[0.5, 0.8], &[false, true]), (0.25 + 0.04) / 2.0, 1e-12);
        near(
            log_loss(&[0.5, 0.8], &[false, true]),
            -(0.5f64.ln() + 0.8f64.ln()) / 2.0,
            1e-12,
        );
    }

    #[test]
    fn reliability_bins_are_of_equal_size() {
        let probabilities = [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let labels = [true, false, false, true, false, true, true];
        let bins = reliability(&probabilities, &labels);
        let sizes: Vec<u64> = bins.iter().map(|bin| bin.recipients).collect();
        assert_eq!(sizes, [1, 1, 2, 1, 2]);
        near(bins[4].predicted, 0.75, 1e-12);
        assert_eq!((bins[4].observed, bins[2].observed), (1.0, 0.5));
        assert_eq!(reliability(&[], &[]), []);
        assert_eq!(reliability(&[0.5], &[true]).len(), 1);
    }

    #[test]
    fn the_interval_is_that_of_the_mixture() {
        near(normal_quantile(0.975), 1.959963985, 1e-7);
        // Without an effect, this is the normal approximation of the binomial, 100 ± 1.96·√(1000·.1·.9).
        let (low, high) = redeemers_interval(&vec![(0.1f64 / 0.9).ln(); 1000], 0.0);
        near(low, 100.0 - 1.959964 * 90f64.sqrt(), 1e-3);
        near(high, 100.0 + 1.959964 * 90f64.sqrt(), 1e-3);
        // With an effect, the odds vary by about e^±(1.96·√.5).
        let (low, high) = redeemers_interval(&vec![(0.1f64 / 0.9).ln(); 100_000], 0.5);
        let at = |effect: f64| 100_000.0 * sigmoid((0.1f64 / 0.9).ln() + effect);
        near(low, at(-1.96 * 0.5f64.sqrt()), 300.0);
        near(high, at(1.96 * 0.5f64.sqrt()), 900.0);
    }

    proptest! {
        #[test]
        fn roc_auc_is_the_share_of_pairs_in_order(cases in prop::collection::vec((0_u8..6, any::<bool>()), 2..40)) {
            let scores: Vec<f64> = cases.iter().map(|case| f64::from(case.0)).collect();
            let labels: Vec<bool> = cases.iter().map(|case| case.1).collect();
            let (mut pairs, mut in_order) = (0.0, 0.0);
            for (a, _) in cases.iter().filter(|case| case.1) {
                for (b, _) in cases.iter().filter(|case| !case.1) {
                    pairs += 1.0;
                    in_order += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                }
            }
            match roc_auc(&scores, &labels) {
                Some(auc) => prop_assert!((auc - in_order / pairs).abs() < 1e-12),
                None => prop_assert_eq!(pairs, 0.0),
            }
        }

        #[test]
        fn lift_is_the_mean_over_orders_of_ties(cases in prop::collection::vec((0_u8..3, any::<bool>()), 1..30)) {
            let scores: Vec<f64> = cases.iter().map(|case| f64::from(case.0)).collect();
            let labels: Vec<bool> = cases.iter().map(|case| case.1).collect();
            let positives = labels.iter().filter(|&&label| label).count();
            let n_best = cases.len().div_ceil(10);
            // The expected hits are summed position by position.
            let mut descending = cases.clone();
            descending.sort_by_key(|case| std::cmp::Reverse(case.0));
            let mut hits = 0.0;
            for position in 0..n_best {
                let tied: Vec<_> = descending.iter().filter(|case| case.0 == descending[position].0).collect();
                hits += tied.iter().filter(|case| case.1).count() as f64 / tied.len() as f64;
            }
            match lift_at_10_percent(&scores, &labels) {
                None => prop_assert_eq!(positives, 0),
                Some(lift) => {
                    let expected = hits / n_best as f64 / (positives as f64 / cases.len() as f64);
                    prop_assert!((lift - expected).abs() < 1e-9);
                }
            }
        }
    }
}
