//! The biases of users and items: how far their ratings lie from the mean.

use rayon::prelude::*;

use crate::snapshot::Biases;
use crate::snapshot::parameters::TrainingOptions;
use similarity::sparse::CsrMatrix;

/// The least rows of a task, because rows with few entries are not worth a task of their own.
const MIN_ROWS_PER_TASK: usize = 256;

/// Computes regularized biases by alternating least squares.
///
/// All biases start at 0. Each of `options.bias_iterations` rounds computes
/// `b_i = Σ_u (r_ui − μ − b_u) / (λ_i + n_i)` over the n_i raters of each item, then
/// `b_u = Σ_i (r_ui − μ − b_i) / (λ_u + n_u)` over the n_u ratings of each user. A bias without ratings is 0.
///
/// `ratings`: [m, n]. `by_item`: its transpose. Sums are f64s in ascending order, rounded once at the end, so the result is
/// the same, byte by byte, for any number of threads.
///
/// Source: Koren 2010, "Factor in the Neighbors", §2.1; the iteration is that of Surprise's `BaselineOnly` (`als`).
pub fn biases(ratings: &CsrMatrix, by_item: &CsrMatrix, options: &TrainingOptions) -> Biases {
    let global_mean = mean(ratings.values());
    let mut users = vec![0.0; ratings.n_rows()];
    let mut items = vec![0.0; by_item.n_rows()];
    for _ in 0..options.bias_iterations {
        items = row_biases(by_item, global_mean, &users, options.item_bias_shrinkage);
        users = row_biases(ratings, global_mean, &items, options.user_bias_shrinkage);
    }
    let rounded = |biases: Vec<f64>| biases.into_iter().map(|bias| bias as f32).collect();
    Biases {
        global_mean,
        users: rounded(users),
        items: rounded(items),
    }
}

fn mean(values: &[f32]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64
}

/// Returns the biases of the rows, given those of the columns.
fn row_biases(rows: &CsrMatrix, global_mean: f64, column_biases: &[f64], shrinkage: f64) -> Vec<f64> {
    let bias = |row: usize| {
        let (indices, values) = rows.row(row);
        if indices.is_empty() {
            return 0.0;
        }
        let deviation =
            |(&column, &value): (&u32, &f32)| f64::from(value) - global_mean - column_biases[column as usize];
        let total: f64 = indices.iter().zip(values).map(deviation).sum();
        total / (shrinkage + indices.len() as f64)
    };
    (0..rows.n_rows())
        .into_par_iter()
        .with_min_len(MIN_ROWS_PER_TASK)
        .map(bias)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[&[f32]]) -> CsrMatrix {
        let mut triplets = Vec::new();
        for (user, row) in (0..).zip(rows) {
            let rated = (0..).zip(*row).filter(|&(_, &value)| value > 0.0);
            triplets.extend(rated.map(|(item, &value)| (user, item, value)));
        }
        CsrMatrix::from_triplets(rows.len(), rows[0].len(), triplets).unwrap()
    }

    fn fitted(ratings: &CsrMatrix, bias_iterations: u32, shrinkages: (f64, f64)) -> Biases {
        let options = TrainingOptions {
            bias_iterations,
            user_bias_shrinkage: shrinkages.0,
            item_bias_shrinkage: shrinkages.1,
            ..TrainingOptions::default()
        };
        biases(ratings, &ratings.transpose(), &options)
    }

    #[test]
    fn one_and_two_rounds_equal_those_worked_out_by_hand() {
        // μ = 3, so the deviations are 2, −2 and 0; λ_u = 2, λ_i = 1.
        let ratings = matrix(&[&[5.0, 1.0, 0.0], &[3.0, 0.0, 0.0], &[0.0, 0.0, 0.0]]);
        let check = |rounds, items: [f64; 3], users: [f64; 3]| {
            let found = fitted(&ratings, rounds, (2.0, 1.0));
            assert_eq!(found.global_mean, 3.0);
            let near = |found: &[f32], expected: &[f64]| {
                for (&found, expected) in found.iter().zip(expected) {
                    assert!(
                        (f64::from(found) - expected).abs() < 1e-6,
                        "{rounds}: {found}, not {expected}"
                    );
                }
            };
            near(&found.items, &items);
            near(&found.users, &users);
        };
        // Items (2 + 0) / (1 + 2) and −2 / (1 + 1); users (2 − 2/3 − 2 + 1) / (2 + 2) and −2/3 / (2 + 1).
        check(1, [2.0 / 3.0, -1.0, 0.0], [1.0 / 12.0, -2.0 / 9.0, 0.0]);
        // Items (2 − 1/12 + 2/9) / 3 and (−2 − 1/12) / 2; users (−77/108 + 25/24) / 4 and −77/108 / 3.
        check(2, [77.0 / 108.0, -25.0 / 24.0, 0.0], [71.0 / 864.0, -77.0 / 324.0, 0.0]);
    }

    #[test]
    fn biases_without_ratings_are_0() {
        let found = fitted(&CsrMatrix::empty(2, 3), 10, (0.0, 0.0));
        assert_eq!(
            found,
            Biases {
                global_mean: 0.0,
                users: vec![0.0; 2],
                items: vec![0.0; 3]
            }
        );
    }

    #[test]
    fn the_biases_converge_to_the_minimum() {
        let rows: Vec<Vec<f32>> = (0..12)
            .map(|user| (0..9).map(|item| ((user * 7 + item * 5) % 6) as f32).collect())
            .collect();
        let ratings = matrix(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (user_shrinkage, item_shrinkage) = (15.0, 10.0);
        let found = fitted(&ratings, 200, (user_shrinkage, item_shrinkage));
        // At the minimum the gradient is 0: Σ residuals = λ·b for every user and item.
        let residual = |user: usize, item: u32, value: f32| {
            let expected = found.global_mean + f64::from(found.users[user]) + f64::from(found.items[item as usize]);
            f64::from(value) - expected
        };
        let mut gradient_of_items = vec![0.0; 9];
        for user in 0..12 {
            let (items, values) = ratings.row(user);
            let mut gradient = -user_shrinkage * f64::from(found.users[user]);
            for (&item, &value) in items.iter().zip(values) {
                gradient += residual(user, item, value);
                gradient_of_items[item as usize] += residual(user, item, value);
            }
            assert!(gradient.abs() < 1e-4, "user {user}: {gradient}");
        }
        for (item, gradient) in gradient_of_items.into_iter().enumerate() {
            let gradient = gradient - item_shrinkage * f64::from(found.items[item]);
            assert!(gradient.abs() < 1e-4, "item {item}: {gradient}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_byte() {
        let rows: Vec<Vec<f32>> = (0..2_000)
            .map(|user| {
                (0..7)
                    .map(|item| ((user * 13 + item * 31) % 50) as f32 / 10.0)
                    .collect()
            })
            .collect();
        let ratings = matrix(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fitted(&ratings, 10, (15.0, 10.0)))
        };
        let one = with_threads(1);
        for threads in [2, 5] {
            assert_eq!(with_threads(threads), one);
        }
    }
}
