//! Accepting connections, plain or secured.

mod connection;

use std::future::ready;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use metrics::{Counter, counter};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::tls::Tls;

pub use self::connection::Connection;

/// For a client to prove itself; a local one needs milliseconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way; who comes then waits in the queue of the listener.
const MAX_HANDSHAKES: usize = 1_024;
/// Until accepting is tried again when nothing can be accepted: as a rule the process has no file left.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of `listener` as they are ready for requests, secured where there is `tls`; ends never.
///
/// Handshakes run beside each other, so that nobody waits for a slow client.
pub fn connections(listener: TcpListener, tls: Option<Arc<Tls>>) -> impl Stream<Item = Connection> {
    let failures = counter!("likemind_tls_handshake_failures_total");
    accepted(listener)
        .map(move |connection| secured(connection, tls.clone(), failures.clone()))
        .buffer_unordered(MAX_HANDSHAKES)
        .filter_map(ready)
}

/// `None` when the handshake fails: that is the client's trouble, and may be an attack, so no line in the usual log.
async fn secured(connection: TcpStream, tls: Option<Arc<Tls>>, failures: Counter) -> Option<Connection> {
    let Some(tls) = tls else {
        return Some(Connection::Plain(connection));
    };
    let client = connection.peer_addr().ok();
    let handshake = timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(connection));
    // A task of its own, for its signature may take a millisecond.
    let error = match AbortOnDropHandle::new(tokio::spawn(handshake)).await {
        Ok(Ok(Ok(connection))) => return Some(Connection::Secured(Box::new(connection))),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => format!("not done within {HANDSHAKE_TIMEOUT:?}"),
        Err(error) => error.to_string(),
    };
    failures.increment(1);
    tracing::debug!(
        client = client.map(tracing::field::display),
        error,
        "a TLS handshake failed: {error}"
    );
    None
}

/// tonic by itself would ask again at once, and so do nothing else, for as long as there is no file left.
fn accepted(listener: TcpListener) -> impl Stream<Item = TcpStream> {
    unfold((listener, true), async |(listener, mut is_accepting)| {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    if !is_accepting {
                        tracing::info!("connections are accepted again");
                    }
                    // Without it an answer of more than one segment waits for the client's delayed acknowledgement,
                    // 40 ms. tonic sets it only for a listener of its own. Of a connection that is gone already
                    // whoever reads it learns that.
                    let _ = connection.set_nodelay(true);
                    return Some((connection, (listener, true)));
                }
                // Gone before we came to it.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if is_accepting {
                        tracing::warn!(%error, "connections cannot be accepted (is the limit on open files reached?)");
                    }
                    is_accepting = false;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}
