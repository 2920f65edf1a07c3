//! Runs a private PostgreSQL: the machine's installed programs over a data folder, for a program that has no other
//! database.
//!
//! The server is reached by a Unix socket that only its own user can reach, and by a loopback port with a password. It
//! ends with the process that owns it. Any number of processes may use one data folder: the first owns the server, the
//! others are guests, and one of them starts it again when the owner ends.
//!
//! # Why not `postgresql_embedded`
//!
//! Version 0.22 can run installed programs, and with `fsync=on` among its settings it writes durably (it passes `-F`, which
//! turns fsync off, but the setting comes later and wins). Its source shows why it still cannot replace this crate:
//!
//! - It never changes the user that programs run as; `initdb` and `postgres` refuse to run as root.
//! - It starts servers through `pg_ctl`, which detaches them: a server outlives an owner that is killed.
//! - It takes any `postmaster.pid` for a running server, even one that a killed server has left.
//! - Dropping its value stops the server, even one that another process has started. Nothing restarts a server that ends.
//! - It takes a folder with `postgresql.conf` for complete data, even if `initdb` was interrupted.

use std::env;
use std::path::{Path, PathBuf};

use folder::{Folder, Lock};
use programs::{Programs, Search, Wanted};
use server::{Endpoint, ServerConfig};
use supervisor::Supervisor;

pub use error::PrivatePostgresError;

mod account;
mod cluster;
mod error;
mod folder;
mod install;
mod process;
mod programs;
mod server;
mod sockets;
mod supervisor;

/// How to run a private PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivatePostgresOptions {
    /// The folder that holds everything of the server; made if absent.
    pub data_dir: PathBuf,
    /// The oldest major version that will do.
    pub oldest_major: u32,
    /// Whether data survives a crash of the machine. Without this the server is faster, and such a crash can lose
    /// everything.
    pub durable: bool,
    /// Settings of PostgreSQL besides its defaults, for example `max_connections`.
    pub settings: Vec<(String, String)>,
}

impl PrivatePostgresOptions {
    /// A durable server of any version that this crate can run.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            // The first that has the authentication `scram-sha-256`.
            oldest_major: 10,
            durable: true,
            settings: Vec::new(),
        }
    }
}

/// A private PostgreSQL that runs while this value lives, whatever happens to the process that owns it.
///
/// For guests and owner alike, a server that ends early is started again at the same endpoint. It is down for that moment.
#[derive(Debug)]
pub struct PrivatePostgres {
    endpoint: Endpoint,
    password_file: PathBuf,
    _supervisor: Supervisor,
}

impl PrivatePostgres {
    /// Starts the server of `options.data_dir`, or joins the one that another process has started, whose settings then
    /// hold. Blocks until it is ready: tens of milliseconds, about a second when the data has to be made, and as long
    /// as recovery takes after a crash.
    ///
    /// # Errors
    /// Every [`PrivatePostgresError`] says what to do.
    pub fn start(options: &PrivatePostgresOptions) -> Result<Self, PrivatePostgresError> {
        let folder = Folder::at(&options.data_dir)?;
        let cluster = folder.cluster();
        let account = account::Account::choose(&cluster)?;
        folder.open_if_empty()?;
        let wanted = Wanted {
            oldest_major: options.oldest_major,
            cluster: &cluster,
            made_by: folder.made_by()?,
        };
        let programs = Programs::choose(&Search::of_this_machine(), wanted, |programs| {
            programs::probe(programs, &account, folder.nearest_existing())
        })?;
        folder.make()?;
        let lock = Lock::open(&folder)?;
        let password_file = folder.password_file();
        let config = ServerConfig {
            folder,
            programs,
            account,
            durable: options.durable,
            settings: options.settings.clone(),
        };
        let (supervisor, endpoint) = Supervisor::start(config, lock)?;
        Ok(Self {
            endpoint,
            password_file,
            _supervisor: supervisor,
        })
    }

    /// Returns `postgres://…` of a database, through the Unix socket.
    pub fn url(&self, database: &str) -> String {
        url(&self.endpoint, database)
    }

    /// Returns the port on 127.0.0.1, for the user `postgres` with the password in [`password_file`](Self::password_file).
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// Ends the server and waits for it, unless another process owns it. The same happens on drop.
    pub fn stop(self) {}
}

/// Returns `/var/lib/{application}` for root, else `$XDG_DATA_HOME/{application}`.
pub fn default_data_dir(application: &str) -> PathBuf {
    if account::is_root() {
        return Path::new("/var/lib").join(application);
    }
    let data_home = env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    users_data_dir(application, data_home, env::home_dir())
}

fn users_data_dir(application: &str, data_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    // The XDG Base Directory Specification says that relative paths are to be ignored.
    let absolute = |path: &PathBuf| path.is_absolute();
    match (data_home.filter(absolute), home.filter(absolute)) {
        (Some(data_home), _) => data_home.join(application),
        (None, Some(home)) => home.join(".local/share").join(application),
        (None, None) => PathBuf::from(format!(".{application}")),
    }
}

fn url(endpoint: &Endpoint, database: &str) -> String {
    format!(
        "postgres://postgres@{}:{}/{}",
        percent_encoded(endpoint.sockets.as_os_str().as_encoded_bytes()),
        endpoint.port,
        percent_encoded(database.as_bytes())
    )
}

fn percent_encoded(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use sqlx::postgres::PgConnectOptions;

    use super::*;

    #[test]
    fn data_goes_where_the_system_keeps_it() {
        let check = |data_home: Option<&str>, home: Option<&str>, expected: &str| {
            let found = users_data_dir("shop", data_home.map(PathBuf::from), home.map(PathBuf::from));
            assert_eq!(found, Path::new(expected));
        };
        check(Some("/x"), Some("/home/me"), "/x/shop");
        check(None, Some("/home/me"), "/home/me/.local/share/shop");
        check(Some(""), Some("/home/me"), "/home/me/.local/share/shop");
        check(Some("x"), Some("/home/me"), "/home/me/.local/share/shop");
        check(None, None, ".shop");
    }

    #[test]
    fn urls_hold_any_path() {
        let check = |sockets: &str, database: &str| {
            let endpoint = Endpoint {
                sockets: PathBuf::from(sockets),
                port: 54_321,
            };
            let options = PgConnectOptions::from_str(&url(&endpoint, database)).unwrap();
            assert_eq!(options.get_socket().unwrap(), Path::new(sockets));
            assert_eq!((options.get_port(), options.get_database()), (54_321, Some(database)));
        };
        check("/var/lib/shop/socket", "shop");
        check("/home/Jürgen Müller/100%/a@b:c?d#e/socket", "it's a/b?c");
    }
}
