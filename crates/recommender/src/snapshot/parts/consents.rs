//! The part `consents`: texts: ids, strictly ascending, of everybody of whom anything is on record · integers, as many:
//! [`Consents`] as bits.

use domain::consent::Consents;

use super::{Part, Reader, Redact, SnapshotParts, UserIds, Writer};
use crate::snapshot::codec::CodecError;
use crate::snapshot::consents::ConsentRecords;

pub(in crate::snapshot) struct ConsentsPart;

impl Part for ConsentsPart {
    const NAME: &'static str = "consents";

    type Contents = ConsentRecords;

    const REDACT: Option<Redact<Self::Contents>> = Some(|records, erased| *records = records.without(erased));
    const USER_IDS: Option<UserIds<Self::Contents>> = Some(|records| records.ids());

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        let records = &parts.consents;
        to.texts(records.ids());
        to.integers(records.consents().iter().map(|consents| u64::from(consents.bits())));
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let ids = from.texts("ids")?;
        let known = |bits: u32| u8::try_from(bits).ok().and_then(Consents::from_bits);
        let consents: Option<Vec<_>> = from.u32s("consents")?.into_iter().map(known).collect();
        let consents = consents.ok_or_else(|| from.invalid("consents", "are not all known"))?;
        let records = ConsentRecords::new(ids, consents);
        records.ok_or_else(|| from.invalid("ids", "are not strictly ascending, or not as many"))
    }
}
