//! Shrinks similarities that rest on few co-raters, and keeps the best neighbors of each row afterwards.
//!
//! The cosine of two rows that share a single column can be 1. Such pairs fill plain lists where many rows are short. With the
//! number n of columns that two rows share, `sim · n / (n + s)` trusts them less.
//!
//! The best after shrinking are not among the best before, so that in principle every pair has to be counted. For each row the
//! cheaper of two ways is taken:
//!
//! - *All pairs*: visit every entry of every column of the row, and count and multiply at once.
//! - *Candidates*: count only the longer plain list that the caller has computed. A pair outside of this list has at most the
//!   similarity of the list's last, and its n is at most the row's length. If the last neighbor that is kept beats what these
//!   two would give, the result is exact; otherwise all pairs are visited after all.

use rayon::prelude::*;

use super::best::BestNeighbors;
use super::lists::{Neighbor, NeighborLists};
use super::pair::pair_similarity;
use super::sparse::CsrMatrix;

/// The number of rows that are handed to a thread at a time.
const ROWS_AT_ONCE: usize = 256;

/// Lists of the most similar rows after shrinking, with the number of co-raters of each pair.
#[derive(Debug, Clone, PartialEq)]
pub struct SignificantLists {
    /// Best first; the similarities are shrunk, in (0, 1].
    pub lists: NeighborLists,
    /// One per neighbor, in the same order: the number of columns that both rows have, at least 1.
    pub co_raters: Vec<u32>,
}

/// Options of [`significant_lists`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignificanceOptions {
    /// The most neighbors that a row keeps.
    pub neighbors: usize,
    /// s: a similarity that rests on s co-raters counts half. Finite, at least 0.
    pub shrinkage: f64,
    /// The length that the lists of candidates were cut at. A shorter list holds every similar row.
    pub candidates: usize,
}

/// Returns the best neighbors of every row by `sim · n / (n + s)`, with n, the number of columns that both rows have.
///
/// `rows`: [n_rows, n_columns]. `columns`: its transpose. `candidates`: the plain lists of all rows, at most
/// `options.candidates` long; how long decides the time only.
///
/// Runs on the current rayon pool; the result is the same for any number of threads. Time: for each row, the lesser of the
/// entries of its columns and of its candidates, and the former where the candidates prove too few. Memory beyond the lists:
/// 12 bytes per row and a bit per column for each thread.
///
/// Source: Herlocker, Konstan, Borchers & Riedl 1999, "An Algorithmic Framework for Performing Collaborative Filtering",
/// significance weighting; in the smooth form of Koren 2008, §2.2.
pub fn significant_lists(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    candidates: &NeighborLists,
    options: &SignificanceOptions,
) -> SignificantLists {
    let square = |&value: &f32| f64::from(value) * f64::from(value);
    let squares = (0..rows.n_rows()).into_par_iter();
    let squares = squares.map(|row| rows.row(row).1.iter().map(square).sum()).collect();
    let pairs = Pairs {
        rows,
        columns,
        squares,
        candidates,
        options,
    };
    let chunks = (0..rows.n_rows().div_ceil(ROWS_AT_ONCE)).into_par_iter();
    let chunks = chunks.map_init(
        || Workspace::new(rows.n_rows(), rows.n_columns()),
        |workspace, chunk| {
            let end = rows.n_rows().min((chunk + 1) * ROWS_AT_ONCE);
            let mut found = SignificantLists {
                lists: NeighborLists::of_targets(rows.n_rows()),
                co_raters: Vec::new(),
            };
            for row in chunk * ROWS_AT_ONCE..end {
                pairs.list(row, workspace, &mut found);
            }
            found
        },
    );
    let chunks: Vec<SignificantLists> = chunks.collect();
    let co_raters = chunks.iter().flat_map(|chunk| &chunk.co_raters).copied().collect();
    let mut lists: Vec<NeighborLists> = chunks.into_iter().map(|chunk| chunk.lists).collect();
    lists.push(NeighborLists::of_targets(rows.n_rows()));
    SignificantLists {
        lists: NeighborLists::concat(lists),
        co_raters,
    }
}

struct Pairs<'a> {
    rows: &'a CsrMatrix,
    columns: &'a CsrMatrix,
    /// Per row, the sum of the squares of its values.
    squares: Vec<f64>,
    candidates: &'a NeighborLists,
    options: &'a SignificanceOptions,
}

/// The buffers that one thread reuses.
struct Workspace {
    /// Per row, its dot product with the current row; any number where the count is 0.
    dots: Vec<f64>,
    /// Per row, the number of columns that it shares with the current row. Between rows, those of `visited` are set.
    counts: Vec<u32>,
    visited: Vec<u32>,
    /// One bit per column, set where the current row has an entry; between rows, none is.
    columns: Vec<u64>,
}

impl Workspace {
    fn new(n_rows: usize, n_columns: usize) -> Self {
        Self {
            dots: vec![0.0; n_rows],
            counts: vec![0; n_rows],
            visited: Vec::new(),
            columns: vec![0; n_columns.div_ceil(64)],
        }
    }
}

impl Pairs<'_> {
    /// Appends the list of `row`.
    fn list(&self, row: usize, workspace: &mut Workspace, found: &mut SignificantLists) {
        let by_column = |&column: &u32| self.columns.row_range(column as usize).len();
        let by_candidate = |&candidate: &u32| self.rows.row_range(candidate as usize).len();
        let n_all: usize = self.rows.row(row).0.iter().map(by_column).sum();
        let n_candidates: usize = self.candidates.row(row).0.iter().map(by_candidate).sum();
        // Without shrinking, the candidates are the result.
        let is_cheaper = n_candidates < n_all || self.options.shrinkage == 0.0;
        let of_candidates = is_cheaper.then(|| self.of_candidates(row, workspace));
        let mut best = match of_candidates.flatten() {
            Some(best) => best,
            None => self.of_all(row, workspace),
        };
        let list = best.sorted();
        let counts = list.iter().map(|neighbor| workspace.counts[neighbor.index as usize]);
        found.co_raters.extend(counts);
        found.lists.push_row(list);
        for row in workspace.visited.drain(..) {
            workspace.counts[row as usize] = 0;
        }
    }

    /// Returns the best of the candidates; `None` if another row may belong to them.
    fn of_candidates(&self, row: usize, workspace: &mut Workspace) -> Option<BestNeighbors> {
        let columns = self.rows.row(row).0;
        for &column in columns {
            workspace.columns[column as usize / 64] |= 1 << (column % 64);
        }
        let is_shared = |&&column: &&u32| workspace.columns[column as usize / 64] >> (column % 64) & 1 == 1;
        let (candidates, similarities) = self.candidates.row(row);
        let mut best = BestNeighbors::new(self.options.neighbors);
        for (&candidate, &similarity) in candidates.iter().zip(similarities) {
            let co_raters = self.rows.row(candidate as usize).0.iter().filter(is_shared).count() as u32;
            workspace.counts[candidate as usize] = co_raters;
            self.offer(candidate, similarity, co_raters, &mut best);
        }
        for &column in columns {
            workspace.columns[column as usize / 64] = 0;
        }
        let is_complete = candidates.len() < self.options.candidates || {
            let outside = similarities
                .last()
                .map_or(0.0, |&last| self.shrunk(last, columns.len() as u32));
            let list = best.sorted();
            let worst = list.last().filter(|_| list.len() == self.options.neighbors);
            worst.is_some_and(|worst| worst.similarity > outside)
        };
        workspace.visited.extend_from_slice(candidates);
        if is_complete {
            return Some(best);
        }
        for row in workspace.visited.drain(..) {
            workspace.counts[row as usize] = 0;
        }
        None
    }

    /// Returns the best of all rows that share a column with `row`.
    fn of_all(&self, row: usize, workspace: &mut Workspace) -> BestNeighbors {
        let Workspace {
            dots, counts, visited, ..
        } = workspace;
        let (columns, values) = self.rows.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            let value = f64::from(value);
            let (others, their_values) = self.columns.row(column as usize);
            for (&other, &their_value) in others.iter().zip(their_values) {
                let at = other as usize;
                if counts[at] == 0 {
                    visited.push(other);
                    dots[at] = 0.0;
                }
                dots[at] += value * f64::from(their_value);
                counts[at] += 1;
            }
        }
        let mut best = BestNeighbors::new(self.options.neighbors);
        for &other in visited.iter().filter(|&&other| other as usize != row) {
            let at = other as usize;
            let similarity = pair_similarity(dots[at], self.squares[row], self.squares[at]);
            self.offer(other, similarity, counts[at], &mut best);
        }
        best
    }

    /// A similarity that rounds to 0 makes no neighbor.
    fn offer(&self, index: u32, similarity: f32, co_raters: u32, best: &mut BestNeighbors) {
        let similarity = self.shrunk(similarity, co_raters);
        if similarity > 0.0 {
            best.offer(Neighbor { index, similarity });
        }
    }

    fn shrunk(&self, similarity: f32, co_raters: u32) -> f32 {
        let n = f64::from(co_raters);
        (f64::from(similarity) * n / (n + self.options.shrinkage)) as f32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cosine::{RowSelection, TopKOptions, top_k};

    fn plain_lists(rows: &CsrMatrix, columns: &CsrMatrix, neighbors: usize) -> NeighborLists {
        let options = TopKOptions { neighbors };
        top_k(rows, columns, RowSelection::All, &options).unwrap().lists
    }

    /// The definition in plain loops: for each row, the neighbors with their shrunk similarities and co-raters.
    fn by_definition(rows: &CsrMatrix, options: &SignificanceOptions) -> Vec<Vec<(u32, f32, u32)>> {
        let pair = |a: usize, b: usize| {
            let (mut dot, mut co_raters) = (0.0, 0);
            for (&column, &value) in rows.row(a).0.iter().zip(rows.row(a).1) {
                if let Some(other) = rows.get(b, column) {
                    dot += f64::from(value) * f64::from(other);
                    co_raters += 1;
                }
            }
            let square = |row: usize| {
                rows.row(row)
                    .1
                    .iter()
                    .map(|&value| f64::from(value).powi(2))
                    .sum::<f64>()
            };
            let cosine = ((dot / (square(a) * square(b)).sqrt()) as f32).min(1.0);
            let n = f64::from(co_raters);
            let shrunk = (f64::from(cosine) * n / (n + options.shrinkage)) as f32;
            (co_raters > 0).then_some((b as u32, shrunk, co_raters))
        };
        let list = |a: usize| {
            let others = (0..rows.n_rows()).filter(|&b| b != a);
            let mut list: Vec<_> = others.filter_map(|b| pair(a, b)).collect();
            list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            list.truncate(options.neighbors);
            list
        };
        (0..rows.n_rows()).map(list).collect()
    }

    fn found(lists: &SignificantLists) -> Vec<Vec<(u32, f32, u32)>> {
        let offsets = lists.lists.offsets();
        let row = |row: usize| {
            let (neighbors, similarities) = lists.lists.row(row);
            let co_raters = &lists.co_raters[offsets[row] as usize..];
            let pairs = neighbors.iter().zip(similarities).zip(co_raters);
            pairs
                .map(|((&index, &similarity), &n)| (index, similarity, n))
                .collect()
        };
        (0..lists.lists.n_rows()).map(row).collect()
    }

    proptest! {
        #[test]
        fn lists_agree_with_the_definition_whatever_the_candidates(
            entries in prop::collection::btree_map((0_u32..14, 0_u32..10), 1_u8..=5, 0..70),
            neighbors in 1_usize..5,
            longer in 0_usize..8,
            shrinkage in prop_oneof![Just(0.0), Just(5.0), Just(20.0)],
        ) {
            let triplets = entries.into_iter().map(|((row, column), value)| (row, column, f32::from(value)));
            let rows = CsrMatrix::from_triplets(14, 10, triplets.collect()).unwrap();
            let columns = rows.transpose();
            let options = SignificanceOptions { neighbors, shrinkage, candidates: neighbors + longer };
            let candidates = plain_lists(&rows, &columns, options.candidates);
            let lists = significant_lists(&rows, &columns, &candidates, &options);
            prop_assert_eq!(found(&lists), by_definition(&rows, &options));
            if shrinkage == 0.0 {
                prop_assert_eq!(&lists.lists, &plain_lists(&rows, &columns, neighbors));
            }
            let checked = NeighborLists::new(
                14,
                lists.lists.offsets().to_vec(),
                lists.lists.neighbors().to_vec(),
                lists.lists.similarities().to_vec(),
            );
            prop_assert_eq!(checked.unwrap(), lists.lists);
        }
    }

    #[test]
    fn one_common_rater_no_longer_fills_the_lists() {
        // Rows 1 to 4 share only column 0 with row 0, and row 5 shares nearly everything.
        let mut triplets: Vec<(u32, u32, f32)> = (0..10).map(|column| (0, column, 1.0)).collect();
        triplets.extend((1..5).map(|row| (row, 0, 1.0)));
        triplets.extend((1..9).map(|column| (5, column, 1.0)));
        triplets.extend((0..3).map(|row| (6 + row, 0, 1.0)));
        let rows = CsrMatrix::from_triplets(9, 10, triplets).unwrap();
        let columns = rows.transpose();
        let list = |shrinkage| {
            let options = SignificanceOptions {
                neighbors: 2,
                shrinkage,
                candidates: 2,
            };
            let lists = significant_lists(&rows, &columns, &plain_lists(&rows, &columns, 2), &options);
            found(&lists)[1].clone()
        };
        assert_eq!(list(0.0), [(2, 1.0, 1), (3, 1.0, 1)]);
        assert_eq!(list(20.0), [(2, 1.0 / 21.0, 1), (3, 1.0 / 21.0, 1)]);
        let of_row_0 = |shrinkage| {
            let options = SignificanceOptions {
                neighbors: 1,
                shrinkage,
                candidates: 1,
            };
            found(&significant_lists(
                &rows,
                &columns,
                &plain_lists(&rows, &columns, 1),
                &options,
            ))[0]
                .clone()
        };
        let shrunk = (f64::from((8.0 / 80_f64.sqrt()) as f32) * 8.0 / 28.0) as f32;
        assert_eq!(of_row_0(20.0), [(5, shrunk, 8)]);
    }

    #[test]
    fn the_number_of_threads_changes_no_byte() {
        let triplets =
            (0..2_000_u32).flat_map(|row| (0..7).map(move |at| (row, (row * 13 + at * 31) % 97, 1.0 + at as f32)));
        let mut triplets: Vec<_> = triplets.collect();
        triplets.sort_by_key(|&(row, column, _)| (row, column));
        triplets.dedup_by_key(|&mut (row, column, _)| (row, column));
        let rows = CsrMatrix::from_triplets(2_000, 97, triplets).unwrap();
        let columns = rows.transpose();
        let candidates = plain_lists(&rows, &columns, 20);
        let options = SignificanceOptions {
            neighbors: 10,
            shrinkage: 5.0,
            candidates: 20,
        };
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| significant_lists(&rows, &columns, &candidates, &options))
        };
        let one = with_threads(1);
        for threads in [2, 8] {
            assert_eq!(with_threads(threads), one);
        }
    }
}
