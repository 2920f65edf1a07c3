//! Everything with I/O, against a real PostgreSQL.

mod access;
mod bad_input;
mod config;
mod connections;
mod damage;
mod embedded;
mod example;
mod freshness;
mod hold;
mod import;
mod operations;
mod outage;
mod postgres;
mod program;
mod quickstart;
mod restore;
mod rpc;
mod sample;
mod shop;
mod snapshots;
mod swaps;
mod targets;
mod tidy;
mod tls;
mod trainer_faults;
mod training;
