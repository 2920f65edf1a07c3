//! Who should get a coupon, best first.
