//! Starts a PostgreSQL, waits until it is ready, and ends it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::account::Account;
use super::error::PrivatePostgresError;
use super::folder::{Folder, Lock};
use super::process;
use super::programs::Programs;
use super::sockets::{self, Sockets};

/// The longest wait for a server: recovery after a crash takes its time.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// A wait that is longer than this is logged.
const SILENCE: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(5);

/// Attempts to start, while the port is taken or the sessions of a killed server are still ending.
const ATTEMPTS: u32 = 50;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The folder of the Unix socket.
    pub sockets: PathBuf,
    pub port: u16,
}

/// Everything that is needed to start a server.
#[derive(Debug)]
pub struct ServerConfig {
    pub folder: Folder,
    pub programs: Programs,
    pub account: Account,
    pub durable: bool,
    pub settings: Vec<(String, String)>,
}

/// A server that is a child of this process.
#[derive(Debug)]
pub struct Server {
    pub endpoint: Endpoint,
    child: Child,
    /// Removed after the server has ended.
    _sockets: Sockets,
}

impl ServerConfig {
    /// Ends the server that an earlier run left, if any, and starts a new one. The caller holds `lock`, and its thread
    /// must live as long as the server.
    ///
    /// `fixed_port`: the port that the server must have; `None` takes that of the last server if it is free, else any.
    ///
    /// # Errors
    /// [`PrivatePostgresError::Ended`] with the end of the log; [`PrivatePostgresError::StillRunning`].
    pub fn start(&self, lock: &Lock, fixed_port: Option<u16>) -> Result<Server, PrivatePostgresError> {
        let mut attempt = 1;
        loop {
            self.clear_leftovers()?;
            let port = fixed_port.map_or_else(|| self.free_port(lock), Ok)?;
            match self.spawn(port) {
                Ok(server) => {
                    lock.set_port(server.endpoint.port)?;
                    return Ok(server);
                }
                Err(PrivatePostgresError::Ended { tail, .. })
                    if attempt < ATTEMPTS && (is_passing(&tail) || (fixed_port.is_none() && port_was_taken(&tail))) =>
                {
                    attempt += 1;
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds the server of another process that owns the data, once it is ready.
    pub fn running(&self) -> Option<Endpoint> {
        let found = PidFile::read(&self.folder.cluster())?;
        let answers = found.ready && UnixStream::connect(sockets::socket(&found.sockets, found.port)).is_ok();
        answers.then_some(Endpoint {
            sockets: found.sockets,
            port: found.port,
        })
    }

    /// Cleans up after a process that was killed: ends its server if that still runs, and removes a `postmaster.pid`
    /// that would keep PostgreSQL from starting.
    fn clear_leftovers(&self) -> Result<(), PrivatePostgresError> {
        let cluster = self.folder.cluster();
        let Some(pid) = PidFile::pid(&cluster) else {
            return Ok(());
        };
        let runs = || process::is_postmaster(pid, &cluster, &self.account);
        if runs() {
            tracing::warn!(pid, folder = %cluster.display(), "ending the PostgreSQL that an earlier run left");
            if !process::end(pid, || !runs()) {
                return Err(PrivatePostgresError::StillRunning { folder: cluster, pid });
            }
        }
        // PostgreSQL itself handles the number of a process that is gone, but takes a zombie, or a later process of the
        // same number, for a running server.
        if process::exists(pid) {
            let path = PidFile::path(&cluster);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(PrivatePostgresError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the port of the last server if it is free, else any free port.
    fn free_port(&self, lock: &Lock) -> Result<u16, PrivatePostgresError> {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match lock.port().map(free) {
            Some(Ok(listener)) => Ok(listener),
            _ => free(0),
        };
        listener
            .and_then(|listener| listener.local_addr())
            .map(|address| address.port())
            .map_err(PrivatePostgresError::io("find a free port for", &self.folder.root))
    }

    fn spawn(&self, port: u16) -> Result<Server, PrivatePostgresError> {
        let sockets = Sockets::make(&self.folder, &self.account)?;
        let (log, log_start) = self.folder.open_log()?;
        let program = self.programs.postgres();
        let mut command = process::command(&program, &self.account);
        command.arg("-D").arg(self.folder.cluster());
        for (name, value) in self.all_settings(&sockets.path, port) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let child = log
            .try_clone()
            .and_then(|copy| command.stdout(copy).stderr(log).spawn())
            .map_err(PrivatePostgresError::io("run", &program))?;
        let endpoint = Endpoint {
            sockets: sockets.path.clone(),
            port,
        };
        let mut server = Server {
            endpoint,
            child,
            _sockets: sockets,
        };
        self.wait_until_ready(&mut server, log_start)?;
        Ok(server)
    }

    fn wait_until_ready(&self, server: &mut Server, log_start: u64) -> Result<(), PrivatePostgresError> {
        let mut wait = Wait::begin(self.folder.log_file());
        loop {
            let found = PidFile::read(&self.folder.cluster());
            if found.is_some_and(|found| found.ready && found.pid == server.pid()) {
                return Ok(());
            }
            if !server.is_running() {
                return Err(PrivatePostgresError::Ended {
                    log: self.folder.log_file(),
                    tail: log_since(&self.folder.log_file(), log_start),
                });
            }
            wait.go_on("waiting for PostgreSQL, which may be recovering")?;
        }
    }

    fn all_settings(&self, sockets: &Path, port: u16) -> Vec<(String, String)> {
        let quoted = format!("\"{}\"", sockets.display().to_string().replace('"', "\"\""));
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = vec![own("log_checkpoints", "off")];
        if !self.durable {
            settings.extend(["fsync", "full_page_writes"].map(|name| own(name, "off")));
        }
        settings.extend(self.settings.iter().cloned());
        // These come last, so that nothing overrides what the rest of this crate relies on.
        settings.extend([
            own("port", &port.to_string()),
            own("listen_addresses", "127.0.0.1"),
            own("unix_socket_directories", &quoted),
        ]);
        settings
    }
}

impl Server {
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Server {
    /// Ends the server and waits for it.
    fn drop(&mut self) {
        if self.is_running() && !process::end(self.pid(), || !self.is_running()) {
            tracing::error!(pid = self.pid(), "PostgreSQL does not end");
        }
    }
}

/// A wait for a server, which is logged when it takes long and given up after [`START_TIMEOUT`].
pub struct Wait {
    started: Instant,
    is_logged: bool,
    log: PathBuf,
}

impl Wait {
    pub fn begin(log: PathBuf) -> Self {
        Self {
            started: Instant::now(),
            is_logged: false,
            log,
        }
    }

    /// Sleeps for a moment. `message` says what is waited for.
    ///
    /// # Errors
    /// [`PrivatePostgresError::NotReady`] when it has taken too long.
    pub fn go_on(&mut self, message: &str) -> Result<(), PrivatePostgresError> {
        let elapsed = self.started.elapsed();
        if elapsed > START_TIMEOUT {
            return Err(PrivatePostgresError::NotReady {
                log: self.log.clone(),
                seconds: START_TIMEOUT.as_secs(),
            });
        }
        if elapsed > SILENCE && !self.is_logged {
            self.is_logged = true;
            tracing::info!(log = %self.log.display(), "{message}");
        }
        std::thread::sleep(POLL);
        Ok(())
    }
}

/// The content of `postmaster.pid`, in which a server describes itself.
#[derive(Debug, PartialEq, Eq)]
struct PidFile {
    pid: i32,
    port: u16,
    sockets: PathBuf,
    ready: bool,
}

impl PidFile {
    fn path(cluster: &Path) -> PathBuf {
        cluster.join("postmaster.pid")
    }

    fn pid(cluster: &Path) -> Option<i32> {
        let text = fs::read_to_string(Self::path(cluster)).ok()?;
        text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)
    }

    fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(Self::path(cluster)).ok()?)
    }

    /// The lines are: process, data folder, start time, port, socket folder, address, shared memory, status. The later
    /// ones are written as the start goes on.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            port: lines.get(3)?.parse().ok()?,
            sockets: PathBuf::from(lines.get(4)?),
            ready: lines.get(7).is_some_and(|status| *status == "ready"),
        })
    }
}

/// Returns whether a start failed only because the sessions of a killed server are still ending.
fn is_passing(log: &str) -> bool {
    log.contains("pre-existing shared memory block") || log.contains("lock file \"postmaster.pid\" already exists")
}

/// Returns whether a start failed because another process has taken the port.
fn port_was_taken(log: &str) -> bool {
    log.contains("could not create any TCP/IP sockets")
}

/// Reads the log from `start` on, but no more than helps in an error.
fn log_since(log: &Path, start: u64) -> String {
    const LONGEST_BYTES: u64 = 4 * 1024;
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(LONGEST_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    read().map_or_else(
        |error| error.to_string(),
        |bytes| String::from_utf8_lossy(&bytes).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postmaster_pid_is_read() {
        let check = |text: &str, expected: Option<PidFile>| assert_eq!(PidFile::parse(text), expected, "{text}");
        let found = |ready| {
            Some(PidFile {
                pid: 6003,
                port: 54329,
                sockets: PathBuf::from("/data/socket"),
                ready,
            })
        };
        let start = "6003\n/data/postgres\n1763968157\n54329\n/data/socket\n127.0.0.1\n 12 7\n";
        check(&format!("{start}ready   \n"), found(true));
        check(&format!("{start}starting\n"), found(false));
        check(&format!("{start}stopping\n"), found(false));
        check(start, found(false));
        check("6003\n/data/postgres\n1763968157\n54329\n", None);
        check("", None);
    }
}
