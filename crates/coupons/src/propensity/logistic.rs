//! Logistic regression with a ridge penalty and one random intercept a group, by Newton's method.

use rayon::prelude::*;

use recommender::snapshot::propensity::sigmoid;

/// Most steps; a handful is what it takes.
const MAX_STEPS: usize = 50;
/// A step that gains less than this ends the search.
const LEAST_GAIN: f64 = 1e-10;
/// Holds the common intercept, which is not penalized, where all labels are alike.
const INTERCEPT_RIDGE: f64 = 1e-6;

/// Rows that share an intercept of their own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Group {
    /// Added to the linear predictor of every row; finite.
    pub offset: f64,
    /// [rows, features], row by row, finite.
    pub features: Vec<f64>,
    /// One a row.
    pub labels: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticOptions {
    /// λ of λ/2·|w|².
    pub ridge: f64,
    /// τ², the variance of the groups' intercepts around the common one; above 0.
    pub group_variance: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    pub intercept: f64,
    pub weights: Vec<f64>,
    /// One a group, around 0.
    pub group_intercepts: Vec<f64>,
}

/// Minimizes −Σ ln P(label) + λ/2·|w|² + Σ_g b_g²/(2τ²), log-odds = offset_g + a + b_g + w·x.
///
/// Convex, so that there is one answer; Newton's steps are halved until they gain. Sums go by group in their order: the
/// same bits for any number of threads. Time O(steps · (rows · p² + (p + groups)³)).
///
/// Source: Hastie, Tibshirani & Friedman 2009, "The Elements of Statistical Learning", §4.4.1; the random intercepts by
/// penalized likelihood, Breslow & Clayton 1993.
pub fn fit(groups: &[Group], n_features: usize, options: &LogisticOptions) -> Logistic {
    let problem = Problem {
        groups,
        n_features,
        options,
    };
    let mut at = vec![0.0; 1 + n_features + groups.len()];
    at[0] = problem.initial_intercept();
    let mut loss = problem.loss(&at);
    for _ in 0..MAX_STEPS {
        let (gradient, hessian) = problem.derivatives(&at);
        let Some(step) = solve(hessian, &gradient) else { break };
        let mut share = 1.0;
        let (next, next_loss) = loop {
            let next: Vec<f64> = at.iter().zip(&step).map(|(at, step)| at - share * step).collect();
            let next_loss = problem.loss(&next);
            if next_loss <= loss || share < 1e-6 {
                break (next, next_loss);
            }
            share /= 2.0;
        };
        if next_loss > loss {
            break;
        }
        let gain = loss - next_loss;
        (at, loss) = (next, next_loss);
        if gain < LEAST_GAIN {
            break;
        }
    }
    let group_intercepts = at.split_off(1 + n_features);
    let weights = at.split_off(1);
    Logistic {
        intercept: at[0],
        weights,
        group_intercepts,
    }
}

/// Parameters stand in the order a, w, b.
struct Problem<'a> {
    groups: &'a [Group],
    n_features: usize,
    options: &'a LogisticOptions,
}

impl Problem<'_> {
    /// The log-odds of the mean label.
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

    fn predictor(&self, at: &[f64], group: usize, row: &[f64]) -> f64 {
        let start = self.groups[group].offset + at[0] + at[1 + self.n_features + group];
        row.iter()
            .zip(&at[1..])
            .fold(start, |sum, (x, weight)| sum + x * weight)
    }

    fn loss(&self, at: &[f64]) -> f64 {
        let of_group = |group: usize| {
            let rows = self.groups[group].rows(self.n_features);
            rows.fold(0.0, |sum, (row, label)| {
                let log_odds = self.predictor(at, group, row);
                sum + softplus(log_odds) - if label { log_odds } else { 0.0 }
            })
        };
        let groups: Vec<f64> = (0..self.groups.len()).into_par_iter().map(of_group).collect();
        let penalties = at
            .iter()
            .enumerate()
            .map(|(p, value)| 0.5 * self.penalty(p) * value * value);
        groups.into_iter().chain(penalties).fold(0.0, |sum, term| sum + term)
    }

    /// Gradient and Hessian at `at`.
    fn derivatives(&self, at: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
        // Of the common parameters: a and w.
        let common = 1 + self.n_features;
        let of_group = |group: usize| {
            let (mut gradient, mut hessian) = (vec![0.0; common], vec![vec![0.0; common]; common]);
            for (row, label) in self.groups[group].rows(self.n_features) {
                let p = sigmoid(self.predictor(at, group, row));
                let (error, weight) = (p - f64::from(u8::from(label)), p * (1.0 - p));
                let x = |at: usize| if at == 0 { 1.0 } else { row[at - 1] };
                for i in 0..common {
                    gradient[i] += error * x(i);
                    for (j, cell) in hessian[i].iter_mut().enumerate() {
                        *cell += weight * x(i) * x(j);
                    }
                }
            }
            (gradient, hessian)
        };
        let of_groups: Vec<_> = (0..self.groups.len()).into_par_iter().map(of_group).collect();

        let mut gradient: Vec<f64> = (0..at.len()).map(|p| self.penalty(p) * at[p]).collect();
        let mut hessian = vec![vec![0.0; at.len()]; at.len()];
        for (p, row) in hessian.iter_mut().enumerate() {
            row[p] = self.penalty(p);
        }
        for (group, (group_gradient, group_hessian)) in of_groups.into_iter().enumerate() {
            // b has the same derivatives as a, over its own rows alone.
            let own = common + group;
            gradient[own] += group_gradient[0];
            hessian[own][own] += group_hessian[0][0];
            for i in 0..common {
                gradient[i] += group_gradient[i];
                hessian[own][i] += group_hessian[0][i];
                hessian[i][own] += group_hessian[0][i];
                for j in 0..common {
                    hessian[i][j] += group_hessian[i][j];
                }
            }
        }
        (gradient, hessian)
    }
}

impl Group {
    pub fn ones(&self) -> usize {
        self.labels.iter().filter(|&&label| label).count()
    }

    fn rows(&self, n_features: usize) -> impl Iterator<Item = (&[f64], bool)> {
        let labels = self.labels.iter().enumerate();
        labels.map(move |(row, &label)| (&self.features[row * n_features..][..n_features], label))
    }
}

/// ln(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The x of A·x = b by Cholesky's decomposition; `None` when A is not positive definite.
fn solve(mut a: Vec<Vec<f64>>, b: &[f64]) -> Option<Vec<f64>> {
    let n = b.len();
    for j in 0..n {
        for i in j..n {
            let known = (0..j).fold(0.0, |sum, k| sum + a[i][k] * a[j][k]);
            let rest = a[i][j] - known;
            a[i][j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / a[j][j],
            };
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        let known = (0..i).fold(0.0, |sum, k| sum + a[i][k] * x[k]);
        x[i] = (x[i] - known) / a[i][i];
    }
    for i in (0..n).rev() {
        let known = (i + 1..n).fold(0.0, |sum, k| sum + a[k][i] * x[k]);
        x[i] = (x[i] - known) / a[i][i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: LogisticOptions = LogisticOptions {
        ridge: 0.5,
        group_variance: 1.0,
    };

    /// Twelve rows of two features.
    fn rows() -> Group {
        let x1 = [-1.5, -1.2, -0.9, -0.4, -0.1, 0.0, 0.3, 0.6, 0.8, 1.1, 1.4, 1.9];
        let x2 = [0.5, -1.0, 1.5, 0.2, -0.7, 1.1, -0.3, 0.9, -1.4, 0.4, 1.2, -0.6];
        let labels = [0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 1];
        Group {
            offset: 0.0,
            features: x1.iter().zip(x2).flat_map(|(&a, b)| [a, b]).collect(),
            labels: labels.iter().map(|&label| label == 1).collect(),
        }
    }

    #[track_caller]
    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() < tolerance, "{found}, not {expected}");
    }

    /// Splits a group in two, each with its own offset.
    fn halves(offsets: [f64; 2]) -> [Group; 2] {
        let all = rows();
        [0, 1].map(|half| Group {
            offset: offsets[half],
            features: all.features[half * 12..][..12].to_vec(),
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
        let mut at = vec![found.intercept];
        at.extend(found.weights.iter().chain(&found.group_intercepts));
        let (gradient, _) = problem.derivatives(&at);
        for part in gradient {
            near(part, 0.0, 1e-6);
        }
        // The derivatives are those of the loss.
        at.iter_mut().for_each(|value| *value += 0.1);
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
                near((above[q] - below[q]) / 2e-5, hessian[p][q], 1e-6);
            }
        }
    }

    /// scikit-learn 1.9.1, LogisticRegression(C=1/ridge, tol=1e-12); groups as columns of √(ridge · variance).
    #[test]
    fn it_agrees_with_scikit_learn() {
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
    fn the_same_bits_for_any_number_of_threads() {
        let groups = halves([0.1, -0.3]);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(&groups, 2, &PLAIN))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn an_offset_of_all_moves_the_intercept_alone() {
        let plain = fit(&[rows()], 2, &PLAIN);
        let moved = fit(&[Group { offset: 2.0, ..rows() }], 2, &PLAIN);
        near(moved.intercept, plain.intercept - 2.0, 1e-5);
        near(moved.weights[0], plain.weights[0], 1e-6);
    }

    #[test]
    fn labels_that_are_all_alike_leave_it_finite() {
        for label in [false, true] {
            let labels = vec![label; 12];
            let found = fit(&[Group { labels, ..rows() }], 2, &PLAIN);
            assert!(found.intercept.is_finite() && found.weights.iter().all(|weight| weight.is_finite()));
            assert_eq!(found.intercept > 0.0, label);
        }
        assert!(fit(&[], 2, &PLAIN).weights.iter().all(|&weight| weight == 0.0));
    }
}
