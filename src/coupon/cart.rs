//! What of a cart a coupon covers, and what it takes off.
