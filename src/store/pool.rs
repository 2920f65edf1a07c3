//! Connections and transactions.

use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::error::StoreError;
use super::options::DatabaseOptions;

pub use sqlx::PgConnection as Connection;

/// Attempts of a transaction that lost against another one.
pub const RETRIES: u32 = 5;

/// A pool of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) inner: PgPool,
    pub(super) connect_options: PgConnectOptions,
}

/// Open connections by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    pub busy: u32,
    pub idle: u32,
}

impl Pool {
    /// Connects at the first use, so that a server can start while the database is away.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`].
    pub fn lazy(url: &str, options: &DatabaseOptions) -> Result<Self, StoreError> {
        let connect_options = PgConnectOptions::from_str(url)
            .map_err(StoreError::InvalidUrl)?
            .application_name("likemind");
        let limited = connect_options
            .clone()
            .options([("statement_timeout", options.statement_timeout_ms.to_string())]);
        let inner = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
            .connect_lazy_with(limited);
        Ok(Self { inner, connect_options })
    }

    /// Connects now.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`]; [`StoreError::Unavailable`] when nobody answers.
    pub async fn connect(url: &str, options: &DatabaseOptions) -> Result<Self, StoreError> {
        let pool = Self::lazy(url, options)?;
        drop(pool.inner.acquire().await?);
        Ok(pool)
    }

    pub fn usage(&self) -> PoolUse {
        let idle = u32::try_from(self.inner.num_idle()).unwrap_or(u32::MAX);
        PoolUse {
            busy: self.inner.size().saturating_sub(idle),
            idle,
        }
    }

    /// Runs `work` in a transaction and commits it; once more, from the start, when it lost against another one.
    ///
    /// # Errors
    /// What `work` or the commit answers; [`StoreError::Conflict`] after [`RETRIES`] attempts.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>>,
    {
        let mut attempt = 1;
        loop {
            match self.attempt(&work).await {
                Err(StoreError::Conflict(_)) if attempt < RETRIES => {
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 10)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn attempt<T, F>(&self, work: &F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>>,
    {
        let mut transaction = self.inner.begin().await?;
        let result = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(result)
    }

    pub async fn close(&self) {
        self.inner.close().await;
    }
}
