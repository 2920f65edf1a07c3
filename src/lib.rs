//! The service: commands, gRPC server, live snapshot and PostgreSQL, around the pure crates in `crates/`.
//!
//! Imports run down this list only, never up or sideways; `ARCHITECTURE.md` says what lives in each module.

pub mod admission;
pub mod app;
pub mod cli;
pub mod config;
pub mod grpc;
pub mod live;
pub mod store;
pub mod telemetry;
