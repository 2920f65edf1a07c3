//! A private PostgreSQL: the machine's installed programs over a data folder, for whoever has no `database.url`.
//!
//! It is reached by a Unix socket that only its own user can reach, and by a loopback port with a password. It ends
//! with the process that owns it. Any number of processes may use one data folder: the first owns the server, the
//! others are guests, and one of them starts it again when the owner ends.

use std::env;
use std::path::{Path, PathBuf};

use folder::{Folder, Lock};
use programs::{Programs, Search};
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
    /// Holds everything of it; made if absent.
    pub data_dir: PathBuf,
    /// On the loopback interface; 0 takes that of the last time, or any that is free.
    pub port: u16,
    /// Turned off, it is faster, and a crash of the machine can lose everything.
    pub durable: bool,
    /// Settings of PostgreSQL besides its defaults, for example `max_connections`.
    pub settings: Vec<(String, String)>,
}

impl Default for PrivatePostgresOptions {
    fn default() -> Self {
        Self {
            data_dir: default_data_dir(),
            port: 0,
            durable: true,
            settings: Vec::new(),
        }
    }
}

/// A private PostgreSQL that runs while this value lives, whatever happens to the process that owns it.
///
/// Guest or owner: a server that ends early is started again at the same place. It is down for that moment.
#[derive(Debug)]
pub struct PrivatePostgres {
    place: Endpoint,
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
        let programs = Programs::choose(&Search::of_this_machine(), &cluster, folder.made_by()?, |programs| {
            programs::probe(programs, &account, folder.nearest_existing())
        })?;
        folder.make()?;
        let lock = Lock::open(&folder)?;
        let password_file = folder.password_file();
        let config = ServerConfig {
            folder,
            programs,
            account,
            port: options.port,
            durable: options.durable,
            settings: options.settings.clone(),
        };
        let (supervisor, place) = Supervisor::start(config, lock)?;
        Ok(Self {
            place,
            password_file,
            _supervisor: supervisor,
        })
    }

    /// `postgres://…` of a database, through the Unix socket.
    pub fn url(&self, database: &str) -> String {
        let folder = self.place.sockets.as_os_str().as_encoded_bytes();
        format!(
            "postgres://postgres@{}:{}/{}",
            percent_encoded(folder),
            self.place.port,
            percent_encoded(database.as_bytes())
        )
    }

    /// On 127.0.0.1, for the user `postgres` with the password in [`password_file`](Self::password_file).
    pub fn port(&self) -> u16 {
        self.place.port
    }

    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// Ends the server and waits for it, unless it is another process's. The same happens on drop.
    pub fn stop(self) {}
}

/// `/var/lib/likemind` for root, else `$XDG_DATA_HOME/likemind`.
pub fn default_data_dir() -> PathBuf {
    if account::is_root() {
        return PathBuf::from("/var/lib/likemind");
    }
    users_data_dir(env::var_os("XDG_DATA_HOME").map(PathBuf::from), env::home_dir())
}

fn users_data_dir(data_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    // The specification wants relative ones ignored.
    let absolute = |path: &PathBuf| path.is_absolute();
    match (data_home.filter(absolute), home.filter(absolute)) {
        (Some(data_home), _) => data_home.join("likemind"),
        (None, Some(home)) => home.join(".local/share/likemind"),
        (None, None) => PathBuf::from(".likemind"),
    }
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
            let found = users_data_dir(data_home.map(PathBuf::from), home.map(PathBuf::from));
            assert_eq!(found, Path::new(expected));
        };
        check(Some("/x"), Some("/home/me"), "/x/likemind");
        check(None, Some("/home/me"), "/home/me/.local/share/likemind");
        check(Some(""), Some("/home/me"), "/home/me/.local/share/likemind");
        check(Some("x"), Some("/home/me"), "/home/me/.local/share/likemind");
        check(None, None, ".likemind");
    }

    #[test]
    fn urls_hold_any_path() {
        let check = |folder: &str, database: &str| {
            let url = format!(
                "postgres://postgres@{}:54321/{}",
                percent_encoded(folder.as_bytes()),
                percent_encoded(database.as_bytes())
            );
            let options = PgConnectOptions::from_str(&url).unwrap();
            assert_eq!(options.get_socket().unwrap(), Path::new(folder));
            assert_eq!((options.get_port(), options.get_database()), (54_321, Some(database)));
        };
        check("/var/lib/likemind/socket", "likemind");
        check("/home/Jürgen Müller/100%/a@b:c?d#e/socket", "it's a/b?c");
    }
}
