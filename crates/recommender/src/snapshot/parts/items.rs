//! The part `items`: texts: the ids of all items, strictly ascending byte by byte. The position of an id is the item's
//! index.

use super::{Part, Reader, Redact, SnapshotParts, Writer};
use crate::snapshot::codec::CodecError;
use crate::snapshot::dictionary::{Dictionary, ItemIndex};

pub(in crate::snapshot) struct ItemsPart;

impl Part for ItemsPart {
    const NAME: &'static str = "items";

    type Contents = Dictionary<ItemIndex>;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.texts(parts.items.texts());
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.dictionary("ids")
    }
}
