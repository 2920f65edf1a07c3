//! Tests of everything with I/O: a real PostgreSQL, a real server, a real client. The modules are grouped by subject.

/// Code that several tests share. It contains no rules of the service.
mod support {
    pub mod answers;
    pub mod api_keys;
    pub mod authority;
    pub mod caller;
    pub mod campaigns;
    pub mod coupons;
    pub mod databases;
    pub mod erasures;
    pub mod held_rating;
    pub mod http1;
    pub mod http2;
    pub mod metrics;
    pub mod network;
    pub mod postgres;
    pub mod program;
    pub mod shop;
    pub mod snapshot_damage;
    pub mod times;
    pub mod trainer_hold;
    pub mod waiting;
}

/// Each RPC with good requests and with bad ones.
mod rpc {
    mod adjusted_recommendations;
    pub mod bad_input;
    mod catalog;
    mod freshness;
    mod grpc_web;
    mod model;
    mod order_terms;
    mod orders;
    mod purchases;
    mod python_client;
    mod ratings;
    mod recommendation;
    mod reflection;
    mod worked_example;
}

/// Campaigns and coupons, from their definition to their lift.
mod coupons {
    mod audience;
    mod campaign_lift;
    mod campaigns;
    mod coupon_definitions;
    mod eligibility;
    mod fairness;
    mod merchant_rules;
    mod people;
    mod propensity;
    mod records;
    mod redemption;
    mod scopes;
    mod stacking;
    mod targets;
}

/// Forecasts of demand, and what rests on them.
mod demand {
    mod forecasts;
    mod inventory;
    mod quality;
    pub mod sales;
}

/// Consents and objections of users, and the export, correction and age of their data.
mod privacy {
    mod columns;
    mod consent;
    mod consent_history;
    mod erasure;
    mod export;
    mod masking;
    mod rectification;
    mod retention;
    mod user_ids_in_logs;
}

/// API keys and roles, and the limits of a merchant's key.
mod access {
    mod audit;
    mod keys;
    pub mod merchants;
}

/// The trainer and its snapshots.
mod model {
    mod bias;
    mod damaged_snapshots;
    mod default_ranker;
    mod ranking_quality;
    mod restored_database;
    mod snapshot_swaps;
    mod snapshots;
    mod trainer_faults;
    mod training;
}

/// Imports from files.
mod import {
    mod broken_uploads;
    mod campaigns;
    mod content;
    mod dialects;
    mod files;
    mod interruptions;
    mod lines;
    mod orders;
    mod rating_batches;
    mod recipes;
    mod samples;
    mod undo;
    mod uploads;
}

/// Configuration, start, stop, limits, logs, metrics, and outages.
mod operations {
    mod answer_cache;
    mod attacks;
    mod config;
    mod connections;
    mod deadlines;
    mod frozen_server;
    mod limits;
    mod logs;
    mod metrics;
    mod migrations;
    pub mod outage;
    mod postgres_tls;
    mod quickstart;
    mod refused_databases;
    mod refused_work;
    mod secrets;
    mod shutdown;
    mod startup;
    mod tls;
    mod unread_output;
}

mod private_postgres;
mod tidy;
