//! The thread that keeps a server running over a data folder, as its owner or as a guest.
//!
//! The process that holds the lock owns the server: it has started it, ends it, and starts it again when it dies. Guests
//! use it, and the first guest to notice that the owner has ended takes over at the same endpoint, so that URLs stay valid.

use std::error::Error;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::cluster;
use super::error::PrivatePostgresError;
use super::folder::Lock;
use super::server::{Endpoint, Server, ServerConfig, Wait};

/// The time between two looks for a dead server or a missing owner.
const POLL: Duration = Duration::from_millis(100);

/// The longest pause between attempts to start a server again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Supervisor {
    /// Closed to stop the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Returns when a server is ready, this process's own or that of another one.
    ///
    /// # Errors
    /// When no server can be started or joined.
    pub fn start(config: ServerConfig, lock: Lock) -> Result<(Self, Endpoint), PrivatePostgresError> {
        let path = config.folder.root.clone();
        let (stop, stopped) = mpsc::channel();
        let (ready, found) = mpsc::channel();
        // The server gets SIGINT when the thread that started it ends, so this one lives exactly as long as the server should.
        let thread = thread::Builder::new()
            .name("postgresql".to_owned())
            .spawn(move || match Role::begin(config, lock) {
                Ok(role) => {
                    // Sending fails only when the process is ending.
                    let _ = ready.send(Ok(role.endpoint.clone()));
                    role.keep(&stopped);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            })
            .map_err(PrivatePostgresError::io("start a thread for", &path))?;
        let supervisor = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        match found.recv() {
            Ok(endpoint) => Ok((supervisor, endpoint?)),
            Err(_) => Err(PrivatePostgresError::io("keep a server in", &path)(io::Error::other(
                "the thread panicked",
            ))),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic already.
            let _ = thread.join();
        }
    }
}

/// The part that this process plays for a server: owner or guest.
struct Role {
    endpoint: Endpoint,
    /// Stands before `lock`: the server ends before the lock is released.
    server: Option<Server>,
    is_owner: bool,
    lock: Lock,
    config: ServerConfig,
}

impl Role {
    fn begin(config: ServerConfig, lock: Lock) -> Result<Self, PrivatePostgresError> {
        let started = Instant::now();
        let folder = config.folder.root.display();
        let mut wait = Wait::begin(config.folder.log_file());
        loop {
            if lock.try_take()? {
                cluster::ensure(&config)?;
                let server = config.start(&lock, None)?;
                let (version, port) = (config.programs.major, server.endpoint.port);
                let millis = started.elapsed().as_millis();
                tracing::info!(%folder, version, port, millis, "private PostgreSQL started");
                return Ok(Self {
                    endpoint: server.endpoint.clone(),
                    server: Some(server),
                    is_owner: true,
                    lock,
                    config,
                });
            }
            if let Some(endpoint) = config.running() {
                let port = endpoint.port;
                tracing::info!(%folder, port, "using the private PostgreSQL of another process");
                return Ok(Self {
                    endpoint,
                    server: None,
                    is_owner: false,
                    lock,
                    config,
                });
            }
            wait.go_on("waiting for another process to start the private PostgreSQL")?;
        }
    }

    fn keep(mut self, stopped: &Receiver<()>) {
        let mut pause = POLL;
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            match self.check() {
                Ok(()) => pause = POLL,
                Err(error) => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    let error: &dyn Error = &error;
                    tracing::error!(
                        error,
                        retry_ms = pause.as_millis(),
                        "private PostgreSQL could not be started again"
                    );
                }
            }
        }
    }

    /// Takes over from an owner that has ended, and starts the server again if it has ended.
    fn check(&mut self) -> Result<(), PrivatePostgresError> {
        if !self.is_owner {
            self.is_owner = self.lock.try_take()?;
            if !self.is_owner {
                return Ok(());
            }
            tracing::info!(
                port = self.endpoint.port,
                "the owner of the private PostgreSQL has ended; taking over"
            );
        } else if let Some(server) = &mut self.server {
            if server.is_running() {
                return Ok(());
            }
            let log = self.config.folder.log_file();
            tracing::error!(log = %log.display(), "private PostgreSQL ended unexpectedly; starting it again");
        }
        // The old one is dropped first: the new one needs its socket folder.
        self.server = None;
        self.server = Some(self.config.start(&self.lock, Some(self.endpoint.port))?);
        Ok(())
    }
}
