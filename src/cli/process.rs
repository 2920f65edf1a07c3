//! This process: its name in the audit log, and the signals that ask it to stop.

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use domain::access::{Caller, Role};

/// Names this process as the actor in the audit log and as the holder of a lease.
pub(super) fn actor() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("process {} on {}", std::process::id(), host.trim())
}

/// Returns a token that is cancelled at the first Ctrl-C, SIGTERM, or SIGHUP of a closed terminal. At the second signal
/// the process exits at once.
pub(super) fn shutdown_requested() -> CancellationToken {
    let token = CancellationToken::new();
    let requested = token.clone();
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = match kinds.into_iter().map(signal).collect::<Result<Vec<Signal>, _>>() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "signals cannot be handled, so this process cannot shut down gracefully");
            return token;
        }
    };
    tokio::spawn(async move {
        next(&mut signals).await;
        requested.cancel();
        next(&mut signals).await;
        std::process::exit(130);
    });
    token
}

async fn next(signals: &mut [Signal]) {
    select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}

/// Returns the caller that a command acts as: an operator who sees all merchants.
pub(super) fn operator() -> Caller {
    Caller {
        key: None,
        name: actor().into(),
        role: Role::Operator,
        merchant: None,
    }
}
