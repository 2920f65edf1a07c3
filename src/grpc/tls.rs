//! TLS: what new connections are secured with. It follows its files without a restart.

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

/// What new connections are secured with; those that are open keep what they began with.
pub struct Tls {
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// For one connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

/// Reads the files; `None` where TLS is off.
///
/// # Errors
/// A file that cannot be read or used, by its key and path.
pub fn load(options: &TlsOptions) -> Result<Option<(Arc<Tls>, Watch)>, TlsError> {
    let Some(files) = TlsFiles::read(options)? else {
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

/// Swaps what is in force when the files have changed.
pub struct Watch {
    tls: Arc<Tls>,
    /// As last read, whether they could be used or not.
    files: TlsFiles,
    /// Why they could not be read the last time.
    unreadable: Option<String>,
    interval: Duration,
}

impl Watch {
    /// Ends never.
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
                    tracing::error!(%error, "the files of TLS are not looked at any more");
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
                        tracing::info!("new connections use the changed files of TLS");
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
        "the changed files of TLS cannot be used; what was in force stays: {error}"
    );
}
