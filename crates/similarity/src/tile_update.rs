//! Offers the similarities of one row and the lanes of a tile to the lists of both sides.

use std::ops::Range;

use super::best::BestLists;
use super::layout::{Layout, Updates};
use super::lists::Neighbor;

/// The number of lanes that are compared before the row's threshold is read again.
pub(super) const LANES_AT_ONCE: usize = 256;

/// One selected row and the lanes that it is paired with.
pub(super) struct TileUpdate<'a> {
    pub layout: &'a Layout,
    pub lists: &'a BestLists,
    pub rank: usize,
    /// The ranks of the lanes. They may include the row itself, which is never its own neighbor.
    pub lanes: Range<usize>,
    pub updates: Updates,
}

impl TileUpdate<'_> {
    /// Offers the lanes to the row's list and, for [`Updates::Both`], the row to the lists of the lanes.
    ///
    /// `similarities`: lanes with their similarity to the row. `threshold`: the row's, or an earlier one of it. Calls
    /// `on_offer` with every lane that was offered the row, and with that lane's threshold.
    pub fn offer(&self, similarities: &[(usize, f32)], threshold: f32, mut on_offer: impl FnMut(usize, f32)) {
        let Self {
            layout, lists, rank, ..
        } = *self;
        let is_better = |threshold: f32, similarity: f32| similarity >= threshold && similarity > 0.0;
        let to_row = similarities
            .iter()
            .filter(|&&(lane, similarity)| is_better(threshold, similarity) && self.lanes.start + lane != rank);
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
        for &(lane, similarity) in similarities {
            let other = self.lanes.start + lane;
            if is_better(lists.threshold(other), similarity) {
                lists.offer(other, std::iter::once(Neighbor { index, similarity }));
                on_offer(lane, lists.threshold(other));
            }
        }
    }
}
