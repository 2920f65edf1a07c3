//! The thread that keeps a server running under a data folder, as its owner or as a guest.
//!
//! Whoever holds the lock owns the server: started it, ends it, and starts it again when it dies. Guests use it, and
//! the first of them to notice that the owner has ended takes over, at the same place, so that URLs stay right.

use std::error::Error;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::cluster;
use super::error::PrivatePostgresError;
use super::folder::Lock;
use super::server::{Endpoint, SILENCE, START_TIMEOUT, Server, ServerConfig};

/// How soon a dead server or a missing owner is noticed.
const POLL: Duration = Duration::from_millis(100);

/// Between attempts to start a server again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Supervisor {
    /// Closed to stop the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Returns when a server is ready, one's own or that of another process.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(config: ServerConfig, lock: Lock) -> Result<(Self, Endpoint), PrivatePostgresError> {
        let path = config.folder.root.clone();
        let (stop, stopped) = mpsc::channel();
        let (ready, found) = mpsc::channel();
        // The server gets SIGINT when the thread that started it ends: this one lives exactly as long as it should.
        let thread = thread::Builder::new()
            .name("postgresql".to_owned())
            .spawn(move || match Role::begin(config, lock) {
                Ok(tenancy) => {
                    // Nobody waits any more only when the process is ending.
                    let _ = ready.send(Ok(tenancy.place.clone()));
                    tenancy.keep(&stopped);
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
            Ok(place) => Ok((supervisor, place?)),
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
            // A panic has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

/// What a process has to do with the server; the server is ended before the lock is let go.
struct Role {
    place: Endpoint,
    server: Option<Server>,
    is_owner: bool,
    lock: Lock,
    config: ServerConfig,
}

impl Role {
    fn begin(config: ServerConfig, lock: Lock) -> Result<Self, PrivatePostgresError> {
        let started = Instant::now();
        let mut silent = true;
        loop {
            if lock.try_take()? {
                cluster::ensure(&config)?;
                let server = config.start(&lock, None)?;
                tracing::info!(
                    folder = %config.folder.root.display(),
                    version = config.programs.major,
                    port = server.place.port,
                    millis = started.elapsed().as_millis(),
                    "private PostgreSQL started"
                );
                return Ok(Self {
                    place: server.place.clone(),
                    server: Some(server),
                    is_owner: true,
                    lock,
                    config,
                });
            }
            if let Some(place) = config.running() {
                tracing::info!(
                    folder = %config.folder.root.display(),
                    port = place.port,
                    "using the private PostgreSQL of another process"
                );
                return Ok(Self {
                    place,
                    server: None,
                    is_owner: false,
                    lock,
                    config,
                });
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(PrivatePostgresError::NotReady {
                    log: config.folder.log_file(),
                    seconds: START_TIMEOUT.as_secs(),
                });
            }
            if silent && started.elapsed() > SILENCE {
                silent = false;
                let log = config.folder.log_file();
                tracing::info!(log = %log.display(), "waiting for another process to start the private PostgreSQL");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn keep(mut self, stopped: &Receiver<()>) {
        let mut pause = POLL;
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            match self.tend() {
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

    fn tend(&mut self) -> Result<(), PrivatePostgresError> {
        if !self.is_owner {
            self.is_owner = self.lock.try_take()?;
            if !self.is_owner {
                return Ok(());
            }
            tracing::info!(
                port = self.place.port,
                "the owner of the private PostgreSQL has ended; taking over"
            );
        } else if let Some(server) = &mut self.server {
            if server.is_running() {
                return Ok(());
            }
            let log = self.config.folder.log_file();
            tracing::error!(log = %log.display(), "private PostgreSQL ended unexpectedly; starting it again");
        }
        // Its socket folder is needed for the next one.
        self.server = None;
        self.server = Some(self.config.start(&self.lock, Some(self.place.port))?);
        Ok(())
    }
}
