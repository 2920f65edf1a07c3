//! TLS. The server takes over changed certificate and key files without a restart.

mod files;
pub mod options;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use self::files::TlsFiles;
use self::options::TlsOptions;
use domain::error::chain;

pub use self::files::TlsError;

/// The configuration for new connections. Open ones keep the configuration that they began with.
pub struct Tls {
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Returns what accepts one new connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

/// Reads the files. Returns `None` when TLS is off. `has_http1`: whether clients may choose HTTP/1.1.
///
/// # Errors
/// Names the configuration key and the path of a file that cannot be read or used.
pub fn load(options: &TlsOptions, has_http1: bool) -> Result<Option<(Arc<Tls>, Watch)>, TlsError> {
    let Some(files) = TlsFiles::read(options, has_http1)? else {
        return Ok(None);
    };
    let tls = Arc::new(Tls {
        current: ArcSwap::from_pointee(files.server_config()?),
    });
    let watch = Watch {
        tls: tls.clone(),
        files,
        unreadable: None,
        interval: Duration::from_millis(options.reload_interval_ms),
    };
    Ok(Some((tls, watch)))
}

/// Takes over the files when they have changed.
pub struct Watch {
    tls: Arc<Tls>,
    /// The files as last read, usable or not.
    files: TlsFiles,
    /// Why the files could not be read the last time.
    unreadable: Option<String>,
    interval: Duration,
}

impl Watch {
    /// Checks the files once an interval. It never returns.
    pub async fn follow(mut self) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(watch) => self = watch,
                Err(error) => {
                    tracing::error!(%error, "the TLS files are no longer checked for changes");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        match self.files.read_again() {
            Ok(files) if files == self.files && self.unreadable.is_none() => {}
            Ok(files) => {
                self.unreadable = None;
                self.files = files;
                match self.files.server_config() {
                    Ok(config) => {
                        self.tls.current.store(Arc::new(config));
                        tracing::info!("new connections use the changed TLS files");
                    }
                    Err(error) => refuse(&chain(&error)),
                }
            }
            Err(error) => {
                let error = Some(chain(&error));
                if self.unreadable != error {
                    refuse(error.as_deref().unwrap_or_default());
                    self.unreadable = error;
                }
            }
        }
    }
}

fn refuse(error: &str) {
    tracing::error!(
        error,
        "the changed TLS files cannot be used, so the previous ones stay in force: {error}"
    );
}
