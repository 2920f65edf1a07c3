//! Coupons: who may have one, who should get one, what it brought.

pub mod holdout;
pub mod lift;
