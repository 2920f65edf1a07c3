//! The database that a command works on: the configured one, or a private one.

use anyhow::Context;

use crate::config::Config;
use crate::store::embedded::{Embedded, EmbeddedOptions};
use crate::store::error::StoreError;
use crate::store::migrations;
use crate::store::pool::Pool;

/// An open database; a private one runs as long as this lives.
pub(super) struct Database {
    pub pool: Pool,
    private: Option<Embedded>,
}

/// What it is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests: short statements; may begin while the database is away.
    Serving,
    /// Work that takes its time.
    Job,
    /// To bring the schema up to date.
    Migrating,
}

impl Database {
    /// Starts a private PostgreSQL when no other is configured, and migrates it; the schema of a configured one must
    /// be that of this program.
    pub async fn open(config: &Config, purpose: Purpose) -> anyhow::Result<Self> {
        let options = match purpose {
            Purpose::Serving => config.database.clone(),
            Purpose::Job | Purpose::Migrating => config.database.for_jobs(),
        };
        if let Some(url) = &config.database.url {
            let pool = Pool::lazy(url.expose(), &options)?;
            if purpose != Purpose::Migrating {
                check_schema(&pool, purpose).await?;
            }
            return Ok(Self { pool, private: None });
        }
        let private = start_private(config).await?;
        let url = private.ensure_database(DATABASE_NAME).await?;
        let pool = Pool::connect(&url, &options).await?;
        migrations::migrate(&pool).await?;
        Ok(Self {
            pool,
            private: Some(private),
        })
    }

    /// Closes the connections, and stops a private PostgreSQL that this process has started.
    pub async fn close(self) -> anyhow::Result<()> {
        self.pool.close().await;
        match self.private {
            Some(private) => tokio::task::spawn_blocking(|| private.stop())
                .await
                .context("PostgreSQL was not stopped"),
            None => Ok(()),
        }
    }
}

/// Inside the private PostgreSQL.
const DATABASE_NAME: &str = "likemind";

async fn start_private(config: &Config) -> anyhow::Result<Embedded> {
    let mut options = EmbeddedOptions::default();
    if let Some(data_dir) = &config.data_dir {
        options.data_dir.clone_from(data_dir);
    }
    // Room for several processes on one private database.
    let max_connections = config.database.max_connections.saturating_mul(4).max(100);
    options
        .settings
        .push(("max_connections".to_owned(), max_connections.to_string()));
    let started = tokio::task::spawn_blocking(move || Embedded::start(&options)).await;
    Ok(started.context("PostgreSQL was not started")??)
}

async fn check_schema(pool: &Pool, purpose: Purpose) -> anyhow::Result<()> {
    match migrations::is_current(pool).await {
        Ok(true) => Ok(()),
        Ok(false) => anyhow::bail!("the schema of the database is not that of this program: run `likemind migrate`"),
        Err(error @ StoreError::Unavailable(_)) if purpose == Purpose::Serving => {
            tracing::warn!(%error, "the database is not available; serving begins when it is");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
