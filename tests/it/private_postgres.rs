//! The private PostgreSQL: how it starts, ends, recovers and is shared.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Barrier, LazyLock};
use std::{env, io, thread};

use private_postgres::{PrivatePostgres, PrivatePostgresError, PrivatePostgresOptions};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::support::postgres::{copy_data_dir, database_url, folder};
use crate::support::waiting::{eventually, eventually_blocking};

/// The id of a user that is neither root nor PostgreSQL's.
const NOBODY: u32 = 65_534;

fn options(data_dir: &Path) -> PrivatePostgresOptions {
    PrivatePostgresOptions {
        durable: false,
        settings: vec![("shared_buffers".to_owned(), "16MB".to_owned())],
        ..PrivatePostgresOptions::new(data_dir.to_owned())
    }
}

fn start(data_dir: &Path) -> PrivatePostgres {
    PrivatePostgres::start(&options(data_dir)).unwrap()
}

/// A data folder, removed with this value, because each has forty megabytes.
struct DataDir(PathBuf);

impl Deref for DataDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // A folder that cannot be removed is removed with the folder of the run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies an initialized data folder, which takes less time than `initdb`.
fn initialized(name: &str) -> DataDir {
    static INITIALIZED: LazyLock<PathBuf> = LazyLock::new(|| {
        let data_dir = folder("initialized");
        start(&data_dir).stop();
        data_dir
    });
    let data_dir = DataDir(folder(name));
    copy_data_dir(&INITIALIZED, &data_dir);
    data_dir
}

fn postmaster(data_dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    text.lines().next()?.parse().ok()
}

/// Whether the process exists and is not a zombie. In some containers nobody reaps zombies.
fn runs(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(status) => !status.contains(") Z "),
        // SAFETY: signal 0 only asks whether the process exists.
        Err(_) => cfg!(not(target_os = "linux")) && unsafe { libc::kill(pid, 0) } == 0,
    }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill(2) takes numbers only; the tests pass those of processes that they have started.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{}", io::Error::last_os_error());
}

fn wait_until_ended(pid: i32) {
    eventually_blocking(&format!("process {pid} has ended"), || runs(pid), |&runs| !runs);
}

/// Waits until a server runs that is another than `server`.
fn wait_until_replaced(data_dir: &Path, server: i32) {
    let is_another = |pid: &Option<i32>| pid.is_some_and(|pid| pid != server && runs(pid));
    eventually_blocking("another server runs", || postmaster(data_dir), is_another);
}

async fn ask(url: &str, statement: &str) -> Result<String, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
        .fetch_one(&mut connection)
        .await
}

/// Repeats a query until it is answered, as a service does while its database is away.
async fn ask_until_answered(url: &str, statement: &str) -> String {
    let look = async || ask(url, statement).await;
    eventually("the query is answered", look, Result::is_ok).await.unwrap()
}

const WRITE: &str = "CREATE TABLE kept AS SELECT 'kept' AS value; ";

async fn write(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(WRITE).execute(&mut connection).await.unwrap();
}

async fn assert_kept(url: &str) {
    assert_eq!(ask_until_answered(url, "SELECT value FROM kept").await, "kept");
}

/// This test program as another process. It runs [`helper_process`] and then waits to be ended.
struct Helper {
    child: Child,
    /// The process ends when this is closed.
    _stdin: ChildStdin,
    /// The first line that it printed: the URL of its server, or an error.
    first_line: String,
}

/// The name of [`helper_process`] as a filter of tests.
const HELPER_TEST: &str = "private_postgres::helper_process";

impl Helper {
    fn command(program: &Path, data_dir: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .args(["--exact", HELPER_TEST, "--ignored", "--nocapture"])
            .env("LIKEMIND_IT_HELPER", "own")
            .env("LIKEMIND_IT_DATA_DIR", data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let first_line = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .find_map(|line| Some(line.unwrap().split_once("helper: ")?.1.to_owned()))
            .unwrap();
        Self {
            child,
            _stdin: stdin,
            first_line,
        }
    }

    fn owning(data_dir: &Path) -> Self {
        Self::spawn(Self::command(&env::current_exe().unwrap(), data_dir))
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
#[ignore = "runs as the other process of the tests below"]
fn helper_process() {
    let (Some(role), Some(data_dir)) = (env::var_os("LIKEMIND_IT_HELPER"), env::var_os("LIKEMIND_IT_DATA_DIR")) else {
        return;
    };
    let data_dir = PathBuf::from(data_dir);
    if role == "inherit" {
        #[cfg(target_os = "linux")]
        leave_a_zombie(&data_dir);
    }
    let _running = match PrivatePostgres::start(&options(&data_dir)) {
        Ok(running) => {
            println!("helper: {}", running.url("postgres"));
            running
        }
        Err(error) => return println!("helper: {error}"),
    };
    io::stdin().lines().for_each(drop);
}

/// Kills a server and its owner where nobody reaps orphans, as in many containers.
#[cfg(target_os = "linux")]
fn leave_a_zombie(data_dir: &Path) {
    // SAFETY: this system call takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
    let mut owner = Helper::owning(data_dir);
    let server = postmaster(data_dir).unwrap();
    // A stopped server cannot end in an orderly way.
    signal(server, libc::SIGSTOP);
    owner.kill();
    signal(server, libc::SIGKILL);
    wait_until_ended(server);
    assert_eq!(postmaster(data_dir), Some(server));
    signal(server, 0);
}

#[tokio::test]
async fn data_and_port_are_kept_over_restarts() {
    let data_dir = DataDir(folder("it's a \"path\", 100%"));
    let running = start(&data_dir);
    let (port, url) = (running.port(), database_url(&running, "it's \"mine\"").await);
    assert_eq!(url, database_url(&running, "it's \"mine\"").await);
    write(&url).await;
    let server = postmaster(&data_dir).unwrap();
    running.stop();
    assert!(!runs(server));
    assert_eq!(postmaster(&data_dir), None);

    let running = start(&data_dir);
    assert_eq!((running.port(), running.url("it's \"mine\"")), (port, url.clone()));
    assert_kept(&url).await;
}

#[tokio::test]
async fn a_server_ends_with_its_killed_owner_and_the_next_start_recovers() {
    let data_dir = initialized("killed");
    let mut owner = Helper::owning(&data_dir);
    write(&owner.first_line).await;
    let server = postmaster(&data_dir).unwrap();
    owner.kill();
    if cfg!(target_os = "linux") {
        wait_until_ended(server);
    }
    let running = start(&data_dir);
    assert_kept(&running.url("postgres")).await;
}

#[tokio::test]
async fn a_start_does_not_wait_for_a_killed_owner_to_be_cleaned_up() {
    let data_dir = initialized("killed-now");
    let mut owner = Helper::owning(&data_dir);
    write(&owner.first_line).await;
    owner.kill();
    let running = start(&data_dir);
    assert_kept(&running.url("postgres")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_zombie_is_not_mistaken_for_a_running_server() {
    let data_dir = initialized("zombie");
    {
        let running = start(&data_dir);
        write(&running.url("postgres")).await;
    }
    let mut command = Helper::command(&env::current_exe().unwrap(), &data_dir);
    command.env("LIKEMIND_IT_HELPER", "inherit");
    let heir = Helper::spawn(command);
    assert_kept(&heir.first_line).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_orphaned_server_is_stopped_and_replaced() {
    let data_dir = initialized("orphan");
    let running = start(&data_dir);
    write(&running.url("postgres")).await;
    let process = Path::new("/proc").join(postmaster(&data_dir).unwrap().to_string());
    let program = fs::read_link(process.join("exe")).unwrap();
    let owner = fs::metadata(&process).unwrap();
    let arguments = fs::read_to_string(process.join("cmdline")).unwrap();
    running.stop();

    let mut orphan = Command::new(program)
        .args(arguments.trim_end_matches('\0').split('\0').skip(1))
        .current_dir("/")
        .uid(owner.uid())
        .gid(owner.gid())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(orphan.id()).unwrap();
    let look = || fs::read_to_string(data_dir.join("postgres/postmaster.pid"));
    let is_ready = |text: &io::Result<String>| text.as_ref().is_ok_and(|text| text.contains("ready"));
    eventually_blocking("the orphan is ready", look, is_ready).unwrap();
    // A thread reaps it, because a child of this process is a zombie until then.
    let reaped = thread::spawn(move || orphan.wait().unwrap());
    let running = start(&data_dir);
    assert!(reaped.join().unwrap().success());
    assert_ne!(postmaster(&data_dir), Some(pid));
    assert_kept(&running.url("postgres")).await;
}

#[tokio::test]
async fn a_process_with_the_id_of_a_dead_server_is_left_alone() {
    let data_dir = initialized("reused");
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let text = format!(
        "{}\n{}\n1\n5432\n/tmp\n\n1 1\nready\n",
        other.id(),
        data_dir.join("postgres").display()
    );
    fs::write(data_dir.join("postgres/postmaster.pid"), text).unwrap();
    let running = start(&data_dir);
    assert_eq!(ask(&running.url("postgres"), "SELECT 'alive'").await.unwrap(), "alive");
    assert!(runs(i32::try_from(other.id()).unwrap()));
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn concurrent_starts_share_one_server() {
    let data_dir = DataDir(folder("shared"));
    let together = Barrier::new(3);
    let mut running: Vec<PrivatePostgres> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    start(&data_dir)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let url = running[0].url("postgres");
    write(&url).await;
    while let Some(one) = running.pop() {
        assert_eq!(one.url("postgres"), url);
        assert_kept(&url).await;
        one.stop();
    }
    assert_eq!(postmaster(&data_dir), None);
}

#[tokio::test]
async fn a_guest_leaves_the_server_running_and_takes_over_when_its_owner_is_killed() {
    let data_dir = initialized("guest");
    let mut owner = Helper::owning(&data_dir);
    write(&owner.first_line).await;
    let server = postmaster(&data_dir).unwrap();

    let guest = start(&data_dir);
    assert_eq!(guest.url("postgres"), owner.first_line);
    guest.stop();
    assert_eq!(postmaster(&data_dir), Some(server));

    let guest = start(&data_dir);
    owner.kill();
    wait_until_replaced(&data_dir, server);
    assert_kept(&owner.first_line).await;
    guest.stop();
    assert_eq!(postmaster(&data_dir), None);
}

#[tokio::test]
async fn a_server_that_dies_is_restarted() {
    let data_dir = initialized("died");
    let running = start(&data_dir);
    write(&running.url("postgres")).await;
    let server = postmaster(&data_dir).unwrap();
    signal(server, libc::SIGKILL);
    wait_until_replaced(&data_dir, server);
    assert_kept(&running.url("postgres")).await;
}

#[tokio::test]
async fn the_port_requires_the_password_and_the_socket_is_private() {
    let data_dir = initialized("password");
    let running = start(&data_dir);
    let tcp = |password: &str| format!("postgres://postgres{password}@127.0.0.1:{}/postgres", running.port());
    let refused = ask(&tcp(":wrong"), "SELECT 'in'").await.unwrap_err();
    assert_eq!(
        refused.as_database_error().and_then(|error| error.code()).as_deref(),
        Some("28P01")
    );
    let password = fs::read_to_string(running.password_file()).unwrap();
    assert_eq!(ask(&tcp(&format!(":{password}")), "SELECT 'in'").await.unwrap(), "in");

    let check = |path: &str, mode: u32| {
        let found = fs::metadata(data_dir.join(path)).unwrap();
        assert_eq!(found.mode() & 0o777, mode, "{path}");
        assert_ne!(found.uid(), 0, "{path}");
    };
    check("postgres", 0o700);
    check("postgres.password", 0o600);
    check("socket", 0o700);
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_works() {
    let data_dir = initialized(&"long".repeat(30));
    let running = start(&data_dir);
    let sockets = PathBuf::from(
        ask(&running.url("postgres"), "SHOW unix_socket_directories")
            .await
            .unwrap()
            .trim_matches('"'),
    );
    assert!(sockets.starts_with("/tmp"), "{}", sockets.display());
    assert_eq!(fs::metadata(&sockets).unwrap().mode() & 0o777, 0o700);
    running.stop();
    assert!(!sockets.exists());
}

#[test]
fn a_data_folder_of_another_version_is_refused() {
    let data_dir = initialized("version");
    fs::write(data_dir.join("postgres/PG_VERSION"), "9.6\n").unwrap();
    let error = PrivatePostgres::start(&options(&data_dir)).unwrap_err();
    assert!(
        matches!(error, PrivatePostgresError::OtherVersion { made_by: 9, .. }),
        "{error}"
    );
}

#[test]
fn a_start_cleans_up_after_an_interrupted_one() {
    let data_dir = DataDir(folder("interrupted"));
    fs::create_dir_all(data_dir.join("postgres.new-1/base")).unwrap();
    fs::write(data_dir.join("postgres.new-1.password"), "").unwrap();
    start(&data_dir).stop();
    assert!(!data_dir.join("postgres.new-1").exists());
    assert!(!data_dir.join("postgres.new-1.password").exists());
}

#[test]
fn the_error_names_the_command_that_installs_a_missing_postgresql() {
    let empty = folder("no-programs");
    fs::create_dir_all(&empty).unwrap();
    let mut command = Helper::command(&env::current_exe().unwrap(), &folder("not-installed"));
    command.env("PG_BIN", &empty);
    let first_line = &Helper::spawn(command).first_line;
    assert!(
        first_line.starts_with("PostgreSQL is not installed (looked in PG_BIN = /"),
        "{first_line}"
    );
    assert!(first_line.contains("install it with "), "{first_line}");
    assert!(!folder("not-installed").exists());
}

#[test]
fn an_untraversable_parent_folder_is_named_with_the_fix() {
    if fs::metadata(folder("")).unwrap().uid() != 0 {
        return; // Only for root PostgreSQL runs as another user.
    }
    let closed = folder("closed");
    fs::create_dir_all(closed.join("inner")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = PrivatePostgres::start(&options(&closed.join("inner/data"))).unwrap_err();
    assert!(
        matches!(&error, PrivatePostgresError::Untraversable { folder, .. } if *folder == closed),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("`chmod o+x {}`", closed.display())));
    assert!(!closed.join("inner/data").exists());

    let own_and_empty = folder("empty");
    fs::create_dir(&own_and_empty).unwrap();
    fs::set_permissions(&own_and_empty, fs::Permissions::from_mode(0o700)).unwrap();
    start(&own_and_empty).stop();
}

#[tokio::test]
async fn root_runs_the_server_of_an_ordinary_user_as_that_user() {
    if fs::metadata(folder("")).unwrap().uid() != 0 {
        return; // Then all other tests run it as an ordinary user.
    }
    let home = folder("nobody");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let program = folder("it");
    let this = env::current_exe().unwrap();
    fs::hard_link(&this, &program)
        .or_else(|_| fs::copy(&this, &program).map(drop))
        .unwrap();
    let mut command = Helper::command(&program, &home.join("data"));
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let mut owner = Helper::spawn(command);
    write(&owner.first_line).await;
    let server = postmaster(&home.join("data")).unwrap();
    assert_eq!(fs::metadata(home.join("data/postgres")).unwrap().uid(), NOBODY);
    owner.kill();
    if cfg!(target_os = "linux") {
        wait_until_ended(server);
    }

    let running = start(&home.join("data"));
    assert_kept(&running.url("postgres")).await;
    running.stop();
    assert_eq!(fs::metadata(home.join("data/socket")).unwrap().uid(), NOBODY);
}
