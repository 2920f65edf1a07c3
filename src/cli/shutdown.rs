//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled at the first Ctrl-C or SIGTERM; at the second the process ends at once.
pub(super) fn requested() -> CancellationToken {
    let token = CancellationToken::new();
    let requested = token.clone();
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "signals cannot be caught; stopping will not be graceful");
            return token;
        }
    };
    tokio::spawn(async move {
        next(&mut interrupt, &mut terminate).await;
        requested.cancel();
        next(&mut interrupt, &mut terminate).await;
        std::process::exit(130);
    });
    token
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
