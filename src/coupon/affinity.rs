//! How much users like what a coupon covers.
