//! What comes of a row's products with the lanes of a tile: neighbors for both sides.

use std::ops::Range;

use super::best::BestLists;
use super::layout::{Layout, Updates};
use super::lists::Neighbor;

/// Lanes that are compared before the row's bar is looked up again.
pub(super) const LANES_AT_ONCE: usize = 256;

/// One selected row and the lanes that it meets.
pub(super) struct TileUpdate<'a> {
    pub layout: &'a Layout,
    pub lists: &'a BestLists,
    pub rank: usize,
    /// Ranks. The row is no neighbor of its own, if it is among them.
    pub lanes: Range<usize>,
    pub updates: Updates,
}

impl TileUpdate<'_> {
    /// Offers lanes, with their similarity to the row, to the row, and the row to them if they updates.
    ///
    /// `bar`: the row's, or one that it had. `raised` is called with a lane and its bar.
    pub fn offer(&self, similar: &[(usize, f32)], bar: f32, mut raised: impl FnMut(usize, f32)) {
        let Self {
            layout, lists, rank, ..
        } = *self;
        let is_better = |bar: f32, similarity: f32| similarity >= bar && similarity > 0.0;
        let to_row = similar
            .iter()
            .filter(|&&(lane, similarity)| is_better(bar, similarity) && self.lanes.start + lane != rank);
        let mut to_row = to_row
            .map(|&(lane, similarity)| Neighbor {
                index: layout.order[self.lanes.start + lane],
                similarity,
            })
            .peekable();
        if to_row.peek().is_some() {
            lists.offer(rank, to_row);
        }
        if self.updates == Updates::Rows {
            return;
        }
        let index = layout.order[rank];
        for &(lane, similarity) in similar {
            let other = self.lanes.start + lane;
            if is_better(lists.bar(other), similarity) {
                lists.offer(other, std::iter::once(Neighbor { index, similarity }));
                raised(lane, lists.bar(other));
            }
        }
    }
}
