//! `likemind migrate`: migrates the database schema.

use super::Exit;
use super::database::{Database, Purpose};
use crate::config::Config;
use crate::store::postgres::migrations;

pub(super) async fn run(config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Migrating).await?;
    let applied = migrations::migrate(&database.pool).await?;
    match applied {
        0 => println!("The schema is up to date."),
        1 => println!("Applied 1 migration."),
        applied => println!("Applied {applied} migrations."),
    }
    database.close().await?;
    Ok(Exit::Done)
}
