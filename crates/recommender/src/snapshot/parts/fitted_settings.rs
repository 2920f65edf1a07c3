//! The part `fitted_settings`, optional: [`FittedSettings`] as JSON. Without it the score is the blend alone.

use super::{Absence, Optional, Part, Reader, Redact, SnapshotParts, Writer};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use crate::snapshot::settings::FittedSettings;

pub(in crate::snapshot) struct FittedSettingsPart;

impl Part for FittedSettingsPart {
    const NAME: &'static str = "fitted_settings";

    type Contents = Optional<FittedSettings>;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn is_present(parts: &SnapshotParts) -> bool {
        parts.fitted_settings.get().is_ok()
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        if let Ok(settings) = parts.fitted_settings.get() {
            to.json(settings);
        }
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.json().map(Optional::Present)
    }

    fn missing(absence: Absence) -> Option<Self::Contents> {
        Some(Optional::Missing(absence))
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        match parts.fitted_settings.get() {
            Ok(settings) if !settings.is_valid() => Err(SnapshotError::Value { part: Self::NAME }),
            _ => Ok(()),
        }
    }
}
