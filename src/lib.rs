//! Likemind: ratings and purchases in, recommendations out.
//!
//! Imports run down this list only, never up or sideways; `ARCHITECTURE.md` says what lives on each floor.

pub mod domain;
pub mod grpc;
pub mod live;
pub mod model;
pub mod recommend;
pub mod similarity;
pub mod store;
