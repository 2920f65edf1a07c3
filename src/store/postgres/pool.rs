//! Pools of connections, and transactions.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};

use domain::time::{EventTime, Timestamp};

use crate::store::error::StoreError;
use crate::store::postgres::options::DatabaseOptions;
use crate::store::postgres::refusals;
use crate::store::privacy::erasure_key::ErasureKey;

pub use sqlx::PgConnection as Connection;

/// An open transaction; rolled back unless committed.
pub type Tx = sqlx::Transaction<'static, Postgres>;

/// The attempts at a transaction that conflicts with others.
pub const ATTEMPTS: u32 = 5;

/// Begins a read-only transaction all of whose statements see the same moment.
pub(in crate::store) const READ_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The longest wait for connections that are in use when the pool is closed.
const LONGEST_CLOSE: Duration = Duration::from_secs(1);

/// The longest wait for an answer on a connection that is returned to the pool.
const LONGEST_RETURN: Duration = Duration::from_secs(10);

/// A pool of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(in crate::store) inner: PgPool,
    /// Counts the connections that were given out, after the database had answered on each.
    given_out: Arc<AtomicU64>,
    /// The import whose connections these are.
    import_id: Option<i64>,
    /// The key by which erased users are recognized.
    erasure_key: Option<Arc<ErasureKey>>,
}

/// The numbers of open connections that are in use and that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    pub busy: u32,
    pub idle: u32,
}

impl Pool {
    /// Makes a pool that connects at its first use, so that a server can start while the database is away.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`].
    pub fn lazy(url: &str, options: &DatabaseOptions) -> Result<Self, StoreError> {
        let connect_options = PgConnectOptions::from_str(url).map_err(|error| StoreError::InvalidUrl(error.into()))?;
        let connect_options = with_plain_host(connect_options)
            .application_name("likemind")
            .options(session_settings(options));
        let given_out = Arc::new(AtomicU64::new(0));
        let [opened, reused] = [given_out.clone(), given_out.clone()];
        let inner = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(Duration::from_millis(options.acquire_timeout_ms))
            .after_connect(move |_, _| {
                opened.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(()) })
            })
            .before_acquire(move |_, metadata| {
                let is_usable = !refusals::concerns(metadata.age);
                reused.fetch_add(u64::from(is_usable), Ordering::Relaxed);
                Box::pin(async move { Ok(is_usable) })
            })
            .after_release(|connection, metadata| Box::pin(returned(connection, metadata)))
            .connect_lazy_with(connect_options);
        Ok(Self {
            inner,
            given_out,
            import_id: None,
            erasure_key: None,
        })
    }

    /// Makes a pool of `max_connections` further connections to the same database, which no other work can use up. They may
    /// pause while they read much, as they keep nobody waiting.
    pub fn dedicated(&self, max_connections: u32) -> Self {
        let options = self.inner.options().clone();
        let connect_options = PgConnectOptions::clone(&self.inner.connect_options());
        let inner = options
            .max_connections(max_connections)
            .connect_lazy_with(connect_options.options([("tcp_user_timeout", "0")]));
        Self {
            inner,
            given_out: self.given_out.clone(),
            import_id: None,
            erasure_key: self.erasure_key.clone(),
        }
    }

    /// Makes a pool of connections to the same database that name `import_id` as the writer of their rows. Their statements
    /// have no time limit, also in a server.
    ///
    /// `keeps_copies`: whether rows are copied that do not hold the name of their writer.
    pub fn for_import(&self, import_id: i64, keeps_copies: bool, max_connections: u32) -> Self {
        let id = import_id.to_string();
        let copies = if keeps_copies { "on" } else { "off" };
        let connect = PgConnectOptions::clone(&self.inner.connect_options()).options([
            ("likemind.import_id", id.as_str()),
            ("likemind.import_copies", copies),
            ("statement_timeout", "0"),
        ]);
        let options = self.inner.options().clone();
        Self {
            inner: options.max_connections(max_connections).connect_lazy_with(connect),
            given_out: self.given_out.clone(),
            import_id: Some(import_id),
            erasure_key: self.erasure_key.clone(),
        }
    }

    /// Returns the same pool, which recognizes erased users by `key`.
    pub fn with_erasure_key(mut self, key: Option<Arc<ErasureKey>>) -> Self {
        self.erasure_key = key;
        self
    }

    /// Returns the key by which erased users are recognized; `None` when `privacy.erasure_key_file` is not set.
    pub fn erasure_key(&self) -> Option<&ErasureKey> {
        self.erasure_key.as_deref()
    }

    /// Returns when an event happened that is written over these connections; `None` when nobody knows: a line of a file
    /// without a time may be from any.
    pub(in crate::store) fn time_of(&self, time: EventTime) -> Option<Timestamp> {
        match time {
            EventTime::Given(at) => Some(at),
            EventTime::Received(at) => self.import_id.is_none().then_some(at),
        }
    }

    /// Returns the import whose connections these are.
    pub(in crate::store) fn import_id(&self) -> Option<i64> {
        self.import_id
    }

    /// Takes a connection that is free, or becomes free in time.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when all are in use and others have got one in the meantime: the database is available, only
    /// busy. [`StoreError::Unavailable`] when it is not.
    pub(in crate::store) async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        let before = self.given_out.load(Ordering::Relaxed);
        let acquired = self.inner.acquire().await;
        acquired.map_err(|error| self.refused(error, before))
    }

    /// Begins a transaction. Errors are those of taking a connection.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let before = self.given_out.load(Ordering::Relaxed);
        let begun = self.inner.begin().await;
        begun.map_err(|error| self.refused(error, before))
    }

    /// Checks that the database accepts connections. While connections are refused, the pool tries again until its time is
    /// up and forgets why, so this then connects once more without it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with the reason.
    pub async fn probe(&self) -> Result<(), StoreError> {
        match self.acquire().await {
            Err(StoreError::Unavailable(cause)) if cause.is_pool_timeout() => {}
            acquired => return acquired.map(drop),
        }
        let limit = self.inner.options().get_acquire_timeout();
        let options = self.inner.connect_options();
        match tokio::time::timeout(limit, PgConnection::connect_with(&options)).await {
            Ok(connected) => Ok(connected.map(drop)?),
            Err(_) => {
                let message = format!("no answer within {limit:?}");
                let silent = io::Error::new(io::ErrorKind::TimedOut, message);
                Err(StoreError::Unavailable(sqlx::Error::Io(silent).into()))
            }
        }
    }

    /// Converts the error of the pool, which is the same for a busy database and for one that is away. If it is away, either
    /// nobody gets a connection, or the caller was opening one itself, so that the pool is not full: this is the case at
    /// the beginning and at the end of an outage.
    fn refused(&self, error: sqlx::Error, given_out_before: u64) -> StoreError {
        let others_got_one = self.given_out.load(Ordering::Relaxed) > given_out_before;
        let is_full = self.inner.size() >= self.inner.options().get_max_connections();
        match error {
            sqlx::Error::PoolTimedOut if others_got_one && is_full => StoreError::Busy(error.into()),
            error => error.into(),
        }
    }

    /// Makes a pool and connects at once.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`]; [`StoreError::Unavailable`] when the database does not answer.
    pub async fn connect(url: &str, options: &DatabaseOptions) -> Result<Self, StoreError> {
        let pool = Self::lazy(url, options)?;
        pool.probe().await?;
        Ok(pool)
    }

    /// Counts the open connections.
    pub fn usage(&self) -> PoolUse {
        let idle = u32::try_from(self.inner.num_idle()).unwrap_or(u32::MAX);
        PoolUse {
            busy: self.inner.size().saturating_sub(idle),
            idle,
        }
    }

    /// Begins a transaction whose statements have no time limit, for reading much. They are planned for their parameters
    /// every time, as the amount to read differs between calls.
    pub(in crate::store) async fn begin_unlimited(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin().await?;
        without_timeouts(&mut tx).await?;
        Ok(tx)
    }

    /// Begins a read-only transaction all of whose statements see the same moment.
    pub(in crate::store) async fn begin_snapshot(&self) -> Result<Tx, StoreError> {
        let before = self.given_out.load(Ordering::Relaxed);
        let begun = self.inner.begin_with(READ_SNAPSHOT).await;
        begun.map_err(|error| self.refused(error, before))
    }

    /// Runs `work` in a new transaction, which it must commit. Runs it again from the start when the transaction conflicts
    /// with another one, or refers to a user who was erased in the meantime.
    ///
    /// # Errors
    /// The error of `work`; [`StoreError::Conflict`] after [`ATTEMPTS`].
    pub(in crate::store) async fn write<T, F, Work>(&self, work: F) -> Result<T, StoreError>
    where
        F: Fn(Tx) -> Work,
        Work: Future<Output = Result<T, StoreError>>,
    {
        let mut attempt = 1;
        loop {
            match work(self.begin().await?).await {
                Err(error) if attempt < ATTEMPTS && (error.is_conflict() || error.is_dangling_reference()) => {
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 10)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Closes the connections. Waits only briefly for those in use, which may be waiting for a lock or for a database that
    /// hangs.
    pub async fn close(&self) {
        // Connections that are still in use close with the process.
        let _ = tokio::time::timeout(LONGEST_CLOSE, self.inner.close()).await;
    }
}

/// Takes the brackets off an IPv6 address. They belong to the URL, and the library would look the address up as a name.
fn with_plain_host(options: PgConnectOptions) -> PgConnectOptions {
    let host = options.get_host();
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => options.clone().host(address),
        None => options,
    }
}

/// Returns the settings of every session.
fn session_settings(options: &DatabaseOptions) -> [(&'static str, String); 7] {
    let keepalive_s = options.tcp_keepalive_ms.div_ceil(1_000);
    [
        ("statement_timeout", options.statement_timeout_ms.to_string()),
        (
            "idle_in_transaction_session_timeout",
            options.idle_in_transaction_timeout_ms.to_string(),
        ),
        ("tcp_user_timeout", options.tcp_user_timeout_ms.to_string()),
        ("tcp_keepalives_idle", keepalive_s.to_string()),
        ("tcp_keepalives_interval", keepalive_s.to_string()),
        ("tcp_keepalives_count", "3".to_owned()),
        // JIT compilation took 0.8 s at every read of fresh data, for a statement that then finds a few rows.
        ("jit", "off".to_owned()),
    ]
}

/// Returns whether a connection may be used again. Gives it up when the database does not answer on it any more: the pool
/// itself would wait for as long as TCP does, and have one connection less until then.
async fn returned(connection: &mut PgConnection, metadata: PoolConnectionMetadata) -> Result<bool, sqlx::Error> {
    if refusals::concerns(metadata.age) {
        return Ok(false);
    }
    let answer = tokio::time::timeout(LONGEST_RETURN, connection.ping()).await;
    answer.map_err(|_| silence())?.map(|()| true)
}

/// Gives `work` up when it takes longer than `limit`: a connection that was lost unnoticed never answers.
pub(in crate::store) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let result = tokio::time::timeout(limit, work).await;
    result.map_err(|_| StoreError::Unavailable(silence().into()))?
}

fn silence() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::TimedOut.into())
}

/// Lifts the time limit of the statements of this transaction, and has them planned for their parameters every time. The
/// transaction may also pause between them. For one that keeps nobody waiting.
pub(in crate::store) async fn without_timeouts(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT set_config('statement_timeout', '0', true) AS statement_timeout,
                set_config('idle_in_transaction_session_timeout', '60s', true) AS idle_timeout,
                set_config('plan_cache_mode', 'force_custom_plan', true) AS plan_cache_mode"
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Makes the statements of this transaction look up every row by an index. For a large batch, or for a table that was empty
/// at the last ANALYZE, PostgreSQL would otherwise read the whole table.
pub(in crate::store) async fn plan_for_lookups(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT set_config('plan_cache_mode', 'force_generic_plan', true) AS plan_cache_mode,
                set_config('enable_seqscan', 'off', true) AS enable_seqscan"
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Makes PostgreSQL end this transaction and its connection when the process stops in the middle of it for longer than
/// `limit`: its locks must not keep others out for good.
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
