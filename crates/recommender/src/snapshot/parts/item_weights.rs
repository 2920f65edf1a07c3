//! The part `item_weights`, optional: weight lists, n: the learned weights by which an item's score is summed over a
//! user's history. Without it no learned ranker is available.

use similarity::lists::WeightLists;

use super::{Absence, Optional, Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;

pub(in crate::snapshot) struct ItemWeightsPart;

impl Part for ItemWeightsPart {
    const NAME: &'static str = "item_weights";

    type Contents = Optional<WeightLists>;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn is_present(parts: &SnapshotParts) -> bool {
        parts.item_weights.get().is_ok()
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        if let Ok(lists) = parts.item_weights.get() {
            to.weight_lists(lists);
        }
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.weight_lists().map(Optional::Present)
    }

    fn missing(absence: Absence) -> Option<Self::Contents> {
        Some(Optional::Missing(absence))
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let (n, Ok(lists)) = (parts.items.len(), parts.item_weights.get()) else {
            return Ok(());
        };
        check_length("item weights", n, lists.n_rows())?;
        check_length("item weights (targets)", n, lists.n_targets())
    }
}
