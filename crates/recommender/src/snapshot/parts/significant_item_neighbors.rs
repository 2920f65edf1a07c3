//! The part `significant_item_neighbors`, optional: the most similar items of every item, by similarities that are shrunk where
//! they rest on few co-raters. Without it the plain lists of `item_neighbors` rank.
//!
//! | column | contents |
//! |---|---|
//! | doubles, 1 | the shrinkage: a similarity that rests on so many co-raters counts half |
//! | neighbor lists, n | the shrunk similarities |
//! | integers | the number of co-raters of each neighbor |

use super::{Absence, Optional, Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use crate::snapshot::significance::SignificantNeighbors;
use similarity::significance::SignificantLists;

pub(in crate::snapshot) struct SignificantItemNeighborsPart;

impl Part for SignificantItemNeighborsPart {
    const NAME: &'static str = "significant_item_neighbors";

    type Contents = Optional<SignificantNeighbors>;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn is_present(parts: &SnapshotParts) -> bool {
        parts.significant_item_neighbors.get().is_ok()
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        let Ok(significant) = parts.significant_item_neighbors.get() else {
            return;
        };
        to.doubles(&[significant.shrinkage]);
        to.neighbor_lists(&significant.neighbors.lists);
        to.integers(significant.neighbors.co_raters.iter().map(|&count| u64::from(count)));
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let [shrinkage] = from.doubles("shrinkage")?;
        let lists = from.neighbor_lists()?;
        let co_raters = from.u32s("co-raters")?;
        Ok(Optional::Present(SignificantNeighbors {
            shrinkage,
            neighbors: SignificantLists { lists, co_raters },
        }))
    }

    fn missing(absence: Absence) -> Option<Self::Contents> {
        Some(Optional::Missing(absence))
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let (n, Ok(significant)) = (parts.items.len(), parts.significant_item_neighbors.get()) else {
            return Ok(());
        };
        let SignificantLists { lists, co_raters } = &significant.neighbors;
        check_length("significant item neighbors", n, lists.n_rows())?;
        check_length("significant item neighbors (targets)", n, lists.n_targets())?;
        check_length("co-raters", lists.len(), co_raters.len())?;
        match (0.0..=1e6).contains(&significant.shrinkage) {
            true => Ok(()),
            false => Err(SnapshotError::Value { part: Self::NAME }),
        }
    }
}
