//! The products of ratings on a grid: exact integers, whatever the order in which they are added up.

use std::cmp::Reverse;
use std::ops::Range;

use rayon::prelude::*;

use super::best::BestLists;
use super::grid::{Grid, MAX_STEPS};
use super::layout::{Job, Layout, MAX_TILE_ROWS, Sizes, run};
use super::meeting::{LANES_AT_ONCE, Meeting};
use super::pair::{floor_below, pair_similarity};
use super::simd::{InstructionSet, LANES, Reach, add_products, byte_of_lane, find_integers};
use super::sparse::CsrMatrix;

/// Bits of an entry's value; [`MAX_STEPS`] is the largest.
const VALUE_BITS: u32 = 4;

const VALUE_MASK: u32 = (1 << VALUE_BITS) - 1;

/// The rows and columns with integer values, in the order in which they meet.
pub(super) struct IntegerKernel {
    pub layout: Layout,
    sizes: Sizes,
    set: InstructionSet,
    rows: Rows,
    tiles: Vec<Tile>,
    /// Per rank `Σ k²`, exact in 32 bits: so are products, which are no larger than the larger one of their squares.
    squares: Vec<u32>,
    /// Per rank its root.
    norms: Vec<f32>,
}

impl IntegerKernel {
    /// `columns`: the transpose of `rows`. `None` where the values lie on no grid, or sums could leave 32 bits.
    pub fn new(
        rows: &CsrMatrix,
        columns: &CsrMatrix,
        selected: &[u32],
        sizes: &Sizes,
        set: InstructionSet,
    ) -> Option<Self> {
        let grid = Grid::of(rows.values())?;
        // Places of columns share 32 bits with a value, those of entries are 32 bits wide.
        if rows.n_columns() >= 1 << (32 - VALUE_BITS) || u32::try_from(rows.nnz()).is_err() {
            return None;
        }
        let columns = ColumnOrder::new(columns);
        let layout = Layout::new(rows, selected, |length| columns.tile_width(length, rows, sizes, set));
        let square_of = |&row: &u32| exact_square(rows.row(row as usize).1, grid);
        let squares: Vec<u32> = layout.order.par_iter().map(square_of).collect::<Option<_>>()?;
        let rows = Rows::new(rows, &layout, &columns, grid);
        let n_columns = columns.lengths.len();
        let tile = |ranks: &Range<usize>| Tile::new(&rows, ranks.clone(), n_columns, sizes, set);
        Some(Self {
            tiles: layout.tiles.par_iter().map(tile).collect(),
            norms: squares.iter().map(|&square| f64::from(square).sqrt() as f32).collect(),
            squares,
            rows,
            layout,
            sizes: sizes.clone(),
            set,
        })
    }

    /// The lists of all selected ranks.
    pub fn best(&self, jobs: &[Job], keep: usize) -> BestLists {
        let lists = BestLists::new(self.layout.n_selected, keep);
        run(jobs, Workspace::default, |workspace, job| {
            self.work(workspace, job, &lists)
        });
        lists
    }

    fn work(&self, workspace: &mut Workspace, job: &Job, lists: &BestLists) {
        let tile = &self.tiles[job.tile];
        let lanes = &self.layout.tiles[job.tile];
        let limit = |rank| match self.layout.is_selected(job.tile) {
            true => floor_below(lists.bar(rank)) as f32 * self.norms[rank],
            false => f32::INFINITY,
        };
        workspace.limits.clear();
        workspace.limits.extend(lanes.clone().map(limit));
        workspace.block_of = None;

        // One row at a time where the tile's columns fit into one block: then its products stay in the cache.
        let panel_rows = self.sizes.panel_bytes / (4 * tile.width);
        let rows_at_once = if tile.chunks.len() == 1 { 1 } else { panel_rows.max(1) };
        for start in job.rows.clone().step_by(rows_at_once) {
            let panel = start..(start + rows_at_once).min(job.rows.end);
            let met_by = |rank: usize| lanes.start..if lanes.contains(&rank) { rank } else { lanes.end };
            workspace.clear(&panel, &self.rows, tile.width);
            for chunk in 0..tile.chunks.len() {
                workspace.load(tile, chunk);
                for (place, rank) in panel.clone().enumerate() {
                    let entries = &self.rows.entries[..self.rows.offsets[rank + 1] as usize];
                    workspace.add_products(self.set, tile, chunk, entries, place, met_by(rank).len());
                }
            }
            for (place, rank) in panel.enumerate() {
                let meeting = Meeting {
                    layout: &self.layout,
                    lists,
                    rank,
                    lanes: met_by(rank),
                };
                self.offer(workspace, place * tile.width, &meeting);
            }
        }
    }

    /// `first`: place of the product with the first lane.
    fn offer(&self, workspace: &mut Workspace, first: usize, meeting: &Meeting<'_>) {
        let Workspace {
            dots,
            limits,
            found,
            similar,
            ..
        } = workspace;
        let Meeting {
            lists, rank, ref lanes, ..
        } = *meeting;
        let dots = &dots[first..][..lanes.len()];
        let square = |rank: usize| f64::from(self.squares[rank]);
        for start in (0..lanes.len()).step_by(LANES_AT_ONCE) {
            let some = start..(start + LANES_AT_ONCE).min(lanes.len());
            let bar = lists.bar(rank);
            let reach = Reach {
                norm: self.norms[rank],
                bar: floor_below(bar) as f32,
                norms: &self.norms[lanes.clone()][some.clone()],
                limits: &limits[some.clone()],
            };
            found.clear();
            find_integers(self.set, &dots[some], reach, found);
            let lane_and_similarity = |&lane: &u16| {
                let lane = start + usize::from(lane);
                (
                    lane,
                    pair_similarity(f64::from(dots[lane]), square(rank), square(lanes.start + lane)),
                )
            };
            similar.clear();
            similar.extend(found.iter().map(lane_and_similarity));
            meeting.offer(similar, bar, |lane, bar| {
                limits[lane] = floor_below(bar) as f32 * self.norms[lanes.start + lane];
            });
        }
    }
}

/// `Σ k²`, where it fits.
fn exact_square(values: &[f32], grid: Grid) -> Option<u32> {
    let square: u64 = values.iter().map(|&value| u64::from(grid.steps(value)).pow(2)).sum();
    u32::try_from(square).ok()
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
    fn tile_width(&self, length: usize, rows: &CsrMatrix, sizes: &Sizes, set: InstructionSet) -> usize {
        let least = rows.nnz() as f64 / (set.lanes_per_entry() * length.max(1)) as f64;
        let n_dense = self.lengths.partition_point(|&entries| entries as f64 > least);
        let width = (sizes.block_bytes / n_dense.max(1)).clamp(sizes.min_tile_rows, sizes.max_tile_rows);
        // In whole steps of the narrowest, as lanes are padded.
        width / sizes.min_tile_rows * sizes.min_tile_rows
    }
}

/// The rows by rank, with integer values.
struct Rows {
    /// Where rows begin in `entries`, and their end.
    offsets: Vec<u32>,
    /// `place << 4 | value`, `place` of the column, ascending in a row.
    entries: Vec<u32>,
}

impl Rows {
    /// `rows`: with no more entries than 32 bits can count.
    fn new(rows: &CsrMatrix, layout: &Layout, columns: &ColumnOrder, grid: Grid) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        offsets.extend(layout.order.iter().map(|&row| {
            end += rows.row_range(row as usize).len() as u32;
            end
        }));
        let mut entries = vec![0; rows.nnz()];
        let mut rest = &mut entries[..];
        let mut parts = Vec::new();
        for &row in &layout.order {
            let part;
            (part, rest) = rest.split_at_mut(rows.row_range(row as usize).len());
            parts.push((row, part));
        }
        parts.into_par_iter().with_min_len(16).for_each(|(row, part)| {
            let (row_columns, values) = rows.row(row as usize);
            for ((entry, &column), &value) in part.iter_mut().zip(row_columns).zip(values) {
                *entry = columns.places[column as usize] << VALUE_BITS | u32::from(grid.steps(value));
            }
            part.sort_unstable();
        });
        Self { offsets, entries }
    }

    fn row(&self, rank: usize) -> &[u32] {
        &self.entries[self.offsets[rank] as usize..self.offsets[rank + 1] as usize]
    }
}

/// The entries of up to [`MAX_TILE_ROWS`] rows, the lanes, by columns.
struct Tile {
    /// Lanes, rounded up to whole [`LANES`].
    width: usize,
    /// Per place of a column.
    columns: Vec<Column>,
    /// The entries of all columns, one after another: `lane << 4 | value`.
    by_column: Vec<u16>,
    chunks: Vec<Chunk>,
}

/// A column's entries in one tile.
#[derive(Debug, Clone, Copy, Default)]
struct Column {
    /// In `by_column`; of a dense one, its place in the block.
    start: u32,
    /// Entries, or [`DENSE`].
    len: u32,
}

/// A column with so many entries in the tile that adding up all lanes is faster.
const DENSE: u32 = u32::MAX;

/// Adjacent columns of which the dense ones fit into a block. Chunks cover all columns.
#[derive(Debug, Default)]
struct Chunk {
    /// First place of a column after it.
    end: u32,
    /// Where the entries of its dense columns stand in `by_column`.
    dense: Vec<Range<u32>>,
}

impl Tile {
    fn new(rows: &Rows, ranks: Range<usize>, n_columns: usize, sizes: &Sizes, set: InstructionSet) -> Self {
        let entries = &rows.entries[rows.offsets[ranks.start] as usize..rows.offsets[ranks.end] as usize];
        let mut columns = vec![Column::default(); n_columns];
        for entry in entries {
            columns[(entry >> VALUE_BITS) as usize].len += 1;
        }
        let mut end = 0;
        for column in &mut columns {
            column.start = end;
            end += column.len;
        }
        let mut by_column = vec![0; entries.len()];
        for (lane, rank) in (0u16..).zip(ranks.clone()) {
            for entry in rows.row(rank) {
                let next = &mut columns[(entry >> VALUE_BITS) as usize].start;
                by_column[*next as usize] = lane << VALUE_BITS | (entry & VALUE_MASK) as u16;
                *next += 1;
            }
        }
        for column in &mut columns {
            column.start -= column.len;
        }
        let width = ranks.len().next_multiple_of(LANES);
        let chunks = take_out_dense(&mut columns, width, sizes, set);
        Self {
            width,
            columns,
            by_column,
            chunks,
        }
    }
}

/// Marks the dense columns, and cuts all columns into chunks.
fn take_out_dense(columns: &mut [Column], width: usize, sizes: &Sizes, set: InstructionSet) -> Vec<Chunk> {
    let least = (width / set.lanes_per_entry()) as u32;
    let at_once = (sizes.max_block_bytes / width).max(1);
    let n_columns = columns.len() as u32;
    let mut chunks = Vec::new();
    let mut chunk = Chunk::default();
    for (place, column) in (0..).zip(columns) {
        if column.len <= least {
            continue;
        }
        if chunk.dense.len() == at_once {
            chunk.end = place;
            chunks.push(std::mem::take(&mut chunk));
        }
        let start = chunk.dense.len() as u32;
        chunk.dense.push(column.start..column.start + column.len);
        *column = Column { start, len: DENSE };
    }
    chunk.end = n_columns;
    chunks.push(chunk);
    chunks
}

/// The buffers that one thread reuses from job to job.
#[derive(Default)]
struct Workspace {
    /// The dense columns of a chunk as bytes; see [`add_products`].
    block: Vec<u8>,
    /// The chunk that is in the block.
    block_of: Option<usize>,
    /// Per row of a panel its products with all lanes.
    dots: Vec<u32>,
    /// Per row of a panel the first entry of the next chunk.
    next: Vec<u32>,
    /// A row's entries in dense columns: `place << 4 | value`.
    factors: Vec<u32>,
    /// Per lane; see [`Reach`].
    limits: Vec<f32>,
    found: Vec<u16>,
    /// Lanes and their similarity.
    similar: Vec<(usize, f32)>,
}

impl Workspace {
    /// Lays out the dense columns of a chunk.
    fn load(&mut self, tile: &Tile, chunk: usize) {
        if self.block_of.replace(chunk) == Some(chunk) {
            return;
        }
        let dense = &tile.chunks[chunk].dense;
        self.block.clear();
        self.block.resize(dense.len() * tile.width, 0);
        for (column, entries) in self.block.chunks_exact_mut(tile.width).zip(dense) {
            for entry in &tile.by_column[entries.start as usize..entries.end as usize] {
                column[byte_of_lane(usize::from(entry >> VALUE_BITS))] = (entry & VALUE_MASK as u16) as u8;
            }
        }
    }

    /// No products yet, of the rows of a panel with the lanes of a tile of `width`.
    fn clear(&mut self, panel: &Range<usize>, rows: &Rows, width: usize) {
        self.dots.clear();
        self.dots.resize(panel.len() * width, 0);
        self.next.clear();
        self.next.extend(&rows.offsets[panel.clone()]);
    }

    /// Adds the products of a row of the panel with the lanes of `tile`, at least the first `n_lanes`, in the columns of
    /// one chunk.
    ///
    /// `entries`: up to the end of the row.
    fn add_products(
        &mut self,
        set: InstructionSet,
        tile: &Tile,
        chunk: usize,
        entries: &[u32],
        place: usize,
        n_lanes: usize,
    ) {
        let dots = &mut self.dots[place * tile.width..][..tile.width];
        let next = &mut self.next[place];
        let entries = &entries[*next as usize..];
        let mut n_entries = 0;
        self.factors.clear();
        for entry in entries {
            let (column, value) = (entry >> VALUE_BITS, entry & VALUE_MASK);
            if column >= tile.chunks[chunk].end {
                break;
            }
            n_entries += 1;
            let Column { start, len } = tile.columns[column as usize];
            if len == DENSE {
                self.factors.push(start << VALUE_BITS | value);
                continue;
            }
            for other in &tile.by_column[start as usize..(start + len) as usize] {
                dots[usize::from(other >> VALUE_BITS)] += value * (u32::from(*other) & VALUE_MASK);
            }
        }
        *next += n_entries;
        if self.factors.len() % 2 == 1 {
            // Nothing times the first column.
            self.factors.push(0);
        }
        if !self.factors.is_empty() {
            add_products(set, &self.block, &self.factors, dots, n_lanes);
        }
    }
}

const _: () = assert!(MAX_STEPS as u32 == VALUE_MASK && MAX_TILE_ROWS <= 1 << (16 - VALUE_BITS));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_that_leave_32_bits_are_refused() {
        let grid = Grid::of(&[1.0, 15.0]).unwrap();
        assert_eq!(exact_square(&[15.0, 1.0, 2.0], grid), Some(230));
        let longest = (u32::MAX / 225) as usize;
        let mut values = vec![15.0; longest];
        assert_eq!(exact_square(&values, grid), Some(longest as u32 * 225));
        values.push(15.0);
        assert_eq!(exact_square(&values, grid), None);
    }
}
