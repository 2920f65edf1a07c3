//! The part `user_neighbors`: neighbor lists: the most similar users of every user.

use similarity::lists::NeighborLists;

use super::{Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;

pub(in crate::snapshot) struct UserNeighborsPart;

impl Part for UserNeighborsPart {
    const NAME: &'static str = "user_neighbors";

    type Contents = NeighborLists;

    const REDACT: Option<Redact<Self::Contents>> = Some(|lists, erased| *lists = erased.leave_lists(lists));

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.neighbor_lists(&parts.user_neighbors);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.neighbor_lists()
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let (m, lists) = (parts.users.len(), &parts.user_neighbors);
        check_length("user neighbors", m, lists.n_rows())?;
        check_length("user neighbors (targets)", m, lists.n_targets())
    }
}
