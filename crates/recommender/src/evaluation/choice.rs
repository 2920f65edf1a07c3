//! Chooses one of several settings by their figures on the same users.

use super::metrics::mean;
use super::random::SplitMix;

/// Resamples of the users by which the standard errors of differences are estimated.
const RESAMPLES: usize = 200;

/// The comparison of one setting with the best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Compared {
    /// The mean figure over the users.
    pub mean: f64,
    /// How far the mean lies below the best one, at least 0.
    pub below_best: f64,
    /// The standard error of that difference; 0 for the best.
    pub standard_error: f64,
}

/// The result of [`choose`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    /// The position of the chosen setting.
    pub chosen: usize,
    /// One for each setting.
    pub compared: Vec<Compared>,
}

/// The number of standard errors by which a setting has to beat the fallback. A bootstrap over users does not see that whole
/// periods differ, so that one standard error would be too easily beaten by what was popular in the validation part alone.
const FALLBACK_ERRORS: f64 = 2.0;

/// Returns the first setting that lies within one standard error of the best and is not below the fallback; the fallback itself
/// where the best does not beat it by [`FALLBACK_ERRORS`].
///
/// The standard error is that of the paired difference to the best, by the bootstrap over users. The first of several
/// equal means is the best.
///
/// `figures`: for each setting, the simplest first, one figure for each user; at least one setting, of as many users as the
/// others. `fallback`: the position of the setting that others have to beat, if there is one.
///
/// Source: the one-standard-error rule of Breiman, Friedman, Olshen & Stone 1984, "Classification and Regression Trees",
/// §3.4.3; Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 6.
pub(super) fn choose(figures: &[Vec<f64>], fallback: Option<usize>, seed: u64) -> Choice {
    let means: Vec<f64> = figures.iter().map(|figures| mean(figures.iter().copied())).collect();
    let better = |best: usize, next: usize| if means[next] > means[best] { next } else { best };
    let best = (0..means.len()).reduce(better).unwrap_or(0);
    let resamples = Resamples::new(figures.first().map_or(0, Vec::len), seed);
    let compare = |(at, of_users): (usize, &Vec<f64>)| {
        let differences: Vec<f64> = figures[best]
            .iter()
            .zip(of_users)
            .map(|(best, of_user)| best - of_user)
            .collect();
        Compared {
            mean: means[at],
            below_best: means[best] - means[at],
            standard_error: resamples.standard_error(&differences),
        }
    };
    let compared: Vec<Compared> = figures.iter().enumerate().map(compare).collect();
    let fallback = fallback.filter(|&fallback| fallback < compared.len());
    let floor = fallback.map_or(f64::NEG_INFINITY, |fallback| means[fallback]);
    let is_unbeaten = |&fallback: &usize| {
        let Compared {
            below_best,
            standard_error,
            ..
        } = compared[fallback];
        below_best <= FALLBACK_ERRORS * standard_error
    };
    let is_good = |compared: &Compared| compared.below_best <= compared.standard_error && compared.mean >= floor;
    let chosen = match fallback.filter(is_unbeaten) {
        Some(fallback) => fallback,
        None => compared.iter().position(is_good).unwrap_or(best),
    };
    Choice { chosen, compared }
}

/// Returns the limits that hold the mean of `figures` with a probability of 95 %, by the bootstrap over users.
pub(super) fn interval(figures: &[f64], seed: u64) -> [f64; 2] {
    let mut means = Resamples::new(figures.len(), seed).means(figures);
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| means[((share * means.len() as f64) as usize).min(means.len() - 1)];
    [at(0.025), at(0.975)]
}

/// How often each user is drawn in each resample.
struct Resamples {
    counts: Vec<Vec<u16>>,
}

impl Resamples {
    fn new(n_users: usize, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let mut draw = || {
            let mut counts = vec![0_u16; n_users];
            for _ in 0..n_users {
                let user = random.below(n_users as u64) as usize;
                counts[user] = counts[user].saturating_add(1);
            }
            counts
        };
        Self {
            counts: (0..RESAMPLES).map(|_| draw()).collect(),
        }
    }

    /// Returns the mean of `figures` in each resample.
    fn means(&self, figures: &[f64]) -> Vec<f64> {
        let mean = |counts: &Vec<u16>| {
            let total: f64 = counts
                .iter()
                .zip(figures)
                .map(|(&count, figure)| f64::from(count) * figure)
                .sum();
            total / figures.len().max(1) as f64
        };
        self.counts.iter().map(mean).collect()
    }

    fn standard_error(&self, figures: &[f64]) -> f64 {
        if figures.iter().all(|&figure| figure == 0.0) {
            return 0.0;
        }
        let means = self.means(figures);
        let center = mean(means.iter().copied());
        let squares: f64 = means.iter().map(|mean| (mean - center) * (mean - center)).sum();
        (squares / (means.len() - 1) as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of 400 users that alternate between `a` and `b`.
    fn alternating(a: f64, b: f64) -> Vec<f64> {
        (0..400).map(|user| if user % 2 == 0 { a } else { b }).collect()
    }

    #[test]
    fn the_simplest_setting_within_one_standard_error_wins() {
        let check = |figures: &[Vec<f64>], fallback, expected| {
            assert_eq!(choose(figures, fallback, 1).chosen, expected);
        };
        let best = alternating(0.5, 0.5);
        // The differences of ±0.4 around 0.01 have a standard error of 0.4 / √400 = 0.02.
        let near = alternating(0.89, 0.09);
        // Those of ±0.01 around 0.01 have one of 0.0005.
        let far = alternating(0.5, 0.48);
        check(&[near.clone(), best.clone()], None, 0);
        check(&[far.clone(), best.clone()], None, 1);
        check(&[best.clone(), near.clone()], None, 0);
        check(&[far.clone(), near.clone(), best.clone()], None, 1);
        // Equals go to the first.
        check(&[best.clone(), best.clone()], None, 0);
        // Those of ±0.25 around 0.02 have one of 0.0125, so that the best beats it by 1.6 standard errors.
        let beaten_by_chance = alternating(0.73, 0.23);
        check(&[beaten_by_chance.clone(), best.clone()], None, 1);
        check(&[beaten_by_chance, best.clone()], Some(0), 0);
        check(&[far.clone(), best.clone()], Some(0), 1);
        // A setting below the fallback is not chosen, although it lies within one standard error of the best.
        let below = alternating(0.885, 0.085);
        let just_above = alternating(0.489, 0.489);
        check(&[just_above, below, best], Some(0), 2);
    }

    #[test]
    fn standard_errors_are_those_of_the_paired_difference() {
        let figures = [alternating(0.89, 0.09), alternating(0.5, 0.5)];
        let compared = choose(&figures, None, 1).compared;
        assert!((compared[0].below_best - 0.01).abs() < 1e-12);
        assert!((compared[0].standard_error - 0.02).abs() < 0.003, "{compared:?}");
        assert_eq!((compared[1].below_best, compared[1].standard_error), (0.0, 0.0));
        let [low, high] = interval(&figures[0], 1);
        // 1.96 standard errors on both sides.
        assert!((low - 0.45).abs() < 0.01 && (high - 0.53).abs() < 0.01, "{low} {high}");
    }
}
