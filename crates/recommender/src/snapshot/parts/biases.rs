//! The part `biases`: doubles, 1: the mean · floats, m: the biases of the users · floats, n: the biases of the items.

use super::{Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::codec::CodecError;
use crate::snapshot::{Biases, SnapshotError};

pub(in crate::snapshot) struct BiasesPart;

impl Part for BiasesPart {
    const NAME: &'static str = "biases";

    type Contents = Biases;

    const REDACT: Option<Redact<Self::Contents>> = Some(|biases, erased| erased.reset(&mut biases.users));

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.doubles(&[parts.biases.global_mean]);
        to.floats(&parts.biases.users);
        to.floats(&parts.biases.items);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let [global_mean] = from.doubles("mean")?;
        Ok(Biases {
            global_mean,
            users: from.floats("biases of the users")?.into_vec(),
            items: from.floats("biases of the items")?.into_vec(),
        })
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let biases = &parts.biases;
        check_length("user biases", parts.users.len(), biases.users.len())?;
        check_length("item biases", parts.items.len(), biases.items.len())?;
        let mut all = biases.users.iter().chain(&biases.items);
        match biases.global_mean.is_finite() && all.all(|bias| bias.is_finite()) {
            true => Ok(()),
            false => Err(SnapshotError::Value { part: Self::NAME }),
        }
    }
}
