//! The platform's vocabulary: ids, ratings, purchases, items, coupons, consent, money and time.
//!
//! Values are valid by construction: whoever holds a [`money::Currency`] or an [`id::UserId`] need not check it again. A value
//! that comes from outside and is wrong becomes an [`error::InvalidField`].

pub mod access;
pub mod api_key;
pub mod campaign;
pub mod consent;
pub mod coupon;
pub mod decimal;
pub mod error;
pub mod id;
pub mod item;
pub mod money;
pub mod order;
pub mod purchase;
pub mod rating;
pub mod redemption;
pub mod returns;
pub mod text_list;
pub mod time;
