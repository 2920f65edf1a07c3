//! The products of ratings on a grid: exact integers, whatever the order in which they are added up.

use std::cmp::Reverse;
use std::ops::Range;

use rayon::prelude::*;

use super::best::BestLists;
use super::grid::{Grid, MAX_STEPS};
use super::layout::{Job, Layout, MAX_TILE_ROWS, Sizes, run};
use super::meeting::{LANES_AT_ONCE, Meeting};
use super::pair::{floor_below, pair_similarity};
use super::simd::{Block, InstructionSet, LANES, Reach, add_products, byte_of_lane, find_integers};
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
        let tile = |ranks: &Range<usize>| Tile::new(&rows, ranks.clone(), &columns, set);
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
        workspace.block_of = 0..0;

        let columns_at_once = (self.sizes.max_block_bytes / tile.width).max(1);
        let blocks = || (0..tile.n_dense).step_by(columns_at_once);
        let block = |start: usize| start..(start + columns_at_once).min(tile.n_dense);
        // One row at a time where the dense columns fit into one block: then its products stay in the cache.
        let panel_rows = self.sizes.panel_bytes / (4 * tile.width);
        let rows_at_once = if tile.n_dense <= columns_at_once {
            1
        } else {
            panel_rows.max(1)
        };
        for start in job.rows.clone().step_by(rows_at_once) {
            let panel = start..(start + rows_at_once).min(job.rows.end);
            let met_by = |rank: usize| lanes.start..if lanes.contains(&rank) { rank } else { lanes.end };
            workspace.dots.clear();
            workspace.dots.resize(panel.len() * tile.width, 0);
            workspace.next.clear();
            workspace.next.resize(panel.len(), 0);
            for block in blocks().map(block) {
                workspace.load(tile, &block);
                for (place, rank) in panel.clone().enumerate() {
                    let dots = &mut workspace.dots[place * tile.width..][..tile.width];
                    let next = &mut workspace.next[place];
                    let entries = before_column(&self.rows.row(rank)[*next..], block.end);
                    *next += entries.len();
                    let columns = Block {
                        bytes: &workspace.block,
                        first: block.start,
                    };
                    add_products(self.set, columns, entries, dots, met_by(rank).len());
                }
            }
            for (place, rank) in panel.enumerate() {
                let dots = &mut workspace.dots[place * tile.width..][..tile.width];
                tile.add_sparse(&self.rows.row(rank)[workspace.next[place]..], dots);
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

/// The first entries, those in columns before this place.
fn before_column(entries: &[u32], place: usize) -> &[u32] {
    // One by one: there are few, and each of them costs far more after this.
    let is_before = |entry: &&u32| ((**entry >> VALUE_BITS) as usize) < place;
    &entries[..entries.iter().take_while(is_before).count()]
}

/// The entries of up to [`MAX_TILE_ROWS`] rows, the lanes, by columns.
struct Tile {
    /// Lanes, rounded up to whole [`LANES`].
    width: usize,
    /// So many columns from the first on are multiplied with all lanes.
    n_dense: usize,
    /// Per place of a column where its entries begin in `by_column`, and their end.
    offsets: Vec<u32>,
    /// `lane << 4 | value`.
    by_column: Vec<u16>,
}

impl Tile {
    fn new(rows: &Rows, ranks: Range<usize>, columns: &ColumnOrder, set: InstructionSet) -> Self {
        let entries = &rows.entries[rows.offsets[ranks.start] as usize..rows.offsets[ranks.end] as usize];
        let n_columns = columns.lengths.len();
        // Ends until the entries are in, beginnings after that.
        let mut offsets = vec![0; n_columns + 1];
        for entry in entries {
            offsets[(entry >> VALUE_BITS) as usize] += 1;
        }
        let width = ranks.len().next_multiple_of(LANES);
        let n_dense = n_dense(&offsets, columns, width / set.lanes_per_entry());
        let mut end = 0;
        for offset in &mut offsets {
            end += *offset;
            *offset = end;
        }
        let mut by_column = vec![0; entries.len()];
        for (lane, rank) in ranks.enumerate() {
            let lane = lane as u16;
            for entry in rows.row(rank) {
                let next = &mut offsets[(entry >> VALUE_BITS) as usize];
                *next -= 1;
                by_column[*next as usize] = lane << VALUE_BITS | (entry & VALUE_MASK) as u16;
            }
        }
        Self {
            width,
            n_dense,
            offsets,
            by_column,
        }
    }

    fn column(&self, place: usize) -> &[u16] {
        &self.by_column[self.offsets[place] as usize..self.offsets[place + 1] as usize]
    }

    /// Adds the products of a row with the lanes, entry by entry of each of these columns.
    fn add_sparse(&self, entries: &[u32], dots: &mut [u32]) {
        for entry in entries {
            let value = entry & VALUE_MASK;
            for other in self.column((entry >> VALUE_BITS) as usize) {
                dots[usize::from(other >> VALUE_BITS)] += value * (u32::from(*other) & VALUE_MASK);
            }
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
#[derive(Default)]
struct Workspace {
    /// Dense columns as bytes; see [`add_products`].
    block: Vec<u8>,
    /// Their places.
    block_of: Range<usize>,
    /// Per row of a panel its products with all lanes.
    dots: Vec<u32>,
    /// Per row of a panel its first entry in a column that was not added yet.
    next: Vec<usize>,
    /// Per lane; see [`Reach`].
    limits: Vec<f32>,
    found: Vec<u16>,
    /// Lanes and their similarity.
    similar: Vec<(usize, f32)>,
}

impl Workspace {
    /// Lays out the columns at these places, unless they are there.
    fn load(&mut self, tile: &Tile, places: &Range<usize>) {
        if self.block_of == *places {
            return;
        }
        self.block_of = places.clone();
        self.block.clear();
        self.block.resize(places.len() * tile.width, 0);
        for (bytes, place) in self.block.chunks_exact_mut(tile.width).zip(places.clone()) {
            for entry in tile.column(place) {
                bytes[byte_of_lane(usize::from(entry >> VALUE_BITS))] = (u32::from(*entry) & VALUE_MASK) as u8;
            }
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
