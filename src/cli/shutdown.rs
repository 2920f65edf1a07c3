//! Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed.

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled at the first of these signals; at the second the process ends at once.
pub(super) fn requested() -> CancellationToken {
    let token = CancellationToken::new();
    let requested = token.clone();
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = match kinds.into_iter().map(signal).collect::<Result<Vec<Signal>, _>>() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "signals cannot be caught; stopping will not be graceful");
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
