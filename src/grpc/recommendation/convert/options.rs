//! Converts the enums of a request.

use domain::error::InvalidField;
use recommender::prediction::Estimator;
use recommender::ranking::Basis;

use crate::grpc::proto::v1;

/// Returns the requested basis; `None` if the request leaves it open.
pub fn basis(basis: i32) -> Result<Option<Basis>, InvalidField> {
    match v1::Basis::try_from(basis) {
        Ok(v1::Basis::Unspecified) => Ok(None),
        Ok(v1::Basis::UserBased) => Ok(Some(Basis::UserBased)),
        Ok(v1::Basis::ItemBased) => Ok(Some(Basis::ItemBased)),
        Ok(v1::Basis::Blended) => Ok(Some(Basis::Blended)),
        Err(_) => Err(unknown("basis", basis)),
    }
}

pub fn estimator(estimator: i32) -> Result<Estimator, InvalidField> {
    match v1::Estimator::try_from(estimator) {
        Ok(v1::Estimator::Unspecified) => Ok(Estimator::default()),
        Ok(v1::Estimator::WeightedSum) => Ok(Estimator::WeightedSum),
        Ok(v1::Estimator::WeightedMean) => Ok(Estimator::WeightedMean),
        Ok(v1::Estimator::Baseline) => Ok(Estimator::Baseline),
        Err(_) => Err(unknown("estimator", estimator)),
    }
}

fn unknown(field: &str, value: i32) -> InvalidField {
    InvalidField::new(
        field,
        "UNKNOWN_ENUM_VALUE",
        format!("must be a value of its enum, is {value}"),
    )
}
