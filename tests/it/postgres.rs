//! The PostgreSQL of a test run: one private server, started by the first test that needs it, and a database of its
//! own for every test.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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

/// Migrated once; every test database is a copy.
const TEMPLATE: &str = "template_likemind";

const FOLDER_PREFIX: &str = "likemind-it-";

/// A database with the current schema and nothing in it, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
}

impl TestDatabase {
    pub async fn create() -> Self {
        Self::like(TEMPLATE).await
    }

    /// Another one with the same content. Nobody may be connected to this one.
    pub async fn copy(&self) -> Self {
        Self::like(&self.name).await
    }

    async fn like(template: &str) -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let admin_url = tokio::task::spawn_blocking(|| server().url("postgres")).await.unwrap();
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        execute(&admin_url, format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap();
        let url = server().url(&name);
        Self { name, url }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn pool(&self) -> Pool {
        Pool::connect(&self.url, &DatabaseOptions::default()).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin_url, name) = (server().url("postgres"), self.name.clone());
        // Not within the runtime of the test. What cannot be dropped goes with the server.
        let dropped =
            thread::spawn(move || block_on(execute(&admin_url, format!("DROP DATABASE {name} WITH (FORCE)"))));
        let _ = dropped.join();
    }
}

/// A path in the folder of this run, which is removed when the run ends, or by the next run if this one is killed.
pub fn folder(name: &str) -> PathBuf {
    RUN.folder.join(name)
}

/// An empty folder of a test's own, removed with this value, or with the run.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(&RUN.folder).unwrap()
}

/// The folder of this run. The lock tells it from those that killed runs left.
struct Run {
    folder: PathBuf,
    _lock: File,
}

struct Server {
    /// Taken at the end of the process: nothing drops a static.
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
        sweep(&parent);
        loop {
            let folder = tempfile::Builder::new()
                .prefix(FOLDER_PREFIX)
                .tempdir_in(&parent)
                .unwrap()
                .keep();
            // PostgreSQL's user must pass when we are root.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
            let lock = File::open(&folder).unwrap();
            // Another run that begins at this moment may be sweeping.
            if lock.try_lock().is_ok() && folder.exists() {
                // SAFETY: a function without arguments, which stays valid until the end.
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

/// Removes the folders of runs that were killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).unwrap().filter_map(Result::ok) {
        let left = entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX)
            && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok());
        if left {
            // Another user's, or being swept by another run.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

async fn execute(url: &str, statement: String) -> Result<(), sqlx::Error> {
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

#[tokio::test]
async fn every_test_has_its_own_database_with_the_schema() {
    let (one, other) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    assert_ne!(one.url(), other.url());
    assert_eq!(migrations::schema(&one.pool().await).await.unwrap(), Schema::Current);

    execute(one.url(), "CREATE TABLE mine ()".to_owned()).await.unwrap();
    assert!(execute(other.url(), "SELECT FROM mine".to_owned()).await.is_err());

    let url = one.url().to_owned();
    drop(one);
    assert!(PgConnection::connect(&url).await.is_err());
}

#[test]
fn folders_of_killed_runs_are_swept() {
    let parent = folder("sweep");
    let path = |name: &str| parent.join(format!("{FOLDER_PREFIX}{name}"));
    fs::create_dir_all(path("killed").join("data")).unwrap();
    fs::create_dir_all(path("running")).unwrap();
    fs::create_dir_all(parent.join("other")).unwrap();
    let running = File::open(path("running")).unwrap();
    running.lock().unwrap();
    sweep(&parent);
    assert!(!path("killed").exists());
    assert!(path("running").exists());
    assert!(parent.join("other").exists());
}

/// The URL of the database `name` of `running`, which is created if it does not exist.
pub async fn database_url(running: &PrivatePostgres, name: &str) -> String {
    databases::create_if_missing(&running.url("postgres"), name)
        .await
        .unwrap();
    running.url(name)
}
