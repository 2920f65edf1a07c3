//! `likemind migrate`.

use super::Exit;
use super::database::{Database, Purpose};
use crate::config::Config;
use crate::store::postgres::migrations;

pub(super) async fn run(config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Migrating).await?;
    let applied = migrations::migrate(&database.pool).await?;
    match applied {
        0 => println!("the schema is up to date"),
        1 => println!("applied 1 migration"),
        applied => println!("applied {applied} migrations"),
    }
    database.close().await?;
    Ok(Exit::Done)
}
