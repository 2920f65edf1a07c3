//! The part `propensity`, optional: [`Propensity`] as JSON. Without it no propensity is fitted, and the reason says why.

use super::{Absence, Part, Reader, Redact, SnapshotParts, Writer};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use crate::snapshot::propensity::Propensity;

pub(in crate::snapshot) struct PropensityPart;

impl Part for PropensityPart {
    const NAME: &'static str = "propensity";

    type Contents = Propensity;

    /// The weights were fitted on all users together.
    const REDACT: Option<Redact<Self::Contents>> = None;

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.json(&parts.propensity);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.json()
    }

    fn missing(absence: Absence) -> Option<Self::Contents> {
        let reason = absence.to_string();
        Some(Propensity::NotFitted { reason })
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        match &parts.propensity {
            Propensity::Fitted(model) if model.check().is_err() => Err(SnapshotError::Value { part: Self::NAME }),
            Propensity::Fitted(_) | Propensity::NotFitted { .. } => Ok(()),
        }
    }
}
