//! Connections and transactions.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgPool, Postgres};

use crate::store::error::StoreError;
use crate::store::postgres::options::DatabaseOptions;

pub use sqlx::PgConnection as Connection;

/// An open transaction; rolled back unless committed.
pub type Tx = sqlx::Transaction<'static, Postgres>;

/// Attempts of a transaction that lost against another one.
pub const RETRIES: u32 = 5;

/// Begins a transaction that sees one moment and changes nothing.
pub(in crate::store) const READ_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

const LONGEST_CLOSE: Duration = Duration::from_secs(1);

/// Longest wait for the answer on a connection that is given back.
const LONGEST_RETURN: Duration = Duration::from_secs(10);

/// A pool of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(in crate::store) inner: PgPool,
    /// Counts the connections on which the database has answered before they were given out.
    given_out: Arc<AtomicU64>,
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
        let given_out = Arc::new(AtomicU64::new(0));
        let [opened, reused] = [given_out.clone(), given_out.clone()];
        let inner = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
            .after_connect(move |_, _| {
                opened.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(()) })
            })
            .before_acquire(move |_, _| {
                reused.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(true) })
            })
            .connect_lazy_with(connect_options);
        Ok(Self { inner, given_out })
    }

    /// Further connections to the same database, `max_connections` of them, that nobody else uses up.
    pub fn dedicated(&self, max_connections: u32) -> Self {
        let options = self.inner.options().clone();
        let inner = options
            .max_connections(max_connections)
            // Of so few none may be lost to a database from which nothing comes any more.
            .after_release(|connection, _| {
                Box::pin(async {
                    let answer = tokio::time::timeout(LONGEST_RETURN, connection.ping()).await;
                    answer.map_err(|_| silence())?.map(|()| true)
                })
            })
            .connect_lazy_with(PgConnectOptions::clone(&self.inner.connect_options()));
        Self {
            inner,
            given_out: self.given_out.clone(),
        }
    }

    /// A connection that is free, or comes free in time.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when all are in use and others have got one in the meantime: the database is there, and only
    /// has much to do.
    pub(in crate::store) async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        let before = self.given_out.load(Ordering::Relaxed);
        let acquired = self.inner.acquire().await;
        acquired.map_err(|error| self.refused(error, before))
    }

    /// A transaction on such a connection.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let before = self.given_out.load(Ordering::Relaxed);
        let begun = self.inner.begin().await;
        begun.map_err(|error| self.refused(error, before))
    }

    /// The pool's own error is the same for a database that is away. Then nobody gets a connection, or who waited was
    /// opening one of the pool's, which is missing in it now: so it is at the beginning and at the end of an outage.
    fn refused(&self, error: sqlx::Error, given_out_before: u64) -> StoreError {
        let others_got_one = self.given_out.load(Ordering::Relaxed) > given_out_before;
        let is_full = self.inner.size() >= self.inner.options().get_max_connections();
        match error {
            sqlx::Error::PoolTimedOut if others_got_one && is_full => StoreError::Busy(error),
            error => error.into(),
        }
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
    pub(in crate::store) async fn begin_unlimited(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin().await?;
        without_timeouts(&mut tx).await?;
        Ok(tx)
    }

    /// A read-only transaction all of whose statements see the same moment.
    pub(in crate::store) async fn begin_picture(&self) -> Result<Tx, StoreError> {
        let before = self.given_out.load(Ordering::Relaxed);
        let begun = self.inner.begin_with(READ_SNAPSHOT).await;
        begun.map_err(|error| self.refused(error, before))
    }

    /// Runs `work` in a new transaction, which it must commit; once more, from the start, when it lost against another.
    ///
    /// # Errors
    /// What `work` answers; [`StoreError::Conflict`] after [`RETRIES`] attempts.
    pub(in crate::store) async fn write<T, F, Work>(&self, work: F) -> Result<T, StoreError>
    where
        F: Fn(Tx) -> Work,
        Work: Future<Output = Result<T, StoreError>>,
    {
        let mut attempt = 1;
        loop {
            match work(self.begin().await?).await {
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
pub(in crate::store) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let result = tokio::time::timeout(patience, work).await;
    result.map_err(|_| StoreError::Unavailable(silence()))?
}

fn silence() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::TimedOut.into())
}

/// Lets the statements of this transaction take their time; they are planned anew for their parameters.
pub(in crate::store) async fn without_timeouts(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT set_config('statement_timeout', '0', true) AS statement_timeout,
                set_config('plan_cache_mode', 'force_custom_plan', true) AS plan_cache_mode"
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Has the statements of this transaction look up every row by an index, whatever they are given: for a large batch, or
/// for a table that was empty when it was last looked at, PostgreSQL would rather read the whole of it.
pub(in crate::store) async fn plan_for_lookups(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT set_config('plan_cache_mode', 'force_generic_plan', true) AS plan_cache_mode,
                set_config('enable_seqscan', 'off', true) AS enable_seqscan"
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Makes PostgreSQL end this transaction, and the connection with it, when the process stops for longer than `limit`
/// in the middle of it: the locks that it holds must not keep others out for good.
pub(in crate::store) async fn limit_idle(connection: &mut Connection, limit: Duration) -> Result<(), StoreError> {
    let limit_ms = limit.as_millis().to_string();
    sqlx::query_scalar!(
        "SELECT set_config('idle_in_transaction_session_timeout', $1, true)",
        limit_ms
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}
