//! The products of real-valued ratings: in f64, each sum in ascending column order, as the reference has it.

use std::ops::Range;

use rayon::prelude::*;

use super::best::BestLists;
use super::cosine::Observer;
use super::layout::{Job, Layout, Sizes, run};
use super::meeting::{LANES_AT_ONCE, Meeting};
use super::pair::{floor_below, pair_similarity};
use super::simd::{InstructionSet, Reach, find_reals};
use super::sparse::CsrMatrix;

/// The rows as they are, and the columns cut by tiles.
pub(super) struct RealKernel<'a> {
    rows: &'a CsrMatrix,
    pub layout: Layout,
    set: InstructionSet,
    tiles: Vec<Tile>,
    /// Per rank `Σ R²`.
    squares: Vec<f64>,
    /// Per rank its root.
    norms: Vec<f64>,
}

/// Up to [`MAX_TILE_ROWS`](super::layout::MAX_TILE_ROWS) rows by columns.
struct Tile {
    /// Where columns begin in `lanes` and `values`, and their end.
    offsets: Vec<usize>,
    lanes: Vec<u16>,
    values: Vec<f32>,
}

/// The buffers that one thread reuses from job to job.
#[derive(Default)]
struct Workspace {
    /// Per lane the product with the row at hand.
    dots: Vec<f64>,
    /// Per lane; see [`Reach`].
    limits: Vec<f64>,
    found: Vec<u16>,
    /// Lanes and their similarity.
    similar: Vec<(usize, f32)>,
}

impl<'a> RealKernel<'a> {
    pub fn new(rows: &'a CsrMatrix, selected: &[u32], sizes: &Sizes, set: InstructionSet) -> Self {
        let layout = Layout::new(rows, selected, |_| sizes.max_tile_rows);
        let square_of = |&row: &u32| -> f64 {
            let values = rows.row(row as usize).1.iter();
            values.map(|&value| f64::from(value) * f64::from(value)).sum()
        };
        let squares: Vec<f64> = layout.order.par_iter().map(square_of).collect();
        let tile = |ranks: &Range<usize>| Tile::new(rows, &layout.order[ranks.clone()]);
        Self {
            tiles: layout.tiles.par_iter().map(tile).collect(),
            norms: squares.iter().map(|square| square.sqrt()).collect(),
            squares,
            rows,
            layout,
            set,
        }
    }

    /// The lists of all selected ranks.
    pub fn best(&self, jobs: &[Job], keep: usize, observe: Observer<'_>) -> BestLists {
        let lists = BestLists::new(self.layout.n_selected, keep);
        run(&self.layout, jobs, observe, Workspace::default, |workspace, job| {
            self.work(workspace, job, &lists)
        });
        lists
    }

    fn work(&self, workspace: &mut Workspace, job: &Job, lists: &BestLists) {
        let lanes = &self.layout.tiles[job.tile];
        let limit = |rank| match self.layout.is_selected(job.tile) {
            true => floor_below(lists.bar(rank)) * self.norms[rank],
            false => f64::INFINITY,
        };
        workspace.limits.clear();
        workspace.limits.extend(lanes.clone().map(limit));
        for rank in job.rows.clone() {
            let met = lanes.start..if lanes.contains(&rank) { rank } else { lanes.end };
            workspace.dots.clear();
            workspace.dots.resize(lanes.len(), 0.0);
            let (columns, values) = self.rows.row(self.layout.order[rank] as usize);
            self.tiles[job.tile].add_products(columns, values, &mut workspace.dots);
            let meeting = Meeting {
                layout: &self.layout,
                lists,
                rank,
                lanes: met,
            };
            self.offer(workspace, &meeting);
        }
    }

    fn offer(&self, workspace: &mut Workspace, meeting: &Meeting<'_>) {
        let Workspace {
            dots,
            limits,
            found,
            similar,
        } = workspace;
        let Meeting {
            lists, rank, ref lanes, ..
        } = *meeting;
        for start in (0..lanes.len()).step_by(LANES_AT_ONCE) {
            let some = start..(start + LANES_AT_ONCE).min(lanes.len());
            let bar = lists.bar(rank);
            let reach = Reach {
                norm: self.norms[rank],
                bar: floor_below(bar),
                norms: &self.norms[lanes.clone()][some.clone()],
                limits: &limits[some.clone()],
            };
            found.clear();
            find_reals(self.set, &dots[some], reach, found);
            let lane_and_similarity = |&lane: &u16| {
                let lane = start + usize::from(lane);
                (
                    lane,
                    pair_similarity(dots[lane], self.squares[rank], self.squares[lanes.start + lane]),
                )
            };
            similar.clear();
            similar.extend(found.iter().map(lane_and_similarity));
            meeting.offer(similar, bar, |lane, bar| {
                limits[lane] = floor_below(bar) * self.norms[lanes.start + lane];
            });
        }
    }
}

impl Tile {
    fn new(rows: &CsrMatrix, order: &[u32]) -> Self {
        let mut offsets = vec![0; rows.n_columns() + 1];
        for &row in order {
            for &column in rows.row(row as usize).0 {
                offsets[column as usize + 1] += 1;
            }
        }
        for column in 0..rows.n_columns() {
            offsets[column + 1] += offsets[column];
        }
        let mut next = offsets.clone();
        let mut lanes = vec![0; offsets[rows.n_columns()]];
        let mut values = vec![0.0; lanes.len()];
        for (lane, &row) in (0..).zip(order) {
            let (columns, row_values) = rows.row(row as usize);
            for (&column, &value) in columns.iter().zip(row_values) {
                let place = &mut next[column as usize];
                lanes[*place] = lane;
                values[*place] = value;
                *place += 1;
            }
        }
        Self { offsets, lanes, values }
    }

    /// Adds the products of a row with all lanes; no sum is taken out of the order of the columns.
    fn add_products(&self, columns: &[u32], values: &[f32], dots: &mut [f64]) {
        for (&column, &value) in columns.iter().zip(values) {
            let value = f64::from(value);
            let range = self.offsets[column as usize]..self.offsets[column as usize + 1];
            for (&lane, &other) in self.lanes[range.clone()].iter().zip(&self.values[range]) {
                dots[usize::from(lane)] += value * f64::from(other);
            }
        }
    }
}
