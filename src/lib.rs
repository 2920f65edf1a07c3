//! Likemind: ratings and purchases in, recommendations out.
//!
//! Imports run down this list only, never up or sideways; `ARCHITECTURE.md` says what lives on each floor.

pub mod app;
pub mod cli;
pub mod config;
pub mod coupon;
pub mod domain;
pub mod evaluation;
pub mod grpc;
pub mod live;
pub mod model;
pub mod recommend;
pub mod similarity;
pub mod store;
pub mod telemetry;
pub mod training;
