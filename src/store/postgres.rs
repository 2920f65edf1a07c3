//! PostgreSQL itself: connections, migrations, bulk transfer and leases.

pub mod analyze;
pub(in crate::store) mod copy;
pub mod databases;
pub mod leases;
pub mod migrations;
pub mod options;
pub mod pool;
pub mod refusals;
