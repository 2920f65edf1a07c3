//! Logistic regression with a ridge penalty and one random intercept per group, by Newton's method.

use ndarray::{Array1, Array2, ArrayView1, s};
use rayon::prelude::*;

use recommender::snapshot::propensity::sigmoid;

/// The most Newton steps; a handful suffices.
const MAX_STEPS: usize = 50;
/// The search ends with a step that gains less than this.
const LEAST_GAIN: f64 = 1e-10;
/// The penalty of the common intercept, which keeps it finite if all labels are alike.
const INTERCEPT_RIDGE: f64 = 1e-6;

/// Rows that share an intercept.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Group {
    /// A finite constant that is added to the log-odds of every row.
    pub offset: f64,
    /// [rows, features], finite.
    pub features: Array2<f64>,
    /// One per row.
    pub labels: Vec<bool>,
}

/// Options of [`fit`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticOptions {
    /// The λ of the penalty λ/2·|w|².
    pub ridge: f64,
    /// τ², the variance of the groups' intercepts around the common one; above 0.
    pub group_variance: f64,
}

/// The fitted parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    /// The common intercept a.
    pub intercept: f64,
    /// The weights w, one per feature.
    pub weights: Vec<f64>,
    /// The intercepts b, one per group, around 0.
    pub group_intercepts: Vec<f64>,
}

/// Minimizes −Σ ln P(label) + λ/2·|w|² + Σ_g b_g²/(2τ²), where the log-odds of a row are offset_g + a + b_g + w·x.
///
/// The loss is convex, so the minimum is unique. Newton steps are halved until they lower the loss. Sums are computed group
/// by group in order, so the result has the same bits for any number of threads. Takes time
/// O(steps · (rows · p² + (p + groups)³)) for p features.
///
/// Source: Hastie, Tibshirani & Friedman 2009, "The Elements of Statistical Learning", §4.4.1. The random intercepts are
/// fitted by penalized likelihood, Breslow & Clayton 1993.
pub fn fit(groups: &[Group], n_features: usize, options: &LogisticOptions) -> Logistic {
    let problem = Problem {
        groups,
        n_features,
        options,
    };
    let mut at = Array1::zeros(1 + n_features + groups.len());
    at[0] = problem.initial_intercept();
    let mut loss = problem.loss(&at);
    for _ in 0..MAX_STEPS {
        let (gradient, hessian) = problem.derivatives(&at);
        let Some(step) = solve(hessian, gradient) else { break };
        let (next, next_loss) = problem.descend(&at, &step, loss);
        if next_loss > loss {
            break;
        }
        let gain = loss - next_loss;
        (at, loss) = (next, next_loss);
        if gain < LEAST_GAIN {
            break;
        }
    }
    Logistic {
        intercept: at[0],
        weights: at.slice(s![1..=n_features]).to_vec(),
        group_intercepts: at.slice(s![1 + n_features..]).to_vec(),
    }
}

/// A regression problem. Its parameter vectors hold a, then w, then b.
struct Problem<'a> {
    groups: &'a [Group],
    n_features: usize,
    options: &'a LogisticOptions,
}

impl Problem<'_> {
    /// Returns the log-odds of the mean label.
    fn initial_intercept(&self) -> f64 {
        let rows: usize = self.groups.iter().map(|group| group.labels.len()).sum();
        let ones: usize = self.groups.iter().map(Group::ones).sum();
        let rate = (ones as f64 + 0.5) / (rows as f64 + 1.0);
        (rate / (1.0 - rate)).ln()
    }

    fn penalty(&self, parameter: usize) -> f64 {
        match parameter {
            0 => INTERCEPT_RIDGE,
            p if p <= self.n_features => self.options.ridge,
            _ => 1.0 / self.options.group_variance,
        }
    }

    /// Returns the log-odds of a row of `group`.
    fn log_odds(&self, at: &Array1<f64>, group: usize, row: ArrayView1<'_, f64>) -> f64 {
        let start = self.groups[group].offset + at[0] + at[1 + self.n_features + group];
        let weights = at.slice(s![1..=self.n_features]);
        row.iter().zip(weights).fold(start, |sum, (x, weight)| sum + x * weight)
    }

    fn loss(&self, at: &Array1<f64>) -> f64 {
        let group_loss = |group: usize| {
            self.groups[group].rows().fold(0.0, |sum, (row, label)| {
                let log_odds = self.log_odds(at, group, row);
                sum + softplus(log_odds) - if label { log_odds } else { 0.0 }
            })
        };
        let losses: Vec<f64> = (0..self.groups.len()).into_par_iter().map(group_loss).collect();
        let penalties = at
            .iter()
            .enumerate()
            .map(|(p, value)| 0.5 * self.penalty(p) * value * value);
        losses.into_iter().chain(penalties).fold(0.0, |sum, term| sum + term)
    }

    /// Goes from `at` against `step`, halved until the loss is not above `loss`. Returns the new parameters and their loss.
    fn descend(&self, at: &Array1<f64>, step: &Array1<f64>, loss: f64) -> (Array1<f64>, f64) {
        let mut share = 1.0;
        loop {
            let next = at - &(step * share);
            let next_loss = self.loss(&next);
            if next_loss <= loss || share < 1e-6 {
                return (next, next_loss);
            }
            share /= 2.0;
        }
    }

    /// Returns the gradient and the Hessian of the loss at `at`.
    fn derivatives(&self, at: &Array1<f64>) -> (Array1<f64>, Array2<f64>) {
        let groups = (0..self.groups.len()).into_par_iter();
        let of_groups: Vec<_> = groups.map(|group| self.group_derivatives(at, group)).collect();

        // The number of common parameters, a and w.
        let n_common = 1 + self.n_features;
        let penalties = Array1::from_shape_fn(at.len(), |p| self.penalty(p));
        let mut gradient = &penalties * at;
        let mut hessian = Array2::from_diag(&penalties);
        for (group, (group_gradient, group_hessian)) in of_groups.into_iter().enumerate() {
            // b has the same derivatives as a, over the rows of its group alone.
            let own = n_common + group;
            gradient[own] += group_gradient[0];
            hessian[[own, own]] += group_hessian[[0, 0]];
            let mut common = gradient.slice_mut(s![..n_common]);
            common += &group_gradient;
            let mut common = hessian.slice_mut(s![..n_common, ..n_common]);
            common += &group_hessian;
            let mut mixed = hessian.slice_mut(s![own, ..n_common]);
            mixed += &group_hessian.row(0);
            let mut mixed = hessian.slice_mut(s![..n_common, own]);
            mixed += &group_hessian.row(0);
        }
        (gradient, hessian)
    }

    /// Returns the share of one group in the derivatives of the common parameters, without penalties.
    fn group_derivatives(&self, at: &Array1<f64>, group: usize) -> (Array1<f64>, Array2<f64>) {
        let n_common = 1 + self.n_features;
        let mut gradient = Array1::zeros(n_common);
        let mut hessian = Array2::zeros((n_common, n_common));
        // The derivatives of the log-odds: 1 for a, the features for w.
        let mut x = Array1::ones(n_common);
        for (row, label) in self.groups[group].rows() {
            let p = sigmoid(self.log_odds(at, group, row));
            let (error, weight) = (p - f64::from(u8::from(label)), p * (1.0 - p));
            x.slice_mut(s![1..]).assign(&row);
            gradient.scaled_add(error, &x);
            for (mut hessian_row, &factor) in hessian.rows_mut().into_iter().zip(&x) {
                hessian_row.scaled_add(weight * factor, &x);
            }
        }
        (gradient, hessian)
    }
}

impl Group {
    /// Returns the number of rows with the label 1.
    pub fn ones(&self) -> usize {
        self.labels.iter().filter(|&&label| label).count()
    }

    fn rows(&self) -> impl Iterator<Item = (ArrayView1<'_, f64>, bool)> {
        self.features.rows().into_iter().zip(self.labels.iter().copied())
    }
}

/// Returns ln(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Returns the x of A·x = b by Cholesky's decomposition; `None` if A is not positive definite.
fn solve(mut a: Array2<f64>, b: Array1<f64>) -> Option<Array1<f64>> {
    let n = b.len();
    for j in 0..n {
        for i in j..n {
            let known = (0..j).fold(0.0, |sum, k| sum + a[[i, k]] * a[[j, k]]);
            let rest = a[[i, j]] - known;
            a[[i, j]] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / a[[j, j]],
            };
        }
    }
    let mut x = b;
    for i in 0..n {
        let known = (0..i).fold(0.0, |sum, k| sum + a[[i, k]] * x[k]);
        x[i] = (x[i] - known) / a[[i, i]];
    }
    for i in (0..n).rev() {
        let known = (i + 1..n).fold(0.0, |sum, k| sum + a[[k, i]] * x[k]);
        x[i] = (x[i] - known) / a[[i, i]];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, stack};

    use super::*;

    const PLAIN: LogisticOptions = LogisticOptions {
        ridge: 0.5,
        group_variance: 1.0,
    };

    /// Returns a group of twelve rows with two features.
    fn rows() -> Group {
        let x1 = [-1.5, -1.2, -0.9, -0.4, -0.1, 0.0, 0.3, 0.6, 0.8, 1.1, 1.4, 1.9];
        let x2 = [0.5, -1.0, 1.5, 0.2, -0.7, 1.1, -0.3, 0.9, -1.4, 0.4, 1.2, -0.6];
        let labels = [0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 1];
        Group {
            offset: 0.0,
            features: stack![ndarray::Axis(1), arr1(&x1), arr1(&x2)],
            labels: labels.iter().map(|&label| label == 1).collect(),
        }
    }

    #[track_caller]
    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() < tolerance, "{found}, not {expected}");
    }

    /// Splits a group in two, each with an offset.
    fn halves(offsets: [f64; 2]) -> [Group; 2] {
        let all = rows();
        [0, 1].map(|half| Group {
            offset: offsets[half],
            features: all.features.slice(s![6 * half..6 * half + 6, ..]).to_owned(),
            labels: all.labels[half * 6..][..6].to_vec(),
        })
    }

    #[test]
    fn the_gradient_is_zero_at_the_answer() {
        let groups = halves([0.0, -0.7]);
        let found = fit(&groups, 2, &PLAIN);
        let problem = Problem {
            groups: &groups,
            n_features: 2,
            options: &PLAIN,
        };
        let parameters = std::iter::once(found.intercept).chain(found.weights);
        let mut at: Array1<f64> = parameters.chain(found.group_intercepts).collect();
        let (gradient, _) = problem.derivatives(&at);
        for part in gradient {
            near(part, 0.0, 1e-6);
        }
        // The derivatives are those of the loss.
        at += 0.1;
        let (gradient, hessian) = problem.derivatives(&at);
        for p in 0..at.len() {
            let shifted = |by: f64| {
                let mut at = at.clone();
                at[p] += by;
                at
            };
            near(
                (problem.loss(&shifted(1e-5)) - problem.loss(&shifted(-1e-5))) / 2e-5,
                gradient[p],
                1e-6,
            );
            let (above, below) = (
                problem.derivatives(&shifted(1e-5)).0,
                problem.derivatives(&shifted(-1e-5)).0,
            );
            for q in 0..at.len() {
                near((above[q] - below[q]) / 2e-5, hessian[[p, q]], 1e-6);
            }
        }
    }

    /// The expected values are those of scikit-learn 1.9.1, LogisticRegression(C=1/ridge, tol=1e-12), with groups as columns
    /// of √(ridge · variance).
    #[test]
    fn the_fit_agrees_with_scikit_learn() {
        let check = |groups: &[Group], ridge: f64, expected: &[f64]| {
            let options = LogisticOptions { ridge, ..PLAIN };
            let found = fit(groups, 2, &options);
            near(found.intercept, expected[0], 1e-5);
            let parameters = found.weights.iter().chain(&found.group_intercepts);
            for (&parameter, &expected) in parameters.zip(&expected[1..]) {
                near(parameter, expected, 1e-5);
            }
        };
        check(&[rows()], 0.5, &[-0.57042022, 1.41455107, 1.83456922]);
        check(&[rows()], 30.0, &[-0.03253838, 0.09458034, 0.11162893]);
        check(
            &halves([0.0, 0.0]),
            0.5,
            &[-0.56333591, 1.36487577, 1.84983779, -0.08648354, 0.08648355],
        );
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let groups = halves([0.1, -0.3]);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(&groups, 2, &PLAIN))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn an_offset_of_all_rows_moves_only_the_intercept() {
        let plain = fit(&[rows()], 2, &PLAIN);
        let moved = fit(&[Group { offset: 2.0, ..rows() }], 2, &PLAIN);
        near(moved.intercept, plain.intercept - 2.0, 1e-5);
        near(moved.weights[0], plain.weights[0], 1e-6);
    }

    #[test]
    fn labels_that_are_all_alike_give_finite_parameters() {
        for label in [false, true] {
            let labels = vec![label; 12];
            let found = fit(&[Group { labels, ..rows() }], 2, &PLAIN);
            assert!(found.intercept.is_finite() && found.weights.iter().all(|weight| weight.is_finite()));
            assert_eq!(found.intercept > 0.0, label);
        }
        assert!(fit(&[], 2, &PLAIN).weights.iter().all(|&weight| weight == 0.0));
    }
}
