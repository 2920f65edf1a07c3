//! Opens the database that a command works on: the configured one, or a private PostgreSQL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::secret;
use crate::config::Config;
use crate::store::error::StoreError;
use crate::store::postgres::databases;
use crate::store::postgres::migrations::{self, Schema};
use crate::store::postgres::options::DatabaseOptions;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::erasure_key::ErasureKey;
use domain::error::chain;
use private_postgres::{PrivatePostgres, PrivatePostgresOptions};

/// An open database. A private PostgreSQL runs until this is closed or dropped.
pub(super) struct Database {
    pub pool: Pool,
    url: String,
    private: Option<PrivatePostgres>,
}

/// The purpose that a database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Serving requests, with short statements. The database need not be available yet.
    Serving,
    /// A job, whose statements may take long.
    Job,
    /// Migrating the schema.
    Migrating,
}

impl Database {
    /// Opens the configured database, whose schema must match this program. Without one, starts a private PostgreSQL and
    /// migrates its schema.
    pub async fn open(config: &Config, purpose: Purpose) -> anyhow::Result<Self> {
        let Some(url) = &config.database.url else {
            return Self::open_private(config, purpose).await;
        };
        let (redacted, url) = (url, url.expose().to_owned());
        let pool = Pool::lazy(&url, &options(config, purpose))?.with_erasure_key(erasure_key(config)?);
        match check(&pool, purpose).await {
            Ok(Schema::Current) => {}
            Ok(other) => anyhow::bail!(remedy(other)),
            Err(error @ StoreError::Unavailable(_)) if purpose == Purpose::Serving => {
                tracing::warn!(error = %chain(&error), "serving begins when the database is available");
                tokio::spawn(check_schema_later(pool.clone()));
            }
            Err(error) => return Err(anyhow::Error::from(error).context(format!("database.url {redacted:?}"))),
        }
        Ok(Self {
            pool,
            url,
            private: None,
        })
    }

    async fn open_private(config: &Config, purpose: Purpose) -> anyhow::Result<Self> {
        let key = erasure_key(config)?;
        let private = start_private(config).await?;
        databases::create_if_missing(&private.url("postgres"), DATABASE_NAME).await?;
        let url = private.url(DATABASE_NAME);
        // Migrations get connections of their own, because they may take longer than a request's statement.
        let pool = Pool::connect(&url, &options(config, Purpose::Migrating)).await?;
        migrations::migrate(&pool).await?;
        pool.close().await;
        Ok(Self {
            pool: Pool::connect(&url, &options(config, purpose))
                .await?
                .with_erasure_key(key),
            url,
            private: Some(private),
        })
    }

    /// Returns further connections to the same database, for another purpose.
    pub fn pool_for(&self, config: &Config, purpose: Purpose) -> anyhow::Result<Pool> {
        Ok(Pool::lazy(&self.url, &options(config, purpose))?.with_erasure_key(erasure_key(config)?))
    }

    /// Closes the connections, and stops a private PostgreSQL that this process has started.
    pub async fn close(self) -> anyhow::Result<()> {
        self.pool.close().await;
        match self.private {
            Some(private) => tokio::task::spawn_blocking(|| private.stop())
                .await
                .context("the private PostgreSQL could not be stopped"),
            None => Ok(()),
        }
    }
}

/// Reads the key by which erased users are recognized; `None` when `privacy.erasure_key_file` is not set.
///
/// # Errors
/// Names the key of the configuration, and never quotes the file.
fn erasure_key(config: &Config) -> anyhow::Result<Option<Arc<ErasureKey>>> {
    let Some(file) = &config.privacy.erasure_key_file else {
        return Ok(None);
    };
    let text = secret::read(file).context("privacy.erasure_key_file")?;
    let key = ErasureKey::new(&text).with_context(|| format!("privacy.erasure_key_file {}", file.display()))?;
    Ok(Some(Arc::new(key)))
}

fn options(config: &Config, purpose: Purpose) -> DatabaseOptions {
    match purpose {
        Purpose::Serving => config.database.clone(),
        Purpose::Job | Purpose::Migrating => config.database.for_jobs(),
    }
}

/// The name of the database in the private PostgreSQL.
const DATABASE_NAME: &str = "likemind";

/// The first PostgreSQL that has `pg_current_xact_id()`, which the schema uses.
const OLDEST_POSTGRES_MAJOR: u32 = 13;

/// Returns the folder of the private PostgreSQL.
pub(super) fn data_dir(config: &Config) -> PathBuf {
    let configured = config.data_dir.clone();
    configured.unwrap_or_else(|| private_postgres::default_data_dir("likemind"))
}

async fn start_private(config: &Config) -> anyhow::Result<PrivatePostgres> {
    // Several processes may use one private database.
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

/// Checks that the database accepts connections and, unless it is to be migrated, compares its schema.
async fn check(pool: &Pool, purpose: Purpose) -> Result<Schema, StoreError> {
    pool.probe().await?;
    match purpose {
        Purpose::Migrating => Ok(Schema::Current),
        Purpose::Serving | Purpose::Job => migrations::schema(pool).await,
    }
}

/// Checks the schema once the database is available. With a wrong schema every request would fail, so the reason is logged.
async fn check_schema_later(pool: Pool) {
    loop {
        tokio::time::sleep(SCHEMA_RETRY).await;
        match migrations::schema(&pool).await {
            Ok(Schema::Current) => return,
            Ok(other) => {
                tracing::error!("{}", remedy(other));
                return;
            }
            Err(error @ StoreError::Encoding { .. }) => {
                tracing::error!("{error}");
                return;
            }
            // The unavailable database is reported elsewhere.
            Err(_) => {}
        }
    }
}

const SCHEMA_RETRY: Duration = Duration::from_secs(1);

fn remedy(schema: Schema) -> String {
    match schema {
        Schema::Older | Schema::Current => {
            "the database schema is older than this program; run `likemind migrate`".to_owned()
        }
        Schema::Newer => StoreError::NewerSchema.to_string(),
    }
}
