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
//!   two would give, the result is exact; otherwise all pairs are visited after all. Long rows are kept as bits too, so that
//!   a pair costs no more than the shorter of its rows, or a word for every 64 columns.

use rayon::prelude::*;

use super::best::BestNeighbors;
use super::lists::{Neighbor, NeighborLists};
use super::pair::pair_similarity;
use super::sparse::CsrMatrix;

mod long_rows;

use long_rows::LongRows;

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
    /// The most neighbors that a row keeps, at most `candidates`.
    pub neighbors: usize,
    /// The length that the lists of candidates were cut at. A shorter list holds every similar row.
    pub candidates: usize,
}

/// Returns, for each s of `shrinkages`, the best neighbors of every row by `sim · n / (n + s)`, with n, the number of columns that
/// both rows have. A similarity that rests on s co-raters counts half.
///
/// `rows`: [n_rows, n_columns]. `columns`: its transpose. `candidates`: the plain lists of all rows, at most
/// `options.candidates` long; how long decides the time only. `shrinkages`: finite, at least 0.
///
/// Runs on the current rayon pool; the result is the same for any number of threads. Time: for each row, the lesser of the
/// entries of its columns and of its candidates, and the former where the candidates prove too few for some s; co-raters are
/// counted once for all s. Memory beyond the lists: 16 bytes per row and a bit per column for each thread, and at most 8 bytes
/// for each entry of a long row.
///
/// Source: Herlocker, Konstan, Borchers & Riedl 1999, "An Algorithmic Framework for Performing Collaborative Filtering",
/// significance weighting; in the smooth form of Koren 2008, §2.2.
pub fn significant_lists(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    candidates: &NeighborLists,
    options: &SignificanceOptions,
    shrinkages: &[f64],
) -> Vec<SignificantLists> {
    let square = |&value: &f32| f64::from(value) * f64::from(value);
    let squares = (0..rows.n_rows()).into_par_iter();
    let squares = squares.map(|row| rows.row(row).1.iter().map(square).sum()).collect();
    let pairs = Pairs {
        rows,
        columns,
        squares,
        long_rows: LongRows::of(rows),
        candidates,
        options,
        shrinkages,
    };
    let no_lists = || SignificantLists {
        lists: NeighborLists::of_targets(rows.n_rows()),
        co_raters: Vec::new(),
    };
    let chunks = (0..rows.n_rows().div_ceil(ROWS_AT_ONCE)).into_par_iter();
    let chunks = chunks.map_init(
        || Workspace::new(rows.n_rows(), rows.n_columns()),
        |workspace, chunk| {
            let end = rows.n_rows().min((chunk + 1) * ROWS_AT_ONCE);
            let mut found: Vec<SignificantLists> = shrinkages.iter().map(|_| no_lists()).collect();
            for row in chunk * ROWS_AT_ONCE..end {
                pairs.list(row, workspace, &mut found);
            }
            found
        },
    );
    let chunks: Vec<Vec<SignificantLists>> = chunks.collect();
    let mut by_shrinkage: Vec<Vec<SignificantLists>> = shrinkages.iter().map(|_| Vec::new()).collect();
    for chunk in chunks {
        for (lists, of_chunk) in by_shrinkage.iter_mut().zip(chunk) {
            lists.push(of_chunk);
        }
    }
    by_shrinkage
        .into_iter()
        .map(|chunks| concat(chunks, no_lists()))
        .collect()
}

fn concat(chunks: Vec<SignificantLists>, none: SignificantLists) -> SignificantLists {
    let co_raters = chunks.iter().flat_map(|chunk| &chunk.co_raters).copied().collect();
    let lists = chunks.into_iter().chain([none]).map(|chunk| chunk.lists);
    SignificantLists {
        lists: NeighborLists::concat(lists.collect()),
        co_raters,
    }
}

struct Pairs<'a> {
    rows: &'a CsrMatrix,
    columns: &'a CsrMatrix,
    /// Per row, the sum of the squares of its values.
    squares: Vec<f64>,
    long_rows: LongRows,
    candidates: &'a NeighborLists,
    options: &'a SignificanceOptions,
    shrinkages: &'a [f64],
}

/// The buffers that one thread reuses.
struct Workspace {
    /// Per row, what it shares with the current row. Between rows, nothing.
    shared: Vec<Shared>,
    /// The rows that share something.
    visited: Vec<u32>,
    /// One bit per column, set where the current row has an entry; between rows, none is.
    columns: Vec<u64>,
}

/// The columns that two rows share.
#[derive(Debug, Clone, Copy, Default)]
struct Shared {
    /// The sum of the products of their values; any number where only the columns were counted.
    dot: f64,
    co_raters: u32,
}

impl Workspace {
    fn new(n_rows: usize, n_columns: usize) -> Self {
        Self {
            shared: vec![Shared::default(); n_rows],
            visited: Vec::new(),
            columns: vec![0; n_columns.div_ceil(64)],
        }
    }

    /// Appends a list with the co-raters that were counted.
    fn append(&self, list: &[Neighbor], found: &mut SignificantLists) {
        let counts = list
            .iter()
            .map(|neighbor| self.shared[neighbor.index as usize].co_raters);
        found.co_raters.extend(counts);
        found.lists.push_row(list);
    }

    fn clear(&mut self) {
        for row in self.visited.drain(..) {
            self.shared[row as usize] = Shared::default();
        }
    }
}

impl Pairs<'_> {
    /// Appends the list of `row` for each of the shrinkages.
    fn list(&self, row: usize, workspace: &mut Workspace, found: &mut [SignificantLists]) {
        let columns = self.rows.row(row).0;
        let by_column = |&column: &u32| self.columns.row_range(column as usize).len();
        let by_candidate = |&candidate: &u32| self.long_rows.cost(columns.len(), self.rows.row(candidate as usize).0);
        let n_all: usize = columns.iter().map(by_column).sum();
        let n_candidates: usize = self.candidates.row(row).0.iter().map(by_candidate).sum();
        // Without shrinking, the candidates are the result.
        let by_candidates = |shrinkage: f64| n_candidates < n_all || shrinkage == 0.0;
        let mut open: Vec<usize> = (0..self.shrinkages.len()).collect();
        if self.shrinkages.iter().copied().any(by_candidates) {
            self.count_candidates(row, workspace);
            open.retain(|&at| {
                let shrinkage = self.shrinkages[at];
                let best = by_candidates(shrinkage).then(|| self.of_candidates(row, shrinkage, workspace));
                match best.flatten() {
                    Some(mut best) => workspace.append(best.sorted(), &mut found[at]),
                    None => return true,
                }
                false
            });
            workspace.clear();
        }
        if !open.is_empty() {
            self.add_up_all(row, n_all, workspace);
            for at in open {
                let mut best = self.of_all(row, self.shrinkages[at], workspace);
                workspace.append(best.sorted(), &mut found[at]);
            }
            workspace.clear();
        }
    }

    /// Counts the co-raters of `row` and each of its candidates.
    fn count_candidates(&self, row: usize, workspace: &mut Workspace) {
        let columns = self.rows.row(row).0;
        for &column in columns {
            workspace.columns[column as usize / 64] |= 1 << (column % 64);
        }
        let candidates = self.candidates.row(row).0;
        for &candidate in candidates {
            let theirs = self.rows.row(candidate as usize).0;
            let counted = &mut workspace.shared[candidate as usize];
            counted.co_raters = self
                .long_rows
                .count_shared(columns, &workspace.columns, candidate, theirs);
        }
        workspace.visited.extend_from_slice(candidates);
        for &column in columns {
            workspace.columns[column as usize / 64] = 0;
        }
    }

    /// Returns the best of the candidates, whose co-raters are counted; `None` if another row may belong to them.
    fn of_candidates(&self, row: usize, shrinkage: f64, workspace: &Workspace) -> Option<BestNeighbors> {
        let (candidates, similarities) = self.candidates.row(row);
        let mut best = BestNeighbors::new(self.options.neighbors);
        for (&candidate, &similarity) in candidates.iter().zip(similarities) {
            let co_raters = workspace.shared[candidate as usize].co_raters;
            offer(candidate, shrunk(similarity, co_raters, shrinkage), &mut best);
        }
        let is_complete = shrinkage == 0.0 || candidates.len() < self.options.candidates || {
            let most = self.rows.row(row).0.len() as u32;
            let outside = similarities.last().map_or(0.0, |&last| shrunk(last, most, shrinkage));
            let list = best.sorted();
            let worst = list.last().filter(|_| list.len() == self.options.neighbors);
            worst.is_some_and(|worst| worst.similarity > outside)
        };
        is_complete.then_some(best)
    }

    /// Adds up the dot products and counts the co-raters of `row` and all rows that share a column with it.
    ///
    /// `n_all`: the entries that it passes over.
    fn add_up_all(&self, row: usize, n_all: usize, workspace: &mut Workspace) {
        let Workspace { shared, visited, .. } = workspace;
        // To look at every row afterwards takes less than to ask at each entry whether its row is new, but for few entries.
        let are_few = n_all < shared.len();
        let (columns, values) = self.rows.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            let value = f64::from(value);
            let (others, their_values) = self.columns.row(column as usize);
            for (&other, &their_value) in others.iter().zip(their_values) {
                let shared = &mut shared[other as usize];
                if are_few && shared.co_raters == 0 {
                    visited.push(other);
                }
                shared.dot += value * f64::from(their_value);
                shared.co_raters += 1;
            }
        }
        if !are_few {
            let shares = |other: &u32| shared[*other as usize].co_raters > 0;
            visited.extend((0..shared.len() as u32).filter(shares));
        }
    }

    /// Returns the best of all rows that share a column with `row`, whose products are added up.
    fn of_all(&self, row: usize, shrinkage: f64, workspace: &Workspace) -> BestNeighbors {
        let mut best = BestNeighbors::new(self.options.neighbors);
        for &other in workspace.visited.iter().filter(|&&other| other as usize != row) {
            let at = other as usize;
            let Shared { dot, co_raters } = workspace.shared[at];
            let similarity = pair_similarity(dot, self.squares[row], self.squares[at]);
            offer(other, shrunk(similarity, co_raters, shrinkage), &mut best);
        }
        best
    }
}

/// A similarity that rounds to 0 makes no neighbor.
fn offer(index: u32, similarity: f32, best: &mut BestNeighbors) {
    if similarity > 0.0 {
        best.offer(Neighbor { index, similarity });
    }
}

fn shrunk(similarity: f32, co_raters: u32, shrinkage: f64) -> f32 {
    let n = f64::from(co_raters);
    (f64::from(similarity) * n / (n + shrinkage)) as f32
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
    fn by_definition(rows: &CsrMatrix, neighbors: usize, shrinkage: f64) -> Vec<Vec<(u32, f32, u32)>> {
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
            let shrunk = (f64::from(cosine) * n / (n + shrinkage)) as f32;
            (co_raters > 0).then_some((b as u32, shrunk, co_raters))
        };
        let list = |a: usize| {
            let others = (0..rows.n_rows()).filter(|&b| b != a);
            let mut list: Vec<_> = others.filter_map(|b| pair(a, b)).collect();
            list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            list.truncate(neighbors);
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
            shrinkages in prop::sample::subsequence(vec![0.0, 5.0, 20.0], 0..=3),
        ) {
            let triplets = entries.into_iter().map(|((row, column), value)| (row, column, f32::from(value)));
            let rows = CsrMatrix::from_triplets(14, 10, triplets.collect()).unwrap();
            let columns = rows.transpose();
            let options = SignificanceOptions { neighbors, candidates: neighbors + longer };
            let candidates = plain_lists(&rows, &columns, options.candidates);
            let all = significant_lists(&rows, &columns, &candidates, &options, &shrinkages);
            prop_assert_eq!(all.len(), shrinkages.len());
            for (lists, shrinkage) in all.into_iter().zip(shrinkages) {
                prop_assert_eq!(found(&lists), by_definition(&rows, neighbors, shrinkage));
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
                candidates: 2,
            };
            let plain = plain_lists(&rows, &columns, 2);
            found(&significant_lists(&rows, &columns, &plain, &options, &[shrinkage])[0])[1].clone()
        };
        assert_eq!(list(0.0), [(2, 1.0, 1), (3, 1.0, 1)]);
        assert_eq!(list(20.0), [(2, 1.0 / 21.0, 1), (3, 1.0 / 21.0, 1)]);
        let of_row_0 = |shrinkage| {
            let options = SignificanceOptions {
                neighbors: 1,
                candidates: 1,
            };
            let plain = plain_lists(&rows, &columns, 1);
            found(&significant_lists(&rows, &columns, &plain, &options, &[shrinkage])[0])[0].clone()
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
            candidates: 20,
        };
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| significant_lists(&rows, &columns, &candidates, &options, &[5.0, 20.0]))
        };
        let one = with_threads(1);
        for threads in [2, 8] {
            assert_eq!(with_threads(threads), one);
        }
    }
}
