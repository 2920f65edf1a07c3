//! The PostgreSQL of a test run: the first test that needs it starts one private server, in which every test has a
//! database of its own.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
use std::thread;

use likemind::store::postgres::databases;
use likemind::store::postgres::migrations::{self, Schema};
use likemind::store::postgres::options::DatabaseOptions;
use likemind::store::postgres::pool::Pool;
use private_postgres::{PrivatePostgres, PrivatePostgresOptions};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;

/// The database that is migrated once; every test database is a copy of it.
const TEMPLATE: &str = "template_likemind";

const FOLDER_PREFIX: &str = "likemind-it-";

/// A database with the current schema, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
}

impl TestDatabase {
    /// Creates an empty database.
    pub async fn create() -> Self {
        Self::copy_of(TEMPLATE).await
    }

    /// Creates a database without any table.
    pub async fn without_schema() -> Self {
        Self::copy_of("template0").await
    }

    /// Creates a database without any table that stores texts in `encoding`.
    pub async fn of_encoding(encoding: &str) -> Self {
        Self::copy_of(&format!("template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")).await
    }

    /// Creates another database with the same content. Nobody may be connected to this one.
    pub async fn copy(&self) -> Self {
        Self::copy_of(&self.name).await
    }

    async fn copy_of(template: &str) -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let admin_url = tokio::task::spawn_blocking(|| server().url("postgres")).await.unwrap();
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        execute_at(&admin_url, format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap();
        let url = server().url(&name);
        Self { name, url }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens a connection of the test's own.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Opens a pool as a server does.
    pub async fn pool(&self) -> Pool {
        Pool::connect(&self.url, &DatabaseOptions::default()).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin_url, name) = (server().url("postgres"), self.name.clone());
        // A thread of its own, because the test's runtime cannot be blocked. A database that cannot be dropped is deleted
        // with the server.
        let dropped =
            thread::spawn(move || block_on(execute_at(&admin_url, format!("DROP DATABASE {name} WITH (FORCE)"))));
        let _ = dropped.join();
    }
}

/// Runs `statements`, which return nothing.
pub async fn execute(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .unwrap();
}

/// Returns the number that `query` asks for.
pub async fn number(connection: &mut PgConnection, query: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Counts the sessions of servers that wait for a lock.
pub async fn sessions_waiting_for_a_lock(connection: &mut PgConnection) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'likemind' AND wait_event_type = 'Lock'";
    number(connection, waiting).await
}

/// Returns a path in the folder of this run, which is removed when the run ends, or by the next run if this one is
/// killed.
pub fn folder(name: &str) -> PathBuf {
    RUN.folder.join(name)
}

/// Creates an empty folder, removed with this value or with the run.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(&RUN.folder).unwrap()
}

/// The folder of this run. Its lock distinguishes it from the folders that killed runs left.
struct Run {
    folder: PathBuf,
    _lock: File,
}

struct Server {
    /// Taken at the end of the process, because nothing drops a static.
    running: Mutex<Option<PrivatePostgres>>,
}

static RUN: LazyLock<Run> = LazyLock::new(Run::begin);

static SERVER: OnceLock<Server> = OnceLock::new();

fn server() -> &'static Server {
    SERVER.get_or_init(Server::start)
}

impl Run {
    fn begin() -> Self {
        let parent = env::temp_dir();
        remove_folders_of_killed_runs(&parent);
        loop {
            let folder = tempfile::Builder::new()
                .prefix(FOLDER_PREFIX)
                .tempdir_in(&parent)
                .unwrap()
                .keep();
            // PostgreSQL's user must be able to traverse the folder when the tests run as root.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
            let lock = File::open(&folder).unwrap();
            // Another run that begins at this moment may be removing it.
            if lock.try_lock().is_ok() && folder.exists() {
                // SAFETY: the function has no arguments and stays valid until the process ends.
                assert_eq!(unsafe { libc::atexit(end_run) }, 0);
                return Self { folder, _lock: lock };
            }
        }
    }
}

impl Server {
    fn start() -> Self {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let options = PrivatePostgresOptions {
            durable: false,
            settings: vec![
                setting("max_connections", "400"),
                setting("shared_buffers", "32MB"),
                setting("max_wal_size", "256MB"),
            ],
            ..PrivatePostgresOptions::new(folder("postgresql"))
        };
        let running = PrivatePostgres::start(&options).unwrap();
        block_on(async {
            let url = database_url(&running, TEMPLATE).await;
            let pool = Pool::connect(&url, &DatabaseOptions::default()).await.unwrap();
            migrations::migrate(&pool).await.unwrap();
            // A template with connections cannot be copied.
            pool.close().await;
        });
        Self {
            running: Mutex::new(Some(running)),
        }
    }

    fn url(&self, database: &str) -> String {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().unwrap().url(database)
    }
}

extern "C" fn end_run() {
    if let Some(server) = SERVER.get() {
        drop(server.running.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    let _ = fs::remove_dir_all(&RUN.folder);
}

fn remove_folders_of_killed_runs(parent: &Path) {
    for entry in fs::read_dir(parent).unwrap().filter_map(Result::ok) {
        let left = entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX)
            && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok());
        if left {
            // It may be another user's, or another run may be removing it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs `statement` on a connection of its own.
async fn execute_at(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Copies the data folder of a private PostgreSQL that is stopped, which takes less time than `initdb`.
pub fn copy_data_dir(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
    // The lock file names the port, on which only one of the servers can listen.
    fs::remove_file(to.join("postgres.lock")).unwrap();
}

/// Creates the database `name` in `running` if it does not exist, and returns its URL.
pub async fn database_url(running: &PrivatePostgres, name: &str) -> String {
    databases::create_if_missing(&running.url("postgres"), name)
        .await
        .unwrap();
    running.url(name)
}

#[tokio::test]
async fn every_test_has_its_own_database_with_the_schema() {
    let (one, other) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    assert_ne!(one.url(), other.url());
    assert_eq!(migrations::schema(&one.pool().await).await.unwrap(), Schema::Current);

    execute_at(one.url(), "CREATE TABLE mine ()".to_owned()).await.unwrap();
    assert!(execute_at(other.url(), "SELECT FROM mine".to_owned()).await.is_err());

    let url = one.url().to_owned();
    drop(one);
    assert!(PgConnection::connect(&url).await.is_err());
}

#[test]
fn folders_of_killed_runs_are_removed() {
    let parent = folder("killed-runs");
    let path = |name: &str| parent.join(format!("{FOLDER_PREFIX}{name}"));
    fs::create_dir_all(path("killed").join("data")).unwrap();
    fs::create_dir_all(path("running")).unwrap();
    fs::create_dir_all(parent.join("other")).unwrap();
    let running = File::open(path("running")).unwrap();
    running.lock().unwrap();
    remove_folders_of_killed_runs(&parent);
    assert!(!path("killed").exists());
    assert!(path("running").exists());
    assert!(parent.join("other").exists());
}
