//! Rows that meet tile by tile, whatever arithmetic their values are multiplied in.

use std::cmp::Reverse;
use std::ops::{Mul, Range};

use rayon::prelude::*;

use super::best::BestLists;
use super::cosine::Observer;
use super::layout::{Job, Layout, Sizes, Updates, run};
use super::pair::{floor_below, pair_similarity};
use super::simd::{Block, InstructionSet, LANES, Reach};
use super::sparse::CsrMatrix;
use super::tile_update::{LANES_AT_ONCE, TileUpdate};

/// How values are held, multiplied and added up.
///
/// A pair's products are added up in the order of the places of their columns, the dense ones first. A dense column adds 0
/// where a lane has no value, so a sum does not depend on the tile that it is computed in.
pub(super) trait Arithmetic: Sync {
    /// A value of a row, and the place of its column, in whose order they are.
    type RowEntry: Copy + Default + Ord + Send + Sync;
    /// A value of a tile's column, and its lane.
    type LaneEntry: Copy + Default + Send + Sync;
    /// A value in a dense column, by default none.
    type Cell: Copy + Default;
    /// By default 0.
    type Sum: Copy + Default;
    /// What sums are compared in.
    type Float: Copy + Mul<Output = Self::Float> + Send + Sync;

    fn row_entry(&self, place: u32, value: f32) -> Self::RowEntry;
    fn place(entry: Self::RowEntry) -> usize;
    /// The value that is multiplied, exactly.
    fn value(entry: Self::RowEntry) -> f64;
    fn lane_entry(lane: u16, entry: Self::RowEntry) -> Self::LaneEntry;
    /// Puts the value into the dense `column` of its tile.
    fn put(entry: Self::LaneEntry, column: &mut [Self::Cell]);

    /// For so many lanes, a dense column costs as much as adding up one entry by itself.
    fn lanes_per_entry(set: InstructionSet) -> usize;
    /// Adds to the first `n_lanes` sums the products of a row's `entries` with the columns of a block.
    fn add_dense(
        set: InstructionSet,
        block: Block<'_, Self::Cell>,
        entries: &[Self::RowEntry],
        sums: &mut [Self::Sum],
        n_lanes: usize,
    );
    /// Adds the products of one entry of a row with those of its column.
    fn add_sparse(entry: Self::RowEntry, column: &[Self::LaneEntry], sums: &mut [Self::Sum]);
    /// Appends the lanes whose sum is within reach.
    fn find(set: InstructionSet, sums: &[Self::Sum], reach: Reach<'_, Self::Float>, found: &mut Vec<u16>);
    fn exact(sum: Self::Sum) -> f64;
    fn float(exact: f64) -> Self::Float;
}

/// The rows and columns in the order in which they meet.
pub(super) struct Kernel<A: Arithmetic> {
    pub layout: Layout,
    sizes: Sizes,
    set: InstructionSet,
    rows: Rows<A>,
    tiles: Vec<Tile<A>>,
    /// Per rank the sum of the squares of its values, added up as products are.
    squares: Vec<f64>,
    /// Per rank its root.
    norms: Vec<A::Float>,
}

impl<A: Arithmetic> Kernel<A> {
    /// `columns`: the transpose of `rows`.
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
        let rows = Rows::new(arithmetic, rows, &layout, &columns);
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

    /// Frees all but this.
    pub fn into_layout(self) -> Layout {
        self.layout
    }

    /// The lists of all selected ranks.
    pub fn best(&self, jobs: &[Job], keep: usize, observe: Observer<'_>) -> BestLists {
        let lists = BestLists::new(self.layout.n_selected, keep);
        run(&self.layout, jobs, observe, Workspace::default, |workspace, job| {
            self.work(workspace, job, &lists)
        });
        lists
    }

    fn work(&self, workspace: &mut Workspace<A>, job: &Job, lists: &BestLists) {
        let tile = &self.tiles[job.tile];
        let lanes = &self.layout.tiles[job.tile];
        let limit = |rank| match job.updates {
            Updates::Both => A::float(floor_below(lists.bar(rank))) * self.norms[rank],
            Updates::Rows => A::float(f64::INFINITY),
        };
        workspace.limits.clear();
        workspace.limits.extend(lanes.clone().map(limit));
        let inverse_norm = |rank: usize| 1.0 / self.squares[rank].sqrt();
        workspace.inverse_norms.clear();
        workspace.inverse_norms.extend(lanes.clone().map(inverse_norm));
        workspace.block_of = 0..0;

        let columns_at_once = (self.sizes.max_block_bytes / (size_of::<A::Cell>() * tile.width)).max(1);
        let blocks = || (0..tile.n_dense).step_by(columns_at_once);
        let block = |start: usize| start..(start + columns_at_once).min(tile.n_dense);
        // One row at a time where the dense columns fit into one block: then its products stay in the cache.
        let panel_rows = self.sizes.panel_bytes / (size_of::<A::Sum>() * tile.width);
        let rows_at_once = if tile.n_dense <= columns_at_once {
            1
        } else {
            panel_rows.max(1)
        };
        for start in job.rows.clone().step_by(rows_at_once) {
            let panel = start..(start + rows_at_once).min(job.rows.end);
            workspace.dots.clear();
            workspace.dots.resize(panel.len() * tile.width, A::Sum::default());
            workspace.next.clear();
            workspace.next.resize(panel.len(), 0);
            for block in blocks().map(block) {
                workspace.load(tile, &block);
                for (place, rank) in panel.clone().enumerate() {
                    let dots = &mut workspace.dots[place * tile.width..][..tile.width];
                    let next = &mut workspace.next[place];
                    let entries = before_column::<A>(&self.rows.row(rank)[*next..], block.end);
                    *next += entries.len();
                    let columns = Block {
                        cells: &workspace.block,
                        first: block.start,
                    };
                    A::add_dense(self.set, columns, entries, dots, lanes.len());
                }
            }
            for (place, rank) in panel.enumerate() {
                let dots = &mut workspace.dots[place * tile.width..][..tile.width];
                tile.add_sparse(&self.rows.row(rank)[workspace.next[place]..], dots);
                let update = TileUpdate {
                    layout: &self.layout,
                    lists,
                    rank,
                    lanes: lanes.clone(),
                    updates: job.updates,
                };
                self.offer(workspace, place * tile.width, &update);
            }
        }
    }

    /// A similarity that the best `keep` of the lanes reach, of which one may be the row itself: so it need not take
    /// whatever comes first while its list is empty.
    ///
    /// Lanes are put into groups, and of each only the best one counts: at least as many lanes reach what so many groups
    /// do, and hardly more, as the best ones seldom share a group.
    fn first_bar(&self, dots: &[A::Sum], inverse_norms: &[f64], rank: usize, keep: usize) -> f32 {
        const GROUPS: usize = 128;
        if keep > GROUPS / 2 || inverse_norms.len() < 2 * GROUPS {
            return 0.0;
        }
        let mut best = [0.0; GROUPS];
        for (dots, norms) in dots.chunks(GROUPS).zip(inverse_norms.chunks(GROUPS)) {
            for ((best, &dot), &inverse_norm) in best.iter_mut().zip(dots).zip(norms) {
                let cosine = A::exact(dot) * inverse_norm;
                // No number where a row is empty, and then not above.
                *best = if cosine > *best { cosine } else { *best };
            }
        }
        // As bits, which ascend as they do. One may be of the row itself; `keep` others are above.
        let mut best = best.map(f64::to_bits);
        let (_, &mut worst, _) = best.select_nth_unstable(GROUPS - 1 - keep);
        floor_below((f64::from_bits(worst) / self.squares[rank].sqrt()) as f32) as f32
    }

    /// `first`: place of the product with the first lane.
    fn offer(&self, workspace: &mut Workspace<A>, first: usize, update: &TileUpdate<'_>) {
        let Workspace {
            dots,
            limits,
            inverse_norms,
            found,
            similar,
            ..
        } = workspace;
        let TileUpdate {
            lists, rank, ref lanes, ..
        } = *update;
        let dots = &dots[first..][..lanes.len()];
        let first_bar = match lists.bar(rank) {
            0.0 => self.first_bar(dots, inverse_norms, rank, lists.keep()),
            _ => 0.0,
        };
        for start in (0..lanes.len()).step_by(LANES_AT_ONCE) {
            let some = start..(start + LANES_AT_ONCE).min(lanes.len());
            let bar = lists.bar(rank).max(first_bar);
            let reach = Reach {
                norm: self.norms[rank],
                bar: A::float(floor_below(bar)),
                norms: &self.norms[lanes.clone()][some.clone()],
                limits: &limits[some.clone()],
            };
            found.clear();
            A::find(self.set, &dots[some], reach, found);
            let lane_and_similarity = |&lane: &u16| {
                let lane = start + usize::from(lane);
                let squares = (self.squares[rank], self.squares[lanes.start + lane]);
                (lane, pair_similarity(A::exact(dots[lane]), squares.0, squares.1))
            };
            similar.clear();
            similar.extend(found.iter().map(lane_and_similarity));
            update.offer(similar, bar, |lane, bar| {
                limits[lane] = A::float(floor_below(bar)) * self.norms[lanes.start + lane];
            });
        }
    }
}

/// Columns with more entries first.
struct ColumnOrder {
    /// Per column its place.
    places: Vec<u32>,
    /// Per place the column's entries.
    lengths: Vec<usize>,
}

impl ColumnOrder {
    fn new(columns: &CsrMatrix) -> Self {
        let length = |column: u32| columns.row_range(column as usize).len();
        let mut order: Vec<u32> = (0..columns.n_rows() as u32).collect();
        order.par_sort_unstable_by_key(|&column| (Reverse(length(column)), column));
        let mut places = vec![0; order.len()];
        for (place, &column) in (0..).zip(&order) {
            places[column as usize] = place;
        }
        let lengths = order.into_iter().map(length).collect();
        Self { places, lengths }
    }

    /// As wide as it may be for the dense columns to fit into a block, if rows with `length` entries have them in the
    /// same columns as all rows do.
    fn tile_width<A: Arithmetic>(&self, length: usize, rows: &CsrMatrix, sizes: &Sizes, set: InstructionSet) -> usize {
        let least = rows.nnz() as f64 / (A::lanes_per_entry(set) * length.max(1)) as f64;
        let n_dense = self.lengths.partition_point(|&entries| entries as f64 > least);
        let block_cells = sizes.block_bytes / size_of::<A::Cell>();
        let width = (block_cells / n_dense.max(1)).clamp(sizes.min_tile_rows, sizes.max_tile_rows);
        // In whole steps of the narrowest, as lanes are padded.
        let width = width / sizes.min_tile_rows * sizes.min_tile_rows;
        // The entries of a tile are counted in 32 bits.
        width.min(u32::MAX as usize / length.max(1))
    }
}

/// The rows by rank.
struct Rows<A: Arithmetic> {
    /// Where rows begin in `entries`, and their end.
    offsets: Vec<usize>,
    /// Ascending in a row.
    entries: Vec<A::RowEntry>,
}

impl<A: Arithmetic> Rows<A> {
    fn new(arithmetic: &A, rows: &CsrMatrix, layout: &Layout, columns: &ColumnOrder) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        offsets.extend(layout.order.iter().map(|&row| {
            end += rows.row_range(row as usize).len();
            end
        }));
        let mut entries = vec![A::RowEntry::default(); rows.nnz()];
        let mut rest = &mut entries[..];
        let mut parts = Vec::new();
        for &row in &layout.order {
            let part;
            (part, rest) = rest.split_at_mut(rows.row_range(row as usize).len());
            parts.push((row, part));
        }
        let by_place = || ByPlace::new(columns.places.len());
        parts
            .into_par_iter()
            .with_min_len(16)
            .for_each_init(by_place, |by_place, (row, part)| {
                let (row_columns, values) = rows.row(row as usize);
                let entry = |(&column, &value)| {
                    let place = columns.places[column as usize];
                    (place as usize, arithmetic.row_entry(place, value))
                };
                by_place.sort(row_columns.iter().zip(values).map(entry), part);
            });
        Self { offsets, entries }
    }

    fn row(&self, rank: usize) -> &[A::RowEntry] {
        &self.entries[self.offsets[rank]..self.offsets[rank + 1]]
    }
}

/// Puts the entries of a row in order without comparing them: no two have the same place.
struct ByPlace<E> {
    /// Per place a bit, set where there is an entry.
    taken: Vec<u64>,
    entries: Vec<E>,
}

impl<E: Copy + Default + Ord> ByPlace<E> {
    fn new(n_places: usize) -> Self {
        Self {
            taken: vec![0; n_places.div_ceil(64)],
            entries: vec![E::default(); n_places],
        }
    }

    /// `entries`: with their places, by which they ascend in `sorted`.
    fn sort(&mut self, entries: impl ExactSizeIterator<Item = (usize, E)>, sorted: &mut [E]) {
        // Comparing few of them costs less than looking through all places, 64 at a time.
        if entries.len() < self.taken.len() / 8 {
            sorted.iter_mut().zip(entries).for_each(|(to, (_, entry))| *to = entry);
            sorted.sort_unstable();
            return;
        }
        for (place, entry) in entries {
            self.taken[place / 64] |= 1 << (place % 64);
            self.entries[place] = entry;
        }
        let mut sorted = sorted.iter_mut();
        for (word, taken) in self.taken.iter_mut().enumerate() {
            let mut left = std::mem::take(taken);
            while left != 0 {
                let place = word * 64 + left.trailing_zeros() as usize;
                if let Some(to) = sorted.next() {
                    *to = self.entries[place];
                }
                left &= left - 1;
            }
        }
    }
}

/// The first entries, those in columns before this place: few of a block's, nearly all where one block is all.
fn before_column<A: Arithmetic>(entries: &[A::RowEntry], place: usize) -> &[A::RowEntry] {
    let is_before = |entry: &A::RowEntry| A::place(*entry) < place;
    let (mut n_sure, mut end) = (0, 4);
    while entries.get(end).is_some_and(is_before) {
        (n_sure, end) = (end + 1, 2 * end);
    }
    let unsure = &entries[n_sure..end.min(entries.len())];
    &entries[..n_sure + unsure.partition_point(is_before)]
}

/// The entries of up to [`MAX_TILE_ROWS`](super::layout::MAX_TILE_ROWS) rows, the lanes, by columns.
struct Tile<A: Arithmetic> {
    /// Lanes, rounded up to whole [`LANES`].
    width: usize,
    /// So many columns from the first on are multiplied with all lanes.
    n_dense: usize,
    /// Per place of a column where its entries begin in `by_column`, and their end.
    offsets: Vec<u32>,
    by_column: Vec<A::LaneEntry>,
}

impl<A: Arithmetic> Tile<A> {
    fn new(rows: &Rows<A>, ranks: Range<usize>, columns: &ColumnOrder, set: InstructionSet) -> Self {
        let entries = &rows.entries[rows.offsets[ranks.start]..rows.offsets[ranks.end]];
        let n_columns = columns.lengths.len();
        // Ends until the entries are in, beginnings after that.
        let mut offsets = vec![0; n_columns + 1];
        for &entry in entries {
            offsets[A::place(entry)] += 1;
        }
        let width = ranks.len().next_multiple_of(LANES);
        let n_dense = n_dense(&offsets, columns, width / A::lanes_per_entry(set));
        let mut end = 0;
        for offset in &mut offsets {
            end += *offset;
            *offset = end;
        }
        let mut by_column = vec![A::LaneEntry::default(); entries.len()];
        for (lane, rank) in ranks.enumerate() {
            for &entry in rows.row(rank) {
                let next = &mut offsets[A::place(entry)];
                *next -= 1;
                by_column[*next as usize] = A::lane_entry(lane as u16, entry);
            }
        }
        Self {
            width,
            n_dense,
            offsets,
            by_column,
        }
    }

    fn column(&self, place: usize) -> &[A::LaneEntry] {
        &self.by_column[self.offsets[place] as usize..self.offsets[place + 1] as usize]
    }

    /// Adds the products of a row with the lanes, entry by entry of each of these columns.
    fn add_sparse(&self, entries: &[A::RowEntry], sums: &mut [A::Sum]) {
        for &entry in entries {
            A::add_sparse(entry, self.column(A::place(entry)), sums);
        }
    }
}

/// How many columns, from the first on, to treat as dense so that the work is least.
///
/// `entries`: per place the column's entries in the tile, and something. `dense_entries`: as many entries cost as much
/// as all lanes do.
fn n_dense(entries: &[u32], columns: &ColumnOrder, dense_entries: usize) -> usize {
    let (mut saved, mut most_saved, mut n_dense) = (0, 0, 0);
    for (place, (&entries, &visits)) in entries.iter().zip(&columns.lengths).enumerate() {
        saved += visits as i64 * (i64::from(entries) - dense_entries as i64);
        if saved > most_saved {
            (most_saved, n_dense) = (saved, place + 1);
        }
    }
    n_dense
}

/// The buffers that one thread reuses from job to job.
struct Workspace<A: Arithmetic> {
    /// Dense columns; see [`Block`].
    block: Vec<A::Cell>,
    /// Their places.
    block_of: Range<usize>,
    /// Per row of a panel its products with all lanes.
    dots: Vec<A::Sum>,
    /// Per row of a panel its first entry in a column that was not added yet.
    next: Vec<usize>,
    /// Per lane; see [`Reach`].
    limits: Vec<A::Float>,
    /// Per lane.
    inverse_norms: Vec<f64>,
    found: Vec<u16>,
    /// Lanes and their similarity.
    similar: Vec<(usize, f32)>,
}

impl<A: Arithmetic> Default for Workspace<A> {
    fn default() -> Self {
        Self {
            block: Vec::new(),
            block_of: 0..0,
            dots: Vec::new(),
            next: Vec::new(),
            limits: Vec::new(),
            inverse_norms: Vec::new(),
            found: Vec::new(),
            similar: Vec::new(),
        }
    }
}

impl<A: Arithmetic> Workspace<A> {
    /// Lays out the columns at these places, unless they are there.
    fn load(&mut self, tile: &Tile<A>, places: &Range<usize>) {
        if self.block_of == *places {
            return;
        }
        self.block_of = places.clone();
        self.block.clear();
        self.block.resize(places.len() * tile.width, A::Cell::default());
        for (column, place) in self.block.chunks_exact_mut(tile.width).zip(places.clone()) {
            for &entry in tile.column(place) {
                A::put(entry, column);
            }
        }
    }
}
