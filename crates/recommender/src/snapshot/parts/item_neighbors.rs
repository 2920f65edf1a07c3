//! The part `item_neighbors`: neighbor lists: the most similar items of every item.

use similarity::lists::NeighborLists;

use super::{Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;

pub(in crate::snapshot) struct ItemNeighborsPart;

impl Part for ItemNeighborsPart {
    const NAME: &'static str = "item_neighbors";

    type Contents = NeighborLists;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.neighbor_lists(&parts.item_neighbors);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.neighbor_lists()
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let (n, lists) = (parts.items.len(), &parts.item_neighbors);
        check_length("item neighbors", n, lists.n_rows())?;
        check_length("item neighbors (targets)", n, lists.n_targets())
    }
}
