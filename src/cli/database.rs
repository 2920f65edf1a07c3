//! The database that a command works on: the configured one, or a private one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::config::Config;
use crate::store::error::StoreError;
use crate::store::postgres::databases;
use crate::store::postgres::migrations::{self, Schema};
use crate::store::postgres::options::DatabaseOptions;
use crate::store::postgres::pool::Pool;
use private_postgres::{PrivatePostgres, PrivatePostgresOptions};

/// An open database; a private one runs as long as this lives.
pub(super) struct Database {
    pub pool: Pool,
    url: String,
    private: Option<PrivatePostgres>,
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
        let Some(url) = &config.database.url else {
            return Self::open_private(config, purpose).await;
        };
        let url = url.expose().to_owned();
        let pool = Pool::lazy(&url, &options(config, purpose))?;
        if purpose != Purpose::Migrating {
            check_schema(&pool, purpose).await?;
        }
        Ok(Self {
            pool,
            url,
            private: None,
        })
    }

    async fn open_private(config: &Config, purpose: Purpose) -> anyhow::Result<Self> {
        let private = start_private(config).await?;
        databases::create_if_missing(&private.url("postgres"), DATABASE_NAME).await?;
        let url = private.url(DATABASE_NAME);
        // Of its own: a migration may take longer than a request's statement.
        let pool = Pool::connect(&url, &options(config, Purpose::Migrating)).await?;
        migrations::migrate(&pool).await?;
        pool.close().await;
        Ok(Self {
            pool: Pool::connect(&url, &options(config, purpose)).await?,
            url,
            private: Some(private),
        })
    }

    /// Further connections to the same database, for something else.
    pub fn pool_for(&self, config: &Config, purpose: Purpose) -> anyhow::Result<Pool> {
        Ok(Pool::lazy(&self.url, &options(config, purpose))?)
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

fn options(config: &Config, purpose: Purpose) -> DatabaseOptions {
    match purpose {
        Purpose::Serving => config.database.clone(),
        Purpose::Job | Purpose::Migrating => config.database.for_jobs(),
    }
}

/// Inside the private PostgreSQL.
const DATABASE_NAME: &str = "likemind";

/// The first PostgreSQL that has `pg_current_xact_id()`, which the schema uses.
const OLDEST_POSTGRES_MAJOR: u32 = 13;

/// Returns the folder of the private PostgreSQL.
pub(super) fn data_dir(config: &Config) -> PathBuf {
    let configured = config.data_dir.clone();
    configured.unwrap_or_else(|| private_postgres::default_data_dir("likemind"))
}

async fn start_private(config: &Config) -> anyhow::Result<PrivatePostgres> {
    // Room for several processes on one private database.
    let max_connections = config.database.max_connections.saturating_mul(4).max(100);
    let options = PrivatePostgresOptions {
        oldest_major: OLDEST_POSTGRES_MAJOR,
        settings: vec![
            ("cluster_name".to_owned(), "likemind".to_owned()),
            ("max_connections".to_owned(), max_connections.to_string()),
        ],
        ..PrivatePostgresOptions::new(data_dir(config))
    };
    tokio::task::spawn_blocking(move || PrivatePostgres::start(&options))
        .await
        .map_err(anyhow::Error::from)
        .and_then(|started| Ok(started?))
        .context("database.url is not set, and no private PostgreSQL could be started in its place")
}

async fn check_schema(pool: &Pool, purpose: Purpose) -> anyhow::Result<()> {
    match migrations::schema(pool).await {
        Ok(Schema::Current) => Ok(()),
        Ok(other) => anyhow::bail!(remedy(other)),
        Err(error @ StoreError::Unavailable(_)) if purpose == Purpose::Serving => {
            tracing::warn!(%error, "the database is not available; serving begins when it is");
            tokio::spawn(check_schema_later(pool.clone()));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Looks again until the database answers: without its schema every request fails, and should say why somewhere.
async fn check_schema_later(pool: Pool) {
    loop {
        tokio::time::sleep(SCHEMA_RETRY).await;
        match migrations::schema(&pool).await {
            Ok(Schema::Current) => return,
            Ok(other) => {
                tracing::error!("{}", remedy(other));
                return;
            }
            // Others report that it is away.
            Err(_) => {}
        }
    }
}

const SCHEMA_RETRY: Duration = Duration::from_secs(1);

fn remedy(schema: Schema) -> &'static str {
    match schema {
        Schema::Older | Schema::Current => {
            "the schema of the database is older than this program: run `likemind migrate`"
        }
        Schema::Newer => "the schema of the database is newer than this program: use the version that migrated it",
    }
}
