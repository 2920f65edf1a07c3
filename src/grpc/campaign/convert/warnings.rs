//! Converts warnings of the parts of a coupon that match nothing in the catalog.

use crate::app::coupon_warnings::{self, CouponWarning};
use crate::grpc::proto::v1;
use crate::store::coupons::stored::StoredCoupon;

/// Returns the warnings about a coupon that was compared with the catalog.
pub fn warnings(stored: &StoredCoupon) -> Vec<v1::CouponWarning> {
    coupon_warnings::warnings(stored).into_iter().map(Into::into).collect()
}

impl From<CouponWarning> for v1::CouponWarning {
    fn from(warning: CouponWarning) -> Self {
        Self {
            reason: warning.reason.to_owned(),
            field: warning.field,
            message: warning.message,
            names: warning.names,
            name_count: warning.name_count as i64,
        }
    }
}
