//! The part `weights`: doubles, 4: the weights of the item-based side in blends of weighted sums, weighted means,
//! baselines and ranking scores.

use super::{Part, Reader, Redact, SnapshotParts, Writer};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use crate::snapshot::parameters::BlendWeights;

pub(in crate::snapshot) struct WeightsPart;

impl Part for WeightsPart {
    const NAME: &'static str = "weights";

    type Contents = BlendWeights;

    const REDACT: Option<Redact<Self::Contents>> = None;

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.doubles(&parts.weights.all());
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let [weighted_sum, weighted_mean, baseline, ranking] = from.doubles("weights")?;
        Ok(BlendWeights {
            weighted_sum,
            weighted_mean,
            baseline,
            ranking,
        })
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        match parts.weights.all().iter().all(|weight| (0.0..=1.0).contains(weight)) {
            true => Ok(()),
            false => Err(SnapshotError::Value { part: Self::NAME }),
        }
    }
}
