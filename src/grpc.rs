//! The wire: per service one file of handlers and one of conversions. Validation happens here, once, on the way in;
//! nothing below sees a protobuf type.

pub mod accept;
pub mod access;
mod batch;
pub mod campaign;
pub mod catalog;
mod convert;
pub mod coupon;
mod direct;
pub mod health;
mod heavy;
mod method;
pub mod model;
mod observe;
pub mod options;
mod page;
pub mod privacy;
pub mod proto;
pub mod purchase;
pub mod rating;
pub mod recommendation;
pub mod server;
mod slots;
pub mod status;
pub mod threads;
pub mod tls;
