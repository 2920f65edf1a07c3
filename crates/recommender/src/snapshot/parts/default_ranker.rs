//! The part `default_ranker`, optional: [`DefaultRanker`] as JSON. It is stored only if it is not the default, which
//! snapshots without the part have.

use super::{Absence, Part, Reader, Redact, SnapshotParts, Writer};
use crate::snapshot::codec::CodecError;
use crate::snapshot::parameters::DefaultRanker;

pub(in crate::snapshot) struct DefaultRankerPart;

impl Part for DefaultRankerPart {
    const NAME: &'static str = "default_ranker";

    type Contents = DefaultRanker;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn is_present(parts: &SnapshotParts) -> bool {
        parts.default_ranker != DefaultRanker::default()
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.json(&parts.default_ranker);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.json()
    }

    fn missing(_absence: Absence) -> Option<Self::Contents> {
        Some(DefaultRanker::default())
    }
}
