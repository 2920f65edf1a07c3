//! The order of the rows, their tiles, and the jobs that pair tiles with rows.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::sparse::CsrMatrix;

/// A callback with the number of pairs of rows done so far and the total. Any thread may call it.
pub type Observer<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// The most rows of a tile, because lane numbers have 12 bits.
pub(super) const MAX_TILE_ROWS: usize = 4096;

/// How the work is divided. The result does not depend on it.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// The widest tile, at most [`MAX_TILE_ROWS`]: the dot products of a row with it stay in the first-level cache.
    pub max_tile_rows: usize,
    /// The narrowest tile; the width of every tile but the last of its part is a multiple of it.
    pub min_tile_rows: usize,
    /// The most rows that one job pairs with a tile.
    pub job_rows: usize,
    /// The size that the dense columns of a tile should have at most; it determines the width of tiles.
    pub block_bytes: usize,
    /// The largest block of dense columns: it stays in the second-level cache.
    pub max_block_bytes: usize,
    /// The size of the dot products that are kept while one block after another is added to them.
    pub panel_bytes: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            max_tile_rows: 2048,
            min_tile_rows: 256,
            job_rows: 4096,
            block_bytes: 640 << 10,
            max_block_bytes: 1 << 20,
            panel_bytes: 4 << 20,
        }
    }
}

/// The rows in the kernel's order, cut into tiles.
///
/// A row's position in that order is its rank. Selected rows come first; within the selected rows and within the others,
/// rows with more entries come first. So a tile holds rows of similar length, all of them selected or none.
#[derive(Debug)]
pub(super) struct Layout {
    /// Per rank, its row.
    pub order: Vec<u32>,
    pub n_selected: usize,
    /// Adjacent ranges of ranks, one per tile.
    pub tiles: Vec<Range<usize>>,
}

/// A unit of work: pairs selected rows, one by one, with all lanes of a tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub tile: usize,
    /// The ranks of the rows. None precedes the ranks of a selected tile.
    pub rows: Range<usize>,
    pub updates: Updates,
}

/// The lists that a job offers neighbors to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Updates {
    /// The lists of the rows: the lanes are not selected, or they are the rows themselves, so that each pair occurs twice.
    Rows,
    /// The lists of the rows and of the lanes, which are paired in this job only.
    Both,
}

impl Layout {
    /// Sorts the rows and cuts them into tiles.
    ///
    /// `selected`: ascending rows of `rows`. `width`: returns the width, above 0, of a tile from the number of entries of its
    /// longest row.
    pub fn new(rows: &CsrMatrix, selected: &[u32], width: impl Fn(usize) -> usize) -> Self {
        let n_entries = |row: u32| rows.row_range(row as usize).len();
        let by_length = |row: &u32| (Reverse(n_entries(*row)), *row);
        let mut order = selected.to_vec();
        order.par_sort_unstable_by_key(by_length);
        let mut selected = selected.iter().peekable();
        let is_other = |row: &u32| selected.next_if_eq(&row).is_none();
        let mut others: Vec<u32> = (0..rows.n_rows() as u32).filter(is_other).collect();
        others.par_sort_unstable_by_key(by_length);
        let n_selected = order.len();
        order.append(&mut others);

        let mut tiles = Vec::new();
        let mut start = 0;
        while start < order.len() {
            let limit = if start < n_selected { n_selected } else { order.len() };
            let end = (start + width(n_entries(order[start]))).min(limit);
            tiles.push(start..end);
            start = end;
        }
        Self {
            order,
            n_selected,
            tiles,
        }
    }

    pub fn is_selected(&self, tile: usize) -> bool {
        self.tiles[tile].start < self.n_selected
    }

    /// Returns jobs that cover every pair with a selected row once for each list that the pair may enter.
    ///
    /// The sooner the lists are good, the fewer neighbors are offered in vain. So the longest rows, the likeliest neighbors
    /// of all, come first, with the jobs that pair the rows of a tile with each other; then the jobs whose rows are similar
    /// in length to the lanes.
    pub fn jobs(&self, rows: &CsrMatrix, job_rows: usize) -> Vec<Job> {
        let log_length = |ranks: &Range<usize>| {
            let row = self.order[ranks.start + ranks.len() / 2];
            (rows.row_range(row as usize).len() as f64 + 1.0).ln()
        };
        let mut jobs = Vec::new();
        for (tile, lanes) in self.tiles.iter().enumerate() {
            let distance = |rows: &Range<usize>| match tile {
                0 => 0.0,
                _ => (log_length(lanes) - log_length(rows)).abs(),
            };
            let (first, updates) = match self.is_selected(tile) {
                true => (lanes.end, Updates::Both),
                false => (0, Updates::Rows),
            };
            if updates == Updates::Both {
                let rows = lanes.clone();
                let updates = Updates::Rows;
                jobs.push((0.0, Job { tile, rows, updates }));
            }
            for start in (first..self.n_selected).step_by(job_rows) {
                let rows = start..(start + job_rows).min(self.n_selected);
                jobs.push((distance(&rows), Job { tile, rows, updates }));
            }
        }
        jobs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        jobs.into_iter().map(|(_, job)| job).collect()
    }
}

/// Does the jobs in order on all threads of the current rayon pool.
///
/// `workspace`: creates the buffers that one thread reuses from job to job.
pub(super) fn run<W>(
    layout: &Layout,
    jobs: &[Job],
    observe: Observer<'_>,
    workspace: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, &Job) + Sync,
) {
    let pairs = |job: &Job| (job.rows.len() * layout.tiles[job.tile].len()) as u64;
    let total = jobs.iter().map(pairs).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    (0..rayon::current_num_threads())
        .into_par_iter()
        .with_max_len(1)
        .for_each(|_| {
            let mut workspace = workspace();
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(&mut workspace, job);
                let pairs = pairs(job);
                observe(done.fetch_add(pairs, Ordering::Relaxed) + pairs, total);
            }
        });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns a matrix whose row r has r % 7 entries.
    fn matrix(n_rows: u32) -> CsrMatrix {
        let row = |row| (0..row % 7).map(move |column| (row, column, 1.0));
        CsrMatrix::from_triplets(n_rows as usize, 7, (0..n_rows).flat_map(row).collect()).unwrap()
    }

    #[test]
    fn every_other_row_is_offered_to_a_selected_one_once() {
        fn check(n_rows: u32, selected: &[u32]) {
            let rows = matrix(n_rows);
            let layout = Layout::new(&rows, selected, |_| 256);
            let covered: Vec<usize> = layout.tiles.iter().cloned().flatten().collect();
            assert_eq!(covered, (0..n_rows as usize).collect::<Vec<_>>());
            for tile in 0..layout.tiles.len() {
                let ranks = layout.tiles[tile].clone();
                let in_selection = |rank: usize| selected.contains(&layout.order[rank]);
                assert!(ranks.len() <= 256);
                assert!(ranks.clone().all(|rank| in_selection(rank) == layout.is_selected(tile)));
            }
            let mut offered = BTreeSet::new();
            let mut offer = |to, other| assert!(offered.insert((to, other)), "{other} is offered to {to} twice");
            for Job { tile, rows, updates } in layout.jobs(&rows, 300) {
                let lanes = layout.tiles[tile].clone();
                for (row, lane) in rows.flat_map(|row| lanes.clone().map(move |lane| (row, lane))) {
                    if lane != row {
                        offer(row, lane);
                    }
                    if updates == Updates::Both {
                        offer(lane, row);
                    }
                }
            }
            let n_selected = selected.len();
            assert_eq!(offered.len(), n_selected * (n_rows as usize).saturating_sub(1));
            assert!(offered.iter().all(|&(to, other)| to < n_selected && to != other));
        }
        let all: Vec<u32> = (0..1_000).collect();
        check(0, &[]);
        check(3, &[0, 1, 2]);
        check(1_000, &all);
        check(1_000, &all[300..310]);
        check(1_000, &(0..1_000).step_by(2).collect::<Vec<_>>());
        check(1_000, &[]);
    }

    #[test]
    fn longer_rows_come_first() {
        let rows = matrix(20);
        let layout = Layout::new(&rows, &[2, 5, 6, 9], |_| 256);
        assert_eq!(layout.order[..4], [6, 5, 2, 9]);
        assert_eq!(layout.order[4..7], [13, 12, 19]);
    }

    #[test]
    fn every_job_is_done_once() {
        let rows = matrix(1_000);
        let layout = Layout::new(&rows, &(0..1_000).collect::<Vec<_>>(), |_| 256);
        let jobs = layout.jobs(&rows, 100);
        let done: Vec<AtomicUsize> = jobs.iter().map(|_| AtomicUsize::new(0)).collect();
        let work = |_: &mut (), job: &Job| {
            let position = jobs.iter().position(|other| other == job).unwrap();
            done[position].fetch_add(1, Ordering::Relaxed);
        };
        let furthest = AtomicU64::new(0);
        let observe = |done, total| {
            assert!(done <= total);
            furthest.fetch_max(done, Ordering::Relaxed);
        };
        run(&layout, &jobs, &observe, || (), work);
        assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        let pairs = |job: &Job| (job.rows.len() * layout.tiles[job.tile].len()) as u64;
        assert_eq!(furthest.into_inner(), jobs.iter().map(pairs).sum::<u64>());
    }
}
