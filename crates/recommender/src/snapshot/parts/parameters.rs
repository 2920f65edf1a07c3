//! The part `parameters`: [`TrainingParameters`] as JSON.
//!
//! The parameters may grow without a new version: a field that bytes do not have reads as its serde default, which
//! therefore must mean what was done before there was the field. A field that the program does not know is an error,
//! so that an older program refuses what it would misread. A number in JSON comes back exactly with up to 15
//! significant digits, which is what people write.

use super::{Part, Reader, Redact, SnapshotParts, Writer};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use crate::snapshot::parameters::TrainingParameters;

pub(in crate::snapshot) struct ParametersPart;

impl Part for ParametersPart {
    const NAME: &'static str = "parameters";

    type Contents = TrainingParameters;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.json(&parts.parameters);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.json()
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let validated = parts.parameters.scale.validate();
        validated.map_err(|_| SnapshotError::Value { part: Self::NAME })
    }
}
