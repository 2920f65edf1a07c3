//! What the platform talks about: ids, ratings, purchases, items, money, time. Values are valid by construction.

pub mod access;
pub mod api_key;
pub mod consent;
pub mod coupon;
pub mod decimal;
pub mod error;
pub mod id;
pub mod item;
pub mod money;
pub mod purchase;
pub mod rating;
pub mod redemption;
pub mod time;
