//! Connections and transactions.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres};

use super::error::StoreError;
use super::options::DatabaseOptions;

pub use sqlx::PgConnection as Connection;

/// An open transaction; rolled back unless committed.
pub type Tx = sqlx::Transaction<'static, Postgres>;

/// Attempts of a transaction that lost against another one.
pub const RETRIES: u32 = 5;

const LONGEST_CLOSE: Duration = Duration::from_secs(1);

/// A pool of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) inner: PgPool,
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
            .application_name("likemind")
            .options([
                ("statement_timeout", options.statement_timeout_ms.to_string().as_str()),
                // Compiling a statement that then finds a few rows took .8 s at every look for fresh data.
                ("jit", "off"),
            ]);
        let inner = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
            .connect_lazy_with(connect_options);
        Ok(Self { inner })
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

    /// A transaction whose statements may take their time: reading a large snapshot, or catching up with much. They are
    /// planned anew for their parameters: how much there is to read differs from one time to the next.
    pub(super) async fn begin_unlimited(&self) -> Result<Tx, StoreError> {
        let mut tx = self.inner.begin().await?;
        sqlx::query!(
            "SELECT set_config('statement_timeout', '0', true) AS statement_timeout,
                    set_config('plan_cache_mode', 'force_custom_plan', true) AS plan_cache_mode"
        )
        .fetch_one(&mut *tx)
        .await?;
        Ok(tx)
    }

    /// Runs `work` in a new transaction, which it must commit; once more, from the start, when it lost against another.
    ///
    /// # Errors
    /// What `work` answers; [`StoreError::Conflict`] after [`RETRIES`] attempts.
    pub(super) async fn write<T, F, Work>(&self, work: F) -> Result<T, StoreError>
    where
        F: Fn(Tx) -> Work,
        Work: Future<Output = Result<T, StoreError>>,
    {
        let mut attempt = 1;
        loop {
            match work(self.inner.begin().await?).await {
                Err(StoreError::Conflict(_)) if attempt < RETRIES => {
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 10)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Closes the connections; those in use too, after a moment, for they may be waiting for a lock or for a database
    /// that hangs.
    pub async fn close(&self) {
        // Whoever still has one loses it with the process.
        let _ = tokio::time::timeout(LONGEST_CLOSE, self.inner.close()).await;
    }
}

/// Gives `work` up when it takes longer than `patience`: on a connection that was lost unnoticed nothing comes for ever.
pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let silent = |_| StoreError::Unavailable(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(patience, work).await.map_err(silent)?
}

/// Makes PostgreSQL end this transaction, and the connection with it, when the process stops for longer than `limit`
/// in the middle of it: the locks that it holds must not keep others out for good.
pub(super) async fn limit_idle(connection: &mut Connection, limit: Duration) -> Result<(), StoreError> {
    let limit_ms = limit.as_millis().to_string();
    sqlx::query_scalar!(
        "SELECT set_config('idle_in_transaction_session_timeout', $1, true)",
        limit_ms
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}
