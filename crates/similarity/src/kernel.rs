//! The tiled kernel: dot products of rows with whole tiles, in any [`Arithmetic`].

use std::ops::Range;

use rayon::prelude::*;

use super::arithmetic::Arithmetic;
use super::best::BestLists;
use super::layout::{Job, Layout, Observer, Sizes, Updates, run};
use super::order::{ColumnOrder, RankedRows};
use super::pair::{pair_similarity, safe_threshold};
use super::simd::{Block, Cutoff, InstructionSet};
use super::sparse::CsrMatrix;
use super::tile::Tile;
use super::tile_update::{LANES_AT_ONCE, TileUpdate};

/// The matrix, sorted and cut into tiles.
pub(super) struct Kernel<A: Arithmetic> {
    pub layout: Layout,
    sizes: Sizes,
    set: InstructionSet,
    rows: RankedRows<A>,
    tiles: Vec<Tile<A>>,
    /// Per rank, the sum of the squares of its values, summed in the same order as products are.
    squares: Vec<f64>,
    /// Per rank, the root of its square.
    norms: Vec<A::Float>,
}

impl<A: Arithmetic> Kernel<A> {
    /// Sorts the matrix and cuts it into tiles.
    ///
    /// `columns`: the transpose of `rows`. `selected`: ascending rows of `rows`.
    pub fn new(
        arithmetic: &A,
        rows: &CsrMatrix,
        columns: &CsrMatrix,
        selected: &[u32],
        sizes: &Sizes,
        set: InstructionSet,
    ) -> Self {
        let columns = ColumnOrder::new(columns);
        let layout = Layout::new(rows, selected, |length| {
            columns.tile_width::<A>(length, rows, sizes, set)
        });
        let rows = RankedRows::new(arithmetic, rows, &layout, &columns);
        let square_of = |rank| -> f64 { rows.row(rank).iter().map(|&entry| A::value(entry).powi(2)).sum() };
        let squares: Vec<f64> = (0..layout.order.len()).into_par_iter().map(square_of).collect();
        let tile = |ranks: &Range<usize>| Tile::new(&rows, ranks.clone(), &columns, set);
        Self {
            tiles: layout.tiles.par_iter().map(tile).collect(),
            norms: squares.iter().map(|&square| A::float(square.sqrt())).collect(),
            squares,
            rows,
            layout,
            sizes: sizes.clone(),
            set,
        }
    }

    /// Frees everything except the layout.
    pub fn into_layout(self) -> Layout {
        self.layout
    }

    /// Does all `jobs` and returns the lists of the selected ranks, at most `keep` neighbors each.
    pub fn best(&self, jobs: &[Job], keep: usize, observe: Observer<'_>) -> BestLists {
        let lists = BestLists::new(self.layout.n_selected, keep);
        run(&self.layout, jobs, observe, Workspace::default, |workspace, job| {
            self.run_job(workspace, job, &lists)
        });
        lists
    }

    fn run_job(&self, workspace: &mut Workspace<A>, job: &Job, lists: &BestLists) {
        let tile = &self.tiles[job.tile];
        let lanes = &self.layout.tiles[job.tile];
        self.prepare_lanes(workspace, job, lists);
        // One row at a time where the dense columns fit into one block: then its dot products stay in the cache.
        let panel_rows = if tile.n_dense <= self.columns_per_block(tile) {
            1
        } else {
            (self.sizes.panel_bytes / (size_of::<A::Sum>() * tile.width)).max(1)
        };
        for start in job.rows.clone().step_by(panel_rows) {
            let panel = start..(start + panel_rows).min(job.rows.end);
            self.add_dense_columns(workspace, tile, &panel, lanes.len());
            for (position, rank) in panel.enumerate() {
                let dots = &mut workspace.dots[position * tile.width..][..tile.width];
                tile.add_sparse(&self.rows.row(rank)[workspace.cursors[position]..], dots);
                let update = TileUpdate {
                    layout: &self.layout,
                    lists,
                    rank,
                    lanes: lanes.clone(),
                    updates: job.updates,
                };
                self.offer(workspace, position * tile.width, &update);
            }
        }
    }

    /// Fills the workspace's values per lane, and marks its block as empty.
    fn prepare_lanes(&self, workspace: &mut Workspace<A>, job: &Job, lists: &BestLists) {
        let lanes = &self.layout.tiles[job.tile];
        let scaled_threshold = |rank| match job.updates {
            Updates::Both => A::float(safe_threshold(lists.threshold(rank))) * self.norms[rank],
            Updates::Rows => A::float(f64::INFINITY),
        };
        workspace.scaled_thresholds.clear();
        workspace.scaled_thresholds.extend(lanes.clone().map(scaled_threshold));
        let inverse_norm = |rank: usize| 1.0 / self.squares[rank].sqrt();
        workspace.inverse_norms.clear();
        workspace.inverse_norms.extend(lanes.clone().map(inverse_norm));
        workspace.block_places = 0..0;
    }

    fn columns_per_block(&self, tile: &Tile<A>) -> usize {
        (self.sizes.max_block_bytes / (size_of::<A::Cell>() * tile.width)).max(1)
    }

    /// Starts the dot products of a panel of rows with the tile's dense columns, block by block.
    ///
    /// Leaves each row's cursor at its first entry in a sparse column.
    fn add_dense_columns(&self, workspace: &mut Workspace<A>, tile: &Tile<A>, panel: &Range<usize>, n_lanes: usize) {
        workspace.dots.clear();
        workspace.dots.resize(panel.len() * tile.width, A::Sum::default());
        workspace.cursors.clear();
        workspace.cursors.resize(panel.len(), 0);
        let columns_per_block = self.columns_per_block(tile);
        for start in (0..tile.n_dense).step_by(columns_per_block) {
            let block = start..(start + columns_per_block).min(tile.n_dense);
            workspace.load(tile, &block);
            for (position, rank) in panel.clone().enumerate() {
                let dots = &mut workspace.dots[position * tile.width..][..tile.width];
                let cursor = &mut workspace.cursors[position];
                let entries = before_place::<A>(&self.rows.row(rank)[*cursor..], block.end);
                *cursor += entries.len();
                let columns = Block {
                    cells: &workspace.block,
                    first: block.start,
                };
                A::add_dense(self.set, columns, entries, dots, n_lanes);
            }
        }
    }

    /// Offers the pairs of one row and the lanes of a tile to the lists of both.
    ///
    /// `first`: position of the dot product with the first lane in the workspace's `dots`.
    fn offer(&self, workspace: &mut Workspace<A>, first: usize, update: &TileUpdate<'_>) {
        let Workspace {
            dots,
            scaled_thresholds,
            inverse_norms,
            candidates,
            similarities,
            ..
        } = workspace;
        let TileUpdate {
            lists, rank, ref lanes, ..
        } = *update;
        let dots = &dots[first..][..lanes.len()];
        let first_threshold = match lists.threshold(rank) {
            0.0 => self.first_threshold(dots, inverse_norms, rank, lists.keep()),
            _ => 0.0,
        };
        for start in (0..lanes.len()).step_by(LANES_AT_ONCE) {
            let some = start..(start + LANES_AT_ONCE).min(lanes.len());
            let threshold = lists.threshold(rank).max(first_threshold);
            let cutoff = Cutoff {
                norm: self.norms[rank],
                threshold: A::float(safe_threshold(threshold)),
                norms: &self.norms[lanes.clone()][some.clone()],
                scaled_thresholds: &scaled_thresholds[some.clone()],
            };
            candidates.clear();
            A::find_candidates(self.set, &dots[some], cutoff, candidates);
            let lane_and_similarity = |&lane: &u16| {
                let lane = start + usize::from(lane);
                let squares = (self.squares[rank], self.squares[lanes.start + lane]);
                (lane, pair_similarity(A::exact(dots[lane]), squares.0, squares.1))
            };
            similarities.clear();
            similarities.extend(candidates.iter().map(lane_and_similarity));
            update.offer(similarities, threshold, |lane, threshold| {
                scaled_thresholds[lane] = A::float(safe_threshold(threshold)) * self.norms[lanes.start + lane];
            });
        }
    }

    /// Returns a similarity that at least `keep` of the lanes reach, not counting the row itself, or 0.
    ///
    /// A row with an empty list starts from this threshold, so that it need not take whatever comes first. Lanes are put
    /// into groups, and only the best lane of each group counts: at least as many lanes reach the result as groups do, and
    /// hardly more, as the best ones seldom share a group.
    fn first_threshold(&self, dots: &[A::Sum], inverse_norms: &[f64], rank: usize, keep: usize) -> f32 {
        const GROUPS: usize = 128;
        if keep > GROUPS / 2 || inverse_norms.len() < 2 * GROUPS {
            return 0.0;
        }
        let mut best = [0.0; GROUPS];
        for (dots, norms) in dots.chunks(GROUPS).zip(inverse_norms.chunks(GROUPS)) {
            for ((best, &dot), &inverse_norm) in best.iter_mut().zip(dots).zip(norms) {
                let cosine = A::exact(dot) * inverse_norm;
                // The cosine of an empty row is NaN, and then not above.
                *best = if cosine > *best { cosine } else { *best };
            }
        }
        // The bits of positive floats ascend as the floats do. One group may hold the row itself; `keep` others are above.
        let mut best = best.map(f64::to_bits);
        let (_, &mut worst, _) = best.select_nth_unstable(GROUPS - 1 - keep);
        safe_threshold((f64::from_bits(worst) / self.squares[rank].sqrt()) as f32) as f32
    }
}

/// Returns the leading entries in columns before `place`.
///
/// A row has few entries in one of several blocks, and nearly all of them where one block holds all dense columns, so the
/// search doubles its step.
fn before_place<A: Arithmetic>(entries: &[A::RowEntry], place: usize) -> &[A::RowEntry] {
    let is_before = |entry: &A::RowEntry| A::place(*entry) < place;
    let (mut n_known, mut end) = (0, 4);
    while entries.get(end).is_some_and(is_before) {
        (n_known, end) = (end + 1, 2 * end);
    }
    let unknown = &entries[n_known..end.min(entries.len())];
    &entries[..n_known + unknown.partition_point(is_before)]
}

/// The buffers that one thread reuses from job to job.
struct Workspace<A: Arithmetic> {
    /// Dense columns; see [`Block`].
    block: Vec<A::Cell>,
    /// The places of the columns in `block`.
    block_places: Range<usize>,
    /// Per row of a panel, its dot products with all lanes.
    dots: Vec<A::Sum>,
    /// Per row of a panel, the position of its first entry that was not multiplied yet.
    cursors: Vec<usize>,
    /// Per lane; see [`Cutoff`].
    scaled_thresholds: Vec<A::Float>,
    /// Per lane.
    inverse_norms: Vec<f64>,
    candidates: Vec<u16>,
    /// The candidates' lanes and similarities.
    similarities: Vec<(usize, f32)>,
}

impl<A: Arithmetic> Default for Workspace<A> {
    fn default() -> Self {
        Self {
            block: Vec::new(),
            block_places: 0..0,
            dots: Vec::new(),
            cursors: Vec::new(),
            scaled_thresholds: Vec::new(),
            inverse_norms: Vec::new(),
            candidates: Vec::new(),
            similarities: Vec::new(),
        }
    }
}

impl<A: Arithmetic> Workspace<A> {
    /// Lays out the columns at these places, unless the block holds them already.
    fn load(&mut self, tile: &Tile<A>, places: &Range<usize>) {
        if self.block_places == *places {
            return;
        }
        self.block_places = places.clone();
        self.block.clear();
        self.block.resize(places.len() * tile.width, A::Cell::default());
        for (column, place) in self.block.chunks_exact_mut(tile.width).zip(places.clone()) {
            for &entry in tile.column(place) {
                A::store(entry, column);
            }
        }
    }
}
