//! Stops a trainer at a chosen step, by locks that the test's own connection holds.

use sqlx::{Connection, PgConnection};

use super::postgres::{TestDatabase, execute, number};
use super::waiting::eventually;

/// A step at which a run of the trainer can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Reading,
    /// Within the transaction that begins a version.
    Begin,
    /// When it writes the first bytes of a version.
    Writing,
    /// When it writes the last bytes. After the release no transaction is open, and the one that completes the version
    /// comes next.
    BeforeFinish,
    /// Within the transaction that completes the version.
    Finish,
    /// When it commits the transaction that completes the version. After the release no transaction is open, and the one
    /// that activates the version comes next.
    BeforeActivate,
    /// Within the transaction that activates the version; the previous version is retired already.
    Activate,
}

impl Point {
    /// Returns the trigger that makes a trainer wait at this step; reading needs none.
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

/// Holds every trainer that reaches the step, until it is released.
pub struct Hold<'a> {
    database: &'a TestDatabase,
    lock: PgConnection,
    /// The process of PostgreSQL that waits.
    held_pid: Option<i32>,
}

impl<'a> Hold<'a> {
    /// Holds trainers of `database` at `point`. Snapshot 1 must exist: it tells which part is written last.
    pub async fn at(database: &'a TestDatabase, point: Point) -> Self {
        let mut lock = database.connect().await;
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

    /// Returns when a trainer is held. The query matches no server: servers read ratings by other statements.
    pub async fn reached(&mut self) {
        let held = "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE NOT granted AND datname = current_database()
              AND (locktype = 'advisory' OR query LIKE 'LOCK TABLE ratings IN ACCESS SHARE MODE%')";
        // A connection of its own: within the transaction that holds the lock, `pg_stat_activity` would not change.
        let mut connection = self.database.connect().await;
        let look = async || sqlx::query_scalar(held).fetch_optional(&mut connection).await.unwrap();
        self.held_pid = eventually("a trainer is held", look, Option::is_some).await;
    }

    /// Lets every trainer pass from now on. Returns when the statement that was held has ended, also if its sender has
    /// been killed.
    pub async fn release(self) {
        self.lock.close().await.unwrap();
        let Some(pid) = self.held_pid else { return };
        let running = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
        let mut connection = self.database.connect().await;
        let look = async || number(&mut connection, &running).await;
        eventually("the statement that was held has ended", look, |&running| running == 0).await;
    }
}
