//! Converts the adjustments of a ranking.

use std::num::NonZeroU32;

use domain::error::InvalidField;
use recommender::ranking::adjust::{AdjustmentTerms, Adjustments};

use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

/// Returns the adjustments that `request` asks for; `None` for none. Adds what is wrong to `violations`.
pub fn adjustments(violations: &mut Violations, request: &v1::RecommendRequest) -> Option<Adjustments> {
    let mut share = |field: &str, share: f64| violations.check(check_share(field, share)).unwrap_or_default();
    let (diversity, popularity_penalty, calibration) = (
        share("diversity", request.diversity),
        share("popularity_penalty", request.popularity_penalty),
        share("calibrate", request.calibrate),
    );
    let mut cap = |field: &str, cap: i32| violations.check(check_cap(field, cap)).flatten();
    let adjustments = Adjustments {
        diversity,
        popularity_penalty,
        calibration,
        max_per_merchant: cap("max_per_merchant", request.max_per_merchant),
        max_per_category: cap("max_per_category", request.max_per_category),
    };
    (!adjustments.is_none()).then_some(adjustments)
}

fn check_share(field: &str, share: f64) -> Result<f64, InvalidField> {
    match (0.0..=1.0).contains(&share) {
        // A negative zero is equal to zero.
        true => Ok(share.abs()),
        false => Err(InvalidField::new(
            field,
            "OUT_OF_RANGE",
            format!("must lie between 0 and 1, is {share}"),
        )),
    }
}

fn check_cap(field: &str, cap: i32) -> Result<Option<NonZeroU32>, InvalidField> {
    match u32::try_from(cap) {
        Ok(cap) => Ok(NonZeroU32::new(cap)),
        Err(_) => Err(InvalidField::new(
            field,
            "LIMIT_OUT_OF_RANGE",
            format!("must be 1 or more (0 means no limit), is {cap}"),
        )),
    }
}

/// Returns the terms of the adjustments that were requested.
pub fn explained(requested: Option<&Adjustments>, terms: AdjustmentTerms) -> Vec<v1::ScoreAdjustment> {
    let Some(requested) = requested else {
        return Vec::new();
    };
    let adjustment = |(weight, kind, contribution): (f64, v1::AdjustmentKind, f64)| {
        (weight > 0.0).then(|| v1::ScoreAdjustment {
            kind: kind.into(),
            contribution,
        })
    };
    [
        (
            requested.popularity_penalty,
            v1::AdjustmentKind::PopularityPenalty,
            terms.popularity_penalty,
        ),
        (requested.diversity, v1::AdjustmentKind::Diversity, terms.diversity),
        (
            requested.calibration,
            v1::AdjustmentKind::Calibration,
            terms.calibration,
        ),
    ]
    .into_iter()
    .filter_map(adjustment)
    .collect()
}
