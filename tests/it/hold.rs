//! Holding a trainer where a test wants it, by locks of the test's own connection.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::postgres::TestDatabase;
use crate::program::eventually;

/// Where a run of the trainer can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Reading,
    /// Within the transaction that begins a version.
    Begin,
    /// With the first bytes of a version.
    Writing,
    /// With the last ones: once released, no transaction is open and the one that completes the version comes next.
    BeforeFinish,
    /// Within the transaction that completes the version.
    Finish,
    /// In its commit: once released, no transaction is open and the one that activates the version comes next.
    BeforeActivate,
    /// Within the transaction that activates the version; the one before is retired already.
    Activate,
}

impl Point {
    /// What makes a trainer wait there: a trigger, but for reading.
    fn trigger(self, last_part: &str) -> Option<String> {
        let when = match self {
            Self::Reading => return None,
            Self::Begin => "CREATE TRIGGER hold BEFORE INSERT ON snapshots".to_owned(),
            Self::Writing => "CREATE TRIGGER hold BEFORE INSERT ON snapshot_chunks".to_owned(),
            Self::BeforeFinish => format!(
                "CREATE TRIGGER hold BEFORE INSERT ON snapshot_chunks FOR EACH ROW WHEN (NEW.part = '{last_part}')"
            ),
            Self::Finish => {
                "CREATE TRIGGER hold BEFORE UPDATE ON snapshots FOR EACH ROW WHEN (OLD.state = 'building')".to_owned()
            }
            Self::BeforeActivate => "CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON snapshots
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.state = 'building')"
                .to_owned(),
            Self::Activate => {
                "CREATE TRIGGER hold BEFORE UPDATE ON snapshots FOR EACH ROW WHEN (NEW.state = 'active')".to_owned()
            }
        };
        Some(format!("{when} EXECUTE FUNCTION wait_for_test()"))
    }
}

/// Holds whoever comes to the point, until it is released.
pub struct Hold<'a> {
    database: &'a TestDatabase,
    lock: PgConnection,
    /// PostgreSQL's process that waits.
    held_pid: Option<i32>,
}

impl<'a> Hold<'a> {
    /// Needs snapshot 1 in `database`, to learn which part is written last.
    pub async fn at(database: &'a TestDatabase, point: Point) -> Self {
        let mut lock = connect(database).await;
        let last_part: String =
            sqlx::query_scalar("SELECT part FROM snapshot_chunks WHERE version = 1 ORDER BY ctid DESC LIMIT 1")
                .fetch_one(&mut lock)
                .await
                .unwrap();
        match point.trigger(&last_part) {
            Some(trigger) => {
                let function = "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END'";
                for statement in [function, &trigger, "SELECT pg_advisory_lock(1)"] {
                    execute(&mut lock, statement).await;
                }
            }
            None => execute(&mut lock, "BEGIN; LOCK TABLE ratings").await,
        }
        Self {
            database,
            lock,
            held_pid: None,
        }
    }

    /// Waits until a trainer waits. Servers read ratings too, but in another way.
    pub async fn reached(&mut self) {
        let held = "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE NOT granted AND datname = current_database()
              AND (locktype = 'advisory' OR query LIKE 'LOCK TABLE ratings IN ACCESS SHARE MODE%')";
        // Not on the connection with the lock: within a transaction the activity stands still.
        let mut connection = connect(self.database).await;
        let pid = eventually("being held", async || {
            sqlx::query_scalar(held).fetch_optional(&mut connection).await.unwrap()
        });
        self.held_pid = Some(pid.await);
    }

    /// Lets everybody pass from now on. The statement that was held ends before this returns, also if whoever sent it
    /// has been killed.
    pub async fn release(self) {
        self.lock.close().await.unwrap();
        let ended = "SELECT true WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')";
        let mut connection = connect(self.database).await;
        eventually("the end of what was held", async || {
            let ended = sqlx::query_scalar::<_, bool>(ended).bind(self.held_pid);
            ended.fetch_optional(&mut connection).await.unwrap()
        })
        .await;
    }
}

/// A connection of the test's own.
pub async fn connect(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(database.url()).await.unwrap()
}

pub async fn execute(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .unwrap();
}
